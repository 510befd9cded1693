"""The plan of a run: time and memory before anything is computed."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from maisis import manifest_of

from MedGenLib import generate, user_folders
from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.imaging.volume import Geometry, LabelMap
from MedGenLib.packages import find
from MedGenLib.pipelines import flow_sampling, scene
from MedGenLib.pipelines.estimate import announce_run, plan_run, remember
from MedGenLib.pipelines.memory_plan import LAYOUTS, Layout, MemoryDemand, choose, plans

THREADS = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))


def grid(side, spacing=2.0):
    return Geometry((side,) * 3 if isinstance(side, int) else side, np.diag([spacing] * 3 + [1]))


@pytest.mark.parametrize(("side", "seconds"), [(96, 4.1), (128, 9.7)])
def test_the_plan_agrees_with_the_measurements_of_the_card(side, seconds):
    plan = plan_run(find("ct-tissue"), grid(side))
    assert plan.seconds == pytest.approx(seconds, rel=0.2)
    assert plan.windows == 1 and plan.memory == "normal"
    size = f"{plan.memory_mib * 2**20 / 1e9:.1f} GB"
    assert plan.sentence == f"about {round(plan.seconds)} s on CPU, {size}"


def test_the_plan_of_a_translation_agrees_with_the_card():
    plan = plan_run(find("head-mr-to-ct"), grid((192, 256, 256), 1.0))
    assert plan.seconds == pytest.approx(25.6, rel=0.05)
    assert plan.memory_mib == pytest.approx(1046, rel=0.05)


def test_presets_samples_and_size_scale_the_time():
    model = find("ct-tissue")
    normal = plan_run(model, grid(96)).seconds
    few, usual = (model.preset(name).steps + 5 for name in ("draft", "normal"))
    assert plan_run(model, grid(96), "draft").seconds == pytest.approx(normal * few / usual)
    assert plan_run(model, grid(96), samples=3).seconds == pytest.approx(3 * normal)
    head = find("head-mr-to-ct")
    third, half, mirrored = (plan_run(head, grid(200, 1.0), p).seconds for p in ("draft", "normal", "best"))
    assert half == pytest.approx(1.5 * third) and mirrored == pytest.approx(5 * third)


def test_more_steps_than_the_presets_announce_more_time():
    said = []
    model, heard = find("ct-tissue"), SimpleNamespace(estimate=said.append)
    for steps in (None, 200):
        announce_run(model, grid(160), {"preset": "best", "device": "cpu", "steps": steps}, 1, heard)
    assert said == [f"this run: {plan_run(model, grid(160), 'best', samples=n).sentence}" for n in (1, 205 / 17)]
    assert said[0] != said[1]


def test_the_time_depends_on_the_working_grid():
    model = find("ct-tissue")
    fine = plan_run(model, grid(256, 0.75))  # resampled to 128^3 voxels of 1.5 mm
    assert fine.seconds == pytest.approx(plan_run(model, grid(128)).seconds)


def test_a_large_grid_is_sampled_in_windows_with_bounded_memory():
    model = find("ct-tissue")
    large = plan_run(model, grid(320))
    assert large.windows == math.prod([4] * 3)
    assert f"in {large.windows} windows" in large.sentence
    per_voxel = plan_run(model, grid(128)).memory_mib / 128**3
    assert large.memory_mib < per_voxel * 320**3


def test_the_windows_equal_those_of_the_sampler():
    from MedGenLib.pipelines.memory_plan import OVERLAP
    from MedGenLib.pipelines.windows import Windows

    layout = LAYOUTS["normal"]
    for side in (176, 240, 320):
        assert side // 2 > layout.whole
        windows = Windows((side // 2,) * 3, (layout.window,) * 3, OVERLAP, 4)
        assert plan_run(find("ct-tissue"), grid(side)).windows == len(list(windows))


def test_little_free_memory_selects_and_reports_the_small_plan():
    plan = plan_run(find("ct-tissue"), grid(128), free_mib=600)
    assert plan.memory == "small" and "little memory" in plan.sentence
    assert plan.memory_mib < plan_run(find("ct-tissue"), grid(128), free_mib=6000).memory_mib


def test_with_little_memory_features_are_recomputed_first():
    """Mask features are recomputed before the windows, and with them the result, change."""
    job = MemoryDemand(find("ct-tissue"), 512 * 512 * 256, (256, 256, 128))
    kept, again, small = plans(job)
    assert [p.layout.name for p in (kept, again, small)] == ["normal", "normal", "small"]
    assert (kept.keep, again.keep, small.keep) == (True, False, False)
    needs = [plan.need.process for plan in (kept, again, small)]
    assert needs[0] > needs[1] >= needs[2]
    for plan in (kept, again, small):
        assert choose(plans(job), plan.need.process + 1) in (kept, again, small)
        assert choose(plans(job), plan.need.process + 1).need == plan.need
    assert choose(plans(job), small.need.process - 1) is None
    assert [plan.layout.name for plan in plans(job, "small")] == ["small"]


def test_the_largest_request_fits_a_common_machine():
    for half in (False, True):
        job = MemoryDemand(find("ct-tissue"), 512 * 512 * 256, (256, 256, 128), half)
        assert choose(plans(job), 0.9 * 24 * 1024).keep
        assert choose(plans(job), 0.9 * 4 * 1024) is not None


def test_memory_is_split_between_gpu_and_process():
    on_cpu, on_gpu = (
        plans(MemoryDemand(find("ct-tissue"), 128**3, (64,) * 3, gpu=gpu))[0].need for gpu in (False, True)
    )
    assert on_cpu.device == 0 and on_gpu.process < on_cpu.process
    assert 100 < on_gpu.device < on_cpu.process
    crowded = plan_run(find("ct-tissue"), grid(320), device="cuda:0", free_mib=640)
    assert crowded.memory == "small" and crowded.memory_mib < 0.9 * 640


RUN = """
import sys, numpy as np
from MedGenLib import generate
from MedGenLib.pipelines import flow_sampling, loading
from MedGenLib.devices import favor_small_memory, peak_memory_mib
from MedGenLib.imaging.volume import LabelMap
favor_small_memory()  # as the worker does; the heap's fragments add 0 to 120 MiB by chance otherwise
loading.bfloat16_pays = flow_sampling.bfloat16_pays = lambda device: False
labels = np.ones([int(n) for n in sys.argv[1:]], np.uint8)
labels[16:-16, 16:-16] = 2
labels[40:60, 40:60] = 3
mask = LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]))
generate(mask, "ct-tissue", mapping="model", seed=1, steps=1, retries=0, device="cpu", memory="normal")
print(peak_memory_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the constants are those of Linux")
def test_a_run_uses_the_predicted_memory():
    shape = (112, 96, 96)
    words = [sys.executable, "-c", RUN, *map(str, shape)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **THREADS})
    assert done.returncode == 0, done.stderr
    predicted = plan_run(find("ct-tissue"), grid(shape)).memory_mib
    assert predicted == pytest.approx(float(done.stdout), rel=0.15)


def test_a_published_model_is_planned_on_its_legal_grid(tmp_path):
    manifest = manifest_of("nv-generate-ct", tmp_path)
    small, large = (plan_run(manifest, grid(side, 1.5), device="cuda:0") for side in (200, 400))
    assert small.seconds is None and small.windows == 1
    voxels = 512 * 512 * 512 - 256 * 256 * 256
    assert (large.memory_mib - small.memory_mib) * 2**20 / voxels == pytest.approx(544)
    assert plan_run(manifest, grid(400, 1.5)).memory_mib <= large.memory_mib
    with pytest.raises(InputError, match="no grid of the model"):
        plan_run(manifest, grid(900, 1.0))


def test_a_gpu_has_no_time_without_a_measurement():
    model = find("ct-tissue")
    plan = plan_run(model, grid(96), device="cuda:0")
    assert plan.seconds is None and "not known yet" in plan.sentence
    remember(model, grid(96), "normal", "cuda:0", 1, 0.6)
    assert plan_run(model, grid(96), device="cuda:0").seconds == pytest.approx(0.6)
    assert plan_run(model, grid(96), device="cpu").seconds > 3


def test_measurements_on_this_computer_override_the_card():
    model = find("ct-tissue")
    remember(model, grid(96), "normal", "cpu", 1, 2.0)
    assert plan_run(model, grid(96), device="auto").seconds == pytest.approx(2.0)
    remember(model, grid(96), "normal", "auto", 2, 8.0)  # 4 s each
    assert plan_run(model, grid(96)).seconds == pytest.approx(3.0)


def test_a_damaged_record_is_ignored():
    path = user_folders.cache_dir() / "timings.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[1]", json.dumps({"ct-tissue 1.0.0 on cpu": "fast"})):
        path.write_text(text)
        assert plan_run(find("ct-tissue"), grid(96)).seconds == pytest.approx(4.2, rel=0.2)


def test_an_unwritable_record_is_ignored(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    model = find("ct-tissue")
    monkeypatch.setattr(user_folders, "cache_dir", lambda: tmp_path / "file" / "cache")
    remember(model, grid(96), "normal", "cpu", 1, 2.0)
    assert plan_run(model, grid(96)).seconds == pytest.approx(4.2, rel=0.2)


def test_a_structure_model_is_planned_for_its_field_of_view_only():
    model = find("mr-hippocampus")
    small, large = plan_run(model, grid(59, 1.0)), plan_run(model, grid(256, 1.0))
    assert (large.windows, large.seconds) == (small.windows, small.seconds)
    per_voxel = (large.memory_mib - small.memory_mib) * 2**20 / 256**3
    assert per_voxel < 50  # the image and its checks, no network


def test_unplannable_requests_get_a_sentence():
    with pytest.raises(InputError, match="no preset 'ultra'"):
        plan_run(find("ct-tissue"), grid(96), "ultra")
    with pytest.raises(InputError, match="single voxel"):
        plan_run(find("ct-tissue"), grid(1))


# --- Effects of the plans ------------------------------------------------------------------------


def made(monkeypatch, number, **options):
    """A small volume in several windows, with the plan of this number."""
    monkeypatch.setitem(LAYOUTS, "normal", Layout("normal", whole=8, window=24, tile=16))
    monkeypatch.setattr(flow_sampling, "choose", lambda plans, *room: plans[number])
    labels = np.ones((64, 24, 24), np.uint8)
    labels[:, 8:16, 8:16] = 3
    mask = LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]))
    return generate(mask, "ct-tissue", mapping="model", seed=1, steps=2, retries=0, device="cpu", **options)


def test_recomputed_features_give_the_same_volume(monkeypatch):
    kept, again = made(monkeypatch, 0), made(monkeypatch, 1)
    assert kept.report.parameters["windows"] > 1
    assert kept.report.parameters["memory"] == again.report.parameters["memory"] == "normal"
    np.testing.assert_array_equal(kept.volume.array, again.volume.array)


def test_the_report_states_that_memory_was_insufficient(monkeypatch):
    short, asked = made(monkeypatch, 2), made(monkeypatch, 0, memory="small")
    codes = [[f.code for f in run.report.input_findings] for run in (short, asked)]
    assert "small-plan" in codes[0] and "small-plan" not in codes[1]
    assert short.report.parameters["memory"] == asked.report.parameters["memory"] == "small"
    np.testing.assert_array_equal(short.volume.array, asked.volume.array)


def test_a_request_that_fits_no_plan_is_one_sentence(monkeypatch):
    monkeypatch.setattr(scene, "free_memory", lambda device="cpu": 2**20)
    mask = LabelMap(np.ones((48, 48, 48), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    for memory in ("auto", "small", "normal"):
        with pytest.raises(MemoryPlanError, match="Even the smallest plan .* GiB are free; crop"):
            generate(mask, "ct-tissue", memory=memory, device="cpu")
    with pytest.raises(InputError, match="auto"):
        generate(mask, "ct-tissue", memory="huge")
