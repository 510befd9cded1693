"""Reading the outlines of LIDC-IDRI: lung nodules in an XML file beside a CT, drawn by up to four readers.

An outline runs through the first pixels outside of a nodule, so that these do not belong to it; outlines with the
inclusion FALSE are holes. Nodules below 3 mm and other findings have one point and no outline
(https://www.cancerimagingarchive.net/collection/lidc-idri).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Geometry, LabelMap
from MedGenLib.io.dicom.reading import read_series

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NODULE = "lung nodule"
_ROOT = "{http://www.nih.gov}"
_OFF = 0.3
"""Largest distance of an outline from the plane of a slice, in slices."""


def read_outlines(path: Path, images: Path) -> LabelMap:
    """The nodules on which the readers agree, as label 1 on the grid of the CT series in the folder ``images``.

    A nodule counts if more than half of the readers outlined it; a voxel belongs to it if at least half of those who
    outlined it include it.

    Raises
    ------
    InputError: no XML of LIDC-IDRI for a CT, or outlines beside the slices.
    """
    from xml.etree import ElementTree

    try:
        sessions = ElementTree.parse(path).getroot().findall(f"{_ROOT}readingSession")
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again.") from None
    if not sessions:
        raise InputError(f"{path} holds no readings of a CT of LIDC-IDRI; give another file.")
    grid = read_series(images).geometry
    return LabelMap(consensus([_drawn(session, grid, path) for session in sessions]), grid.affine, {1: NODULE})


def consensus(readings: list[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """1 in the voxels on which the readers agree, see `read_outlines`; ``readings`` has a mask for each reader."""
    from scipy.ndimage import find_objects, label

    votes = np.sum(readings, axis=0, dtype=np.uint8)
    places, _ = label(votes, np.ones((3, 3, 3)))
    agreed = np.zeros(votes.shape, np.uint8)
    for number, box in enumerate(find_objects(places), start=1):
        here = places[box] == number
        readers = sum(bool((reading[box] & here).any()) for reading in readings)
        if 2 * readers > len(readings):
            agreed[box][here & (2 * votes[box] >= readers)] = 1
    return agreed


def _drawn(session: Element, grid: Geometry, path: Path) -> NDArray[np.bool_]:
    """The voxels inside of the outlines of one reader."""
    from skimage.draw import polygon

    inside, holes = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    for roi in session.iterfind(f"{_ROOT}unblindedReadNodule/{_ROOT}roi"):
        edges = roi.iterfind(f"{_ROOT}edgeMap")
        points = np.array([[int(edge.findtext(_ROOT + key, "0")) for key in ("xCoord", "yCoord")] for edge in edges])
        if len(points) < 3:
            continue
        height = float(roi.findtext(f"{_ROOT}imageZposition", "nan"))
        plane = (height - grid.affine[2, 3]) / grid.affine[2, 2]
        if not abs(plane - round(plane)) < _OFF or not 0 <= round(plane) < grid.shape[2]:
            raise InputError(f"An outline of {path} at z = {height:g} mm lies in no slice of the CT; copy both again.")
        place = np.zeros(grid.shape[:2], bool)
        place[polygon(*points.T, grid.shape[:2])] = True
        place[tuple(points.clip(0, np.array(grid.shape[:2]) - 1).T)] = False
        (holes if roi.findtext(f"{_ROOT}inclusion", "TRUE") == "FALSE" else inside)[..., round(plane)] |= place
    return inside & ~holes
