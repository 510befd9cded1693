"""Evaluation of one image: against a reference, against the labels that it should show, or both.

Example:

    result = evaluate(synthetic_ct, real_ct, labels=tissues, segmenter="ct-tissue")
    for row in result.rows:
        print(row.sentence)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.lattice import placed
from MedGenLib.imaging.modality import guess_modality, has_offset, hu_problem
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, Grid, LabelMap, Volume, check_finite
from MedGenLib.io.provenance import Provenance, Source
from MedGenLib.labels.mapping import map_labels
from MedGenLib.metrics.compare import Comparison, ImageMeasure, compare, require_same_grid
from MedGenLib.metrics.labels import LabelRow, compare_labels
from MedGenLib.metrics.uncertainty import Calibration, error_correlation
from MedGenLib.options import EvaluateOptions, documented
from MedGenLib.progress import ProgressCallback, announce

if TYPE_CHECKING:
    from MedGenLib.segmentation.segmenters import Segmenter

ANATOMY = (
    ("Dice", "dice", ""),
    ("HD95", "hd95_mm", "mm"),
    ("Volume in the mask", "wanted_ml", "ml"),
    ("Volume in the image", "found_ml", "ml"),
    ("Volume difference", "difference_ml", "ml"),
    ("Volume difference", "difference_percent", "%"),
)
"""Measures in a `LabelRow`: name, attribute, unit."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Measures of one image.

    Attributes
    ----------
    name: name of the case in the report.
    rows: comparison with the reference; empty without one.
    anatomy: each label in the mask and as found by the segmenter; may be empty.
    calibration: the uncertainty against the error; None without uncertainty.
    notes: what was measured where, and assumptions.
    inputs: role ("image", "reference", ...), file name and hash of each input.
    made: how the image was made, if its file records it.
    image, comparison, wanted, found: voxels for pictures; None where missing, and in a cohort for cases without
        pictures.
    """

    name: str
    rows: tuple[ImageMeasure, ...]
    anatomy: tuple[LabelRow, ...]
    calibration: Calibration | None
    notes: tuple[str, ...]
    image: Volume | None
    comparison: Comparison | None
    wanted: LabelMap | None
    found: LabelMap | None
    inputs: tuple[Source, ...] = ()
    made: Provenance | None = None

    @property
    def note(self) -> str:
        """All notes."""
        return " ".join(self.notes)

    @property
    def figures(self) -> tuple[ImageMeasure, ...]:
        """All measures as rows: comparison, anatomy, uncertainty."""
        anatomy = (
            ImageMeasure(name, getattr(label, attribute), unit, label.sentence, label.name)
            for label in self.anatomy
            for name, attribute, unit in ANATOMY
        )
        return (*self.rows, *anatomy, *self.uncertainty)

    @property
    def uncertainty(self) -> tuple[ImageMeasure, ...]:
        """The measures of the uncertainty, with a prefix in their names."""
        rows = () if self.calibration is None else self.calibration.rows
        return tuple(replace(row, name=f"Uncertainty: {row.name}") for row in rows)

    @property
    def badness(self) -> float:
        """Sort key, larger for worse images: the MAE, or without a reference 1 - the mean Dice."""
        errors = [row.value for row in self.rows if row.name == "MAE" and not row.label]
        if errors and errors[0] is not None:
            return errors[0]
        return 0.0 if self.mean_dice is None else 1 - self.mean_dice

    @property
    def mean_dice(self) -> float | None:
        """Mean over the labels, with 0 for those missing on one side; None without labels."""
        dice = [row.dice for row in self.anatomy if row.dice is not None]
        return sum(dice) / len(dice) if dice else None

    def without_voxels(self) -> Evaluation:
        """The measures without voxels."""
        return replace(self, image=None, comparison=None, wanted=None, found=None)

    def to_dict(self) -> dict[str, Any]:
        """The measures as plain JSON types."""
        return {
            "name": self.name,
            "inputs": [asdict(source) for source in self.inputs],
            "made": None if self.made is None else self.made.to_dict(),
            "rows": [asdict(row) for row in self.rows],
            "anatomy": [row.to_dict() for row in self.anatomy],
            "uncertainty": None if self.calibration is None else self.calibration.to_dict(),
            "note": self.note,
        }


@dataclass(frozen=True)
class CaseOrigin:
    """Origin of the images of a case, for its report.

    Attributes
    ----------
    name: of the case.
    files: role ("image", "reference", "mask", "labels", "uncertainty") -> name of the file.
    made: how the image was made, where its file records it.
    """

    name: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    made: Provenance | None = None


@documented("evaluate")
def evaluate(
    image: Volume,
    reference: Volume | None = None,
    mask: LabelMap | None = None,
    labels: LabelMap | None = None,
    segmenter: str | Segmenter | None = None,
    uncertainty: Volume | None = None,
    *,
    origin: CaseOrigin | None = None,
    progress: ProgressCallback | None = None,
    **options: Unpack[EvaluateOptions],
) -> Evaluation:
    """Measure an image in all ways that the given inputs allow.

    Parameters
    ----------
    {options}
    origin: origin of the images, for the report.
    progress: called at each step; an exception raised in it stops the evaluation.

    Raises
    ------
    InputError: there is nothing to compare with, an input requires another one, or two inputs do not fit together.
    """
    require_purpose(reference, mask, labels, segmenter, uncertainty)
    check_finite(image, "The image")
    reference, mask, labels, uncertainty = (
        grid and in_order_of(grid, image) for grid in (reference, mask, labels, uncertainty)
    )
    given = {"image": image, "reference": reference, "mask": mask, "labels": labels, "uncertainty": uncertainty}
    origin = origin or CaseOrigin()
    inputs = tuple(Source.of(role, grid, origin.files.get(role, "")) for role, grid in given.items() if grid)
    for grid in filter(None, (image, reference)):
        could_be_ct = grid.modality == "CT" or grid.modality is None and has_offset(grid)
        if could_be_ct and (problem := hu_problem(grid)):
            raise InputError(problem)
    find, resample = _segmenter(segmenter, options["device"]), options["resample"]
    notes: list[str] = []
    wanted = found = None
    if labels is not None and find is not None:
        labels = _named(labels, find, notes)
        wanted, known = _on_grid(_numbered(labels, find, notes), image, resample, notes)
        announce(notes, progress)
    comparison = calibration = None
    if reference is not None:
        comparison = compare(image, reference, mask, labels, resample=resample, progress=progress)
        notes += [note for note in comparison.notes if note not in notes]
    if uncertainty is not None and comparison is not None:
        calibration = error_correlation(uncertainty, comparison)
        notes.append(f"Uncertainty: {calibration.note}")
    modality = comparison.reference.modality if comparison else guess_modality(image)
    image = image.with_array(image.array, image.modality or modality)
    anatomy: tuple[LabelRow, ...] = ()
    if wanted is not None:
        found = find(image, progress)
        found = found.with_array(np.where(known, found.array, found.array.dtype.type(0)))
        anatomy = _anatomy(wanted, found, find, notes)
    rows = comparison.rows if comparison else ()
    judged = (rows, anatomy, calibration, tuple(notes), image, comparison, wanted, found)
    return Evaluation(origin.name, *judged, inputs, origin.made)


def require_purpose(reference: object, mask: object, labels: object, segmenter: object, uncertainty: object) -> None:
    """Raise InputError if the given inputs (not None) allow no measure."""
    if reference is None and (labels is None or segmenter is None):
        raise InputError(
            "There is nothing to compare the image with; give a reference, or labels together "
            "with a segmenter that finds them in the image."
        )
    if segmenter is not None and labels is None:
        raise InputError("A segmenter was given without labels; give the label volume that the image should show.")
    for name, given in (("mask", mask), ("uncertainty", uncertainty)):
        if given is not None and reference is None:
            raise InputError(f"The {name} needs a reference; give one as well.")


def in_order_of(grid: Grid, image: Volume) -> Grid:
    """Reorder the voxels to the order of the image's, if both grids have the same voxels in space.

    DICOM rows run from front to back, those of most other files from back to front: the grids are the same and need no
    resampling. Other grids are returned unchanged.
    """
    reorientation = Reorientation.to(grid.geometry, image.orientation)
    stored = np.eye(4)[:, [*reorientation.order, 3]]  # turned index -> stored index
    for axis in reorientation.flips:
        stored[reorientation.order[axis], 3] = grid.shape[reorientation.order[axis]] - 1
        stored[reorientation.order[axis], axis] = -1
    turned = Geometry(reorientation.axes(grid.shape), grid.affine @ stored)
    if grid.geometry.is_close(image.geometry) or not turned.is_close(image.geometry):
        return grid
    return replace(grid, array=reorientation.apply(grid.array), affine=image.affine)


def _segmenter(segmenter: str | Segmenter | None, device: str) -> Segmenter | None:
    if not isinstance(segmenter, str):
        return segmenter
    from MedGenLib.segmentation.segmenters import segmenter as find

    return find(segmenter, device)


def _named(labels: LabelMap, segmenter: Segmenter, notes: list[str]) -> LabelMap:
    """Give labels without a name the segmenter's name for that value, which a note says."""
    known = {value: segmenter.labels.names.get(value, "") for value in labels.values()}
    if by_number := [f"{value} = {name}" for value, name in known.items() if name and not labels.names.get(value)]:
        notes.append(f"The labels without names were read by number: {', '.join(by_number)}.")
    names = {value: labels.names.get(value) or name for value, name in known.items()}
    return labels.with_array(labels.array, {v: name for v, name in names.items() if name})


def _numbered(labels: LabelMap, segmenter: Segmenter, notes: list[str]) -> LabelMap:
    """The labels in the numbers of the segmenter, if their names have other ones there, as FreeSurfer's do."""
    theirs = {value: segmenter.labels.value_of(name) for value, name in labels.names.items()}
    if all(theirs.get(value) in (None, value) for value in labels.values()):
        return labels
    mapped, report = map_labels(labels, segmenter.labels, strict=False)
    if report.unmapped:
        notes.append(f"It does not segment {', '.join(labels.names.get(v) or f'label {v}' for v in report.unmapped)}.")
    return mapped


def _on_grid(labels: LabelMap, image: Volume, resample: bool, notes: list[str]) -> tuple[LabelMap, NDArray[np.bool_]]:
    """The labels on the grid of the image, and where they are known."""
    known = np.ones(image.shape, bool)
    if labels.geometry.is_close(image.geometry):
        return labels, known
    if (cropped := placed(labels, image.geometry)) is not None:
        labels, box = cropped
        known[:] = False
        known[box] = True
        if not known.all():
            notes.append(f"The labels cover {known.mean():.0%} of the image; what lies beyond was left out.")
        return labels, known
    if not resample:
        advice = "bring them onto one grid first (--resample does)"
        require_same_grid(("image", image), ("label volume", labels), advice)
    notes.append("The label volume was resampled onto the grid of the image.")
    reached = resample_to(LabelMap(np.ones(labels.shape, np.uint8), labels.affine), image)
    return resample_to(labels, image), reached.array > 0


def _anatomy(wanted: LabelMap, found: LabelMap, segmenter: Segmenter, notes: list[str]) -> tuple[LabelRow, ...]:
    """Rows of the labels that the segmenter knows and that occur."""
    notes.append(f"Labels were segmented in the image by {segmenter.name}.")
    unknown = [value for value in wanted.values() if value not in segmenter.labels.names]
    if unknown:
        listed = ", ".join(wanted.names.get(value) or f"label {value}" for value in unknown)
        notes.append(f"It does not segment {listed}.")
    names = {value: wanted.names.get(value) or name for value, name in segmenter.labels.names.items() if value > 0}
    rows = compare_labels(wanted, found, names)
    return tuple(row for row in rows if row.wanted_ml or row.found_ml)
