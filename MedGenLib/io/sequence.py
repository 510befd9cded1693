"""What the files of an MR image say about its contrast: DICOM headers, the description in NIfTI, the JSON beside it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.imaging.weighting import contrast_of
from MedGenLib.io.output_names import split_suffix

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TEXTS = ("SeriesDescription", "ProtocolName", "SequenceName")
_TIMES = ("EchoTime", "RepetitionTime", "InversionTime")
_ENHANCED_TEXTS = ("PulseSequenceName", "AcquisitionContrast")
_ENHANCED_TIMES = ("EffectiveEchoTime", "RepetitionTime", "InversionTimes")
_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
"""Where an enhanced (multi-frame) image states its times."""
DICOM_TAGS = (*_TEXTS, *_TIMES, *_ENHANCED_TEXTS, *_GROUPS)
_ECHO = re.compile(r"\bTE=([\d.]+)")
"""As dcm2niix writes it, in ms."""


def contrast_in_dicom(header: Dataset) -> str | None:
    """Contrast by the header of a DICOM image of MR that was read with `DICOM_TAGS`."""
    from MedGenLib.io.dicom.headers import optional_number, text

    words = [text(header, key) for key in (*_TEXTS, *_ENHANCED_TEXTS)]
    times = [optional_number(header, key) for key in _TIMES]
    for group in (group for key in _GROUPS for group in list(header.get(key) or ())[:1]):
        for item in (item for element in group if element.VR == "SQ" for item in element.value):
            found = [optional_number(item, key) for key in _ENHANCED_TIMES]
            times = [new if old is None else old for old, new in zip(times, found, strict=True)]
    return contrast_of(" ".join(words), *times)


def contrast_beside(path: Path, description: str) -> str | None:
    """Contrast by the description in a NIfTI header, or by the JSON of BIDS beside it, whose times are in seconds."""
    facts = _facts_beside(path)
    texts = " ".join(str(facts.get(key, "")) for key in _TEXTS)
    times = [1000 * _number(facts[key]) if key in facts else None for key in _TIMES]
    if times[0] is None and (found := _ECHO.search(description)):
        times[0] = _number(found[1])
    return contrast_of(texts, *times)


def contrast_by_name(path: Path) -> str | None:
    """Contrast by the words of a file's name, such as sub-01_T2w.nii.gz or flair.nii.gz."""
    return contrast_of(split_suffix(path)[0])


def _facts_beside(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):  # absent, or no JSON: it is not needed
        facts = json.loads(path.with_name(split_suffix(path)[0] + ".json").read_text("utf-8"))
        return facts if isinstance(facts, dict) and facts.get("Modality", "MR") == "MR" else {}
    return {}


def _number(value: Any) -> float:
    with suppress(TypeError, ValueError):
        return float(value)
    return 0.0
