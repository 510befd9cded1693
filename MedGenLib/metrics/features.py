"""Volumes as vectors: the features of their slices in three planes, kept for the next time.

    extract = extractor("medgen-features")  # MedGenLib.evaluation.feature_networks
    standard = Standard.set_by(volumes[0], "first")
    cohort = [describe(volume, name, standard, extract) for name, volume in ...]

The features of a volume depend on its voxels, its orientation and spacing, and the network alone.
They are kept in the cache folder under the hash of all that, so that a second comparison with the
same cohort computes nothing; the cache can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from MedGenLib import user_folders
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.atomic import replacing
from MedGenLib.metrics.slices import PLANES, Standard, slices

SLICES = 12
"""Slices of a plane that are looked at; their number is part of the measure."""
CUBE = 32
"""Voxels along the edge of the small copy of a volume by which copies are found."""
_VERSION = 1
"""Changes whenever the same volume and network would give other numbers."""


class Extractor(Protocol):
    """A feature network.

    Attributes
    ----------
    name: for reports.
    key: changes with the weights, so that no feature of other weights is taken from the cache.
    """

    name: str
    key: str

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Slices (n, h, w) on the scale of `slices.encode` -> features (n, f)."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """What is kept of a volume.

    Attributes
    ----------
    planes: features (slices, f) of the sagittal, coronal and axial slices; a plane in which the
        volume shows nothing has no rows.
    cube: the encoded volume on 32^3 voxels, whatever its shape, mean 0 and length 1.
    """

    name: str
    planes: tuple[NDArray[np.float32], ...]
    cube: NDArray[np.float32]

    @cached_property
    def vector(self) -> NDArray[np.float64]:
        """One vector for the volume: the mean of each plane that has slices, one after another."""
        return np.concatenate([p.mean(0, dtype=np.float64) for p in self.planes if len(p)])


def describe(volume: Volume, name: str, standard: Standard, extract: Extractor, cache: bool = True) -> Features:
    """The features of a volume, from the cache where they are known.

    Raises
    ------
    InputError: the volume is constant, or is not what the standard is about.
    """
    encoded = standard.apply(volume, name)
    path = _cache_path(encoded, extract) if cache else None
    known = _read(path, name) if path else None
    if known is not None:
        return known
    found = Features(name, tuple(_planes(encoded, extract)), _cube(encoded))
    if not any(map(len, found.planes)):
        raise InputError(f"{name} is constant or shows nothing but air; take it out.")
    if path:
        _write(path, found)
    return found


def _planes(encoded: NDArray[np.float32], extract: Extractor) -> Iterator[NDArray[np.float32]]:
    for plane in range(len(PLANES)):
        images = list(slices(encoded, plane, SLICES))
        yield extract(np.stack(images)) if images else np.zeros((0, 1), np.float32)


def _cube(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Block means where there are more voxels than 32, linear interpolation where fewer."""
    from scipy import ndimage

    blocks = np.divide(encoded.shape, CUBE)
    smooth = ndimage.uniform_filter(encoded, np.maximum(blocks.round().astype(int), 1))
    places = [(np.arange(CUBE) + 0.5) * block - 0.5 for block in blocks]
    grid = np.meshgrid(*places, indexing="ij")
    cube = ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
    cube = cube - cube.mean()
    return (cube / max(float(np.linalg.norm(cube)), 1e-12)).astype(np.float32)


def _cache_path(encoded: NDArray[np.float32], extract: Extractor) -> Path:
    digest = hashlib.sha256(f"{_VERSION} {SLICES} {CUBE} {extract.key} {encoded.shape}".encode())
    digest.update(np.ascontiguousarray(encoded))
    return user_folders.cache_dir() / "features" / f"{digest.hexdigest()}.npz"


def _read(path: Path, name: str) -> Features | None:
    """None where nothing is kept, or what is kept is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Features(name, tuple(kept[plane] for plane in PLANES), kept["cube"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, found: Features) -> None:
    """Without room or permission the features are simply computed again next time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, cube=found.cube, **dict(zip(PLANES, found.planes, strict=True)))
