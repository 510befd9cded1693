"""Random grids for property tests, and how far two grids lie apart."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

TIMES = int(os.environ.get("MEDGEN_EXAMPLES", "1"))
"""Multiple of the examples of the tests, for Testing/benchmarks/damage.py."""
ANY = settings(
    max_examples=60 * TIMES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # without shrinking, so that a failure takes no minutes
)


@st.composite
def any_grid(draw, shears=(0, 0, 1e-5, 5e-4), sides=(2, 7), spacings=(0.05, 12)):
    """Shape and affine: oblique, flipped, anisotropic, far from the origin, a hair off a right angle."""
    shape = draw(st.tuples(*[st.integers(*sides)] * 3))
    spacing = draw(st.tuples(*[st.floats(*spacings)] * 3))
    angles = draw(st.one_of(st.tuples(*[st.sampled_from([0, 90, 180, 270])] * 3), st.tuples(*[st.floats(0, 360)] * 3)))
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    direction = direction @ np.diag(draw(st.tuples(*[st.sampled_from([1, -1])] * 3)))
    shear = np.eye(3)
    shear[0, 1] = draw(st.sampled_from(shears))
    affine = np.eye(4)
    affine[:3, :3] = direction @ shear * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return shape, affine


def furthest(first, second):
    """Largest distance of two grids' corresponding voxel centers, in voxels."""
    return first.geometry.distance(second.geometry) / min(first.spacing)


def rounding_of(image):
    """Distance in voxels that 32 bits of a NIfTI header lose: far from the origin a small voxel is known to 1e-7."""
    return 2e-7 * np.abs(image.affine[:3, 3]).max() / min(image.spacing)
