"""A trunk of three tissues, its CT, and images in other storage orders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume

FAT, SOFT, BONE = 1, 2, 3
HU = {FAT: -100.0, SOFT: 45.0, BONE: 700.0}


def trunk_of_tissues() -> LabelMap:
    """A trunk of fat around muscle around a bone, 3 mm voxels."""
    i, j, _ = np.indices((32, 28, 20))
    radius = np.hypot(i - 15.5, (j - 13.5) * 1.2)
    array = np.zeros(i.shape, np.uint8)
    array[radius < 13] = FAT
    array[radius < 10] = SOFT
    array[radius < 4] = BONE
    return LabelMap(array, np.diag([3.0, 3.0, 3.0, 1.0]))


def ct(tissue: LabelMap, seed: int, sigma: float = 10.0) -> Volume:
    values = np.full(tissue.shape, -1000.0)
    for label, hu in HU.items():
        values[tissue.array == label] = hu
    noise = np.random.default_rng(seed).normal(0, sigma, values.shape)
    array = np.where(tissue.array > 0, values + noise, values).astype(np.float32)
    return Volume(array, tissue.affine, "CT", "HU")


def stored_as(image, orientation: str):
    """The same image stored in another orientation."""
    reorientation = Reorientation.to(image.geometry, orientation)
    array = reorientation.apply(image.array)
    affine = image.affine[:, [*reorientation.order, 3]].copy()
    for axis in reorientation.flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    return replace(image, array=array, affine=affine)
