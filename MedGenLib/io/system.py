"""Operating system helpers for reading files: a memory check and silencing of C libraries."""

from __future__ import annotations

import contextlib
import locale
import os
import sys
from collections.abc import Iterator

from MedGenLib.errors import MemoryPlanError


def plan_memory(needed: int, what: str) -> None:
    """Raise MemoryPlanError unless `needed` bytes of memory are free; `what` starts the sentence."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryPlanError(
            f"{what} needs {needed / 2**30:.1f} GiB of memory, but "
            f"{free / 2**30:.1f} GiB are free; crop or resample the image first."
        )


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """For calls of SimpleITK: no text on stderr (errors are exceptions), and numbers with a decimal point.

    Qt sets a locale in which C libraries write and expect a decimal comma.
    """
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    with decimal_point(), _silent_stderr():
        yield


@contextlib.contextmanager
def decimal_point() -> Iterator[None]:
    """Numbers of C libraries have a decimal point, whatever locale the program has set."""
    saved = locale.setlocale(locale.LC_NUMERIC)
    if saved == "C":
        yield
        return
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_NUMERIC, saved)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    try:
        saved = os.dup(2)
    except OSError:  # a program without a terminal
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
