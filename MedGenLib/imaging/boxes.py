"""Boxes of a grid: three slices with a start and a stop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
NOWHERE: Box = (slice(0, 0),) * 3


def inside(box: Box, outer: Box) -> Box:
    """A box in the indices of a larger box."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))


def wider(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    """A box with a margin, cut at the end of the grid."""
    return tuple(
        slice(max(0, part.start - margin), min(n, part.stop + margin)) for part, n in zip(box, shape, strict=True)
    )


def volume(box: Box) -> int:
    return math.prod(part.stop - part.start for part in box)


def moved(box: Box, step: tuple[int, ...]) -> Box:
    return tuple(slice(p.start + s, p.stop + s) for p, s in zip(box, step, strict=True))


def placed(marks: NDArray, place: Box, box: Box) -> NDArray[np.bool_]:
    """Marks of one box in another box."""
    result = np.zeros([part.stop - part.start for part in box], bool)
    both = common(place, box)
    if volume(both) > 0:
        result[inside(both, box)] = marks[inside(both, place)]
    return result


def common(one: Box, other: Box) -> Box:
    """The intersection of two boxes; empty slices where they are apart."""
    parts = ((max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return tuple(slice(start, max(start, stop)) for start, stop in parts)


def tight(marks: NDArray, box: Box) -> tuple[Box, Box]:
    """The bounding box of marks in a box, and the same in the indices of that box."""
    index = np.nonzero(marks)
    part = tuple(slice(int(i.min()), int(i.max()) + 1) for i in index)
    return moved(part, tuple(b.start for b in box)), part


def union(boxes: Iterable[Box]) -> Box:
    boxes = [box for box in boxes if volume(box)]
    if not boxes:
        return NOWHERE
    return tuple(slice(min(p.start for p in parts), max(p.stop for p in parts)) for parts in zip(*boxes, strict=True))


def contains(outer: Box, box: Box) -> bool:
    return all(o.start <= b.start and b.stop <= o.stop for o, b in zip(outer, box, strict=True))


def scaled(box: Box, factor: int) -> Box:
    """A box on a grid that is finer by a factor, such as latent voxels as image voxels."""
    return tuple(slice(factor * part.start, factor * part.stop) for part in box)


def shrunk(box: Box, factor: int) -> Box:
    """A box on a grid that is coarser by a factor."""
    return tuple(slice(part.start // factor, part.stop // factor) for part in box)


def slabs(length: int, thickness: int, reach: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slabs of an axis: the slab, the slab extended by `reach` on both sides, and its position in that.

    Slab-wise computation saves memory with the same result.
    """
    for start in range(0, length, thickness):
        stop = min(start + thickness, length)
        first, last = max(0, start - reach), min(length, stop + reach)
        yield slice(start, stop), slice(first, last), slice(start - first, stop - first)
