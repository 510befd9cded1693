"""Error and similarity measures of an image against a reference, in the whole region and per label.

    comparison = compare(synthetic_ct, real_ct, labels=tissues)
    for row in comparison.rows:
        print(row.sentence)

Definitions follow SynthRAD 2025: errors inside the mask; for PSNR and the structural similarities a CT is clipped to
-1024..3000 HU, and outside of the mask both images are -1024 HU.
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
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.modality import guess_modality
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, check_finite
from MedGenLib.progress import ProgressCallback, Stage, announce

if TYPE_CHECKING:
    from MedGenLib.metrics.image import MultiScale

_COVERED = 0.999
"""Coverage of the region by the reference below which the note states it."""
_NO_MR_BELOW = -200.0
_OTHER_SCALE = 0.25
"""Share of the squared error due to the bias above which an MR image gets a remark."""
_RESAMPLE = "have it resampled (--resample), or bring them onto one grid first"


@dataclass(frozen=True)
class ImageMeasure:
    """One measure.

    Attributes
    ----------
    value: in `unit`; None where the measure is not defined, and the sentence says why.
    label: name of the structure measured; empty for the whole region.
    """

    name: str
    value: float | None
    unit: str
    sentence: str
    label: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """All measures, and the images and region they come from.

    Attributes
    ----------
    rows: measures of the whole region first, then of each label.
    notes: what was compared, and what was changed or assumed.
    difference: image - reference on the image's grid, float32, 0 outside the region.
    reference: the reference on that grid.
    region: boolean (i, j, k), the voxels compared.
    """

    rows: tuple[ImageMeasure, ...]
    notes: tuple[str, ...]
    difference: Volume
    reference: Volume
    region: NDArray[np.bool_]

    @property
    def note(self) -> str:
        """All notes."""
        return " ".join(self.notes)

    def value(self, name: str, label: str = "") -> float | None:
        """The value of the row of that name."""
        return next(row.value for row in self.rows if (row.name, row.label) == (name, label))

    def sample(self, most: int) -> NDArray[np.int64]:
        """Flat indices of the region's voxels, at most `most`; the same selection at each call."""
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
    image: the image to evaluate; everything is measured on its grid.
    reference: the reference image, of the same modality. If neither states a modality, it is guessed from the values,
        and the note says so.
    mask: voxels above 0 are compared; None takes the body in the reference.
    labels: structures to measure separately, within the region.
    resample: resample what lies on another grid to that of `image` (the reference linearly, masks by nearest neighbor)
        and say so in the note, instead of raising an error.

    Raises
    ------
    InputError: grids that differ, no overlap, an empty mask or label volume, a voxel that is not finite, or a CT
        against an MR image.
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
    announce(notes, progress)
    if kind and not (image.modality and reference.modality):
        notes.append("Taken as CT in HU." if kind == "CT" else "Taken as MR in arbitrary units.")
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
        tuple(rows), tuple(notes), Volume(difference, image.affine, image.modality, _unit(kind)), target, inside
    )


def require_same_grid(
    first: tuple[str, Volume | LabelMap],
    second: tuple[str, Volume | LabelMap],
    advice: str = "bring them onto one grid first",
) -> None:
    """Raise InputError that names both grids unless they are equal; each argument is (name, image)."""
    (one, a), (other, b) = first, second
    if not a.geometry.is_close(b.geometry):
        raise InputError(
            f"The {one} has {_grid(a.geometry, b.geometry)} and the {other} {_grid(b.geometry, a.geometry)}"
            f"{a.geometry.apart(b.geometry)}; {advice}."
        )


def _grid(geometry: Geometry, other: Geometry) -> str:
    """Describe a grid with the details in which it differs from another one."""
    if geometry.shape != other.shape or not np.allclose(geometry.spacing, other.spacing, atol=1e-3):
        return str(geometry)
    origin = ", ".join(f"{p:.2f}" for p in geometry.origin)
    return f"{geometry} ({geometry.orientation}, the first at {origin} mm)"


def _kind(image: Volume, reference: Volume, notes: list[str]) -> str:
    """Modality of both images, "CT" or another; raises InputError for a CT against an MR image."""
    known = [volume.modality or _guess(volume) for volume in (image, reference)]
    of_image, of_reference = (a or b or "" for a, b in (known, known[::-1]))
    if (of_image == "CT") != (of_reference == "CT"):
        raise InputError(
            f"The image is {of_image} and the reference {of_reference}: HU and the arbitrary units "
            "of MR cannot be subtracted; choose a reference of the same modality."
        )
    if of_image == "CT" and not (image.modality and reference.modality):
        notes += _doubts("image", image) + _doubts("reference", reference)
    if not of_reference:
        notes.append(
            "The values do not show whether the images are CT in HU or MR; the figures are in their own unit (command "
            "line: --modality states it)."
        )
    if of_image != of_reference and "MR" not in (of_image, of_reference):
        notes.append(f"The image is {of_image} and the reference {of_reference}: errors between them mean little.")
    return of_reference


def _doubts(name: str, volume: Volume) -> list[str]:
    """A sentence on a file that does not state CT and has no values like those of air."""
    if volume.modality or volume.array.min() < _NO_MR_BELOW:
        return []
    return [
        f"The {name} has no value below {_NO_MR_BELOW:g} HU: if it shows air or lung, its values "
        "are not HU but shifted or scaled, and the errors mean nothing."
    ]


def _guess(volume: Volume) -> str | None:
    guess = guess_modality(volume)
    # An unusual CT is not taken for MR, which has nothing far below 0.
    return None if guess == "MR" and volume.array.min() < _NO_MR_BELOW else guess


def _unit(kind: str) -> str:
    return "HU" if kind == "CT" else "a.u."


def _on_grid(
    reference: Volume, image: Volume, kind: str, resample: bool, notes: list[str]
) -> tuple[Volume, NDArray[np.bool_]]:
    """The reference resampled to the image's grid, and a boolean array of the voxels that it covers."""
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
    labels = extended(labels, image.geometry)
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
            notes.append(f"The {name} is constant there ({values[0]:.4g}): it has no structure.")
    low, high = _data_range(first, kind, notes)
    if kind != "CT":
        notes += _on_scale(first, second)

    def clipped(values: NDArray) -> NDArray:
        # The range of an MR image is that of its reference, which the image may leave.
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
    for name, unit_of, description, measure in measures:
        rows.append(_row(name, unit_of, description, _attempt(measure)))
        stage.advance()
    return [*rows[:4], *_similarity_rows(scales, notes), rows[4]]


def _similarity_rows(scales: MultiScale | str, notes: list[str]) -> list[ImageMeasure]:
    """SSIM and MS-SSIM, or rows that say why they are not defined."""
    description = "structural similarity (1 is equal)"
    if isinstance(scales, str):
        return [_row(name, "", description, scales) for name in ("SSIM", "MS-SSIM")]
    weights = ", ".join(f"{weight:.3g}" for weight in scales.weights)
    used = f"{scales.levels} scale{'s' if scales.levels > 1 else ''}, weights {weights}"
    notes.append(f"MS-SSIM uses {used}.")
    return [
        _row("SSIM", "", description, scales.ssim),
        _row("MS-SSIM", "", f"structural similarity over scales ({used})", scales.value),
    ]


def _data_range(values: NDArray, kind: str, notes: list[str]) -> tuple[float, float]:
    """Lowest and highest value for PSNR and SSIM; voxels outside the region get the lowest."""
    from MedGenLib.metrics.image import SYNTHRAD_RANGE

    if kind == "CT":
        return SYNTHRAD_RANGE
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    notes.append(f"PSNR and SSIM refer to the reference's range of {high - low:.4g}.")
    return low, max(high, low + 1e-6)


def _on_scale(reference: NDArray, image: NDArray) -> list[str]:
    """A remark where a large part of the error of an MR image is an offset of its arbitrary scale."""
    from MedGenLib.metrics import image as metrics

    error = metrics.rmse(reference, image) ** 2
    share = metrics.bias(reference, image) ** 2 / error if error else 0.0
    if share < _OTHER_SCALE:
        return []
    return [
        f"MR has no common scale, and {share:.0%} of the squared error is the difference of the "
        "means: MAE, RMSE, bias and PSNR mainly reflect the brightness of both scans; NCC does not."
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
        for name, description, means in columns:
            found = means[n] if count else "the label has no voxels in the region."
            rows.append(_row(name, unit, description, found, label))
    return rows


_Value = TypeVar("_Value")


def _attempt(measure: Callable[[], _Value]) -> _Value | str:
    """The measure's value, or a sentence that says why it is not defined."""
    try:
        return measure()
    except InputError as error:
        return str(error)


def _row(name: str, unit: str, description: str, value: float | str, label: str = "") -> ImageMeasure:
    """A row with a value, or with a sentence that says why there is none."""
    description = f"{label}: {description}" if label else f"The {description}"
    if isinstance(value, str):
        return ImageMeasure(name, None, unit, f"{description} cannot be given: {value}", label)
    if math.isinf(value):
        return ImageMeasure(name, None, unit, f"{description} has no limit: both images are equal.", label)
    if math.isnan(value):
        return ImageMeasure(name, None, unit, f"{description} is not defined: an image is constant.", label)
    number = f"{value:.4g}{' ' if unit else ''}{unit}"
    return ImageMeasure(name, float(value), unit, f"{description} is {number}.", label)
