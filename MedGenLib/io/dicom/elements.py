"""DICOM value helpers: decimal strings, code sequence items, texts of limited length."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LONG_STRING, SHORT_TEXT, LONG_TEXT = 64, 1024, 10240
"""Maximum length in characters of the value representations LO, ST and LT (PS3.5 6.2)."""


SYNTHETIC = "SYNTHETIC"
"""First word of the series description of a synthetic series, which viewers display."""
SYNTHETIC_DATA = 0x0008001C
"""Tag of the attribute Synthetic Data, added to the standard in 2024. It is read but not written:
validators in current use, such as Debian's dciodvfy of 2022, report it as an error. Other attributes
mark synthetic images instead."""


def is_synthetic(header: Dataset) -> bool:
    """Whether a header marks its series as synthetic."""
    if SYNTHETIC_DATA in header and header[SYNTHETIC_DATA].value == "YES":
        return True
    return str(header.get("SeriesDescription") or "").startswith(SYNTHETIC)


def decimal(number: float) -> str:
    """Decimal string (DS) of at most 16 characters, rounded as little as that allows."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(number))


def decimals(numbers) -> list[str]:
    return [decimal(number) for number in numbers]


def code(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """Item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def shortened(text: str, limit: int = LONG_STRING) -> str:
    """Text on one line, shortened to the limit; backslashes, which separate values, become slashes."""
    plain = " ".join(text.replace("\\", "/").split())
    return plain if len(plain) <= limit else plain[: limit - 3].rstrip() + "..."
