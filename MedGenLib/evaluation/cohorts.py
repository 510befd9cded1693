"""Comparison of cohorts in folders, with a search for copies of training images, and its report.

Example:

    result = evaluate_cohorts("synthetic", "real", training="train")
    for measure in result.comparison.measures:
        print(measure.sentence)
    text = result.html()
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.evaluation.feature_networks import DEFAULT, extractor
from MedGenLib.evaluation.folders import volumes_in
from MedGenLib.evaluation.html import Notice, Picture, Section, Table, page
from MedGenLib.evaluation.tables import csv_text, json_text
from MedGenLib.imaging.modality import modality_of
from MedGenLib.io.files import read_volume
from MedGenLib.metrics.distribution import CohortComparison, compare_cohorts
from MedGenLib.metrics.features import SLICES, Extractor, Features, describe
from MedGenLib.metrics.memorization import Memorization, find_memorized
from MedGenLib.metrics.slices import Standard, mostly_ct
from MedGenLib.progress import ProgressCallback, Stage

FILES = ("report.html", "metrics.json", "metrics.csv")
"""Files of a report."""

_METHOD = (
    "Slices of each volume in three planes pass through the feature network. FID: Frechet distance "
    "between Gaussians fitted to the features of all slices, averaged over the planes. It is too "
    "large for few volumes and is therefore extrapolated in 1 / volumes to infinitely many. "
    "Intervals come from random halves of the cohorts (delete-half jackknife over volumes). "
    "Precision and recall are sensitive to outliers, density and coverage less so. "
    "Figures are comparable only for one feature network and one reference cohort."
)


@dataclass(frozen=True)
class CohortEvaluation:
    """Results of a cohort evaluation.

    Attributes
    ----------
    network: name of the feature network.
    cohorts: the described volumes under "real", "synthetic" and, if given, "training".
    memorization: None without training images.
    notes: sentences on changes and assumptions.
    """

    network: str
    cohorts: Mapping[str, Sequence[Features]]
    comparison: CohortComparison
    memorization: Memorization | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        found: dict[str, Any] = {
            "network": self.network,
            "slices_per_plane": SLICES,
            "volumes": {name: len(cohort) for name, cohort in self.cohorts.items()},
            **self.comparison.to_dict(),
            "notes": list(self.notes),
        }
        if self.memorization is not None:
            found["memorization"] = {
                "note": self.memorization.note,
                "distance_limit": self.memorization.distance_limit,
                "correlation_limit": self.memorization.correlation_limit,
                "nearest": [asdict(n) for n in self.memorization.neighbors],
            }
        return found

    def files(self) -> dict[str, str]:
        """Name -> content of the report's files."""
        rows = [asdict(measure) for measure in self.comparison.measures]
        return dict(zip(FILES, (self.html(), json_text(self.to_dict()), csv_text(rows)), strict=True))

    def html(self) -> str:
        """The report as one self-contained page."""
        counts = ", ".join(f"{len(cohort)} {name}" for name, cohort in self.cohorts.items())
        sections = [self._measures()]
        if self.memorization is not None:
            sections.append(self._memorized(self.memorization))
        sections.append(Section("Method", [_METHOD, *self.notes]))
        return page("Comparison of cohorts", sections, f"{counts} volumes; {self.network}")

    def _measures(self) -> Section:
        from MedGenLib.visual.cohorts import curve_picture, map_picture

        rows = [(m.name, m.value, m.low, m.high, m.sentence) for m in self.comparison.measures]
        heads = ("Measure", "Value", "95 % from", "to", "What it says")
        curve = "The Frechet distance falls with the number of volumes; the line extrapolates to infinitely many."
        axes = "Every volume on the first two principal axes of the real volumes' features."
        parts = [
            Table(heads, rows, self.comparison.note),
            Picture(curve_picture(self.comparison), curve),
            Picture(map_picture(self.cohorts["real"], self.cohorts["synthetic"]), axes),
        ]
        return Section("Likeness, coverage and diversity", parts)

    def _memorized(self, found: Memorization) -> Section:
        from MedGenLib.visual.cohorts import neighbors_picture, pairs_picture

        rows = [
            (n.name, n.by_features, n.distance, n.by_voxels, n.correlation, _verdict(n.copied))
            for n in sorted(found.neighbors, key=lambda n: -n.correlation)
        ]
        heads = ("Synthetic", "Nearest by features", "Distance", "Nearest by voxels", "Correlation", "Copy")
        copies = frozenset(number for number, row in enumerate(rows) if row[-1] == "yes")
        pairs = pairs_picture(found, self.cohorts["synthetic"], self.cohorts["training"])
        near = "Distance of synthetic and of real images to the nearest training image."
        alike = (
            "Top: the synthetic images most similar to a training image; "
            "bottom: that image (middle axial slices at 32 voxels along each axis)."
        )
        parts = [
            Notice(found.note) if found.copies else found.note,
            Picture(neighbors_picture(found), near),
            Picture(pairs, alike, wide=True),
            Table(heads, rows, strong=copies),
        ]
        return Section("Memorized training images", parts)


def evaluate_cohorts(
    synthetic: str | Path,
    real: str | Path,
    training: str | Path | None = None,
    features: str = DEFAULT,
    seed: int = 0,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> CohortEvaluation:
    """Compare the volumes in two folders (files and DICOM subfolders).

    Parameters
    ----------
    training: folder of the images that the generator was trained on, to find copies.
    features: package for the task "features", or file with RadImageNet's ResNet-50 weights.
    seed: seed of the random halves for the intervals.

    Raises
    ------
    InputError: a folder or one of its volumes cannot be used. No volume is skipped, as that would change the cohort.
    """
    folders = {"real": real, "synthetic": synthetic}
    if training is not None:
        folders["training"] = training
    paths = {name: volumes_in(Path(folder)) for name, folder in folders.items()}
    extract = extractor(features, device)
    standard = _standard(paths["real"])
    resampled: list[str] = []
    cohorts = {kind: _described(kind, files, standard, extract, resampled, progress) for kind, files in paths.items()}
    groups = same_input(list(paths["synthetic"].values()))
    comparison = compare_cohorts(cohorts["real"], cohorts["synthetic"], groups, seed, progress)
    memorization = None
    if training is not None:
        memorization = find_memorized(*(cohorts[kind] for kind in ("synthetic", "training", "real")))
    notes = _notes(standard, resampled)
    return CohortEvaluation(extract.name, cohorts, comparison, memorization, notes)


def _standard(files: Mapping[str, Path], most: int = 5) -> Standard:
    """Standard of the first real volume; CT if most of the first ones appear to be CT."""
    volumes = [read_volume(path) for path in list(files.values())[:most]]
    ct = mostly_ct(map(modality_of, volumes))
    return Standard.set_by(volumes[0], f"real/{next(iter(files))}", ct)


def _described(
    kind: str,
    files: Mapping[str, Path],
    standard: Standard,
    extract: Extractor,
    resampled: list[str],
    progress: ProgressCallback | None,
) -> list[Features]:
    """Features of one cohort; the names of resampled volumes are appended to `resampled`."""
    stage, kinds, cohort = Stage(f"describing {kind}", len(files), progress), [], []
    for name, path in files.items():
        volume, name = read_volume(path), f"{kind}/{name}"
        kinds.append(modality_of(volume))
        if standard.is_off(volume):
            resampled.append(name)
        cohort.append(describe(volume, name, standard, extract))
        stage.advance()
    if mostly_ct(kinds) not in (None, standard.ct):
        ours, theirs = ("no CT", "CT") if standard.ct else ("CT", "no CT")
        raise InputError(
            f"Most {kind} volumes look like {ours} and most real ones like {theirs}; compare images of the same kind."
        )
    return cohort


def same_input(paths: Sequence[Path]) -> list[list[int]]:
    """Indices of volumes that MedGen made from the same input, according to their provenance."""
    from MedGenLib.io.recorded import read

    groups: dict[tuple, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        facts = read(path)
        if facts is not None and facts.inputs:
            contents = tuple(sorted(source.sha256 for source in facts.inputs))
            groups[facts.model, contents].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _notes(standard: Standard, resampled: Sequence[str]) -> tuple[str, ...]:
    if not resampled:
        return ()
    count = "1 volume" if len(resampled) == 1 else f"{len(resampled)} volumes"
    return (
        f"{count} with a spacing other than that of {standard.of} had to be resampled to it, which "
        f"changes texture: {', '.join(resampled[:5])}{' ...' if len(resampled) > 5 else ''}.",
    )


def _verdict(copied: bool | None) -> str:
    return "not known" if copied is None else "yes" if copied else "no"
