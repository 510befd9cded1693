"""The manifest of a cohort: a YAML (or JSON) file of cases, checked completely before anything runs.

    cohort: masks-generate
    verb: generate
    parameters: {model: mr-hippocampus}
    cases:
      - {id: sub-01_1, inputs: {mask: masks/sub-01.nii.gz}, seed: 7}
      - {id: sub-01_2, inputs: {mask: masks/sub-01.nii.gz}, seed: 8, parameters: {preset: best}}

Verb, inputs and parameters beside the cases are those of every case that does not state its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from MedGenLib.cohort.verbs import VERBS, Verb
from MedGenLib.errors import InputError, MedGenError
from MedGenLib.io.atomic import replacing
from MedGenLib.packages.catalogue import catalogue, find, for_translation, package_hash
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest

ID = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
SEEDS = 2**31
_KEYS = {"cohort", "verb", "inputs", "parameters", "dataset", "cases"}
_CASE_KEYS = {"id", "verb", "inputs", "parameters", "seed"}


@dataclass(frozen=True)
class CohortCase:
    """One case: what is run, on which files.

    Attributes
    ----------
    inputs: option -> file or folder.
    parameters: the other options, by their Python names.
    package: what determines its images beside them: the hash of the model package; empty without one.
    """

    id: str
    verb: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    package: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class CohortManifest:
    """The cases of a manifest.

    Attributes
    ----------
    name: a folder of results belongs to one name.
    dataset: whether images and labels become a data set.
    """

    name: str
    cases: tuple[CohortCase, ...]
    dataset: bool = False


def seed_of(text: str) -> int:
    """A seed that depends on a text alone."""
    return int(sha256(text.encode()).hexdigest(), 16) % SEEDS


def read_cohort(path: str | Path, accept_license: bool = False) -> CohortManifest:
    """Read and check a manifest; paths in it are relative to its folder, and its models need accepted licenses.

    Raises
    ------
    InputError: it cannot be used; the sentence names the case.
    """
    path = Path(path)
    data = _parsed(path)
    for key in data.keys() - _KEYS:
        raise InputError(f"The manifest {path} has the unknown entry '{key}'; use {', '.join(sorted(_KEYS))}.")
    entries = data.get("cases")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"The manifest {path} has no cases; list them under 'cases'.")
    name = data.get("cohort", path.stem)
    if not isinstance(name, str):
        raise InputError(f"The manifest {path} has the name {name!r}; give text as 'cohort'.")
    reader = _Reader(path.resolve().parent, data, accept_license)
    cases, seen = [], set()
    for number, entry in enumerate(entries, 1):
        case = reader.case(entry, number)
        if case.id.casefold() in seen:  # some file systems ignore the case of letters
            raise InputError(f"Two cases of {path} have the id '{case.id}'; give each case its own.")
        seen.add(case.id.casefold())
        cases.append(case)
    dataset = data.get("dataset", False)
    if dataset and (missing := next((case for case in cases if VERBS[case.verb].labels is None), None)):
        raise InputError(f"The case '{missing.id}' ({missing.verb}) has no labels for a data set; leave out 'dataset'.")
    return CohortManifest(name, tuple(cases), bool(dataset))


def write_cohort(path: Path, data: Mapping[str, Any]) -> None:
    """Write a manifest, a line for each case; InputError if that fails."""
    import yaml

    def dumped(value: Any, flow: bool | None) -> str:
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=flow)

    shared = {name: value for name, value in data.items() if name != "cases"}
    text = "".join(dumped({name: value}, None if isinstance(value, dict) else False) for name, value in shared.items())
    text += "cases:\n" + "".join(f"- {dumped(case, True)}" for case in data["cases"])
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}; choose another folder.") from None


def _parsed(path: Path) -> Mapping[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), loader)
    except FileNotFoundError:
        raise InputError(f"There is no manifest {path}; write one with `medgen cohort make`.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The manifest {path} cannot be read ({error}); check the path.") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"The manifest {path}{line} is not valid YAML; correct it.") from None
    if not isinstance(data, dict):
        raise InputError(f"The manifest {path} is not a list of entries; write one with `medgen cohort make`.")
    return data


class _Reader:
    """Makes cases of their entries."""

    def __init__(self, folder: Path, shared: Mapping[str, Any], accept: bool) -> None:
        self._folder, self._shared, self._accept = folder, shared, accept
        self._known: dict[Path, bool] = {}
        self._hashes: dict[tuple[str, str, bool], str] = {}

    @cached_property
    def _segmenters(self) -> dict[str, Manifest]:
        return {manifest.name: manifest for manifest in catalogue() if manifest.task == "segment"}

    def case(self, entry: Any, number: int) -> CohortCase:
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str | int):
            raise InputError(f"Case {number} of the manifest has no id; give it one.")
        name = str(entry["id"])
        if not ID.fullmatch(name):
            raise InputError(f"The id '{name}' cannot be a folder; use up to 100 letters, digits and . _ - only.")
        try:
            return self._checked(name, entry)
        except MedGenError as error:
            raise InputError(f"Case '{name}': {error}") from error

    def _checked(self, name: str, entry: Mapping[str, Any]) -> CohortCase:
        for key in entry.keys() - _CASE_KEYS:
            raise InputError(f"The entry '{key}' is unknown; use {', '.join(sorted(_CASE_KEYS))}.")
        word = entry.get("verb", self._shared.get("verb"))
        if word not in VERBS:
            raise InputError(f"There is no verb '{word}'; choose {', '.join(VERBS)}.")
        verb, inputs, parameters = VERBS[word], self._merged("inputs", entry), self._merged("parameters", entry)
        seed = entry.get("seed", seed_of(name)) if verb.has_seed else None
        options = verb.checked(parameters, inputs, seed)
        if verb.name == "evaluate":
            from MedGenLib.evaluation.pair import require_purpose

            require_purpose(*(options[key] for key in ("reference", "mask", "labels", "segmenter", "uncertainty")))
        paths = {key: str(self._file(value)) for key, value in inputs.items()}
        return CohortCase(name, verb.name, paths, parameters, seed, self._package(verb, options))

    def _merged(self, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for values in (self._shared.get(key) or {}, entry.get(key) or {}):
            if not isinstance(values, dict):
                raise InputError(f"The {key} are {values!r}; give them as name: value.")
            found |= values
        return found

    def _file(self, value: Any) -> Path:
        path = Path(os.path.normpath(self._folder / Path(str(value)).expanduser()))  # sentences show it
        if path not in self._known:
            self._known[path] = path.exists()
        if not self._known[path]:
            raise InputError(f"There is no file or folder {path}; check the path.")
        return path

    def _package(self, verb: Verb, options: Mapping[str, Any]) -> str:
        """Hash of the package of a case; its license is accepted from here on."""
        model = options.get("segmenter") if verb.name == "evaluate" else options.get("model")
        accept = self._accept or bool(options.get("accept_license"))
        key = (verb.name, f"{model} {options.get('to')}", accept)
        if key not in self._hashes:
            self._hashes[key] = self._hash(verb, model, options, accept)
        return self._hashes[key]

    def _hash(self, verb: Verb, model: Any, options: Mapping[str, Any], accept: bool) -> str:
        if verb.name == "evaluate":
            return package_hash(self._segmenters[model]) if model in self._segmenters else ""
        found = find(model) if model else for_translation(None, options["to"])
        if verb.name == "translate":
            found.require_task("translate")  # not a model of series, which a case does not hold
        require_acceptance(found, accept)
        return package_hash(found)
