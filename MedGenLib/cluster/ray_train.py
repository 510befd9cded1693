"""Training on Ray: its workers run the command together and are started again where one is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from MedGenLib.cluster.actors import connected
from MedGenLib.cluster.plan import WorkerPlan, usable_cores
from MedGenLib.errors import InputError, WorkerError

RESTARTS = 3
"""Lost workers after which the training is given up."""


def train_on_ray(
    command: Callable[[list[str]], int], words: Sequence[str], count: int, address: str, out: Path, device: str
) -> int:
    """Run a command, `medgen WORDS`, in workers of a Ray cluster; returns the exit code of the first one.

    All computers have to see the data set, the folder of the run and that of the installed models by the same paths.

    Raises
    ------
    InputError: Ray Train is not installed, there is no cluster at the address, or it has too few processors.
    WorkerError: workers were lost more than `RESTARTS` times.
    """
    threads = max(1, usable_cores() // count)
    ray = connected(None if address == "local" else address, WorkerPlan(count, threads, 0), log_to_driver=True)
    folder = out.resolve().with_name(f".{out.name}.ray")
    try:
        return _fitted(ray, {"command": command, "words": list(words)}, count, folder, device)
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _fitted(ray: Any, work: dict[str, Any], count: int, folder: Path, device: str) -> int:
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError:
        raise InputError("Ray Train is not installed; install it with `pip install medgen[cluster]`.") from None
    found = ray.cluster_resources()
    gpus = device != "cpu" and found.get("GPU", 0) >= count
    if not gpus and found.get("CPU", 0) < count:
        raise InputError(f"The cluster has {found.get('CPU', 0):g} processors, too few for {count} workers.")
    home = {"MEDGEN_HOME": os.environ["MEDGEN_HOME"]} if "MEDGEN_HOME" in os.environ else {}
    trainer = TorchTrainer(
        _work,
        train_loop_config={**work, "folder": os.getcwd(), "variables": home},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=count, use_gpu=gpus),
        run_config=RunConfig(
            name="training", storage_path=str(folder), failure_config=FailureConfig(max_failures=RESTARTS)
        ),
    )
    try:
        return int(trainer.fit().metrics["code"])
    except Exception as error:
        lost = WorkerError(f"The training on Ray was given up after {RESTARTS} restarts; the same command goes on.")
        lost.detail = str(error)
        raise lost from error


def _work(config: dict[str, Any]) -> None:
    """What each worker does; all report, as Ray waits for all."""
    from ray.train import report

    os.chdir(config["folder"])
    os.environ.update(config["variables"])
    report({"code": config["command"](config["words"])})
