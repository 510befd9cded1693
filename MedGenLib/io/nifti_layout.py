"""Layout of NIfTI-1 and NIfTI-2 headers.

Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from MedGenLib.errors import InputError

DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged compressed file raises."""
COMMENT = 6
"""Code of a header extension with plain text."""
BLOCK = 1 << 24


def open_nifti(path: Path) -> BinaryIO:
    """The file, decompressed if it is compressed."""
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


LAYOUTS = {
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
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
"""Array type by the header's datatype; the others (color, complex) are not scalar images."""


def nifti_fields(raw: bytes, path: Path) -> np.void:
    for order in "<>":
        layout = LAYOUTS.get(int(np.frombuffer(raw[:4].ljust(4), f"{order}i4")[0]))
        if layout is None:
            continue
        if len(raw) < layout.itemsize:
            raise InputError(f"{path} is truncated inside its header; copy it again.")
        fields = np.frombuffer(raw[: layout.itemsize], layout.newbyteorder(order))[0]
        if fields["magic"].startswith((b"n+1", b"n+2")):
            return fields
    raise InputError(f"{path} is not a NIfTI file despite its suffix; check how it was made.")


def order_of(fields: np.void) -> str:
    """Byte order of a header, as used by numpy and struct."""
    return fields.dtype["dim"].base.byteorder
