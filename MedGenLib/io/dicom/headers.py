"""Headers of DICOM files: read tolerantly, with numbers checked where they are needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""First bytes of a data set without the preamble: group 2 or group 8, little endian."""
_BINARY = {"FD", "FL", "SL", "SS", "UL", "US"}
"""Representations of numbers that are no text."""
_COMMA = re.compile(r"[+-]?\d*,\d+")


def read_tags(path: Path, tags: Sequence[str | int]) -> Dataset | None:
    """Data set of a DICOM file with these attributes only; None if the file is not DICOM.

    Attributes whose value does not have the type of their representation are left out.

    Raises
    ------
    InputError: the file cannot be read or is damaged.
    """
    header = read_raw(path, tags)
    if header is not None:
        drop_invalid(header)
    return header


def read_raw(path: Path, tags: Sequence[str | int] | None = None) -> Dataset | None:
    """As `read_tags`, with values that may be invalid; all attributes and the pixels if `tags` is None."""
    import pydicom

    try:
        with open(path, "rb") as stream:
            start = stream.read(132)
        if start[128:] != b"DICM" and not _starts_data_set(start):
            return None
        header = pydicom.dcmread(
            path, stop_before_pixels=tags is not None, specific_tags=None if tags is None else list(tags), force=True
        )
        if "TransferSyntaxUID" not in header.file_meta:
            header.file_meta.TransferSyntaxUID = _syntax(header)
        return header
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}; check the file.") from None
    except Exception:  # pydicom raises many types of exceptions for invalid bytes
        raise InputError(f"{path} is a damaged DICOM file; copy it again or remove it.") from None


def _starts_data_set(start: bytes) -> bool:
    """Whether bytes begin with an element of group 2 or 8, as in a file without the preamble."""
    if len(start) < 12 or start[:2] not in _FIRST_GROUPS or start[3] != 0:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return explicit or int.from_bytes(start[4:8], "little") < 1 << 16


def _syntax(header: Dataset) -> str:
    implicit, little = header.original_encoding
    if implicit:
        return "1.2.840.10008.1.2"
    return "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"


def drop_invalid(header: Dataset) -> None:
    """Remove the attributes that pydicom cannot convert, such as letters in an integer."""
    for tag in list(header.keys()):
        try:
            header[tag]
        except Exception:  # pydicom raises many types of exceptions for invalid values
            del header[tag]


def text(header: Dataset, keyword: str) -> str:
    """Value as text, several values with backslashes between them; "" if the attribute is absent."""
    from pydicom.datadict import dictionary_VR

    if keyword not in header:
        return ""
    try:
        is_binary = dictionary_VR(keyword) in _BINARY
        value = (header[keyword] if is_binary else header.get_item(keyword)).value
    except Exception:  # pydicom raises many types of exceptions for invalid bytes
        return ""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    elif isinstance(value, Iterable) and not isinstance(value, str):
        value = "\\".join(map(str, value))
    return "" if value is None else str(value).strip(" \0")


def numbers(header: Dataset, keyword: str, count: int = 1) -> list[float] | None:
    """Values of a decimal or integer string; a comma is read as the decimal point. None if there is none.

    Raises
    ------
    ValueError: the text is not `count` finite numbers; the message states attribute and text.
    """
    found = text(header, keyword)
    if not found:
        return None
    words = [word.strip(" \0") for word in found.split("\\")]
    try:
        values = [float(word.replace(",", ".") if _COMMA.fullmatch(word) else word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < float("inf") for value in values):
        wanted = "one number is" if count == 1 else f"{count} numbers are"
        raise ValueError(f'has "{found}" as {keyword}, where {wanted} expected')
    return values


def optional_number(header: Dataset, keyword: str) -> float | None:
    """As `numbers` for one value; None also for a text that is no number."""
    try:
        found = numbers(header, keyword)
    except ValueError:
        return None
    return None if found is None else found[0]


def integer(header: Dataset, keyword: str) -> int:
    """An integer, 0 if the attribute is absent or invalid."""
    try:
        return int(header.get(keyword) or 0)
    except Exception:  # pydicom raises many types of exceptions for invalid values
        return int(optional_number(header, keyword) or 0)
