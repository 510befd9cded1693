"""Devices, memory and versions as the machine tells them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from MedGenLib import cli, devices
from MedGenLib.errors import InputError
from MedGenLib.pipelines import loading


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


@pytest.mark.parametrize(
    ("flags", "found"),
    [("avx2 avx512f", ()), ("avx512f avx512_bf16", ("avx512_bf16",)), ("amx_bf16 amx_tile", ("amx_bf16",))],
)
def test_bfloat16_is_taken_by_the_features_of_the_processor(monkeypatch, tmp_path, flags, found):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "x"} | dict.fromkeys(flags.split(), True))
    assert devices.bfloat16_features.__wrapped__() == found
    monkeypatch.setattr(devices, "bfloat16_features", lambda: found)
    assert devices.probe_bfloat16(cpu) is bool(found)
    assert loading.probe_key(cpu).endswith(found[0] if found else "no bfloat16")


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="only Linux lists the features in a file")
def test_without_capabilities_of_pytorch_the_features_are_those_of_the_system(monkeypatch):
    found = devices.bfloat16_features.__wrapped__()
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.bfloat16_features.__wrapped__() == found


@pytest.mark.slow
def test_the_number_format_does_not_depend_on_load(tmp_path):
    """New processes without a remembered answer: beside busy ones with one thread, and idle with two."""
    ask = "import torch; from MedGenLib.pipelines import loading; print(loading.bfloat16_pays(torch.device('cpu')))"
    spin = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    answers = set()
    try:
        for threads in (1, 2):
            if threads == 2:
                [process.kill() for process in spin]
            home = {"MEDGEN_HOME": str(tmp_path / str(threads)), "OMP_NUM_THREADS": str(threads)}
            done = subprocess.run(
                [sys.executable, "-c", ask], env=os.environ | home, capture_output=True, text=True, check=True
            )
            answers.add(done.stdout)
    finally:
        for process in spin:
            process.kill()
            process.wait()
    assert len(answers) == 1


def test_threads_sleep_in_a_command_unless_the_environment_has_a_policy(monkeypatch):
    for known, kept in ((None, "passive"), ("active", "active")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if known:
            monkeypatch.setenv("OMP_WAIT_POLICY", known)
        assert cli.main([]) == 0 and os.environ["OMP_WAIT_POLICY"] == kept


def test_free_memory_is_within_the_machine():
    assert 0 < devices.free_memory() <= psutil.virtual_memory().total


def test_a_container_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert devices.container_room(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.container_room(tmp_path) == float("inf")


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
    """A remembered answer counts; answers that an earlier version measured do not."""
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "not" / "there" / "yet"))
    answers = iter([True, False])
    monkeypatch.setattr(devices, "probe_bfloat16", lambda device: next(answers))
    for _ in range(2):
        loading.bfloat16_pays.cache_clear()  # as in another process
        assert loading.bfloat16_pays(torch.device("cpu")) is True
    loading.bfloat16_pays.cache_clear()
