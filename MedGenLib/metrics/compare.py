"""An image against a reference, in figures and in words, as a whole and label by label.

    comparison = compare(synthetic_ct, real_ct, labels=tissues)
    for row in comparison.rows:
        print(row.sentence)

Definitions follow SynthRAD 2025: errors inside the mask; for PSNR and the structural similarities a
CT is clipped to -1024..3000 HU, and outside of the mask both images are -1024 HU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import guess_modality
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, check_finite
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    from MedGenLib.metrics.image import MultiScale

_COVERED = 0.999
"""Share of the region below which it is told how much of it the reference covers."""
_NO_MR_BELOW = -200.0
_OTHER_SCALE = 0.25
"""Share of the squared error that is the square of the bias, above which MR gets a remark."""
_RESAMPLE = "have it resampled (--resample), or bring them onto one grid first"


@dataclass(frozen=True)
class ImageMeasure:
    """One measure.

    Attributes
    ----------
    value: in `unit`; None where the measure is not defined, and then the sentence tells why.
    label: name of the structure that was measured; empty for the whole region.
    """

    name: str
    value: float | None
    unit: str
    sentence: str
    label: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """All measures, and what they were taken from.

    Attributes
    ----------
    rows: of the whole region first, then of each label.
    note: what was compared, and what was changed or assumed for it.
    difference: image - reference on the image's grid, float32, 0 outside of the region.
    reference: the reference on that grid.
    region: (i, j, k), where it was measured.
    """

    rows: tuple[ImageMeasure, ...]
    note: str
    difference: Volume
    reference: Volume
    region: NDArray[np.bool_]

    def value(self, name: str, label: str = "") -> float | None:
        """The value of the row of that name."""
        return next(row.value for row in self.rows if (row.name, row.label) == (name, label))

    def sample(self, most: int) -> NDArray[np.int64]:
        """Flat indices of the region's voxels, or of so many of them, always the same ones."""
        index = np.flatnonzero(self.region)
        return index if len(index) <= most else np.random.default_rng(0).choice(index, most, replace=False)

    def to_dict(self) -> dict[str, Any]:
        """Rows and note as plain JSON types."""
        return {"rows": [asdict(row) for row in self.rows], "note": self.note}


def compare(
    image: Volume,
    reference: Volume,
    mask: LabelMap | None = None,
    labels: LabelMap | None = None,
    *,
    resample: bool = False,
    progress: ProgressCallback | None = None,
) -> Comparison:
    """MAE, RMSE, bias, PSNR, SSIM, MS-SSIM and NCC inside the body; errors of each label.

    Parameters
    ----------
    image: what is judged. Everything is measured on its grid.
    reference: what it should look like, of the same modality. Where neither says its modality it is
        guessed from the values, and the note says so.
    mask: voxels above 0 are compared; None takes the body as the reference shows it.
    labels: structures to measure each by itself as well, as far as they lie in the region.
    resample: bring what lies on another grid onto that of `image` (the reference linearly, masks to
        the nearest voxel) and say so in the note, instead of refusing it.

    Raises
    ------
    InputError: grids that differ, no overlap, an empty mask or label volume, a voxel that is not
        finite, or a CT against an MR image.
    """
    stage = Stage("comparing", 9, progress)
    check_finite(image, "The image")
    check_finite(reference, "The reference")
    notes: list[str] = []
    kind = _kind(image, reference, notes)
    target, covered = _on_grid(reference, image, kind, resample, notes)
    mask, labels = (
        _labels_on_grid(name, grid, image, resample, notes) for name, grid in (("mask", mask), ("label volume", labels))
    )
    stage.advance()
    inside = _region(target, mask, covered, notes)
    stage.advance()
    rows = _rows(target, image, inside, kind, notes, stage)
    difference = np.subtract(
        image.array, target.array, dtype=np.float32, where=inside, out=np.zeros(image.shape, np.float32)
    )
    if labels is not None:
        rows += _label_rows(labels, image, target, inside, _unit(kind))
    stage.advance()
    return Comparison(
        tuple(rows), " ".join(notes), Volume(difference, image.affine, image.modality, _unit(kind)), target, inside
    )


def require_same_grid(
    first: tuple[str, Volume | LabelMap],
    second: tuple[str, Volume | LabelMap],
    advice: str = "bring them onto one grid first",
) -> None:
    """Raise InputError naming both grids unless they are one; each is (its name, the image)."""
    (one, a), (other, b) = first, second
    if not a.geometry.is_close(b.geometry):
        raise InputError(
            f"The {one} has {_grid(a.geometry, b.geometry)} and the {other} {_grid(b.geometry, a.geometry)}; {advice}."
        )


def _grid(geometry: Geometry, other: Geometry) -> str:
    """A grid in words, with as much as it takes to tell it from another one."""
    if geometry.shape != other.shape or not np.allclose(geometry.spacing, other.spacing, atol=1e-3):
        return str(geometry)
    place = ", ".join(f"{p:.2f}" for p in geometry.origin)
    return f"{geometry} ({geometry.orientation}, the first at {place} mm)"


def _kind(image: Volume, reference: Volume, notes: list[str]) -> str:
    """ "CT" or what else both are; refuses a CT against an MR image."""
    known = [volume.modality or _guess(volume) for volume in (image, reference)]
    of_image, of_reference = (here or there or "" for here, there in (known, known[::-1]))
    if (of_image == "CT") != (of_reference == "CT"):
        raise InputError(
            f"The image is {of_image} and the reference {of_reference}: HU and the arbitrary units "
            "of MR cannot be subtracted; choose a reference of the image's own modality."
        )
    if of_image == "CT" and not (image.modality and reference.modality):
        notes.append("Taken as CT in HU.")
        notes += _doubts("image", image) + _doubts("reference", reference)
    if of_image != of_reference and "MR" not in (of_image, of_reference):
        notes.append(f"The image is {of_image} and the reference {of_reference}: errors between them mean little.")
    return of_reference


def _doubts(name: str, volume: Volume) -> list[str]:
    """A sentence on a file that does not say it is CT and whose numbers hold nothing like air."""
    if volume.modality or volume.array.min() < _NO_MR_BELOW:
        return []
    return [
        f"The {name} has no value below {_NO_MR_BELOW:g} HU: if it shows air or lung, its numbers "
        "are no HU but shifted or scaled ones, and the errors mean nothing."
    ]


def _guess(volume: Volume) -> str | None:
    guess = guess_modality(volume)
    # A CT with unusual values is no MR image: that has nothing far below 0.
    return None if guess == "MR" and volume.array.min() < _NO_MR_BELOW else guess


def _unit(kind: str) -> str:
    return "HU" if kind == "CT" else "a.u."


def _on_grid(
    reference: Volume, image: Volume, kind: str, resample: bool, notes: list[str]
) -> tuple[Volume, NDArray[np.bool_]]:
    """The reference on the image's grid, and where it reaches."""
    reference = reference.with_array(reference.array, kind or None, _unit(kind))
    if reference.geometry.is_close(image.geometry):
        return reference, np.ones(image.shape, bool)
    ones = LabelMap(np.ones(reference.shape, np.uint8), reference.affine)
    covered = resample_to(ones, image).array > 0
    if not covered.any():
        raise InputError(
            "The image and the reference do not overlap in space; register them first, or choose "
            "the reference that belongs to this patient."
        )
    if not resample:
        require_same_grid(("image", image), ("reference", reference), _RESAMPLE)
    notes.append("The reference lies on another grid and was resampled onto that of the image.")
    moved = reference.with_array(reference.array.astype(np.float32))
    return resample_to(moved, image, order=1), covered


def _labels_on_grid(
    name: str, labels: LabelMap | None, image: Volume, resample: bool, notes: list[str]
) -> LabelMap | None:
    if labels is None:
        return None
    if not labels.array.any():
        raise InputError(f"The {name} is empty; choose one with voxels above 0.")
    if not labels.geometry.is_close(image.geometry):
        if not resample:
            require_same_grid(("image", image), (name, labels), _RESAMPLE)
        notes.append(f"The {name} was resampled onto the grid of the image.")
        labels = resample_to(labels, image)
        if not labels.array.any():
            raise InputError(f"The {name} is empty where the image lies; choose the {name} of this image.")
    return labels


def _region(
    reference: Volume, mask: LabelMap | None, covered: NDArray[np.bool_], notes: list[str]
) -> NDArray[np.bool_]:
    if mask is None:
        notes.append("Measured inside the body of the reference.")
        wanted = body_envelope_from_image(reference).array > 0
    else:
        notes.append("Measured inside the mask.")
        wanted = mask.array > 0
    share = float((wanted & covered).sum() / wanted.sum())
    if share == 0:
        raise InputError("The reference does not reach into the mask; choose another mask.")
    if share < _COVERED:
        notes.append(f"The reference covers {100 * share:.3g} % of it.")
    return wanted & covered


def _rows(
    reference: Volume, image: Volume, inside: NDArray[np.bool_], kind: str, notes: list[str], stage: Stage
) -> list[ImageMeasure]:
    """The measures of the whole region; advances the stage by 6."""
    from MedGenLib.metrics import image as metrics

    first, second = reference.array[inside], image.array[inside]
    for name, values in (("reference", first), ("image", second)):
        if values.min() == values.max():
            notes.append(f"The {name} is constant there ({values[0]:.4g}): it shows nothing.")
    low, high = _data_range(first, kind, notes)
    if kind != "CT":
        notes += _on_scale(first, second)

    def clipped(values: NDArray) -> NDArray:
        # The range of an MR image is its reference's own, which an image may rightly leave.
        return np.clip(values, low, high) if kind == "CT" else values

    scales = _attempt(lambda: metrics.ms_ssim(clipped(reference.array), clipped(image.array), inside, high - low, low))
    stage.advance()
    unit = _unit(kind)
    span = high - low
    measures: list[tuple[str, str, str, Callable[[], float]]] = [
        ("MAE", unit, "mean absolute error", lambda: metrics.mae(first, second)),
        ("RMSE", unit, "root of the mean squared error", lambda: metrics.rmse(first, second)),
        ("Bias", unit, "mean of image - reference", lambda: metrics.bias(first, second)),
        ("PSNR", "dB", "peak signal-to-noise ratio", lambda: metrics.psnr(clipped(first), clipped(second), None, span)),
        ("NCC", "", "normalized cross-correlation (Pearson's; 1 is best)", lambda: metrics.pearson(first, second)),
    ]
    rows = []
    for name, of, words, measure in measures:
        rows.append(_row(name, of, words, _attempt(measure)))
        stage.advance()
    return [*rows[:4], *_similarity_rows(scales, notes), rows[4]]


def _similarity_rows(scales: MultiScale | str, notes: list[str]) -> list[ImageMeasure]:
    """SSIM and MS-SSIM, or the sentence why there is neither."""
    words = "structural similarity (1 is equal)"
    if isinstance(scales, str):
        return [_row(name, "", words, scales) for name in ("SSIM", "MS-SSIM")]
    weights = ", ".join(f"{weight:.3g}" for weight in scales.weights)
    used = f"{scales.levels} scale{'s' if scales.levels > 1 else ''}, weights {weights}"
    notes.append(f"MS-SSIM uses {used}.")
    return [
        _row("SSIM", "", words, scales.ssim),
        _row("MS-SSIM", "", f"structural similarity over scales ({used})", scales.value),
    ]


def _data_range(values: NDArray, kind: str, notes: list[str]) -> tuple[float, float]:
    """The lowest and highest value for PSNR and SSIM; the lowest stands outside of the region."""
    from MedGenLib.metrics.image import SYNTHRAD_RANGE

    if kind == "CT":
        return SYNTHRAD_RANGE
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    notes.append(f"PSNR and SSIM refer to the reference's range of {high - low:.4g}.")
    return low, max(high, low + 1e-6)


def _on_scale(reference: NDArray, image: NDArray) -> list[str]:
    """A sentence where much of the error of an MR image may be its scale, which means nothing."""
    from MedGenLib.metrics import image as metrics

    error = metrics.rmse(reference, image) ** 2
    share = metrics.bias(reference, image) ** 2 / error if error else 0.0
    if share < _OTHER_SCALE:
        return []
    return [
        f"MR has no common scale, and {share:.0%} of the squared error is the difference of the "
        "means: MAE, RMSE, bias and PSNR tell of the brightness of both scans; NCC does not."
    ]


def _label_rows(
    labels: LabelMap, image: Volume, reference: Volume, inside: NDArray[np.bool_], unit: str
) -> list[ImageMeasure]:
    values = sorted({*labels.values(), *(value for value in labels.names if value > 0)})
    numbers = np.searchsorted([0, *values], labels.array[inside])
    first = reference.array[inside].astype(np.float64)
    second = image.array[inside].astype(np.float64)
    step = second - first

    def sums(weights: NDArray | None = None) -> NDArray:
        return np.bincount(numbers, weights, len(values) + 1)[1:]

    counts = sums()
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 where a label is absent
        columns = [
            ("MAE", "mean absolute error", sums(np.abs(step)) / counts),
            ("RMSE", "root of the mean squared error", np.sqrt(sums(step * step) / counts)),
            ("Bias", "mean of image - reference", sums(step) / counts),
            ("Mean", "mean of the image", sums(second) / counts),
            ("Reference mean", "mean of the reference", sums(first) / counts),
        ]
    rows = []
    for n, value in enumerate(values):
        label, count = labels.names.get(value) or f"label {value}", int(counts[n])
        rows.append(ImageMeasure("Voxels", count, "", f"{label}: {count} voxels were compared.", label))
        for name, words, means in columns:
            found = means[n] if count else "there are no voxels of it where it was measured."
            rows.append(_row(name, unit, words, found, label))
    return rows


_Value = TypeVar("_Value")


def _attempt(measure: Callable[[], _Value]) -> _Value | str:
    """What the measure gives, or the sentence why it gives nothing."""
    try:
        return measure()
    except InputError as error:
        return str(error)


def _row(name: str, unit: str, words: str, value: float | str, label: str = "") -> ImageMeasure:
    """A row of a value, or of the sentence why there is none."""
    words = f"{label}: {words}" if label else f"The {words}"
    if isinstance(value, str):
        return ImageMeasure(name, None, unit, f"{words} cannot be given: {value}", label)
    if math.isinf(value):
        return ImageMeasure(name, None, unit, f"{words} has no limit: both images are equal.", label)
    if math.isnan(value):
        return ImageMeasure(name, None, unit, f"{words} is not defined: an image is constant.", label)
    number = f"{value:.4g}{' ' if unit else ''}{unit}"
    return ImageMeasure(name, float(value), unit, f"{words} is {number}.", label)
