"""Fidelity, coverage and diversity of a cohort of synthetic images relative to real images.

    result = compare_cohorts(real, synthetic)        # each a list of `features.Features`
    for measure in result.measures:
        print(measure.sentence)

A volume is one observation; its slices are not independent. Confidence intervals therefore resample whole volumes.

Sources: Heusel et al., GANs trained by a two time-scale update rule, NeurIPS 2017 (Frechet distance); Chong and
Forsyth, Effectively unbiased FID and Inception Score, CVPR 2020 (extrapolation to infinitely many samples in 1/N);
Binkowski et al., Demystifying MMD GANs, ICLR 2018 (MMD with a cubic kernel); Kynkaanniemi et al., Improved precision
and recall metric, NeurIPS 2019; Naeem et al., Reliable fidelity and diversity metrics, ICML 2020 (density, coverage);
Shao and Wu, A general theory for jackknife variance estimation, Annals of Statistics 1989.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.metrics.features import Features
from MedGenLib.metrics.slices import PLANES
from MedGenLib.progress import ProgressCallback, Stage

SPLITS = 20
"""Random divisions of the cohorts into halves."""
FEWEST = 8
"""Volumes a cohort needs for statistics of its halves."""
NEIGHBORS = 5
_NORMAL_95 = 1.96

Cohort = Sequence[Features]


@dataclass(frozen=True)
class Measure:
    """One measure with its 95 % interval.

    Attributes
    ----------
    value, low, high: None where the measure is not defined; the sentence says why.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    sentence: str


@dataclass(frozen=True)
class CohortComparison:
    """All measures, their basis, and the points of the extrapolation.

    Attributes
    ----------
    curve: (volumes per cohort, mean Frechet distance) of the halves and of the whole.
    """

    measures: tuple[Measure, ...]
    curve: tuple[tuple[float, float], ...]
    note: str

    def value(self, name: str) -> float | None:
        return next(m.value for m in self.measures if m.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "measures": [asdict(m) for m in self.measures],
            "curve": [list(point) for point in self.curve],
            "note": self.note,
        }


def compare_cohorts(
    real: Cohort,
    synthetic: Cohort,
    groups: Sequence[Sequence[int]] = (),
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> CohortComparison:
    """All measures of two cohorts described with the same extractor and standard.

    Parameters
    ----------
    groups: indices of synthetic volumes made from the same input with different seeds.
    seed: seed of the random halves.

    Raises
    ------
    InputError: fewer than two volumes in a cohort, or no plane in which all volumes have content.
    """
    for cohort, name in ((real, "real"), (synthetic, "synthetic")):
        if len(cohort) < 2:
            raise InputError(
                f"The {name} cohort has {len(cohort)} volume{'' if len(cohort) == 1 else 's'}, but "
                "a distribution needs at least 2; add more."
            )
    planes = _common_planes([*real, *synthetic])
    pair = _Pair(_planes_of(real, planes), _planes_of(synthetic, planes))
    first, second = _vectors(real, planes), _vectors(synthetic, planes)
    generator = np.random.default_rng(seed)
    stage = Stage("comparing cohorts", SPLITS + 3, progress)
    frechet, curve = _frechet_measures(pair, generator, stage)
    measures = [*frechet, _mmd_measure(pair, generator)]
    stage.advance()
    measures += [*_manifold_measures(first, second), *_diversity(first, second, groups, generator)]
    stage.advance()
    measures.append(_floor(pair.real, generator))
    stage.advance()
    return CohortComparison(tuple(measures), curve, _note(real, synthetic, planes))


# Frechet distance


def fid(real: Sequence[NDArray], synthetic: Sequence[NDArray]) -> float:
    """2.5-D Frechet distance: the mean over planes of the distance between slices, each (slices, f)."""
    values = [frechet_distance(*_rotated(*pair)) for pair in zip(real, synthetic, strict=True)]
    return float(np.mean(values))


def extrapolate(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Value at infinite size on the line in 1 / size through the last two points.

    The bias of the Frechet distance is c / N to first order (Chong and Forsyth, section 3). With the sizes N / 2 and N
    this is 2 FID(N) - FID(N / 2).
    """
    (x1, x2), (y1, y2) = 1 / np.array(sizes[-2:], float), values[-2:]
    return float(y2 - (y1 - y2) / (x1 - x2) * x2)


def _rotated(first: NDArray, second: NDArray) -> tuple[NDArray, NDArray]:
    """With more features than slices: both sets in the subspace that they span, without loss."""
    both = np.concatenate([first, second]).astype(np.float64)
    if both.shape[1] > len(both):
        both = np.linalg.qr(both.T, mode="r").T
    return both[: len(first)], both[len(first) :]


@dataclass(frozen=True)
class _Pair:
    """Two cohorts: for each volume a list of planes (slices, f)."""

    real: list[list[NDArray]]
    synthetic: list[list[NDArray]]

    def fid(self) -> float:
        return fid(_stacked(self.real), _stacked(self.synthetic))

    def size(self) -> float:
        """Harmonic mean of the numbers of volumes: the bias is a sum of 1 / N over both cohorts."""
        return 2 / (1 / len(self.real) + 1 / len(self.synthetic))

    def halves(self, generator: np.random.Generator) -> tuple[_Pair, _Pair]:
        a, b = _halves(self.real, generator), _halves(self.synthetic, generator)
        return _Pair(a[0], b[0]), _Pair(a[1], b[1])

    def smallest(self) -> int:
        return min(len(self.real), len(self.synthetic))


def _halves(items: list, generator: np.random.Generator) -> tuple[list, list]:
    order = generator.permutation(len(items))
    middle = len(items) // 2
    return [items[i] for i in order[:middle]], [items[i] for i in order[middle:]]


def _stacked(volumes: list[list[NDArray]]) -> list[NDArray]:
    return [np.concatenate(planes) for planes in zip(*volumes, strict=True)]


def frechet_distance(first: NDArray, second: NDArray) -> float:
    """Frechet distance between Gaussians fitted to two sets of features, each (sample, feature).

    |m1 - m2|^2 + trace(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(first, rowvar=False)))
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    middle = root @ np.atleast_2d(np.cov(second, rowvar=False)) @ root
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(middle), 0)).sum()
    shift = np.square(first.mean(0) - second.mean(0)).sum()
    variance = first.var(0, ddof=1).sum() + second.var(0, ddof=1).sum() - 2 * cross
    return float(max(shift + variance, 0.0))


def _frechet_measures(
    pair: _Pair, generator: np.random.Generator, stage: Stage
) -> tuple[list[Measure], tuple[tuple[float, float], ...]]:
    """FID as measured and extrapolated to infinitely many volumes.

    The spread over random halves is the standard error of the whole (delete-half jackknife).
    """
    whole = pair.fid()
    if pair.smallest() < FEWEST:
        for _ in range(SPLITS):
            stage.advance()
        why = f"with fewer than {FEWEST} volumes in a cohort"
        biased = f"The 2.5-D Frechet distance is {{}}; {why} it is biased upwards and has no interval."
        unknown = f"The Frechet distance cannot be extrapolated to infinitely many volumes {why}."
        measures = [_measure("FID", whole, biased), _measure("FID infinity", None, unknown)]
        return measures, ((pair.size(), whole),)
    halves = []
    for _ in range(SPLITS):
        halves += [half.fid() for half in pair.halves(generator)]
        stage.advance()
    sizes, values = (pair.size() / 2, pair.size()), (float(np.mean(halves)), whole)
    # To first order both vary alike between cohorts: the bias hardly varies.
    limit = extrapolate(sizes, values)
    sentence = "For infinitely many volumes the Frechet distance would be {}: 0 means that the distributions are equal."
    return [
        _measure("FID", whole, "The 2.5-D Frechet distance is {}; few volumes bias it upwards.", halves),
        _measure("FID infinity", limit, sentence, halves),
    ], tuple(zip(sizes, values, strict=True))


def _floor(real: list[list[NDArray]], generator: np.random.Generator) -> Measure:
    """Frechet distance between two halves of the real cohort."""
    if len(real) < 4:
        sentence = "With fewer than 4 real volumes they cannot be compared with each other."
        return _measure("FID of real halves", None, sentence)
    value = float(np.mean([_Pair(*_halves(real, generator)).fid() for _ in range(SPLITS)]))
    sentence = (
        f"Two halves of the real cohort, {len(real) // 2} volumes each, have a Frechet distance of {{}}: the chance of "
        "sampling."
    )
    return _measure("FID of real halves", value, sentence)


# maximum mean discrepancy


def mmd(kernel: NDArray, n_real: int) -> float:
    """Unbiased squared MMD from kernel values between volumes (n, n), the real ones first.

    Source: Gretton et al., A kernel two-sample test, JMLR 2012, eq. 3. Negative only by chance.
    """
    real, fake = kernel[:n_real, :n_real], kernel[n_real:, n_real:]
    return float(_off_diagonal(real) + _off_diagonal(fake) - 2 * kernel[:n_real, n_real:].mean())


def volume_kernel(volumes: Sequence[Sequence[NDArray]]) -> NDArray[np.float64]:
    """(x . y / f + 1)^3 between slices, averaged over the slices and planes of two volumes."""
    total = np.zeros((len(volumes),) * 2)
    n_planes = len(volumes[0])
    for plane in range(n_planes):
        parts = [np.asarray(volume[plane], np.float64) for volume in volumes]
        starts = np.cumsum([0, *map(len, parts)])
        x = np.concatenate(parts)
        for row, part in enumerate(parts):  # row by row: memory grows with the square of the slices
            values = (part @ x.T / x.shape[1] + 1) ** 3
            total[row] += np.add.reduceat(values.mean(0), starts[:-1]) / np.diff(starts) / n_planes
    return total


def _off_diagonal(matrix: NDArray) -> float:
    n = len(matrix)
    return (matrix.sum() - np.trace(matrix)) / (n * (n - 1))


def _mmd_measure(pair: _Pair, generator: np.random.Generator) -> Measure:
    kernel, n = volume_kernel([*pair.real, *pair.synthetic]), len(pair.real)
    value = mmd(kernel, n)
    parts = []
    if pair.smallest() >= FEWEST:
        for _ in range(10 * SPLITS):
            first = generator.permutation(n)[: n // 2]
            second = n + generator.permutation(len(kernel) - n)[: (len(kernel) - n) // 2]
            chosen = np.concatenate([first, second])
            parts.append(mmd(kernel[np.ix_(chosen, chosen)], len(first)))
    sentence = (
        "The squared maximum mean discrepancy (cubic kernel, unbiased) is {}: about 0 where the cohorts are alike."
    )
    return _measure("MMD", value, sentence, parts)


# manifolds of nearest neighbors


def distances(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """Euclidean distances (n, m) between rows."""
    from scipy.spatial.distance import cdist

    return cdist(first, second)


def manifold(real: NDArray, synthetic: NDArray, k: int = NEIGHBORS) -> dict[str, float]:
    """Precision, recall, density and coverage of vectors (n, f), (m, f).

    precision: share of synthetic vectors inside the ball of a real one, with its distance to the k-th nearest real one
    as radius; recall: the same with the roles exchanged. density: mean number of real balls that contain a synthetic
    vector, divided by k; coverage: share of real balls that contain a synthetic vector. All are near 1 for equal
    distributions, recall and precision slightly below. Outliers have large balls, which affects density and coverage
    less.
    """
    between = distances(real, synthetic)
    real_radius = np.sort(distances(real, real), 1)[:, k]
    fake_radius = np.sort(distances(synthetic, synthetic), 1)[:, k]
    inside = between <= real_radius[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((between <= fake_radius[None]).any(1).mean()),
        "density": float(inside.sum(0).mean() / k),
        "coverage": float(inside.any(1).mean()),
    }


_MANIFOLD_WORDS = {
    "precision": "{:.0%} of the synthetic volumes lie where real ones do (precision, k = {}).",
    "recall": "{:.0%} of the real volumes lie where synthetic ones do (recall, k = {}).",
    "density": "A synthetic volume lies in {:.2f} times as many real neighborhoods as a real one "
    "would (density, k = {}).",
    "coverage": "{:.0%} of the real volumes have a synthetic one in their neighborhood (coverage, k = {}).",
}


def _manifold_measures(real: NDArray, synthetic: NDArray) -> list[Measure]:
    k = min(NEIGHBORS, len(real) - 1, len(synthetic) - 1)
    return [
        _measure(name, value, _MANIFOLD_WORDS[name].format(value, k))
        for name, value in manifold(real, synthetic, k).items()
    ]


# diversity


def mean_distance(vectors: NDArray) -> float:
    """Mean Euclidean distance between two different rows."""
    return _off_diagonal(distances(vectors, vectors))


def _diversity(
    real: NDArray, synthetic: NDArray, groups: Sequence[Sequence[int]], generator: np.random.Generator
) -> list[Measure]:
    real_distance = mean_distance(real)
    if real_distance == 0:
        why = "The real volumes are all equal, so diversity relative to them is not defined."
        return [_measure(name, None, why) for name in ("diversity", "seed diversity")]
    parts = []
    if min(len(real), len(synthetic)) >= FEWEST:
        for _ in range(10 * SPLITS):
            a, b = (generator.permutation(x)[: len(x) // 2] for x in (real, synthetic))
            parts.append(mean_distance(b) / mean_distance(a))
    ratio = mean_distance(synthetic) / real_distance
    sentence = "Two synthetic volumes differ {} times as much as two real ones (1: equally diverse; 0: all the same)."
    groups = [group for group in groups if len(group) > 1]
    return [_measure("diversity", ratio, sentence, parts), _seed_diversity(synthetic, groups, real_distance)]


def _seed_diversity(vectors: NDArray, groups: Sequence[Sequence[int]], real_distance: float) -> Measure:
    if not groups:
        why = "No two synthetic volumes are known to come from one input, so the effect of the seed is unknown."
        return _measure("seed diversity", None, why)
    value = float(np.mean([mean_distance(vectors[list(group)]) for group in groups])) / real_distance
    inputs = f"{len(groups)} input{'' if len(groups) == 1 else 's'}"
    sentence = f"Two seeds of one input differ {value:.2g} times as much as two real volumes ({inputs})."
    return _measure("seed diversity", value, sentence)


# shared


def _measure(name: str, value: float | None, sentence: str, parts: Sequence[float] = ()) -> Measure:
    """A measure whose sentence gets the value and a 95 % interval from `parts`, its values on the halves."""
    if value is None or not len(parts):
        return Measure(name, value, None, None, sentence if value is None else sentence.format(f"{value:.4g}"))
    error = _NORMAL_95 * float(np.std(parts, ddof=1))
    low, high = value - error, value + error
    return Measure(name, value, low, high, sentence.format(f"{value:.4g} (95 % interval {low:.4g} to {high:.4g})"))


def _common_planes(cohort: Cohort) -> list[int]:
    planes = [p for p in range(len(PLANES)) if all(len(f.planes[p]) for f in cohort)]
    if not planes:
        raise InputError(
            "There is no plane in which all volumes have content on at least 16 x 16 pixels; take "
            "out the smallest ones."
        )
    return planes


def _planes_of(cohort: Cohort, planes: list[int]) -> list[list[NDArray]]:
    return [[f.planes[p].astype(np.float64) for p in planes] for f in cohort]


def _vectors(cohort: Cohort, planes: list[int]) -> NDArray[np.float64]:
    """One row per volume: the means of its planes."""
    rows = [[f.planes[p].mean(0, dtype=np.float64) for p in planes] for f in cohort]
    return np.array([np.concatenate(row) for row in rows])


def _note(real: Cohort, synthetic: Cohort, planes: list[int]) -> str:
    names = ", ".join(PLANES[p] for p in planes)
    return f"{len(synthetic)} synthetic and {len(real)} real volumes, slices of the planes {names}."
