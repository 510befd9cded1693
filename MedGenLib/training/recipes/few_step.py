"""Recipe `few-step`: a student that follows the path of a trained package in one to four steps.

The student ``u(x, t, d)`` predicts the average velocity of the teacher's path over ``[t - d, t]``: ``x_{t-d} = x_t - d
u`` (shortcut models, Frans et al. 2024, arXiv 2410.12557, eq. 3, with t = 1 at the noise). Its targets are
displacements along the teacher's own path, followed from pure noise by the midpoint rule (distillation as by Salimans
and Ho 2022, arXiv 2202.00512, in one run for all lengths of step). It is initialized with the teacher's weights and
columns of zeros for ``d``, which gives the teacher. No images are needed: noise, mask and teacher determine the target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.errors import InputError
from MedGenLib.networks import FlowUNet
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.conditioning import noise_scalar
from MedGenLib.pipelines.loading import network as trained_network
from MedGenLib.training.data import read_data
from MedGenLib.training.loop import Draw, Log, Objective, to_device_of
from MedGenLib.training.package import extend_package
from MedGenLib.training.recipes import recipe
from MedGenLib.training.recipes.latent_flow import OUTSIDE_WEIGHT

CPU = torch.device("cpu")
ROLE = "draft"
"""Role of the student in the package; presets name it under `network`."""


@recipe("few-step")
class FewStepRecipe:
    """Recipe of the module. The configuration's sections are ``data`` and ``few_step``.

    ``few_step`` has ``teacher`` (name of an installed package), ``teacher_steps`` (of two evaluations each), ``patch``,
    ``budgets`` (number of steps, which must divide ``teacher_steps`` -> number of intervals of a path of these steps
    learned from one patch), ``texture`` (weight of the term that preserves fine detail) and ``noise_hu`` (additional
    noise levels).
    """

    def __init__(self, config: dict[str, Any], out: Path) -> None:
        self.config = config
        section = config["few_step"]
        self.budgets = {int(steps): int(count) for steps, count in section["budgets"].items()}
        self.teacher_steps = int(section["teacher_steps"])
        if any(self.teacher_steps % steps for steps in self.budgets):
            raise InputError(
                f"The teacher's {self.teacher_steps} steps cannot be divided evenly into "
                f"{', '.join(map(str, self.budgets))} steps; choose a common multiple."
            )
        self.texture = float(section.get("texture", 0.0))
        self.noise_hu = section.get("noise_hu", [])
        self.data = read_data(config, section["patch"])
        self.package = find(section["teacher"])
        self.stride = self.package.settings.latent_stride
        self.teacher = trained_network(self.package, "flow", CPU)
        self.networks: dict[str, nn.Module] = {ROLE: student_of(self.teacher).to(memory_format=torch.channels_last_3d)}
        self.objectives = [Objective("few-step", (ROLE,), self._loss)]

    def batch(self, draw: Draw, size: int) -> dict[str, Tensor]:
        """Masks and scalars; half of the patches get one of the noise levels ``noise_hu``."""
        batch = self.data.sample(draw.numpy, size)
        if self.noise_hu:
            for scalars in batch["scalars"]:
                if draw.numpy.random() < 0.5:
                    scalars[1] = noise_scalar(float(draw.numpy.choice(self.noise_hu)))
        return {key: value for key, value in batch.items() if key != "x"}

    def _loss(self, batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the average velocity, and of the fine detail at the end point."""
        path = self._path(batch, draw)
        student = self.networks[ROLE]
        features = student.encode_mask(batch["maps"])
        rows = [self._interval(path, steps, i) for steps, i in self._intervals(draw)]
        loss, detail = path.new_zeros(()), path.new_zeros(())
        weight = F.avg_pool3d(batch["valid"], self.stride).clamp(min=OUTSIDE_WEIGHT)
        for point, target, time, step in rows:
            size = len(point)
            u = student(
                point.contiguous(memory_format=torch.channels_last_3d),
                *(torch.full((size,), time).to(point), features, batch.get("scalars")),
                step=torch.full((size,), step).to(point),
            )
            error = (u - target).square()
            loss = loss + (weight * error).sum() / (weight.sum() * error.shape[1])
            if self.texture:
                detail = detail + spread_error(point - time * u, point - time * target, weight)
        loss, detail = loss / len(rows), detail / len(rows)
        values = {"velocity": float(loss.detach()), "detail": float(detail.detach())}
        return loss + self.texture * detail, values

    def _intervals(self, draw: Draw) -> list[tuple[int, int]]:
        """(steps of the path, number of the step) of the intervals to learn in this step."""
        return [
            (steps, int(i))
            for steps, count in self.budgets.items()
            for i in draw.numpy.choice(steps, min(count, steps), replace=False)
        ]

    def _interval(self, path: Tensor, steps: int, index: int) -> tuple[Tensor, Tensor, float, float]:
        """Start, average velocity, time at the start and length of one interval of the path."""
        stride = self.teacher_steps // steps
        start, end = path[index * stride], path[(index + 1) * stride]
        return start, (start - end) * steps, 1 - index / steps, 1 / steps

    @torch.no_grad()
    def _path(self, batch: dict[str, Tensor], draw: Draw) -> Tensor:
        """The teacher's points from noise to data, (teacher_steps + 1, b, latent, i, j, k)."""
        maps = batch["maps"]
        teacher = self.teacher.to(maps.device)
        features = teacher.encode_mask(maps)
        shape = (len(maps), teacher.arguments["latent"], *(n // self.stride for n in maps.shape[2:]))
        x = torch.randn(shape, generator=draw.torch).to(maps.device)
        points = [x]

        def velocity(x: Tensor, time: float) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last_3d)
            return teacher(x, torch.full((len(x),), time).to(x), features, batch.get("scalars"))

        length = 1 / self.teacher_steps
        for index in range(self.teacher_steps):
            time = 1 - index * length
            middle = x - length / 2 * velocity(x, time)
            x = x - length * velocity(middle, time - length / 2)
            points.append(x)
        return torch.stack(points)

    @torch.no_grad()
    def validate(self, networks: dict[str, nn.Module], step: int, log: Log) -> dict[str, float]:
        """Error and fine detail relative to the teacher's result, by the number of steps."""
        student = networks[ROLE]
        sums: dict[str, float] = {}
        for index in range(4):
            draw = Draw.of(7, index)
            batch = to_device_of(student, self.batch(draw, 1))
            path = self._path(batch, draw)
            inside = F.avg_pool3d(batch["valid"], self.stride) > 0
            target = path[-1]
            for steps in self.budgets:
                made = follow(student, path[0], batch, steps)
                ratio = _detail_spread(made, inside) / _detail_spread(target, inside)
                error = (made - target).square()[inside.expand_as(made)].mean()
                values = {f"error {steps}": error, f"detail {steps}": ratio}
                for key, value in values.items():
                    sums[key] = sums.get(key, 0.0) + float(value) / 4
        return {key: round(value, 4) for key, value in sums.items()}

    def export(self, networks: dict[str, nn.Module], step: int, out: Path) -> Path:
        return extend_package(self.package, self.config, ROLE, networks[ROLE], step, out, base="flow")


def student_of(teacher: FlowUNet) -> FlowUNet:
    """A network with the step size as an additional input, initialized to equal the teacher for any step."""
    student = FlowUNet(**{**teacher.arguments, "step_size": True})
    weights = teacher.state_dict()
    known = weights["embed.0.weight"]
    more = student.embed[0].in_features - teacher.embed[0].in_features
    weights["embed.0.weight"] = torch.cat([known, known.new_zeros(len(known), more)], 1)
    student.load_state_dict(weights)
    return student


def follow(student: nn.Module, noise: Tensor, batch: dict[str, Tensor], steps: int) -> Tensor:
    """From noise (b, latent, i, j, k) to data in equal steps of the student."""
    features = student.encode_mask(batch["maps"])
    x = noise
    for index in range(steps):
        time = torch.full((len(x),), 1 - index / steps).to(x)
        step = torch.full((len(x),), 1 / steps).to(x)
        x = x - student(x, time, features, batch.get("scalars"), step=step) / steps
    return x


def spread_error(made: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Squared difference of the local standard deviation of fine detail, as the squared error favors blur.

    It is the root mean square of the difference from a mean over three voxels, within blocks of four; ``weight`` is (b,
    1, i, j, k).
    """
    blocks = F.avg_pool3d(weight, 4)
    difference = (_spread(made) - _spread(target)).square()
    return (blocks * difference).sum() / (blocks.sum() * made.shape[1])


def _spread(x: Tensor) -> Tensor:
    return (F.avg_pool3d(_detail(x).square(), 4) + 1e-4).sqrt()


def _detail(x: Tensor) -> Tensor:
    """Difference from a mean over three voxels."""
    return x - F.avg_pool3d(x, 3, stride=1, padding=1, count_include_pad=False)


def _detail_spread(x: Tensor, inside: Tensor) -> Tensor:
    return _detail(x)[inside.expand_as(x)].std()
