"""Devices, memory and versions as the machine tells them."""

import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch

from MedGenLib import devices
from MedGenLib.errors import InputError


def test_cpu_and_auto_are_always_there():
    assert devices.pick_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert devices.pick_device("auto").type == expected


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "", "CPU", "tpu:0"])
def test_unknown_device_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"'{name}' is unknown; use auto, cpu or cuda:0"):
        devices.pick_device(name)


def test_absent_device_says_how_many_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda:0' does not exist: PyTorch finds no usable"):
        devices.pick_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="finds only 2 usable CUDA devices"):
        devices.pick_device("cuda:2")


@pytest.mark.parametrize(("bfloat16_seconds", "taken"), [(2.0, False), (0.9, False), (0.5, True)])
def test_bfloat16_is_taken_only_when_clearly_faster(monkeypatch, bfloat16_seconds, taken):
    seconds = {torch.float32: 1.0, torch.bfloat16: bfloat16_seconds}
    monkeypatch.setattr(devices, "_time_convolution", lambda image, _: seconds[image.dtype])
    assert devices.probe_bfloat16.__wrapped__(torch.device("cpu")) is taken


def test_bfloat16_probe_runs_here_and_is_cached():
    cpu = torch.device("cpu")
    first = devices.probe_bfloat16(cpu)
    assert isinstance(first, bool)
    hits = devices.probe_bfloat16.cache_info().hits
    assert devices.probe_bfloat16(cpu) is first
    assert devices.probe_bfloat16.cache_info().hits == hits + 1


def test_free_memory_is_within_the_machine():
    assert 0 < devices.free_memory() <= psutil.virtual_memory().total


def test_a_container_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert devices._container_room(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert devices._container_room(tmp_path) == float("inf")


def test_peak_memory_grows_with_what_is_held():
    before = devices.peak_memory_mib()
    ballast = np.ones(int(before + 64) * devices.MIB // 8)  # more than all that was ever held
    assert devices.peak_memory_mib() >= before + 32
    assert ballast[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems tell no better")
def test_peak_memory_does_not_begin_with_that_of_the_program_that_started_it():
    """The system's own count of a child starts at its parent's size."""
    ballast = np.ones(50 * devices.MIB, np.float64)
    words = "from MedGenLib import devices; print(devices.peak_memory_mib())"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert float(done.stdout) < 200 < ballast.nbytes / devices.MIB


def test_the_number_format_is_remembered_on_disk(tmp_path, monkeypatch):
    """A busy machine must not decide anew: the same seed has to give the same voxels tomorrow."""
    from MedGenLib.pipelines import loading

    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "not" / "there" / "yet"))
    answers = iter([True, False])
    monkeypatch.setattr(devices, "probe_bfloat16", lambda device: next(answers))
    for _ in range(2):
        loading.bfloat16_pays.cache_clear()  # as in another process
        assert loading.bfloat16_pays(torch.device("cpu")) is True
    loading.bfloat16_pays.cache_clear()
