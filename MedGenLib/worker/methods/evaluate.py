"""The worker's method that measures an image."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

from MedGenLib.options import EvaluateOptions, documented
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method


@method("evaluate")
@documented("evaluate", "worker")
def evaluate(
    job: Request, folder: str | None = None, names: Mapping[str, str] | None = None, **options: Unpack[EvaluateOptions]
) -> dict[str, Any]:
    """Measure an image, as `MedGenLib.evaluation.pair.evaluate`.

    Parameters
    ----------
    folder: folder of the error map; None for the folder of `initialize`.
    names: role of an image ("image", "reference", ...) -> its name in the report.
    {options}

    Returns
    -------
    rows, anatomy, note; error_map: None without a reference; report: path of report.html, None if not requested.
    """
    from MedGenLib.evaluation import pair
    from MedGenLib.evaluation import report as files
    from MedGenLib.evaluation.folders import report_folder
    from MedGenLib.worker.protocol.transfer import put, take_images

    target, names = job.folder(folder), names or {}
    given = take_images("evaluate", options)
    report, overwrite = given.pop("report"), given.pop("overwrite")
    page = None if report is None else Path(report) / files.REPORT
    with ExitStack() as stack:
        if page is not None:  # the path is checked before the work
            names_of_files = files.file_names(True, given["reference"] is not None)
            outputs = stack.enter_context(report_folder(page.parent, names_of_files, overwrite))
        origin = pair.CaseOrigin(names.get("image", ""), names)
        found = pair.evaluate(**given, origin=origin, progress=job.progress)
        if page is not None:
            files.write(found, outputs, page.parent)
        error_map = None
        if found.comparison is not None:
            name = f"{job.method}-{job.number}-error"
            error_map = put(found.comparison.difference, target, name, job.check)
        if page is not None:
            outputs.commit()
    return {
        "rows": [vars(row) for row in (*found.rows, *found.uncertainty)],
        "anatomy": [row.to_dict() for row in found.anatomy],
        "note": found.note,
        "error_map": error_map,
        "report": None if page is None else str(page),
    }
