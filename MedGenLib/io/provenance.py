"""Provenance of synthetic images, stored inside the image file and in a file beside it.

============= ================================================================
file          location of the provenance
============= ================================================================
.nrrd, .mha   header entry `MedGen`, one line of JSON
.nii, .nii.gz header extension of code 6 (comment), the same JSON
Slicer, .nrrd header entries `MedGen.Model` ...: the attributes of the node
DICOM         standard attributes and Image Comments, see `MedGenLib.io.dicom`
all           `<name>.medgen.json` beside the file, see `sidecar`
============= ================================================================

Of an input, only the file name and a hash of the content are stored.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.atomic import write_json
from MedGenLib.io.output_names import split_suffix

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume

NOTE = "synthetic - not for diagnosis"
KEY = "MedGen"
"""Key of the header entry."""
FORMAT = 1
"""Format version; it increases when a key changes its meaning, not when a key is added."""
SIDECAR = ".medgen.json"
_SUFFIX = "suffix"
"""Key of the image's suffix in the file beside it."""
LONGEST_LINE = 30_000
"""Longest header entry in characters; MetaImage files with an entry of 32,768 are unreadable."""
_SLAB = 16


@dataclass(frozen=True)
class Source:
    """Input of a run: `role` ("mask" or "image"), file name without its folder, content hash."""

    role: str
    name: str
    sha256: str

    @classmethod
    def of(cls, role: str, image: Volume | LabelMap, path: str | Path = "") -> Source:
        """Source of an input as read, before any processing."""
        return cls(role, Path(path).name, content_hash(image))

    @classmethod
    def from_dict(cls, data: Mapping[str, str]) -> Source:
        """Source from its entry in `Provenance.to_dict`; raises ValueError for any other value."""
        if not isinstance(data, Mapping):
            raise ValueError(f"an input is {data!r}")
        return cls(*(str(data.get(key) or "") for key in ("role", "name", "sha256")))


@dataclass(frozen=True)
class Provenance:
    """Provenance of one image.

    Attributes
    ----------
    content: "image", "uncertainty" for how far each voxel may be off, or "error map".
    modality, unit: modality and intensity unit of the image.
    model, version: name and version of the model package.
    package_sha256: hash of the package's weights, see `package_hash`.
    task, seed, preset, sampler, steps, parameters, software, device, passed: as in `Report`; the
        seed is that of this image.
    checks: sentences of the input and output checks.
    inputs: inputs of the run.
    created: time in UTC, ISO 8601.
    output_sha256: `content_hash` of the voxels as written.
    left_out: keys that were too long for the header and are only in the file beside the image.
    options: options of the command that differ from their defaults, without images and files; None if unknown.
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
    options: Mapping[str, Any] | None = None

    def of_uncertainty(self, volume: Volume) -> Provenance:
        """Provenance of the run's uncertainty, without a check result."""
        return replace(self, content="uncertainty", passed=None, output_sha256=content_hash(volume), unit=volume.unit)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the format version comes first."""
        return {KEY: FORMAT, **plain(asdict(self))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Provenance:
        """Provenance from the result of `to_dict`; unknown keys are ignored.

        Raises
        ------
        ValueError: an entry has another type than in `to_dict`.
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
        """Short description for header fields of limited length."""
        return "; ".join(filter(None, (self.note, f"{self.model} {self.version}".strip(), KEY)))

    def line(self) -> str:
        """One line of JSON for a header, without the longest entries if it would be too long."""
        facts, left_out = self.to_dict(), []
        while len(text := json.dumps(facts, separators=(",", ":"))) > LONGEST_LINE:
            longest = max(facts, key=lambda key: len(json.dumps(facts[key])))
            left_out.append(longest)
            del facts[longest]
            facts["left_out"] = left_out
        return text

    def write_beside(self, image: str | Path, path: Path | None = None) -> None:
        """Write the file beside an image, by default `sidecar(image)`, atomically.

        Raises
        ------
        InputError: it cannot be written.
        """
        path = sidecar(image) if path is None else path
        try:
            write_json(path, {**self.to_dict(), _SUFFIX: split_suffix(Path(image))[1]})
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror or error}; choose another folder.") from error


_KINDS = {
    "seed": int,
    "steps": int,
    "passed": bool,
    "checks": list,
    "inputs": list,
    "left_out": list,
    "parameters": dict,
    "software": dict,
    "options": dict,
}
"""JSON types of the entries that are not strings."""


def sidecar(path: str | Path) -> Path:
    """Path of the file beside an image: `ct.nii.gz` -> `ct.medgen.json`, which maps to itself.

    Where that belongs to an image of the same name in another format, it is `ct.nii.gz.medgen.json`.
    """
    path = Path(path)
    if path.name.endswith(SIDECAR):
        return path
    short, long = _short(path), path.with_name(path.name + SIDECAR)
    return long if long.exists() or _belongs_to_another(short, path) else short


def sidecars(paths: Sequence[Path]) -> list[Path]:
    """The files beside images of one run, each with its own path."""
    short = [_short(path) for path in paths]
    return [
        path.with_name(path.name + SIDECAR) if short.count(place) > 1 else sidecar(path)
        for path, place in zip(paths, short, strict=True)
    ]


def _short(path: Path) -> Path:
    return path.with_name(split_suffix(path)[0] + SIDECAR)


def _belongs_to_another(place: Path, image: Path) -> bool:
    """Whether a file beside an image states, or must be of, another format."""
    try:
        suffix = json.loads(place.read_text(encoding="utf-8")).get(_SUFFIX)
    except (OSError, ValueError, AttributeError):
        return False
    if suffix is not None:
        return suffix != split_suffix(image)[1]
    stem, suffixes = split_suffix(image)[0], (".nii.gz", ".nii", ".nrrd", ".mha")
    return not image.exists() and any((image.parent / f"{stem}{end}").exists() for end in suffixes)


def content_hash(image: Volume | LabelMap) -> str:
    """SHA-256 of the shape and the voxels (as 32-bit floating point, in the order i, j, k).

    The hash is the same for every file format and voxel type that holds the same values. The
    position is not included, because formats round it differently.
    """
    digest = hashlib.sha256(str(tuple(image.shape)).encode())
    for start in range(0, image.shape[0], _SLAB):  # in slabs, to avoid a second volume in memory
        slab = np.ascontiguousarray(image.array[start : start + _SLAB], "<f4")
        digest.update(slab.data)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """Value converted to plain JSON types; numbers that are not finite become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
