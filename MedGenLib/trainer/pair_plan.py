"""The plan of a training of a translator: every choice, made from the figures of the images, with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from MedGenLib.checks.input import INVENTS
from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import modality_family
from MedGenLib.packages.typed import setting
from MedGenLib.trainer.datasets import ALIGNMENT, TRANSLATIONS, DataSet, ImagePair
from MedGenLib.trainer.pair_inspection import SIDES, PairInspection
from MedGenLib.trainer.plan import BasePlan, about
from MedGenLib.training.splits import hold_out_both

UNPAIRED = ("cut", "cyclegan")
"""Recipes for images without pairs, of which the first one is the default."""
LARGEST_PATCH = {"cpu": 128, "cuda": 256}
"""Pixels per side."""
STRIDE = 16
"""Patches are multiples of this, the coarsest level of the networks."""
LEAST_PATCH = 32
"""Pixels per side that three strided layers of the discriminator need."""
CACHED = 2
"""Bytes of a prepared voxel."""
LOSSES = {
    "regression": {"l1": 1.0, "adversarial": 0.0},
    "pix2pix": {"l1": 100.0, "adversarial": 1.0},
    "pix2pixhd": {"l1": 0.0, "adversarial": 1.0, "features": 10.0},
    "cyclegan": {"adversarial": 1.0, "cycle": 10.0, "identity": 5.0},
    "cut": {"adversarial": 1.0, "nce": 1.0, "identity": 1.0},
}
"""Weights as published: Isola et al. 2017, Wang et al. 2018, Zhu et al. 2017, Park et al. 2020."""
RATES = dict.fromkeys(TRANSLATIONS, 2e-4) | {"regression": 8e-4}
BATCHES = dict.fromkeys(TRANSLATIONS, 4) | dict.fromkeys(UNPAIRED, 1)
MOST_SCALES = 3
"""Discriminators of pix2pixHD, each of half the pixels a side."""
TISSUES = {"thresholds": [-300, 250], "labels": [0, 2, 3], "names": ["outside", "soft tissue", "bone"]}
"""Tissues whose means are checked in HU."""
WHY = {
    "regression": "pairs show what is right at each voxel; the mean absolute error adds least and blurs the unsure",
    "pix2pix": "the images are pairs; a discriminator keeps them sharp, and the mean absolute error with a weight of "
    "100 keeps them true (--recipe regression does without the discriminator)",
    "pix2pixhd": "the images are pairs; discriminators of several scales judge them, and their features keep them true",
    "cyclegan": "the images are not pairs; what is translated there and back must return",
    "cut": "the images are not pairs",
}


def needs_pairs(recipe: str, dataset: str | Path) -> str:
    """The sentence of a refusal."""
    return (
        f"The recipe {recipe} needs pairs, but no source of {dataset} has a target of the same name; give both images "
        f"of a case one name, or take --recipe {UNPAIRED[0]}, which learns without pairs."
    )


@dataclass(frozen=True, kw_only=True)
class TranslationPlan(BasePlan):
    """All choices of a training run of a translator, as in plan.json, beside those of `BasePlan`.

    Attributes
    ----------
    source, target: names of both images.
    source_modality, modality: of the sources and of the images that the model makes.
    recipe: see `MedGenLib.training.recipes`; paired: each case has both images.
    spacing_mm: voxel sides that are kept, and the one to which others are resampled.
    planes: planes of the slices: 0 axial, 1 coronal, 2 sagittal.
    patch: pixels of a side of a training patch.
    network, discriminator, loss: settings of the recipe.
    align: first warp each target onto its source, for pairs that are loosely registered (recipe `alignment`).
    """

    stated: ClassVar[tuple[str, ...]] = (*BasePlan.stated, "source", "target", "source_modality", "recipe")

    task: Literal["translate"] = "translate"
    source: str | None = None
    target: str | None = None
    source_modality: str
    unit: str
    recipe: Literal["regression", "pix2pix", "pix2pixhd", "cyclegan", "cut"]
    paired: bool
    spacing_mm: Mapping[str, float] = field(metadata={"above": 0})
    planes: tuple[int, ...]
    patch: int = setting(low=LEAST_PATCH)
    batch: int = setting(low=1)
    network: Mapping[str, Any]
    discriminator: Mapping[str, Any]
    loss: Mapping[str, float] = field(metadata={"low": 0})
    align: bool = False
    learning_rate: float = setting(above=0)
    field_of_view_mm: tuple[tuple[float, float, float], tuple[float, float, float]]

    def check(self) -> None:
        super().check()
        if self.patch % STRIDE:
            raise InputError(f"The patch has a side of {self.patch} pixels; give a multiple of {STRIDE}.")
        scales = self.discriminator.get("scales", 1)
        if isinstance(scales, int) and self.patch < LEAST_PATCH * 2 ** (scales - 1):
            raise InputError(
                f"The patch has a side of {self.patch} pixels, too few for {scales} scales of discriminators; give "
                f"{LEAST_PATCH * 2 ** (scales - 1)}, or fewer discriminator.scales."
            )
        if self.recipe not in UNPAIRED and not self.paired:
            raise InputError(needs_pairs(self.recipe, self.dataset))
        if self.align and self.recipe in UNPAIRED:
            raise InputError(f"The recipe {self.recipe} uses no pairs, so there is nothing to align; leave out align.")

    def smaller_patch(self) -> int | None:
        return self.patch // 2 // STRIDE * STRIDE if self.recipe != "cyclegan" else None  # its pools have this size

    @property
    def stages(self) -> tuple[str, ...]:
        return (ALIGNMENT, self.recipe) if self.align else (self.recipe,)

    def config(self, cases: Sequence[ImagePair], cache: Path) -> dict[str, Any]:
        """The configuration of the recipe; ``cache`` is the folder of the prepared images."""
        kept = [case for case in cases if case.subject not in self.held_out]
        return {
            "seed": self.seed,
            "folder": str(cache.parent),
            "data": {
                "cases": _listed(kept),
                "held_cases": _listed(case for case in cases if case.subject in self.held_out),
                "cache": str(cache),
                "held_out": list(self.held_out),
                "source": self.source_modality,
                "target": self.modality,
                "spacing_mm": dict(self.spacing_mm),
                "planes": list(self.planes),
                "tissues": self._tissues,
                **({"moved": str(cache.parent / ALIGNMENT / "targets")} if self.align else {}),
            },
            "patch": self.patch,
            "network": dict(self.network),
            "discriminator": dict(self.discriminator),
            "loss": dict(self.loss),
            "optimisation": {
                stage: self.optimization(
                    stage, RATES["regression"] if stage == ALIGNMENT else self.learning_rate, ema=0.998
                )
                for stage in self.stages
            },
            "package": self._package(kept),
        }

    @property
    def _tissues(self) -> dict[str, Any] | None:
        """Thresholds in the image that is in HU; without one, no tissues are checked."""
        if "CT" not in (self.modality, self.source_modality) or self.modality != "CT" and not self.paired:
            return None
        return {**TISSUES, "image": "output" if self.modality == "CT" else "source"}

    def _package(self, cases: Sequence[ImagePair]) -> dict[str, Any]:
        """The fixed parts of the manifest."""
        low, high = self.field_of_view_mm
        named = f" --source {self.source} --target {self.target}" if self.source else ""
        medgen = {
            "task": "translate",
            "pipeline": "slice-translation",
            "input": {"kind": "image", "modality": self.source_modality},
            "output": {
                "modality": self.modality,
                "unit": self.unit,
                "range": [-1024, 2000] if self.modality == "CT" else [0, 1500],
                "background": -1000 if self.modality == "CT" else 0,
            },
            "spacing_mm": dict(self.spacing_mm),
            "field_of_view_mm": {"min": list(low), "max": list(high)},
            "preprocessing": {"name": "slices", "planes": list(self.planes), "paired": self.recipe not in UNPAIRED},
            "sampler": {
                "name": "regression",
                "presets": {"draft": {"planes": 1}, "normal": {"planes": 3}, "best": {"planes": 3, "mirror": True}},
            },
            "statistics": {} if self._tissues is None else {"resegment": self._tissues},
        }
        task = f"Translation from {self.source_modality} to {self.modality}"
        description = f"{self.modality} from {self.source_modality}, slice by slice"
        if self.recipe in UNPAIRED:
            description += "; trained without pairs, may add or remove lesions"
        ends, options = (self.source_modality, self.modality), f" --recipe {self.recipe}{named}"
        return self.package(task, description, ends, 2, cases, options, medgen)


def make_translation_plan(
    dataset: DataSet,
    inspection: PairInspection,
    name: str | None = None,
    license: str | None = None,
    device: str = "cpu",
    recipe: str | None = None,
    names: tuple[str | None, str | None] = (None, None),
) -> TranslationPlan:
    """The plan for a data set; the numbers of steps are added by `with_budget`.

    Raises
    ------
    InputError: too few people, a recipe that does not fit the data, or a name that no package can have.
    """
    facts, kind = inspection.facts, "cuda" if device.startswith("cuda") else "cpu"
    paired = dataset.paired
    chosen = recipe or ("pix2pix" if paired else UNPAIRED[0])
    side = float(np.median([case.in_plane for case in facts]))
    spacing = {"min": round(0.8 * side, 4), "max": round(1.25 * side, 4), "native": float(f"{side:.3g}")}
    patch, why_patch = _patch(inspection, side, kind)
    planes = sorted({plane for case in facts for plane in case.planes})
    held_out = _held_out(dataset, inspection, paired)
    moved = sum(case.moved for case in facts)
    extents = np.array([case.extent for case in facts])
    voxels = sum(math.prod(case.extent) / side**3 * len(case.digests) for case in facts)
    reasons = {
        "source_modality": "stated by the data set" if dataset.source_modality else "from the values of the images",
        "modality": "stated by the data set" if dataset.modality else "from the values of the images",
        "unit": "CT keeps its HU"
        if inspection.modality == "CT"
        else "the scale of MR is arbitrary, so each image is relative to its own bright end, which becomes 1000",
        "recipe": ("chosen by the user, the pairs are not used" if paired and chosen in UNPAIRED else WHY[chosen])
        + (f". {INVENTS}" if chosen in UNPAIRED else ""),
        "spacing_mm": "the cases have pixels of this size; other images are resampled, but not across thick slices",
        "planes": "slices are translated in these planes and averaged: 0 axial, 1 coronal, 2 sagittal",
        "patch": why_patch,
        "network": "a residual U-Net whose result does not depend on the size of the slice"
        if chosen not in UNPAIRED
        else "a residual network without a short cut from the source to its translation",
        "loss": "as published",
        "cache_mib": "space on the disk for the prepared volumes, from which the slices are read",
        "held_out": "a fifth of the people, drawn at random, for the measurement",
        **({"paired": f"{moved} of {len(facts)} targets are resampled to the grid of their source"} if moved else {}),
    }
    return TranslationPlan.of(
        {
            **about(dataset, inspection, name, license),
            **{key: value for key, value in zip(SIDES, names, strict=True) if value},
            "source_modality": inspection.source_modality,
            "unit": "HU" if inspection.modality == "CT" else "a.u.",
            "recipe": chosen,
            "paired": paired,
            "spacing_mm": spacing,
            "planes": planes,
            "patch": patch,
            "batch": BATCHES[chosen],
            "network": _network(chosen, inspection.source_modality, kind),
            "discriminator": {"width": 64 if kind == "cuda" else 32, "layers": 3, **_scales(chosen, patch)},
            "loss": LOSSES[chosen],
            "learning_rate": RATES[chosen],
            "held_out": held_out,
            "field_of_view_mm": [
                [float(v) for v in np.floor(0.5 * extents.min(axis=0))],
                [float(v) for v in np.ceil(1.2 * extents.max(axis=0))],
            ],
            "cache_mib": round(voxels * CACHED / 2**20, 1),
            "reasons": reasons,
        }
    )


def _held_out(dataset: DataSet, inspection: PairInspection, paired: bool) -> list[str]:
    """People for the measurement; without pairs, some of the sources and some of the targets."""
    found: set[str] = set()
    for side in SIDES[:1] if paired else SIDES:
        found |= set(hold_out_both(inspection.subjects(side), f"{side}s of {dataset.path}")[0])
    return sorted(found)


def _network(recipe: str, source_modality: str, device: str) -> dict[str, Any]:
    if recipe in UNPAIRED:  # sources and targets pass through one encoder, so both have one channel
        return {"channels_in": 1, **({"width": 64, "blocks": 9} if device == "cuda" else {"width": 24, "blocks": 6})}
    channels = 2 if modality_family(source_modality) == "CT" else 1
    return {"channels_in": channels, "widths": [32, 64, 128, 192], "blocks": [1, 2, 2, 2], "stem": 16}


def _scales(recipe: str, patch: int) -> dict[str, int]:
    fitting = (patch // LEAST_PATCH).bit_length()  # halves of the patch that a discriminator can still judge
    return {"scales": min(MOST_SCALES, fitting)} if recipe == "pix2pixhd" else {}


def _patch(inspection: PairInspection, side: float, device: str) -> tuple[int, str]:
    largest = LARGEST_PATCH[device]
    sides = [sorted(case.extent)[1:] for case in inspection.facts]
    needed = max(LEAST_PATCH, -(-round(float(np.max(sides)) / side) // STRIDE) * STRIDE)
    if needed <= largest:
        return needed, "the largest slice in pixels of this spacing"
    return largest, f"the slices are larger; {largest} pixels a side are what this device trains in useful time"


def _listed(cases: Any) -> list[list[str | None]]:
    """Cases as in a configuration."""
    return [[case.name, *(str(p) if p else None for p in (case.source, case.target))] for case in cases]
