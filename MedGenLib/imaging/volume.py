"""Volume and LabelMap: an array on a rectangular grid in the patient.

Arrays are indexed (i, j, k). The affine takes a voxel index to RAS millimeters: +x is the
patient's right, +y anterior, +z superior. SimpleITK and DICOM use LPS instead; the two functions
`affine_from_lps` and `lps_from_affine` are the only place where one becomes the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from MedGenLib.errors import InputError

if TYPE_CHECKING:
    import SimpleITK

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))
_SAME_GRID = 0.05
"""Distance of two voxels on the same grid, relative to the voxel size."""
_LARGEST_COSINE = 1e-3
"""Axes whose cosine is larger (0.06 degrees off a right angle) are not a rectangular grid."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A rectangular voxel grid in the patient.

    Parameters
    ----------
    shape: voxels along i, j, k.
    affine: (4, 4), voxel index -> RAS mm; axes may be oblique, left-handed and anisotropic.

    Raises
    ------
    InputError: not three axes, an affine that is not finite, singular, sheared or not affine.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))
        self.affine.setflags(write=False)
        _check_shape(self.shape)
        _check_affine(self.affine)

    def __str__(self) -> str:
        return f"{by_axis(self.shape)} voxels of {by_axis(self.spacing, '.4g')} mm"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def origin(self) -> np.ndarray:
        """RAS position in mm of the center of voxel (0, 0, 0)."""
        return self.affine[:3, 3]

    @property
    def direction(self) -> np.ndarray:
        """(3, 3): column n is the unit vector in RAS along array axis n."""
        return self.affine[:3, :3] / np.array(self.spacing)

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction of growing i, j, k, for instance "RAS" or "LIA"."""
        letters = [""] * 3
        cosines = np.abs(self.direction)
        for _ in range(3):  # the clearest pairs of axes first, so that no letter is used twice
            world, axis = np.unravel_index(np.argmax(cosines), (3, 3))
            letters[axis] = _AXIS_LETTERS[world][int(self.direction[world, axis] > 0)]
            cosines[world, :] = cosines[:, axis] = -1.0
        return "".join(letters)

    @property
    def field_of_view(self) -> tuple[float, float, float]:
        """Extent along i, j, k in mm, between the outer faces of the outermost voxels."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    def moved(self, start: Sequence[float], shape: Sequence[int]) -> Geometry:
        """The grid of the same voxels whose first voxel lies at index `start` of this one."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start, dtype=np.float64)
        return Geometry(tuple(shape), affine)

    def with_spacing(self, spacing: Sequence[float]) -> Geometry:
        """The grid of another voxel size (mm) with the same center, covering at least as much.

        An axis of one voxel keeps its size: there is nothing to interpolate along it.
        """
        wanted = np.array(
            [s if n == 1 else w for n, s, w in zip(self.shape, self.spacing, spacing, strict=True)], dtype=np.float64
        )
        if not (np.isfinite(wanted).all() and (wanted > 0).all()):
            raise InputError(f"The spacing {tuple(spacing)} mm cannot be used; give three numbers above 0.")
        # 1e-6: a field of view that is a whole number of voxels must not gain one by rounding.
        shape = np.ceil(np.array(self.field_of_view) / wanted - 1e-6).clip(1).astype(int)
        affine = np.eye(4)
        affine[:3, :3] = self.direction * wanted
        center = self.affine[:3, :3] @ ((np.array(self.shape) - 1) / 2) + self.origin
        affine[:3, 3] = center - affine[:3, :3] @ ((shape - 1) / 2)
        return Geometry(tuple(shape), affine)

    def is_close(self, other: Geometry, tolerance: float | None = None) -> bool:
        """Whether both have the same shape and no corner is further apart than tolerance in mm.

        By default that is a twentieth of the smallest voxel size: DICOM cosines of four digits move a
        corner of 512 voxels that far.
        """
        if tolerance is None:
            tolerance = max(1e-3, _SAME_GRID * min(self.spacing))
        return self.shape == other.shape and self.distance(other) <= tolerance

    def apart(self, other: Geometry) -> str:
        """How far two grids of the same shape lie apart, for a sentence; "" for grids of other shapes."""
        return f", up to {self.distance(other):.3g} mm away" if self.shape == other.shape else ""

    def distance(self, other: Geometry) -> float:
        """Largest distance in mm between the corner voxels of two grids of the same shape."""
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1)
        shift = (self.affine - other.affine)[:3]
        return float(np.linalg.norm(shift[:, :3] @ corners + shift[:, 3:], axis=0).max())


@dataclass(frozen=True, eq=False)
class Forms:
    """The two positions in the header of a NIfTI file, which an output on the same grid keeps.

    Attributes
    ----------
    affine: the affine that was read from the header.
    qform: affine of the qform, where it differs.
    qform_code, sform_code: what the positions refer to (1 scanner, 2 aligned, ...); 0 is none.
    """

    affine: np.ndarray
    qform: np.ndarray | None = None
    qform_code: int = 1
    sform_code: int = 1

    def is_of(self, affine: np.ndarray) -> bool:
        """Whether these are the forms of a grid with this affine."""
        return np.allclose(self.affine, affine, rtol=1e-6, atol=1e-6)


@dataclass(frozen=True, eq=False)
class _Grid:
    """What Volume and LabelMap share: an array and where it lies."""

    array: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", np.asarray(self.array))
        object.__setattr__(self, "affine", Geometry(self.array.shape, self.affine).affine)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.array.shape, self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along i, j, k in mm."""
        return self.geometry.spacing

    @property
    def origin(self) -> np.ndarray:
        """RAS position in mm of the center of voxel (0, 0, 0)."""
        return self.geometry.origin

    @property
    def direction(self) -> np.ndarray:
        """(3, 3): column n is the unit vector in RAS along array axis n."""
        return self.geometry.direction

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction of growing i, j, k, for instance "RAS" or "LIA"."""
        return self.geometry.orientation

    @property
    def field_of_view(self) -> tuple[float, float, float]:
        """Extent along i, j, k in mm."""
        return self.geometry.field_of_view


@dataclass(frozen=True, eq=False)
class Volume(_Grid):
    """A scalar image.

    Parameters
    ----------
    array: (i, j, k) numbers.
    affine: (4, 4), voxel index -> RAS mm.
    modality: "CT", "T1w", "T2w", "MR", or None when it is not known.
    unit: "HU" for CT, otherwise "a.u.".
    notes: sentences for the user on what was changed or assumed when the image was read.
    forms: positions in the header of the NIfTI file that it was read from.
    named: contrast of MR by the name of the file, where nothing else states it; names may mean something else.

    Raises
    ------
    InputError: see `Geometry`.

    >>> ct = Volume(np.zeros((4, 5, 6), np.float32), np.diag([1.0, 1.0, 2.5, 1.0]), "CT", "HU")
    >>> ct.spacing, ct.orientation, ct.field_of_view
    ((1.0, 1.0, 2.5), 'RAS', (4.0, 5.0, 15.0))
    """

    modality: str | None = None
    unit: str = "a.u."
    notes: tuple[str, ...] = ()
    forms: Forms | None = None
    named: str | None = None

    def with_array(self, array: np.ndarray, modality: str | None = None, unit: str | None = None) -> Volume:
        """Another image on the same grid; modality and unit stay unless they are given."""
        _check_same_shape(array, self)
        return replace(self, array=array, modality=modality or self.modality, unit=unit or self.unit)


@dataclass(frozen=True, eq=False)
class LabelMap(_Grid):
    """A segmentation: each voxel holds the number of its structure, 0 is background.

    Parameters
    ----------
    array: (i, j, k) integers, none negative.
    affine: (4, 4), voxel index -> RAS mm.
    names: label value -> name, as far as they are known.
    notes: sentences for the user on what was changed or assumed when the mask was read.
    forms: positions in the header of the NIfTI file that it was read from.
    colors: label value -> "#rrggbb", for labels whose color the file states.

    Raises
    ------
    InputError: see `Geometry`; also for values that are not whole numbers from 0 up.
    """

    names: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    forms: Forms | None = None
    colors: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "array", _as_labels(self.array))

    def values(self) -> list[int]:
        """The labels present, without 0, in rising order."""
        return [int(v) for v in np.unique(self.array) if v]

    def with_array(
        self, array: np.ndarray, names: dict[int, str] | None = None, colors: dict[int, str] | None = None
    ) -> LabelMap:
        """Other labels on the same grid; names and colors stay unless they are given."""
        _check_same_shape(array, self)
        names, colors = self.names if names is None else names, self.colors if colors is None else colors
        return replace(self, array=array, names=names, colors=colors)


Grid = TypeVar("Grid", Volume, LabelMap)


def crop(image: Grid, start: Sequence[int], stop: Sequence[int]) -> Grid:
    """The voxels from index `start` up to but without `stop`, at their place in the patient."""
    start, stop = np.asarray(start, dtype=int), np.asarray(stop, dtype=int)
    if (start < 0).any() or (stop > image.shape).any() or (stop <= start).any():
        raise InputError(
            f"The box {start.tolist()} to {stop.tolist()} does not lie inside an image of "
            f"{by_axis(image.shape)} voxels."
        )
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return replace(image, array=image.array[box], affine=image.geometry.moved(start, stop - start).affine)


def pad(image: Grid, before: Sequence[int], after: Sequence[int], value: float = 0) -> Grid:
    """`before` and `after` more voxels of `value` on each axis, all others staying in place."""
    before, after = np.asarray(before, dtype=int), np.asarray(after, dtype=int)
    if (before < 0).any() or (after < 0).any():
        raise InputError(
            f"The margins {before.tolist()} and {after.tolist()} must not be negative; use crop to remove voxels."
        )
    array = np.pad(image.array, np.stack([before, after], axis=1), constant_values=value)
    return replace(image, array=array, affine=image.geometry.moved(-before, array.shape).affine)


def occupied(array: np.ndarray) -> tuple[tuple[int, int], ...] | None:
    """First index and last plus one along each axis of what is not 0; None where all is 0."""
    edges = []
    for axis in range(array.ndim):
        others = tuple(a for a in range(array.ndim) if a != axis)
        present = np.flatnonzero(array.any(axis=others))
        if not present.size:
            return None
        edges.append((int(present[0]), int(present[-1]) + 1))
    return tuple(edges)


def whole_numbers(array: np.ndarray) -> np.ndarray:
    """Rounded to int16; values that are not finite are kept, so that a check can see them."""
    rounded = np.round(array)
    return rounded.astype(np.int16) if np.isfinite(rounded).all() else rounded


def as_stored(volume: Volume) -> Volume:
    """An image of whole numbers in 16 or 32 bits, as files hold it: new ones become whole, too."""
    array = volume.array
    if not np.array_equal(array, np.rint(array)):
        return volume
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max:
            return volume.with_array(array.astype(kind))
    return volume


def check_finite(volume: Volume, source: str = "The image") -> None:
    """Raise InputError when a voxel is NaN or infinite, naming how many and the first place."""
    if not np.issubdtype(volume.array.dtype, np.floating):
        return
    bad = ~np.isfinite(volume.array)
    if bad.any():
        first = tuple(int(i) for i in np.unravel_index(np.argmax(bad), bad.shape))
        raise InputError(
            f"{source} holds NaN or infinite values in {int(bad.sum())} of its voxels, the "
            f"first at index {first}; replace them by numbers first."
        )


def affine_from_lps(
    spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float] | np.ndarray
) -> np.ndarray:
    """(4, 4) voxel index -> RAS mm from spacing, origin and direction cosines in LPS.

    `direction` is (3, 3), or its nine numbers row by row, with one column an array axis, as in
    SimpleITK; DICOM's image orientation holds the first two of these columns.
    """
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ np.reshape(direction, (3, 3)) * np.asarray(spacing)
    affine[:3, 3] = _LPS_TO_RAS @ np.asarray(origin)
    return affine


def lps_from_affine(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spacing (3,), origin (3,) and direction (3, 3) in LPS of an affine to RAS."""
    columns = _LPS_TO_RAS @ affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    return spacing, _LPS_TO_RAS @ affine[:3, 3], columns / spacing


def to_sitk(image: Volume | LabelMap) -> SimpleITK.Image:
    """The same image for SimpleITK, which indexes arrays (k, j, i) and positions in LPS."""
    import SimpleITK

    kind = _SITK_TYPES.get(image.array.dtype.name, image.array.dtype)
    array = image.array.astype(kind, copy=False).transpose(2, 1, 0)
    result = SimpleITK.GetImageFromArray(array[:1])
    if len(array) > 1:
        result = SimpleITK.Image(image.shape, result.GetPixelID())
        # SimpleITK holds Python's lock while it copies, and Slicer's window waits for it.
        count = max(1, _SITK_BLOCK // array[:1].nbytes)
        for start in range(0, len(array), count):
            result[:, :, start : start + count] = SimpleITK.GetImageFromArray(
                np.ascontiguousarray(array[start : start + count])
            )
    spacing, origin, direction = lps_from_affine(image.affine)
    result.SetSpacing(spacing.tolist())
    result.SetOrigin(origin.tolist())
    result.SetDirection(direction.ravel().tolist())
    return result


_SITK_BLOCK = 2**22
"""Bytes that are copied into an image of SimpleITK at once."""
_SITK_TYPES = {"bool": np.uint8, "float16": np.float32}
"""Array types without a counterpart in SimpleITK, and what they become."""


def by_axis(values: Iterable[float], form: str = "g") -> str:
    """Numbers along the axes in words: "512 x 512 x 90"."""
    return " x ".join(f"{value:{form}}" for value in values)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise InputError(
            f"A volume needs three axes, but this array has {len(shape)} ({by_axis(shape)}); give one 3-D image."
        )
    if min(shape) < 1:
        raise InputError(f"The image of {by_axis(shape)} voxels is empty; give one with voxels.")


def _check_affine(affine: np.ndarray) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError("The affine must be a 4 x 4 matrix of finite numbers; correct the image's header.")
    if not np.allclose(affine[3], (0, 0, 0, 1)):
        raise InputError(
            f"The last row of the affine is {affine[3].tolist()} instead of 0 0 0 1; correct the image's header."
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing <= 0).any():
        raise InputError(
            f"The voxel spacing is {by_axis(spacing)} mm, but every axis needs more than 0; correct the image's header."
        )
    columns = affine[:3, :3] / spacing
    if abs(np.linalg.det(columns)) < 1e-3:
        raise InputError(
            "The affine is singular (two axes of the image point the same way); correct the image's header."
        )
    cosine = np.abs(columns.T @ columns - np.eye(3)).max()
    if cosine > _LARGEST_COSINE:
        angle = np.degrees(np.arccos(min(cosine, 1.0)))
        raise InputError(
            f"Two axes of the image meet at {angle:.1f} instead of 90 degrees; resample it to a rectangular grid first."
        )


def _check_same_shape(array: np.ndarray, image: Volume | LabelMap) -> None:
    if np.shape(array) != image.shape:
        raise InputError(
            f"An array of {by_axis(np.shape(array))} voxels does not fit the grid of {by_axis(image.shape)}."
        )


def _as_labels(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not np.issubdtype(array.dtype, np.integer):
        whole = array.astype(np.int32) if np.isfinite(array).all() else None
        if whole is None or (whole != array).any():
            raise InputError(
                "A mask must hold whole numbers, but this one has other values; "
                "give a label map, not an image or a probability map."
            )
        array = whole
    if array.min() < 0:
        raise InputError(
            f"A mask must not hold negative labels, but this one has {array.min()}; give a label map, not an image."
        )
    return array
