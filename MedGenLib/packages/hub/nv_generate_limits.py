"""Input limits of the published packages of NV-Generate, in the form of a package's preprocessing.

Source: `check_input_ct` and `check_input_mr` in scripts/sample_mask.py of NV-Generate-CTMR (Apache-2.0). Voxels and mm
along the RAS axes: left-right, back-front, foot-head.
"""

from __future__ import annotations

from itertools import product
from typing import Any

BODY = 200
"""Label of body voxels outside all structures."""
STRIDE = 32
"""Sides are multiples of this: the autoencoder halves twice, the U-Net three times."""

CT: dict[str, Any] = {
    "name": "maisi",
    "outside": "body",
    "body": BODY,
    "grids": [[n, n, k] for n, k in product((256, 384, 512), (128, 256, 384, 512, 640, 768))],
    "spacing_min_mm": [0.5, 0.5, 0.5],
    "spacing_max_mm": [3.0, 3.0, 5.0],
    "equal_in_plane": True,
    "partial": True,
    "least_view_mm": 256.0,
    "stride": STRIDE,
    "intensity": [-1000.0, 1000.0],
}
MR: dict[str, Any] = {
    "name": "maisi",
    "outside": "body",
    "grids": [
        [128, 128, 128],
        [256, 256, 128],
        [384, 384, 128],
        [512, 512, 128],
        [128, 256, 256],
        [256, 128, 256],
        [256, 256, 256],
    ],
    "spacing_min_mm": [0.4, 0.4, 0.4],
    "spacing_max_mm": [5.0, 5.0, 5.0],
    "equal_in_plane": False,
    "stride": STRIDE,
    "intensity": [0.0, 1000.0],
}
