"""Patient and study attributes, from a DICOM header or of a new synthetic patient, and UIDs."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "QualityControlSubject",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
)
"""Attributes of a source that all series of a study share. No others but `FRAME` are copied."""

FRAME = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality")
"""Attributes that images of the same body part in the same frame of reference share."""

_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
    "PatientPosition",
)
"""Attributes of type 2: present, and empty if unknown."""

_UNPAIRED = frozenset(
    (
        "ABDOMEN",
        "ABDOMENPELVIS",
        "AORTA",
        "BLADDER",
        "BODY",
        "BRAIN",
        "CERVIX",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "COCCYX",
        "COLON",
        "CSPINE",
        "CTSPINE",
        "ESOPHAGUS",
        "FACE",
        "HEAD",
        "HEADNECK",
        "HEART",
        "JAW",
        "LIVER",
        "LSPINE",
        "LSSPINE",
        "MANDIBLE",
        "MAXILLA",
        "MEDIASTINUM",
        "MOUTH",
        "NECK",
        "NECKCHEST",
        "NECKCHESTABDOMEN",
        "NECKCHESTABDPELV",
        "NOSE",
        "PANCREAS",
        "PELVIS",
        "PENIS",
        "PHARYNX",
        "PROSTATE",
        "RECTUM",
        "SACRUM",
        "SELLA",
        "SKULL",
        "SPINE",
        "SPLEEN",
        "SSPINE",
        "STERNUM",
        "STOMACH",
        "THORAX",
        "THYMUS",
        "TLSPINE",
        "TONGUE",
        "TRACHEA",
        "TSPINE",
        "UTERUS",
        "VAGINA",
        "VULVA",
        "WHOLEBODY",
    )
)
"""Unpaired body parts (PS3.16 Annex L), for which Laterality must be absent."""

_SEXES = ("M", "F", "O")

_NAMESPACE = uuid.UUID("5b0a5b0e-6c1c-4b52-9c0e-9f6f2f3d8f10")
"""Namespace of the UUIDs of `derived_uid`; must not change."""


def new_uid() -> str:
    """Globally unique UID from a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def derived_uid(*words: str) -> str:
    """UID determined by the words, from a name-based UUID (PS3.5 B.2, RFC 9562)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"


def identity_of(header: Dataset) -> Dataset:
    """Patient, study and frame of reference attributes of a header.

    Values that violate their value representation are left out, so that they are not copied into
    derived images.
    """
    from pydicom.dataset import Dataset

    identity = Dataset()
    for keyword in (*PATIENT_AND_STUDY, *FRAME):
        value = _sound_value(header, keyword)
        if value is not None:
            # A name converted to text is encoded in our character set, not that of the source.
            setattr(identity, keyword, str(value) if keyword == "PatientName" else value)
    identity.remove_private_tags()
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if not any(keyword in identity for keyword in methods):
        # Patient Identity Removed requires a method, and the source gives none.
        identity.pop("PatientIdentityRemoved", None)
    return _completed(identity, str(header.SeriesInstanceUID))


def synthetic_identity(facts: Mapping[str, Any]) -> Dataset:
    """Attributes of a new synthetic patient and study, for an image without a source series.

    Images made from the same input share the patient and the frame of reference, and the study if
    written on the same day. Without a recorded input, every call gives a new patient.
    """
    from pydicom.dataset import Dataset

    hashes = [entry.get("sha256") for entry in facts.get("inputs") or []]
    seed = next(filter(None, hashes), None) or secrets.token_hex(32)
    identity, today = Dataset(), datetime.now().strftime("%Y%m%d")
    kind = "SYNTHETIC" if facts else "UNKNOWN"
    identity.PatientName = f"MEDGEN^{kind}"
    identity.PatientID = f"MEDGEN-{derived_uid('patient', seed)[-12:]}"
    if facts:
        identity.QualityControlSubject = "YES"
    identity.StudyInstanceUID = derived_uid("study", seed, today)
    identity.StudyDate, identity.StudyID = today, "1"
    identity.StudyDescription = f"MedGen {kind.lower()} patient"
    return _completed(identity, seed)


def _sound_value(header: Dataset, keyword: str) -> Any:
    """Value of an attribute; None if it is absent, empty or not valid."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if keyword not in header:
        return None
    try:
        element = header[keyword]  # converts text to numbers, which may fail
        if element.VR != "SQ":
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, str(value), RAISE)
    except (ValueError, TypeError, OverflowError):
        return None
    if element.is_empty or keyword == "PatientSex" and element.value not in _SEXES:
        return None
    return element.value


def _completed(identity: Dataset, seed: str) -> Dataset:
    for keyword in _REQUIRED:
        if keyword not in identity:
            setattr(identity, keyword, "")
    for keyword, word in (("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame")):
        if keyword not in identity:
            setattr(identity, keyword, derived_uid(word, seed))
    if identity.get("BodyPartExamined") in _UNPAIRED:
        identity.pop("Laterality", None)
    elif "Laterality" not in identity:
        identity.Laterality = ""
    return identity
