"""How a synthetic image was made: carried inside the file, beside it, and read back from both.

============= ================================================================
file          where the facts are
============= ================================================================
.nrrd, .mha   header entry `MedGen`, one line of JSON
.nii, .nii.gz header extension of code 6 (comment), the same JSON
Slicer, .nrrd header entries `MedGen.Model` ...: the attributes of the node
DICOM         standard attributes and Image Comments, see `MedGenLib.io.dicom`
all of them   `<name>.medgen.json` beside the file
============= ================================================================

Inputs are named by their file's name and a hash of their content; nothing else of the patient is
kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.outputs import split_suffix
from MedGenLib.report import NOTE, plain
from MedGenLib.user_folders import write_json

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume

KEY = "MedGen"
"""Of the entry of a header that holds the facts."""
FORMAT = 1
"""Counts up when a key changes its meaning; keys that are added do not."""
SIDECAR = ".medgen.json"
LONGEST_LINE = 30_000
"""Characters in a header: a file of MetaImage with 32,768 in one entry can be read by nobody."""
_SLAB = 16


@dataclass(frozen=True)
class Source:
    """What an image was made from: `role` "mask" or "image", file name without its folder, hash."""

    role: str
    name: str
    sha256: str

    @classmethod
    def of(cls, role: str, image: Volume | LabelMap, path: str | Path = "") -> Source:
        """The input as it was read, before anything was done to it."""
        return cls(role, Path(path).name, content_hash(image))

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Source:
        """From its entry in `Provenance.to_dict`; ValueError if it is no such entry."""
        if not isinstance(data, Mapping):
            raise ValueError(f"an input is {data!r}")
        return cls(*(str(data.get(key) or "") for key in ("role", "name", "sha256")))


@dataclass(frozen=True)
class Provenance:
    """The facts about one image.

    Attributes
    ----------
    content: "image", "uncertainty" for a volume of standard deviations, or "error map".
    modality, unit: of the image.
    model, version: name and version of the package.
    package_sha256: of the package's weights, see `package_hash`.
    task, seed, preset, sampler, steps, parameters, software, device, passed: as in `Report`; the
        seed is the one of this very image.
    checks: what the checks of input and output said.
    inputs: what it was made from.
    created: UTC, ISO 8601.
    output_sha256: hash of the voxels as they were written.
    left_out: keys that were too long for a header; the file beside it has them.
    """

    content: str = "image"
    modality: str | None = None
    unit: str = "a.u."
    model: str = ""
    version: str = ""
    package_sha256: str = ""
    task: str = ""
    seed: int | None = None
    preset: str | None = None
    sampler: str | None = None
    steps: int | None = None
    passed: bool | None = None
    checks: tuple[str, ...] = ()
    inputs: tuple[Source, ...] = ()
    created: str = ""
    output_sha256: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    software: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    note: str = NOTE
    left_out: tuple[str, ...] = ()

    def of_uncertainty(self, volume: Volume) -> Provenance:
        """The same run's volume of standard deviations: the first sample's seed, no verdict."""
        return replace(self, content="uncertainty", passed=None, output_sha256=content_hash(volume), unit=volume.unit)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the format first."""
        return {KEY: FORMAT, **plain(asdict(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Provenance:
        """The facts from `to_dict`; keys that this version does not know are passed over.

        Raises
        ------
        ValueError: an entry is of another kind than `to_dict` makes.
        """
        known = {i.name: data[i.name] for i in fields(cls) if data.get(i.name) is not None}
        for name, value in known.items():
            if not isinstance(value, _KINDS.get(name, str)):
                raise ValueError(f"{name} is {value!r}")
        for name in ("checks", "left_out"):
            known[name] = tuple(map(str, known.get(name, ())))
        known["inputs"] = tuple(map(Source.from_dict, known.get("inputs", ())))
        return cls(**known)

    @property
    def summary(self) -> str:
        """A few words for header fields that take no more."""
        return "; ".join(filter(None, (self.note, f"{self.model} {self.version}".strip(), KEY)))

    def line(self) -> str:
        """One line of JSON for a header; where it is too long, without the longest entries."""
        facts, left_out = self.to_dict(), []
        while len(text := json.dumps(facts, separators=(",", ":"))) > LONGEST_LINE:
            longest = max(facts, key=lambda key: len(json.dumps(facts[key])))
            left_out.append(longest)
            del facts[longest]
            facts["left_out"] = left_out
        return text

    def write_beside(self, path: str | Path) -> None:
        """Write `sidecar(path)`, complete or not at all; InputError where that cannot be done."""
        place = sidecar(path)
        try:
            write_json(place, self.to_dict())
        except OSError as error:
            raise InputError(f"{place} cannot be written: {error.strerror or error}; choose another folder.") from error


_KINDS = {
    "seed": int,
    "steps": int,
    "passed": bool,
    "checks": list,
    "inputs": list,
    "left_out": list,
    "parameters": dict,
    "software": dict,
}
"""Of the entries in JSON that are no texts."""


def sidecar(path: str | Path) -> Path:
    """The file beside an image: `ct.nii.gz` -> `ct.medgen.json`, which is its own."""
    path = Path(path)
    if path.name.endswith(SIDECAR):
        return path
    return path.with_name(split_suffix(path)[0] + SIDECAR)


def content_hash(image: Volume | LabelMap) -> str:
    """SHA-256 of shape and voxels (as 32-bit floating point, in the order i, j, k).

    The same for every file format and voxel type that holds the same numbers. Where the image lies
    is left out: formats round positions differently.
    """
    digest = hashlib.sha256(str(tuple(image.shape)).encode())
    for start in range(0, image.shape[0], _SLAB):  # in slabs: no second volume in memory
        slab = np.ascontiguousarray(image.array[start : start + _SLAB], "<f4")
        digest.update(slab.data)
    return digest.hexdigest()
