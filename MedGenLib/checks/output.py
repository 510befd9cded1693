"""Checks of an output against its mask or source and against the statistics of the model.

The limits come from the package's `statistics` (`MedGenLib.packages.sections.Statistics`); a check whose limits are
not given there is left out. A sentence says what a reader of the image can do; the measured index is in the figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from MedGenLib.checks.anatomy import check_head
from MedGenLib.errors import InputError, MedGenError
from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.labels.tissues import resegment
from MedGenLib.metrics.image import dice, grid_index, seam_index
from MedGenLib.segmentation.segmenters import segmenter

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.packages.sections import Range, Resegment, SegmenterCheck
    from MedGenLib.pipelines.organ_levels import PersonLevels
    from MedGenLib.segmentation.package import PackageSegmenter

SEAM_LIMIT = 1.3
"""Within tissues, real images stay below 1.23 at any plane; windows without overlap reach 1.7."""
STRIPE_LIMIT = 1.08
"""Of the grid index within tissues; Testing/benchmarks/checks.py measures how often real images exceed it."""
STRIPE_PERIODS = (2, 4)
"""Of strided layers."""
BODY_LIMIT = 0.8
"""Dice of the body in source and translation; a shifted or broken translation falls below."""
ORGAN_LIMIT = 8.0
"""HU by which the middle of an organ may differ from what it was given."""
_AGAIN = "make the image again with another seed"
_BESIDE_SOURCE = "compare the image with its source before you rely on it"
_COARSE_MM = 2.0
_MIDDLE = 128
_KNOWN = 0.9
"""Share of a mask whose labels a segmenter has to know; where little is given, an image may lack what it needs."""
_FEWEST_VOXELS = 200  # below that, a mean or a Dice coefficient tells little
_FEWEST_STEPS = 2000  # and a ratio of mean steps scatters by more than the limits allow


def check_generated(
    volume: Volume,
    mask: LabelMap,
    manifest: Manifest,
    seams: Iterable[tuple[int, int]] = (),
    own_grid: bool | None = None,
    person: PersonLevels | None = None,
) -> OutputCheck:
    """Check a volume that was generated from a mask.

    Parameters
    ----------
    volume: (i, j, k), in the unit of the manifest's output.
    mask: the model's labels on the same grid.
    seams: borders between sampling or decoding windows as (axis, plane); the border lies between
        the voxels plane - 1 and plane.
    own_grid: the model worked on this grid; None decides by the spacing. Seams and stripes are
        measured only there: interpolation from another grid makes stripes of its own (up to 1.2 in
        real images) and blurs seams.
    person: HU that organs were given; tissues are judged without them.

    Figures: "range", "mean" and "dice" per tissue, "segmented" (Dice by a segmenter where thresholds gave "dice"),
    "organs", "background", "seam" and "stripe" indices.
    """
    check = OutputCheck()
    if not _check_values(check, volume, manifest):
        return check
    image, labels = volume.array, mask.array
    if person is not None:
        _check_organs(check, image, person)
        image, labels = person.neutral(image), person.levels.tissues(labels)
    if manifest.input.kind == "labels" or own_grid:  # on another grid, a whole image has another mean
        _check_means(check, image, labels, manifest, f"do not measure it, or {_AGAIN}")
    if spec := manifest.statistics.resegment:
        _check_fidelity(check, image, labels, manifest, spec)
    if spec := manifest.statistics.segmenter:
        _check_segmented(check, volume, mask, manifest, spec)
    if limits := manifest.statistics.background:
        _check_background(check, image, labels, limits, manifest)
    if _on_own_grid(volume, manifest) if own_grid is None else own_grid:
        _check_seams(check, image, labels, seams)
        _check_stripes(check, image, labels, STRIPE_LIMIT, f"zoom in to judge it, or {_AGAIN}")
    return check


def check_translated(volume: Volume, source: Volume, manifest: Manifest) -> OutputCheck:
    """Check an image that was translated from another modality, on the same grid.

    Figures: "range", "mean" per tissue, "body_dice" of source and output, "stripe" index, "anatomy" of a head CT.
    """
    check = OutputCheck()
    if not _check_values(check, volume, manifest):
        return check
    coarse, coarse_source = _coarse(volume), _coarse(source)
    outline, made = _body(coarse_source), _body(coarse)
    check.figures["body_dice"] = overlap = dice(outline, made)
    if manifest.settings.outline and not overlap >= BODY_LIMIT:  # NaN fails, too
        check.fail(
            "body",
            "The outline of the head or body differs from the source's; compare both side by side, and check that the "
            "source has the right modality and shows the anatomy that the model was made for.",
        )
        return check
    # Where only one of them shows the body, the other shows air, which would count as lung.
    body = outline & made
    if manifest.statistics.resegment:
        labels = _tissue_labels(coarse.array, coarse_source.array, body, manifest)
        _check_means(check, coarse.array, labels, manifest, _BESIDE_SOURCE)
    if _on_own_grid(volume, manifest):
        _check_translated_stripes(check, volume, source, body, manifest)
    if manifest.settings.name == "head-slices" and manifest.output.modality == "CT":
        check_head(check, volume)
    return check


def check_series(frames: Sequence[Volume], least_jacobian: float) -> OutputCheck:
    """Check a series over time; figures: "range" of its values and the smallest Jacobian of its motion."""
    check = OutputCheck()
    ends = [float(end) for frame in frames for end in (frame.array.min(), frame.array.max())]
    check.figures |= {"range": [min(ends), max(ends)], "least_jacobian": least_jacobian}
    if not np.isfinite(ends).all():
        check.fail("not-finite", "Voxels of the series are not finite numbers; do not use it.")
    if not least_jacobian > 0:
        check.fail(
            "folding",
            f"The motion folds tissue at some places (smallest Jacobian {least_jacobian:.2g}); measure nothing there.",
        )
    return check


def _check_values(check: OutputCheck, volume: Volume, manifest: Manifest) -> bool:
    """Whether all values are finite, as the other checks need; also checks their range."""
    low, high = manifest.output.range
    unit = manifest.output.unit
    if bad := int(np.count_nonzero(~np.isfinite(volume.array))):
        check.fail("not-finite", f"{bad} voxels of the output are not finite numbers; do not use the image.")
        return False
    least, most = float(volume.array.min()), float(volume.array.max())
    check.figures["range"] = [least, most]
    margin = _margin(manifest)
    if least < low - margin or most > high + margin:
        check.fail(
            "range",
            f"The output reaches from {_apart(least, low, high)} to {_apart(most, low, high)} {unit}, beyond the "
            f"model's range of {low:g} to {high:g}; do not measure its darkest and brightest places.",
        )
    return True


def _check_means(check: OutputCheck, image: NDArray, labels: NDArray, manifest: Manifest, advice: str) -> None:
    means = check.figures["mean"] = {}
    for value, tissue in manifest.statistics.tissues.items():
        inside = labels == value
        if np.count_nonzero(inside) < _FEWEST_VOXELS:
            continue
        mean = means[tissue.name] = float(image[inside].mean())
        if not tissue.low <= mean <= tissue.high:
            check.fail(
                "tissue-mean",
                f"The {tissue.name} is {'darker' if mean < tissue.low else 'brighter'} than in real images (mean "
                f"{_apart(mean, tissue.low, tissue.high)} {manifest.output.unit}, there {tissue.low:g} to "
                f"{tissue.high:g}); {advice}.",
            )


def _check_organs(check: OutputCheck, image: NDArray, person: PersonLevels) -> None:
    """Whether the interior of each organ has its HU; the figures are those of the image."""
    found = check.figures["organs"] = {}
    for name, (level, wanted) in person.measured(image).items():
        found[name] = level
        if abs(level - wanted) > ORGAN_LIMIT:
            check.fail(
                "organ-level", f"The {name} has {level:g} HU instead of {wanted:g}; do not measure it, or {_AGAIN}."
            )


def _check_fidelity(check: OutputCheck, image: NDArray, labels: NDArray, manifest: Manifest, spec: Resegment) -> None:
    found = resegment(image, spec)
    # Background and other labels belong to none of these tissues.
    found[~np.isin(labels, spec.labels)] = 0
    names = {value: tissue.name for value, tissue in manifest.statistics.tissues.items()}
    for value in spec.labels:
        _check_dice(check, found == value, labels == value, value, names, spec)


def _check_segmented(
    check: OutputCheck, volume: Volume, mask: LabelMap, manifest: Manifest, spec: SegmenterCheck
) -> None:
    """Whether a segmenter finds the mask in the image; a warning where it cannot run.

    Where thresholds have judged the mask, a part of an organ is left to them.
    """
    made, wanted = _made(volume, mask, manifest.output.background)
    try:
        # The network is small enough for the CPU, where the result does not depend on the machine.
        find = segmenter(spec.package, "cpu")
        names = {value: label.name for value, label in manifest.input.labels.items()}
        known = {value: find.labels.value_of(name) for value, name in names.items()}
        if manifest.statistics.resegment and not _whole(find, made, wanted, known):
            return
        found = find(made).array
    except MedGenError as error:
        sentence = f"It was not checked whether the output follows the mask: {error}"
        check.findings.append(Finding("warning", "mask-fidelity", sentence))
        return
    figure = "segmented" if manifest.statistics.resegment else "dice"
    for value, theirs in known.items():
        if theirs:
            _check_dice(check, found == theirs, wanted.array == value, value, names, spec, figure)


def _whole(find: PackageSegmenter, made: Volume, wanted: LabelMap, known: Mapping[int, int | None]) -> bool:
    """Whether a segmenter can judge the mask: it is no part of an organ, and few of its voxels are unspecified."""
    numbers = [value for value, theirs in known.items() if theirs]
    given = wanted.array > 0
    return find.covers(made) and np.isin(wanted.array[given], numbers).sum() >= _KNOWN * given.sum()


def _made(volume: Volume, mask: LabelMap, background: float) -> tuple[Volume, LabelMap]:
    """Image and mask without margins of background."""
    places = ndimage.find_objects((volume.array != background).astype(np.uint8))
    if not places:
        return volume, mask
    start, stop = zip(*((part.start, part.stop) for part in places[0]), strict=True)
    return crop(volume, start, stop), crop(mask, start, stop)


def _check_dice(
    check: OutputCheck,
    found: NDArray,
    wanted: NDArray,
    value: int,
    names: Mapping[int, str],
    spec: Resegment | SegmenterCheck,
    figure: str = "dice",
) -> None:
    if np.count_nonzero(wanted) < _FEWEST_VOXELS:
        return
    name = names.get(value, str(value))
    overlap = dice(found, wanted)
    check.figures.setdefault(figure, {})[name] = overlap
    if overlap < spec.minimum_dice.get(value, 0):
        check.fail(
            "mask-fidelity",
            f"The {name} of the output does not follow the mask; compare the outline with the image, or {_AGAIN}.",
        )


def _check_background(check: OutputCheck, image: NDArray, labels: NDArray, limits: Range, manifest: Manifest) -> None:
    outside = labels == 0
    if not outside.any():
        return
    check.figures["background"] = mean = float(image[outside].mean(dtype=np.float64))
    margin = _margin(manifest)
    if not limits.low - margin <= mean <= limits.high + margin:
        check.fail(
            "background",
            f"The background outside of the mask has a mean of {_apart(mean, limits.low, limits.high)} "
            f"{manifest.output.unit} instead of {limits.low:g} to {limits.high:g}; ignore what is there, or {_AGAIN}.",
        )


def _check_seams(check: OutputCheck, image: NDArray, labels: NDArray, seams: Iterable[tuple[int, int]]) -> None:
    indices = [
        seam_index(image, axis, plane, labels)
        for axis, plane in seams
        if np.count_nonzero(labels.take(plane, axis)) >= _FEWEST_STEPS
    ]
    if not np.isfinite(indices).any():
        return
    check.figures["seam"] = seam = float(np.nanmax(indices))
    if seam > SEAM_LIMIT:
        check.fail(
            "seam",
            f"A seam may be visible where two parts of the image meet; scroll through it to judge it, or {_AGAIN}.",
        )


def _check_translated_stripes(
    check: OutputCheck, volume: Volume, source: Volume, body: NDArray, manifest: Manifest
) -> None:
    """In the middle of the volume, at full resolution; `body` is that of the coarse volume."""
    middle = [np.arange(max(n - _MIDDLE, 0) // 2, (n + min(n, _MIDDLE)) // 2) for n in volume.shape]
    image, original = volume.array[np.ix_(*middle)], source.array[np.ix_(*middle)]
    inside = body[np.ix_(*(n // step for n, step in zip(middle, _steps(volume), strict=True)))]
    labels = _tissue_labels(image, original, inside, manifest)
    # A translation keeps the uneven slices of its source.
    own = grid_index(original, _inner(labels), STRIPE_PERIODS)
    _check_stripes(check, image, labels, float(np.fmax(1, own)) * STRIPE_LIMIT, f"zoom in, and {_BESIDE_SOURCE}")


def _tissue_labels(image: NDArray, source: NDArray, body: NDArray, manifest: Manifest) -> NDArray[np.int64]:
    """Tissues of a translation inside the body; 1 all over it if the model has no thresholds."""
    spec = manifest.statistics.resegment
    if not spec:
        return body.astype(int)
    return resegment(source if spec.image == "source" else image, spec) * body


def _check_stripes(check: OutputCheck, image: NDArray, labels: NDArray, limit: float, advice: str) -> None:
    if np.count_nonzero(labels := _inner(labels)) < _FEWEST_STEPS:
        return
    check.figures["stripe"] = stripe = grid_index(image, labels, STRIPE_PERIODS)
    if stripe > limit:
        check.fail("stripe", f"A regular grid may be visible; {advice}.")


def _margin(manifest: Manifest) -> float:
    """Difference from a limit that rounding may cause."""
    low, high = manifest.output.range
    return 1e-3 * (high - low)


def _apart(value: float, *limits: float) -> str:
    """The value with so many decimals that it differs from the printed limits."""
    printed = {f"{limit:g}" for limit in limits} | {f"{limit:.3g}" for limit in limits}
    digits = 0
    while (text := f"{value:.{digits}f}") and f"{float(text):g}" in printed and digits < 6:
        digits += 1
    return text


def _inner(labels: NDArray) -> NDArray[np.integer]:
    """Labels of the voxels whose neighbors all have the same label, 0 for the others.

    Blurred borders of tissues, which may be flat and evenly spaced, are no stripes.
    """
    size = [3 if length > 1 else 1 for length in labels.shape]
    same = ndimage.minimum_filter(labels, size) == ndimage.maximum_filter(labels, size)
    return np.where(same, labels, 0)


def _on_own_grid(volume: Volume, manifest: Manifest) -> bool:
    """Whether the volume has the spacing at which the model works, so was not interpolated."""
    used = [mm for mm, n in zip(volume.spacing, volume.shape, strict=True) if n > 1]
    return bool(np.allclose(used, manifest.spacing.native, rtol=1e-3, atol=0))


def _steps(volume: Volume) -> list[int]:
    return [max(int(_COARSE_MM / mm), 1) for mm in volume.spacing]


def _coarse(volume: Volume) -> Volume:
    """Every n-th voxel, which makes outlines and means of a large volume quick."""
    steps = _steps(volume)
    array = volume.array[tuple(slice(None, None, step) for step in steps)]
    return replace(volume, array=array, affine=volume.affine @ np.diag([*steps, 1]))


def _body(volume: Volume) -> NDArray[np.bool_]:
    """The outline of the body; empty where the image shows none."""
    try:
        modality = modality_of(volume)
        return body_envelope_from_image(volume.with_array(volume.array, modality)).array > 0
    except InputError:
        return np.zeros(volume.shape, bool)
