"""The outline of the body: from an image, or closed around a segmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume

_BODY_ABOVE_HU = -300.0
_NOTCH_MM = 8.0
_SCALP_MM = 30.0
"""Largest distance of a piece of scalp from the brain."""
_MARGIN_MM = 12.0
"""Air around the head, as in the masks that the translators were trained with."""
_SPECK = 0.002
_BODY_GRID_MM = 3.0
"""Voxel size of coarse computations."""


def body_envelope_from_image(volume: Volume) -> LabelMap:
    """The body of the patient with enclosed air: 1 is body, 0 outside.

    The threshold of CT is -300 HU, that of other images lies between the noise of the air and the
    tissue (Otsu of the logarithm, or a quarter of the way up). Thin objects (a table, wires) are
    removed by opening on a grid of 3 mm, the largest component is kept, and enclosed air is filled.

    Raises
    ------
    InputError: the image shows no body.
    """
    coarse, threshold, inside = _largest_body(volume)
    # Sinuses and cortical bone are as dark as air in MR: close the notches that they make in the skin.
    filled = _fill(_close(inside, _NOTCH_MM, coarse.spacing), _axial(volume))
    share = _share_on(volume, filled, coarse)
    # The image decides at the skin, the coarse grid inside.
    body = (share > 0.9) | ((share > 0.1) & (volume.array > threshold))
    return LabelMap(body, volume.affine, {1: "body"})


def head_from_image(volume: Volume) -> LabelMap:
    """The head with the air within 12 mm: 1 inside, 0 outside.

    The voxels with signal around the largest piece of `body_envelope_from_image` are inside, except for specks of
    noise: in MR, dark bone and marrow separate the scalp from the brain. The margin covers tissue without signal at the
    end of the field of view.

    Raises
    ------
    InputError: the image shows no head.
    """
    from scipy.ndimage import distance_transform_edt

    coarse, threshold, inside = _largest_body(volume)
    if volume.modality != "CT":  # in CT, the frame and the table are as bright as tissue
        near = distance_transform_edt(~inside, coarse.spacing) <= _SCALP_MM
        inside = inside | _without_specks((coarse.array > threshold) & near)
    filled = _fill(_close(inside, _NOTCH_MM, coarse.spacing), _axial(volume))
    wide = distance_transform_edt(~filled, coarse.spacing) <= _MARGIN_MM
    return LabelMap(_share_on(volume, wide, coarse) >= 0.5, volume.affine, {1: "head"})


def close_body(label_map: LabelMap, radius: float = 15.0) -> LabelMap:
    """The body around a segmentation with gaps: 1 is body, 0 outside.

    Gaps narrower than 2 x `radius` (mm) are closed (closing by distance), and enclosed holes are
    filled. Every labeled voxel is inside.

    Raises
    ------
    InputError: the mask is empty.
    """
    labeled = label_map.array > 0
    if not labeled.any():
        raise InputError("The mask is empty; label some voxels.")
    mask = Volume(labeled.astype(np.float32), label_map.affine)
    coarse = _coarse(mask)
    closed = _fill(_close(coarse.array >= 0.5, radius, coarse.spacing), _axial(mask))
    body = labeled | (_share_on(mask, closed, coarse) >= 0.5)
    return LabelMap(body, label_map.affine, {1: "body"})


@dataclass(frozen=True)
class LayerDistances:
    """Distances in mm on a grid of at least 3 mm: to the outside and the inside of a body, to viscera and to bone.

    `inward` is 0 outside and `outward` 0 inside; where there is nothing, the distance is a meter.
    """

    grid: LabelMap
    inward: np.ndarray
    outward: np.ndarray
    viscera: np.ndarray
    bone: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray, affine: np.ndarray) -> LayerDistances:
        """From 0 outside, 1 inside, 2 viscera and 3 bone."""
        from scipy.ndimage import distance_transform_edt

        fine = LabelMap(codes, affine)
        grid = resample(fine, [max(s, _BODY_GRID_MM) for s in fine.spacing])

        def to(marked: np.ndarray) -> np.ndarray:
            if not marked.any():
                return np.full(marked.shape, 1000.0)
            return distance_transform_edt(~marked, grid.spacing)

        array = grid.array
        return cls(grid, to(array == 0), to(array > 0), to(array == 2), to(array == 3))

    def on(self, reference: LabelMap, values: np.ndarray) -> np.ndarray:
        """Values of this grid on that of the reference."""
        return resample_to(Volume(values.astype(np.float32), self.grid.affine), reference).array


def _largest_body(volume: Volume) -> tuple[Volume, float, np.ndarray]:
    """The volume on the coarse grid, the threshold of the body, and its largest piece without thin objects."""
    coarse = _coarse(replace(volume, array=volume.array.astype(np.float32)))
    threshold = _BODY_ABOVE_HU if volume.modality == "CT" else _air_threshold(coarse.array)
    inside = _largest_piece(_open(coarse.array > threshold))
    if not inside.any():
        raise InputError("The image shows no body to make an envelope of; check its values.")
    return coarse, threshold, inside


def _coarse(volume: Volume) -> Volume:
    """The volume on voxels of at least 3 mm, where large radii are cheap and noise is averaged."""
    return resample(volume, [max(s, _BODY_GRID_MM) for s in volume.spacing])


def _share_on(reference: Volume, inside: np.ndarray, coarse: Volume) -> np.ndarray:
    """Local share (0 to 1) of the inside, on the grid of the reference."""
    return resample_to(coarse.with_array(inside.astype(np.float32)), reference, fill=0.0).array


def _air_threshold(array: np.ndarray) -> float:
    """A value between air and tissue of an MR image, near the half height of the skin."""
    from skimage.filters import threshold_otsu

    shifted = array - array.min()
    top = float(np.percentile(shifted, 99))
    if top <= 0:
        return float(array.max())
    floor = 0.005 * top  # otherwise air near 0 dominates the histogram of the logarithm
    split = np.exp(threshold_otsu(np.log(shifted.clip(floor, top)).ravel()))
    air, tissue = (float(np.median(part)) for part in (shifted[shifted <= split], shifted[shifted > split]))
    return max(float(split), air + (tissue - air) / 4) + float(array.min())


def _axial(volume: Volume) -> int:
    """The array axis nearest to foot-head."""
    return next(axis for axis, letter in enumerate(volume.orientation) if letter in "SI")


def _structure(shape: tuple[int, ...]) -> np.ndarray:
    """Face neighbors along the axes that have more than one voxel."""
    from scipy.ndimage import generate_binary_structure

    element = generate_binary_structure(3, 1)
    for axis, size in enumerate(shape):
        if size == 1:
            element = element & (np.indices((3, 3, 3))[axis] == 1)
    return element


def _open(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_dilation, binary_erosion

    element = _structure(mask.shape)
    # The body continues beyond the border, so that the border does not erode it.
    eroded = binary_erosion(mask, element, border_value=1)
    return binary_dilation(eroded, element) & mask


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    from scipy.ndimage import label

    pieces, _ = label(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (pieces == sizes.argmax()) & mask


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """The pieces of at least `_SPECK` of the voxels; noise and ghosts are smaller."""
    from scipy.ndimage import generate_binary_structure, label

    pieces, _ = label(mask, generate_binary_structure(3, 3))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (sizes >= _SPECK * sizes.sum())[pieces]


def _fill(mask: np.ndarray, axial: int) -> np.ndarray:
    """Fill holes of axial slices, holes of the slices in two of the three planes, and holes in 3-D.

    The border of many volumes cuts lungs and bowel, so that only axial slices enclose them; the
    other two planes enclose the mouth and the ear canals.
    """
    from scipy.ndimage import binary_fill_holes

    votes = np.zeros(mask.shape, dtype=np.uint8)
    for axis in range(3):
        weight = 2 if axis == axial or mask.shape[axis] == 1 else 1
        for index in range(mask.shape[axis]):
            plane = [slice(None)] * 3
            plane[axis] = index
            votes[tuple(plane)] += np.uint8(weight) * binary_fill_holes(mask[tuple(plane)])
    return (votes >= 2) | binary_fill_holes(mask)


def _close(mask: np.ndarray, radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """Closing by a ball of `radius` mm; the border values are repeated beyond the border."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return mask
    margin = [(0, 0) if n == 1 else (int(radius / s) + 2,) * 2 for n, s in zip(mask.shape, spacing, strict=True)]
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margin, mask.shape, strict=True))
    grown = distance_transform_edt(~np.pad(mask, margin, "edge"), spacing) <= radius
    return mask | (distance_transform_edt(grown, spacing) > radius)[inner]
