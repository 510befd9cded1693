"""Affines for tests."""

from __future__ import annotations

import numpy as np


def oblique(spacing=(0.7, 1.1, 2.5), left_handed=False, seed=0):
    """Affine with axes oblique to all coordinate axes."""
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    if (np.linalg.det(axes) < 0) != left_handed:
        axes[:, 0] *= -1
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = (31.25, -120.5, 77.125)
    return affine
