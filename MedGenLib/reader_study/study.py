"""The files of a reader study.

STUDY/study.json        the reading list: names and hashes, without the truth
STUDY/items/item_001.png   or .nrrd for volumes
STUDY/answers/NAME.csv  one reader's answers
STUDY.key.json          beside the folder: the synthetic items; not for readers
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError

FORMAT, KEY_FORMAT, VERSION = "medgen-reader-study", "medgen-reader-key", 1
LIST, ITEMS, ANSWERS = "study.json", "items", "answers"


@dataclass(frozen=True, eq=False)
class DisplayedImage:
    """An item as shown to the reader.

    Attributes
    ----------
    array: (k, j, i) gray values; one k for a slice. i runs to the right and j downwards on the screen; in a volume
        towards the patient's left and posterior, and k towards superior.
    spacing: of i, j, k in mm.
    window, level: black is level - window / 2, white is level + window / 2.
    """

    array: NDArray
    spacing: tuple[float, float, float]
    window: float
    level: float


@dataclass(frozen=True)
class Item:
    """One image of the reading list.

    Attributes
    ----------
    name: such as "item_001".
    path: PNG file of a slice, or NRRD file of a volume.
    sha256: hash of that file when the study was made.
    """

    name: str
    path: Path
    sha256: str
    spacing: tuple[float, float, float]
    window: float
    level: float

    def image(self) -> DisplayedImage:
        """Read the image. Raises InputError if the file is missing or was changed."""
        import SimpleITK

        self.check()
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(self.path)))
        return DisplayedImage(array.reshape(-1, *array.shape[-2:]), self.spacing, self.window, self.level)

    def check(self) -> None:
        """Raise InputError unless the file exists and is unchanged."""
        try:
            found = hash_of(self.path)
        except OSError:
            raise InputError(
                f"The image {self.path} of the reader study cannot be read; copy the whole study again."
            ) from None
        if found != self.sha256:
            raise InputError(
                f"The image {self.path} was changed after the reader study was made; copy the "
                "whole study again from where it was made."
            )


@dataclass(frozen=True)
class Study:
    """A reading list.

    Attributes
    ----------
    identity: random identifier in the list and the key.
    kind: "slices" or "volumes".
    title: what the images are and how they are shown, for the reader.
    digest: SHA-256 of the reading list; answers record it, to detect another list.
    """

    folder: Path
    identity: str
    kind: str
    title: str
    items: tuple[Item, ...]
    digest: str

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """The study in a folder. Raises InputError if it does not exist, or its list is damaged."""
        folder = Path(folder)
        path = folder / LIST
        data = read_json(path, FORMAT, "reader study")
        try:
            shown = data["shown"]
            frame = tuple(map(float, shown["spacing_mm"])), *map(float, shown["window_level"])
            items = tuple(
                Item(row["name"], folder / ITEMS / Path(row["file"]).name, row["sha256"], *frame)
                for row in data["items"]
            )
            return cls(folder, data["study"], data["kind"], shown["title"], items, hash_of(path))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"The reading list {path} is damaged; copy the whole study again.") from None


def hash_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def key_of(study: str | Path) -> Path:
    """Path of the key of a study, unless it was moved."""
    folder = Path(study).absolute()
    return folder.with_name(f"{folder.name}.key.json")


def read_json(path: Path, form: str, what: str) -> dict[str, Any]:
    """Read a JSON file of MedGen. Raises InputError if it does not exist, is not JSON, or is not a `what`."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"There is no {what} at {path}; check the path, or make one with `medgen reader-study make`."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path.") from None
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("format") != form:
        raise InputError(f"{path} is not a {what} of MedGen, or it is damaged; choose another file.")
    if data.get("version") != VERSION:
        raise InputError(
            f"{path} was made by another version of MedGen (its format is "
            f"{data.get('version')}, this one reads {VERSION}); use that version."
        )
    return data


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write indented JSON in UTF-8."""
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_item(path: Path, array: NDArray, spacing: tuple[float, float, float]) -> None:
    """Write a slice (1, j, i) uint8 as PNG, or a volume (k, j, i) int16 as NRRD.

    Without compression, as the size of a compressed file depends on the noise of the image.
    """
    if path.suffix == ".png":
        path.write_bytes(_png(array[0]))
        return
    import SimpleITK

    picture = SimpleITK.GetImageFromArray(array.astype(np.int16))
    picture.SetSpacing(spacing)
    try:
        SimpleITK.WriteImage(picture, str(path), useCompression=False)
    except RuntimeError:
        raise InputError(
            f"The image {path.name} cannot be written; free some space, or choose another folder for the study."
        ) from None


def _png(array: NDArray) -> bytes:
    """(row, column) uint8 as an 8-bit gray PNG whose length depends only on the shape.

    SimpleITK compresses flat images even at level 0, and adds the pixel size.
    """
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        size, check = (struct.pack(">I", n) for n in (len(data), zlib.crc32(name + data)))
        return size + name + data + check

    height, width = array.shape
    rows = np.pad(array, ((0, 0), (1, 0)))  # each row starts with filter type 0
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
