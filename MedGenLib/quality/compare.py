"""An image against a reference, in figures and in words; and the spread of several samples.

    comparison = compare(synthetic_ct, real_ct)
    for row in comparison.rows:
        print(row.sentence)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.labels import body_envelope_from_image
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.resample import resample_to
from MedGenLib.volume import LabelMap, Volume, check_finite

_CT_OUTSIDE = -1024.0
_COVERED = 0.999
"""Share of the region below which it is told how much of it the reference covers."""


@dataclass(frozen=True)
class Row:
    """One measure.

    Attributes
    ----------
    value: in `unit`; None where the measure is not defined, and then the sentence tells why.
    """

    name: str
    value: float | None
    unit: str
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """All measures, and a note on what was compared."""

    rows: tuple[Row, ...]
    note: str

    def value(self, name: str) -> float | None:
        """The value of the row of that name."""
        return next(row.value for row in self.rows if row.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"rows": [asdict(row) for row in self.rows], "note": self.note}


def compare(
    image: Volume,
    reference: Volume,
    mask: LabelMap | None = None,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """Mean absolute error, RMSE, PSNR, SSIM and Pearson's correlation inside the body.

    Parameters
    ----------
    image: what is judged. Everything is measured on its grid.
    reference: what it should look like. On another grid it is resampled linearly onto that of
        `image`, and the note says so.
    mask: voxels above 0 are compared; None takes the body as the reference shows it.

    Raises
    ------
    InputError: nothing overlaps, the mask is empty, or a voxel is not finite.
    """
    from MedGenLib.quality import metrics

    stage = Stage("comparing", 7, progress)
    check_finite(image, "The image")
    check_finite(reference, "The reference")
    notes = [_kinds(image, reference)]
    target, covered = _on_grid(reference, image, notes)
    stage.advance()
    inside = _region(target, mask, covered, notes)
    stage.advance()

    first, second = target.array.astype(np.float64), image.array.astype(np.float64)
    data_range, outside = _data_range(image, target, inside, notes)
    unit = "HU" if image.modality == target.modality == "CT" else target.unit
    measures: list[tuple[str, str, str, Callable[[], float]]] = [
        ("MAE", unit, "mean absolute error", lambda: metrics.mae(first, second, inside)),
        ("RMSE", unit, "root of the mean squared error",
         lambda: metrics.rmse(first, second, inside)),
        ("PSNR", "dB", "peak signal-to-noise ratio",
         lambda: metrics.psnr(first, second, inside, data_range)),
        ("SSIM", "", "structural similarity (1 is equal)",
         lambda: metrics.ssim(first, second, inside, data_range, outside)),
        ("Pearson", "", "correlation (1 is best)", lambda: metrics.pearson(first, second, inside)),
    ]  # fmt: skip
    rows = []
    for name, of, words, measure in measures:
        rows.append(_row(name, of, words, measure))
        stage.advance()
    return Comparison(tuple(rows), " ".join(filter(None, notes)))


def spread(volumes: Sequence[Volume]) -> Volume:
    """Voxel-wise standard deviation (n - 1) of samples on one grid, float32 in their unit.

    Where it is large, the model has made something up: the input did not decide on it.

    Raises
    ------
    InputError: fewer than two samples, or grids that differ.
    """
    if len(volumes) < 2:
        raise InputError("The spread needs at least two samples; ask for more of them.")
    first = volumes[0]
    if not all(first.geometry.is_close(volume.geometry) for volume in volumes):
        raise InputError("The samples lie on different grids; compare samples of one input.")
    # Welford's running sums: the samples are never all in memory as floating point.
    mean, squares = np.zeros(first.shape), np.zeros(first.shape)
    for count, volume in enumerate(volumes, start=1):
        step = volume.array - mean
        mean += step / count
        squares += step * (volume.array - mean)
    deviation = np.sqrt(squares / (len(volumes) - 1)).astype(np.float32)
    return Volume(deviation, first.affine, None, first.unit)


def _kinds(image: Volume, reference: Volume) -> str:
    known = image.modality and reference.modality
    if not known or (image.modality == "CT") == (reference.modality == "CT"):
        return ""
    return (
        f"The image is {image.modality} and the reference {reference.modality}: errors between "
        "them mean little."
    )


def _on_grid(
    reference: Volume, image: Volume, notes: list[str]
) -> tuple[Volume, NDArray[np.bool_]]:
    """The reference on the image's grid, and where it reaches."""
    if reference.geometry.is_close(image.geometry):
        return reference, np.ones(image.shape, bool)
    notes.append("The reference lies on another grid and was resampled onto that of the image.")
    ones = LabelMap(np.ones(reference.shape, np.uint8), reference.affine)
    covered = resample_to(ones, image).array > 0
    if not covered.any():
        raise InputError(
            "The image and the reference do not overlap in space; register them first, or choose "
            "the reference that belongs to this patient."
        )
    moved = Volume(
        reference.array.astype(np.float32), reference.affine, reference.modality, reference.unit
    )
    return resample_to(moved, image, order=1), covered


def _region(
    reference: Volume, mask: LabelMap | None, covered: NDArray[np.bool_], notes: list[str]
) -> NDArray[np.bool_]:
    if mask is None:
        notes.append("Measured inside the body of the reference.")
        wanted = body_envelope_from_image(reference).array > 0
    else:
        notes.append("Measured inside the mask.")
        wanted = resample_to(mask, reference).array > 0
    if not wanted.any():
        raise InputError("The mask is empty where the image lies; choose the mask of this image.")
    share = float((wanted & covered).sum() / wanted.sum())
    if share == 0:
        raise InputError("The reference does not reach into the mask; choose another mask.")
    if share < _COVERED:
        notes.append(f"The reference covers {share:.0%} of it.")
    return wanted & covered


def _data_range(
    image: Volume, reference: Volume, inside: NDArray[np.bool_], notes: list[str]
) -> tuple[float, float]:
    """Range for PSNR and SSIM, and the value that stands outside of the region."""
    from MedGenLib.quality.metrics import CT_RANGE

    if image.modality == reference.modality == "CT":
        return CT_RANGE, _CT_OUTSIDE
    low, high = (float(v) for v in np.percentile(reference.array[inside], (0.5, 99.5)))
    notes.append(f"PSNR and SSIM refer to the reference's range of {high - low:.4g}.")
    return max(high - low, 1e-6), low


def _row(name: str, unit: str, words: str, measure: Callable[[], float]) -> Row:
    try:
        value = measure()
    except InputError as error:
        return Row(name, None, unit, f"The {words} cannot be given: {error}")
    if not math.isfinite(value):
        return Row(name, None, unit, f"The {words} is not defined: an image is constant, or both "
                   "are equal.")  # fmt: skip
    return Row(name, value, unit, f"The {words} is {value:.4g}{' ' if unit else ''}{unit}.")
