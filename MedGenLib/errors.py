"""Exceptions whose message is one sentence: what is wrong, where, what to do."""

from __future__ import annotations

from collections.abc import Iterable


class MedGenError(Exception):
    """Base of the errors whose message is meant for the user.

    `detail`: text for the log, such as a traceback; may be empty.
    """

    detail: str = ""


class InputError(MedGenError):
    """The input image, mask, path or option cannot be used."""


class DiskFullError(InputError):
    """A file could not be written because the disk is full."""


class PackageError(MedGenError):
    """A model package is missing, damaged or not allowed."""


class LicenseError(MedGenError):
    """The model's license must be accepted first."""


class MemoryPlanError(MedGenError):
    """The request does not fit into the free memory."""


class WorkerError(MedGenError):
    """The worker could not start, ended, does not answer, or failed with an unexpected error."""


class Cancelled(MedGenError):
    """The user stopped the run; nothing was written."""


def listed(words: Iterable[str], most: int = 8) -> str:
    """The first words of a list, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
