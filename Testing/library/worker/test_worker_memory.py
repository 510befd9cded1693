"""Insufficient memory, and memory leaks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from workers import QUICK, data_mib, number_format, temporary_environment, trunk

import MedGenLib
from MedGenLib import devices
from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.imaging.volume import crop
from MedGenLib.io.files import read_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages import find
from MedGenLib.pipelines import flow_sampling, memory_plan, scene, slice_sampling
from MedGenLib.worker.client import Worker
from MedGenLib.worker.methods import memory as methods

LARGE, LARGER = (128, 128, 128), (160, 160, 160)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the limit exists on Linux only")


FORMATS = [pytest.param(False, id="float32"), pytest.param(True, id="bfloat16", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", autouse=True, params=FORMATS)
def home(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("home")
    with temporary_environment(MEDGEN_HOME=str(folder), OMP_NUM_THREADS="1"), number_format(request.param):
        yield folder


@pytest.fixture(scope="module")
def idle(home) -> int:
    """Memory of a worker with loaded libraries, MiB."""
    with Worker(env={"MEDGEN_WORKER_MEMORY_MIB": "100000"}) as worker:
        return data_mib(worker.info["pid"])


def limited(mib: int, log: list[str] | None = None) -> Worker:
    return Worker(env={"MEDGEN_WORKER_MEMORY_MIB": str(mib)}, on_log=None if log is None else log.append)


@linux
@pytest.mark.slow
def test_insufficient_memory_leads_to_the_small_plan(idle):
    """The limit is lowered until the normal plan fails; the small one must then succeed."""
    for above in (460, 400, 350, 300, 260):
        log: list[str] = []
        with limited(idle + above, log) as worker:
            result = worker.generate(trunk(LARGER), **{**QUICK, "steps": 1})
            if result.report["parameters"]["memory"] == "normal":
                continue
            again = worker.generate(trunk(), **QUICK)
        break
    assert result.report["parameters"]["memory"] == "small"
    codes = {finding["code"]: finding for finding in result.report["input_findings"]}
    assert codes["small-plan"]["level"] == "warning"
    assert codes["small-plan"]["sentence"] in result.sentences
    assert any("Trying again with the small plan" in line for line in log)
    with Worker() as worker:  # as many threads, no limit
        asked = worker.generate(trunk(LARGER), memory="small", **{**QUICK, "steps": 1})
    assert np.array_equal(result.volume.array, asked.volume.array), "the same seed, the small plan"
    assert again.report["parameters"]["memory"] == "normal", "nothing is left of the failure"


@linux
def test_memory_below_the_small_plan_is_one_sentence(idle):
    with limited(idle + 150) as worker:
        with pytest.raises(MemoryPlanError, match="small plan; crop the mask") as caught:
            worker.generate(trunk(LARGE), **QUICK)
        assert "\n" not in str(caught.value) and "Traceback" in caught.value.detail
        assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape


def test_a_plan_that_does_not_fit_is_replaced_before_it_runs(monkeypatch):
    """Free memory between the needs of both plans."""
    wide, again, small = (
        plan.need.process - memory_plan.BASE_MIB
        for plan in memory_plan.plans(memory_plan.MemoryDemand(find("ct-tissue"), 128**3, (64,) * 3))
    )
    assert small < again <= wide
    between = (small + 2) / 0.9 * 2**20
    for module in (scene, flow_sampling):
        monkeypatch.setattr(module, "free_memory", lambda device="cpu": between)
    with pytest.raises(MemoryPlanError, match="The normal plan .* needs about .*--memory small"):
        MedGenLib.generate(trunk(LARGE), memory="normal", **QUICK)

    tried = []

    def attempt(memory):
        tried.append(memory)
        options = {**QUICK, "steps": 1}
        return MedGenLib.generate(trunk(LARGE), memory=memory, **options)

    log = []
    job = type("Job", (), {"log": lambda self, text, level: log.append(text)})()
    result = methods.within_memory(job, attempt, "normal", "cpu", "mask")
    assert tried == ["normal", "small"] and "GiB" in log[0]
    assert result.report.parameters["windows"] > 1


def test_the_sentence_offers_the_cpu_on_a_gpu_only():
    for device, offered in (("cuda:0", True), ("cpu", False)):
        error = methods.too_large("The memory is full.", "", device, "image")
        assert ("or compute on the CPU" in str(error)) == offered
        assert "crop the image" in str(error)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shape mismatch"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_errors_of_full_memory_are_recognized(error, verdict):
    assert devices.is_out_of_memory(error) is verdict


@pytest.mark.slow
def test_the_small_plan_cuts_generation_into_smaller_pieces():
    mask = trunk((96, 96, 96))
    options = {**QUICK, "steps": 1}
    normal, small = (MedGenLib.generate(mask, memory=m, **options) for m in ("normal", "small"))
    assert (normal.report.parameters["memory"], small.report.parameters["memory"]) == ("normal", "small")
    assert normal.report.parameters["windows"] == 1 < small.report.parameters["windows"]
    soft = mask.array == 2
    means = [r.volume.array[soft].mean() for r in (normal, small)]
    assert abs(means[0] - means[1]) < 15, "another plan, the same tissue"


def test_the_small_plan_translates_the_same_image():
    head = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    slab = crop(head, (0, 0, 80), (*head.shape[:2], 92))
    options = {"device": "cpu", "accept_license": True, "preset": "draft"}
    seen = {"normal": [], "small": []}
    images = {
        memory: MedGenLib.translate(
            slab, "CT", memory=memory, progress=seen[memory].append, **options
        ).volume.array.astype(int)
        for memory in seen
    }
    totals = {
        memory: {p.total for p in progress if p.stage == "translating slices"}.pop()
        for memory, progress in seen.items()
    }
    assert totals["small"] > totals["normal"]
    assert np.abs(images["small"] - images["normal"]).mean() < 1
    assert slice_sampling.batch_pixels("small") * 4 == slice_sampling.batch_pixels("normal")


@pytest.mark.parametrize(
    "call",
    [
        lambda: MedGenLib.generate(trunk(), memory="huge", **QUICK),
        lambda: MedGenLib.translate("x.nii", "CT", memory="huge"),
    ],
)
def test_an_unknown_plan_is_one_sentence(call):
    with pytest.raises(InputError, match="no memory plan 'huge'; choose normal, small or auto"):
        call()


def test_many_runs_do_not_leak_memory(home):
    import psutil

    with Worker() as worker:
        process = psutil.Process(worker.info["pid"])
        held = []
        for _ in range(20):
            worker.generate(trunk(), **QUICK)
            worker.call("devices")  # waits for the clean-up after the run
            held.append(process.memory_info().rss / 2**20)
    assert max(held[5:]) - held[4] < 40
