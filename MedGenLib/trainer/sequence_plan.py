"""The plan of a training of a sequence model: every choice, made from the figures of the series, with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from MedGenLib.packages.typed import setting
from MedGenLib.trainer.datasets import SEQUENCE, DataSet, LabeledImage
from MedGenLib.trainer.image_plan import CACHED, GridPlan, intensities
from MedGenLib.trainer.inspection import Inspection
from MedGenLib.trainer.plan import about
from MedGenLib.training.splits import hold_out_both

MOST_VOXELS = {"cpu": 48**3, "cuda": 64**3}
WIDTHS = {"cpu": (8, 16, 32), "cuda": (16, 32, 64)}
"""Channels of the levels, the finest first."""


@dataclass(frozen=True, kw_only=True)
class SequencePlan(GridPlan):
    """All choices of a training run of a sequence model, as in plan.json, beside those of `GridPlan`.

    Attributes
    ----------
    frames: of each series.
    """

    task: Literal["sequence"] = SEQUENCE
    recipe: Literal["sequence"] = SEQUENCE
    frames: int = setting(low=2)

    def config(self, cases: Sequence[LabeledImage], cache: Any) -> dict[str, Any]:
        found = super().config(cases, cache)
        found["network"] |= {"frames": self.frames}
        return found

    def contents(self, cases: Sequence[LabeledImage]) -> dict[str, Any]:
        sides = [n * self.spacing_mm for n in self.grid]
        medgen = {
            "task": SEQUENCE,
            "pipeline": SEQUENCE,
            "input": {"kind": "image", "modality": self.modality},
            "output": self.output(),
            "spacing_mm": {"min": 0.05, "max": 2 * self.spacing_mm, "native": self.spacing_mm},
            "field_of_view_mm": {"min": [0.5 * side for side in sides], "max": [1.2 * side for side in sides]},
            "preprocessing": {"name": "fixed-grid", "frames": self.frames, "center": self.center, "scale": self.scale},
            "sampler": {"name": "network", "presets": {"draft": {}, "normal": {}, "best": {}}},
            "statistics": {},
        }
        description = f"Series of {self.frames} frames from the first one, of {self.modality}"
        ends, options = (self.modality,) * 2, f" --recipe {SEQUENCE}"
        return self.package("Series over time", description, ends, 3, cases, options, medgen)


def make_sequence_plan(
    dataset: DataSet, inspection: Inspection, name: str | None = None, license: str | None = None, device: str = "cpu"
) -> SequencePlan:
    """The plan for a data set of series; the number of steps is added by `with_budget`.

    Raises
    ------
    InputError: one person only, or a name that no package can have.
    """
    people, facts, kind = inspection.subjects, inspection.facts, "cuda" if device.startswith("cuda") else "cpu"
    held_out, _ = hold_out_both(people, f"series of {dataset.path}")
    step = 2 ** len(WIDTHS[kind])
    extent = np.max([case.extent for case in facts], axis=0)
    native = float(np.median([math.prod(case.spacing) ** (1 / 3) for case in facts]))
    spacing = float(f"{max(native, (np.prod(extent) / MOST_VOXELS[kind]) ** (1 / 3)):.3g}")
    grid = [int(math.ceil(round(side / spacing, 3) / step) * step) for side in extent]
    frames = facts[0].frames
    return SequencePlan.of(
        {
            **about(dataset, inspection, name, license, f"{dataset.title}-{SEQUENCE}"),
            **intensities(facts, inspection.modality == "CT"),
            "frames": frames,
            "spacing_mm": spacing,
            "grid": grid,
            "batch": 1 if kind == "cpu" else 4,
            "network": {"widths": list(WIDTHS[kind])},
            "loss": {"smooth": 0.05, "residual": 0.3},
            "learning_rate": 2e-3 if kind == "cpu" else 1e-3,
            "ema": 0.98,
            "held_out": held_out,
            "cache_mib": round(math.prod(grid) * frames * len(facts) * CACHED / 2**20, 1),
            "reasons": {
                "modality": "from the values of the images, or stated",
                "frames": "all series have as many",
                "spacing_mm": f"motion is smooth: no image has many more than {MOST_VOXELS[kind]:,} such voxels; the "
                "result has the voxels of the image",
                "grid": "the largest image at this spacing; smaller ones are padded",
                "network": "channels of the levels, the finest first, which has half the resolution of the grid",
                "loss": "weights of the slope of the motion and of the change of intensity, relative to the error",
                "cache_mib": "space on the disk for the prepared series",
                "held_out": f"a fifth of the {len(people)} people, drawn at random, for the measurement",
            },
        }
    )
