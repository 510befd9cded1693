"""Headers of image files, read and checked before the voxels.

SimpleITK silently repairs some invalid headers (a spacing of 0, a singular direction matrix) and
allocates memory for any size. The headers of NRRD and MetaImage are therefore parsed here without
repair, those of NIfTI in `nifti.py`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.colors import hex_color
from MedGenLib.imaging.volume import Forms, Geometry

HEADER_LIMIT = 1 << 20
"""Longest text header that is read, in bytes."""
_BLOCK = 1 << 22
_ANY_HEADER = 47
"""Window size of zlib that accepts the headers of both gzip and zlib."""


@dataclass(frozen=True)
class Segment:
    """A segment of a .seg.nrrd file: the voxels of its layer that have its value."""

    value: int
    name: str
    layer: int
    color: str | None = None


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Attributes
    ----------
    shape: voxels along each axis, without axes of one voxel beyond the third.
    voxel_bytes: size of one voxel in bytes.
    channels: numbers per voxel; 1 for a scalar image.
    names: label value -> name, for the labels that the header names.
    segments: in the order of the file, where it is a segmentation.
    notes: one sentence per assumption made.
    forms: both positions of a NIfTI header.
    step: difference of neighboring stored values, where the header scales them; else 0.
    packed: file of compressed voxels, and where in it they begin.
    description: free text of a NIfTI header.
    """

    shape: tuple[int, ...]
    voxel_bytes: int
    channels: int = 1
    names: dict[int, str] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    notes: tuple[str, ...] = ()
    forms: Forms | None = None
    step: float = 0.0
    packed: tuple[Path, int] | None = None
    description: str = ""


# --- NRRD: https://teem.sourceforge.net/nrrd/format.html --------------------------------------

_SPATIAL_KINDS = ("domain", "space", "???", "none")
_NRRD_BYTES = {"char": 1, "short": 2, "int": 4, "long": 8, "float": 4, "double": 8}
_NRRD_SEGMENT = re.compile(r"Segment([0-9]{1,6})_(Name|LabelValue|Layer|Color):=(.*)")
"""Name, label value, layer or color of a segment, as Slicer writes it into .seg.nrrd."""


def read_nrrd_header(path: Path) -> Header:
    """Read the header of a .nrrd file; raises InputError if it is not NRRD or is invalid."""
    lines, size = _text_header(path, lambda line: not line.strip())
    if not lines or not lines[0].startswith("NRRD"):
        raise InputError(f"{path} is not an NRRD file despite its suffix; check how it was made.")
    entries = dict(
        line.split(":", 1) for line in lines[1:] if ":" in line and ":=" not in line and not line.startswith("#")
    )
    entries = {key.strip().lower(): value.strip() for key, value in entries.items()}
    sizes = _counts(entries.get("sizes", ""), path)
    lists = _list_axes(entries, len(sizes))
    shape = tuple(n for axis, n in enumerate(sizes) if axis not in lists)
    channels = int(np.prod([sizes[axis] for axis in lists], dtype=object))
    vectors = _vectors(entries.get("space directions", ""), path)
    _refuse_decimal_commas([*vectors, *_vectors(entries.get("space origin", ""), path)], entries, path)
    if len(vectors) == 3 and all(len(vector) == 3 for vector in vectors):
        _check_columns(np.array(vectors).T, path)
    elif "spacings" in entries:
        check_spacing(_numbers(entries["spacings"].replace("nan", ""), path), path)
    packed = None
    if entries.get("encoding", "").lower() in ("gz", "gzip") and not {"line skip", "byte skip"} & entries.keys():
        detached = entries.get("data file", entries.get("datafile"))
        packed = (path, size) if detached is None else (_beside(path, detached), 0)
        if detached is not None and (detached.startswith("LIST") or "%" in detached):
            packed = None
    segments = _segments(lines)
    return Header(
        without_trailing_ones(shape), _type_bytes(entries.get("type", "")), channels, segments=segments, packed=packed
    )


def _vectors(text: str, path: Path) -> list[tuple[float, ...]]:
    return [tuple(_numbers(vector, path)) for vector in re.findall(r"\(([^)]*)\)", text)]


def _refuse_decimal_commas(vectors: list[tuple[float, ...]], entries: dict[str, str], path: Path) -> None:
    """Raise InputError where a vector has more entries than the space has axes: its numbers are cut by their commas."""
    most = 4 if "time" in entries.get("space", "") else _counts(entries.get("space dimension", "3"), path)[0]
    if any(len(vector) > most for vector in vectors):
        raise InputError(
            f"The header of {path} has numbers with decimal commas, as Slicer writes them in some languages; save it "
            "as .nii.gz, or set Slicer's language to English and save it again."
        )


def _list_axes(entries: dict[str, str], count: int) -> list[int]:
    """Axes of a NRRD file that are not of space: colors, vectors, layers of a segmentation."""
    kinds = entries.get("kinds", "").lower().split()
    if len(kinds) == count:
        return [axis for axis, kind in enumerate(kinds) if kind not in _SPATIAL_KINDS]
    directions = re.findall(r"none|\([^)]*\)", entries.get("space directions", ""))
    return [axis for axis, vector in enumerate(directions) if vector == "none"] if len(directions) == count else []


def _segments(lines: list[str]) -> tuple[Segment, ...]:
    found: dict[int, dict[str, str]] = {}
    for line in lines:
        if match := _NRRD_SEGMENT.match(line):
            found.setdefault(int(match[1]), {})[match[2]] = match[3].strip()
    return tuple(
        Segment(
            int(entry["LabelValue"]),
            entry.get("Name", ""),
            int(entry.get("Layer", "0")),
            hex_color(entry.get("Color", "").split()),
        )
        for _, entry in sorted(found.items())
        if entry.get("LabelValue", "").isdecimal() and entry.get("Layer", "0").isdecimal()
    )


# --- MetaImage: https://itk.org/Wiki/MetaIO/Documentation ------------------------------------


def read_meta_header(path: Path) -> Header:
    """Read the header of a .mha or .mhd file; raises InputError if it is not MetaImage or is invalid."""
    lines, size = _text_header(path, lambda line: line.startswith("ElementDataFile"))
    entries = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if "DimSize" not in entries:
        raise InputError(f"{path} is not a MetaImage file despite its suffix; check how it was made.")
    shape = _counts(entries["DimSize"], path)
    spacing = _numbers(entries.get("ElementSpacing", entries.get("ElementSize", "")), path)
    check_spacing(spacing, path)
    for key in ("TransformMatrix", "Rotation", "Orientation"):
        cosines = _numbers(entries.get(key, ""), path)
        if len(shape) == 3 and len(cosines) == 9:
            _check_columns(np.reshape(cosines, (3, 3)), path)
    packed, place = None, entries.get("ElementDataFile", "")
    if entries.get("CompressedData", "").lower() == "true" and not place.startswith("LIST"):
        packed = (path, size) if place.upper() == "LOCAL" else (_beside(path, place), 0)
    return Header(
        without_trailing_ones(shape),
        _type_bytes(entries.get("ElementType", "")),
        (_counts(entries.get("ElementNumberOfChannels", ""), path) or (1,))[0],
        packed=packed,
    )


# --- Shared ------------------------------------------------------------------------------------


def _beside(path: Path, name: str) -> Path:
    """The file of the voxels that a header names."""
    if not name.isprintable():
        raise InputError(f"The header of {path} is damaged where it names the file of its voxels; copy it again.")
    return path.parent / name


def _text_header(path: Path, is_last: Callable[[str], bool]) -> tuple[list[str], int]:
    """Lines up to the last one of the header, and their bytes."""
    lines, size = [], 0
    with open(path, "rb") as stream:
        for raw in stream:
            size += len(raw)
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            lines.append(line)
            if is_last(line) or size > HEADER_LIMIT:
                break
    return lines, size


def check_packed(header: Header, path: Path) -> None:
    """Raise InputError unless the compressed voxels can be unpacked to the size that the header claims.

    SimpleITK passes over the checksum at their end.
    """
    if header.packed is None:
        return
    wanted = header.voxel_bytes * header.channels * int(np.prod(header.shape, dtype=object))
    unpacker, size = zlib.decompressobj(_ANY_HEADER), 0
    try:
        with open(header.packed[0], "rb") as stream:
            stream.seek(header.packed[1])
            while not unpacker.eof and size <= wanted and (block := stream.read(_BLOCK)):
                while block and not unpacker.eof:
                    size += len(unpacker.decompress(block, _BLOCK))
                    block = unpacker.unconsumed_tail
    except zlib.error:
        raise InputError(
            f"{path} is damaged: its compressed voxels do not match their checksum; copy or download it again."
        ) from None
    # A "long" has 4 or 8 bytes.
    if not unpacker.eof or size not in (wanted, wanted // 2 if header.voxel_bytes == 8 else wanted):
        raise InputError(
            f"{path} is truncated or damaged: its compressed voxels do not have the {wanted} bytes that its header "
            "claims; copy or download it again."
        )


def _numbers(text: str, path: Path) -> list[float]:
    try:
        return [float(word) for word in re.split(r"[\s,]+", text) if word]
    except ValueError:
        raise InputError(
            f'The header of {path} has "{text}" where numbers are expected; check how it was made.'
        ) from None


def _counts(text: str, path: Path) -> tuple[int, ...]:
    """Whole numbers from 1 up."""
    numbers = _numbers(text, path)
    if not all(1 <= n < 2**62 and n == int(n) for n in numbers):
        raise InputError(
            f'The header of {path} claims the size "{text}", which is not an image; check how it was made.'
        )
    return tuple(int(n) for n in numbers)


def _type_bytes(name: str) -> int:
    """Bytes per voxel of a named type, such as "unsigned short", "MET_USHORT" or "uint16"; 8 if unknown."""
    name = name.lower()
    if digits := re.search(r"int(\d+)", name):
        return int(digits[1]) // 8
    return next((size for word, size in _NRRD_BYTES.items() if word in name), 8)


def without_trailing_ones(shape: Iterable[int]) -> tuple[int, ...]:
    """Shape without axes of one voxel beyond the third."""
    shape = list(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def check_spacing(spacing: Iterable[float], path: Path) -> None:
    """Raise InputError unless every spacing (mm) is finite and above 0."""
    spacing = np.array(list(spacing), dtype=np.float64)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        text = " x ".join(f"{s:g}" for s in spacing)
        raise InputError(
            f"The header of {path} claims a voxel spacing of {text} mm, but every "
            "axis needs a value above 0; correct the header."
        )


def _check_columns(columns: np.ndarray, path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = columns
    check_axes(affine, path)


def check_axes(affine: np.ndarray, path: Path) -> None:
    """Raise InputError, naming the file, unless the affine describes a rectangular grid."""
    try:
        Geometry((1, 1, 1), affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
