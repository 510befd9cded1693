"""How an image was made, in words and as text that DICOM can carry and `medgen info` reads back.

The facts are those of `MedGenLib.io.provenance`, as a dict: model, version, seed, preset, inputs and
so on; an empty dict where nothing is known. They go into Image Comments (0020,4000): a sentence
for people, and after it one line of JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedGenLib.io.dicom.elements import LONG_TEXT, SHORT_TEXT, shortened
from MedGenLib.io.dicom.reading import read_tags

NOTE = "SYNTHETIC - not for diagnosis."
_LINE = "\r\n"
_TELLING = ("created", "checks")
"""A check's sentence may quote a file name."""
_IDENTIFYING = ("name", "sha256")
"""What of an input can lead to the patient: file names hold people's names, and whoever has the
original can compute its hash."""


def as_facts(facts: Any) -> dict[str, Any]:
    """A dict from a `Provenance`, a dict of the same keys, or None."""
    if facts is None:
        return {}
    return dict(facts) if isinstance(facts, Mapping) else facts.to_dict()


def without_patient(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts without what could lead to the patient: file names, hashes and dates."""
    kept = {key: value for key, value in facts.items() if key not in _TELLING}
    if kept.get("inputs"):
        kept["inputs"] = [
            {key: value for key, value in entry.items() if key not in _IDENTIFYING} for entry in kept["inputs"]
        ]
    return kept


def model_of(facts: Mapping[str, Any]) -> str:
    """Name and version of the model, or ""."""
    return " ".join(str(facts[key]) for key in ("model", "version") if facts.get(key))


def derivation(facts: Mapping[str, Any], modality: str) -> str:
    """One or two sentences on how the image came about (Derivation Description)."""
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
    """The facts as Image Comments; what does not fit is left out, longest first, and named."""
    kept, left_out = dict(facts), []
    while len(text := _packed(kept, left_out)) > LONG_TEXT:
        longest = max(kept, key=lambda key: len(json.dumps(kept[key], default=str)))
        left_out.append(longest)
        del kept[longest]
    return text


def _packed(facts: Mapping[str, Any], left_out: list[str]) -> str:
    entries = {**facts, "left_out": left_out} if left_out else facts
    return NOTE + _LINE + json.dumps(entries, separators=(",", ":"), default=str)


def read_facts(path: str | Path) -> dict[str, Any] | None:
    """The facts in a DICOM file of ours, or in the first such one of a folder; None without any.

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
    if note != NOTE:
        return None
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
