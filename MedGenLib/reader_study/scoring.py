"""Scores of all readers of a study against its key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.metrics.classification import exact_interval
from MedGenLib.progress import ProgressCallback, Stage, duration
from MedGenLib.reader_study import statistics
from MedGenLib.reader_study.reading import Answer, is_reader, read_answers
from MedGenLib.reader_study.study import ANSWERS, KEY_FORMAT, Study, key_of, read_json

ALL = "all readers"
CHANCE, LITERATURE = 50.0, 55.0
"""Accuracy in % of guessing, and that below which publications call synthetic images indistinguishable from real ones.
"""


@dataclass(frozen=True)
class ReaderMeasure:
    """One measure of one reader, or of all.

    Attributes
    ----------
    label: the reader.
    value: in `unit`; None where the measure is not defined, and the sentence says why.
    low, high: 95 % interval, by the method in `interval`; None without an interval.
    """

    label: str
    name: str
    value: float | None
    unit: str
    low: float | None
    high: float | None
    interval: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of one reader; arrays in the order of the answers.

    Attributes
    ----------
    truth: whether the image is synthetic; said: whether the reader answered so.
    rating: confidence 1 to 5 that it is synthetic, or -1 to -5 that it is real.
    """

    reader: str
    items: tuple[str, ...]
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]
    rating: NDArray[np.int64]
    seconds: NDArray[np.float64]

    @classmethod
    def of(cls, reader: str, answers: Sequence[Answer], truth: dict[str, bool]) -> Answers:
        """From a reader's answers and the key: item name -> whether it is synthetic."""
        said = np.array([answer.synthetic for answer in answers], bool)
        sure = np.array([answer.confidence for answer in answers], int)
        return cls(
            reader,
            tuple(answer.item for answer in answers),
            np.array([truth[answer.item] for answer in answers], bool),
            said,
            np.where(said, sure, -sure),
            np.array([answer.seconds for answer in answers], float),
        )

    @classmethod
    def pooled(cls, readers: Sequence[Answers]) -> Answers:
        """The answers of all readers concatenated."""
        names = ("truth", "said", "rating", "seconds")
        arrays = [np.concatenate([getattr(a, name) for a in readers]) for name in names]
        return cls(ALL, tuple(item for a in readers for item in a.items), *arrays)

    @property
    def right(self) -> NDArray[np.bool_]:
        return self.truth == self.said

    @property
    def has_both(self) -> bool:
        """Whether both kinds of images were answered."""
        return bool(self.truth.any() and not self.truth.all())

    def roc(self) -> tuple[NDArray, NDArray]:
        """False- and true-positive rates; needs both kinds of images."""
        return statistics.roc(self.rating[self.truth], self.rating[~self.truth])


@dataclass(frozen=True, eq=False)
class Scores:
    """The result of a study.

    Attributes
    ----------
    readers: answers of each reader.
    rows: each reader's measures, then those of all readers (also if there is only one).
    title: description of the images.
    note: number of readers and images, and incomplete readings.
    """

    readers: tuple[Answers, ...]
    rows: tuple[ReaderMeasure, ...]
    title: str
    note: str

    def value(self, name: str, label: str = ALL) -> ReaderMeasure:
        """The row of a measure."""
        return next(row for row in self.rows if (row.name, row.label) == (name, label))

    def to_dict(self) -> dict[str, Any]:
        return {
            "shown": self.title,
            "note": self.note,
            "readers": [answers.reader for answers in self.readers],
            "rows": [asdict(row) for row in self.rows],
        }


def score(study: str | Path, key: str | Path | None = None, progress: ProgressCallback | None = None) -> Scores:
    """Score the answers so far.

    Parameters
    ----------
    study: the folder.
    key: path of the key; None for that beside the folder.

    Raises
    ------
    InputError: no study, no key or that of another study, no answers, or invalid answers.
    """
    opened = Study.open(study)
    truth = _truth(opened, Path(key) if key else key_of(study))
    paths = sorted((opened.folder / ANSWERS).glob("*.csv"))
    read = {path.stem: read_answers(path, opened) for path in paths if is_reader(path.stem)}
    readers = tuple(Answers.of(name, found, truth) for name, found in read.items() if found)
    if not readers:
        raise InputError(f"The study {opened.folder} has no answers yet; read it first with `medgen reader-study run`.")
    stage = Stage("scoring", len(readers) + 1, progress)
    rows: list[ReaderMeasure] = []
    for answers in readers:
        rows += rows_of(answers)
        stage.advance()
    rows += rows_of_all(readers)
    stage.advance()
    return Scores(readers, tuple(rows), opened.title, _note(readers, len(opened.items)))


def rows_of(answers: Answers) -> list[ReaderMeasure]:
    """The measures of one reader."""
    label, n, right = answers.reader, len(answers.items), int(answers.right.sum())
    chance = statistics.chance_probability(right, n)
    covered = "the mid-P interval has a coverage of 95 % on average, the exact one of at least 95 %."
    guessing = f"guessing alone gives an accuracy as far from 50 % with a probability of {chance:.3g}."
    return [
        _accuracy(answers),
        _share(
            label, "Accuracy, mid-P", 100 * right / n, statistics.mid_p_interval(right, n), "mid-P binomial", covered
        ),
        _row(label, "P of guessing", chance, guessing),
        *_rates(answers),
        *_signal_rows(answers),
        _time(answers),
    ]


def rows_of_all(readers: Sequence[Answers]) -> list[ReaderMeasure]:
    """The measures of all readers together."""
    pooled = Answers.pooled(readers)
    if len(readers) == 1:
        rows = [_accuracy(pooled)]
    else:
        drawn, right = _drawn_accuracy(readers), 100 * float(pooled.right.mean())
        words = (
            "the same images were seen by all, so their answers are not independent; the verdict uses this interval, "
            "which accounts for that."
        )
        rows = [
            _accuracy(pooled, drawn),
            _share(ALL, "Accuracy, images drawn", right, drawn, "bootstrap", words),
            _kappa(readers),
        ]
    rows += _rates(pooled)
    both = [a for a in readers if a.has_both]
    of = f"of {len(both)} reader{'s' * (len(both) != 1)}"
    for name, measure in (("d'", _d_prime), ("AUC", _auc)):
        value = float(np.mean([measure(answers) for answers in both])) if both else None
        words = f"is {value:.3g}" if both else "needs a reader who saw both kinds of images"
        rows.append(_row(ALL, f"Mean {name}", value, f"the mean {name} {of} {words}."))
    return [*rows, _time(pooled)]


def _row(label: str, name: str, value: float | None, words: str, unit: str = "") -> ReaderMeasure:
    """A measure without an interval."""
    return ReaderMeasure(label, name, value, unit, None, None, "", f"{label}: {words}")


def _share(
    label: str, name: str, percent: float, interval: tuple[float, float], method: str, words: str
) -> ReaderMeasure:
    """A measure in % with its interval of 0 to 1."""
    low, high = _percent(interval)
    return ReaderMeasure(label, name, percent, "%", low, high, method, f"{label}: {words}")


def _truth(study: Study, path: Path) -> dict[str, bool]:
    """Item name -> whether it is synthetic."""
    data = read_json(path, KEY_FORMAT, "key of a reader study")
    if data.get("study") != study.identity:
        raise InputError(f"The key {path} does not belong to the study {study.folder}; choose its own key.")
    if data.get("list") != study.digest:
        raise InputError(
            f"The reading list of {study.folder} was changed after its key {path} was made; "
            "put the original study back."
        )
    try:
        truth = {row["name"]: bool(row["synthetic"]) for row in data["items"]}
        return {item.name: truth[item.name] for item in study.items}
    except (KeyError, TypeError):
        raise InputError(f"The key {path} is damaged; copy it again.") from None


def _verdict(low: float, high: float) -> str:
    """Compare an accuracy's interval in % with guessing and the literature."""
    if low > CHANCE:
        first = "this is better than guessing"
    elif high < CHANCE:
        first = "this is worse than guessing: the kinds are distinguished, but confused with each other"
    else:
        first = "this is not shown to be better than guessing"
    place = "above" if low > LITERATURE else "below"
    second = "includes" if low <= LITERATURE <= high else f"lies {place}"
    return f"{first}, and the interval {second} the {LITERATURE:.0f} % of the literature."


def _accuracy(answers: Answers, judged: tuple[float, float] | None = None) -> ReaderMeasure:
    """Accuracy with its exact interval and a verdict, by `judged` if given."""
    n, right = len(answers.items), int(answers.right.sum())
    exact = exact_interval(right, n)
    words = f"{right} of {n} answers are right; {_verdict(*_percent(judged or exact))}"
    return _share(answers.reader, "Accuracy", 100 * right / n, exact, "exact binomial", words)


def _rates(answers: Answers) -> list[ReaderMeasure]:
    return [
        _rate(answers, "Sensitivity", True, "synthetic images were found"),
        _rate(answers, "Specificity", False, "real images were recognized"),
    ]


def _rate(answers: Answers, name: str, kind: bool, words: str) -> ReaderMeasure:
    """Share of the images of one kind that were classified correctly."""
    right = answers.right[answers.truth == kind]
    found, n = int(right.sum()), len(right)
    if not n:
        missing = f"the {name.lower()} is not defined, as no such image was answered."
        return _row(answers.reader, name, None, missing, "%")
    interval = exact_interval(found, n)
    return _share(answers.reader, name, 100 * found / n, interval, "exact binomial", f"{found} of {n} {words}.")


def _signal_rows(answers: Answers) -> list[ReaderMeasure]:
    label = answers.reader
    if not answers.has_both:
        missing = "it is not defined before both kinds of images were answered."
        return [_row(label, name, None, missing) for name in ("d'", "AUC")]
    d, area, synthetic = _d_prime(answers), _auc(answers), int(answers.truth.sum())
    interval = statistics.auc_interval(area, synthetic, len(answers.items) - synthetic)
    apart = f"the kinds are {d:.2f} standard deviations apart for this reader (0 is guessing; log-linear correction)."
    rated = (
        f"{label}: of a synthetic and a real image, the synthetic one was rated as the more likely synthetic in "
        f"{100 * area:.0f} % (from answer and confidence)."
    )
    return [_row(label, "d'", d, apart), ReaderMeasure(label, "AUC", area, "", *interval, "Newcombe", rated)]


def _d_prime(answers: Answers) -> float:
    said, truth = answers.said, answers.truth
    return statistics.d_prime(
        int((said & truth).sum()), int(truth.sum()), int((said & ~truth).sum()), int((~truth).sum())
    )


def _auc(answers: Answers) -> float:
    return statistics.auc(answers.rating[answers.truth], answers.rating[~answers.truth])


def _time(answers: Answers) -> ReaderMeasure:
    middle, total = float(np.median(answers.seconds)), duration(answers.seconds.sum())
    words = f"half of the answers took less than {middle:.1f} s; all together took {total}."
    return _row(answers.reader, "Median time", middle, words, "s")


def _drawn_accuracy(readers: Sequence[Answers]) -> tuple[float, float]:
    """Bootstrap interval of the pooled accuracy, over images with all their answers."""
    pooled = Answers.pooled(readers)
    place = {item: number for number, item in enumerate(dict.fromkeys(pooled.items))}
    image = np.array([place[item] for item in pooled.items])
    kinds = np.zeros(len(place), bool)
    kinds[image] = pooled.truth
    return statistics.over_images(np.stack([np.bincount(image, pooled.right), np.bincount(image)], 1), kinds)


def _kappa(readers: Sequence[Answers]) -> ReaderMeasure:
    """Agreement on the images answered by all."""
    said = [dict(zip(a.items, a.said, strict=True)) for a in readers]
    common = [item for item in said[0] if all(item in other for other in said)]
    kappa = None
    if common:
        votes = np.array([sum(bool(other[item]) for other in said) for item in common])
        kappa = statistics.fleiss_kappa(np.stack([votes, len(said) - votes], 1))
    if kappa is None:
        why = "all gave the same answer to all" if common else "no image was answered by all"
        words = f"is not defined: {why}"
    else:
        words = f"is {kappa:.2f} on {len(common)} images (0 is chance, 1 full agreement)"
    return _row(ALL, "Fleiss' kappa", kappa, f"the agreement between them {words}.")


def _note(readers: Sequence[Answers], total: int) -> str:
    part = [f"{a.reader} answered {len(a.items)}" for a in readers if len(a.items) < total]
    count = f"{len(readers)} reader{'s' * (len(readers) != 1)}, {total} images"
    return f"{count}; not complete: {', '.join(part)}." if part else f"{count}, all answered."


def _percent(interval: tuple[float, float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]
