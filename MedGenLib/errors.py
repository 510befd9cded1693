"""Exceptions whose message is one plain sentence: what is wrong, where, what to do."""

from __future__ import annotations


class MedGenError(Exception):
    """Base of every error that is meant to be read by the user.

    `detail` is text for the log, such as a traceback; it is empty where there is nothing to add.
    """

    detail: str = ""


class InputError(MedGenError):
    """The input image, mask, path or option cannot be used."""


class DiskFullError(InputError):
    """A file could not be written for want of room."""


class PackageError(MedGenError):
    """A model package is missing, damaged or not allowed."""


class LicenseError(MedGenError):
    """The model's licence has to be accepted first."""


class MemoryPlanError(MedGenError):
    """The request does not fit into the memory that is free."""


class WorkerError(MedGenError):
    """The worker could not start, ended, or does not answer; or it met a fault of the program."""


class Cancelled(MedGenError):
    """The user stopped the run; nothing was written."""
