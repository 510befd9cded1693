"""Writing NIfTI-1 files with the exact affine, both forms of position, and a comment."""

from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Forms, LabelMap, Volume, by_axis
from MedGenLib.io.nifti_layout import COMMENT, LAYOUTS, TYPES

_COMPRESSION = 4
"""zlib level: half the time of the default level 6, files 1 to 2 % larger."""
_STORED = {"bool": "u1", "float16": "f4"}
_LENGTH = 348
_LARGEST = np.iinfo(np.int16).max


def write_nifti(image: Volume | LabelMap, path: Path, comment: str = "", description: str = "") -> None:
    """Write an image, compressed if the name ends in .gz.

    Parameters
    ----------
    comment: text of a header extension with code 6.
    description: stored in the header field of 79 characters, which programs that drop extensions keep.

    Raises
    ------
    InputError: an axis is too long for the format, or the voxel type is none of its types.
    OSError: the file cannot be written.
    """
    array = image.array.astype(_STORED.get(image.array.dtype.name, image.array.dtype.newbyteorder("<")), copy=False)
    header = _header(image, array.dtype, path)
    text = comment.encode()
    size = -(-(len(text) + 8) // 16) * 16 if text else 0  # the standard requires a multiple of 16 bytes
    header["vox_offset"] += size
    header["descrip"] = description.encode("ascii", "replace")[:79]
    with open(path, "wb") as raw, contextlib.ExitStack() as stack:
        sink = raw
        if path.name.lower().endswith(".gz"):
            sink = stack.enter_context(gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0))
        sink.write(struct.pack("<i", _LENGTH) + header.tobytes()[4:] + struct.pack("4B", bool(text), 0, 0, 0))
        if text:
            sink.write(struct.pack("<2i", size, COMMENT) + text.ljust(size - 8, b"\0"))
        for k in range(array.shape[2]):
            sink.write(array[..., k].tobytes(order="F"))


def _header(image: Volume | LabelMap, dtype: np.dtype, path: Path) -> np.void:
    codes = {np.dtype(name): code for code, name in TYPES.items()}
    if dtype not in codes:
        raise InputError(f"{path} cannot hold voxels of the type {dtype.name}; convert them to 32-bit numbers.")
    if max(image.shape) > _LARGEST:
        raise InputError(
            f"{path} cannot hold {by_axis(image.shape)} voxels, NIfTI-1 ends at {_LARGEST} along an axis; use .nrrd."
        )
    forms = image.forms if image.forms is not None and image.forms.is_of(image.affine) else Forms(image.affine)
    header = np.zeros((), LAYOUTS[_LENGTH].newbyteorder("<"))
    header["dim"] = (3, *image.shape, 1, 1, 1, 1)
    header["datatype"], header["bitpix"] = codes[dtype], 8 * dtype.itemsize
    header["vox_offset"], header["scl_slope"], header["units"] = 352, 1, 2
    qform = image.affine if forms.qform is None else forms.qform
    quaternion, sign = _quaternion(qform)
    header["pixdim"] = (sign, *np.linalg.norm(qform[:3, :3], axis=0), 0, 0, 0, 0)
    header["qform_code"], header["sform_code"] = forms.qform_code, forms.sform_code
    header["quatern"], header["offset"], header["srow"] = quaternion, qform[:3, 3], image.affine[:3]
    header["magic"] = b"n+1"
    return header


def _quaternion(affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Part (b, c, d) of the unit quaternion (a, b, c, d) with a >= 0 of the nearest rotation, and its sign qfac."""
    from scipy.spatial.transform import Rotation

    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, _, right = np.linalg.svd(direction)
    rotation = left @ right
    sign = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    b, c, d, a = Rotation.from_matrix(rotation * (1, 1, sign)).as_quat()
    return np.array((b, c, d)) * (-1.0 if a < 0 else 1.0), sign
