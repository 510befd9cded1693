"""Coverage of the intervals of a reader study, with simulated readers of known accuracy.

    python Testing/benchmarks/reader_study.py [--readers 1000]

The evidence of a reader is normally distributed, with a mean d' higher for synthetic images than for
real ones. The reader answers "synthetic" above the midpoint, with a confidence that increases with
the distance from it. The true accuracy is Phi(d' / 2); the true AUC follows from the probabilities of
the ten answers. Readers are scored as by `medgen reader-study score`.

Limits for 1,000 readers: the mid-P interval of the accuracy covers the true value for 95 % +- 2, the
exact interval for at least 93.6 % (95 % minus the sampling error of 1,000 draws). Otherwise the exit
code is 1.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from common import save, table

from MedGenLib.reader_study.reading import Answer
from MedGenLib.reader_study.scoring import Answers, ReaderMeasure, rows_of

CASES = ((40, 0.5), (40, 0.7), (60, 0.55), (100, 0.55), (100, 0.8), (200, 0.6), (200, 0.9))
"""Number of images (half of them synthetic) and true accuracy of the reader."""
STEPS = np.array([0.25, 0.55, 0.95, 1.5])
"""Distances from the midpoint, in SD of the evidence, at which the confidence increases by one."""
MEASURES = ("Accuracy", "Accuracy, mid-P", "Sensitivity", "Specificity", "AUC")


def true_auc(distance: float) -> float:
    """AUC of ten ordered answers; ties count half."""
    from scipy.stats import norm

    edges = np.concatenate([[-np.inf], -STEPS[::-1], [0], STEPS, [np.inf]])
    synthetic, real = (np.diff(norm.cdf(edges, mean)) for mean in (distance / 2, -distance / 2))
    return float(synthetic @ (np.cumsum(real) - real / 2))


def reader(images: int, distance: float, generator: np.random.Generator) -> Answers:
    """Answers of one simulated reader."""
    truth = {f"item_{n + 1:03d}": n < images // 2 for n in range(images)}
    evidence = generator.normal(np.where(list(truth.values()), distance / 2, -distance / 2))
    confidence = 1 + np.searchsorted(STEPS, np.abs(evidence))
    answers = [
        Answer(name, bool(seen > 0), int(sure), 1.0)
        for name, seen, sure in zip(truth, evidence, confidence, strict=True)
    ]
    return Answers.of("simulated", answers, truth)


def covers(row: ReaderMeasure, truth: float) -> bool:
    return row.low <= truth <= row.high


def coverage(images: int, accuracy: float, readers: int, seed: int) -> dict[str, float]:
    """Share in % of the readers whose interval covers the true value, for each metric."""
    from scipy.stats import norm

    generator = np.random.default_rng(seed)
    distance = 2 * float(norm.ppf(accuracy))
    truth = dict.fromkeys(MEASURES, 100 * accuracy) | {"AUC": true_auc(distance)}
    hits = dict.fromkeys(MEASURES, 0)
    for _ in range(readers):
        rows = {row.name: row for row in rows_of(reader(images, distance, generator))}
        for name in MEASURES:
            hits[name] += covers(rows[name], truth[name])
    return {name: 100 * count / readers for name, count in hits.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows, kept = [], []
    for number, (images, accuracy) in enumerate(CASES):
        found = coverage(images, accuracy, arguments.readers, arguments.seed + number)
        rows.append([images, f"{100 * accuracy:.0f} %", *(f"{found[m]:.1f} %" for m in MEASURES)])
        kept.append({"images": images, "accuracy": accuracy, "coverage": found})
    print(table(["images", "true accuracy", *MEASURES], rows))
    middle = [case["coverage"]["Accuracy, mid-P"] for case in kept]
    exact = [case["coverage"]["Accuracy"] for case in kept]
    passed = all(93 <= share <= 97 for share in middle) and min(exact) >= 93.6
    print(
        f"\nmid-P {min(middle):.1f} to {max(middle):.1f} %, exact {min(exact):.1f} to "
        f"{max(exact):.1f} %: {'passed' if passed else 'NOT passed'}."
    )
    save("reader_study", {"readers": arguments.readers, "cases": kept, "passed": passed})
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
