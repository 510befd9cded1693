"""The patient's own series, which a synthetic one joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.dicom.elements import SYNTHETIC_DATA, is_synthetic
from MedGenLib.io.dicom.identity import PATIENT_AND_STUDY, PLACE
from MedGenLib.io.dicom.planes import Slices
from MedGenLib.io.dicom.reading import ImageHeader, choose, list_series, read_tags

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from MedGenLib.imaging.volume import Geometry

_SAME_MM = 1e-3
_USED = (
    *PATIENT_AND_STUDY,
    *PLACE,
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "SeriesDescription",
    "Manufacturer",
    "ManufacturerModelName",
    SYNTHETIC_DATA,
)


@dataclass(frozen=True)
class SourceSeries:
    """A series that was read for what it says about the patient and the place of its images.

    Attributes
    ----------
    header: of its first image, as far as it is used.
    images: where each image lies, and its SOP instance.
    is_synthetic: the series says so; kept here, as de-identifying removes its description.
    """

    header: Dataset
    images: tuple[ImageHeader, ...]
    is_synthetic: bool

    @classmethod
    def read(cls, place: str | Path | Sequence[str | Path], series: str | None = None) -> SourceSeries:
        """The series in a folder or among files; see `read_series`.

        Raises
        ------
        InputError: no series, several without a choice, or files that cannot be read.
        """
        chosen = choose(list_series(place), series, _words(place))
        # What is not used, private attributes among it, never comes in.
        header = read_tags(chosen.images[0].path, _USED)
        return cls(header, chosen.images, is_synthetic(header))

    @property
    def directions(self) -> np.ndarray:
        """(2, 3), LPS unit vectors of growing column and growing row."""
        return np.stack([self.images[0].row, self.images[0].column])

    def check_overlap(self, geometry: Geometry) -> None:
        """Raise InputError when no image of the series lies where the volume does."""
        to_voxel = np.linalg.inv(geometry.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        corners = np.concatenate([_corners(image) for image in self.images])
        voxels = corners @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        # An image reaches half its thickness beyond its plane, a voxel half its size.
        thickness = self.images[0].thickness or 1.0
        margin = 0.5 + 0.5 * thickness / np.array(geometry.spacing)
        last = np.array(geometry.shape) - 1
        outside = (voxels.max(axis=0) < -margin) | (voxels.min(axis=0) > last + margin)
        if outside.any():
            raise InputError(
                f"The volume lies outside the images of the DICOM series "
                f"{self.header.SeriesInstanceUID}; give the series of the same patient and scan."
            )

    def behind(self, slices: Slices) -> list[tuple[ImageHeader, bool] | None]:
        """For each slice the source's image in its plane, and whether they share their pixels.

        None where the nearest image is further away than half a slice, or turned.
        """
        normal = slices.normal
        parallel = [image for image in self.images if abs(image.normal @ normal) > 1 - 1e-6]
        if not parallel:
            return [None] * len(slices.positions)
        places = np.array([image.position @ normal for image in parallel])
        found = []
        for position in slices.positions:
            away = np.abs(places - position @ normal)
            nearest = int(away.argmin())
            near = away[nearest] <= max(slices.gap / 2, _SAME_MM)
            image = parallel[nearest]
            found.append((image, _shares_pixels(image, slices, position)) if near else None)
        return found


def _words(place: str | Path | Sequence[str | Path]) -> str:
    if isinstance(place, (str, Path)):
        return f"The folder {place}"
    return "The list of DICOM files"


def _corners(image: ImageHeader) -> np.ndarray:
    """(4, 3) LPS mm of the centres of an image's corner pixels."""
    across = image.row * image.pixel[0] * (image.size[0] - 1)
    down = image.column * image.pixel[1] * (image.size[1] - 1)
    return image.position + np.stack([0 * across, across, down, across + down])


def _shares_pixels(image: ImageHeader, slices: Slices, position: np.ndarray) -> bool:
    rows, columns = slices.pixels.shape[1:]
    same = [
        np.linalg.norm(image.position - position),
        *np.abs(image.row - slices.row) * columns * slices.pixel[1],
        *np.abs(image.column - slices.column) * rows * slices.pixel[0],
        *np.abs(np.array(image.pixel) - slices.pixel[::-1]) * (columns, rows),
    ]
    return image.size == (columns, rows) and max(same) <= _SAME_MM
