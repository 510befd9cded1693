"""Feature vectors of volumes, from slices in three planes, with a cache.

    extract = extractor("medgen-features")  # MedGenLib.evaluation.feature_networks
    standard = Standard.set_by(volumes[0], "first")
    cohort = [describe(volume, name, standard, extract) for name, volume in ...]

Features depend only on a volume's voxels, orientation and spacing, and on the network. They are cached under a hash of
these, so that a repeated comparison is quick; the cache can be deleted at any time.
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
"""Slices taken from each plane; part of the definition of the measures."""
CUBE = 32
"""Edge length in voxels of the downsampled volume used to find copies."""
_VERSION = 1
"""Increased whenever the features of an unchanged volume and network change."""


class Extractor(Protocol):
    """A feature network.

    Attributes
    ----------
    name: name in reports.
    key: identifies the weights, so that the cache returns no features of other weights.
    """

    name: str
    key: str

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Slices (n, h, w) on the scale of `slices.encode` -> features (n, f)."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """What the measures need of a volume.

    Attributes
    ----------
    planes: features (slices, f) of the sagittal, coronal and axial slices; a plane in which the volume has no content
        has no rows.
    cube: the encoded volume resampled to 32^3 voxels, with mean 0 and norm 1.
    """

    name: str
    planes: tuple[NDArray[np.float32], ...]
    cube: NDArray[np.float32]

    @cached_property
    def vector(self) -> NDArray[np.float64]:
        """The concatenated mean features of each plane that has slices."""
        return np.concatenate([p.mean(0, dtype=np.float64) for p in self.planes if len(p)])


def describe(volume: Volume, name: str, standard: Standard, extract: Extractor, cache: bool = True) -> Features:
    """Features of a volume, from the cache if present.

    Raises InputError if the volume is constant, or its modality differs from the standard's.
    """
    encoded = standard.apply(volume, name)
    path = _cache_path(encoded, extract) if cache else None
    known = _read(path, name) if path else None
    if known is not None:
        return known
    found = Features(name, tuple(_planes(encoded, extract)), _cube(encoded))
    if not any(map(len, found.planes)):
        raise InputError(f"{name} is constant or contains only air; remove it.")
    if path:
        _write(path, found)
    return found


def _planes(encoded: NDArray[np.float32], extract: Extractor) -> Iterator[NDArray[np.float32]]:
    for plane in range(len(PLANES)):
        images = list(slices(encoded, plane, SLICES))
        yield extract(np.stack(images)) if images else np.zeros((0, 1), np.float32)


def _cube(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Block means along axes of more than 32 voxels, linear interpolation along others."""
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
    """None if nothing is cached or the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Features(name, tuple(kept[plane] for plane in PLANES), kept["cube"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, found: Features) -> None:
    """Without space or permission, the features are recomputed next time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, cube=found.cube, **dict(zip(PLANES, found.planes, strict=True)))
