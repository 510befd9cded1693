"""The common crop, resampling and window of all images of a study.

Technical differences between real and synthetic images must not be visible: all images have the same size in voxels and
in mm, and the same window. Images are not padded, as a black border would distinguish them; so the smallest image
determines the size and the coarsest the voxel size. In CT everything outside the body is black, as models generate no
table.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume
from MedGenLib.visual.views import PLANES, SOFT_TISSUE, Plane, Window, box_around, default_windows

WHITE = {"slices": 255, "volumes": 4095}
"""Largest gray value; black is 0. A slice is an 8-bit picture, a volume has 12 bits as scanners have."""
_SAME_SPACING = 0.01
"""Relative difference of voxel sizes up to which images are not resampled, to avoid blur."""
_SHORTEST = 16
"""Voxels along the two longer axes, below which an image is too small to assess."""
_THICKER = 1.5
"""Ratio of voxel sizes above which an image was acquired slice by slice."""
_ENOUGH_BODY = 0.3
"""Minimum body area of a slice, relative to the largest section of the body."""


@dataclass(frozen=True)
class SourceImage:
    """Properties of a volume needed to choose the common frame.

    Attributes
    ----------
    name: name of the file or folder, for messages and the key.
    shape, spacing, body: along the axes of RAS; body is the bounding box of the patient.
    areas: per axis of RAS, the fraction of body in each slice.
    digest: hash of the voxels, to detect duplicates.
    """

    path: Path
    synthetic: bool
    modality: str | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    body: tuple[slice, ...]
    areas: tuple[NDArray, ...]
    digest: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def extent(self) -> tuple[float, ...]:
        """Size in mm."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    def slices(self, plane: Plane) -> NDArray[np.int64]:
        """Indices of the slices that show enough of the body."""
        areas = self.areas[plane.axis]
        return np.flatnonzero(areas >= _ENOUGH_BODY * areas.max())


def survey(path: Path, synthetic: bool) -> SourceImage:
    """Read a volume to determine its grid and the position of the body."""
    volume = read_volume(path)
    reorientation = Reorientation.to(volume.geometry, "RAS")
    modality = modality_of(volume)
    body = reorientation.apply(_body(volume.with_array(volume.array, modality)))
    others = ((1, 2), (0, 2), (0, 1))
    areas = tuple(body.mean(axis=other) for other in others)
    shape, spacing = reorientation.axes(volume.shape), reorientation.axes(volume.spacing)
    digest = hashlib.sha256(np.ascontiguousarray(volume.array)).hexdigest()
    return SourceImage(path, synthetic, modality, shape, spacing, box_around(body > 0), areas, digest)


def _body(volume: Volume) -> NDArray[np.uint8]:
    """1 inside the patient; everywhere if the image has no body surrounded by air."""
    try:
        return body_envelope_from_image(volume).array
    except InputError:
        return np.ones(volume.shape, np.uint8)


@dataclass(frozen=True)
class Frame:
    """Common properties of all images of a study.

    Attributes
    ----------
    kind: "slices" or "volumes".
    plane: plane of the slices.
    spacing: along the axes of RAS in mm; None for no resampling (across slices).
    size: voxels along the axes of RAS; 1 across slices.
    window: None for percentiles of each image, as MR has no absolute scale.
    """

    kind: str
    plane: Plane
    spacing: tuple[float | None, ...]
    size: tuple[int, ...]
    window: Window | None

    @property
    def title(self) -> str:
        """Description for the reader."""
        window = self.window or "window by each image's own brightness"
        return f"{f'{self.plane.name} slices' if self.kind == 'slices' else 'volumes'}, {window}"

    @property
    def item_spacing(self) -> tuple[float, float, float]:
        """Spacing of i, j, k of an item in mm."""
        spacing = [s or 1.0 for s in self.spacing]
        if self.kind == "volumes":
            return tuple(spacing)
        return spacing[self.plane.across], spacing[self.plane.up], 1.0

    @property
    def item_bytes(self) -> int:
        """Bytes of an item's voxels: 8 bits in a slice, 16 in a volume."""
        return math.prod(self.size) * (1 if self.kind == "slices" else 2)

    def images(self, source: SourceImage, positions: Sequence[int]) -> list[NDArray]:
        """The items of a volume, (k, j, i) from 0 to white.

        Parameters
        ----------
        positions: positions of the slices; ignored for a volume.
        """
        volume = self._sampled(read_volume(source.path, modality=source.modality))
        reorientation = Reorientation.to(volume.geometry, "RAS")
        gray = reorientation.apply(self._gray(volume))
        box = self._box(source, gray.shape)
        if self.kind == "volumes":
            # As in DICOM: columns to the patient's left, rows to posterior, slices to superior.
            return [np.ascontiguousarray(gray[box][::-1, ::-1].transpose(2, 1, 0))]
        items = []
        for position in positions:
            place = list(box)
            place[self.plane.axis] = slice(position, position + 1)
            flat = np.squeeze(gray[tuple(place)], self.plane.axis)  # (across, up)
            items.append(np.ascontiguousarray(flat[::-1, ::-1].T[None]))
        return items

    def _sampled(self, volume: Volume) -> Volume:
        reorientation = Reorientation.to(volume.geometry, "RAS")
        wanted = list(volume.spacing)
        for stored, spacing in zip(reorientation.order, self.spacing, strict=True):
            if spacing is not None and not np.isclose(wanted[stored], spacing, rtol=_SAME_SPACING):
                wanted[stored] = spacing
        return resample(volume, wanted)

    def _gray(self, volume: Volume) -> NDArray:
        """Map the window to integers from black to white, clipped."""
        low, high = (self.window or default_windows(volume)[0]).limits
        white = WHITE[self.kind]
        scaled = np.clip((volume.array - low) / (high - low), 0, 1) * white
        if volume.modality == "CT":
            scaled[_body(volume) == 0] = 0
        return np.round(scaled).astype(np.uint8 if white == 255 else np.int16)

    def _box(self, source: SourceImage, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Box around the center of the body, within the image."""
        box = []
        for axis, size in enumerate(self.size):
            scale = shape[axis] / source.shape[axis]
            middle = (source.body[axis].start + min(source.body[axis].stop, source.shape[axis])) / 2
            start = int(np.clip(round(middle * scale - size / 2), 0, max(shape[axis] - size, 0)))
            box.append(slice(start, start + size))
        return tuple(box)


def frame_of(sources: Sequence[SourceImage], kind: str, window: Window | None) -> Frame:
    """The largest frame that all sources cover. Raises InputError if CT and MR are mixed, or a source is too small."""
    plane = _plane_of(sources) if kind == "slices" else PLANES[0]
    spacing: list[float | None] = [max(s.spacing[axis] for s in sources) for axis in range(3)]
    if kind == "slices":
        pixel = max(spacing[plane.across], spacing[plane.up])
        spacing = [pixel] * 3
        spacing[plane.axis] = None
    size = tuple(_size(sources, axis, spacing[axis]) for axis in range(3))
    if sorted(size)[1] < _SHORTEST:
        smallest = min(sources, key=lambda source: np.prod(source.extent))
        raise InputError(
            f"Only {' x '.join(map(str, size))} voxels are common to all images, too few to "
            f"assess; leave out the smallest and the coarsest ones, such as {smallest.path}."
        )
    return Frame(kind, plane, tuple(spacing), size, window or _window_of(sources))


def _plane_of(sources: Sequence[SourceImage]) -> Plane:
    """The plane in which most were acquired; axial for nearly isotropic voxels."""
    votes = []
    for source in sources:
        longest = int(np.argmax(source.spacing))
        thick = source.spacing[longest] > _THICKER * min(source.spacing)
        votes.append(longest if thick or source.shape[longest] == 1 else 2)
    axis = max((2, 1, 0), key=votes.count)
    return next(plane for plane in PLANES if plane.axis == axis)


def _size(sources: Sequence[SourceImage], axis: int, spacing: float | None) -> int:
    """Voxels along an axis: the largest body, limited by the smallest image."""
    if spacing is None:
        return 1
    bodies = [len(range(*s.body[axis].indices(s.shape[axis]))) * s.spacing[axis] for s in sources]
    room = min(_length(source, axis, spacing) for source in sources)
    return min(room, int(np.ceil(max(bodies) / spacing)))


def _length(source: SourceImage, axis: int, spacing: float) -> int:
    """Voxels of a resampled source along an axis."""
    if np.isclose(source.spacing[axis], spacing, rtol=_SAME_SPACING):
        return source.shape[axis]
    return int(source.extent[axis] / spacing + 1e-6)


def _window_of(sources: Sequence[SourceImage]) -> Window | None:
    kinds = {source.modality == "CT": source for source in sources if source.modality is not None}
    if len(kinds) == 2:
        raise InputError(
            f"{kinds[True].path} looks like CT and {kinds[False].path} like MR, which every reader "
            "distinguishes; study one of them, or give --window WIDTH,LEVEL if all are of one kind."
        )
    return SOFT_TISSUE if True in kinds else None
