"""Radiological planes of a volume, crop boxes, and gray windows.

Patient's right is on the viewer's left, anterior is up (axial) or left (sagittal), superior is up. Oblique volumes are
shown along their own axes, with the letters of the nearest anatomical directions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Volume

_SURROUNDINGS_MM = 100.0
"""Minimum extent shown around a changed region."""


@dataclass(frozen=True)
class Window:
    """Display window: black at level - width / 2, white at level + width / 2."""

    name: str
    width: float
    level: float

    @property
    def limits(self) -> tuple[float, float]:
        return self.level - self.width / 2, self.level + self.width / 2

    def __str__(self) -> str:
        return f"{self.name} (W {self.width:.4g} L {self.level:.4g})".lstrip()


SOFT_TISSUE = Window("soft-tissue window", 400, 40)
LUNG = Window("lung window", 1500, -600)
BONE = Window("bone window", 1800, 400)


def default_windows(volume: Volume) -> list[Window]:
    """Display windows: soft tissue and lung or bone for CT, percentiles otherwise."""
    values = volume.array[tuple(slice(None, None, max(n // 64, 1)) for n in volume.shape)]
    if volume.modality == "CT":
        air = np.count_nonzero((values > -950) & (values < -600))
        body = np.count_nonzero(values > -200)
        return [SOFT_TISSUE, LUNG if air > 0.15 * body else BONE]
    body = values[_foreground(values, volume.modality)]
    low, high = np.percentile(body if body.size else values, [1, 99.5])
    high *= 1.05 if high > 0 else 1  # otherwise the brightest tissue is white all over
    # MR has no negative signal, and its background should be black.
    low = min(low, 0.0) if values.min() >= 0 else low
    width = max(float(high - low), 1e-6)
    return [Window("window", width, float(low) + width / 2)]


@dataclass(frozen=True)
class Plane:
    """A plane of a RAS array: cut across `axis`, shown with `across` and `up` on the screen.

    Both screen axes run against the array: towards the patient's left or posterior, and inferior.
    """

    name: str
    axis: int
    across: int
    up: int
    letters: str  # left, right, top, bottom edge of the screen

    def cut(self, array: NDArray, index: int) -> NDArray:
        """2-D array (row, column) as on the screen, top row first, of an array in RAS order."""
        flat = array[(*[slice(None)] * self.axis, int(index))]  # (across, up)
        return flat[::-1, ::-1].T


PLANES = (Plane("axial", 2, 0, 1, "RLAP"), Plane("coronal", 1, 0, 2, "RLSI"), Plane("sagittal", 0, 1, 2, "APSI"))


@dataclass(frozen=True)
class View:
    """Planes through a point of all arrays on one grid, cropped to a box.

    Attributes
    ----------
    box, spacing, point: along the axes of RAS; the point counts from the corner of the box.
    planes: those with more than one voxel along both sides.
    """

    reorientation: Reorientation
    box: tuple[slice, ...]
    spacing: NDArray[np.float64]
    point: NDArray[np.int64]
    planes: tuple[Plane, ...]

    @classmethod
    def of(
        cls, image: Volume, region: NDArray | None = None, *, close: bool = False, weight: NDArray | None = None
    ) -> View:
        """The planes through the middle of a region.

        Parameters
        ----------
        region: True inside, in the order of the image's voxels; None takes the body.
        close: show only the region, which must not be empty, and its surroundings.
        weight: show the planes with the largest sum of this array instead of the middle planes.

        Raises
        ------
        InputError: no plane of the image has more than one voxel along both sides.
        """
        reorientation = Reorientation.to(image.geometry, "RAS")
        shape, spacing = reorientation.axes(image.shape), np.array(reorientation.axes(image.spacing))
        planes = tuple(plane for plane in PLANES if shape[plane.across] > 1 and shape[plane.up] > 1)
        if not planes:
            raise InputError(f"An image of {image.shape} voxels has no plane to show; load a slice.")
        whole = cls(reorientation, tuple(map(slice, shape)), spacing, np.zeros(3, int), planes)
        if close:
            box = _surroundings(whole.array(region), spacing)
        else:
            body = _foreground(image.array, image.modality)
            region = body if region is None else region
            box = box_around(whole.array(region | body))
        if weight is None:
            point = center_of(whole.array(region)[box])
        else:
            sums = _profiles(whole.array(weight)[box], np.sum, dtype=float)
            point = np.array([profile.argmax() for profile in sums])
        return replace(whole, box=box, point=point)

    def array(self, stored: NDArray) -> NDArray:
        """The box of an array, in RAS order; a view, not a copy."""
        return np.flip(stored.transpose(self.reorientation.order), self.reorientation.flips)[self.box]

    def cut(self, stored: NDArray, plane: Plane) -> NDArray:
        """A plane of an array as on the screen."""
        return plane.cut(self.array(stored), self.point[plane.axis])

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of a plane in mm."""
        extent = [part.stop - part.start for part in self.box] * self.spacing
        return float(extent[plane.across]), float(extent[plane.up])


def box_around(inside: NDArray) -> tuple[slice, ...]:
    """The box around the non-zero voxels with a margin of 4 %, or the whole array if there are none."""
    if not inside.any():
        return tuple(slice(0, length) for length in inside.shape)
    box = []
    for profile in _profiles(inside):
        span = np.flatnonzero(profile)
        margin = 1 + round(0.04 * (span[-1] - span[0]))
        box.append(slice(max(span[0] - margin, 0), min(span[-1] + 1 + margin, len(profile))))
    return tuple(box)


def center_of(inside: NDArray) -> NDArray[np.int64]:
    """Median position of the non-zero voxels along each axis: planes through it contain such voxels."""
    if not inside.any():
        return np.array(inside.shape) // 2
    totals = [profile.cumsum() for profile in _profiles(inside)]
    return np.array([np.searchsorted(total, total[-1] / 2) for total in totals])


def _surroundings(region: NDArray, spacing: NDArray) -> tuple[slice, ...]:
    """A cube around a region, 1.5 times its extent or at least `_SURROUNDINGS_MM`."""
    spans = [np.flatnonzero(profile)[[0, -1]] for profile in _profiles(region)]
    extents = [(last - first + 1) * step for (first, last), step in zip(spans, spacing, strict=True)]
    side = max(_SURROUNDINGS_MM, 1.5 * max(extents))
    box = []
    for (first, last), length, step in zip(spans, region.shape, spacing, strict=True):
        size = min(length, max(1, round(side / step)))
        start = min(max(0, round((int(first) + int(last) + 1 - size) / 2)), length - size)
        box.append(slice(start, start + size))
    return tuple(box)


def _profiles(array: NDArray, reduce: Callable = np.count_nonzero, **how) -> list[NDArray]:
    """The number of non-zero voxels per plane, or another reduction, for each axis."""
    return [reduce(array, axis=others, **how) for others in ((1, 2), (0, 2), (0, 1))]


def _foreground(values: NDArray, modality: str | None) -> NDArray[np.bool_]:
    """Approximate silhouette of the body, for framing."""
    if modality == "CT":
        return values > -400
    return values > values.min() + 0.1 * (np.percentile(values, 99) - values.min())
