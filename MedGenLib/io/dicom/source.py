"""Source series of a patient, whose study a new series joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.dicom.elements import SYNTHETIC_DATA, is_synthetic
from MedGenLib.io.dicom.headers import read_tags
from MedGenLib.io.dicom.identity import FRAME, PATIENT_AND_STUDY
from MedGenLib.io.dicom.planes import Slices
from MedGenLib.io.dicom.scan import ImageHeader, choose, scan

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from MedGenLib.imaging.volume import Geometry

_SAME_MM = 1e-3
_USED = (
    *PATIENT_AND_STUDY,
    *FRAME,
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
    """Patient attributes and image geometry of a series.

    Attributes
    ----------
    header: attributes of the first image, limited to those used.
    images: geometry and SOP instance of each image.
    is_synthetic: whether the series is marked as synthetic; stored here, because de-identification
        removes its description.
    """

    header: Dataset
    images: tuple[ImageHeader, ...]
    is_synthetic: bool

    @classmethod
    def read(cls, source: str | Path | Sequence[str | Path], series: str | None = None) -> SourceSeries:
        """Read the series in a folder or among files; ``series`` as in `read_series`.

        Raises
        ------
        InputError: no series, several without a choice, or files that cannot be read.
        """
        chosen = choose(scan(source), series, _subject(source))
        # Unused attributes, private ones included, are not read.
        header = read_tags(chosen.images[0].path, _USED)
        return cls(header, chosen.images, is_synthetic(header))

    @property
    def directions(self) -> np.ndarray:
        """(2, 3), LPS unit vectors of increasing column and row index."""
        return np.stack([self.images[0].row, self.images[0].column])

    def check_overlap(self, geometry: Geometry) -> None:
        """Raise InputError if no image of the series overlaps the volume."""
        to_voxel = np.linalg.inv(geometry.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
        corners = np.concatenate([_corners(image) for image in self.images])
        voxels = corners @ to_voxel[:3, :3].T + to_voxel[:3, 3]
        # An image extends half its thickness from its plane, a voxel half its size from its center.
        thickness = self.images[0].thickness or 1.0
        margin = 0.5 + 0.5 * thickness / np.array(geometry.spacing)
        last = np.array(geometry.shape) - 1
        outside = (voxels.max(axis=0) < -margin) | (voxels.min(axis=0) > last + margin)
        if outside.any():
            raise InputError(
                f"The volume is outside the images of the DICOM series "
                f"{self.header.SeriesInstanceUID}; give the series of the same patient and scan."
            )

    def coplanar(self, slices: Slices) -> list[tuple[ImageHeader, bool] | None]:
        """For each slice, the source image in its plane and whether both have the same pixel grid.

        None if no image is parallel, or the nearest is further away than half a slice gap.
        """
        normal = slices.normal
        parallel = [image for image in self.images if abs(image.normal @ normal) > 1 - 1e-6]
        if not parallel:
            return [None] * len(slices.positions)
        positions = np.array([image.position @ normal for image in parallel])
        found = []
        for position in slices.positions:
            distances = np.abs(positions - position @ normal)
            nearest = int(distances.argmin())
            near = distances[nearest] <= max(slices.gap / 2, _SAME_MM)
            image = parallel[nearest]
            found.append((image, _shares_pixels(image, slices, position)) if near else None)
        return found


def _subject(source: str | Path | Sequence[str | Path]) -> str:
    if isinstance(source, (str, Path)):
        return f"The folder {source}"
    return "The list of DICOM files"


def _corners(image: ImageHeader) -> np.ndarray:
    """(4, 3) LPS mm of the centers of an image's corner pixels."""
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
