"""One file of every format, damage to it, and what its reader says: the same as before, or one sentence."""

from __future__ import annotations

import gzip
import hashlib
import resource
import shutil
import struct
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from tiny_packages import write_generator

from MedGenLib.errors import MedGenError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom import write_segmentation, write_series
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.provenance import Provenance, sidecar
from MedGenLib.io.recorded import read_beside
from MedGenLib.packages import store
from MedGenLib.reader_study.preparation import make
from MedGenLib.reader_study.study import Study
from MedGenLib.training.config import read_config

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
FORMATS = (*SUFFIXES, *(f"mask{s}" for s in (*SUFFIXES, ".seg.nrrd")), ".nhdr", ".mhd", ".mgz", "dicom", "maskdicom")
FORMATS += (".png", "package", "sidecar", "study", "item", "configuration")
SECONDS, MEBIBYTES = 10, 2048
"""Most time and memory of one reading."""


@dataclass(frozen=True)
class Original:
    """A file and its reader.

    Attributes
    ----------
    path: what is damaged.
    read: reads it, or what it is a part of, to something that can be compared.
    checked: the format has a checksum of what is read, so that a reading cannot succeed with another result.
    """

    path: Path
    read: Callable[[], Any]
    checked: bool = True


def originals(folder: Path) -> dict[str, Original]:
    """One file or folder of every format."""
    rng = np.random.default_rng(0)
    smooth = (np.add.outer(np.add.outer(np.arange(9), np.arange(8)), np.arange(7)) * 10).astype(np.int16)
    image = Volume(smooth + rng.integers(0, 5, smooth.shape, np.int16), np.diag([1.0, 1.5, 2.0, 1.0]), "CT", "HU")
    labels = LabelMap((smooth > 100).astype(np.uint8), image.affine, {1: "bone"})
    files = {}
    for s in SUFFIXES:
        path = write_volume(image, folder / f"v{s}")
        files[s] = Original(path, _array(read_volume, path), s != ".nii")
    for s in (*SUFFIXES, ".seg.nrrd"):
        path = write_volume(labels, folder / f"m{s}")
        files[f"mask{s}"] = Original(path, _array(read_label_map, path), s != ".nii")
    picture = SimpleITK.GetImageFromArray(image.array.transpose(2, 1, 0))
    for s in (".nhdr", ".mhd"):
        SimpleITK.WriteImage(picture, str(folder / f"d{s}"), useCompression=True)
        files[s] = Original(folder / f"d{s}", _array(read_volume, folder / f"d{s}"), False)
    head = struct.pack(">7ih", 1, 9, 8, 7, 1, 4, 0, 1) + struct.pack(">15f", 1, 1, 1, *np.eye(3).ravel(), 0, 0, 0)
    path = folder / "f.mgz"
    path.write_bytes(gzip.compress(head.ljust(284, b"\0") + image.array.astype(">i2").tobytes("F")))
    files[".mgz"] = Original(path, _array(read_volume, path))
    path = write_series(image, folder / "series")[2]
    files["dicom"] = Original(path, _array(read_volume, folder / "series"), False)
    path = write_segmentation(labels, folder / "seg", source=folder / "series")[0]
    files["maskdicom"] = Original(path, _array(read_label_map, path), False)
    return files | _other_files(folder, image)


def _array(read: Callable[[Path], Volume | LabelMap], path: Path) -> Callable[[], bytes]:
    return lambda: read(path).array.tobytes()


def _other_files(folder: Path, image: Volume) -> dict[str, Original]:
    """Files that are no images."""
    picture = folder / "p.png"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image.array[0].astype(np.uint8)), str(picture))
    archive = folder / "package.zip"
    package = write_generator(folder / "packages").folder
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(package.rglob("*")):
            target.write(path, Path("tiny-ct") / path.relative_to(package))
    beside = sidecar(folder / "v.mha")
    Provenance(model="ct-tissue", version="1.0.0", task="generate", seed=3).write_beside(folder / "v.mha")
    (folder / "cohort").mkdir()
    large = Volume(np.kron(image.array, np.ones((5, 5, 5), np.int16)), image.affine, "CT", "HU")
    volumes = [write_volume(large.with_array(large.array + n), folder / "cohort" / f"{n}.nii.gz") for n in range(4)]
    make(volumes[:2], volumes[2:], folder / "study", items="slices", per_volume=1, seed=1)
    study = Study.open(folder / "study")
    configuration = folder / "training.json"
    configuration.write_text('{"recipe": "ct-autoencoder", "steps": 10, "data": {"folder": "d"}}', encoding="utf-8")
    return {
        ".png": Original(picture, lambda: read_volume(picture)),
        "package": Original(archive, lambda: _installed(archive)),
        "sidecar": Original(beside, lambda: read_beside(folder / "v.mha"), False),
        "study": Original(folder / "study" / "study.json", lambda: Study.open(folder / "study"), False),
        "item": Original(study.items[0].path, lambda: study.items[0].image().array.tobytes()),
        "configuration": Original(configuration, lambda: read_config(configuration), False),
    }


def _installed(archive: Path) -> dict[str, str]:
    """File -> hash of a package that is installed from an archive and removed again."""
    folder = store.add(archive).folder
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    shutil.rmtree(folder)
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """One of: a flipped bit, several, a cut, a block of zeros, a block twice, garbage."""
    raw, kind = bytearray(raw), rng.integers(6)
    place = int(rng.integers(len(raw)) if rng.random() < 0.5 else rng.integers(min(len(raw), 600)))
    if kind < 2:
        for _ in range(1 if kind == 0 else 20):
            raw[place] ^= 1 << int(rng.integers(8))
            place = int(rng.integers(len(raw)))
    elif kind == 2:
        del raw[place:]
    elif kind == 3:
        raw[place : place + 40] = bytes(len(raw[place : place + 40]))
    elif kind == 4:
        raw[place:place] = raw[place : place + 40]
    else:
        raw[place : place + 8] = rng.bytes(8)
    return bytes(raw)


def complaints(original: Original, count: int, seconds: float, seed: int = 0) -> list[str]:
    """What is wrong with the answers to damaged files: tracebacks, more than a sentence, silence, time, memory."""
    path, raw, found = original.path, original.path.read_bytes(), []
    whole = _answer(original)[0]
    rng, began = np.random.default_rng([len(raw), seed]), time.monotonic()
    try:
        for number in range(count):
            changed = damaged(raw, rng)
            path.write_bytes(changed)
            started = time.monotonic()
            with _little_memory():
                answer, problem = _answer(original)
            if problem:
                found.append(f"{path.name}, damage {number}: {problem}")
            elif original.checked and answer is not None and answer != whole and not _other_header(changed, raw):
                found.append(f"{path.name}, damage {number}: another result without a word")
            if time.monotonic() - started > SECONDS:
                found.append(f"{path.name}, damage {number}: {time.monotonic() - started:.0f} s")
            if time.monotonic() - began > seconds:
                break
    finally:
        path.write_bytes(raw)
    return found


def _answer(original: Original) -> tuple[Any, str]:
    """What the reader returns, None where it refuses, and what is wrong with a refusal."""
    try:
        return original.read(), ""
    except MedGenError as error:
        good = str(error).endswith(".") and "\n" not in str(error)
        return None, "" if good else f"no sentence: {error}"
    except Exception:
        return None, traceback.format_exc()


@contextmanager
def _little_memory() -> Iterator[None]:
    """Limits the address space of this process to what it has and `MEBIBYTES`."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEBIBYTES * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _other_header(changed: bytes, raw: bytes) -> bool:
    """Whether the text header, which no checksum covers, was damaged, such as the byte order it states."""
    ends = [raw.find(mark) for mark in (b"\n\n", b"ElementDataFile = LOCAL\n") if raw.find(mark) > 0]
    return bool(ends) and changed[: min(ends)] != raw[: min(ends)]
