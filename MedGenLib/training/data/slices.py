"""Paired MR and CT slices of the head, with calibration of 8-bit CT and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.training.splits import hold_out

PLANES = ("axial", "coronal", "sagittal")
LEFT_RIGHT_IS_ROWS = (True, True, False)
BRAIN_HU, AIR_HU, FILL_HU = 35.0, -1024.0, -1000.0


@dataclass(frozen=True)
class SlicePair:
    """One slice: ``ct`` in HU, ``mr`` relative to its 99.5th percentile, ``mask`` bool.

    All three are (rows, columns) in the storage order of the source: axial (x, y), coronal (x, z), sagittal (y, z), x
    to the patient's left, y posterior, z superior.
    """

    subject: str
    plane: int
    ct: np.ndarray
    mr: np.ndarray
    mask: np.ndarray


def calibrate_hu(gray: np.ndarray, mask: np.ndarray, margin: int = 22) -> np.ndarray:
    """HU of a min-max scaled 8-bit CT slice of the head.

    Gray 0 is -1024 HU and the brain's mode is +35 HU: the mode is the centroid of the five bins around the peak of the
    histogram of pixels more than ``margin`` pixels inside the mask.
    """
    core = ndimage.binary_erosion(mask, iterations=margin)
    histogram = np.bincount(gray[core if core.any() else mask].astype(int), minlength=256)
    histogram[:20] = 0
    peak = int(histogram.argmax())
    bins = np.arange(max(0, peak - 2), min(256, peak + 3))
    mode = float((bins * histogram[bins]).sum() / max(1, histogram[bins].sum()))
    return AIR_HU + gray.astype(np.float32) * (BRAIN_HU - AIR_HU) / max(mode, 1.0)


def read_pairs(folder: Path) -> list[SlicePair]:
    """All slices of a folder ``<subject>/{ct,mri,mask}_{axial,coronal,sagittal}.png``.

    Raises InputError if there are none.
    """
    pairs = []
    for subject in sorted(p for p in folder.iterdir() if p.is_dir()):
        for plane, name in enumerate(PLANES):
            if (subject / f"ct_{name}.png").exists():
                pairs.append(_read_pair(subject, plane, name))
    if not pairs:
        raise InputError(
            f"The folder {folder} has no paired slices; "
            "it needs <subject>/ct_axial.png, mri_axial.png, mask_axial.png and so on."
        )
    return pairs


def _read_pair(subject: Path, plane: int, name: str) -> SlicePair:
    import SimpleITK as sitk

    def read(kind: str) -> np.ndarray:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(subject / f"{kind}_{name}.png")))
        return array if array.ndim == 2 else array[..., 0]

    mask = read("mask") > 0
    ct = calibrate_hu(read("ct"), mask)
    mr = read("mri").astype(np.float32)
    mr = mr / max(float(np.percentile(mr[mask], 99.5)), 1e-6)
    return SlicePair(subject.name, plane, ct, np.where(mask, mr, 0), mask)


def split(pairs: list[SlicePair], count: int, seed: int) -> tuple[list, list, list[str]]:
    """Training pairs, held-out pairs and the held-out subjects (balanced over centers)."""
    held = hold_out((p.subject for p in pairs), count, seed, stratum=3)
    keep = [p for p in pairs if p.subject not in held]
    return keep, [p for p in pairs if p.subject in held], held


@dataclass(frozen=True)
class Augmentation:
    """Random views of a pair: crop of ``size``, flip left-right, rotate, scale, MR and CT noise.

    ``marrow`` is the share of views whose thick bone gets a random MR level inside, as marrow is bright or dark
    depending on the person, and bright marrow resembles soft tissue.
    """

    size: int = 192
    rotation_degrees: float = 12.0
    zoom: float = 0.12
    marrow: float = 0.0

    def __call__(self, pair: SlicePair, generator: np.random.Generator) -> dict[str, np.ndarray]:
        matrix, offset = self._geometry(pair, generator)
        shape = (self.size, self.size)

        def warp(image: np.ndarray, order: int, fill: float) -> np.ndarray:
            return ndimage.affine_transform(image.astype(np.float32), matrix, offset, shape, order=order, cval=fill)

        mask = warp(pair.mask, 0, 0) > 0.5
        ct = warp(np.where(pair.mask, pair.ct, FILL_HU), 1, FILL_HU)
        mr = warp(pair.mr, 1, 0) * mask
        if generator.random() < 0.5 and LEFT_RIGHT_IS_ROWS[pair.plane]:
            mask, ct, mr = mask[::-1], ct[::-1], mr[::-1]
        if generator.random() < self.marrow:
            mr = with_marrow(mr, ct, generator)
        return {
            "ct": ct.copy(),
            "mr": self._scanner(mr, mask, generator),
            "mr_clean": mr.copy(),
            "ct_noisy": ct + generator.uniform(-6, 6, ct.shape).astype(np.float32),
            "mask": mask.astype(np.float32),
        }

    def _geometry(self, pair: SlicePair, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Matrix and offset from output to input pixels about the mask's center."""
        angle = np.deg2rad(generator.uniform(-1, 1) * self.rotation_degrees)
        zoom = np.exp(generator.uniform(-1, 1, 2) * self.zoom)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation * zoom
        rows, columns = np.nonzero(pair.mask)
        middle = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) / 2
        extent = np.array([np.ptp(rows), np.ptp(columns)])
        slack = np.maximum(0, extent - self.size * 0.8) / 2 + 8
        middle = middle + generator.uniform(-1, 1, 2) * slack
        return matrix, middle - matrix @ np.full(2, (self.size - 1) / 2)

    @staticmethod
    def _scanner(mr: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Random gain, contrast curve, coil shading and noise on a relative MR slice."""
        mr = np.clip(mr, 0, 1.5) ** np.exp(generator.uniform(-0.3, 0.3))
        field = ndimage.zoom(generator.normal(0, 0.12, (4, 4)), mr.shape[0] / 4, order=1)
        mr = mr * np.exp(field[: mr.shape[0], : mr.shape[1]] + generator.uniform(-0.15, 0.15))
        if generator.random() < 0.3:
            mr = ndimage.gaussian_filter(mr, generator.uniform(0.3, 0.8))
        noise = generator.normal(0, generator.uniform(0, 0.03), mr.shape)
        return (np.abs(mr + noise) * mask).astype(np.float32)


def with_marrow(mr: np.ndarray, ct: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Replace the MR level between the inner and outer table of the bone."""
    depth = ndimage.distance_transform_edt(ct > 250)
    weight = ndimage.gaussian_filter(np.clip(depth - 1.0, 0, 1), 0.6)
    texture = 1 + 0.15 * ndimage.gaussian_filter(generator.normal(size=mr.shape), 1.0) * 3
    return (mr * (1 - weight) + weight * generator.uniform(0.1, 0.8) * texture).astype(np.float32)
