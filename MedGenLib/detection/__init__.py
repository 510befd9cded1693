"""Candidates of lesions: maxima of the probability that a model of task "detect" gives each voxel.

image -> probability of a lesion -> smoothed over a voxel -> maxima, the highest first -> region of each
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib.checks.input import check_image
from MedGenLib.devices import software_versions
from MedGenLib.findings import require_usable
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.provenance import Provenance
from MedGenLib.metrics.froc import Hits
from MedGenLib.options import DetectOptions, documented
from MedGenLib.packages.catalogue import find, package_hash
from MedGenLib.packages.license import require_acceptance
from MedGenLib.progress import ProgressCallback, Stage, announce
from MedGenLib.segmentation.package import PackageSegmenter

NO_DIAGNOSIS = "This is no diagnosis: a candidate may be no lesion, and lesions may be missed."
LEAST_SCORE = 0.05
"""Lowest maximum that counts as a candidate at all."""
MOST = 100
"""Candidates of an image."""
COLUMNS = ("number", "score", "l_mm", "p_mm", "s_mm", "diameter_mm", "volume_ml")
BESIDE = 1.8
"""Voxels of the model's grid around a region in which the border is sought on the finer grid of the image."""


@dataclass(frozen=True)
class Peak:
    """A maximum of a map of probabilities: its score, the voxels that belong to it, and the middle one of them."""

    score: float
    index: tuple[int, ...]
    region: NDArray[np.bool_]


@dataclass(frozen=True)
class Candidate:
    """One candidate: score (0 to 1), position in LPS mm, volume, and diameter of the sphere of this volume."""

    score: float
    position_lps: tuple[float, float, float]
    diameter_mm: float
    volume_ml: float


@dataclass(frozen=True)
class Detection:
    """What a model finds in an image.

    Attributes
    ----------
    candidates: the highest score first.
    labels: on the grid of the image, n inside the n-th candidate.
    notes: what is doubtful, and that this is no diagnosis.
    """

    model: str
    version: str
    threshold: float
    candidates: tuple[Candidate, ...]
    labels: LabelMap
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All but the voxels, for a JSON file."""
        return {**vars(self), "candidates": [vars(one) for one in self.candidates], "labels": None}

    def provenance(self) -> Provenance:
        """What made the labels, without the input."""
        return Provenance(
            content="candidates",
            unit="",
            model=self.model,
            version=self.version,
            package_sha256=package_hash(find(self.model)),
            task="detect",
            checks=self.notes,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            parameters={"threshold": self.threshold},
            software=software_versions(),
            note=NO_DIAGNOSIS,
        )

    @property
    def rows(self) -> list[dict[str, float | int]]:
        """The candidates as rows of a table."""
        facts = [(one.score, *one.position_lps, one.diameter_mm, one.volume_ml) for one in self.candidates]
        return [dict(zip(COLUMNS, (n, *(round(x, 4) for x in row)), strict=True)) for n, row in enumerate(facts, 1)]


def heat_of(shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability that a voxel is in a lesion, smoothed over a voxel, of the `probabilities` of a network."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(1 - shares[0], 1.0)


def peaks(heat: NDArray[np.float32], threshold: float = LEAST_SCORE) -> list[Peak]:
    """Maxima of at least the threshold, the highest first, unless they lie in the region of a higher one.

    The region of a maximum are the voxels connected with it of at least half its value, without those of higher ones.
    """
    from scipy import ndimage

    tops = np.argwhere((heat == ndimage.maximum_filter(heat, 3)) & (heat >= threshold))
    free, found = np.ones(heat.shape, bool), []
    for top in map(tuple, tops[np.argsort(-heat[tuple(tops.T)], kind="stable")]):
        if free[top] and len(found) < MOST:
            parts, _ = ndimage.label(free & (heat >= heat[top] / 2))
            region = parts == parts[top]
            free &= ~region
            places = np.argwhere(region)
            away = places - np.average(places, axis=0, weights=heat[region])  # from the center of mass
            found.append(Peak(float(heat[top]), tuple(places[(away**2).sum(axis=1).argmin()].tolist()), region))
    return found


def hits(found: list[Peak], lesions: NDArray) -> Hits:
    """Which lesions, connected parts of a mask on the same grid, the middles of candidates lie in."""
    from scipy import ndimage

    parts, count = ndimage.label(lesions > 0, np.ones((3,) * 3))
    return Hits(tuple(one.score for one in found), tuple(int(parts[one.index]) for one in found), count)


@documented("detect")
def detect(
    image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[DetectOptions]
) -> Detection:
    """Find candidates of lesions in an image.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.

    Raises
    ------
    InputError, PackageError, LicenseError: nothing was computed.

    Examples
    --------
    >>> found = detect("ct.nii.gz", model="my-detector")   # doctest: +SKIP
    >>> found.candidates[0].position_lps                   # doctest: +SKIP
    (-12.0, 40.5, 310.0)
    """
    from MedGenLib.io.files import read_volume

    manifest = find(options["model"])
    manifest.require_task("detect")
    require_acceptance(manifest, options["accept_license"])
    volume = image if isinstance(image, Volume) else read_volume(image)
    findings = check_image(volume, manifest)
    require_usable(findings)
    notes = [*volume.notes, *(finding.sentence for finding in findings)]
    announce(notes, progress)
    stage = Stage("finding candidates", 2, progress)
    working, order, shares = PackageSegmenter(manifest, options["device"]).shares(volume)
    stage.advance()
    threshold = manifest.settings.threshold if options["threshold"] is None else options["threshold"]
    heat = order.undo(heat_of(shares))
    found = peaks(heat, threshold)
    labels = _on_image(found, working.with_array(heat), volume, next(iter(manifest.output.labels.values())).name)
    stage.advance()
    if not found:
        notes.append(f"No candidate reaches the score {threshold:g}.")
    facts = (manifest.name, manifest.version, threshold, tuple(_candidate(one, working) for one in found))
    return Detection(*facts, labels, (*notes, NO_DIAGNOSIS))


def _candidate(peak: Peak, grid: Volume) -> Candidate:
    right, anterior, superior = (grid.affine @ [*peak.index, 1.0])[:3].tolist()
    volume = float(peak.region.sum() * np.prod(grid.spacing))
    return Candidate(
        peak.score, (-right, -anterior, superior), 2 * (volume * 3 / (4 * np.pi)) ** (1 / 3), volume / 1000
    )


def _on_image(found: list[Peak], heat: Volume, image: Volume, kind: str) -> LabelMap:
    """The regions on the usually finer grid of the image: the border is where the map has half the score."""
    from scipy.ndimage import distance_transform_edt

    from MedGenLib.imaging.resampling import resample_to

    numbers = np.zeros(heat.shape, np.uint8)
    for n, peak in enumerate(found, 1):
        numbers[peak.region] = n
    away, nearest = distance_transform_edt(numbers == 0, return_indices=True)
    owner = resample_to(LabelMap(np.where(away <= BESIDE, numbers[tuple(nearest)], 0), heat.affine), image).array
    halves = np.array([np.inf, *(peak.score / 2 for peak in found)])
    inside = resample_to(heat, image, fill=0.0).array >= halves[owner]
    names = {n: f"{kind} {n}" for n in range(1, len(found) + 1)}
    return LabelMap(np.where(inside, owner, 0).astype(np.uint8), image.affine, names)
