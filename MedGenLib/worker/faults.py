"""Errors of the system and of libraries as sentences for the user."""

from __future__ import annotations

import sys
from pathlib import Path

from MedGenLib.errors import MedGenError, MemoryPlanError, WorkerError
from MedGenLib.requirements import missing, use_of
from MedGenLib.worker.protocol.messages import error_of


def explained(error: BaseException) -> BaseException:
    """The error, replaced by one with a sentence for the user where there is one for its kind."""
    if isinstance(error, MedGenError):
        return error
    found = _explained(error)
    if found is None:
        return error
    found.detail = error_of(error)["data"]["detail"]
    return found


def _lacking(module: str) -> WorkerError:
    """The error for a missing module; it lists all distributions that are not installed of those for the same use."""
    names = missing(use_of(module)) or [module]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]
    plural = "s" if len(names) > 1 else ""
    error = WorkerError(
        f"The worker's Python ({sys.executable}) lacks the package{plural} {listed}; install "
        f"{'them' if plural else 'it'} (in Slicer with the button Install of MedGen, elsewhere "
        "with pip)."
    )
    error.detail = f"missing: {' '.join(names)}"
    return error


def _explained(error: BaseException) -> MedGenError | None:
    from MedGenLib.devices import is_out_of_memory

    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("MedGenLib"):
        return _lacking(str(error.name))
    if is_out_of_memory(error):
        return MemoryPlanError("The memory is full; use a smaller input or larger voxels, or close other programs.")
    if isinstance(error, OSError):
        from MedGenLib.worker.protocol.transfer import DISK_FULL, write_error

        if error.errno in DISK_FULL:
            return write_error(error, Path(error.filename or "a file"))
    return None
