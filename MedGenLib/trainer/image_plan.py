"""The plan of a training of a generator without a mask: every choice, made from the figures of the images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.packages.typed import setting
from MedGenLib.pipelines.fixed_grid import FixedGrid
from MedGenLib.trainer.datasets import DataSet, LabeledImage
from MedGenLib.trainer.inspection import CaseFacts, Inspection
from MedGenLib.trainer.plan import CHOOSING, BasePlan, about, split_of
from MedGenLib.training.splits import hold_out_both

MOST_VOXELS = {"cpu": 100_000, "cuda": 2_200_000}
"""Of a grid that trains in useful time."""
COARSEST = 4
"""Voxels of the shortest side at the coarsest level, about."""
CACHED = 2
"""Bytes of a prepared voxel."""
RATES = {
    "cuda": {"gan": 2e-4, "wgan-gp": 1e-4, "style-gan": 2e-3, "vae": 1e-3},
    "cpu": {"gan": 1e-3, "wgan-gp": 5e-4, "style-gan": 2e-3, "vae": 1e-3},
}
"""Learning rates: as published, and five times as high for the few steps that a CPU makes."""
WHY = {
    "gan": "a relativistic loss with gradient penalties on real and generated images (R3GAN)",
    "wgan-gp": "a critic of the Wasserstein distance with five steps for each one of the generator (WGAN-GP)",
    "style-gan": "a generator whose layers are scaled by a style (StyleGAN2)",
    "vae": "an encoder and a decoder with a normally distributed latent vector between them (variational autoencoder)",
}


@dataclass(frozen=True, kw_only=True)
class GridPlan(BasePlan):
    """The plan of a recipe whose images lie on one grid, beside the choices of `BasePlan`.

    Attributes
    ----------
    grid: voxels of the volumes along the RAS axes; center, scale: of their network values.
    network, loss: settings of the recipe.
    """

    stated: ClassVar[tuple[str, ...]] = (*BasePlan.stated, "recipe")

    recipe: str
    unit: str
    spacing_mm: float = setting(above=0)
    grid: tuple[int, int, int] = setting(low=1)
    center: float
    scale: float = setting(above=0)
    range: tuple[float, float]
    background: float
    network: Mapping[str, Any]
    loss: Mapping[str, float] = field(metadata={"low": 0})
    learning_rate: float = setting(above=0)
    ema: float = setting(0.998, low=0, high=1)

    @property
    def stages(self) -> tuple[str, ...]:
        return (self.recipe,)

    @property
    def fixed_grid(self) -> FixedGrid:
        values = (self.center, self.scale, self.modality, self.unit, self.range, self.background)
        return FixedGrid(self.grid, self.spacing_mm, *values)

    def config(self, cases: Sequence[LabeledImage], cache: Path) -> dict[str, Any]:
        """The configuration of the recipe; ``cache`` is the folder of the prepared images."""
        kept, chosen = split_of(cases, self.held_out, getattr(self, "validation", None))
        held = [case for case in cases if case.subject in self.held_out]
        return {
            "seed": self.seed,
            "folder": str(cache.parent),
            "data": {
                "cases": self.listed(kept),
                "held_cases": self.listed(held),
                "validation_cases": self.listed(chosen),
                "cache": str(cache),
                "held_out": list(self.held_out),
                "grid": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.fixed_grid).items()},
            },
            "network": dict(self.network),
            "loss": dict(self.loss),
            "optimisation": {
                self.recipe: self.optimization(
                    self.recipe,
                    self.learning_rate,
                    decay=0.3,
                    ema=self.ema,
                    precision="single",  # slopes of slopes, and places of voxels, need it
                )
            },
            "package": self.contents(kept),
        }

    def listed(self, cases: Sequence[LabeledImage]) -> list[list[Any]]:
        """Name, file and number of the class of each case."""
        return [[c.name, str(c.image), 0] for c in cases]

    def contents(self, cases: Sequence[LabeledImage]) -> dict[str, Any]:
        """The fixed parts of the manifest."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ImagePlan(GridPlan):
    """All choices of a training run of a generator without a mask, as in plan.json, beside those of `GridPlan`.

    Attributes
    ----------
    channel, validation: as in `TrainingPlan`.
    classes: classes of the images; None for one that makes all of them alike.
    discriminator: settings of the recipe.
    """

    stated: ClassVar[tuple[str, ...]] = (*GridPlan.stated, "channel")

    task: Literal["unconditional"] = "unconditional"
    channel: str | None = None
    recipe: Literal["gan", "wgan-gp", "style-gan", "vae"]
    classes: tuple[str, ...] | None = None
    batch: int = setting(low=2)
    discriminator: Mapping[str, Any]
    validation: tuple[str, ...] | None = None

    def check(self) -> None:
        super().check()
        for part in (self.network, self.discriminator):
            step = 2 ** (len(part["widths"]) - 1)
            if len(part.get("blocks", part["widths"])) != len(part["widths"]):
                raise InputError("A network has not as many blocks as widths; give one number for each level.")
            if uneven := [n for n in self.grid if n % step]:
                raise InputError(f"The grid has a side of {uneven[0]} voxels; give multiples of {step}.")

    def config(self, cases: Sequence[LabeledImage], cache: Path) -> dict[str, Any]:
        found = super().config(cases, cache)
        found["network"] |= {"grid": list(self.grid)}
        return {**found, "classes": list(self.classes or ()), "discriminator": dict(self.discriminator)}

    def listed(self, cases: Sequence[LabeledImage]) -> list[list[Any]]:
        return [[c.name, str(c.image), self.classes.index(c.kind) if self.classes else 0] for c in cases]

    def contents(self, cases: Sequence[LabeledImage]) -> dict[str, Any]:
        """The fixed parts of the manifest."""
        extent = [n * self.spacing_mm for n in self.grid]
        medgen = {
            "task": "generate",
            "pipeline": "volume-gan",
            "input": {"kind": "none"},
            "output": self.output(),
            "spacing_mm": dict.fromkeys(("min", "max", "native"), self.spacing_mm),
            "field_of_view_mm": {"min": extent, "max": extent},
            "preprocessing": {
                "name": "fixed-grid",
                "grid": list(self.grid),
                "center": self.center,
                "scale": self.scale,
                **({"classes": list(self.classes)} if self.classes else {}),
            },
            "sampler": {"name": "generator", "presets": {"draft": {}, "normal": {}, "best": {}}},
        }
        of = f" of the classes {', '.join(self.classes)}" if self.classes else ""
        description = f"{self.modality} without a mask{of}"
        task, options = f"Generation of {self.modality}", f" --recipe {self.recipe}"
        return self.package(task, description, ("noise", self.modality), 3, cases, options, medgen)


def make_image_plan(
    dataset: DataSet,
    inspection: Inspection,
    recipe: str,
    name: str | None = None,
    channel: str | None = None,
    license: str | None = None,
    device: str = "cpu",
) -> ImagePlan:
    """The plan for a data set; the numbers of steps are added by `with_budget`.

    Raises
    ------
    InputError: too few people, or a name that no package can have.
    """
    people, kind = inspection.subjects, "cuda" if device.startswith("cuda") else "cpu"
    held_out, validation = hold_out_both(people, f"images of {dataset.path}")
    ct, facts = inspection.modality == "CT", inspection.facts
    spacing, grid, levels, why_grid = _grid(inspection, MOST_VOXELS[kind])
    widths = _widths(levels, kind)
    # On a CPU, residual blocks at the finest level would take most of the time.
    blocks = {"widths": widths, "blocks": [1] * (levels - 1) + [int(kind == "cuda")]}
    batch = 4 if kind == "cpu" else 16
    used = {case.name for case in facts}
    classes = sorted({case.kind for case in dataset.cases if case.kind and case.name in used})
    return ImagePlan.of(
        {
            **about(dataset, inspection, name, license, f"{dataset.title}-{recipe}"),
            **({"channel": channel} if channel else {}),
            **intensities(facts, ct),
            "recipe": recipe,
            **({"classes": classes} if len(classes) > 1 else {}),
            "spacing_mm": spacing,
            "grid": grid,
            "batch": batch,
            "network": {"widths": widths} if recipe == "style-gan" else blocks,
            "discriminator": blocks,
            "loss": _loss(recipe, math.prod(grid), batch),
            "learning_rate": RATES[kind][recipe],
            "held_out": held_out,
            **({"validation": validation} if validation else {}),
            "cache_mib": round(math.prod(grid) * len(facts) * CACHED / 2**20, 1),
            "reasons": _reasons(dataset, ct, recipe, classes, why_grid, len(people))
            | ({"validation": CHOOSING} if validation else {}),
        }
    )


def intensities(facts: Sequence[CaseFacts], ct: bool) -> dict[str, Any]:
    """Unit, range and codec of a plan: CT keeps its HU; the bright end of an MR image becomes 1000."""
    if not ct:
        return {"unit": "a.u.", "center": 500.0, "scale": 500.0, "range": [0, 1500], "background": 0}
    center, scale = (round(float(np.median([getattr(case, key) for case in facts])), 1) for key in ("mean", "sd"))
    return {"unit": "HU", "center": center, "scale": max(scale, 1.0), "range": [-1024, 3071], "background": -1000}


def _reasons(
    dataset: DataSet, ct: bool, recipe: str, classes: Sequence[str], why_grid: str, people: int
) -> dict[str, str]:
    return {
        "modality": "stated by the data set" if dataset.modality else "from the values of the images",
        "unit": "CT keeps its HU"
        if ct
        else "the scale of MR is arbitrary, so each image is relative to its own bright end, which becomes 1000",
        "recipe": WHY[recipe],
        **({"classes": "stated by the data set"} if len(classes) > 1 else {}),
        "spacing_mm": why_grid,
        "grid": "about the median image at this spacing; larger ones are cropped and smaller ones padded",
        "network": "channels and residual blocks of the levels, the coarsest first; each costs most at the finest",
        "loss": "as published, but the weight of the penalty grows with the number of voxels, and is five times that "
        "of the paper for style-gan, whose training was steady so",
        "learning_rate": "as published on a GPU; on a CPU, which makes few steps, up to five times as high",
        "cache_mib": "space on the disk for the prepared volumes",
        "held_out": f"a fifth of the {people} people, drawn at random, for the measurement",
    }


def _grid(inspection: Inspection, most: int) -> tuple[float, list[int], int, str]:
    """Spacing, grid, number of levels, and the reason of the spacing."""
    spacing = float(f"{np.median([math.prod(case.spacing) ** (1 / 3) for case in inspection.facts]):.3g}")
    extent = np.array([case.extent for case in inspection.facts])
    extent = np.median(extent, axis=0)
    why = "the median of the cases, as a cube"
    if (voxels := np.prod(extent / spacing)) > most:
        spacing = float(f"{spacing * (voxels / most) ** (1 / 3):.3g}")
        why = (
            f"the images are larger; at this spacing they have {most:,} voxels, which this device trains in useful time"
        )
    sides = np.round(extent / spacing, 3)
    levels = max(2, round(math.log2(max(1.0, min(sides) / COARSEST))) + 1)
    step = 2 ** (levels - 1)
    return spacing, [int(max(1, round(side / step)) * step) for side in sides], levels, why


def _widths(levels: int, device: str) -> list[int]:
    """Few channels at the finest level, where each costs most."""
    least, most = (8, 64) if device == "cpu" else (32, 384)
    return [min(most, least * 2**level) for level in reversed(range(levels))]


def _loss(recipe: str, voxels: int, batch: int) -> dict[str, float]:
    if recipe == "vae":
        return {}
    if recipe == "wgan-gp":
        return {"penalty": 10.0, "critic_steps": 5, "lazy": 1}
    if recipe == "gan":
        return {"r1": float(f"{2e-3 * voxels:.3g}"), "lazy": 1}
    return {"r1": float(f"{1e-3 * voxels / batch:.3g}"), "lazy": 16}
