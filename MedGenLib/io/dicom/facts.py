"""Provenance in DICOM attributes, as sentences and as JSON that `medgen info` reads back.

The facts are the result of `Provenance.to_dict` (model, version, seed, preset, inputs and so on) or
an empty dict if nothing is known. Image Comments (0020,4000) holds a sentence followed by one line
of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedGenLib.io import provenance
from MedGenLib.io.dicom.elements import LONG_TEXT, SHORT_TEXT, shortened
from MedGenLib.io.dicom.headers import read_tags

NOTE = "SYNTHETIC - not for diagnosis."
_LINE = "\r\n"
_REMOVED = ("created", "checks")
"""Entries removed by de-identification; a sentence of a check may quote a file name."""
_IDENTIFYING = ("name", "sha256")
"""Entries of an input that can identify the patient: file names may contain names, and a hash can be
compared with that of the original."""


def as_facts(facts: Any) -> dict[str, Any]:
    """Facts from a `Provenance`, a dict with the same keys, or None."""
    if facts is None:
        return {}
    return dict(facts) if isinstance(facts, Mapping) else facts.to_dict()


def without_patient(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts without entries that could identify the patient: file names, hashes and dates."""
    kept = {key: value for key, value in facts.items() if key not in _REMOVED}
    if kept.get("inputs"):
        kept["inputs"] = [
            {key: value for key, value in entry.items() if key not in _IDENTIFYING} for entry in kept["inputs"]
        ]
    return kept


def model_of(facts: Mapping[str, Any]) -> str:
    """Name and version of the model, or "" if unknown."""
    return " ".join(str(facts[key]) for key in ("model", "version") if facts.get(key))


def derivation(facts: Mapping[str, Any], modality: str) -> str:
    """Text of Derivation Description: how the image was made."""
    from MedGenLib import __version__

    software = f"MedGen {__version__}"
    if not facts:
        return f"Written by {software} from an image volume; how that was made is not known."
    choices = [
        f"{key} {facts[key]}" for key in ("task", "seed", "preset", "sampler", "steps") if facts.get(key) is not None
    ]
    text = f"Synthetic {modality} made by {software}"
    if model_of(facts):
        text += f" with the model {model_of(facts)}"
    text += f" ({', '.join(choices)})." if choices else "."
    if facts.get("passed") is not None:
        text += f" Its quality checks {'passed' if facts['passed'] else 'did NOT pass'}."
    return shortened(f"{text} Not for diagnosis.", SHORT_TEXT)


def comment(facts: Mapping[str, Any]) -> str:
    """Text of Image Comments; if too long, the longest entries are removed and listed in `left_out`."""
    kept, left_out = dict(facts), []
    while len(text := _packed(kept, left_out)) > LONG_TEXT:
        longest = max(kept, key=lambda key: len(json.dumps(kept[key], default=str)))
        left_out.append(longest)
        del kept[longest]
    return text


def _packed(facts: Mapping[str, Any], left_out: list[str]) -> str:
    entries = {**facts, "left_out": left_out} if left_out else facts
    note = facts.get("note")
    first = NOTE if note in (None, provenance.NOTE) else note
    return first + _LINE + json.dumps(entries, separators=(",", ":"), default=str)


def read_facts(path: str | Path) -> dict[str, Any] | None:
    """Facts in a DICOM file written by MedGen, or in the first such file of a folder, else None.

    Raises
    ------
    InputError: a DICOM file cannot be read.
    """
    path = Path(path)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        facts = _facts_in(file)
        if facts is not None:
            return facts
    return None


def _facts_in(path: Path) -> dict[str, Any] | None:
    header = read_tags(path, ["ImageComments"])
    if header is None:
        return None
    note, _, text = str(header.get("ImageComments", "")).partition(_LINE)
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and note in (NOTE, facts.get("note")) else None
