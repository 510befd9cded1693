"""A pool of Ray actors, on this computer or on a cluster; the images travel as files, which all nodes have to see."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedGenLib.cluster.plan import WorkerPlan
from MedGenLib.cluster.workers import environment
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.errors import InputError
from MedGenLib.worker.process import environment as worker_environment

CONNECT_SECONDS = 5.0


class RayPool:
    """Actors that run the worker's method for cases.

    Parameters
    ----------
    plan: workers of this computer; on a cluster as many as it has room for, unless `fixed`.
    address: of a running cluster; None starts one here.

    Raises
    ------
    InputError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, plan: WorkerPlan, out: Path, address: str | None, fixed: bool = False) -> None:
        self._ray = _connected(address, plan)
        self._plan = replace(plan, gpus=())  # Ray hands out the GPUs
        self._out = str(out)
        found = self._ray.cluster_resources().get("GPU", 0)
        self._gpus = 0.0 if plan.cpu_only or not found else min(1.0, found / plan.workers) if fixed else 1.0
        self.size = plan.workers if fixed or address is None else self._room()
        self._actors: dict[int, Any] = {}

    def submit(self, place: int, case: CohortCase) -> Future[dict[str, Any]]:
        if place not in self._actors:
            self._actors[place] = self._actor()
        future = self._actors[place].run.remote(case.to_dict(), self._out).future()
        future.add_done_callback(lambda done: self._actors.pop(place, None) if done.exception() else None)
        return future

    def close(self) -> None:
        for actor in list(self._actors.values()):
            self._ray.kill(actor)
        self._ray.shutdown()

    def _actor(self) -> Any:
        variables = worker_environment(environment(self._plan, 0))
        if home := os.environ.get("MEDGEN_HOME"):
            variables["MEDGEN_HOME"] = home
        needs = {
            "num_cpus": self._plan.threads,
            "num_gpus": self._gpus,
            "memory": int(self._plan.memory_mib * 2**20),
            "runtime_env": {"env_vars": variables},
        }
        return self._ray.remote(CaseActor).options(**needs).remote()

    def _room(self) -> int:
        """Actors for which the cluster has room."""
        found = self._ray.cluster_resources()
        rooms = [found.get("CPU", 1) // self._plan.threads, found.get("memory", 0) // (self._plan.memory_mib * 2**20)]
        if self._gpus:
            rooms.append(found.get("GPU", 0) // self._gpus)
        return max(1, int(min(rooms)))


class CaseActor:
    """A process of Ray that keeps its models between cases."""

    def __init__(self) -> None:
        from MedGenLib.worker.job import Session

        self._session, self._count = Session(), 0

    def run(self, case: dict[str, Any], out: str) -> dict[str, Any]:
        from MedGenLib.worker.job import Request
        from MedGenLib.worker.methods import METHODS

        self._count += 1
        params = {"case": case, "out": out}
        job = Request(self._count, "cohort/case", params, self._session, lambda method, params: None)
        return METHODS[job.method](job, **params)


def _connected(address: str | None, plan: WorkerPlan) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("Ray is not installed; install it with `pip install medgen[cluster]`.") from None
    if address:
        _require_listener(address)  # Ray itself waits for minutes
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        options |= {"include_dashboard": False, "num_cpus": plan.workers * plan.threads}
    try:
        ray.init(address or "local", **options)  # without an address, Ray would join one that runs here
    except (OSError, RuntimeError, ValueError) as error:
        raise _no_cluster(address or "this computer", error) from None
    return ray


def _require_listener(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"There is no Ray cluster at {address} ({reason}); start one, or leave out --address.")
