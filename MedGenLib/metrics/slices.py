"""From a volume to the slices that a feature network sees."""

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
    """What the volumes of all cohorts are brought to: that of one of them.

    Attributes
    ----------
    ct: whether voxels are HU; otherwise their scale is each volume's own.
    spacing: mm along the axes of RAS orientation.
    of: name of the volume that set the standard.
    """

    ct: bool
    spacing: tuple[float, float, float]
    of: str

    @classmethod
    def set_by(cls, volume: Volume, name: str, ct: bool | None = None) -> Standard:
        """That of a volume; `ct` where more than this one volume tells what they are."""
        reorientation = Reorientation.to(volume.geometry, "RAS")
        kind = modality_of(volume) == "CT" if ct is None else ct
        return cls(kind, reorientation.axes(volume.spacing), name)

    def apply(self, volume: Volume, name: str) -> NDArray[np.float32]:
        """`encode` of the volume, resampled where its spacing is off by more than 5 %.

        Raises
        ------
        InputError: the volume is stated to be CT and the standard is not, or the other way round.
        """
        if volume.modality is not None and (volume.modality == "CT") != self.ct:
            raise InputError(
                f"{name} is {volume.modality} and {self.of} is {'CT' if self.ct else 'no CT'}; "
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
        """Whether the volume has another spacing along an axis of more than one voxel."""
        spacing = Reorientation.to(volume.geometry, "RAS").axes(volume.spacing)
        ratio = np.divide(spacing, self.spacing)
        return bool((np.abs(np.log(ratio)) > _SAME_SPACING).any())


def mostly_ct(kinds: Iterable[str | None]) -> bool | None:
    """What most volumes are: a guess from the values of one may be wrong. None if none tells."""
    known = [kind == "CT" for kind in kinds if kind is not None]
    return 2 * sum(known) > len(known) if known else None


def encode(array: NDArray, ct: bool) -> NDArray[np.float32]:
    """The scale of the feature network, about -2.5 to 4.

    CT: asinh((HU - 40) / 200) of HU within -1024 and 3000, so that a difference of 20 HU in soft
    tissue counts and bone does not drown it. Others: 4 v / p - 2 with p the volume's own 99.5th
    percentile, within -2 and 4, as the numbers of MR have no unit.
    """
    array = array.astype(np.float32)
    if ct:
        return np.arcsinh((np.clip(array, -1024, 3000) - CENTER_HU) / SCALE_HU)
    top = max(float(np.percentile(array, _MR_PERCENTILE)), 1e-6)
    return 4 * np.clip(array / top, 0, 1.5) - 2


def informative(image: NDArray[np.float32], least: float = 0.15) -> bool:
    """Whether a slice shows anything: its standard deviation is not that of empty air."""
    return float(image.std()) > least


def slices(encoded: NDArray[np.float32], plane: int, count: int) -> Iterator[NDArray[np.float32]]:
    """At most `count` informative slices across array axis `plane`, evenly spread.

    The outermost tenth on either side is left out. Slices of fewer than 16 pixels on a side show
    too little and are none.
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
