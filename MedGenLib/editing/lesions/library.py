"""Shapes of lesions by name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from MedGenLib.editing.lesions.shapes import PROCEDURAL, MaskShape, Shape
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import READABLE, read_label_map
from MedGenLib.io.samples import sample

MASKS = "lesion_shapes.seg.nrrd"
"""Sample file with the shapes of real lesions; each label is one of them."""

_SENTENCES = {
    "sphere": "A ball.",
    "ellipsoid": "An ellipsoid; the seed decides on its axes and its direction.",
    "lobulated": "A round body with broad lobes, which the seed places.",
    "spiculated": "A round body with thin rays, which the seed places.",
    "plaque-small": "A small plaque of multiple sclerosis, 7 mm.",
    "plaque-round": "A compact plaque of multiple sclerosis, 11 mm.",
    "plaque-oval": "An oval plaque of multiple sclerosis, 15 mm.",
    "plaque-long": "A long plaque of multiple sclerosis, 23 mm.",
    "plaque-large": "A large plaque of multiple sclerosis, 27 mm.",
    "plaque-branched": "A branched plaque of multiple sclerosis, 31 mm.",
}


def names() -> list[tuple[str, str]]:
    """The shapes of MedGen, each with a sentence. Reads no file."""
    return list(_SENTENCES.items())


def shape(name: str, seed: int) -> Shape:
    """The shape of that name, or of a mask file.

    Parameters
    ----------
    name: one of `names`, or the path of a mask in which the shape is labeled.
    seed: of the random parameters of a procedural shape.

    Raises
    ------
    InputError: unknown (names the known ones), or a mask that is empty or cannot be read.
    """
    if name in PROCEDURAL:
        return PROCEDURAL[name](np.random.default_rng(seed))
    if name in _SENTENCES:
        mask = _masks()
        value = next(value for value, known in mask.names.items() if known == name)
        return MaskShape.of(mask, value)
    if name.lower().endswith(READABLE):
        return MaskShape.of(read_label_map(Path(name)))
    raise InputError(f"There is no shape '{name}'; choose {', '.join(_SENTENCES)}, or name a mask file.")


@lru_cache(maxsize=1)
def _masks() -> LabelMap:
    return read_label_map(sample(MASKS))
