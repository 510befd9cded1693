"""One image, judged: against its reference, against the labels that it should show, or both.

For example:

    result = evaluate(synthetic_ct, real_ct, labels=tissues, segmenter="ct-tissue")
    for row in result.rows:
        print(row.sentence)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import guess_modality
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Geometry, Grid, LabelMap, Volume, check_finite
from MedGenLib.io.provenance import Provenance, Source
from MedGenLib.metrics.compare import Comparison, ImageMeasure, compare, require_same_grid
from MedGenLib.metrics.labels import LabelRow, compare_labels
from MedGenLib.metrics.uncertainty import Calibration, error_correlation
from MedGenLib.options import EvaluateOptions, documented
from MedGenLib.progress import ProgressCallback

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
"""The figures of a `LabelRow`: name, attribute, unit."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of one image.

    Attributes
    ----------
    name: of the case, as the report calls it.
    rows: of the comparison with the reference; empty without one.
    anatomy: of each label, as it is in the mask and as the segmenter finds it; may be empty.
    calibration: the uncertainty against the error; None where none was given.
    note: what was measured where, and what was assumed.
    inputs: what was read: role ("image", "reference", ...), name of the file, hash of the content.
    made: how the image was made, where its file tells.
    image, comparison, wanted, found: the voxels that pictures are made from; None where there was
        nothing of the kind, and in a cohort all None for cases that get no pictures.
    """

    name: str
    rows: tuple[ImageMeasure, ...]
    anatomy: tuple[LabelRow, ...]
    calibration: Calibration | None
    note: str
    image: Volume | None
    comparison: Comparison | None
    wanted: LabelMap | None
    found: LabelMap | None
    inputs: tuple[Source, ...] = ()
    made: Provenance | None = None

    @property
    def figures(self) -> tuple[ImageMeasure, ...]:
        """Everything in rows of one kind: comparison, anatomy, uncertainty."""
        anatomy = (
            ImageMeasure(name, getattr(label, attribute), unit, label.sentence, label.name)
            for label in self.anatomy
            for name, attribute, unit in ANATOMY
        )
        return (*self.rows, *anatomy, *self.uncertainty)

    @property
    def uncertainty(self) -> tuple[ImageMeasure, ...]:
        """The figures of the uncertainty, under names that tell them from the others."""
        rows = () if self.calibration is None else self.calibration.rows
        return tuple(replace(row, name=f"Uncertainty: {row.name}") for row in rows)

    @property
    def badness(self) -> float:
        """Grows as the image gets worse: the MAE, or without a reference 1 - the mean Dice."""
        errors = [row.value for row in self.rows if row.name == "MAE" and not row.label]
        if errors and errors[0] is not None:
            return errors[0]
        return 0.0 if self.mean_dice is None else 1 - self.mean_dice

    @property
    def mean_dice(self) -> float | None:
        """Over the labels, those that are missing on one side with their 0; None without any."""
        dice = [row.dice for row in self.anatomy if row.dice is not None]
        return sum(dice) / len(dice) if dice else None

    def without_voxels(self) -> Evaluation:
        """The figures alone, which take next to no memory."""
        return replace(self, image=None, comparison=None, wanted=None, found=None)

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON types."""
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
    """Where the images of a case come from, for its report.

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
    """Measure an image in every way that the given images allow.

    Parameters
    ----------
    {options}
    origin: of the images, for the report.
    progress: called at every step; what it raises stops the evaluation.

    Raises
    ------
    InputError: there is nothing to compare with, an input is useless without another one, or two
        do not fit together.
    """
    require_purpose(reference, mask, labels, segmenter, uncertainty)
    check_finite(image, "The image")
    reference, mask, labels, uncertainty = (
        grid and in_order_of(grid, image) for grid in (reference, mask, labels, uncertainty)
    )
    given = {"image": image, "reference": reference, "mask": mask, "labels": labels, "uncertainty": uncertainty}
    origin = origin or CaseOrigin()
    inputs = tuple(Source.of(role, grid, origin.files.get(role, "")) for role, grid in given.items() if grid)
    find, resample = _segmenter(segmenter, options["device"]), options["resample"]
    if labels is not None and find is not None:
        labels = _named(labels, find)
    notes: list[str] = []
    comparison = calibration = None
    if reference is not None:
        comparison = compare(image, reference, mask, labels, resample=resample, progress=progress)
        notes.append(comparison.note)
    if uncertainty is not None and comparison is not None:
        calibration = error_correlation(uncertainty, comparison)
        notes.append(f"Uncertainty: {calibration.note}")
    modality = comparison.reference.modality if comparison else guess_modality(image)
    image = image.with_array(image.array, image.modality or modality)
    anatomy: tuple[LabelRow, ...] = ()
    wanted = found = None
    if find is not None and labels is not None:
        wanted = _on_grid(labels, image, resample, notes)
        found = find(image, progress)
        anatomy = _anatomy(wanted, found, find, notes)
    rows = comparison.rows if comparison else ()
    note = " ".join(filter(None, notes))
    judged = (rows, anatomy, calibration, note, image, comparison, wanted, found)
    return Evaluation(origin.name, *judged, inputs, origin.made)


def require_purpose(reference: object, mask: object, labels: object, segmenter: object, uncertainty: object) -> None:
    """Raise InputError if the inputs that are given (not None) cannot lead to a figure."""
    if reference is None and (labels is None or segmenter is None):
        raise InputError(
            "There is nothing to compare the image with; give a reference, or labels together "
            "with a segmenter that finds them in the image."
        )
    if segmenter is not None and labels is None:
        raise InputError("A segmenter was named but no labels; give the label volume that the image should show.")
    for name, given in (("mask", mask), ("uncertainty", uncertainty)):
        if given is not None and reference is None:
            raise InputError(f"The {name} is of use only with a reference; give one as well.")


def in_order_of(grid: Grid, image: Volume) -> Grid:
    """The same voxels stored in the order of the image's, if both have one lattice in space.

    DICOM is read with its rows from front to back, most other files hold them from back to front:
    that is no other grid and needs no resampling. Anything else is given back as it is.
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


def _named(labels: LabelMap, segmenter: Segmenter) -> LabelMap:
    """Labels without a name get the one that the segmenter uses for that number."""
    known = {value: segmenter.labels.names.get(value, "") for value in labels.values()}
    names = {value: labels.names.get(value) or name for value, name in known.items()}
    return labels.with_array(labels.array, {v: name for v, name in names.items() if name})


def _on_grid(labels: LabelMap, image: Volume, resample: bool, notes: list[str]) -> LabelMap:
    if labels.geometry.is_close(image.geometry):
        return labels
    if not resample:
        advice = "bring them onto one grid first (--resample does)"
        require_same_grid(("image", image), ("label volume", labels), advice)
    note = "The label volume was resampled onto the grid of the image."
    if not any(note in other for other in notes):
        notes.append(note)
    return resample_to(labels, image)


def _anatomy(wanted: LabelMap, found: LabelMap, segmenter: Segmenter, notes: list[str]) -> tuple[LabelRow, ...]:
    """Rows of the labels that the segmenter knows, without those that are nowhere."""
    notes.append(f"Labels were found again in the image by {segmenter.name}.")
    unknown = [value for value in wanted.values() if value not in segmenter.labels.names]
    if unknown:
        listed = ", ".join(wanted.names.get(value) or f"label {value}" for value in unknown)
        notes.append(f"It does not know {listed}.")
    names = {value: wanted.names.get(value) or name for value, name in segmenter.labels.names.items() if value > 0}
    rows = compare_labels(wanted, found, names)
    return tuple(row for row in rows if row.wanted_ml or row.found_ml)
