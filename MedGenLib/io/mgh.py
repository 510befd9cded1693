"""Reading the .mgz and .mgh files of FreeSurfer.

Format: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.io.headers import Header, check_axes, check_spacing, without_trailing_ones
from MedGenLib.io.nifti_layout import BLOCK, DAMAGED, open_nifti

_HEADER = np.dtype(
    [
        ("version", ">i4"),
        ("size", ">i4", 4),
        ("type", ">i4"),
        ("dof", ">i4"),
        ("is_placed", ">i2"),
        ("spacing", ">f4", 3),
        ("direction", ">f4", (3, 3)),  # a row for each array axis, in RAS
        ("center", ">f4", 3),
    ]
)
_START = 284
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


@dataclass(frozen=True, kw_only=True)
class MghHeader(Header):
    """A `Header` with the affine (voxel index -> RAS mm) and the type of the stored voxels."""

    affine: np.ndarray
    dtype: np.dtype


def read_mgh_header(path: Path) -> MghHeader:
    """Read the header; raises InputError if the file is not MGH, or its type or axes cannot be used."""
    raw = _read(path, _HEADER.itemsize)
    if len(raw) < _HEADER.itemsize:
        raise InputError(f"{path} is truncated inside its header; copy it again.")
    fields = np.frombuffer(raw, _HEADER)[0]
    size = tuple(int(n) for n in fields["size"])
    if fields["version"] != 1 or min(size) < 1:
        raise InputError(f"{path} is not an MGH file despite its suffix; check how it was made.")
    if int(fields["type"]) not in _TYPES:
        raise InputError(f"{path} has voxels of an unknown type (code {fields['type']}); convert it to .nii.gz.")
    dtype, notes = np.dtype(_TYPES[int(fields["type"])]), ()
    spacing, direction, center = (fields[key].astype(np.float64) for key in ("spacing", "direction", "center"))
    if not fields["is_placed"]:
        spacing, direction, center = np.ones(3), np.array([[-1, 0, 0], [0, 0, -1], [0, 1, 0]]), np.zeros(3)
        notes = (f"{path.name} does not state its orientation; that of FreeSurfer (LIA, 1 mm) is assumed.",)
    check_spacing(spacing, path)
    affine = np.eye(4)
    affine[:3, :3] = direction.T * spacing
    affine[:3, 3] = center - affine[:3, :3] @ (np.array(size[:3]) / 2)
    check_axes(affine, path)
    return MghHeader(without_trailing_ones(size), dtype.itemsize, notes=notes, affine=affine, dtype=dtype)


def read_mgh_voxels(path: Path, header: MghHeader) -> np.ndarray:
    """Array (i, j, k) of a 3-D image; raises InputError if the file is truncated or damaged."""
    wanted = header.voxel_bytes * int(np.prod(header.shape, dtype=object))
    raw = _read(path, _START + wanted, to_end=True)[_START:]
    if len(raw) < wanted:
        raise InputError(
            f"{path} is truncated: it holds {len(raw)} of the {wanted} bytes of voxels that its header claims; copy or "
            "download it again."
        )
    return np.frombuffer(raw, header.dtype).reshape(header.shape, order="F").astype(header.dtype.newbyteorder("="))


def _read(path: Path, size: int, to_end: bool = False) -> bytes:
    """The first bytes, decompressed; ``to_end`` reads on to the checksum of a compressed file."""
    try:
        with open_nifti(path) as stream:
            raw = stream.read(size)
            while to_end and stream.read(BLOCK):
                pass
    except DAMAGED:
        raise InputError(f"{path} is damaged or truncated; copy or download it again.") from None
    return raw
