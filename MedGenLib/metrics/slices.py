"""Slices of a volume as input of a feature network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume

PLANES = ("sagittal", "coronal", "axial")
"""Names of the slices across array axis 0, 1, 2 of a volume in RAS orientation."""

CENTER_HU, SCALE_HU = 40.0, 200.0
_MR_PERCENTILE = 99.5
_SAME_SPACING = 0.05
_SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Standard:
    """Modality and spacing to which the volumes of all cohorts are brought.

    Attributes
    ----------
    ct: whether voxels are HU; otherwise each volume has its own scale.
    spacing: mm along the axes of RAS orientation.
    of: name of the volume that sets the standard.
    """

    ct: bool
    spacing: tuple[float, float, float]
    of: str

    @classmethod
    def set_by(cls, volume: Volume, name: str, ct: bool | None = None) -> Standard:
        """The standard of a volume; `ct` overrides the guess from its values."""
        reorientation = Reorientation.to(volume.geometry, "RAS")
        kind = modality_of(volume) == "CT" if ct is None else ct
        return cls(kind, reorientation.axes(volume.spacing), name)

    def apply(self, volume: Volume, name: str) -> NDArray[np.float32]:
        """`encode` the volume, resampled if its spacing differs by more than 5 %.

        Raises InputError if one of the volume and the standard is CT and the other is not.
        """
        if volume.modality is not None and (volume.modality == "CT") != self.ct:
            raise InputError(
                f"{name} is {volume.modality} and {self.of} is {'CT' if self.ct else 'not CT'}; "
                "compare images of one kind."
            )
        reorientation = Reorientation.to(volume.geometry, "RAS")
        if self.is_off(volume):
            wanted = [0.0] * 3
            for length, axis in zip(self.spacing, reorientation.order, strict=True):
                wanted[axis] = length
            volume = resample(volume, wanted)
        return encode(reorientation.apply(volume.array), self.ct)

    def is_off(self, volume: Volume) -> bool:
        """Whether the spacing differs along an axis of more than one voxel."""
        spacing = Reorientation.to(volume.geometry, "RAS").axes(volume.spacing)
        ratio = np.divide(spacing, self.spacing)
        return bool((np.abs(np.log(ratio)) > _SAME_SPACING).any())


def mostly_ct(kinds: Iterable[str | None]) -> bool | None:
    """The majority of the volumes' kinds, as the guess from one may be wrong; None if all are unknown."""
    known = [kind == "CT" for kind in kinds if kind is not None]
    return 2 * sum(known) > len(known) if known else None


def encode(array: NDArray, ct: bool) -> NDArray[np.float32]:
    """Intensities on the scale of the feature network, about -2.5 to 4.

    CT: asinh((HU - 40) / 200) of HU clipped to -1024..3000, which keeps soft-tissue contrast beside bone. Others: 4 v /
    p - 2, clipped to -2..4, with p the volume's 99.5th percentile.
    """
    array = array.astype(np.float32)
    if ct:
        return np.arcsinh((np.clip(array, -1024, 3000) - CENTER_HU) / SCALE_HU)
    top = max(float(np.percentile(array, _MR_PERCENTILE)), 1e-6)
    return 4 * np.clip(array / top, 0, 1.5) - 2


def informative(image: NDArray[np.float32], least: float = 0.15) -> bool:
    """Whether the standard deviation of a slice exceeds that of air."""
    return float(image.std()) > least


def slices(encoded: NDArray[np.float32], plane: int, count: int) -> Iterator[NDArray[np.float32]]:
    """At most `count` informative slices across array axis `plane`, evenly spaced.

    The outermost tenth on either side and slices of fewer than 16 pixels on a side are left out.
    """
    length = encoded.shape[plane]
    if min(n for axis, n in enumerate(encoded.shape) if axis != plane) < _SMALLEST_SIDE:
        return
    margin = length // 10
    places = np.linspace(margin, length - 1 - margin, min(count, length - 2 * margin))
    for place in places.round().astype(int):
        image = np.take(encoded, place, axis=plane)
        if informative(image):
            yield image
