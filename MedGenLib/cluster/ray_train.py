"""Training on Ray: its workers run the command together and are started again where one is lost."""

from __future__ import annotations

import contextlib
import io
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from MedGenLib.cluster.actors import connected
from MedGenLib.cluster.plan import WorkerPlan, usable_cores
from MedGenLib.cluster.ranks import GRACE
from MedGenLib.errors import InputError, WorkerError

Command = Callable[[list[str]], int]
POLL, RESTARTS = 0.2, 3
"""Seconds between two looks at what the workers print, and lost workers after which the training is given up."""
ROOM_SECONDS = 30.0
"""Seconds after which it is said that the cluster is busy."""


def train_on_ray(
    command: Command, words: Sequence[str], count: int, address: str, device: str, say: Callable[[str], None]
) -> int:
    """Run a command, `medgen WORDS`, in workers of a Ray cluster; returns the exit code of the first one.

    All computers have to see the data set, the folder of the run and that of the installed models by the same paths.

    Parameters
    ----------
    say: prints a sentence, such as that a worker was lost.

    Raises
    ------
    InputError: Ray is not installed, there is no cluster at the address, or it has too few processors.
    WorkerError: workers were lost more than `RESTARTS` times, or MedGen is not installed where they run.
    """
    threads = max(1, usable_cores() // count)
    ray = connected(None if address == "local" else address, WorkerPlan(count, threads, 0))
    try:
        needs = shares([node["Resources"] for node in ray.nodes() if node["Alive"]], count, device)
        for restart in range(1, RESTARTS + 2):
            with _actors(ray, needs, count, say) as actors:
                code = _code(ray, actors, command, list(words))
            if code is not None:
                return code
            if restart <= RESTARTS:
                say(f"A worker was lost; the training goes on from its last checkpoint (restart {restart}).")
    except ray.exceptions.RayError as error:
        failed = WorkerError("The workers of Ray cannot run this MedGen; install the same version on all computers.")
        failed.detail = str(error)
        raise failed from error
    finally:
        ray.shutdown()
    raise WorkerError(f"The training on Ray was given up after {RESTARTS} restarts; the same command goes on.")


def shares(nodes: Sequence[dict[str, float]], count: int, device: str) -> dict[str, float]:
    """What each of so many workers gets: a GPU if there are enough, and an equal share of the processors.

    ``nodes`` are the resources of the computers, as Ray names them. Raises InputError for too few processors.
    """
    gpus = device != "cpu" and sum(node.get("GPU", 0) for node in nodes) >= count
    for threads in range(int(max(node.get("CPU", 0) for node in nodes)), 0, -1):
        places = [min(node.get("CPU", 0) // threads, node.get("GPU", 0) if gpus else count) for node in nodes]
        if sum(places) >= count:
            return {"CPU": threads, **({"GPU": 1} if gpus else {})}
    found = sum(node.get("CPU", 0) for node in nodes)
    raise InputError(f"The cluster has {found:g} processors, too few for {count} workers.")


@contextlib.contextmanager
def _actors(ray: Any, needs: dict[str, float], count: int, say: Callable[[str], None]) -> Iterator[list[Any]]:
    """Workers that begin together: two trainings on a full cluster do not wait for each other's halves."""
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([needs] * count)
    try:
        if not group.wait(ROOM_SECONDS):
            say("Waiting until the cluster has room.")
            ray.get(group.ready())
        options = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU", 0)}
        places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(count)]
        yield [ray.remote(RankActor).options(**options, scheduling_strategy=place).remote() for place in places]
    finally:
        remove_placement_group(group)  # which ends its actors


def _code(ray: Any, actors: list[Any], command: Command, words: list[str]) -> int | None:
    """The exit code of the first process; None if one was lost."""
    from ray import exceptions as errors
    from ray.util.queue import Queue

    host, port = ray.get([actor.meeting.remote() for actor in actors])[0]
    group = {"MASTER_ADDR": host, "MASTER_PORT": port, "WORLD_SIZE": str(len(actors))}
    if home := os.environ.get("MEDGEN_HOME"):
        group["MEDGEN_HOME"] = home
    said, work = Queue(), (command, words, os.getcwd())
    running = [actor.run.remote(*work, {**group, "RANK": str(rank)}, said) for rank, actor in enumerate(actors)]
    codes, left, until = {}, running, math.inf
    try:
        while left and time.monotonic() < until:  # the first one may not notice that another one has ended
            done, left = ray.wait(left, timeout=POLL)
            codes |= {item: ray.get(item) for item in done}
            until = min(until, time.monotonic() + GRACE) if any(codes.values()) else until
            _print(said)
    except (errors.RayActorError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError):
        return None
    finally:
        with contextlib.suppress(errors.RayError):  # what is said can be lost with its computer
            _print(said)
    return codes.get(running[0], 2)


def _print(said: Any) -> None:
    for stream, text in said.get_nowait_batch(said.size()):
        print(text, end="", file=getattr(sys, stream), flush=True)


class Stream(io.TextIOBase):
    """Standard output or error of a worker, which the command that started the training prints."""

    def __init__(self, name: str, said: Any) -> None:
        self._name, self._said = name, said

    def write(self, text: str) -> int:
        self._said.put((self._name, text))
        return len(text)


class RankActor:
    """One process of the training."""

    def meeting(self) -> tuple[str, str]:
        """Address and port where all find each other, if this is the first one."""
        import ray

        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as free:
            return host, str(free.getsockname()[1])

    def run(self, command: Command, words: list[str], folder: str, variables: dict[str, str], said: Any) -> int:
        import ray

        os.chdir(folder)
        os.environ.update({**variables, "LOCAL_RANK": "0"})  # Ray shows each its own GPU
        if not ray.get_gpu_ids():
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        out = Stream("stdout", said) if variables["RANK"] == "0" else io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(Stream("stderr", said)):
            return command(words)
