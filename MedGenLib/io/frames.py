"""Writing volumes of one grid as a sequence (.seq.nrrd), as 3D Slicer reads it, and displacement fields."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume, lps_from_affine
from MedGenLib.io.files import temporary_output
from MedGenLib.io.provenance import KEY, Provenance
from MedGenLib.io.system import quiet_library

SEQUENCE = ".seq.nrrd"
_COMPRESSION = 1
_TYPES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32", "f4": "float"}


def write_sequence(
    frames: Sequence[Volume | LabelMap],
    path: str | Path,
    values: Sequence[float],
    name: str = "phase",
    unit: str = "%",
    provenance: Provenance | None = None,
) -> None:
    """Write frames of one grid and voxel type into one file, which appears when it is complete.

    Parameters
    ----------
    path: ends in .seq.nrrd, the only suffix by which 3D Slicer knows a sequence.
    values: index of each frame, with its name and its unit.

    Raises
    ------
    InputError: the file cannot be written.
    """
    first = frames[0]
    kind = np.dtype(np.uint8 if first.array.dtype == bool else first.array.dtype).newbyteorder("<")
    spacing, origin, direction = lps_from_affine(first.affine)
    vectors = [_vector(column) for column in (direction * spacing).T]
    node = "vtkMRMLLabelMapVolumeNode" if isinstance(first, LabelMap) else "vtkMRMLScalarVolumeNode"
    lines = [
        "NRRD0005",
        f"type: {_TYPES.get(kind.str[1:], 'double')}",
        "dimension: 4",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, (*first.shape, len(frames))))}",
        f"space directions: {' '.join(vectors)} none",
        "kinds: domain domain domain list",
        f'labels: "" "" "" "{name}"',
        f'units: "" "" "" "{unit}"',
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(origin)}",
        f"DataNodeClassName:={node}",
        "axis 3 index type:=numeric",
        f"axis 3 index values:={' '.join(f'{value:g}' for value in values)}",
    ]
    if provenance is not None:
        lines.append(f"{KEY}:={provenance.line()}")
    with temporary_output(path) as temporary, open(temporary, "wb") as stream:
        stream.write("\n".join([*lines, "", ""]).encode())
        with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=_COMPRESSION, mtime=0) as packed:
            for frame in frames:
                packed.write(frame.array.astype(kind, copy=False).tobytes(order="F"))


def _vector(numbers: NDArray) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"


def write_displacement(field: NDArray[np.float32], affine: NDArray, path: str | Path) -> None:
    """Write a displacement field (i, j, k, 3) in LPS mm as .nrrd, which ITK and 3D Slicer read as a transform.

    Raises
    ------
    InputError: the file cannot be written.
    """
    import SimpleITK

    picture = SimpleITK.GetImageFromArray(np.ascontiguousarray(field.transpose(2, 1, 0, 3)), isVector=True)
    spacing, origin, direction = lps_from_affine(affine)
    picture.SetSpacing(spacing.tolist())
    picture.SetOrigin(origin.tolist())
    picture.SetDirection(direction.ravel().tolist())
    try:
        with temporary_output(path) as temporary, quiet_library():
            SimpleITK.WriteImage(picture, str(temporary), useCompression=True)
    except RuntimeError:
        raise InputError(f"{path} could not be written completely; check the disk, then try another folder.") from None
