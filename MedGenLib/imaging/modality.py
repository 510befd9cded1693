"""Modality of an image: compared by name, and guessed from the values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Volume

MR_MODALITIES = ("MR", "T1w", "T2w", "PDw", "FLAIR")
PICTURE = "picture"
"""Modality of pictures and of single DICOM images other than CT and MR, such as radiographs."""
STORED_OFFSET = 1024
"""What scanners add to HU for storing."""
_LOWEST_STORED = -200
"""CT in HU has lower values, at least air, unless it was masked."""
_MAX_VALUES = 500_000  # enough for the histogram, and quick on the largest volume


def same_modality(asked: str | None, offered: str | None) -> bool:
    """Whether a modality asked for is the one offered; "MR" is any contrast, None is any at all."""
    if asked is None or offered is None:
        return asked is None
    if asked.upper() == "MR":
        return offered in MR_MODALITIES
    return asked.casefold() == offered.casefold()


def modality_family(modality: str) -> str:
    """ "CT", "MR" or `PICTURE`."""
    return modality if modality in ("CT", PICTURE) else "MR"


def modality_of(volume: Volume) -> str | None:
    """The modality that the volume states, else what its values look like."""
    return volume.modality or guess_modality(volume)


def guess_modality(volume: Volume) -> str | None:
    """ "CT" in HU, "MR", or None where the values are ambiguous.

    In Hounsfield units most voxels of a body lie within 200 HU of water with a peak there, and
    few between fat (-120) and lung (-600). CT that was stored without its offset of -1024, label
    maps, and images with a range of a few units give None.
    """
    values = _sample(volume.array)
    if _looks_like_hu(values):
        return "CT"
    if _looks_like_hu(values - STORED_OFFSET) or len(np.unique(values[:50_000])) < 32:
        return None
    low, high = np.percentile(values, [0.5, 99.5])
    return "MR" if high - low >= 20 else None


def has_offset(volume: Volume) -> bool:
    """Whether the values look like HU that were stored without their offset."""
    values = _sample(volume.array)
    return float(values.min()) >= _LOWEST_STORED and _looks_like_hu(values - STORED_OFFSET)


def hu_problem(volume: Volume) -> str | None:
    """A sentence if the values of a CT are not HU: stored with an offset, in 8 bits, or scaled to 0..1."""
    values = _sample(volume.array)
    low, high = float(values.min()), float(values.max())
    if low == high or low < _LOWEST_STORED:
        return None
    if has_offset(volume):
        return (
            "The values of the CT look like HU + 1024; subtract 1024 from them (command line: --hu-offset -1024, "
            "Python: read_volume(..., hu_offset=-1024))."
        )
    scale = "to 0..1" if high <= 2 else "to 8 bits" if low >= 0 and 200 <= high <= 255 else ""
    if not scale:
        return None
    return (
        f"The values from {low:g} to {high:g} are not those of a CT in HU, they seem to be scaled {scale}; give the "
        "original CT, because HU cannot be restored from them."
    )


def contrast_doubt(volume: Volume, needed: str) -> str | None:
    """A sentence if nothing but the name of the file states the contrast, and it is another than the needed one."""
    if volume.named in (None, needed) or needed in ("CT", "MR") or volume.modality not in (None, "MR", needed):
        return None
    return (
        f"By the name of its file the image is {volume.named}, and the model is for {needed}; make sure that it is "
        f"{needed} (command line: --modality {needed})."
    )


def modality_doubt(volume: Volume) -> str | None:
    """A sentence if the values contradict the modality that the volume states."""
    guess = guess_modality(volume)
    if None in (guess, volume.modality) or guess == modality_family(volume.modality):
        return None
    return (
        f"The image is stated to be {volume.modality} but looks like {guess} by its values; make sure that it is "
        f"{volume.modality}."
    )


def looks_like_labels(volume: Volume) -> bool:
    """Whether an image holds only a few non-negative whole numbers, as masks do."""
    values = _sample(volume.array)
    return bool(values.min() >= 0 and len(np.unique(values)) < 32 and (values % 1 == 0).all())


def _looks_like_hu(values: NDArray) -> bool:
    values = values[values > values.min()]  # without padding
    body = values[values > -200]
    if body.size < 50 or (values < -20).mean() < 0.03:
        return False
    counts, edges = np.histogram(body, bins=np.arange(-200, 1001, 25))
    peak = edges[np.convolve(counts, [1, 1, 1], "same").argmax()]
    between_fat_and_lung = np.count_nonzero((values > -600) & (values < -200)) / body.size
    return -150 <= peak <= 130 and (body < 200).mean() > 0.5 and between_fat_and_lung < 0.3


def _sample(array: NDArray) -> NDArray[np.float32]:
    """At most `_MAX_VALUES` values of the whole volume, in a fixed random order."""
    generator = np.random.default_rng(0)
    if array.size <= _MAX_VALUES:
        return generator.permutation(array.reshape(-1)).astype(np.float32)
    # Without reshape, which copies an array of another order.
    return array[np.unravel_index(generator.integers(array.size, size=_MAX_VALUES), array.shape)].astype(np.float32)
