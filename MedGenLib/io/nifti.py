"""Reading NIfTI-1 and NIfTI-2 files, and reading and writing comments in their headers.

Images are written by SimpleITK but not read by it: it silently replaces NaN and infinite voxels
by 0, fills a truncated file with zeros and repairs an invalid affine.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h
"""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.headers import HEADER_LIMIT, Header, check_axes, check_spacing, without_trailing_ones

_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True, kw_only=True)
class NiftiHeader(Header):
    """A `Header` with the affine and the layout of the stored voxels.

    Attributes
    ----------
    affine: voxel index -> RAS mm.
    dtype: type of the stored voxels, with byte order.
    start: offset of the first voxel in bytes.
    slope, intercept: value = stored x slope + intercept.
    """

    affine: np.ndarray
    dtype: np.dtype
    start: int
    slope: float
    intercept: float

    @property
    def payload(self) -> int:
        """Size of all voxels in bytes."""
        return self.voxel_bytes * int(np.prod(self.shape, dtype=object))


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header of a .nii or .nii.gz file.

    Raises
    ------
    InputError: the file is not NIfTI, or its spacing, axes or voxel type cannot be used.
    """
    try:
        with _open(path) as stream:
            raw = stream.read(540)
            fields = _nifti_fields(raw, path)
            start = int(np.nan_to_num(fields["vox_offset"]))
            extension = raw[352:] + stream.read(max(0, min(start, HEADER_LIMIT) - len(raw)))
    except _DAMAGED:
        raise InputError(f"{path} is truncated inside its header; copy it again.") from None
    code = int(fields["datatype"])
    if code not in _TYPES:
        raise InputError(
            f"{path} holds colors, complex numbers or another voxel type (code "
            f"{code}) that is not a scalar image; convert it first."
        )
    dtype = np.dtype(_TYPES[code]).newbyteorder(_order(fields))
    affine, notes = _nifti_affine(fields, path)
    names = {int(key): name.decode("utf-8", "replace").strip() for key, name in _LABEL_NAME.findall(extension)}
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    return NiftiHeader(
        _nifti_shape(fields["dim"], path),
        dtype.itemsize,
        names=names,
        notes=notes,
        affine=affine,
        dtype=dtype,
        start=start,
        slope=slope,
        intercept=intercept,
    )


def read_nifti_voxels(path: Path, header: NiftiHeader) -> np.ndarray:
    """Array (i, j, k): float32 after the header's slope and intercept, else the stored type.

    Raises
    ------
    InputError: the file holds fewer voxels than its header claims, or is damaged.
    """
    raw = bytearray()
    try:
        with _open(path) as stream:
            stream.seek(header.start)
            while len(raw) < header.payload and (block := stream.read(min(_BLOCK, header.payload - len(raw)))):
                raw += block
    except _DAMAGED:
        pass  # the decompressed bytes are counted below
    if len(raw) < header.payload:
        raise InputError(
            f"{path} is truncated: it holds {len(raw)} of the {header.payload} bytes "
            "of voxels that its header claims; copy or download it again."
        )
    stored = np.frombuffer(raw, header.dtype).reshape(header.shape, order="F")
    if (header.slope, header.intercept) == (1.0, 0.0):
        return stored
    return stored.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept)


def add_nifti_comment(plain: Path, target: Path, comment: str, description: str = "") -> None:
    """Copy an uncompressed NIfTI file without extensions to `target`, adding a comment (code 6).

    `target` is compressed if its name ends in .gz. `description` is stored in the header field of
    79 characters, which programs that drop extensions keep.
    """
    text = comment.encode()
    size = -(-(len(text) + 8) // 16) * 16  # the standard requires a multiple of 16 bytes
    with open(plain, "rb") as source, open(target, "wb") as raw, contextlib.ExitStack() as stack:
        fields = _nifti_fields(source.read(540), plain)
        length, order = fields.dtype.itemsize, _order(fields)
        source.seek(0)
        header = bytearray(source.read(length + 4))
        changed = np.frombuffer(header, fields.dtype, 1)
        changed["vox_offset"] += size
        changed["descrip"] = description.encode("ascii", "replace")[:79]
        header[length] = 1  # extensions follow
        source.seek(int(fields["vox_offset"]))
        sink = raw
        if target.name.lower().endswith(".gz"):
            sink = stack.enter_context(gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0))
        sink.write(header)
        sink.write(struct.pack(f"{order}2i", size, _COMMENT) + text.ljust(size - 8, b"\0"))
        shutil.copyfileobj(source, sink, _BLOCK)


def read_nifti_comments(path: Path) -> list[str]:
    """Texts of all header extensions with code 6; raises InputError if the file is not NIfTI."""
    comments = []
    try:
        with _open(path) as stream:
            raw = stream.read(540)
            fields = _nifti_fields(raw, path)
            length, start = fields.dtype.itemsize, int(np.nan_to_num(fields["vox_offset"]))
            raw += stream.read(max(0, min(start, HEADER_LIMIT) - len(raw)))
    except _DAMAGED:
        raise InputError(f"{path} is truncated inside its header; copy it again.") from None
    order = _order(fields)
    offset, end = length + 4, min(start, len(raw))
    while raw[length : length + 1] != b"\0" and offset + 8 <= end:
        size, code = struct.unpack(f"{order}2i", raw[offset : offset + 8])
        if size < 16 or offset + size > end:
            break  # not a valid extension
        if code == _COMMENT:
            text = raw[offset + 8 : offset + size].rstrip(b"\0")
            comments.append(text.decode("utf-8", "replace"))
        offset += size
    return comments


def _open(path: Path) -> BinaryIO:
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")


def _layout(offsets: dict[str, tuple[str, int]], size: int) -> np.dtype:
    return np.dtype(
        {
            "names": list(offsets),
            "formats": [f for f, _ in offsets.values()],
            "offsets": [o for _, o in offsets.values()],
            "itemsize": size,
        }
    )


_NIFTI = {
    348: _layout(
        {
            "dim": ("8i2", 40),
            "datatype": ("i2", 70),
            "bitpix": ("i2", 72),
            "pixdim": ("8f4", 76),
            "vox_offset": ("f4", 108),
            "scl_slope": ("f4", 112),
            "scl_inter": ("f4", 116),
            "units": ("u1", 123),
            "descrip": ("S80", 148),
            "qform_code": ("i2", 252),
            "sform_code": ("i2", 254),
            "quatern": ("3f4", 256),
            "offset": ("3f4", 268),
            "srow": ("(3,4)f4", 280),
            "magic": ("S4", 344),
        },
        348,
    ),
    540: _layout(
        {
            "magic": ("S8", 4),
            "datatype": ("i2", 12),
            "bitpix": ("i2", 14),
            "dim": ("8i8", 16),
            "pixdim": ("8f8", 104),
            "vox_offset": ("i8", 168),
            "scl_slope": ("f8", 176),
            "scl_inter": ("f8", 184),
            "descrip": ("S80", 240),
            "qform_code": ("i4", 344),
            "sform_code": ("i4", 348),
            "quatern": ("3f8", 352),
            "offset": ("3f8", 376),
            "srow": ("(3,4)f8", 400),
            "units": ("i4", 500),
        },
        540,
    ),
}
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
"""Array type by the header's datatype; the others (color, complex) are not scalar images."""
_BLOCK = 1 << 24
_COMMENT = 6
"""Code of a header extension with plain text."""
_COMPRESSION = 4
"""zlib level: half the time of the default level 6, files 1 to 2 % larger."""
_TO_MM = {1: 1000.0, 3: 0.001}
"""Factor to mm by xyzt_units (1 is m, 3 is um); all other codes are taken as mm."""
_LABEL_NAME = re.compile(rb'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*<!\[CDATA\[(.*?)\]\]>', re.DOTALL)
"""Label name in the extension written by TotalSegmentator and Connectome Workbench."""


def _nifti_fields(raw: bytes, path: Path) -> np.void:
    for order in "<>":
        layout = _NIFTI.get(int(np.frombuffer(raw[:4].ljust(4), f"{order}i4")[0]))
        if layout is None:
            continue
        if len(raw) < layout.itemsize:
            raise InputError(f"{path} is truncated inside its header; copy it again.")
        fields = np.frombuffer(raw[: layout.itemsize], layout.newbyteorder(order))[0]
        if fields["magic"].startswith((b"n+1", b"n+2")):
            return fields
    raise InputError(f"{path} is not a NIfTI file despite its suffix; check how it was made.")


def _order(fields: np.void) -> str:
    """Byte order of a header, as used by numpy and struct."""
    return fields.dtype["dim"].base.byteorder


def _nifti_shape(dim: np.ndarray, path: Path) -> tuple[int, ...]:
    if not 1 <= dim[0] <= 7 or (dim[1 : dim[0] + 1] < 1).any():
        raise InputError(
            f"The header of {path} claims {dim[0]} axes of {dim[1:4].tolist()} "
            "voxels, which is not an image; check how it was made."
        )
    shape = [int(n) for n in dim[1 : dim[0] + 1]]
    return without_trailing_ones(shape + [1] * (3 - len(shape)))


def _nifti_affine(fields: np.void, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Affine from sform, else qform, else the voxel size (methods 3, 2 and 1 of the standard)."""
    spacing = np.array(fields["pixdim"][1:4], dtype=np.float64)
    check_spacing(spacing, path)
    affine, notes = np.eye(4), ()
    if fields["sform_code"] > 0:
        affine[:3] = fields["srow"]
    else:
        affine[:3, :3] = np.diag(spacing)
    if fields["sform_code"] <= 0 < fields["qform_code"]:
        sign = -1.0 if fields["pixdim"][0] < 0 else 1.0
        affine[:3, :3] = _rotation(fields["quatern"].astype(np.float64)) * spacing * (1, 1, sign)
        affine[:3, 3] = fields["offset"]
    elif fields["sform_code"] <= 0:
        notes = (f"{path.name} does not state its orientation; its axes are assumed to be right, anterior, superior.",)
    affine[:3] *= _TO_MM.get(int(fields["units"]) & 7, 1.0)
    check_axes(affine, path)
    return affine, notes


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of the unit quaternion (a, b, c, d) with a >= 0, from its part (b, c, d)."""
    b, c, d = quaternion
    squared = b * b + c * c + d * d
    if squared > 1.0:  # rounding at a rotation by 180 degrees
        b, c, d = quaternion / np.sqrt(squared)
    a = np.sqrt(max(0.0, 1.0 - squared))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
