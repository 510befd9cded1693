"""Images with labels in memory, and augmented patches of them for training a segmenter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import HounsfieldWindow, ZScore
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import check_finite
from MedGenLib.io.files import READABLE, read_label_map, read_volume
from MedGenLib.pipelines.working_grid import SAME_SPACING
from MedGenLib.training.data.patches import moved_window, random_window


@dataclass(frozen=True)
class TrainingCase:
    """Image (i, j, k), standardized, and labels on the same grid, both in RAS."""

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]


FIRST_CHANNEL = re.compile(r"_0000(?=\.)")
"""In file names of nnU-Net."""


def image_folder(folder: Path) -> Path:
    """The folder with the images: "images", or imagesTr of nnU-Net and of the data set of a cohort."""
    return folder / ("images" if (folder / "images").is_dir() else "imagesTr")


def labels_of(folder: Path, name: str) -> Path:
    """The file with the labels of an image."""
    if image_folder(folder).name == "images":
        return folder / "labels" / name
    return folder / "labelsTr" / FIRST_CHANNEL.sub("", name)


def case_names(folder: Path) -> list[str]:
    """File names of ``<folder>/images``, which ``<folder>/labels`` has too, or of imagesTr and labelsTr of nnU-Net.

    Raises InputError if there are no images, or an image without labels.
    """
    images = image_folder(folder)
    names = sorted(p.name for p in _listed(images) if p.name.endswith(READABLE))
    if not names:
        raise InputError(
            f"The folder {images} holds no volumes; put the images there "
            f"and their label volumes, under the same names, into {labels_of(folder, '').name} beside it."
        )
    if {FIRST_CHANNEL.sub("_0001", name) for name in names if FIRST_CHANNEL.search(name)} & set(names):
        raise InputError(f"The folder {images} has several channels of a case; keep the files of the first one.")
    for name in names:
        if not (labels := labels_of(folder, name)).is_file():
            raise InputError(
                f"The image {images / name} has no labels of the same name, {labels.name}, "
                f"in {labels.parent}; add them or remove the image."
            )
    return names


def read_case(
    folder: Path, name: str, standard: ZScore | HounsfieldWindow, spacing: Sequence[float] | None = None
) -> TrainingCase:
    """One image with its labels.

    Parameters
    ----------
    spacing: voxel size in mm along the RAS axes to which the case is resampled if it differs by more than
        `SAME_SPACING`; None for no resampling.

    Raises
    ------
    InputError: image and labels lie on different grids, or a label is above 255.
    """
    path, named = image_folder(folder) / name, labels_of(folder, name)
    image, labels = read_volume(path), read_label_map(named)
    if not image.geometry.is_close(labels.geometry):
        raise InputError(
            f"The image and the labels of {path} lie on different grids; resample the labels onto the image."
        )
    if labels.array.max() > 255:
        raise InputError(f"The labels of {named} reach {labels.array.max()}; give values up to 255.")
    check_finite(image, f"The image {path}")
    reorientation = Reorientation.to(image.geometry, "RAS")
    if spacing is not None:
        stored = [spacing[reorientation.order.index(axis)] for axis in range(3)]
        if not np.allclose(image.spacing, stored, rtol=SAME_SPACING, atol=0):
            floating = image.with_array(image.array.astype(np.float32))
            image, labels = resample(floating, stored), resample(labels, stored)
    return TrainingCase(
        name, standard.encode(reorientation.apply(image.array)), reorientation.apply(labels.array).astype(np.uint8)
    )


class Patches:
    """Random patches of random cases, augmented for independence of the scanner.

    Parameters
    ----------
    patch: voxels along i, j, k; shorter axes of a case are padded with its mean.
    flip: axes (0 right-left, 1 posterior-anterior, 2 inferior-superior) that may be mirrored, by symmetry of the
        structures.
    exchange: pairs of labels exchanged when axis 0 is mirrored, such as left and right.
    labeled: share of the patches that are drawn about a labeled voxel of their case.
    strength: of the augmentation of the intensities; images with a unit, such as CT, need less.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        patch: Sequence[int],
        flip: Iterable[int] = (),
        exchange: Iterable[tuple[int, int]] = (),
        labeled: float = 0.0,
        strength: float = 1.0,
    ) -> None:
        self.cases, self.patch, self.flip, self.labeled = cases, tuple(patch), tuple(flip), labeled
        self.mirrored = np.arange(256, dtype=np.uint8)
        for first, second in exchange:
            self.mirrored[[first, second]] = second, first
        self.vary = _variation(strength)

    def sample(self, generator: np.random.Generator, count: int) -> dict[str, NDArray]:
        """``image`` (count, 1, i, j, k) float32 and ``labels`` (count, i, j, k) int64."""
        pairs = [self._one(generator) for _ in range(count)]
        images, labels = (np.stack(part) for part in zip(*pairs, strict=True))
        return {"image": images, "labels": labels}

    def _one(self, generator: np.random.Generator) -> tuple[NDArray, NDArray]:
        case = self.cases[generator.integers(len(self.cases))]
        box, margins = random_window(case.image.shape, self.patch, generator)
        if self.labeled and generator.random() < self.labeled and case.labels.any():
            box = self._about_label(case.labels, box, generator)
        image = np.pad(case.image[box], margins)
        labels = np.pad(case.labels[box], margins)
        for axis in self.flip:
            if generator.random() < 0.5:
                image, labels = np.flip(image, axis), np.flip(labels, axis)
                labels = self.mirrored[labels] if axis == 0 else labels
        self.vary.set_random_state(seed=int(generator.integers(2**31)))
        varied = self.vary({"image": image[None].copy(), "labels": labels[None].copy()})
        found = np.asarray(varied["image"], np.float32), np.asarray(varied["labels"], np.int64)
        return found[0], found[1][0]

    def _about_label(
        self, labels: NDArray, box: tuple[slice, ...], generator: np.random.Generator
    ) -> tuple[slice, ...]:
        """The window moved, along axes that it does not cover, so that it holds a random labeled voxel."""
        flat = np.flatnonzero(labels)
        place = np.unravel_index(flat[generator.integers(len(flat))], labels.shape)
        starts = [at - generator.integers(size) for at, size in zip(place, self.patch, strict=True)]
        return moved_window(box, starts, labels.shape, self.patch)


def _variation(strength: float):
    """Augmentation of intensity and contrast, by `strength`, of resolution and, slightly, of shape."""
    from monai import transforms

    both, image = ["image", "labels"], ["image"]
    return transforms.Compose(
        [
            transforms.RandAffined(
                both, prob=0.5, rotate_range=0.2, scale_range=0.12, mode=("bilinear", "nearest"), padding_mode="zeros"
            ),
            transforms.RandBiasFieldd(image, prob=0.3, coeff_range=(0.0, 0.2 * strength)),
            transforms.RandAdjustContrastd(image, prob=0.5, gamma=(0.7**strength, 1.5**strength), retain_stats=True),
            transforms.RandGaussianSmoothd(image, prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)),
            transforms.RandSimulateLowResolutiond(image, prob=0.2, zoom_range=(0.5, 1.0)),
            transforms.RandScaleIntensityd(image, prob=0.5, factors=0.2 * strength),
            transforms.RandShiftIntensityd(image, prob=0.5, offsets=0.2 * strength),
            transforms.RandGaussianNoised(image, prob=0.7, std=0.25 * strength),
        ]
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be read ({error.strerror}); give a folder with images and labels."
        ) from None
