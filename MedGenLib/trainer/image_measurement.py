"""Measurement of a generator without a mask against the images of people that were kept out of its training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedGenLib.evaluation.cohorts import CohortEvaluation
from MedGenLib.evaluation.html import Notice, Picture, Section
from MedGenLib.io.atomic import write_json
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.empty_grid import wanted_grid
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.trainer.datasets import LabeledImage
from MedGenLib.trainer.image_plan import ImagePlan
from MedGenLib.trainer.measurement import Row, cohort_folders, cohort_lines, cohort_rows, compared, generated

PICTURES = 4
LEAST_SHARE = 0.05
"""Of volumes that lie among those of the other side (precision and recall), below which the images are not learned."""


@dataclass(frozen=True)
class MeasuredImages:
    """What was measured: as `Measured`, without labels.

    Attributes
    ----------
    pictures: caption and picture of some volumes.
    """

    cohorts: CohortEvaluation | None
    reason: str
    passed: int
    cases: int
    pictures: Sequence[tuple[str, bytes]]

    @property
    def faults(self) -> list[str]:
        """That the model has not learned the images, where few of one side lie among those of the other."""
        found = {row.name: row.value for row in cohort_rows(self.cohorts)}
        precision, recall = found.get("precision", 1.0), found.get("recall", 1.0)
        if min(precision, recall) >= LEAST_SHARE:
            return []
        return [
            f"The model has not learned these images: {precision:.0%} of its volumes lie among the real ones, and "
            f"{recall:.0%} of the real ones among its volumes; train it longer."
        ]

    def rows(self) -> list[Row]:
        """The figures for a table of several models."""
        return [Row("Passed the checks", "%", 100 * self.passed / max(1, self.cases)), *cohort_rows(self.cohorts)]

    def lines(self) -> list[str]:
        """The figures as lines of a list for the model card."""
        found = f"{self.passed} of {self.cases} volumes, as many as held-out images, pass all checks of MedGen"
        return [*self.faults, found, *cohort_lines(self.cohorts, self.reason)]

    def section(self) -> Section:
        """The measurement in the page of the run."""
        notices = list(map(Notice, self.faults))
        pictures = [Picture(picture, caption, wide=True) for caption, picture in self.pictures]
        return Section("Measured on held-out people", [*notices, *self.lines()[len(notices) :], *pictures])


def measure_images(
    manifest: Manifest,
    plan: ImagePlan,
    cases: Sequence[LabeledImage],
    folder: Path,
    device: str,
    progress: ProgressCallback | None = None,
) -> MeasuredImages:
    """Generate a volume for each held-out image, of its class, and compare them on the grid of the model.

    The volumes are written to ``folder``; those that are there are kept, so that a killed run goes on.
    """
    made, real = cohort_folders(folder)
    prepared = folder / "prepared"
    prepared.mkdir(exist_ok=True)
    passed, pictures, training = [], [], {}
    stage = Stage("measuring", len(cases), progress)
    for number, case in enumerate(cases):
        out = case.subject in plan.held_out
        file = (real if out else prepared) / f"{case.name}.nii.gz"
        record = folder / f"{case.name}.json"
        if not record.is_file():
            image = read_volume(case.image, modality=plan.modality)
            write_volume(plan.fixed_grid.decoded(plan.fixed_grid.encoded(image)), file)
            if out:
                kind, grid = case.kind if plan.classes else None, wanted_grid(None, None, None, manifest)
                volume, good = generated(manifest, grid, number, device, kind)
                write_volume(volume, made / file.name)
            write_json(record, {"passed": good} if out else {})
        if out:
            passed.append(json.loads(record.read_text(encoding="utf-8"))["passed"])
            if len(pictures) < PICTURES:
                pictures.append(_picture(case, made / file.name, file, plan))
        else:
            training[case.name] = file
        stage.advance()
    cohorts, reason = compared(made, real, training, folder, device, progress)
    return MeasuredImages(cohorts, reason, sum(passed), len(passed), pictures)


def _picture(case: LabeledImage, made: Path, real: Path, plan: ImagePlan) -> tuple[str, bytes]:
    from MedGenLib.visual.planes import translation_planes

    images = {
        title: read_volume(file, modality=plan.modality) for title, file in (("Generated", made), ("Real image", real))
    }
    of = f" of the class {case.kind}" if plan.classes else ""
    return f"A generated volume{of} and the image {case.name}, which have nothing to do with each other.", (
        translation_planes(images)
    )
