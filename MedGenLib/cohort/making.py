"""A manifest from a folder of files."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.cohort.manifest import ID, seed_of
from MedGenLib.cohort.verbs import VERBS
from MedGenLib.errors import InputError
from MedGenLib.evaluation.cases import Case, holds_cases, match
from MedGenLib.options import Option

RANGE = re.compile(r"(-?[\d.]+):(-?[\d.]+)")
"""A range from which each case draws its own number."""


@dataclass(frozen=True)
class CaseRecipe:
    """How the cases of a folder are made.

    Attributes
    ----------
    inputs: further inputs, each a folder whose files have the same names, or one file for all.
    parameters: name -> text: a value, LOW:HIGH for a number that each case draws, A,B,C for one of these words.
    samples: cases for each file, with their own seeds.
    seed: that of all draws.
    """

    verb: str
    inputs: Mapping[str, Path] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    samples: int = 1
    seed: int = 0
    dataset: bool = False


def make_manifest(folder: Path, recipe: CaseRecipe, place: Path) -> dict[str, Any]:
    """The entries of a manifest that will lie in the folder `place`.

    A folder of DICOM files gives a case for each of its series.

    Raises
    ------
    InputError: the folder has no files, or a parameter is unknown.
    """
    verb = VERBS[recipe.verb]
    for name in recipe.inputs:
        if name not in verb.inputs:
            raise InputError(f"The input '{name}' of {verb.name} is unknown; use {', '.join(verb.inputs)}.")
    known = verb.parameters
    for name in recipe.parameters:
        if name not in known:
            raise InputError(f"The parameter '{name}' of {verb.name} is unknown; use {', '.join(known)}.")
    if recipe.samples > 1 and not verb.has_seed:
        raise InputError(f"The verb {verb.name} has no seed, so that --samples would repeat it; leave that out.")
    series = {} if "series" not in known or "series" in recipe.parameters else _series_in(folder)
    if series:
        found = [Case(name, {"image": folder, **recipe.inputs}) for name in series]
    else:
        found, lacking, _ = match(folder, recipe.inputs)
        if lacking:
            raise InputError(f"{lacking[0].sentence.rstrip('.')}; add it, or take the image away.")
    drawn = {name for name, text in recipe.parameters.items() if _is_drawn(known[name], text)}
    shared = {name: _value(known[name], text, None) for name, text in recipe.parameters.items() if name not in drawn}
    cases = []
    for item in found:
        paths = {(verb.first if role == "image" else role): _shown(path, place) for role, path in item.paths.items()}
        for number in range(1, recipe.samples + 1):
            name = _id(item.name, number if recipe.samples > 1 else None)
            entry: dict[str, Any] = {"id": name, "inputs": paths}
            if verb.has_seed:
                entry["seed"] = seed_of(f"{recipe.seed}/{name}")
            own = {
                key: _value(known[key], recipe.parameters[key], random.Random(f"{recipe.seed}/{name}/{key}"))
                for key in recipe.parameters
                if key in drawn
            } | ({"series": series[item.name]} if series else {})
            if own:
                entry["parameters"] = own
            cases.append(entry)
    data = {"cohort": f"{folder.resolve().name}-{verb.name}", "verb": verb.name, "parameters": shared}
    return {**data, **({"dataset": True} if recipe.dataset else {}), "cases": cases}


def _series_in(folder: Path) -> dict[str, str]:
    """Name -> UID of the DICOM series whose files lie in one folder; none where its entries are cases themselves."""
    if not folder.is_dir() or holds_cases(folder):
        return {}
    from MedGenLib.io.files import list_series

    found = enumerate(list_series(folder), 1)
    return {f"{number}-{series.description or series.modality}": series.uid for number, series in found}


def _id(name: str, number: int | None) -> str:
    """A case's id from the name of its file."""
    plain = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).lstrip("._-") or "case"
    text = plain[:90] if number is None else f"{plain[:90]}_{number}"
    return text if ID.fullmatch(text) else f"case-{text}"[:100]


def _shown(path: Path, place: Path) -> str:
    """The path relative to the folder of the manifest, or absolute if it lies more than one folder above."""
    relative = os.path.relpath(path.resolve(), place.resolve())
    return str(path.resolve()) if relative.startswith(os.path.join("..", "..")) else Path(relative).as_posix()


def _is_drawn(option: Option, text: str) -> bool:
    if option.number is not None and option.count is None:
        return RANGE.fullmatch(text) is not None
    return option.count is None and dict not in option.kinds and bool not in option.kinds and "," in text


def _value(option: Option, text: str, draw: random.Random | None) -> Any:
    """The value of a text, drawn where it is a range or a list."""
    if draw is not None and (found := RANGE.fullmatch(text)):
        low, high = sorted((_number(option, found[1]), _number(option, found[2])))
        return draw.randint(int(low), int(high)) if option.number is int else round(draw.uniform(low, high), 3)
    if draw is not None:
        return _value(option, draw.choice([word.strip() for word in text.split(",")]), None)
    if option.count is not None:
        return [_number(option, word) for word in text.split(",")]
    if option.number is not None:
        return _number(option, text)
    if bool in option.kinds:
        if text not in ("true", "false"):
            raise InputError(f"The parameter {option.name} is '{text}'; give true or false.")
        return text == "true"
    if dict in option.kinds and "=" in text:
        return dict(_pair(word) for word in text.split(","))
    return int(text) if int in option.kinds and text.isdigit() else text


def _number(option: Option, text: str) -> float | int:
    try:
        return (option.number or float)(text)
    except ValueError:
        raise InputError(f"The parameter {option.name} is '{text}'; give a number, or LOW:HIGH.") from None


def _pair(word: str) -> tuple[Any, Any]:
    source, _, target = (part.strip() for part in word.partition("="))
    return tuple(int(part) if part.isdigit() else part for part in (source, target))


def parsed(words: Sequence[str], what: str) -> dict[str, str]:
    """NAME=VALUE words of a command line; `what` is their flag."""
    found = {}
    for word in words:
        key, equal, value = word.partition("=")
        if not (equal and key.strip() and value.strip()):
            raise InputError(f"{what} {word} has no value; write {what} NAME=VALUE.")
        found[key.strip()] = value.strip()
    return found
