"""Textures of lesions: what their inside and their border look like, beside shape, size and contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.editing.lesions.placement import depth_of
from MedGenLib.editing.lesions.shapes import spread_directions
from MedGenLib.errors import InputError

_WAVES = 128
"""Waves of a random field."""
_GRAIN_MM = 6.0
"""Length of the heterogeneity of large lesions; smaller ones have a fifth of their size."""
_FINE = 0.35
"""Length of calcifications relative to that of the heterogeneity."""
_RAGGED = 0.2
"""Irregularity of inner borders, relative to the depth of the lesion."""
_SOFT = 0.4
"""Width of inner borders, relative to the standard deviation of what they are drawn by."""
_SHELL = 0.3
"""Depth of the rim, relative to that of the lesion; it fades within as much again."""
_GLASS = 0.35
"""Density of ground glass, relative to the solid part."""
_STRAND = (0.3, 0.7)
"""Length of strands beyond the border, relative to the size of the lesion."""
_STRAND_MM = (0.4, 1.2)
"""Half the thickness of a strand at its root; it is a 20th of the size within these limits."""
_MOST = {"grain": 1000, "core": 1, "specks": 1, "glass": 1, "strands": 120, "border": 20}
"""Numbers that are not below 0, and their largest value."""


@dataclass(frozen=True)
class Texture:
    """The appearance of a lesion. Levels are in HU for CT and in % of the brightness of the tissue for MR.

    Attributes
    ----------
    grain: standard deviation of the heterogeneity inside.
    rim: level of the outer shell.
    core, necrosis: share of the volume that is necrotic, innermost, and its level.
    specks, calcium: share of the volume that is calcified, and its level.
    glass: share of the volume that is ground glass, outermost: as dense as a mixture of tissue and lesion.
    strands: number of thin strands that run into the surroundings.
    border: standard deviation in mm of a blurred border; 0 leaves the partial volume of its voxels.
    """

    grain: float
    rim: float = 0.0
    core: float = 0.0
    necrosis: float = 0.0
    specks: float = 0.0
    calcium: float = 0.0
    glass: float = 0.0
    strands: float = 0.0
    border: float = 0.0

    @classmethod
    def read(cls, text: str, modality: str | None) -> Texture:
        """Of "necrotic", or with numbers instead of its own: "necrotic,core=0.6,rim=30".

        Raises
        ------
        InputError: no such preset or number, or a value beyond its range.
        """
        name, *changes = (part.strip() for part in text.split(","))
        if name not in PRESETS:
            raise InputError(f"There is no texture '{name}'; choose {', '.join(PRESETS)}.")
        known = [field.name for field in fields(cls)]
        numbers = {}
        for key, _, value in (change.partition("=") for change in changes):
            try:
                numbers[key] = float(value)
            except ValueError:
                numbers[key] = np.nan
            if key not in known or not np.isfinite(numbers[key]):
                raise InputError(f"'{key}={value}' is no number of a texture; give NAME=NUMBER of {', '.join(known)}.")
            if key in _MOST and not 0 <= numbers[key] <= _MOST[key]:
                raise InputError(
                    f"The number {key} of a texture has to be 0 to {_MOST[key]}, not {numbers[key]:g}; correct it."
                )
        return replace(PRESETS[name][0 if modality == "CT" else 1], **numbers)

    def reach_mm(self, size_mm: float) -> float:
        """How far from the border of a lesion it may change voxels, beside the voxels of the border themselves."""
        return (_STRAND[1] * size_mm if self.strands else 0.0) + 3 * self.border


def _pair(**both: tuple[float, float]) -> tuple[Texture, Texture]:
    """The texture in CT and in MR; the heterogeneity is that of 41 sarcomas (see the results)."""
    ct, mr = ({name: values[side] for name, values in both.items()} for side in (0, 1))
    return Texture(**{"grain": 7.0, **ct}), Texture(**{"grain": 6.0, **mr})


PRESETS: Mapping[str, tuple[Texture, Texture]] = {
    "solid": _pair(),
    "rim": _pair(rim=(45, 35)),
    "necrotic": _pair(rim=(25, 20), core=(0.4, 0.4), necrosis=(-30, -35)),
    "calcified": _pair(specks=(0.15, 0.15), calcium=(350, -50)),
    "spiculated": _pair(strands=(30, 30)),
    "ground-glass": _pair(glass=(0.7, 0.7)),
    "mixed": _pair(
        rim=(25, 20), core=(0.3, 0.3), necrosis=(-30, -35), specks=(0.05, 0.05), calcium=(300, -50), border=(0.8, 0.8)
    ),
}
"""Name -> texture in CT and in MR."""


@dataclass(frozen=True)
class Drawing:
    """A lesion in a box of voxels, without its texture.

    Attributes
    ----------
    lesion: (i, j, k) bool.
    share: (i, j, k), 0 to 1, share of the voxel inside the lesion.
    offsets: (i, j, k, 3) mm of each voxel from the center, along RAS.
    """

    lesion: NDArray[np.bool_]
    share: NDArray[np.float64]
    offsets: NDArray[np.float64]
    spacing: tuple[float, float, float]
    size_mm: float
    seed: int


def drawn(texture: Texture, drawing: Drawing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of each voxel is lesion (0 to 1), and the level added to it, in the unit of `Texture`."""
    from scipy.ndimage import gaussian_filter

    share = drawing.share
    if texture.border:
        share = gaussian_filter(share, np.divide(texture.border, drawing.spacing), mode="nearest", truncate=3)
    if texture.strands:
        share = np.maximum(share, _strands(round(texture.strands), drawing))
    depth = depth_of(drawing.lesion, drawing.spacing)
    near = share > 0
    inside, depth, points = drawing.lesion[near], depth[near] / depth.max(), drawing.offsets[near]
    length = min(_GRAIN_MM, drawing.size_mm / 5)
    fields = np.random.default_rng([drawing.seed, 2]).spawn(3)
    grain = _standard(_field(points / length, fields[0]), inside)
    ragged = depth + _RAGGED * _standard(_field(points / length, fields[1]), inside)
    fine = _field(points / (_FINE * length), fields[2])
    core = _highest(ragged, inside, texture.core)
    level = texture.grain * grain * (1 - core) + texture.rim * np.clip(2 - depth / _SHELL, 0, 1) * (1 - core)
    level += texture.necrosis * core + texture.calcium * _highest(fine, inside, texture.specks)
    density = 1 - (1 - _GLASS) * _highest(-ragged, inside, texture.glass)
    weight, added = np.zeros(share.shape), np.zeros(share.shape)
    weight[near], added[near] = share[near] * density, share[near] * density * level
    return weight, added


def _highest(values: NDArray, inside: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """1 where the values are among the highest, so many of those inside, with a soft border."""
    if share in (0, 1):
        return np.full(values.shape, float(share))
    within = values[inside]
    return np.clip(0.5 + (values - np.quantile(within, 1 - share)) / (_SOFT * within.std() + 1e-9), 0, 1)


def _field(points: NDArray, generator: np.random.Generator) -> NDArray[np.float64]:
    """A Gaussian random field with the correlation exp(-distance^2 / 2) at any points (n, 3), whatever the grid."""
    field = np.zeros(len(points))
    for wave, phase in zip(generator.normal(size=(_WAVES, 3)), generator.uniform(0, 2 * np.pi, _WAVES), strict=True):
        field += np.cos(points @ wave + phase)
    return field * np.sqrt(2 / _WAVES)


def _standard(field: NDArray, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """With mean 0 and standard deviation 1 inside."""
    within = field[inside]
    return (field - within.mean()) / (within.std() or 1.0)


def _strands(count: int, drawing: Drawing) -> NDArray[np.float64]:
    """Share of each voxel in strands, which begin inside the lesion and become thinner outwards."""
    from scipy.ndimage import distance_transform_edt

    generator = np.random.default_rng([drawing.seed, 3])
    towards = spread_directions(count) + generator.normal(0, 0.3, (count, 3))
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    lengths = generator.uniform(*_STRAND, count) * drawing.size_mm
    beyond = distance_transform_edt(~drawing.lesion, drawing.spacing)
    thick = np.clip(drawing.size_mm / 20, *_STRAND_MM)
    widest = np.hypot(thick, max(drawing.spacing) / 2)  # a strand thinner than a voxel fills a part of it
    share = np.zeros(drawing.share.shape)
    for direction, length in zip(towards, lengths, strict=True):
        along = drawing.offsets @ direction
        apart = (drawing.offsets**2).sum(-1) - along**2
        full = np.exp(-apart / widest**2) * (thick / widest) * np.clip(1 - beyond / length, 0, 1)
        np.maximum(share, np.where((along > 0) & (full > 0.05), full, 0), out=share)
    return share
