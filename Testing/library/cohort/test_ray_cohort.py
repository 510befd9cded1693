"""The same cohort on Ray: really started here, an actor killed, the same images as from worker processes."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from cohorts import contents, generation, records, start, write_masks

from MedGenLib.cli import main
from MedGenLib.worker.process import descendants

ray_is_missing = importlib.util.find_spec("ray") is None
needs_ray = pytest.mark.skipif(ray_is_missing, reason="Ray is not installed: pip install medgen[cluster]")


@pytest.fixture
def manifest(tmp_path):
    return generation(tmp_path / "c.yaml", write_masks(tmp_path / "masks", 4))


@needs_ray
@pytest.mark.slow
def test_ray_makes_the_same_images_and_replaces_an_actor(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token there
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    driver = start(manifest, tmp_path / "ray", "--ray", "--workers", "2")
    killed = None
    while killed is None and driver.poll() is None:
        if list((tmp_path / "ray").glob("cases/*/record.json")):
            killed = next((pid for pid in descendants(driver.pid) if is_actor(pid)), None)
            if killed is not None:
                os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    printed, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    assert killed is not None and "2 Ray actors of" in errors and "4 of 4 cases done (4 now)" in printed
    assert main(["cohort", "run", str(manifest), "-o", str(tmp_path / "processes"), "--workers", "2"]) == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "processes")
    assert all(record.passed is not None for record in records(tmp_path / "ray").values())


@needs_ray
def test_a_cluster_that_is_not_there_is_named_at_once(manifest, capsys):
    start = time.monotonic()
    assert main(["cohort", "run", str(manifest), "--address", "127.0.0.1:9"]) == 2
    assert time.monotonic() - start < 90  # not after the minutes that Ray waits by default
    assert "There is no Ray cluster at 127.0.0.1:9" in capsys.readouterr().err


def test_without_ray_the_extra_that_installs_it_is_named(manifest, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["cohort", "run", str(manifest), "--ray"]) == 2
    assert "Ray is not installed; install it with `pip install medgen[cluster]`." in capsys.readouterr().err


def is_actor(pid: int) -> bool:
    try:
        return b"ray::CaseActor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
