"""Grids in another unit than mm are recognized, with the unit that fits."""

import numpy as np
import pytest

from MedGenLib.imaging.units import unit_doubt
from MedGenLib.imaging.volume import Geometry
from MedGenLib.packages.catalogue import find


def grid(spacing, shape):
    return Geometry(shape, np.diag([*np.broadcast_to(spacing, 3), 1.0]))


@pytest.mark.parametrize(
    "spacing, shape, unit",
    [
        (0.002, (200, 150, 150), "in meters"),
        (0.001, (35, 51, 35), "in meters"),
        (1000, (180, 200, 160), "in micrometers"),
        (100, (48, 48, 40), "in micrometers"),
        (40, (20, 20, 20), ""),
        ((0.0007, 0.0007, 0.005), (512, 512, 60), "in meters"),
    ],
)
def test_sizes_that_no_image_of_a_person_has(spacing, shape, unit):
    doubt = unit_doubt(grid(spacing, shape))
    assert unit in doubt and "correct the spacing" in doubt and (unit or "usual" not in doubt)


@pytest.mark.parametrize(
    "spacing, shape",
    [
        (1, (35, 51, 35)),
        ((0.7, 0.7, 5), (512, 512, 60)),
        ((2, 2, 30), (128, 128, 1)),
        (0.15, (300, 300, 300)),
        (20, (30, 30, 30)),
        ((1, 1, 2), (512, 512, 950)),
        (0.05, (400, 400, 400)),
    ],
)
def test_usual_sizes(spacing, shape):
    assert unit_doubt(grid(spacing, shape)) is None


@pytest.mark.parametrize("model", ["ct-tissue", "mr-brain", "mr-hippocampus", "head-mr-to-ct"])
def test_a_model_knows_which_unit_fits(model):
    manifest = find(model)
    spacing, view = manifest.spacing, manifest.field_of_view
    extents = list(zip(view.min, view.max, strict=True))
    shape = tuple(round((low + high) / 2 / spacing.native) for low, high in zip(view.min, view.max, strict=True))
    shape = tuple(min(n, 200) for n in shape)

    def doubt(factor):
        return unit_doubt(grid(spacing.native * factor, shape), (spacing.min, spacing.max), extents)

    assert doubt(1) is None
    assert "in centimeters" in doubt(0.1) and "in meters" in doubt(0.001) and "in micrometers" in doubt(1000)
