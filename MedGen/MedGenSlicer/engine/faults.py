"""Errors in sentences for the user."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from MedGenLib.errors import InputError, MedGenError, WorkerError


def asSentence(error: Exception) -> MedGenError:
    """What happened in a run, for the user; a fault of the program is also logged."""
    if isinstance(error, MedGenError):
        return error
    if isinstance(error, OSError):
        return InputError(
            _(
                "The files of the run cannot be written or read ({reason}); free some space or choose "
                "another temporary folder in Slicer's application settings."
            ).format(reason=error.strerror or error)
        )
    if isinstance(error, MemoryError):
        return InputError(_("Slicer ran out of memory; close other volumes or crop the input."))
    logging.error("MedGen: a run failed unexpectedly", exc_info=error)
    return WorkerError(
        _("The run failed unexpectedly ({kind}: {text}); nothing was added. Please report it with the log.").format(
            kind=type(error).__name__, text=error
        )
    )


def notify(callback: Callable[..., None] | None, *arguments: Any) -> None:
    """Call what a caller gave, if anything; a fault in it is logged and does not stop the work it is about."""
    if callback is None:
        return
    try:
        callback(*arguments)
    except Exception:
        logging.exception("MedGen: a callback raised")
