"""Work on another thread after memory ran out.

The code generator of oneDNN keeps its first error for the rest of the thread: once it could not allocate memory, each
new kernel of that thread fails with "could not create a primitive", however much memory is free. The memory itself is
given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_failed = threading.Event()


def note_memory_failure() -> None:
    """From now on, `run` uses a new thread for each piece of work."""
    _failed.set()


def run(work: Callable[[], T]) -> T:
    """The value of the work, or the error that it raises; on this thread unless memory ran out before."""
    if not _failed.is_set():
        return work()
    values: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            values.append(work())
        except BaseException as error:  # raised again on the thread that waits
            errors.append(error)

    thread = threading.Thread(target=attempt, name="work after a memory failure")
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return values[0]
