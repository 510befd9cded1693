"""Placement of a lesion inside an organ or the body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.editing.lesions.shapes import Shape
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.labels.vocabulary import plain_name

_CORNERS = np.array(np.meshgrid((0, 1), (0, 1), (0, 1))).reshape(3, -1)


@dataclass(frozen=True)
class Host:
    """The structure that a lesion stays inside of.

    Attributes
    ----------
    name: for messages, such as "'lung'" or "the body".
    array: (i, j, k) bool, its voxels.
    """

    name: str
    array: NDArray[np.bool_]
    geometry: Geometry

    @classmethod
    def organ(cls, labels: LabelMap, wanted: int | str, names: dict[int, str]) -> Host:
        """One label of a segmentation, by number or name.

        Raises
        ------
        InputError: the segmentation has no such label; the message names its labels.
        """
        value = _value(wanted, names)
        array = labels.array == value if value else None
        if array is None or not array.any():
            here = [f"{v} {names[v]}" if v in names else str(v) for v in labels.values()]
            raise InputError(
                f"There is no organ '{wanted}' in the labels; choose one of those that are: {', '.join(here)}."
            )
        return cls(f"'{names.get(value, value)}'", array, labels.geometry)

    def index_of(self, at: Sequence[float]) -> tuple[int, int, int]:
        """The voxel at a position in RAS mm.

        Raises
        ------
        InputError: the place lies outside of the image or of the host.
        """
        index = voxel_at(self.geometry, at)
        if not self.array[index]:
            raise InputError(f"The place {_shown(at)} mm (RAS) does not lie inside {self.name}; choose another one.")
        return index

    def random_place(
        self, size_mm: float, generator: np.random.Generator, grown: bool = False
    ) -> tuple[float, float, float]:
        """A random position in RAS mm around which a ball of `size_mm` stays inside the host and the image.

        Raises
        ------
        InputError: the lesion is larger than the host at its widest.
        """
        depth = depth_of(self.array, self.geometry.spacing)
        spots = np.argwhere(depth >= size_mm / 2)
        if not len(spots):
            raise InputError(self._too_large(size_mm, 2 * float(depth.max()), "grown lesion" if grown else "lesion"))
        chosen = spots[generator.integers(len(spots))]
        affine = self.geometry.affine
        return tuple(float(x) for x in affine[:3, :3] @ chosen + affine[:3, 3])

    def keep_inside(self, lesion: NDArray[np.bool_], size_mm: float) -> tuple[NDArray[np.bool_], list[Finding]]:
        """The part of a lesion inside the host, and a warning where a part was cut off.

        Raises
        ------
        InputError: no part is inside, or the lesion is larger than the host.
        """
        inside = lesion & self.array
        drawn, kept = int(lesion.sum()), int(inside.sum())
        if not kept:
            raise InputError(f"No part of the lesion lies inside {self.name}; choose another place.")
        swallowed = kept < drawn and kept == int(self.array.sum())
        if swallowed or size_mm > self._across():
            raise InputError(self._too_large(size_mm, 2 * float(depth_of(self.array, self.geometry.spacing).max())))
        if kept == drawn:
            return lesion, []
        share = 1 - kept / drawn
        sentence = f"{share:.0%} of the lesion reached out of {self.name} and was cut off."
        return inside, [Finding("warning", "lesion-cut", sentence)]

    def _across(self) -> float:
        """Diagonal in mm of the bounding box of the host."""
        sides = [int(i.max()) - int(i.min()) + 1 for i in np.nonzero(self.array)]
        return float(np.linalg.norm(np.multiply(sides, self.geometry.spacing)))

    def _too_large(self, size_mm: float, widest: float, what: str = "lesion") -> str:
        return (
            f"The {what} of {size_mm:.3g} mm is larger than {self.name}, where a ball of "
            f"{widest:.3g} mm fits at most; choose a smaller size."
        )


@dataclass(frozen=True)
class Placement:
    """A lesion at its position in an image.

    Attributes
    ----------
    lesion: (i, j, k) bool.
    shape: name of its shape.
    size_mm: greatest diameter.
    at: center in RAS mm.
    solid: what was drawn; None for a painted lesion.
    day: time of a lesion that grows; None without growth.
    """

    lesion: NDArray[np.bool_]
    shape: str
    size_mm: float
    at: NDArray[np.float64]
    findings: list[Finding]
    solid: Shape | None = None
    day: float | None = None

    @classmethod
    def inside(
        cls, host: Host, lesion: NDArray[np.bool_], shape: str, size_mm: float, at: NDArray[np.float64] | None = None
    ) -> Placement:
        """A drawn lesion cut to its host (see `Host.keep_inside`); ``at`` None is its center of mass."""
        kept, findings = host.keep_inside(lesion, size_mm)
        if at is None:
            affine = host.geometry.affine
            at = affine[:3, :3] @ np.argwhere(kept).mean(0) + affine[:3, 3]
        return cls(kept, shape, size_mm, at, findings)

    def gap_mm(self, geometry: Geometry) -> float:
        """Distance from the center to the nearest voxel of the lesion."""
        offsets = np.argwhere(self.lesion) @ geometry.affine[:3, :3].T + geometry.origin - self.at
        return float(np.linalg.norm(offsets, axis=1).min())

    def to_dict(self, image: Volume) -> dict[str, Any]:
        """Plain JSON types for the report."""
        voxels = int(self.lesion.sum())
        return {
            **({} if self.day is None else {"day": self.day}),
            "shape": self.shape,
            "size_mm": round(float(self.size_mm), 2),
            "at_ras_mm": [round(float(x), 2) for x in self.at],
            "voxels": voxels,
            "volume_ml": round(voxels * float(np.prod(image.spacing)) / 1000, 4),
        }


def depth_of(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance in mm to the surface of a mask, or to the border of the grid."""
    from scipy.ndimage import distance_transform_edt

    # An axis of one voxel has no surface.
    margin = [(int(n > 1),) * 2 for n in mask.shape]
    depth = distance_transform_edt(np.pad(mask, margin), spacing)
    return depth[tuple(slice(m, m + n) for (m, _), n in zip(margin, mask.shape, strict=True))]


def voxel_at(geometry: Geometry, at: Sequence[float]) -> tuple[int, int, int]:
    """The voxel that contains a position in RAS mm.

    Raises
    ------
    InputError: it lies outside of the grid; the message names its extent.
    """
    affine = geometry.affine
    index = np.rint(np.linalg.solve(affine[:3, :3], np.subtract(at, affine[:3, 3]))).astype(int)
    if (index < 0).any() or (index >= geometry.shape).any():
        corners = affine[:3, :3] @ (_CORNERS * (np.array(geometry.shape)[:, None] - 1))
        corners = corners + affine[:3, 3:]
        ends = zip("RAS", corners.min(1), corners.max(1), strict=True)
        reach = ", ".join(f"{letter} {a:.0f} to {b:.0f}" for letter, a, b in ends)
        raise InputError(
            f"The place {_shown(at)} mm (RAS) lies outside of the image, which reaches over "
            f"{reach} mm; choose a place inside."
        )
    return tuple(int(n) for n in index)


def _value(wanted: int | str, names: dict[int, str]) -> int | None:
    if str(wanted).strip().isdigit():
        return int(wanted)
    plain = {plain_name(name): value for value, name in names.items()}
    return plain.get(plain_name(str(wanted)))


def _shown(at: Sequence[float]) -> str:
    return ", ".join(f"{round(float(x), 1):g}" for x in at)
