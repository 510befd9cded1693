"""Small pieces of DICOM: numbers as text, codes, and texts of limited length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LONG_STRING, SHORT_TEXT, LONG_TEXT = 64, 1024, 10240
"""Characters that a value of the kinds LO, ST and LT can hold (PS3.5 6.2)."""


SYNTHETIC = "SYNTHETIC"
"""First word of the description of a synthetic series, which every viewer shows."""
SYNTHETIC_DATA = 0x0008001C
"""The attribute Synthetic Data, read where others wrote it. It came into the standard in 2024;
validators that hospitals use today, such as Debian's dciodvfy of 2022, call it an error, so it is
not written: what is synthetic says so in attributes that they know."""


def is_synthetic(header: Dataset) -> bool:
    """Whether a series says that its content was made, not acquired."""
    if SYNTHETIC_DATA in header and header[SYNTHETIC_DATA].value == "YES":
        return True
    return str(header.get("SeriesDescription") or "").startswith(SYNTHETIC)


def decimal(number: float) -> str:
    """A decimal string (DS) of at most 16 characters, as exact as that allows."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(number))


def decimals(numbers) -> list[str]:
    return [decimal(number) for number in numbers]


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """One item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def shortened(text: str, limit: int = LONG_STRING) -> str:
    """The text on one line, without the backslash that would split it, within the limit."""
    plain = " ".join(text.replace("\\", "/").split())
    return plain if len(plain) <= limit else plain[: limit - 3].rstrip() + "..."
