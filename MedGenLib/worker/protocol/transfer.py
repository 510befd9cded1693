"""Images between two processes: voxels in a .npy file, the rest in the message.

`put` writes the voxels in memory order, `take` maps the file into memory: a volume from Slicer, whose first axis is the
fastest, is not copied or transposed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import DiskFullError, InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.options import of

BLOCK = 16 * 2**20
"""Bytes written at once; the caller can stop between two blocks."""

DISK_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def put(
    image: Volume | LabelMap, folder: str | Path, name: str, on_block: Callable[[], None] | None = None
) -> dict[str, Any]:
    """Write an image to ``folder/name.npy``; returns its description for `take`.

    Parameters
    ----------
    on_block: called before every block of 16 MiB; an exception raised in it stops the writing.

    Raises
    ------
    DiskFullError: the disk is full; no file remains.
    InputError: the folder does not exist or is not writable.
    """
    path = Path(folder).absolute() / f"{name}.npy"
    try:
        with path.open("xb") as stream:
            _write(image.array, stream, on_block)
    except BaseException as error:
        if not isinstance(error, FileExistsError):
            with suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            raise write_error(error, path) from error
        raise
    return {"path": str(path), **_facts(image)}


def take(item: Mapping[str, Any]) -> Volume | LabelMap:
    """The image described by `put`.

    The voxels are memory-mapped and read-only. A path without the suffix .npy is read as by `read_volume` and
    `read_label_map`; of the description only kind, modality and names are used then. Raises InputError if the
    description or the file cannot be used.
    """
    try:
        path, kind = Path(item["path"]), item.get("kind", "volume")
        if path.suffix.lower() != ".npy":
            return _read(path, kind, item)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        affine, notes = np.array(item["affine"], np.float64), tuple(item.get("notes", ()))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"The image {item.get('path')} cannot be read: {error}.") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"An image is described without its {error}.") from error
    if kind == "labels":
        names = {int(value): str(name) for value, name in item.get("names", {}).items()}
        return LabelMap(array, affine, names, notes)
    return Volume(array, affine, item.get("modality"), item.get("unit") or "a.u.", notes)


def take_images(command: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a command, by Python name, with images read by `take`."""
    kinds = {name: option.image for name, option in of(command).items()}
    return {
        name: take({**value, "kind": kinds[name]}) if kinds.get(name) and value is not None else value
        for name, value in options.items()
    }


def write_error(error: OSError, path: Path) -> InputError:
    """The error for a file that could not be written."""
    if error.errno in DISK_FULL:
        return DiskFullError(
            f"The disk is full, so {path} could not be written; free some space there or choose "
            "another folder for temporary files."
        )
    reason = error.strerror or str(error)
    return InputError(f"{path} cannot be written ({reason}); choose another folder for temporary files.")


def _write(array: np.ndarray, stream: Any, on_block: Callable[[], None] | None) -> None:
    # numpy.save loses errno when a disk is full, so the voxels are written in blocks.
    if not array.flags.c_contiguous and not array.flags.f_contiguous:
        array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    if header["descr"] == "|O":
        raise InputError("The image array has objects instead of numbers; give an array of numbers.")
    np.lib.format.write_array_header_1_0(stream, header)
    flat = array.ravel(order="F" if header["fortran_order"] else "C")
    voxels = memoryview(flat.view(np.uint8))
    for start in range(0, len(voxels), BLOCK):
        if on_block is not None:
            on_block()
        stream.write(voxels[start : start + BLOCK])
    stream.flush()


def _facts(image: Volume | LabelMap) -> dict[str, Any]:
    affine, notes = image.affine.tolist(), list(image.notes)
    if isinstance(image, LabelMap):
        names = {str(value): name for value, name in image.names.items()}
        return {"kind": "labels", "affine": affine, "names": names, "notes": notes}
    return {"kind": "volume", "affine": affine, "modality": image.modality, "unit": image.unit, "notes": notes}


def _read(path: Path, kind: str, item: Mapping[str, Any]) -> Volume | LabelMap:
    from MedGenLib.io.files import read_label_map, read_volume

    if kind == "labels":
        return read_label_map(path)
    return read_volume(path, item.get("series"), item.get("modality"))
