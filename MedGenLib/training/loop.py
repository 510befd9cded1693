"""The training loop: optimization, EMA, checkpoints, resume.

Each step draws its data and noise from generators seeded with (seed, step), so that a resumed run gets exactly the
batches of an uninterrupted one. A batch has `parts`, each with generators of its own, whose gradients are averaged: one
process computes them one after the other, several share them out, and the weights are the same but for rounding.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedGenLib.devices import is_out_of_memory
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.pipelines.estimate import announce_long
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.training.memory import MEMORY, peak_mib, restart_peak
from MedGenLib.training.ranks import Ranks, SharedError, TrainingMemoryError
from MedGenLib.training.selection import Selection

CHECKPOINT = "checkpoint.pt"
VALIDATION = "validation.jsonl"
LOSSES = "losses.jsonl"
PICTURES = "pictures"
TIMED_STEPS = 4
LARGE_SEED = 2**16
"""Seeds below it give the noise of step alone, as in the runs of the embedded models."""


@dataclass(frozen=True)
class Draw:
    """Random generators of one part of a step, and the number of the step."""

    numpy: np.random.Generator
    torch: torch.Generator
    step: int = 0

    @classmethod
    def of(cls, seed: int, step: int, part: int = 0) -> Draw:
        # PyTorch uses 32 bits of a seed, so that of a part, and of a large seed, has to be drawn.
        drawn = np.random.SeedSequence([seed, step, part]).generate_state(1)
        own = torch.Generator().manual_seed(int(drawn[0]) if part or seed >= LARGE_SEED else step)
        return cls(np.random.default_rng([seed, step, part]), own, step)


def start_from(config: dict, out: Path, name: str, network: nn.Module, new: str = "") -> None:
    """Initialize with the averaged weights of an earlier run, if configured.

    ``start_from`` is a folder beside ``out``; ``new`` is a part of the network that is not loaded. Conditions that
    the earlier network lacks are the last ones, and have no effect at first. Raises InputError if the folder has
    no weights.
    """
    if "start_from" not in config:
        return
    path = out.parent / config["start_from"] / CHECKPOINT
    if not path.exists():
        raise InputError(f"This configuration continues the run {path.parent}, which does not exist; train it first.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    weights = state["averages"][name]
    if new:
        fresh = network.state_dict()
        weights = {key: fresh[key] if key.startswith(f"{new}.") else weights[key] for key in fresh}
    network.load_state_dict({key: _widened(value, network.state_dict()[key]) for key, value in weights.items()})


def _widened(known: Tensor, wanted: Tensor) -> Tensor:
    """Weights of a layer with zeros for more inputs at the end; others are unchanged."""
    more = wanted.shape[1] - known.shape[1] if known.ndim == wanted.ndim > 1 else 0
    return known if more <= 0 else torch.cat([known, known.new_zeros(len(known), more, *known.shape[2:])], 1)


def to_device_of(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    device = next(network.parameters()).device
    return {key: value.to(device) for key, value in batch.items()}


@dataclass(frozen=True)
class AdamSettings:
    """Optimizer of an objective: AdamW, which is Adam without weight decay; ``clip`` limits the gradient's norm."""

    betas: tuple[float, float]
    weight_decay: float
    clip: float | None


@dataclass(frozen=True)
class Objective:
    """One loss and the networks it trains; several alternate within a step (GAN training).

    ``every`` is 5 for networks that learn in each fifth step only.
    """

    name: str
    networks: tuple[str, ...]
    loss: Callable[[dict[str, Tensor], Draw], tuple[Tensor, dict[str, float]]]
    adam: AdamSettings | None = None
    every: int = 1


class Recipe(Protocol):
    """A training task for the loop."""

    networks: dict[str, nn.Module]
    objectives: list[Objective]

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]: ...

    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]: ...

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path: ...


class DataRecipe:
    """Base of recipes whose batches are samples of a reader, ``data``."""

    data: Any

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        return self.data.sample(draw.numpy, size)


@dataclass(frozen=True)
class OptimizationSettings:
    """Optimization settings of a run.

    The learning rate warms up over ``warmup`` steps, stays constant and falls linearly to zero over the last ``decay``
    share of ``steps``, so that a finished run can be continued. ``parts`` cuts the batch: each process needs the memory
    of one part.
    """

    steps: int
    batch: int = 4
    parts: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 200
    decay: float = 0.3
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    validate_every: int = 1000
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.batch % self.parts:
            raise InputError(
                f"A batch of {self.batch} cannot be cut into {self.parts} equal parts; give another batch."
            )

    def rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup))
        decay_steps = max(1, round(self.decay * self.steps))
        return self.learning_rate * warm * min(1.0, (self.steps - step) / decay_steps)


class Log:
    """Figures and pictures of a run: files in its folder and, where tensorboard is installed, curves for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.writer = None
        else:
            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, prefix: str, values: dict[str, float], step: int) -> None:
        name = {"train": LOSSES, "validation": VALIDATION}[prefix]
        with (self.folder / name).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{prefix}/{name}", value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """``image`` is (rows, columns) with values in 0..1."""
        from matplotlib.image import imsave

        path = self.folder / PICTURES / f"{step:07d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            imsave(temporary, np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1, format="png")
        if self.writer is not None:
            self.writer.add_image(name, np.clip(image, 0, 1)[None], step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


@dataclass
class Trainer:
    """Runs a recipe in a folder, from its checkpoint if there is one.

    Of several processes with the same arguments (`ranks`), the first one validates, writes and exports. Without a
    checkpoint, the training begins with the step ``start``.
    """

    recipe: Recipe
    settings: OptimizationSettings
    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    use_bfloat16: bool = False
    progress: ProgressCallback | None = None
    on_validation: Callable[[], None] | None = None
    ranks: Ranks = field(default_factory=Ranks)
    start: int = 0

    def run(self) -> Path:
        """Train to ``settings.steps`` and export; returns the path of the export.

        Raises
        ------
        SharedError: a loss became infinite, or the processes see different checkpoints.
        TrainingMemoryError: a step does not fit into the memory.
        LostProcessError: another process has ended.
        """
        first = self.ranks.rank == 0
        if first:
            self.out.mkdir(parents=True, exist_ok=True)
        restart_peak(self.device)
        self.networks = {k: n.to(self.device) for k, n in self.recipe.networks.items()}
        self.averages = {k: copy.deepcopy(n).eval() for k, n in self.networks.items()}
        usual = AdamSettings((0.9, 0.99), self.settings.weight_decay, self.settings.clip)
        self.adams = [o.adam or usual for o in self.recipe.objectives]
        self.optimizers = [
            torch.optim.AdamW(
                [p for n in o.networks for p in self.networks[n].parameters()],
                lr=self.settings.learning_rate,
                weight_decay=adam.weight_decay,
                betas=adam.betas,
            )
            for o, adam in zip(self.recipe.objectives, self.adams, strict=True)
        ]
        self.step = self.start
        self.selection = Selection(self.recipe, self.settings.steps, self.out)
        self._resume()
        if len(set(self.ranks.gather(self.step))) > 1:
            raise SharedError(f"The processes see different checkpoints in {self.out}; give a folder that all share.")
        log = Log(self.out) if first else None
        stage = Stage("training", max(0, self.settings.steps - self.step), self.progress)
        try:
            while self.step < self.settings.steps:
                values = self._fitting_step()
                self.step += 1
                self._housekeeping(values, log)
                stage.advance()
                self._tell_time(stage)
            peak = max(self.ranks.gather(peak_mib(self.device)))
            if log is None:
                return self.out
            self._save()
            self._validate(log)
            self._note_memory(max(peak, peak_mib(self.device)))
        finally:
            if log is not None:
                log.close()
        self.selection.restore(self.averages)
        return self.recipe.export(self.averages, self.step, self.out)

    def _tell_time(self, stage: Stage) -> None:
        """Announce the time of the rest of a long training after a few steps, of which the first is slower."""
        now, left = time.monotonic(), stage.total - stage.step
        if stage.step == 1:
            self._first_step = now
        elif stage.step == TIMED_STEPS:
            seconds = (now - self._first_step) / (TIMED_STEPS - 1) * left
            announce_long("the training", seconds, str(self.device), self.progress, f" for {left} steps")

    def _fitting_step(self) -> list[dict[str, float]]:
        """A step. Of several processes, only one that runs out of memory within `_backward` can tell the others."""
        try:
            return self._train_step()
        except (MemoryError, RuntimeError) as error:
            if self.ranks.size > 1 or not is_out_of_memory(error):
                raise
            raise self._full() from error

    def _full(self) -> TrainingMemoryError:
        return TrainingMemoryError(
            f"The memory was full at step {self.step}; cut the batch into more parts, or take smaller patches."
        )

    def _train_step(self) -> list[dict[str, float]]:
        """One step of all networks; returns the figures of each part that this process computed."""
        parts = [self._part(number) for number in range(self.ranks.rank, self.settings.parts, self.ranks.size)]
        figures: list[dict[str, float]] = [{} for _ in parts]
        for objective, adam, optimizer in zip(self.recipe.objectives, self.adams, self.optimizers, strict=True):
            if self.step % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            loss, full = self.ranks.sum(weights, self._backward(objective, parts, figures))
            if full:
                raise self._full()
            if not math.isfinite(loss):
                raise SharedError(
                    f"The {objective.name} loss became {loss} at step {self.step}; "
                    "lower the learning rate in the configuration."
                )
            for group in optimizer.param_groups:
                group["lr"] = self.settings.rate(self.step)
                if adam.clip is not None:
                    nn.utils.clip_grad_norm_(group["params"], adam.clip)
            optimizer.step()
        self._average()
        return figures

    def _part(self, number: int) -> tuple[dict[str, Tensor], Draw]:
        draw = Draw.of(self.settings.seed, self.step, number)
        batch = self.recipe.batch(draw, self.settings.batch // self.settings.parts)
        return {key: value.to(self.device) for key, value in batch.items()}, draw

    def _backward(
        self, objective: Objective, parts: list[tuple[dict[str, Tensor], Draw]], figures: list[dict[str, float]]
    ) -> tuple[float, float]:
        """Add the gradients of these parts; returns their share of the mean loss, and 1 where the memory was full."""
        total = 0.0
        try:
            for (batch, draw), found in zip(parts, figures, strict=True):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.use_bfloat16):
                    loss, values = objective.loss(batch, draw)
                (loss / self.settings.parts).backward()
                total += loss.item() / self.settings.parts
                found.update(values)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return total, 1.0
        return total, 0.0

    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, network in self.networks.items():
                average = self.averages[name]
                for a, p in zip(average.parameters(), network.parameters(), strict=True):
                    a.lerp_(p, 1 - decay)
                for a, b in zip(average.buffers(), network.buffers(), strict=True):
                    a.copy_(b)

    def _housekeeping(self, figures: list[dict[str, float]], log: Log | None) -> None:
        if self.step % 20 == 0:
            parts = [values for own in self.ranks.gather(figures) for values in own]
            names = dict.fromkeys(name for values in parts for name in values)
            means = {name: float(np.mean([values[name] for values in parts if name in values])) for name in names}
        if log is None:
            return
        if self.step % 20 == 0:
            log.scalars("train", means, self.step)
        if self.step % self.settings.checkpoint_every == 0:
            self._save()
        if self.step % self.settings.validate_every == 0:
            self._validate(log)

    def _validate(self, log: Log) -> None:
        """Validate with fixed data and noise; write to TensorBoard and a file."""
        values = self.recipe.validate(self.averages, self.step, log) | self.selection.look(self.averages, self.step)
        log.scalars("validation", values, self.step)
        if self.on_validation is not None:
            self.on_validation()

    def _note_memory(self, peak: float) -> None:
        """Write the peak of a process, over all calls that trained here."""
        file = self.out / MEMORY
        before = json.loads(file.read_text(encoding="utf-8"))["peak_mib"] if file.is_file() else 0.0
        write_json(file, {"peak_mib": round(max(peak, before), 1)})

    def _save(self) -> None:
        state = {
            "step": self.step,
            "networks": {k: n.state_dict() for k, n in self.networks.items()},
            "averages": {k: n.state_dict() for k, n in self.averages.items()},
            "optimisers": [o.state_dict() for o in self.optimizers],
        }
        with replacing(self.out / CHECKPOINT) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in self.networks:
            self.networks[name].load_state_dict(state["networks"][name])
            self.averages[name].load_state_dict(state["averages"][name])
        for optimizer, saved in zip(self.optimizers, state["optimisers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
