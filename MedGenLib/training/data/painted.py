"""Head slices synthesized from label maps: pairs of MR and CT at positions without real slices.

The real paired slices are the middle ones of each head, without the vertex or the neck. Label maps of whole heads
(FreeSurfer brain labels and SimNIBS head tissues 501 to 530) give all slices; intensities are drawn randomly, as in
SynthSeg (Billot et al. 2023, Medical Image Analysis 86), but around those of T1w MR and with CT in HU.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.io.files import read_label_map
from MedGenLib.training.data.slices import SlicePair

# Class -> (HU, SD of HU between slices, lowest and highest T1w level, SD of the T1w texture).
# T1w levels are relative to the 99.5th percentile of the head.
_CLASSES: dict[str, tuple[float, float, float, float, float]] = {
    "air": (-1000, 0, 0.0, 0.03, 0.01),
    "white matter": (30, 2, 0.55, 0.80, 0.02),
    "gray matter": (38, 2, 0.38, 0.55, 0.03),
    "fluid": (9, 3, 0.08, 0.22, 0.02),
    "vessel": (48, 5, 0.10, 1.00, 0.05),
    "eye": (15, 3, 0.10, 0.22, 0.02),
    "muscle": (52, 6, 0.28, 0.48, 0.04),
    "fat": (-95, 10, 0.70, 1.20, 0.08),
    "mucosa": (35, 10, 0.30, 0.75, 0.08),
    "skin": (10, 25, 0.35, 0.75, 0.08),
    "cortical bone": (1150, 150, 0.02, 0.10, 0.02),
    "cancellous bone": (480, 120, 0.15, 0.90, 0.10),
}
_NAMES = list(_CLASSES)
_HEAD = {
    502: "vessel",
    506: "eye",
    508: "muscle",
    509: "mucosa",
    511: "skin",
    512: "white matter",
    514: "vessel",
    515: "cortical bone",
    516: "cancellous bone",
    530: "white matter",
}
_WHITE = (2, 7, 16, 28, 41, 46, 60, 77, 85)
_FLUID = (4, 5, 14, 15, 24, 43, 44, 72)
_OTHER_TISSUE = 507
_BONE_TEXTURE_HU = 180.0


class PaintedHeads:
    """Label maps of a folder, in memory as one byte per voxel, and random slices of them."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.nii.gz"))
        if not paths:
            raise InputError(f"The folder {folder} has no label maps (.nii.gz).")
        self.heads = [_read(path) for path in paths]

    def slice(self, generator: np.random.Generator) -> SlicePair:
        """A slice of a random head, plane and position that shows enough of the head."""
        number = int(generator.integers(len(self.heads)))
        classes, inside = self.heads[number]
        plane = int(generator.integers(3))
        axis = 2 - plane
        area = inside.sum(axis=tuple(a for a in range(3) if a != axis))
        index = int(generator.choice(np.flatnonzero(area > 400)))
        ct, mr = _paint(classes.take(index, axis=axis), generator)
        mask = inside.take(index, axis=axis)
        return SlicePair(f"painted {number}", plane, ct, np.where(mask, mr, 0), mask)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Class numbers and head mask (a little dilated), turned to LPS."""
    label_map = read_label_map(path)
    labels = Reorientation.to(label_map.geometry, "LPS").apply(label_map.array)
    table = np.full(int(labels.max()) + 1, _NAMES.index("gray matter"), np.uint8)
    table[0] = _NAMES.index("air")
    for value in range(len(table)):
        if value in _WHITE:
            table[value] = _NAMES.index("white matter")
        elif value in _FLUID:
            table[value] = _NAMES.index("fluid")
        elif value == _OTHER_TISSUE:
            table[value] = len(_NAMES)
        elif value in _HEAD:
            table[value] = _NAMES.index(_HEAD[value])
    solid = ndimage.binary_closing(labels > 0, iterations=6)
    inside = ndimage.binary_dilation(ndimage.binary_fill_holes(solid), iterations=3)
    return table[labels], inside


def _paint(classes: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw CT (HU) and T1w MR (relative) for a slice of class numbers."""
    # Tissue that the maps do not tell apart becomes fat or muscle in smooth random patches.
    patches = ndimage.gaussian_filter(generator.normal(size=classes.shape), 3.0)
    fat = patches > np.quantile(patches, generator.uniform(0.3, 0.8))
    other = np.where(fat, _NAMES.index("fat"), _NAMES.index("muscle"))
    classes = np.where(classes == len(_NAMES), other, classes)

    spec = np.array([_CLASSES[name] for name in _NAMES])
    hu = spec[:, 0] + spec[:, 1] * generator.normal(size=len(spec))
    level = generator.uniform(spec[:, 2], spec[:, 3])
    texture = generator.normal(size=classes.shape)
    coarse = ndimage.gaussian_filter(texture, 2.0) * 5
    fine = ndimage.gaussian_filter(texture, 0.7) * 2
    bone = np.isin(classes, [_NAMES.index("cortical bone"), _NAMES.index("cancellous bone")])
    ct = hu[classes] + np.where(bone, _BONE_TEXTURE_HU * coarse / 2, 0)
    mr = level[classes] + spec[classes, 4] * (coarse + fine) / 2
    sigma = generator.uniform(0.5, 0.8)
    ct, mr = ndimage.gaussian_filter(ct, sigma), ndimage.gaussian_filter(mr, sigma)
    return ct.astype(np.float32), np.clip(mr, 0, 1.5).astype(np.float32)
