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
from MedGenLib.errors import InputError, WorkerError
from MedGenLib.worker.process import environment as worker_environment

CONNECT_SECONDS, TOKEN = 5.0, Path("~/.ray/auth_token")
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""An empty frame of settings: length, type, flags, stream (RFC 9113, 4.1 and 6.5). The server's comes first, too."""
HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
"""The first words of a client of gRPC, which Ray speaks: the preface and the settings (RFC 9113, 3.4)."""


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
        self._ray = connected(address, plan)
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        self.threads = threads = int(min([plan.threads, *(node["CPU"] for node in nodes)]))
        self._plan = replace(plan, threads=threads, gpus=())  # Ray hands out the GPUs
        self._needs: dict[str, float] = {"num_cpus": threads, "memory": int(plan.memory_mib * 2**20)}
        gpus = sum(node.get("GPU", 0) for node in nodes)
        if gpus and not plan.cpu_only:
            self._needs["num_gpus"] = min(1.0, gpus / plan.workers) if fixed else 1.0
        room = sum(self._room(node) for node in nodes)
        if fixed or room < 1:
            del self._needs["memory"]  # an actor without room would wait forever
        self.size = plan.workers if fixed else max(1, room if address else min(room, plan.workers))
        self._out, self._actors = str(out), {}

    def submit(self, place: int, case: CohortCase) -> Future[dict[str, Any]]:
        if place not in self._actors:
            self._actors[place] = self._actor()
        answer: Future[dict[str, Any]] = Future()

        actor = self._actors[place]

        def drop(done: Future[dict[str, Any]]) -> None:
            if done.cancelled():
                self._actors.pop(place, None)
                self._ray.kill(actor)

        def begin(done: Future[None]) -> None:
            if not answer.done():
                answer.set_running_or_notify_cancel()

        def settle(done: Future[dict[str, Any]]) -> None:
            if answer.cancelled():
                return
            if (error := done.exception()) is None:
                answer.set_result(done.result())
            else:
                self._actors.pop(place, None)  # before anyone can use the place again
                answer.set_exception(error)

        answer.add_done_callback(drop)
        actor.ready.remote().future().add_done_callback(begin)
        actor.run.remote(case.to_dict(), self._out).future().add_done_callback(settle)
        return answer

    def close(self) -> None:
        while self._actors:
            self._ray.kill(self._actors.popitem()[1])
        self._ray.shutdown()

    def _actor(self) -> Any:
        variables = worker_environment(environment(self._plan, 0))
        if home := os.environ.get("MEDGEN_HOME"):
            variables["MEDGEN_HOME"] = home
        options = {**self._needs, "runtime_env": {"env_vars": variables}}
        return self._ray.remote(CaseActor).options(**options).remote()

    def _room(self, node: dict[str, float]) -> int:
        """Actors for which a computer has room."""
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return int(min(node.get(names[name], 0) // need for name, need in self._needs.items()))


class CaseActor:
    """A process of Ray that keeps its models between cases."""

    def __init__(self) -> None:
        from MedGenLib.worker.job import Session

        self._session, self._count = Session(), 0

    def ready(self) -> None:
        """Answers as soon as the actor has a place."""

    def run(self, case: dict[str, Any], out: str) -> dict[str, Any]:
        from MedGenLib.worker.job import Request
        from MedGenLib.worker.methods import METHODS

        self._count += 1
        params = {"case": case, "out": out}
        job = Request(self._count, "cohort/case", params, self._session, lambda method, params: None)
        return METHODS[job.method](job, **params)


def connected(address: str | None, plan: WorkerPlan) -> Any:
    """Ray, connected to the cluster at an address or, without one, started here; InputError where there is none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # Ray prints each lost worker on stdout, which has results
    if address and TOKEN.expanduser().is_file():  # which a cluster that `ray start` has begun then asks for
        os.environ.setdefault("RAY_AUTH_MODE", "token")
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
    except Exception as error:  # Ray raises just that where it is slow to start
        if address is None:
            raise WorkerError(f"Ray did not start on this computer ({_reason(error)}); try again.") from None
        raise _no_cluster(address, error) from None
    return ray


def _require_listener(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            with socket.create_connection((host, int(port)), CONNECT_SECONDS) as link:
                link.sendall(HTTP_2)
                head = link.recv(9) if os.environ.get("RAY_USE_TLS", "0") in ("0", "false") else SETTINGS
                if len(head) < 9 or head[3] != SETTINGS[3] or any(head[5:]):  # such as Ray's own dashboard
                    raise OSError("another program answers there")
        except OSError as error:
            raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> InputError:
    return InputError(f"There is no Ray cluster at {address} ({_reason(error)}); start one, or leave out --address.")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
