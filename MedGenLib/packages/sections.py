"""The typed sections `sampler` and `statistics` of a package's metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from MedGenLib.packages.typed import joined, setting, shown

# SamplerSpec and presets

SAME_PLACE = 0.05
"""Share of a slice by which rounded spacings may differ."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One of draft, normal and best; `steps` of the sampler, if it has any."""

    steps: int | None = setting(None, low=1, high=1000)


@dataclass(frozen=True, kw_only=True)
class StepsPreset(Preset):
    """A preset with a required number of steps."""

    steps: int = setting(low=1, high=1000)


@dataclass(frozen=True, kw_only=True)
class FlowPreset(StepsPreset):
    """`network` is the role of the sampled network, `most_steps` its largest number of steps."""

    network: str = "flow"
    most_steps: int | None = setting(None, low=1)


@dataclass(frozen=True, kw_only=True)
class SlicePreset(Preset):
    """Number of planes in which slices are translated, and whether mirrored slices are averaged too.

    With several planes, translated slices are up to `gap_mm` apart and those between interpolated; 0 is every slice.
    """

    planes: int = setting(3, low=1, high=3)
    mirror: bool = False
    gap_mm: float = setting(0.0, low=0, high=5)

    def step(self, spacing: float) -> int:
        """Every how many slices one is translated, for their distance in mm."""
        return max(1, int(self.gap_mm / spacing + SAME_PLACE))


PresetName = Literal["draft", "normal", "best"]


@dataclass(frozen=True, kw_only=True)
class SamplerSpec:
    """The recommended sampler of a package, and its presets."""

    name: str
    presets: Mapping[PresetName, Preset]

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        """Sentences on disagreements with the rest of the section `medgen`."""
        if "normal" not in self.presets:
            yield "sampler.presets has no 'normal', which is the default of every run; add it"
        for number, run in enumerate(medgen["performance"]):
            if run["preset"] not in self.presets:
                yield (
                    f"performance[{number}].preset is {shown(run['preset'])}, but the presets are "
                    f"{joined(self.presets, 'and')}; name one of them"
                )


@dataclass(frozen=True, kw_only=True)
class FlowSampler(SamplerSpec):
    """Sampler of a latent flow, whose network predicts the velocity."""

    presets: Mapping[PresetName, FlowPreset]
    prediction: Literal["velocity"] = "velocity"

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        networks = medgen["networks"]
        for name, preset in self.presets.items():
            role = preset.network
            if role not in networks:
                yield (
                    f"sampler.presets.{name}.network is {shown(role)}, but there is no network '{role}'; "
                    f"choose {joined(networks)}"
                )
                continue
            if preset.most_steps is not None and preset.most_steps < preset.steps:
                yield (
                    f"sampler.presets.{name}.steps is {preset.steps}, but its most_steps is {preset.most_steps}; "
                    "give at most that"
                )
            main, other = (networks[r]["arguments"] for r in ("flow", role))
            for key in ("maps", "scalars", "latent"):
                if main.get(key) != other.get(key):
                    yield (
                        f"networks.{role}.arguments.{key} is {shown(other.get(key))}, not the "
                        f"{shown(main.get(key))} of the network 'flow'; give the same"
                    )
            if len(main.get("widths", ())) != len(other.get("widths", ())):
                yield (
                    f"networks.{role}.arguments.widths is {shown(other.get('widths'))}, but the network 'flow' has "
                    f"{len(main.get('widths', ()))} levels; give as many"
                )


@dataclass(frozen=True, kw_only=True)
class PixelSampler(FlowSampler):
    """Sampler of a diffusion of voxels, whose network predicts v (Salimans and Ho 2022, arXiv 2202.00512)."""

    prediction: Literal["v"] = setting()


@dataclass(frozen=True, kw_only=True)
class MaisiSampler(SamplerSpec):
    """Sampler of NV-Generate's networks: rectified flow (MAISI v2) or denoising diffusion (MAISI v1)."""

    presets: Mapping[PresetName, StepsPreset]
    prediction: Literal["velocity", "noise"] = "velocity"


@dataclass(frozen=True, kw_only=True)
class SliceSampler(SamplerSpec):
    """Sampler of a slice translation, which is deterministic."""

    presets: Mapping[PresetName, SlicePreset]


# Statistics for the checks of an output


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """A tissue in the training images.

    Attributes
    ----------
    mean, sd: mean and standard deviation of its voxels.
    means: mean in each training image.
    low, high: required range of the mean in an output.
    """

    name: str
    mean: float | None = None
    sd: float | None = setting(None, low=0)
    means: tuple[float, ...] = ()
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, kw_only=True)
class Resegment:
    """Tissue labels by thresholds.

    After a median filter of `median` voxels, values below the first threshold are `labels[0]`, values up to the second
    one are `labels[1]`, and so on.

    Attributes
    ----------
    minimum_dice: by label, the minimum for an output.
    image: image in which a translation is segmented: the output, or the source if the output has no fixed unit.
    names: names of the labels, for training.
    """

    thresholds: tuple[float, ...]
    labels: tuple[int, ...] = setting(low=0)
    median: int = setting(1, low=1)
    minimum_dice: Mapping[int, float] = field(default_factory=dict, metadata={"low": 0, "high": 1})
    image: Literal["output", "source"] = "output"
    names: tuple[str, ...] = ()

    def contradictions(self) -> Iterator[str]:
        """Sentences on lists that do not match."""
        if len(self.labels) != len(self.thresholds) + 1:
            yield (
                f"statistics.resegment.labels has {len(self.labels)} values, but {len(self.thresholds)} thresholds "
                f"divide the values into {len(self.thresholds) + 1} parts; give a label for each"
            )
        if list(self.thresholds) != sorted(set(self.thresholds)):
            yield f"statistics.resegment.thresholds is {shown(list(self.thresholds))}; give them in rising order"
        if self.names and len(self.names) != len(self.labels):
            yield (
                f"statistics.resegment.names has {len(self.names)} names, but there are {len(self.labels)} labels; "
                "give a name for each"
            )


@dataclass(frozen=True, kw_only=True)
class SegmenterCheck:
    """The package of task "segment" that finds a mask's labels, by their names, in a generated image."""

    package: str
    minimum_dice: Mapping[int, float] = field(default_factory=dict, metadata={"low": 0, "high": 1})


@dataclass(frozen=True, kw_only=True)
class Range:
    """Lowest and highest value."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Half-widths of intervals around an output that hold the true values, measured on people kept out of the training.

    The half-width of a voxel depends on its value and on the range of the values around it.

    Attributes
    ----------
    level: share of the voxels of an unseen person that the intervals hold.
    people: number of people on whom they were measured.
    values, ranges: rising borders of the classes of both, in the unit of the output.
    half_widths: in the unit of the output; a row for each class of values, in it a number for each class of ranges.
    reach_mm: how far the neighborhood of a voxel reaches along each axis.
    tissues: name -> half-width over all of its voxels, for the user.
    """

    level: float = setting(above=0, high=1)
    people: int = setting(low=1)
    values: tuple[float, ...]
    ranges: tuple[float, ...]
    half_widths: tuple[tuple[float, ...], ...]
    reach_mm: float = setting(above=0)
    tissues: Mapping[str, float] = field(default_factory=dict, metadata={"low": 0})

    def contradictions(self) -> Iterator[str]:
        for key in ("values", "ranges"):
            if list(getattr(self, key)) != sorted(set(getattr(self, key))):
                yield f"statistics.intervals.{key} is {shown(list(getattr(self, key)))}; give it in rising order"
        wanted = (len(self.values) + 1, len(self.ranges) + 1)
        if len(self.half_widths) != wanted[0] or any(len(row) != wanted[1] for row in self.half_widths):
            yield f"statistics.intervals.half_widths needs {wanted[0]} rows of {wanted[1]} numbers for its classes"
        if any(not 0 <= width < math.inf for row in self.half_widths for width in row):
            yield "statistics.intervals.half_widths has a number that is negative or not finite; give half-widths"


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Reference values for an output; checks without a section are skipped.

    Attributes
    ----------
    tissues: tissues by label.
    background: range of the mean outside the mask.
    intervals: of the error of an output, see `Intervals`.
    """

    tissues: Mapping[int, Tissue] = field(default_factory=dict)
    resegment: Resegment | None = None
    segmenter: SegmenterCheck | None = None
    background: Range | None = None
    intervals: Intervals | None = None

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        """Sentences on disagreements with the rest of the section `medgen`."""
        ranges = {f"tissues.{value}": tissue for value, tissue in self.tissues.items()}
        if self.background is not None:
            ranges["background"] = self.background
        for where, limits in ranges.items():
            if limits.low > limits.high:
                yield f"statistics.{where}.low is {limits.low:g}, above its high of {limits.high:g}; exchange them"
        if self.resegment is not None:
            yield from self.resegment.contradictions()
        if self.intervals is not None:
            yield from self.intervals.contradictions()
        known = {0, *map(int, medgen["input"].get("labels", {}))}
        if len(known) == 1:  # a translation has no labels
            return
        named = {"tissues": self.tissues}
        if self.resegment is not None:
            named |= {"resegment.labels": self.resegment.labels, "resegment.minimum_dice": self.resegment.minimum_dice}
        if self.segmenter is not None:
            named["segmenter.minimum_dice"] = self.segmenter.minimum_dice
        for where, values in named.items():
            if unknown := sorted(set(values) - known):
                yield (
                    f"statistics.{where} names the label {unknown[0]}, but the model's labels are "
                    f"{joined(map(str, sorted(known - {0})), 'and')}; name one of them"
                )
