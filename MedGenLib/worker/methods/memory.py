"""Retry with the small memory plan."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from MedGenLib.errors import MemoryPlanError
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import edit
from MedGenLib.worker.threads import note_memory_failure, run

if TYPE_CHECKING:
    from MedGenLib.result import Result


def within_memory(job: Request, attempt: Callable[[str], Result], memory: str, device: str, what: str) -> Result:
    """Run with the requested plan and, if memory is insufficient, with the small one.

    Parameters
    ----------
    attempt: the run, called with the memory plan.
    what: kind of input, for the error sentence.
    """
    result, failure, detail = _tried(attempt, memory)
    if result is not None:
        return result
    _forget_networks()
    if memory == "small":
        raise too_large(failure, detail, device, what)
    from MedGenLib.devices import favor_small_memory
    from MedGenLib.findings import Finding
    from MedGenLib.pipelines.memory_plan import SMALL_PLAN

    job.log(f"{failure} Trying again with the small plan.", "warning")
    favor_small_memory()
    result, failure, detail = run(lambda: _tried(attempt, "small"))
    if result is None:
        _forget_networks()
        raise too_large(failure, detail, device, what)
    result.report.input_findings.append(Finding("warning", "small-plan", SMALL_PLAN))
    return result


def too_large(failure: str, detail: str, device: str, what: str) -> MemoryPlanError:
    """The error for a run without enough memory even for the small plan."""
    import torch

    if "; " in failure:  # the sentence of a refused plan already says what to do
        sentence = failure.rstrip(".")
    else:
        sentence = f"{failure.rstrip('.')}, even with the small plan; crop the {what}, give it "
        sentence += "larger voxels or close other programs"
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    error = MemoryPlanError(f"{sentence}{', or compute on the CPU' if on_gpu else ''}.")
    error.detail = detail
    return error


def _tried(attempt: Callable[[str], Result], memory: str) -> tuple[Result | None, str, str]:
    """The result; or None, a sentence and the detail if memory was insufficient.

    Returns only the text of the error, as the error itself would keep arrays alive.
    """
    from MedGenLib.devices import is_out_of_memory

    try:
        return attempt(memory), "", ""
    except MemoryPlanError as error:
        return None, str(error), ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        note_memory_failure()
        return None, "The memory is full.", "".join(traceback.format_exception(error))


def _forget_networks() -> None:
    from MedGenLib.devices import release_memory
    from MedGenLib.pipelines import loading

    loading.forget()
    edit.forget()
    release_memory()
