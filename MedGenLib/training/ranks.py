"""Processes that train together, on one computer or on many: torchrun, `medgen train --workers` or Ray starts them.

Each computes some parts of every batch and has the same weights. The first one, of rank 0, runs the command and writes
all files; the others train what it orders. They find each other by the environment variables of torchrun.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from MedGenLib.errors import InputError, MemoryPlanError, WorkerError
from MedGenLib.training.launch import GUARDED

PATIENCE = timedelta(hours=12)
"""A process may wait this long for another, which may prepare or measure a large data set. On CPUs, a dead one is
noticed at once, by its connections; on GPUs, the launcher notices it."""


class LostProcessError(WorkerError):
    """A process of the training has ended."""


class TrainingMemoryError(MemoryPlanError):
    """A step did not fit into the memory; all processes are at the same step."""


class SharedError(InputError):
    """All processes raise it at the same step, so that only the first one has to say it."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Ranks:
        """The group that this process has joined."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    def share(self, value: Any = None) -> Any:
        """The value of the first process, in all of them."""
        box = [value]
        if self.size > 1:
            with _connected():
                dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in all of them."""
        found = [value] * self.size
        if self.size > 1:
            with _connected():
                dist.all_gather_object(found, value)
        return found

    def sum(self, weights: Sequence[Tensor], figures: Sequence[float]) -> list[float]:
        """Replace the gradients of weights by their sums over all processes; returns the sums of the figures.

        A weight without a gradient in any process stays without one, so that an optimizer leaves it as it is.
        """
        if self.size == 1:
            return list(figures)
        none = [w.new_tensor(float(w.grad is not None)) for w in weights]
        parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        numbers = weights[0].new_tensor(figures)
        flat = torch.cat([*(part.flatten() for part in parts), torch.stack(none), numbers])
        with _connected():
            dist.all_reduce(flat)
            *sums, found, totals = flat.split([*(w.numel() for w in weights), len(none), len(numbers)])
            known, figures = found.tolist(), totals.tolist()  # on a GPU, an error of the sum appears here
        for weight, total, count in zip(weights, sums, known, strict=True):
            weight.grad = total.view_as(weight).clone() if count else None
        return figures


@contextmanager
def _connected() -> Iterator[None]:
    """Raise LostProcessError where the others cannot be reached."""
    try:
        yield
    except RuntimeError as error:
        lost = LostProcessError(
            "Another process of this training has ended; the same command goes on from the last checkpoint."
        )
        lost.detail = str(error)
        raise lost from None


@contextmanager
def joining(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the other processes, of which a launcher started this one; yields the group and this process's device."""
    if GUARDED in os.environ:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    with_gpus = device != "cpu" and torch.cuda.is_available()
    if with_gpus:
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if with_gpus else "gloo", timeout=PATIENCE)
    try:
        yield Ranks.joined(), device
    finally:
        dist.destroy_process_group()


def _end_with_stdin() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock would be held at the end of the program
        pass
    os._exit(1)
