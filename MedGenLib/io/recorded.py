"""Provenance read back from a file: from its header, or from the file beside it."""

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
    """The facts about an image: from its header, else from the file beside it; None without any.

    Parameters
    ----------
    path: a file that `read_volume` reads, a DICOM file or a folder of DICOM files.

    Raises
    ------
    InputError: the file is not there, or is damaged.
    """
    return read_inside(path) or read_beside(path)


def read_inside(path: str | Path) -> Provenance | None:
    """The facts in the header; None where it holds none."""
    path = Path(path)
    if path.is_dir() or not path.name.lower().endswith(READABLE):
        return _understood(read_facts(path) if path.exists() else None)
    entries = read_entries(path)
    return _parsed(entries.get(KEY)) or _of_node(entries)


def read_beside(path: str | Path) -> Provenance | None:
    """The facts in the file beside an image; None without one, and for a folder, which has none.

    Raises
    ------
    InputError: it is there, but cannot be read.
    """
    place = sidecar(path)
    if Path(path).is_dir():  # ct/ may lie beside ct.nii.gz
        return None
    try:
        text = place.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{place} cannot be read ({error}); check or delete it.") from error
    made = _parsed(text)
    if made is None:
        raise InputError(f"{place} is not what MedGen writes beside an image; delete it.")
    return made


def _parsed(text: str | None) -> Provenance | None:
    """None for a text that is no provenance of ours."""
    try:
        data = json.loads(text or "")
    except ValueError:
        return None
    return _understood(data) if isinstance(data, dict) and KEY in data else None


def _of_node(entries: Mapping[str, str]) -> Provenance | None:
    """The facts of a node of the Slicer module, which Slicer writes into a .nrrd as attributes."""
    told = {key.removeprefix(f"{KEY}."): value for key, value in entries.items() if value}
    if told.get("Synthetic") != "1":
        return None
    data: dict[str, Any] = {ours: told.get(theirs) for theirs, ours in _ATTRIBUTES.items()}
    try:
        data |= {key: json.loads(told.get(key.title(), "null")) for key in _JSON_ATTRIBUTES}
        data["seed"] = int(told["Seed"]) if "Seed" in told else None
    except ValueError:  # edited by hand
        return None
    data["passed"] = {"1": True, "0": False}.get(told.get("Passed", ""))
    data["content"] = _CONTENTS.get(told.get("Content", ""), "image")
    if "Input" in told:
        data["inputs"] = [{"role": "input", "name": told["Input"]}]
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
"""Attribute of a node without its prefix, see MedGenSlicer/nodes/provenance.py -> ours."""
_JSON_ATTRIBUTES = ("parameters", "software", "checks")
_CONTENTS = {"spread": "uncertainty", "error": "error map"}


def _understood(data: Mapping[str, Any] | None) -> Provenance | None:
    """None where there is nothing, or what another program or a hand has made of it."""
    try:
        return Provenance.from_dict(data) if data else None
    except ValueError:
        return None
