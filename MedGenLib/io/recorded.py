"""Reading the provenance of an image, from its header or from the file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.io.dicom import read_facts
from MedGenLib.io.files import READABLE, read_entries
from MedGenLib.io.provenance import KEY, Provenance, sidecar


def read(path: str | Path) -> Provenance | None:
    """Provenance from the image's header, else from the file beside it, else None.

    Parameters
    ----------
    path: a file that `read_volume` reads, a DICOM file or a folder of DICOM files.

    Raises
    ------
    InputError: the file does not exist or is damaged.
    """
    return read_inside(path) or read_beside(path)


def read_inside(path: str | Path) -> Provenance | None:
    """Provenance in the header of an image; None if there is none."""
    path = Path(path)
    if path.is_dir() or not path.name.lower().endswith(READABLE):
        return _understood(read_facts(path) if path.exists() else None)
    entries = read_entries(path)
    return _parsed(entries.get(KEY)) or _of_node(entries)


def read_beside(path: str | Path) -> Provenance | None:
    """Provenance in the file beside an image; None if there is none, and for a folder.

    Raises
    ------
    InputError: the file exists but cannot be read.
    """
    file = sidecar(path)
    if Path(path).is_dir():  # ct/ may lie beside ct.nii.gz
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); check or delete it.") from error
    made = _parsed(text)
    if made is None:
        raise InputError(f"{file} is not a provenance file of MedGen; delete it.")
    return made


def _parsed(text: str | None) -> Provenance | None:
    """Provenance from JSON text; None for any other text."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return None
    return _understood(data) if isinstance(data, dict) and KEY in data else None


def _of_node(entries: Mapping[str, str]) -> Provenance | None:
    """Provenance from the attributes of a volume node, which Slicer writes into .nrrd files."""
    attributes = {key.removeprefix(f"{KEY}."): value for key, value in entries.items() if value}
    if attributes.get("Synthetic") != "1":
        return None
    data: dict[str, Any] = {ours: attributes.get(theirs) for theirs, ours in _ATTRIBUTES.items()}
    try:
        data |= {key: json.loads(attributes.get(key.title(), "null")) for key in _JSON_ATTRIBUTES}
        data["seed"] = int(attributes["Seed"]) if "Seed" in attributes else None
    except ValueError:  # edited by hand
        return None
    data["passed"] = {"1": True, "0": False}.get(attributes.get("Passed", ""))
    data["content"] = _CONTENTS.get(attributes.get("Content", ""), "image")
    if "Input" in attributes:
        data["inputs"] = [{"role": "input", "name": attributes["Input"]}]
    return _understood(data)


_ATTRIBUTES = {
    "Model": "model",
    "ModelVersion": "version",
    "Task": "task",
    "Preset": "preset",
    "Device": "device",
    "Modality": "modality",
    "Unit": "unit",
    "Note": "note",
}
"""Node attribute without its prefix (MedGenSlicer/nodes/provenance.py) -> field of `Provenance`."""
_JSON_ATTRIBUTES = ("parameters", "software", "checks")
_CONTENTS = {"spread": "uncertainty", "error": "error map"}


def _understood(data: Mapping[str, Any] | None) -> Provenance | None:
    """Provenance from a dict; None for an empty or invalid one, e.g. edited by hand."""
    try:
        return Provenance.from_dict(data) if data else None
    except ValueError:
        return None
