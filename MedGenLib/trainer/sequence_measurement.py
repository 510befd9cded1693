"""Measurement of a sequence model on people kept out: its frames against the real ones, and against no motion."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedGenLib.checks.output import check_series
from MedGenLib.devices import pick_device
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.io.files import read_frames
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.base import SamplingOptions, pipeline_of
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.trainer.datasets import LabeledImage
from MedGenLib.trainer.pair_measurement import PICTURES, Figure, MeasuredTranslation
from MedGenLib.trainer.sequence_plan import SequencePlan

RATIO = "Error relative to no motion"
MEASURES = {
    "error": "Mean absolute error",
    "still": "Mean absolute error of no motion",
    "ratio": RATIO,
    "farthest": "Mean absolute error of the farthest frame",
    "farthest_still": "Mean absolute error of no motion in the farthest frame",
    "jacobian": "Smallest Jacobian",
}
"""Key of a record -> name; errors are those of all frames after the first one."""


def measure_series(
    manifest: Manifest,
    plan: SequencePlan,
    cases: Sequence[LabeledImage],
    folder: Path,
    device: str,
    progress: ProgressCallback | None = None,
) -> MeasuredTranslation:
    """Make the series of each held-out first frame on its own grid, and compare it with the real one.

    The figures are written to ``folder``; those that are there are kept, so that a killed run goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in cases if case.subject in plan.held_out]
    stage, records, pictures = Stage("measuring", len(chosen), progress), [], []
    for case in chosen:
        record, picture = folder / f"{case.name}.json", folder / f"{case.name}.png"
        if not record.is_file():
            write_json(record, _measured(manifest, case, plan, device, picture))
        records.append(json.loads(record.read_text(encoding="utf-8")))
        caption = f"{case.name}, the frame that is farthest from the first one: the real and the predicted one."
        pictures.append((caption, picture.read_bytes()))
        stage.advance()
    figures = [
        Figure(name, "" if key in ("ratio", "jacobian") else plan.unit, [record[key] for record in records])
        for key, name in MEASURES.items()
    ]
    people = {case.subject for case in chosen}
    ratios = [[r["ratio"] for c, r in zip(chosen, records, strict=True) if c.subject == person] for person in people]
    row = Figure(RATIO, "", [float(np.mean(own)) for own in ratios]).row()
    between = "no interval" if row.low is None else f"95 % interval {row.low:.3g} to {row.high:.3g}"
    found = f"{RATIO}, over people ({len(people)}): {row.value:.3g} ({between})"
    verdict = "has not learned the motion" if row.value >= 1 else "may be no better than no motion"
    sentence = f"The model {verdict}: {found}, and 1 is the first frame repeated; train it longer, or on more people."
    faults = [sentence] if max(row.value, row.high or 0) >= 1 else []
    passed = sum(record["passed"] for record in records)
    return MeasuredTranslation(figures, None, [found], passed, len(records), pictures[:PICTURES], faults)


def _measured(manifest: Manifest, case: LabeledImage, plan: SequencePlan, device: str, picture: Path) -> dict:
    """The figures of a case; the picture of its farthest frame is written."""
    from MedGenLib.visual.planes import translation_planes

    real = read_frames(case.image, plan.modality)
    run = pipeline_of(manifest).prepare(real[0], pick_device(device), SamplingOptions())
    made = run.finish(run.decode(run.sample(0)))
    errors, still = (
        [_error(a, b) for a, b in zip(frames, real, strict=True)] for frames in (made, real[:1] * len(real))
    )
    far = int(np.argmax(still))
    images = {"First frame": real[0], "Real": real[far], "Predicted": made[far]}
    images["Predicted minus real"] = real[0].with_array(made[far].array.astype(np.float32) - real[far].array)
    with replacing(picture) as temporary:
        temporary.write_bytes(translation_planes(images))
    return {
        "error": float(np.mean(errors[1:])),
        "still": float(np.mean(still[1:])),
        "ratio": float(np.mean(errors[1:]) / max(np.mean(still[1:]), 1e-9)),
        "farthest": errors[far],
        "farthest_still": still[far],
        "jacobian": run.least_jacobian,
        "passed": check_series(made, run.least_jacobian).passed,
    }


def _error(made: Volume, real: Volume) -> float:
    return float(np.abs(made.array.astype(np.float32) - real.array).mean(dtype=np.float64))
