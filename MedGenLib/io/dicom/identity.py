"""Whose image it is: patient and study of a DICOM header, or a new synthetic patient; and UIDs."""

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
"""What a series of a study shares with the others, of all the attributes of a source. Everything
else, private attributes among it, is left behind."""

PLACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality")
"""What else holds for every image of the same body in the same frame of reference."""

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
"""Attributes of type 2: there, but empty where nothing is known."""

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
"""Body parts (PS3.16 Annex L) that have no left and right: there Laterality must not be given."""

_SEXES = ("M", "F", "O")

_NAMESPACE = uuid.UUID("5b0a5b0e-6c1c-4b52-9c0e-9f6f2f3d8f10")
"""Of the name-based UUIDs behind `derived_uid`; chosen once, never to be changed."""


def new_uid() -> str:
    """A UID that nobody else has, made from a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def derived_uid(*words: str) -> str:
    """The same words, the same UID: made from a name-based UUID (PS3.5 B.2, RFC 9562)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(words)).int}"


def identity_of(header: Dataset) -> Dataset:
    """Patient, study and frame of reference of a header, and nothing else of it.

    Values that break their attribute's rules are left out, so that a damaged source does not
    damage what is derived from it.
    """
    from pydicom.dataset import Dataset

    identity = Dataset()
    for keyword in (*PATIENT_AND_STUDY, *PLACE):
        value = _sound_value(header, keyword)
        if value is not None:
            # As text, a name is written in our character set, whatever the source uses.
            setattr(identity, keyword, str(value) if keyword == "PatientName" else value)
    identity.remove_private_tags()
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if not any(keyword in identity for keyword in methods):
        # Whoever says that the patient was removed has to say how: nothing that we could repeat.
        identity.pop("PatientIdentityRemoved", None)
    return _completed(identity, str(header.SeriesInstanceUID))


def synthetic_identity(facts: Mapping[str, Any]) -> Dataset:
    """A new patient and study for an image that belongs to nobody's.

    Images made from the same input belong to the same new patient and frame of reference, and if
    they are written on one day to the same study; what nothing is known of gets one of its own.
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
    """The value, if there is one and the standard allows it; or None."""
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    if keyword not in header:
        return None
    try:
        element = header[keyword]  # numbers are made from text here, and may be none
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
