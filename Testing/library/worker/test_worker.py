"""The real worker process and its client: results, progress, cancellation, failures."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from workers import QUICK, at_start, eventually, gone, left_handed_oblique, temporary_environment, tree, trunk

import MedGenLib
from MedGenLib.errors import Cancelled, DiskFullError, InputError, LicenseError, PackageError, WorkerError
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import find
from MedGenLib.worker import client, piped
from MedGenLib.worker.client import Worker
from MedGenLib.worker.process import command, environment, kill_tree
from MedGenLib.worker.protocol import messages, transfer
from MedGenLib.worker.server import Server

STAGES = ["preparing", "reading the mask", "sampling", "decoding", "checking", "writing"]
HEAD = {"device": "cpu", "accept_license": True, "preset": "draft"}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    with temporary_environment(MEDGEN_HOME=str(folder)):
        yield folder


@pytest.fixture(scope="module")
def shared(home):
    with Worker() as worker:
        yield worker


@pytest.fixture
def worker(shared):
    """The worker of all tests; each test must leave it usable."""
    yield shared
    assert shared.call("devices")["devices"]
    assert list(shared._folder.iterdir()) == [], "no file of a run stays behind"


@pytest.fixture(scope="module")
def slab() -> Volume:
    head = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    middle = head.shape[2] // 2
    return crop(head, (0, 0, middle), (*head.shape[:2], middle + 4))


# Results


def test_the_worker_reports_versions_and_devices(worker):
    info = worker.info
    assert info["protocol"] == messages.PROTOCOL and info["python"] == sys.executable
    assert info["versions"]["medgen"] == MedGenLib.__version__ and info["versions"]["torch"]
    cpu = info["devices"][0]
    assert cpu["name"] == "cpu" and cpu["description"].startswith("CPU")
    assert 0 < cpu["free_mib"] <= cpu["total_mib"]
    assert "torch" not in sys.modules or info["pid"] != os.getpid()


def test_the_self_test_computes_on_every_device(worker):
    answer = worker.call("self_test")
    assert answer["passed"] and answer["devices"][0]["name"] == "cpu"
    assert answer["devices"][0]["sentence"] == "cpu computes."


@pytest.mark.parametrize("affine", [None, left_handed_oblique((2.0, 1.5, 3.0))])
def test_generated_voxels_and_grid_equal_those_of_the_library(worker, affine):
    mask = trunk(affine=affine)
    remote = worker.generate(mask, "ct-tissue", **QUICK)
    local = MedGenLib.generate(mask, "ct-tissue", **QUICK)
    assert remote.volume.array.dtype == local.volume.array.dtype
    assert np.array_equal(remote.volume.array, local.volume.array)
    assert np.array_equal(remote.volume.affine, mask.affine)
    assert (remote.volume.modality, remote.volume.unit) == ("CT", "HU")
    assert remote.sentences == local.report.sentences
    assert remote.passed == local.report.passed
    assert remote.report["parameters"] == json.loads(json.dumps(local.report.to_dict()))["parameters"]


def test_translated_voxels_equal_those_of_the_library(worker, slab):
    remote = worker.translate(slab, "CT", **HEAD)
    local = MedGenLib.translate(slab, "CT", **HEAD)
    assert np.array_equal(remote.volume.array, local.volume.array)
    assert np.array_equal(remote.volume.affine, slab.affine)


def test_files_are_read_by_the_worker(worker, slab, tmp_path):
    path = write_volume(trunk(), tmp_path / "mask.nii.gz")
    remote = worker.generate(path, **QUICK)
    assert np.array_equal(remote.volume.array, worker.generate(trunk(), **QUICK).volume.array)
    with pytest.raises(InputError, match=r"nothing\.nii"):
        worker.generate(tmp_path / "nothing.nii", **QUICK)


def test_samples_and_their_uncertainty(worker):
    result = worker.generate(trunk(), samples=3, uncertainty=True, **QUICK)
    stack = np.stack([volume.array for volume in result.volumes]).astype(float)
    assert len(stack) == 3 and not np.array_equal(stack[0], stack[1])
    found = result.uncertainty
    assert np.allclose(found.array, stack.std(axis=0, ddof=1), atol=1e-3)
    assert np.array_equal(found.affine, trunk().affine) and found.unit == "HU"
    assert worker.generate(trunk(), **QUICK).uncertainty is None
    one = worker.generate(trunk(), uncertainty=True, **QUICK)
    assert np.array_equal(one.volume.array, result.volumes[0].array)
    assert np.array_equal(one.uncertainty.array > 0, trunk().array > 0)
    assert "interval" in {finding["code"] for finding in one.report["input_findings"]}


def test_the_former_name_of_the_uncertainty_works_and_warns(worker, tmp_path):
    with pytest.warns(DeprecationWarning, match="'spread' is now 'uncertainty'") as caught:
        result = worker.generate(trunk(), samples=2, spread=True, **QUICK)
        assert np.array_equal(result.spread.array, result.uncertainty.array)
    assert {warning.filename for warning in caught} == {__file__}
    given = {"input": transfer.put(trunk(), tmp_path, "in"), "folder": str(tmp_path), "samples": 2}
    answer = worker.call("generate", spread=True, **given, **QUICK)
    assert answer["spread"] == answer["uncertainty"] and Path(answer["uncertainty"]["path"]).is_file()


def test_every_option_reaches_the_library(worker):
    options = {
        "mapping": {2: "soft tissue", "4": 0, 1: 1},
        "fill": "fat",
        "noise_hu": 8.0,
        "sampler": "heun",
        "guidance": 1.5,
        "memory": "small",
    }
    remote = worker.generate(trunk(), **QUICK, **options)
    local = MedGenLib.generate(trunk(), **QUICK, **options)
    assert np.array_equal(remote.volume.array, local.volume.array)
    assert remote.report["sampler"] == "heun"
    assert remote.report["parameters"]["memory"] == "small"
    assert remote.report["parameters"]["guidance"] == 1.5


def test_the_second_run_reuses_the_loaded_networks(home):
    with Worker() as fresh:
        first, second = (fresh.generate(trunk(), **QUICK).report["timings"] for _ in range(2))
    assert second["preparing"] < first["preparing"] / 2


def test_evaluation(worker, slab, tmp_path):
    other = slab.with_array(slab.array * 1.1)
    answer = worker.evaluate(other, slab, report=str(tmp_path / "report"))
    rows = {row["name"]: row for row in answer["rows"]}
    assert list(rows) == ["MAE", "RMSE", "Bias", "PSNR", "SSIM", "MS-SSIM", "NCC"]
    assert rows["NCC"]["value"] == pytest.approx(1)
    assert rows["MAE"]["sentence"].startswith("The mean absolute error is")
    assert "body" in answer["note"]
    error = answer["error_map"]
    assert error.geometry.is_close(slab.geometry)
    inside = np.abs(error.array[error.array != 0])  # nearly all voxels of the body
    assert inside.mean() == pytest.approx(rows["MAE"]["value"], rel=0.02)
    assert answer["report"] == str(tmp_path / "report" / "report.html")
    assert Path(answer["report"]).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_failed_evaluation_leaves_no_report(worker, slab, tmp_path):
    with pytest.raises(InputError, match="nothing to compare"):
        worker.evaluate(slab, report=str(tmp_path / "report"))
    assert not (tmp_path / "report").exists()
    (tmp_path / "report.html").touch()
    with pytest.raises(InputError, match="exists already"):
        worker.evaluate(slab, slab, report=str(tmp_path))


def test_models_can_be_listed_added_and_removed(worker, tmp_path):
    def listed():
        return {model["name"]: model for model in worker.call("models/list")["models"]}

    before = listed()
    assert {"ct-tissue", "head-mr-to-ct"} <= set(before)
    tissue = before["ct-tissue"]
    assert tissue["presets"] == ["draft", "normal", "best"] and tissue["embedded"]
    assert tissue["input"]["labels"]["2"] == "soft tissue" and tissue["license"]["accepted"]
    with pytest.raises(PackageError, match="no file or folder"):
        worker.call("models/add", source=str(tmp_path / "nothing.zip"))
    with pytest.raises(PackageError, match="part of MedGen"):
        worker.call("models/remove", name="ct-tissue")

    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(find("ct-tissue").folder, copy)
    metadata = copy / "configs" / "metadata.json"
    data = json.loads(metadata.read_text())
    data["name"] = "mine"
    metadata.write_text(json.dumps(data))
    assert worker.call("models/add", source=str(copy))["name"] == "mine"
    assert not listed()["mine"]["embedded"]
    worker.call("models/remove", name="mine")
    assert listed().keys() == before.keys()


# Progress


def test_every_stage_is_reported_with_time_and_memory(worker):
    seen = []
    worker.generate(trunk(), progress=seen.append, **QUICK)
    order = list(dict.fromkeys(progress.stage for progress in seen))
    assert order == ["starting", *STAGES]
    for stage in STAGES:
        steps = [p for p in seen if p.stage == stage]
        assert (steps[0].step, steps[-1].step) == (0, steps[-1].total)
        assert steps[-1].seconds_left == 0


def test_translation_reports_its_stages(worker, slab):
    seen = []
    worker.translate(slab, "CT", progress=seen.append, **HEAD)
    order = list(dict.fromkeys(progress.stage for progress in seen))
    assert order == ["starting", "preparing", "translating slices", "checking", "writing"]


class Wire:
    """The worker's protocol without a client."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment({**os.environ, **env}),
        )
        self.folder = folder

    def send(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def ask(self, number, method, **params) -> None:
        self.send(messages.encode(messages.request(number, method, params)))

    def read(self) -> dict:
        return messages.decode(self.process.stdout.readline())

    def until(self, number) -> tuple[dict, list[dict]]:
        """The answer to a request, and all that came before it."""
        before = []
        while True:
            message = self.read()
            if "method" not in message and message["id"] == number:
                return message, before
            before.append(message)


@pytest.fixture
def wire(tmp_path):
    wire = Wire(tmp_path)
    yield wire
    kill_tree(wire.process.pid)
    wire.process.wait()


def test_a_heartbeat_every_second_with_the_memory_in_use(wire):
    item = transfer.put(trunk((120, 120, 120)), wire.folder, "in")
    wire.ask(1, "generate", input=item, folder=str(wire.folder), **{**QUICK, "steps": 200})
    arrived, end = [], time.monotonic() + 5
    while time.monotonic() < end:
        message = wire.read()
        assert message["method"] == "progress"
        assert {"id", "stage", "step", "total", "seconds_left", "memory_mib"} == set(message["params"])
        arrived.append(time.monotonic())
    assert message["params"]["memory_mib"] > 50
    assert max(np.diff(arrived)) < 3, "also while a single network evaluation takes long"


def test_invalid_messages_get_the_errors_of_json_rpc(wire):
    wire.send(b"hello\n\n[]\n" + messages.encode({"id": 3}))
    wire.send(messages.encode({"id": 4, "method": "devices", "params": [1]}))
    wire.ask(5, "paint")
    wire.ask(6, "devices", brush=3)
    wire.ask(9, "generate", brush=3)
    wire.ask(None, "paint")
    wire.ask(7, "cancel", id=99)
    last, before = wire.until(9)
    wire.ask(8, "shutdown")
    answers = {}
    for message in [*before, last, wire.until(8)[0]]:
        if "method" not in message:
            answers.setdefault(message["id"], []).append(message)
    codes = {number: [m.get("error", {}).get("code") for m in found] for number, found in answers.items()}
    assert codes == {
        None: [messages.PARSE_ERROR, messages.INVALID_REQUEST],
        3: [messages.INVALID_REQUEST],
        4: [messages.INVALID_PARAMS],
        5: [messages.UNKNOWN_METHOD],
        6: [messages.INVALID_PARAMS],
        7: [None],
        8: [None],
        9: [-32001],
    }
    assert "'brush' of generate is unknown; use input, model" in answers[9][0]["error"]["message"]
    assert answers[7][0]["result"] == {"found": False}
    assert "paint" in answers[5][0]["error"]["message"]
    assert wire.process.wait(5) == 0


def test_prints_of_any_library_do_not_reach_the_protocol(home, tmp_path):
    code = (
        "import os, sys, threading, time\n"
        "def noise():\n"
        "    time.sleep(0.5)\n"
        "    while True:\n"
        "        os.write(1, b'a stray line\\n'); print('another', file=sys.stdout, flush=True)\n"
        "        time.sleep(0.002)\n"
        "threading.Thread(target=noise, daemon=True).start()\n"
    )
    with Worker(env=at_start(tmp_path, code)) as noisy:
        assert noisy.generate(trunk(), **QUICK).volume.shape == trunk().shape
        assert eventually(lambda: {"a stray line", "another"} <= set(noisy.log), 5)


def test_stdin_is_empty_for_libraries(home, tmp_path):
    code = (
        "import sys, threading, time\n"
        "def thief():\n"
        "    time.sleep(0.5); print('stole', repr(sys.stdin.read()), file=sys.stderr, flush=True)\n"
        "threading.Thread(target=thief, daemon=True).start()\n"
    )
    with Worker(env=at_start(tmp_path, code)) as robbed:
        for _ in range(5):
            robbed.call("devices")
            time.sleep(0.2)
        assert "stole ''" in robbed.log


# Cancel


@pytest.mark.parametrize("stage", ["starting", *STAGES])
def test_cancel_takes_effect_in_every_stage(tmp_path, stage):
    """The server in this process, to cancel at exactly this moment."""
    written = []
    server = Server(io.BytesIO(), written.append)
    item = transfer.put(trunk(), tmp_path, "in")
    params = {"input": item, "folder": str(tmp_path), **QUICK}

    def write(line):
        message = messages.decode(line)
        written.append(message)
        if message.get("method") == "progress" and message["params"]["stage"] == stage:
            server._cancel(None, 1)

    server._write = write
    server._accept(1, "generate", params)
    server._work(server._jobs.get())
    assert written[-1]["error"]["code"] == -32005 and written[-1]["id"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.npy"]


def test_cancel_takes_effect_within_one_evaluation_of_the_network(wire):
    """Also between the windows of one evaluation."""
    item = transfer.put(trunk((176, 120, 120)), wire.folder, "in")
    wire.ask(1, "generate", input=item, folder=str(wire.folder), **{**QUICK, "steps": 50})
    while (message := wire.read()["params"])["stage"] != "sampling" or message["step"] < 1:
        pass
    assert message["total"] > 50, "each window counts"
    wire.ask(None, "cancel", id=1)
    answer, before = wire.until(1)
    assert answer["error"]["code"] == -32005
    assert max([m["params"]["step"] for m in before], default=0) <= message["step"] + 1
    assert [path.name for path in wire.folder.iterdir()] == ["in.npy"]


def test_cancel_between_batches_of_slices(worker, slab):
    with pytest.raises(Cancelled):
        worker.translate(slab, "CT", progress=stop_at("translating slices", 0), **HEAD)


def stop_at(stage, step):
    def progress(p):
        if p.stage == stage and p.step >= step:
            raise Cancelled("enough")

    return progress


def test_exceptions_of_the_callback_are_raised_in_the_client(worker):
    class Enough(Exception):
        pass

    def progress(p):
        if p.stage == "sampling":
            raise Enough

    with pytest.raises(Enough):
        worker.generate(trunk(), progress=progress, **{**QUICK, "steps": 500})


def test_a_queued_job_can_be_canceled(worker):
    first = worker.submit("generate", trunk(), **{**QUICK, "steps": 300})
    second = worker.submit("generate", trunk(), **QUICK)
    second.cancel()
    first.cancel()
    for job in (first, second):
        with pytest.raises(Cancelled, match="nothing was written"):
            job.result(20)


def test_a_job_calls_back_and_can_be_waited_for(worker):
    called, steps = threading.Event(), []
    job = worker.submit("generate", trunk(), progress=steps.append, on_done=lambda job: called.set(), **QUICK)
    with pytest.raises(TimeoutError):
        job.result(0.0)
    assert job.result(30).volume.shape == trunk().shape
    assert called.wait(5) and job.done and job.error is None and steps
    job.cancel()  # no effect after the end


def test_callbacks_may_send_requests(worker):
    results = []
    job = worker.submit(
        "generate", trunk(), on_done=lambda job: results.append(worker.submit("generate", trunk(), **QUICK)), **QUICK
    )
    job.result(30)
    assert eventually(lambda: bool(results), 5)
    assert results[0].result(30).volume.shape == trunk().shape


# Failures; the fixture checks that the worker is usable afterwards


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"model": "nothing"}, PackageError, "no model named"),
        ({"model": "head-mr-to-ct"}, InputError, "translates images"),
        ({"preset": "perfect"}, InputError, "no preset"),
        ({"samples": 0}, InputError, "at least 1"),
        ({"device": "cuda:7"}, InputError, "cuda:7"),
        ({"memory": "tiny"}, InputError, "no memory plan"),
        ({"guidence": 3}, InputError, "'guidence' of generate is unknown; use guidance"),
        ({"steps": "many"}, InputError, "whole number"),
    ],
)
def test_a_failed_request_is_one_sentence_and_the_worker_continues(worker, change, kind, words):
    with pytest.raises(kind, match=words) as caught:
        worker.generate(trunk(), **{**QUICK, **change})
    assert "\n" not in str(caught.value)
    assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape


def test_a_missing_folder_for_the_results(worker, tmp_path):
    item = transfer.put(trunk(), tmp_path, "in")
    with pytest.raises(InputError, match="/nowhere for the results does not exist"):
        worker.call("generate", input=item, folder="/nowhere")


def test_a_license_not_accepted(home, slab, tmp_path):
    with Worker(env={"MEDGEN_HOME": str(tmp_path)}) as worker:
        with pytest.raises(LicenseError, match="allows no commercial use"):
            worker.translate(slab, "CT", device="cpu")
        model = worker.call("models/list")["models"]
        accepted = {m["name"]: m["license"]["accepted"] for m in model}
    assert not accepted["head-mr-to-ct"] and accepted["ct-tissue"]


def test_an_unexpected_error_has_its_traceback(worker):
    with pytest.raises(WorkerError, match="unexpected error") as caught:
        worker.call("models/add", source=5)
    assert "Traceback" in caught.value.detail


def test_a_full_disk_while_writing_the_result(home, tmp_path):
    mask = trunk((40, 40, 40))  # 128 kB as 16-bit numbers
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
    with Worker(env=at_start(tmp_path, limit)) as cramped:
        with pytest.raises(DiskFullError, match="disk is full") as caught:
            cramped.generate(mask, **QUICK)
        assert "\n" not in str(caught.value)
        assert list(cramped._folder.iterdir()) == []
        assert cramped.generate(trunk(), **QUICK).volume.shape == trunk().shape


def test_no_folder_for_temporary_files(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(InputError, match="temporary folder.*TMPDIR"):
        Worker().start()


def test_a_killed_worker_is_restarted(home):
    with Worker() as worker:
        job = worker.submit("generate", trunk(), **{**QUICK, "steps": 500})
        assert eventually(lambda: worker.pid is not None, 5)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="ended unexpectedly.*-9.*memory"):
            job.result(20)
        first = worker.info["pid"]
        assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape
        assert worker.info["pid"] != first


def test_a_silent_worker_is_stopped(home, monkeypatch):
    with Worker() as worker:
        job = worker.submit("generate", trunk(), **{**QUICK, "steps": 1000})
        monkeypatch.setattr(piped, "SILENCE_TIMEOUT", 2.0)
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match="did not respond"):
            job.result(20)
        assert eventually(gone(pid), 5)
        monkeypatch.undo()


def test_closing_ends_running_jobs_and_leaves_no_files(home):
    worker = Worker().start()
    folder, pid = worker._folder, worker.pid
    job = worker.submit("generate", trunk(), **{**QUICK, "steps": 1000})
    worker.close()
    with pytest.raises(WorkerError, match="closed"):
        job.result(5)
    assert gone(pid)() and not folder.exists() and worker.pid is None
    worker.close()
    assert worker.generate(trunk(), **QUICK).volume.shape == trunk().shape
    worker.close()


# A worker that cannot start


def test_a_missing_python():
    with pytest.raises(WorkerError, match="cannot start.*/nowhere/python"):
        Worker("/nowhere/python").start()


def test_a_program_that_is_not_a_worker():
    with pytest.raises(WorkerError, match="an invalid message|could not start with the Python"):
        Worker("/bin/echo").start()


def test_garbage_from_the_start(home, tmp_path):
    worker = Worker(env=at_start(tmp_path, "print('Loading, please wait ...', flush=True)\n"))
    with pytest.raises(WorkerError, match="an invalid message") as caught:
        worker.start()
    assert "Loading" in caught.value.detail and worker.pid is None


def test_missing_packages_are_listed(tmp_path):
    """A real Python without the packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    python = str(tmp_path / "bare" / scripts / "python")
    with pytest.raises(WorkerError, match=r"lacks the packages .*numpy.*torch.*; install them"):
        Worker(python).start()


def test_a_missing_torch_is_listed(tmp_path):
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
    )
    with pytest.raises(WorkerError, match="lacks the package torch; install it"):
        Worker(env=at_start(tmp_path, code)).start()


def test_a_torch_that_cannot_be_loaded(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('DLL load failed')\n")
    with pytest.raises(WorkerError, match=r"torch .*cannot be loaded \(DLL load failed\)"):
        Worker(env={"PYTHONPATH": str(tmp_path)}).start()


def test_a_python_that_is_too_old(tmp_path):
    code = "import sys\nsys.version_info = (3, 10, 13, 'final', 0)\n"
    with pytest.raises(WorkerError, match=r"Python 3\.10 .*needs Python 3\.11 or newer"):
        Worker(env=at_start(tmp_path, code)).start()


def test_a_worker_that_never_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "START_TIMEOUT", 1.0)
    code = "import sys, time\nif 'MedGenLib' in ' '.join(sys.orig_argv): time.sleep(60)\n"
    worker = Worker(env=at_start(tmp_path, code))
    start = time.monotonic()
    with pytest.raises(WorkerError, match="did not answer within 1 second"):
        worker.start()
    assert time.monotonic() - start < 5 and worker.pid is None


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_behind_a_launcher_the_whole_tree_ends(home, tmp_path):
    """As with PythonSlicer: the started process is not the worker."""
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    launcher.chmod(0o755)
    worker = Worker(str(launcher)).start()
    assert worker.info["pid"] != worker.pid
    processes = tree(worker.pid)
    assert len(processes) == 2
    job = worker.submit("generate", trunk(), **{**QUICK, "steps": 1000})
    kill_tree(worker.pid)
    with pytest.raises(WorkerError):
        job.result(10)
    assert eventually(gone(*processes), 2)
    worker.close()
