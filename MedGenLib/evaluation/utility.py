"""Utility of synthetic images for training a segmenter: real, synthetic and both, tested on real images.

The same small network is trained for the same number of steps on each set, repeatedly from different random weights,
and tested on the same held-out real cases.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.metrics.image import dice
from MedGenLib.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from MedGenLib.training.data.cases import TrainingCase

SETS = ("real", "synthetic", "both")
BATCH, LEARNING_RATE, WARMUP, DECAY, AVERAGING = 2, 1.5e-3, 50, 0.5, 0.99
LONGEST_PATCH = 64
"""Maximum size of a training patch along an axis, in voxels."""
RESAMPLES = 4000


@dataclass(frozen=True)
class UtilityRow:
    """Dice of one label on the test cases after training on one set.

    Attributes
    ----------
    training: "real", "synthetic" or "both"; `cases`: their number.
    label: value, and 0 for the mean over all labels.
    dice: mean over test cases and repeats; `low` and `high`: its 95 % interval by bootstrap over both.
    difference: to training on real images on the same cases, with its interval `difference_low` to `difference_high`;
        None for real itself.
    repeat_sd: standard deviation of the mean Dice between repeats, None for one repeat.
    """

    training: str
    cases: int
    label: int
    name: str
    dice: float
    low: float
    high: float
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    repeat_sd: float | None


@dataclass(frozen=True)
class Utility:
    """Dice scores, and how they were measured.

    `scores`: training set -> Dice (repeats, test cases, labels).
    """

    rows: tuple[UtilityRow, ...]
    labels: dict[int, str]
    steps: int
    repeats: int
    seed: int
    test_cases: tuple[str, ...]
    scores: dict[str, NDArray[np.float64]]

    @property
    def note(self) -> str:
        """One sentence on how the scores were measured."""
        repeated = self.repeats > 1
        times = f"{self.repeats} times from different random weights" if repeated else "once"
        over = " and repeats" if repeated else ""
        return (
            f"{len(self.test_cases)} real test cases; each training {self.steps} steps of {BATCH} "
            f"patches, {times}; intervals of 95 % by bootstrap over test cases{over}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a Dice that is not defined is None."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "note": self.note,
            "steps": self.steps,
            "repeats": self.repeats,
            "seed": self.seed,
            "test_cases": list(self.test_cases),
            "scores": {name: np.where(np.isfinite(s), s.round(4), None).tolist() for name, s in self.scores.items()},
        }


def utility(
    real: str | Path,
    synthetic: str | Path,
    test: str | Path,
    *,
    steps: int = 300,
    repeats: int = 3,
    seed: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Utility:
    """Train on real, synthetic and both sets, and test on real cases.

    Parameters
    ----------
    real, synthetic: folders for training, each with `images` and `labels` (equal file names). Cases are resampled to
        the median voxel size of the real ones.
    test: folder of held-out real cases, likewise. A file name must not be in both `real` and `test`.
    steps: optimization steps of each of the 3 x `repeats` trainings.
    seed: of weights, patches and resampling; the same seed gives the same figures on the same machine.

    Raises
    ------
    InputError: folders that do not fit together, a label missing in one of them, or fewer than two test cases.
    """
    folders = {"real": Path(real), "synthetic": Path(synthetic), "test": Path(test)}
    cases = read_sets(folders, progress)
    values = _labels(cases, folders)
    cases = {name: [renumbered(case, values) for case in found] for name, found in cases.items()}
    cases["both"] = cases["real"] + cases["synthetic"]
    patch = _patch(cases["real"])
    runs: dict[str, list[NDArray]] = {name: [] for name in SETS}
    for repeat, name in itertools.product(range(repeats), SETS):
        renamed = _named(progress, f"training on {name}, {repeat + 1} of {repeats}")
        network = trained(cases[name], patch, len(values), steps, seed + repeat, device, renamed)
        runs[name].append(_tested(network, cases["test"], len(values)))
    scores = {name: np.stack(found) for name, found in runs.items()}
    labels = {value: f"label {value}" for value in values}
    rows = rows_of(scores, labels, {name: len(cases[name]) for name in SETS}, seed)
    names = tuple(case.name for case in cases["test"])
    return Utility(rows, labels, steps, repeats, seed, names, scores)


def read_sets(folders: dict[str, Path], progress: ProgressCallback | None) -> dict[str, list[TrainingCase]]:
    from MedGenLib.imaging.normalization import ZScore
    from MedGenLib.imaging.orientation import Reorientation
    from MedGenLib.io.files import read_volume
    from MedGenLib.progress import Stage
    from MedGenLib.training.data.cases import case_names, read_case

    names = {key: case_names(folder) for key, folder in folders.items()}
    if len(names["test"]) < 2:
        raise InputError(
            f"The folder {folders['test']} holds one case; an interval needs at least two, preferably twenty."
        )
    if shared := sorted(set(names["real"]) & set(names["test"])):
        raise InputError(
            f"The case {shared[0]} is both in {folders['real']} and in "
            f"{folders['test']}; a test case must not be trained on."
        )
    geometries = [read_volume(folders["real"] / "images" / name).geometry for name in names["real"]]
    spacings = [Reorientation.to(geometry, "RAS").axes(geometry.spacing) for geometry in geometries]
    spacing = tuple(float(v) for v in np.median(spacings, axis=0))
    stage = Stage("reading cases", sum(map(len, names.values())), progress)
    cases: dict[str, list[TrainingCase]] = {}
    for key, folder in folders.items():
        cases[key] = []
        for name in names[key]:
            cases[key].append(read_case(folder, name, ZScore(), spacing))
            stage.advance()
    return cases


def _labels(cases: dict[str, list[TrainingCase]], folders: dict[str, Path]) -> list[int]:
    """The labels, which must be the same in all folders."""
    found = {key: {int(v) for case in cases[key] for v in np.unique(case.labels) if v} for key in cases}
    for key, other in (("synthetic", "real"), ("real", "synthetic"), ("real", "test"), ("test", "real")):
        if missing := sorted(found[other] - found[key]):
            raise InputError(
                f"The label {missing[0]} occurs in {folders[other]} but not in "
                f"{folders[key]}; give both the same labels."
            )
    if not found["real"]:
        raise InputError(f"The label volumes in {folders['real']} are all empty; give labeled cases.")
    return sorted(found["real"])


def renumbered(case: TrainingCase, values: Sequence[int]) -> TrainingCase:
    """Label values -> 1, 2, ... in the same order."""
    return replace(case, labels=np.searchsorted([0, *values], case.labels).astype(np.uint8))


def _patch(cases: Sequence[TrainingCase]) -> tuple[int, ...]:
    """Shape of a typical case in whole strides of the network, limited in size."""
    typical = np.median([case.image.shape for case in cases], axis=0)
    return tuple(int(min(-(-n // 8) * 8, LONGEST_PATCH)) for n in typical)


def trained(
    cases: Sequence[TrainingCase],
    patch: Sequence[int],
    labels: int,
    steps: int,
    seed: int,
    device: str,
    progress: ProgressCallback | None,
) -> Any:
    """The averaged network after training on these cases."""
    import torch

    from MedGenLib.devices import pick_device
    from MedGenLib.pipelines.loading import bfloat16_pays
    from MedGenLib.training.data.cases import Patches
    from MedGenLib.training.loop import OptimizationSettings, Trainer
    from MedGenLib.training.recipes.segmenter import Segmentation

    torch.manual_seed(seed)
    recipe = Segmentation(Patches(cases, patch), labels, {})
    settings = OptimizationSettings(
        steps=steps,
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        warmup=WARMUP,
        decay=DECAY,
        ema=AVERAGING,
        seed=seed,
        validate_every=steps + 1,
        checkpoint_every=steps + 1,
    )
    with tempfile.TemporaryDirectory(prefix="medgen-") as folder:
        chosen = pick_device(device)
        trainer = Trainer(recipe, settings, Path(folder), chosen, bfloat16_pays(chosen), progress)
        trainer.run()
    return trainer.averages["segmenter"].eval()


def _tested(network: Any, cases: Sequence[TrainingCase], labels: int) -> NDArray[np.float64]:
    """Dice (cases, labels); NaN where a case lacks the label."""
    from MedGenLib.segmentation.package import label_array

    rows = []
    for case in cases:
        found = label_array(network, case.image)
        wanted = [case.labels == value for value in range(1, labels + 1)]
        rows.append(
            [dice(found == value, mask) if mask.any() else np.nan for value, mask in enumerate(wanted, start=1)]
        )
    return np.array(rows)


def rows_of(
    scores: dict[str, NDArray], labels: dict[int, str], counts: dict[str, int], seed: int
) -> tuple[UtilityRow, ...]:
    generator = np.random.default_rng(seed)
    # The mean over labels first, as a "label" of its own: (repeats, cases, labels + 1).
    means = {name: np.ma.masked_invalid(s).mean(2).filled(np.nan) for name, s in scores.items()}
    whole = {name: np.concatenate([s, means[name][:, :, None]], axis=2) for name, s in scores.items()}
    rows = []
    for place, (value, label) in enumerate([*labels.items(), (0, "mean of all labels")]):
        usable = np.isfinite(whole["real"][0, :, place])
        runs = {name: s[:, usable, place] for name, s in whole.items()}
        draws = draws_of(runs["real"].shape, generator)
        for name in SETS:
            apart = (None,) * 3 if name == "real" else _estimate(runs[name] - runs["real"], draws)
            repeats = runs[name].mean(1)
            spread = float(repeats.std(ddof=1)) if len(repeats) > 1 else None
            dice_of = _estimate(runs[name], draws)
            rows.append(UtilityRow(name, counts[name], value, label, *dice_of, *apart, spread))
    return tuple(rows)


def _estimate(values: NDArray, draws: tuple[NDArray, NDArray]) -> tuple[float, float, float]:
    """The mean and its interval."""
    return float(values.mean()), *interval_of(values, draws)


def draws_of(shape: tuple[int, int], generator: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Indices of repeats and of cases in each bootstrap resample, drawn independently."""
    repeats, cases = (generator.integers(n, size=(RESAMPLES, n)) for n in shape)
    return repeats[:, :, None], cases[:, None, :]


def interval_of(values: NDArray, draws: tuple[NDArray, NDArray]) -> tuple[float, float]:
    """95 % percentile interval of the mean of (repeats, cases), both resampled (Efron 1979).

    With few repeats the variance is underestimated, by a third with three.
    """
    low, high = np.percentile(values[draws].mean(axis=(1, 2)), (2.5, 97.5))
    return float(low), float(high)


def _named(progress: ProgressCallback | None, stage: str) -> Callable[[Progress], None] | None:
    """Report progress under another stage name."""
    if progress is None:
        return None
    return lambda step: progress(replace(step, stage=stage))
