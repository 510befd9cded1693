"""De-identification of headers: PS3.15 Annex E, Basic Application Confidentiality Profile.

The rules are those of the library dicom-anonymizer. They are applied to the header of the source
series before any attribute is copied from it. UIDs and the patient ID are replaced by keyed hashes
with a secret key of the user: images and masks exported one by one keep their references to each
other, and the original identifiers cannot be recovered without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError
from MedGenLib.io.dicom.elements import code
from MedGenLib.io.dicom.source import SourceSeries

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEY = "pseudonym_key"
"""Entry of the user's configuration that holds the key as hexadecimal text."""

_EMPTIED = ((0x0008, 0x0020), (0x0008, 0x0030), (0x0010, 0x0030))
"""Study date, study time and birth date. The profile allows an empty or a dummy value; the dummy of
the library, a day in the year 1, could be taken for a real date."""


def deidentified(source: SourceSeries) -> SourceSeries:
    """The series with replaced UIDs, patient name and patient ID, and without dates.

    Raises
    ------
    InputError: the library is missing, or the key cannot be read or stored.
    """
    pseudonyms = Pseudonyms()
    images = []
    for image in source.images:
        sop_class, instance = image.instance
        images.append(replace(image, instance=(sop_class, pseudonyms.uid(instance))))
    header = remove_patient(source.header, pseudonyms)
    return SourceSeries(header, tuple(images), source.is_synthetic)


def remove_patient(header: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """Copy of a header after the basic profile, without private attributes."""
    import copy

    anonymize_dataset, initialize_actions, replace_uid = _library()
    clean = copy.deepcopy(header)
    rules: dict[tuple, Callable] = {
        tag: pseudonyms.replace_uid for tag, action in initialize_actions().items() if action is replace_uid
    }
    rules.update(dict.fromkeys(_EMPTIED, _empty))
    rules[0x0010, 0x0010] = _replace_name
    rules[0x0010, 0x0020] = pseudonyms.replace_id
    anonymize_dataset(clean, rules, True, initialize_actions)
    return clean


def mark(dataset: Dataset) -> None:
    """Set the attributes that state that and how the identity was removed."""
    from MedGenLib import __version__

    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [
        "PS3.15 Basic Application Confidentiality Profile",
        f"MedGen {__version__} with dicom-anonymizer",
    ]
    dataset.DeidentificationMethodCodeSequence = [
        code("113100", "Basic Application Confidentiality Profile"),
        code("113105", "Clean Descriptors Option"),
    ]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


class Pseudonyms:
    """Maps identifiers to pseudonyms, consistently, with the user's key (HMAC-SHA256)."""

    def __init__(self) -> None:
        self._key = _key()

    def uid(self, original: str) -> str:
        """Pseudonym of a UID."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', original)[:16], version=4).int}"

    def patient(self, original: str) -> str:
        """Pseudonym of a patient ID; "" stays empty."""
        return f"ANON-{self._digest('patient', original).hex()[:12].upper()}" if original else ""

    def replace_uid(self, dataset: Dataset, tag: tuple[int, int]) -> None:
        """Rule for dicom-anonymizer: replace a UID attribute."""
        element = dataset.get(tag)
        if element is not None and element.value:
            values = [element.value] if element.VM == 1 else list(element.value)
            replaced = [self.uid(str(value)) for value in values]
            element.value = replaced if element.VM > 1 else replaced[0]

    def replace_id(self, dataset: Dataset, tag: tuple[int, int]) -> None:
        """Rule for dicom-anonymizer: replace the patient ID."""
        if tag in dataset:
            dataset[tag].value = self.patient(str(dataset[tag].value or ""))

    def _digest(self, kind: str, original: str) -> bytes:
        return hmac.new(self._key, f"{kind} {original}".encode(), hashlib.sha256).digest()


def _replace_name(dataset: Dataset, tag: tuple[int, int]) -> None:
    if tag in dataset:
        dataset[tag].value = "ANONYMOUS^PATIENT"


def _empty(dataset: Dataset, tag: tuple[int, int]) -> None:
    if tag in dataset:
        dataset[tag].value = ""


def _key() -> bytes:
    from MedGenLib.io.user_config import config_path, read_config, write_config

    config = read_config()
    if _KEY not in config:
        config[_KEY] = secrets.token_hex(32)
        write_config(config)
    try:
        return bytes.fromhex(config[_KEY])
    except (TypeError, ValueError):
        raise InputError(f'The entry "{_KEY}" of {config_path()} is not hexadecimal text; remove that entry.') from None


def _library() -> tuple[Callable, Callable, Callable]:
    try:
        from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions_2024b, replace_UID
    except ImportError:
        raise InputError(
            "De-identification needs the Python package dicom-anonymizer; install it, or export without it."
        ) from None
    return anonymize_dataset, initialize_actions_2024b, replace_UID
