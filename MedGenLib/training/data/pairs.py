"""Slices of image pairs, or of unpaired images, of any modality, prepared once in a cache on disk.

Paired images lie on one lattice; the slices of both are cut at the same place. Unpaired ones are drawn apart. Each
image is resampled as `MedGenLib.pipelines.slice_sampling` does, so that training and use see the same slices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.normalization import bright_end, slice_codec
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, crop, occupied
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.io.files import read_volume
from MedGenLib.labels.tissues import resegment
from MedGenLib.metrics.image import dice
from MedGenLib.packages.manifest import SpacingRange
from MedGenLib.packages.sections import Resegment
from MedGenLib.packages.typed import read
from MedGenLib.pipelines.slice_sampling import SLICE_AXIS
from MedGenLib.pipelines.working_grid import slice_spacing, usable_axes
from MedGenLib.training.data.alignment import within_field
from MedGenLib.training.data.patches import random_window

SIDES = ("source", "target")
LEFT_RIGHT_IS_ROWS = (2, 1)
"""Axes of the LPS grid across which slices have rows from right to left."""
LEAST_SPREAD = 0.02
"""Standard deviation of the network values of a slice that shows something."""
GAMMA, GAIN = 0.25, 0.15
"""Largest logarithm of the random contrast exponent and gain of an MR source."""
FEWEST_VOXELS = 200
"""Of a tissue in a case, for its mean."""


@dataclass(frozen=True)
class PreparedImages:
    """One case in the cache: network values (float16) in LPS, mapped into memory; None for a side that it lacks.

    Attributes
    ----------
    slices: axis -> slices that show something.
    tissues: label -> number, mean and standard deviation of the target's voxels, in the unit of the output.
    outline: Dice of the bodies in source and target.
    """

    images: Mapping[str, np.ndarray]
    slices: Mapping[int, Sequence[int]]
    tissues: Mapping[int, tuple[int, float, float]]
    outline: float | None


class Pairs:
    """Random views of the slices of a configuration's cases; ``cases`` is their key in its section ``data``."""

    def __init__(self, config: dict[str, Any], patch: int, channels: int, paired: bool, cases: str = "cases") -> None:
        data = config["data"]
        self.codecs = {side: slice_codec(data[side]) for side in SIDES}
        self.size, self.channels, self.paired = (patch, patch), channels, paired
        self.cases = [_cached(data, case) for case in data[cases]]
        self.groups = (SIDES,) if paired else (SIDES[:1], SIDES[1:])
        planes = [axis for axis, plane in SLICE_AXIS.items() if plane in data["planes"]]
        self.pools = {
            (sides, axis): [c for c in self.cases if all(s in c.images for s in sides) and c.slices.get(axis)]
            for sides in self.groups
            for axis in planes
        }
        self.axes = [axis for axis in planes if all(self.pools[sides, axis] for sides in self.groups)]

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """``source`` (b, channels, h, w), ``target`` (b, 1, h, w) and ``plane`` (b,)."""
        items = [self._example(generator) for _ in range(batch)]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def _example(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        axis = self.axes[generator.integers(len(self.axes))]
        found: dict[str, np.ndarray] = {"plane": np.int64(SLICE_AXIS[axis])}
        for sides in self.groups:
            pool = self.pools[sides, axis]
            case = pool[generator.integers(len(pool))]
            index = case.slices[axis][generator.integers(len(case.slices[axis]))]
            found |= self._views({side: case.images[side].take(index, axis) for side in sides}, axis, generator)
        return found

    def _views(self, slices: dict[str, np.ndarray], axis: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """The same random part of the slices, flipped or not."""
        box, margins = random_window(next(iter(slices.values())).shape, self.size, generator)
        flip = generator.random() < 0.5 and axis in LEFT_RIGHT_IS_ROWS
        gamma, gain = np.exp(generator.uniform(-1, 1, 2) * (GAMMA, GAIN))
        views = {}
        for side, image in slices.items():
            view = np.pad(image[box].astype(np.float32), margins, "symmetric")
            view = view[::-1] if flip else view
            if side == "target":
                views[side] = view[None].copy()
                continue
            codec = self.codecs[side]
            values = codec.from_target(view)
            if self.paired and codec.channels == 1:  # MR has no fixed scale
                values = gain * values**gamma
            views[side] = np.ascontiguousarray(codec.as_input(values)[: self.channels])
        return views

    def statistics(self, spec: Resegment | None) -> dict[str, dict[str, Any]]:
        """Statistics of the tissues in the targets; the range of means allows for what few cases show."""
        tissues = {}
        for value, name in zip(spec.labels, spec.names, strict=True) if spec else ():
            found = np.array([case.tissues[value][1:] for case in self.cases if value in case.tissues])
            if value and len(found):
                mean, spread, within = found[:, 0].mean(), found[:, 0].std(), found[:, 1].mean()
                reach = max(3 * spread, 0.5 * within)
                numbers = {"mean": mean, "sd": spread, "low": mean - reach, "high": mean + reach}
                tissues[str(value)] = {"name": name, **{k: round(float(v), 1) for k, v in numbers.items()}}
        return tissues

    def outline(self) -> bool:
        """Whether the bodies of source and target agree, so that an output can be checked by it."""
        found = [case.outline for case in self.cases if case.outline is not None]
        return bool(found) and float(np.quantile(found, 0.1)) > 0.9


def tissue_thresholds(data: Mapping[str, Any]) -> Resegment | None:
    """The thresholds of tissues of the configuration."""
    return None if data["tissues"] is None else read(Resegment, data["tissues"], "tissues")


def _cached(data: Mapping[str, Any], case: Sequence[str | None]) -> PreparedImages:
    """The prepared case, from the cache if it is there."""
    name, *paths = case
    rule = {key: data[key] for key in ("spacing_mm", *SIDES, "tissues")}
    rule |= {"moved": data["moved"] and str(data["moved"])} if "moved" in data else {}
    files = [path and (path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns) for path in paths]
    key = hashlib.sha256(json.dumps([rule, files], sort_keys=True).encode()).hexdigest()[:20]
    base = Path(data["cache"]) / key
    facts = base.with_name(f"{key}.json")
    if not facts.is_file():
        base.parent.mkdir(parents=True, exist_ok=True)
        write_json(facts, _prepare(data, case, base))
    known = json.loads(facts.read_text(encoding="utf-8"))
    images = {
        side: np.load(base.with_name(f"{key}.{side}.npy"), mmap_mode="r")
        for side, path in zip(SIDES, paths, strict=True)
        if path
    }
    slices = {int(axis): found for axis, found in known["slices"].items()}
    tissues = {int(value): tuple(found) for value, found in known["tissues"].items()}
    return PreparedImages(images, slices, tissues, known["outline"])


def _prepare(data: Mapping[str, Any], case: Sequence[str | None], base: Path) -> dict[str, Any]:
    """Resample, reorient and encode a case; returns its facts."""
    known = loaded(data, case)
    values = dict(known.values)
    if "moved" in data:
        moved = Path(data["moved"] or "") / f"{case[0]}.npy"
        if data["moved"] and moved.is_file():  # held-out targets are not moved
            values["target"] = np.load(moved).astype(np.float32)
        values = within_field(values, data)
    encoded = {side: slice_codec(data[side]).as_target(array) for side, array in values.items()}
    for side, array in encoded.items():
        with replacing(base.with_name(f"{base.name}.{side}.npy")) as temporary:
            np.save(temporary, array.astype(np.float16))
    shown = next(iter(encoded.values()))
    slices = {
        axis: [i for i in range(shown.shape[axis]) if shown.take(i, axis).std() > LEAST_SPREAD] for axis in known.axes
    }
    return {"slices": slices, "tissues": _tissues(data, values), "outline": known.outline}


@dataclass(frozen=True)
class LoadedImages:
    """The images of a case on the working grid of the networks.

    Attributes
    ----------
    values: side -> (x, y, z) in LPS order, HU or relative to the bright end of an MR.
    axes: those across the slices that the networks see.
    spacing: voxel sides in mm.
    outline: as in `PreparedImages`.
    """

    values: Mapping[str, np.ndarray]
    axes: list[int]
    spacing: tuple[float, ...]
    outline: float | None


def loaded(data: Mapping[str, Any], case: Sequence[str | None]) -> LoadedImages:
    """Read and resample a case of a configuration."""
    volumes = {side: read_volume(path, modality=data[side]) for side, path in zip(SIDES, case[1:], strict=True) if path}
    if len(volumes) == 2:
        volumes = dict(zip(SIDES, on_one_lattice(volumes["source"], volumes["target"]), strict=True))
    first = next(iter(volumes.values()))
    spacing = slice_spacing(first, SpacingRange(**data["spacing_mm"]))
    volumes = {side: resample(volume, spacing) for side, volume in volumes.items()}
    order = Reorientation.to(next(iter(volumes.values())).geometry, "LPS")
    axes = [axis for axis in range(3) if order.order[axis] in usable_axes(first)]
    values = {side: _in_units(order.apply(volume.array), volume.modality) for side, volume in volumes.items()}
    sides = tuple(float(mm) for mm in order.axes(spacing))
    return LoadedImages(values, axes, sides, _outline(list(volumes.values())))


def _outline(volumes: Sequence[Volume]) -> float | None:
    """Dice of the bodies in both images; None without a pair, or where an image shows none."""
    try:
        return dice(*(body_envelope_from_image(volume).array > 0 for volume in volumes)) if len(volumes) == 2 else None
    except InputError:
        return None


def on_one_lattice(source: Volume, target: Volume) -> tuple[Volume, Volume]:
    """Both images on the voxels of the source that the target covers; the target is resampled if its grid differs."""
    if source.geometry.is_close(target.geometry):
        return source, Volume(target.array, source.affine, target.modality, target.unit)
    reached = resample_to(LabelMap(np.ones(target.shape, np.uint8), target.affine), source).array > 0
    (i, j, k) = occupied(reached)
    moved = resample_to(target.with_array(target.array.astype(np.float32)), source)
    start, stop = zip(i, j, k, strict=True)
    return crop(source, start, stop), crop(moved, start, stop)


def _in_units(array: np.ndarray, modality: str) -> np.ndarray:
    """HU of CT; MR relative to its bright end."""
    array = array.astype(np.float32)
    return array if modality == "CT" else array / bright_end(array)


def _tissues(data: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> dict[int, list[float]]:
    """Label -> number, mean and standard deviation of the target's voxels; from a CT on either side."""
    spec = tissue_thresholds(data)
    by = "target" if spec is None or spec.image == "output" else "source"
    if spec is None or by not in values or "target" not in values:
        return {}
    labels = resegment(values[by], spec)
    scale = 1.0 if data["target"] == "CT" else 1000.0
    found = {value: scale * values["target"][labels == value] for value in spec.labels if value}
    return {
        value: [int(part.size), float(part.mean(dtype=np.float64)), float(part.std(dtype=np.float64))]
        for value, part in found.items()
        if part.size >= FEWEST_VOXELS
    }
