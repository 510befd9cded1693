"""Measures of one image, or of a candidate image against a reference.

All functions take numpy arrays in (i, j, k) order, or single slices, and return a float in the images' unit (HU or
a.u.) unless the docstring says otherwise. Masks are boolean (or 0/1) arrays of the image's shape; without one, every
voxel counts. `InputError` is raised if shapes differ or the mask is empty. A measure that is not defined, such as the
Dice coefficient of two empty masks, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from MedGenLib.errors import InputError

_SLAB = 32
_FEWEST_PLANES, _FEWEST_SHARE = 4, 0.25  # of a phase; and of the voxels of a usual plane
CT_RANGE = 3024.0
"""Data range in HU used in benchmarks of head slices: -1024 to 2000."""
SYNTHRAD_RANGE = (-1024.0, 3000.0)
"""HU range to which SynthRAD 2025 clips a CT for PSNR and MS-SSIM; voxels outside the mask get the minimum."""
MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM from the finest scale to the coarsest: Wang et al. 2003, section 3.2."""


def mae(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean absolute error inside the mask."""
    return float(np.abs(_difference(reference, candidate, mask)).mean())


def rmse(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Root of the mean squared error inside the mask."""
    return float(np.sqrt(np.square(_difference(reference, candidate, mask)).mean()))


def bias(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Mean of candidate - reference inside the mask: above 0 where the candidate is too bright."""
    return -float(_difference(reference, candidate, mask).mean())


def psnr(
    reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None = None, data_range: float = CT_RANGE
) -> float:
    """Peak signal-to-noise ratio in dB inside the mask; infinite for equal images."""
    error = rmse(reference, candidate, mask)
    return float("inf") if error == 0 else float(20 * np.log10(data_range / error))


def pearson(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Pearson correlation (normalized cross-correlation, NCC) inside the mask, -1 to 1; NaN if an image is constant."""
    first, second = _select(mask, reference, candidate)
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt(np.square(first).sum() * np.square(second).sum())
    return float((first * second).sum() / scale) if scale > 0 else float("nan")


def dice(first: ArrayLike, second: ArrayLike) -> float:
    """Dice coefficient of two masks, 0 to 1; NaN if both are empty."""
    first, second = _same_shape(first, second)
    first, second = first.astype(bool), second.astype(bool)
    total = first.sum() + second.sum()
    return float(2 * (first & second).sum() / total) if total else float("nan")


@dataclass(frozen=True)
class MultiScale:
    """MS-SSIM with its scales.

    Attributes
    ----------
    value: MS-SSIM, 0 to 1.
    ssim: SSIM at the finest scale alone, -1 to 1.
    weights: exponent of each scale that was used, the finest first; their sum is 1.
    """

    value: float
    ssim: float
    weights: tuple[float, ...]

    @property
    def levels(self) -> int:
        """Number of scales used."""
        return len(self.weights)


def ms_ssim(
    reference: ArrayLike,
    candidate: ArrayLike,
    mask: ArrayLike | None = None,
    data_range: float = SYNTHRAD_RANGE[1] - SYNTHRAD_RANGE[0],
    outside: float = SYNTHRAD_RANGE[0],
    window: int = 7,
) -> MultiScale:
    """Multi-scale structural similarity.

    Both images are set to `outside` beyond the mask and shifted so that this is 0. At each scale the map is averaged
    over the (uniform) windows that lie wholly in the image and have their center in the mask, so that air around the
    body does not count. The next scale has means over 2 voxels along each axis longer than one voxel.

    There are up to five scales, as long as a window fits into the image with its center in the mask. With fewer scales,
    the first weights are used, divided by their sum.

    Source: Wang, Simoncelli and Bovik, Multi-scale structural similarity for image quality assessment, Asilomar 2003,
    equation 7, with the unbiased covariance. Negative means of a scale (opposite structures) are set to 0. Raises
    InputError: shapes differ, the mask is empty, or no window fits.
    """
    x, y = np.asarray(reference), np.asarray(candidate)
    inside = np.ones(x.shape, bool) if mask is None else np.asarray(mask, bool)
    _require_shape(x, y)
    box = _box_around(_mask_like(inside, x), window)
    inside = inside[box]
    x, y = (np.where(inside, image[box] - outside, 0.0) for image in (x, y))
    similarities, contrasts = [], []
    for level in range(len(MS_WEIGHTS)):
        if level:
            x, y, inside = _half(x), _half(y), _half(inside) >= 0.5
        means = _mean_similarity(x, y, inside, data_range, window)
        if means is None:
            break
        similarities.append(means[0])
        contrasts.append(means[1])
    if not similarities:
        raise InputError(
            f"No voxel of the mask has a window of {window} voxels around it, in the part of the "
            f"image to be compared, {'x'.join(map(str, x.shape))} voxels; crop less."
        )
    weights = np.array(MS_WEIGHTS[: len(similarities)])
    weights /= weights.sum()
    factors = np.maximum([*contrasts[:-1], similarities[-1]], 0)
    return MultiScale(float(np.prod(factors**weights)), similarities[0], tuple(float(w) for w in weights))


def _box_around(mask: NDArray[np.bool_], window: int) -> tuple[slice, ...]:
    """A box that contains, at each scale, all windows with their center in the mask.

    It starts at a multiple of the coarsest voxel, so that its scales match those of the whole image.
    """
    coarsest = 2 ** (len(MS_WEIGHTS) - 1)
    margin = (window // 2 + 1) * coarsest
    return tuple(
        slice(max(side.start - margin, 0) // coarsest * coarsest, side.stop + margin)
        for side in ndimage.find_objects(mask.astype(np.uint8))[0]
    )


def _half(image: NDArray) -> NDArray[np.floating]:
    """Means of 2 x 2 x 2 voxels; an odd last voxel is dropped, axes of one voxel are kept."""
    image = image.astype(np.float32) if image.dtype == bool else image
    for axis, length in enumerate(image.shape):
        if length > 1:
            even = image.take(range(0, length - 1, 2), axis)
            image = (even + image.take(range(1, length, 2), axis)) / 2
    return image


def _mean_similarity(
    x: NDArray, y: NDArray, inside: NDArray[np.bool_], data_range: float, window: int
) -> tuple[float, float] | None:
    """Mean SSIM and mean contrast-structure term as in `ms_ssim`; None if no window fits."""
    margins = [window // 2 if length > 1 else 0 for length in x.shape]
    fits = tuple(slice(m, length - m) for m, length in zip(margins, x.shape, strict=True))
    count = np.count_nonzero(inside[fits])
    if not count:
        return None
    totals = np.zeros(2)
    # In slabs: float64 maps of a whole volume would take many times its memory.
    for start in range(fits[0].start, fits[0].stop, _SLAB):
        stop = min(start + _SLAB, fits[0].stop)
        slab = slice(start - margins[0], stop + margins[0])
        luminance, contrast = _ssim_maps(x[slab], y[slab], data_range, window)
        centers = (slice(margins[0], margins[0] + stop - start), *fits[1:])
        chosen = inside[slab][centers]
        luminance, contrast = luminance[centers][chosen], contrast[centers][chosen]
        totals += (luminance * contrast).sum(), contrast.sum()
    return float(totals[0] / count), float(totals[1] / count)


def _ssim_maps(
    x: NDArray, y: NDArray, data_range: float, window: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Luminance term of SSIM, and the product of its contrast and structure terms, in a uniform window.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 13 (2004),
    equation 13, with the unbiased covariance.
    """
    size = [window if length > 1 else 1 for length in x.shape]
    count = int(np.prod(size))
    x, y = x.astype(np.float64), y.astype(np.float64)

    def mean(image: NDArray) -> NDArray:
        return ndimage.uniform_filter(image, size)

    mean_x, mean_y, unbiased = mean(x), mean(y), count / (count - 1)
    squares, product = mean_x**2 + mean_y**2, mean_x * mean_y
    variances = unbiased * (mean(x * x + y * y) - squares)
    covariance = unbiased * (mean(x * y) - product)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * product + c1) / (squares + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def stripe_index(image: ArrayLike, labels: ArrayLike | None = None, periods: Sequence[int] = (2, 4, 8)) -> float:
    """Visibility of a regular grid: about 1 without one, 1.08 and more if visible.

    For every axis, period n and phase: the mean absolute step between the voxels p and p + 1 at
    positions p with that phase (p mod n), divided by the mean of the steps at all other positions.
    The largest ratio is returned. Given a mask, or a label map, steps count where both voxels have
    the same label other than 0: the flat faces of a drawn mask do not count. An axis shorter
    than two periods is skipped for that period; NaN if nothing is left.
    """
    return _largest(_phase_ratios, image, labels, periods, 2)


def grid_index(
    image: ArrayLike, labels: ArrayLike | None = None, periods: Sequence[int] = (2, 4), errors: float = 5.0
) -> float:
    """Visibility of a regular grid beyond the scatter of the image: 1 without one, 1.08 and more if visible.

    As `stripe_index`, with two differences, as real images differ from plane to plane: each step is divided by the mean
    step within one period around it, and a phase counts only if its mean lies more than `errors` standard errors above
    that of the others. NaN if no axis is long enough.
    """

    def ratios(total: NDArray, count: NDArray, period: int) -> Iterator[float]:
        yield _significant_ratio(_local_steps(total, count, period), period, errors)

    return _largest(ratios, image, labels, periods, 2 * _FEWEST_PLANES)


def seam_index(image: ArrayLike, axis: int, plane: int, labels: ArrayLike | None = None, neighbors: int = 2) -> float:
    """Step across a plane relative to its surroundings: about 1 without a seam.

    The mean absolute step from voxel plane - 1 to voxel plane along `axis`, divided by the mean of the `neighbors`
    steps before and after it. Given a mask, or a label map, steps count where both voxels have the same label other
    than 0. NaN if there are none, or if the surroundings are constant.
    """
    image = np.asarray(image)
    if not 1 <= plane < image.shape[axis]:
        raise InputError(
            f"There is no step at plane {plane} of axis {axis} with {image.shape[axis]} voxels; "
            f"give a plane from 1 to {image.shape[axis] - 1}."
        )
    if labels is not None:
        labels = np.asarray(labels)
        _check_shape(labels, image)
    first = max(plane - 1 - neighbors, 0)
    beside = tuple(slice(first, plane + neighbors + 1) if a == axis else slice(None) for a in range(image.ndim))
    image = image[beside]
    labels = _labels_like(None if labels is None else labels[beside], image)
    total, count = _steps(image, labels, axis)
    step = plane - 1 - first
    around = np.arange(len(total)) != step
    return _ratio(total[step], count[step], total[around].sum(), count[around].sum())


def _largest(
    ratios: Callable[[NDArray, NDArray, int], Iterator[float]],
    image: ArrayLike,
    labels: ArrayLike | None,
    periods: Sequence[int],
    fewest: int,
) -> float:
    """The largest ratio over all axes and periods, of which an axis holds at least the fewest; NaN without one."""
    image = np.asarray(image)
    labels, found = _labels_like(labels, image), [np.nan]
    for axis in range(image.ndim):
        total, count = _steps(image, labels, axis)
        for period in periods:
            if image.shape[axis] >= fewest * period:
                found.extend(ratios(total, count, period))
    return float(np.nanmax(found)) if np.isfinite(found).any() else float("nan")


def _steps(image: NDArray, labels: NDArray, axis: int) -> tuple[NDArray, NDArray]:
    """Sum and number of the absolute steps from each plane of an axis to the next."""
    image, labels = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
    others = tuple(range(1, image.ndim))
    total, count = np.zeros(len(image) - 1), np.zeros(len(image) - 1, np.int64)
    # In slabs: the steps of a whole volume would take many times its memory.
    for start in range(0, image.shape[1], _SLAB):
        slab = slice(start, start + _SLAB)
        steps = np.abs(np.diff(image[:, slab].astype(np.float64), axis=0))
        same = (np.diff(labels[:, slab], axis=0) == 0) & (labels[1:, slab] > 0)
        total += (steps * same).sum(others)
        count += same.sum(others)
    return total, count


def _phase_ratios(total: NDArray, count: NDArray, period: int) -> Iterator[float]:
    phase = np.arange(len(total)) % period
    for p in range(period):
        in_phase = phase == p
        yield _ratio(total[in_phase].sum(), count[in_phase].sum(), total[~in_phase].sum(), count[~in_phase].sum())


def _local_steps(total: NDArray, count: NDArray, period: int) -> NDArray[np.float64]:
    """Mean step of each plane relative to those within one period around it; NaN where there are few."""
    weights = np.ones(period + 1)
    weights[[0, -1]] = 0.5
    around = np.convolve(total, weights, "same") / np.maximum(np.convolve(count, weights, "same"), 1e-9)
    known = (around > 0) & (count > 0)
    known &= count >= _FEWEST_SHARE * np.median(count[count > 0] if count.any() else count)
    known[: period // 2] = known[len(known) - period // 2 :] = False  # half of their surroundings is missing
    return np.where(known, total / np.maximum(count, 1) / np.maximum(around, 1e-12), np.nan)


def _significant_ratio(steps: NDArray[np.float64], period: int, errors: float) -> float:
    """Largest ratio of the mean of one phase to that of the others; 1 if none is significant, NaN without steps."""
    phase, found = np.arange(len(steps)) % period, [np.nan]
    for p in range(period):
        here, others = (part[np.isfinite(part)] for part in (steps[phase == p], steps[phase != p]))
        if min(len(here), len(others)) >= _FEWEST_PLANES:
            error = np.hypot(here.std(ddof=1) / np.sqrt(len(here)), others.std(ddof=1) / np.sqrt(len(others)))
            significant = here.mean() - others.mean() > errors * error
            found.append(here.mean() / others.mean() if significant else 1.0)
    return float(np.nanmax(found)) if np.isfinite(found).any() else float("nan")


def _ratio(total: float, count: int, other_total: float, other_count: int) -> float:
    if count == 0 or other_count == 0 or other_total == 0:
        return float("nan")
    return float((total / count) / (other_total / other_count))


def _same_shape(*images: ArrayLike) -> list[NDArray]:
    arrays = [np.asarray(image) for image in images]
    _require_shape(*arrays)
    return [array if array.dtype == bool else array.astype(np.float64) for array in arrays]


def _require_shape(*arrays: NDArray) -> None:
    for array in arrays[1:]:
        if array.shape != arrays[0].shape:
            raise InputError(
                f"Images of shape {arrays[0].shape} and {array.shape} cannot be compared; "
                "bring them onto the same grid."
            )


def _mask_like(mask: ArrayLike, image: NDArray) -> NDArray[np.bool_]:
    mask = np.asarray(mask, bool)
    _check_shape(mask, image)
    if not mask.any():
        raise InputError("The mask is empty; give one with voxels above 0.")
    return mask


def _check_shape(mask: NDArray, image: NDArray) -> None:
    if mask.shape != image.shape:
        raise InputError(
            f"The mask of shape {mask.shape} does not fit the image of shape {image.shape}; "
            "bring them onto the same grid."
        )


def _labels_like(labels: ArrayLike | None, image: NDArray) -> NDArray[np.int32]:
    if labels is None:
        return np.ones(image.shape, np.int32)
    labels = np.asarray(labels).astype(np.int32)  # unsigned differences would wrap
    _check_shape(labels, image)
    return labels


def _select(mask: ArrayLike | None, *images: ArrayLike) -> list[NDArray]:
    arrays = _same_shape(*images)
    if mask is None:
        return [array.ravel() for array in arrays]
    mask = _mask_like(mask, arrays[0])
    return [array[mask] for array in arrays]


def _difference(reference: ArrayLike, candidate: ArrayLike, mask: ArrayLike | None) -> NDArray:
    first, second = _select(mask, reference, candidate)
    return first.astype(np.float64) - second
