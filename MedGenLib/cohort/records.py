"""Records of cases: what a case was made of, what came out, and whether that still holds."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.io.atomic import write_json
from MedGenLib.packages.weights import sha256 as file_hash

CASES, RECORD, LOG = "cases", "record.json", "log.txt"
DONE, FAILED, QUARANTINED = "done", "failed", "quarantined"
_UNRECORDED = ("accept_license",)
_UNFINISHED = re.compile(r"\.[0-9a-f]+\.part\.(.+)")


@dataclass
class Record:
    """What is known of a case, as in its record.json.

    Attributes
    ----------
    key: hash of everything that determines the outputs.
    status: done, failed (with the sentence), or quarantined: it ended two workers.
    inputs: option -> path, sha256 and stamp (size and time of change).
    outputs: name -> size and sha256 of the file, and for images content_sha256 of the voxels, which does not depend
        on the time at which they were made.
    passed: whether the outputs passed their checks; checks: their sentences.
    seconds, memory_mib: time of the case, and peak memory of its process until its end.
    """

    id: str
    key: str
    verb: str
    status: str = FAILED
    sentence: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    package: str = ""
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    passed: bool | None = None
    checks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    memory_mib: float = 0.0
    finished: str = ""
    medgen: str = ""

    @classmethod
    def of(cls, case: CohortCase) -> Record:
        """The record of a case before it runs, without its inputs."""
        return cls(case.id, "", case.verb, parameters=dict(case.parameters), seed=case.seed, package=case.package)

    def read_inputs(self, case: CohortCase) -> None:
        """Fill in the hashes of the inputs, and the key."""
        self.inputs = {name: hashed(Path(path)) for name, path in case.inputs.items()}
        self.key = key_of(case, {name: item["sha256"] for name, item in self.inputs.items()})

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record in the folder of a case; None without a usable one."""
        try:
            return cls(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        write_json(folder / RECORD, asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def key_of(case: CohortCase, hashes: Mapping[str, str]) -> str:
    """Hash of a verb, its package, parameters, seed and the content of its inputs."""
    parameters = {name: value for name, value in case.parameters.items() if name not in _UNRECORDED}
    facts = [case.verb, case.package, parameters, case.seed, dict(hashes)]
    return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def hashed(path: Path) -> dict[str, Any]:
    """Path, content hash and stamp of an input: a file, or a folder with all its files."""
    stamp = stamp_of(path)
    if not path.is_dir():
        return {"path": str(path), "sha256": file_hash(path), "stamp": stamp}
    listing = "".join(f"{file.relative_to(path).as_posix()} {file_hash(file)}\n" for file in _files(path))
    return {"path": str(path), "sha256": sha256(listing.encode()).hexdigest(), "stamp": stamp}


def stamp_of(path: Path) -> list[int]:
    """Size, time of the last change in ns, and number of files."""
    found = [file.stat() for file in (_files(path) if path.is_dir() else [path])]
    return [sum(item.st_size for item in found), max((item.st_mtime_ns for item in found), default=0), len(found)]


def case_folder(out: Path, name: str) -> Path:
    return out / CASES / name


def done_record(case: CohortCase, out: Path) -> Record | None:
    """The record of a case whose outputs are there and belong to its inputs and parameters; else None."""
    folder = case_folder(out, case.id)
    record = Record.read(folder)
    if record is None or record.status != DONE or record.inputs.keys() != case.inputs.keys():
        return None
    hashes = {}
    try:
        for name, path in case.inputs.items():
            known, stamp = record.inputs[name], stamp_of(Path(path))
            same = known["path"] == path and known["stamp"] == stamp
            hashes[name] = known["sha256"] if same else hashed(Path(path))["sha256"]
        whole = all((folder / name).stat().st_size == item["size"] for name, item in record.outputs.items())
    except (OSError, KeyError):
        return None
    return record if whole and record.key == key_of(case, hashes) else None


def remove_unfinished(out: Path, names: Iterable[str]) -> None:
    """Delete what killed workers left of these cases; none of them may run."""
    own, folder = set(names), out / CASES
    for entry in os.scandir(folder) if folder.is_dir() else ():
        found = _UNFINISHED.fullmatch(entry.name)
        if found and found[1] in own:
            shutil.rmtree(entry.path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
