"""Recipes of `medgen benchmark` that are trained at once: the same figures as one after the other, whatever ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_own_translator import TINY, pairs, words
from workers import eventually, gone, tree

from MedGenLib import cli
from MedGenLib.cli.console import Console
from MedGenLib.cluster.plan import WorkerPlan
from MedGenLib.cluster.workers import ProcessPool
from MedGenLib.errors import InputError, WorkerError
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.weights import load_weights
from MedGenLib.trainer.benchmark import benchmark
from MedGenLib.trainer.run import MEASURED, Choices
from MedGenLib.trainer.trials import run_trials, trial
from MedGenLib.worker.methods import METHODS
from MedGenLib.worker.process import descendants

RECIPES = ("regression", "pix2pix", "cyclegan")
SMALL = {f"{recipe}.{key}": value for recipe in RECIPES[:2] for key, value in TINY.items()}
SMALL |= {
    "cyclegan.network.width": "8",
    "cyclegan.network.blocks": "1",
    "discriminator.width": "8",
    "cut.network.width": "8",
}
FAILS = {"cyclegan.learning_rate": "1e30"}


def steps(count: int) -> dict[str, str]:
    return SMALL | FAILS | {f"{recipe}.steps.{recipe}": str(count) for recipe in RECIPES}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture
def free_costs(monkeypatch):
    """The time of one volume, which is measured as ever, in a process of its own."""
    monkeypatch.setattr("MedGenLib.trainer.benchmark._cost", lambda *_: [])


def same_models(first: str, second: str, folders: tuple[Path, Path]) -> None:
    for recipe in RECIPES[:2]:
        one, two = (load_weights(find(f"{name}-{recipe}"), "translator") for name in (first, second))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
        a, b = (json.loads((folder / recipe / MEASURED).read_text()) for folder in folders)
        assert a == b


class Pool:
    """Two places whose work is done here by one thread; the worker dies in the first training of some recipes."""

    def __init__(self, out: Path, *dies: str) -> None:
        self.size, self.threads, self.out, self.dies = 2, torch.get_num_threads(), out, dies
        self.starts, self.waiting = Counter(), ThreadPoolExecutor(1)

    def submit(self, place, case):
        return self.waiting.submit(self.run, json.loads(json.dumps(case.to_dict())))

    def run(self, case):
        self.starts[case["id"]] += 1
        dies = case["id"] in self.dies and self.starts[case["id"]] == 1
        try:
            return METHODS["cohort/case"](SimpleNamespace(progress=die if dies else None), case, str(self.out))
        except SystemExit:
            raise WorkerError("The worker ended unexpectedly.") from None

    def close(self):
        self.waiting.shutdown()


def die(progress):
    """End a worker, by no exception that a trial could make a sentence of."""
    if (progress.stage, progress.step) == ("training", 2):
        raise SystemExit


def test_trials_at_once_have_the_figures_of_one_after_the_other(data, tmp_path, free_costs, capsys):
    """A worker dies after a checkpoint, and another one goes on; a trial that fails is a row."""
    pair = tmp_path / "together", tmp_path / "alone"
    pool, recipes, name = Pool(pair[0], "pix2pix"), ("pix2pix", "cyclegan"), "models/translator.safetensors"
    choices = Choices(name="together", changes=steps(3))
    rows = benchmark(data, pair[0], recipes, choices, "cpu", progress=Console(), pool=pool)
    said = capsys.readouterr().err
    assert "worker of pix2pix ended; the trial is tried again" in said and "failed: cyclegan: The translation" in said
    assert pool.starts == {"pix2pix": 2, "cyclegan": 1} and rows[0].error is None and "loss became" in rows[1].error
    assert "training: 1 of 1" in (pair[0] / "pix2pix/log.txt").read_text(), "the second worker goes on from step 2"
    alone = benchmark(data, pair[1], recipes[:1], Choices(name="alone", changes=steps(3)), "cpu", pool.threads)
    assert alone[0].figures == rows[0].figures
    one, two = ((find(f"{known}-pix2pix").folder / name).read_bytes() for known in ("together", "alone"))
    assert one == two
    text = (pair[0] / "benchmark.md").read_text()
    assert f"At once ran up to 2 trials (threads of each: {pool.threads})." in text and "| cyclegan | failed |" in text
    assert "At once" not in (pair[1] / "benchmark.md").read_text()


def test_a_trial_that_ends_all_its_workers_is_given_up(tmp_path, capsys):
    class Deadly(Pool):
        def run(self, case):
            raise WorkerError("The worker ended unexpectedly.")

    trials = [trial(name, "data", Choices(), "cpu", 1) for name in ("a", "b")]
    ended = run_trials(trials, tmp_path, Deadly(tmp_path), Console())
    sentence = "3 workers ended during the training, the last one so: The worker ended unexpectedly."
    assert {name: (record.status, record.sentence) for name, record in ended.items()} == {
        name: ("failed", sentence) for name in "ab"
    }
    assert capsys.readouterr().err.count("the trial is tried again") == 2  # each is said once


def command(data: Path, out: Path, *more: str) -> list[str]:
    options = ["--recipes", ",".join(RECIPES), "--out", str(out), "--name", out.name, "--threads", "1"]
    return ["benchmark", str(data), *options, *words(steps(40)), *more]


def started(line: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "MedGenLib", *line]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def saved(out: Path) -> bool:
    return all((out / recipe / "translator" / "losses.jsonl").exists() for recipe in RECIPES[:2])


def killed(driver: subprocess.Popen[str], out: Path, name: bytes) -> None:
    """Kill a worker of the driver while both train."""
    assert eventually(lambda: saved(out) or driver.poll() is not None, 180)
    assert driver.poll() is None, driver.communicate()
    files = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(driver.pid)}
    os.kill(next(pid for pid, file in files.items() if name in file.read_bytes()), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_ctrl_c_leaves_no_process(data, tmp_path):
    out = tmp_path / "processes"
    line = command(data, out, "--workers", "2")
    driver = started(line)
    killed(driver, out, b"MedGenLib.worker")
    assert eventually(lambda: (out / "pix2pix" / MEASURED).exists(), 180)
    processes = tree(driver.pid)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130 and "Stopped; the same command goes on" in errors, errors
    assert "ended; the trial is tried again" in errors and eventually(gone(*processes), 20)
    assert cli.main(line) == 1
    assert cli.main(command(data, tmp_path / "alone")) == 1
    same_models("processes", "alone", (out, tmp_path / "alone"))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install medgen[cluster]")
def test_ray_runs_the_same_trials_and_replaces_an_actor(data, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a token there
    out = tmp_path / "ray"
    driver = started(command(data, out, "--workers", "2", "--address", "local"))
    killed(driver, out, b"ray::CaseActor")
    printed, errors = driver.communicate(timeout=300)
    assert driver.returncode == 1 and "At once ran up to 2 trials (threads of each: 1)." in printed, errors
    assert "ended; the trial is tried again" in errors
    assert cli.main(command(data, tmp_path / "alone2")) == 1
    same_models("ray", "alone2", (out, tmp_path / "alone2"))


def test_what_cannot_run_at_once_is_one_sentence_before_anything_is_trained(data, tmp_path, capsys, monkeypatch):
    line = command(data, tmp_path / "out", "--workers", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    gpus = [word for word in line if word not in ("--device", "cpu")]
    monkeypatch.setitem(sys.modules, "ray", None)
    for words_, sentence in (
        (gpus, "2 workers need as many GPUs, of which there are 1"),
        ([*line, "--address", "127.0.0.1:9"], "Ray is not installed; install it with `pip install medgen[cluster]`."),
        ([*line, "--workers", "0"], "--workers"),
    ):
        begin = time.monotonic()
        assert cli.main(words_) == 2 and time.monotonic() - begin < 30
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_benchmark_of_other_workers_is_refused(data, tmp_path, free_costs):
    benchmark(data, tmp_path / "out", RECIPES[2:], Choices(name="other", changes=steps(1)), "cpu")
    pool = ProcessPool(WorkerPlan(2, 1, 0), tmp_path / "out")
    with pytest.raises(InputError, match="or other workers"):
        benchmark(data, tmp_path / "out", RECIPES[2:], Choices(name="other", changes=steps(1)), "cpu", pool=pool)
