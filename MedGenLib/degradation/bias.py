"""The bias field of MR: signal that varies slowly with the distance from the coils."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def bias_field(
    shape: Sequence[int], rng: np.random.Generator, strength: float = 0.2, knots: int = 4
) -> NDArray[np.float32]:
    """The factor of the signal in each voxel (i, j, k): the exponential of a smooth random field.

    The field is a cubic spline through normal values on a coarse grid, of mean 0 (see Van Leemput et al. 1999,
    doi:10.1109/42.811268).

    Parameters
    ----------
    strength: standard deviation of the logarithm, to first order the relative one of the signal: 0.2 for 20 %.
    knots: values along each axis.
    """
    if strength == 0:
        return np.ones(shape, dtype=np.float32)
    i, j, k = (_spline(count, knots) for count in shape)
    field = np.einsum("abc,ia,jb,kc->ijk", rng.standard_normal((knots,) * 3), i, j, k, optimize=True)
    field -= field.mean()
    return np.ascontiguousarray(np.exp(field * (strength / field.std())), dtype=np.float32)


def _spline(count: int, knots: int) -> NDArray[np.float64]:
    """(count, knots): a cubic spline through values from the first sample to the last."""
    from scipy.interpolate import make_interp_spline

    places = np.linspace(0, 1, knots)
    return make_interp_spline(places, np.eye(knots), k=3)(np.linspace(0, 1, count) if count > 1 else [0.5])
