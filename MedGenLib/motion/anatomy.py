"""The parts of a chest CT that breathing moves, found from HU: lungs, base of the lungs, wall, spine.

Arrays are in the order R, A, S: each axis grows to the patient's right, front and head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError

_AIR_HU, _BONE_HU, _OUTSIDE_HU = -400, 180, -300
LEAST_LUNG_ML = 300.0
_LUNG_HU = (-965, -450)
"""Range of the median of a lung; gas in the bowel is darker."""
_PIECE = 0.1
"""Volume of the smallest piece of a lung, relative to the largest."""
_AIRWAY_MM2 = (30.0, 900.0)
_SKIN_MM, _RIB_MM = 15.0, 4.0
"""Depth under the skin, and distance from bone, that belong to the wall."""
_CAGE_MM = 20.0
"""Depth inside the chest from which bright voxels are contrast agent or calcium, not ribs."""
_WALL_MM = 8.0
"""How much wider the abdomen is than the lungs above it, as far as the ribs allow."""
_LORDOSIS_MM, _SOLID = 15.0, 0.4
"""How far in front of the middle of the lungs vertebrae may lie, and their share of the columns of the spine."""
_VERTEBRA_MM = 30.0
_THICK_MM = 7.0
"""Half the thickness of bright parts that are no ribs."""
_SPINE_MM = 22.0
"""Half the width of the vertebral bodies."""
_RIM_MM = 16.0
"""Distance of the dome from the border of the base."""
_FEW = 20
"""Voxels of bone that show no spine."""
CUT_MM2 = 200.0
"""Area of lung in the lowest slice from which the diaphragm is cut, and in the highest from which the lungs are."""
_STEEPEST = 1.5
"""Slope of the base of a lung; steeper are the flanks of the diaphragm and the border of the heart."""


def find_lungs(hu: NDArray, spacing: NDArray) -> NDArray[np.bool_]:
    """The lungs with their vessels, without trachea and main bronchi.

    Raises
    ------
    InputError: there are none.
    """
    from scipy import ndimage

    inner = (hu < _AIR_HU) & ~outside_air(hu < _AIR_HU)
    inner &= ~_airway(inner, spacing)
    pieces, count = ndimage.label(inner)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1) * np.prod(spacing) / 1000
    sizes[0] = 0
    kept, boxes = np.zeros(count + 1, bool), ndimage.find_objects(pieces)
    for number in np.flatnonzero(sizes > max(_PIECE * sizes.max(), 1.0)):
        inside = hu[boxes[number - 1]][pieces[boxes[number - 1]] == number]
        kept[number] = _LUNG_HU[0] <= np.median(inside) <= _LUNG_HU[1]
    if sizes[kept].sum() < LEAST_LUNG_ML:
        raise InputError(
            f"The CT shows {sizes[kept].sum():.0f} ml of lung, and breathing needs at least {LEAST_LUNG_ML:.0f} ml; "
            "give a CT of the whole chest, or the lungs as labels (command line: --labels)."
        )
    return fill_slices(kept[pieces])


def outside_air(air: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Air that reaches the border of the image at the sides, in front or behind, in any axial slice."""
    from scipy import ndimage

    flat = ndimage.generate_binary_structure(3, 1)
    flat[1, 1, [0, 2]] = False  # neighbors in the slice only
    pieces, count = ndimage.label(air, flat)
    reached = np.zeros(count + 1, bool)
    for side in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        reached[side] = True
    reached[0] = False
    return reached[pieces]


def fill_slices(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask without holes in its axial slices, such as vessels and nodules."""
    from scipy import ndimage

    filled = mask.copy()
    for level in np.flatnonzero(mask.any(axis=(0, 1))):
        filled[:, :, level] = ndimage.binary_fill_holes(mask[:, :, level])
    return filled


def _airway(inner: NDArray[np.bool_], spacing: NDArray) -> NDArray[np.bool_]:
    """Trachea and main bronchi, followed downwards from the topmost slice until they join the lungs."""
    from scipy import ndimage

    found = np.zeros_like(inner)
    pixel = spacing[0] * spacing[1]
    middle = np.mean(np.nonzero(inner.any(axis=(1, 2)))[0]) if inner.any() else 0
    before: NDArray | None = None
    for level in range(inner.shape[2] - 1, -1, -1):
        pieces, count = ndimage.label(inner[:, :, level])
        if not count:
            continue
        areas = np.bincount(pieces.ravel(), minlength=count + 1) * pixel
        fits = (areas >= _AIRWAY_MM2[0]) & (areas <= _AIRWAY_MM2[1])
        if before is None:
            centers = np.array(ndimage.center_of_mass(pieces > 0, pieces, range(1, count + 1)))
            near = np.concatenate([[False], np.abs(centers[:, 0] - middle) * spacing[0] < 25])
            chosen = np.flatnonzero(fits & near)[:1]
        else:
            touched = np.unique(pieces[before])
            chosen = touched[(touched > 0) & fits[touched]]
            if not chosen.size:
                break
        if chosen.size:
            before = np.isin(pieces, chosen)
            found[:, :, level] = before
    return found


@dataclass(frozen=True)
class Chest:
    """What holds and moves the lungs, on a coarse grid.

    Attributes
    ----------
    moving: what may move along foot-head; all else is the wall.
    lungs: the lungs.
    base: (R, A) level index of the lowest lung voxel above the diaphragm; -1 beside the base of the lungs.
    height: (R, A) mm of chest above the base.
    spine: A index of the front of the spine at each level.
    front: A index of the front of the lungs.
    spacing: of the grid in mm.
    """

    moving: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    base: NDArray[np.intp]
    height: NDArray[np.float64]
    spine: NDArray[np.float64]
    front: float
    spacing: NDArray[np.float64]

    @property
    def dome(self) -> tuple[int, int, int]:
        """Index of the top of the diaphragm, away from the heart and the wall."""
        from scipy.ndimage import distance_transform_edt

        inner = distance_transform_edt(self.base >= 0, self.spacing[:2])
        inner = inner >= min(_RIM_MM, inner.max())
        x, y = np.unravel_index(np.argmax(np.where(inner, self.base, -1)), self.base.shape)
        return int(x), int(y), int(self.base[x, y])

    @property
    def levels(self) -> tuple[int, int]:
        """Level indices of the lowest and the highest lung voxel."""
        found = np.flatnonzero(self.lungs.any(axis=(0, 1)))
        return int(found[0]), int(found[-1])


def find_chest(hu: NDArray, lungs: NDArray[np.bool_], fixed: NDArray[np.bool_], spacing: NDArray) -> Chest:
    """The chest around the lungs.

    Parameters
    ----------
    hu, lungs: on the coarse grid.
    fixed: what belongs to the wall anyway, such as ribs and vertebrae of a segmentation.
    spacing: of the coarse grid in mm.

    Raises
    ------
    InputError: the image cuts the diaphragm.
    """
    from scipy.ndimage import uniform_filter1d

    if (area := cut_area(lungs, spacing, 0)) > CUT_MM2:
        raise InputError(
            f"The lowest slice of the CT shows {area / 100:.0f} cm2 of lung, so that the diaphragm is cut; give a CT "
            "that reaches below the lungs."
        )
    columns = np.nonzero(lungs)
    middle, center = (int(np.mean(index)) for index in columns[:2])
    front = float(np.percentile(columns[1], 99.5))
    bones = (hu > _BONE_HU) & ~lungs | fixed
    behind = bones[:, :center, lungs.any(axis=(0, 1))].sum(axis=(1, 2))
    if behind.sum() > _FEW:
        middle = int(uniform_filter1d(behind.astype(float), max(1, round(2 * _SPINE_MM / spacing[0]))).argmax())
    width = round(_SPINE_MM / spacing[0])
    beside = slice(max(0, middle - width), middle + width + 1)
    spine = _spine(bones[beside, : center + round(_LORDOSIS_MM / spacing[1])], float(columns[1].min()), spacing)
    moving = _moving(hu, lungs, bones, fixed, spacing)
    moving[beside] &= np.arange(moving.shape[1])[:, None] > spine
    moving |= lungs
    base, height = _base(lungs, moving, spacing, middle)
    return Chest(moving, lungs, base, height, spine, front, spacing)


def cut_area(lungs: NDArray[np.bool_], spacing: NDArray, level: int) -> float:
    """Area of lung in a slice in mm2."""
    return float(np.count_nonzero(lungs[:, :, level]) * spacing[0] * spacing[1])


def _spine(bones: NDArray, otherwise: float, spacing: NDArray) -> NDArray[np.float64]:
    """A index of the front of the vertebral bodies at each level: a smooth curve, without the heart's contrast agent.

    Parameters
    ----------
    bones: in the columns of the spine, behind the middle of the chest.
    otherwise: where there are none.
    """
    from scipy.ndimage import maximum_filter1d

    solid = bones.sum(axis=0) >= max(1, _SOLID * bones.shape[0])
    present = maximum_filter1d(solid, max(1, round(_VERTEBRA_MM / spacing[2])), axis=1)  # over the disks
    levels = np.flatnonzero(present.any(axis=0))
    if levels.size <= _FEW // 2:
        return np.full(bones.shape[2], otherwise)
    front = present.shape[0] - 1 - present[::-1].argmax(axis=0)
    near = _THICK_MM / spacing[1]
    kept = levels[front[levels] <= np.median(front[levels]) + 2 * near]
    for _ in range(_FEW):
        curve = np.polynomial.Polynomial.fit(kept, front[kept], 3)
        good = front[kept] <= curve(kept) + near
        if good.all():
            break
        kept = kept[good]
    ends = np.arange(bones.shape[2]).clip(kept[0], kept[-1])
    return curve(ends) + 1


def _moving(hu: NDArray, lungs: NDArray, bones: NDArray, fixed: NDArray, spacing: NDArray) -> NDArray[np.bool_]:
    """What lies between the lungs and below them, inside the skin and the ribs."""
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    hull = np.zeros_like(lungs)
    levels = np.flatnonzero(lungs.any(axis=(0, 1)))
    for level in levels:
        if np.count_nonzero(lungs[:, :, level]) > 3:
            hull[:, :, level] = convex_hull_image(lungs[:, :, level])
    inner = hull.copy()
    middle = (levels[0] + levels[-1]) // 2
    below = hull[:, :, : middle + 1].any(axis=2)
    wide = ndimage.distance_transform_edt(~below, spacing[:2]) <= _WALL_MM
    beside = ndimage.binary_dilation(lungs[:, :, :middle], iterations=3)  # where the wall is thin
    hull[:, :, :middle] |= below[:, :, None] | wide[:, :, None] & ~beside
    outside = outside_air((hu < _OUTSIDE_HU) & ~ndimage.binary_dilation(lungs, iterations=2))
    deep = ndimage.distance_transform_edt(~outside, spacing) > _SKIN_MM if outside.any() else ~outside
    inner |= ndimage.distance_transform_edt(hull, (*spacing[:2], 1e6)) > _CAGE_MM
    if (core := ndimage.distance_transform_edt(bones, spacing) > _THICK_MM).any():
        inner |= ndimage.distance_transform_edt(~core, spacing) <= 2 * _THICK_MM
    ribs = bones & ~inner | fixed
    far = ndimage.distance_transform_edt(~ribs, spacing) > _RIB_MM if ribs.any() else ~ribs
    return hull & deep & far


def _base(lungs: NDArray, moving: NDArray, spacing: NDArray, middle: int) -> tuple[NDArray, NDArray]:
    """Level of the base of each lung, and the height of the chest above it.

    The base is the largest surface without cliffs among the lower faces of a lung that lie below its middle.
    """
    above = np.arange(lungs.shape[2]) <= np.flatnonzero(lungs.any(axis=(0, 1)))[-1]
    lowest = np.where(lungs.any(axis=2), lungs.argmax(axis=2), -1)
    below = np.take_along_axis(moving, np.maximum(lowest - 1, 0)[:, :, None], axis=2)[:, :, 0]
    base = np.full(lowest.shape, -1)
    for side in (slice(None, middle), slice(middle, None)):
        if not lungs[side].any():
            continue
        center = np.mean(np.nonzero(lungs[side])[2])
        part = np.where(below[side] & (lowest[side] >= 1) & (lowest[side] < center), lowest[side], -1)
        base[side] = np.where(_largest_surface(part, spacing), part, -1)
    above = above & (np.arange(lungs.shape[2]) >= base[:, :, None])
    height = (moving & above).sum(axis=2) * spacing[2]
    if (base < 0).all():
        raise InputError("The base of the lungs was not found in the CT; give a CT of the whole chest.")
    return base, height


def _largest_surface(level: NDArray, spacing: NDArray) -> NDArray[np.bool_]:
    """The largest surface of levels (-1: none) whose slope is at most `_STEEPEST`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    number = np.arange(level.size).reshape(level.shape)
    pairs = []
    for axis in (0, 1):
        one, other = np.moveaxis(level, axis, 0)[:-1], np.moveaxis(level, axis, 0)[1:]
        rise = np.abs(one - other) * spacing[2]
        joined = (one >= 0) & (other >= 0) & (rise <= max(_STEEPEST * spacing[axis], spacing[2]))
        ids = np.moveaxis(number, axis, 0)
        pairs.append((ids[:-1][joined], ids[1:][joined]))
    rows, columns = (np.concatenate(part) for part in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(rows.size, bool), (rows, columns)), (level.size,) * 2)
    _, pieces = connected_components(graph, directed=False)
    sizes = np.bincount(pieces[level.ravel() >= 0], minlength=pieces.max() + 1)
    return (pieces == sizes.argmax()).reshape(level.shape) & (level >= 0)
