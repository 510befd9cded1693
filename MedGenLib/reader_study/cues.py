"""Warnings if a simple image statistic separates real and synthetic images, as readers may learn it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from MedGenLib.reader_study.frames import Frame, SourceImage

Figures = dict[str, float]
"""Name -> value for one image."""
_LENGTHS_DIFFER = 1.1
"""Ratio of the medians of voxel sizes above which a warning is given."""
_EXTENTS_DIFFER = 1.25
_TELLING_AUC = 0.9
_BY_CHANCE = 1e-3
"""Two-sided probability; with six statistics, about one study in 170 gets a false warning."""


def figures_of(array: NDArray, white: int) -> Figures:
    """Brightness, contrast, sharpness and other statistics of (k, j, i) grays from 0 to `white`."""
    gray = array.astype(np.float32)
    steps = [np.abs(np.diff(gray, axis=axis)) for axis in (1, 2)]
    second = [np.abs(np.diff(gray, 2, axis=axis)) for axis in (1, 2)]
    return {
        "brightness": float(gray.mean()),
        "contrast": float(gray.std()),
        "share of black": float((array == 0).mean()),
        "share of white": float((array == white).mean()),
        "sharpness of edges": float(np.mean([np.percentile(s, 95) for s in steps])),
        "fine detail and noise": float(np.mean([np.median(s) for s in second])),
    }


def warnings_on(
    sources: Sequence[SourceImage], frame: Frame, figures: Sequence[Figures], synthetic: Sequence[bool]
) -> list[str]:
    """Sentences on differences that remain in spite of the common frame."""
    return [*_voxels(sources, frame), *_extents(sources, frame), *_looks(figures, np.asarray(synthetic))]


def _voxels(sources: Sequence[SourceImage], frame: Frame) -> list[str]:
    real, made = _medians(sources, lambda source: source.spacing)
    if _ratio(real, made) <= _LENGTHS_DIFFER:
        return []
    shown = " x ".join(f"{s:.3g}" for s in frame.spacing if s is not None)
    return [
        f"The real images have voxels of {_mm(real)} mm and the synthetic ones of {_mm(made)} mm; "
        f"all are shown at {shown} mm, but their sharpness may still distinguish them."
    ]


def _extents(sources: Sequence[SourceImage], frame: Frame) -> list[str]:
    real, made = _medians(sources, lambda source: source.extent)
    if _ratio(real, made) <= _EXTENTS_DIFFER:
        return []
    size = [n * s for n, s in zip(frame.size, frame.spacing, strict=True) if s is not None]
    return [
        f"The real images show {_mm(real)} mm of the patient and the synthetic ones {_mm(made)} "
        f"mm; all are cut to {_mm(size)} mm, but the anatomy shown may still distinguish them."
    ]


def _looks(figures: Sequence[Figures], synthetic: NDArray[np.bool_]) -> list[str]:
    from scipy.stats import mannwhitneyu

    warnings = []
    for name in figures[0]:
        values = np.array([each[name] for each in figures])
        made, real = values[synthetic], values[~synthetic]
        test = mannwhitneyu(made, real)
        share = test.statistic / (len(made) * len(real))
        if max(share, 1 - share) >= _TELLING_AUC and test.pvalue < _BY_CHANCE:
            warnings.append(
                f"The {name} alone distinguishes {100 * max(share, 1 - share):.0f} % of the pairs of a "
                f"real and a synthetic image ({'higher' if share > 0.5 else 'lower'} in the "
                "synthetic ones); readers may learn that instead of judging the anatomy."
            )
    return warnings


def _medians(
    sources: Sequence[SourceImage], lengths: Callable[[SourceImage], tuple[float, ...]]
) -> tuple[NDArray, NDArray]:
    """Medians of the real and of the synthetic images, along the axes of RAS."""
    return tuple(np.median([lengths(s) for s in sources if s.synthetic == kind], axis=0) for kind in (False, True))


def _ratio(a: NDArray, b: NDArray) -> float:
    return float(np.max(np.maximum(a / b, b / a)))


def _mm(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:.3g}" for length in lengths)
