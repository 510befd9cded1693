"""Any mask in any format: what is generated from it lies where the mask lies."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from any_grids import ANY, TIMES, any_grid, furthest, rounding_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import MedGenLib
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.nifti_layout import LAYOUTS
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines import flow_sampling
from MedGenLib.pipelines.flow_sampling import Sampling

NAMES = {1: "fat", 2: "soft tissue", 3: "bone", 4: "lung or gas"}
CENTERS = np.array(find("ct-tissue").settings.centers)
"""HU of background and labels, which a latent of zeros stands for."""
UNITS = {"mm": (2, 1.0), "m": (1, 1000.0), "micron": (3, 0.001), "none": (0, 1.0)}


@pytest.fixture(autouse=True)
def no_networks(monkeypatch):
    """A stub of what the networks do: every voxel of the working grid has the middle of its tissue."""
    monkeypatch.setattr(Sampling, "sample", lambda self, seed, progress=None: None)
    monkeypatch.setattr(flow_sampling, "with_levels", lambda scene, *_: scene)
    monkeypatch.setattr(Sampling, "decode", lambda self, sampled, progress=None: np.zeros(self.scene.labels.shape))


def stored_otherwise(path: Path, unit: str, slope: float, dtype: str) -> Path:
    """A NIfTI mask in another unit and number format, with a scale."""
    raw = path.read_bytes()
    header = np.frombuffer(raw[:348], LAYOUTS[348]).copy()
    code, to_mm = UNITS[unit]
    labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).transpose(2, 1, 0)
    header["units"], header["scl_slope"], header["scl_inter"] = code, slope, 0
    header["datatype"], header["bitpix"] = {"uint8": (2, 8), "int16": (4, 16), "float32": (16, 32)}[dtype]
    header["pixdim"][:, 1:4] /= to_mm
    header["srow"] /= to_mm
    header["offset"] /= to_mm
    data = (labels / slope).astype(dtype).tobytes(order="F")
    other = path.with_name("other.nii.gz")
    raw = (348).to_bytes(4, "little") + header.tobytes()[4:] + bytes(4) + data
    other.write_bytes(gzip.compress(raw, 1))
    return other


@settings(ANY, max_examples=12 * TIMES)
@given(
    any_grid(sides=(6, 14), spacings=(0.6, 6.0)),
    st.sampled_from((".nii", ".nii.gz", ".nrrd", ".mha")),
    st.sampled_from((".nii", ".nii.gz", ".nrrd", ".mha")),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from((("uint8", 1.0), ("int16", 0.5), ("float32", 0.25))),
    st.integers(0, 99),
)
def test_voxel_centers_of_mask_and_image_agree(grid, mask_format, image_format, unit, stored, seed):
    shape, affine = grid
    blocks = np.random.default_rng(seed).integers(1, 5, (2, 2, 2)).astype(np.uint8)
    labels = ndimage.zoom(blocks, [n / 2 for n in shape], order=0, mode="nearest", grid_mode=True)
    mask = LabelMap(labels, affine, NAMES)
    with tempfile.TemporaryDirectory() as name:
        path = write_volume(mask, Path(name) / f"mask{mask_format}")
        if mask_format == ".nii":
            path = stored_otherwise(path, unit, stored[1], stored[0])
        read = read_label_map(path)
        assert np.array_equal(read.array, labels) and furthest(mask, read) < 1e-3 + rounding_of(mask)
        result = MedGenLib.generate(read.with_array(read.array, NAMES), seed=1, device="cpu", retries=0)
        image = read_volume(write_volume(result.volume, Path(name) / f"image{image_format}"), modality="CT")
    assert image.shape == shape and furthest(mask, image) < 1e-3 + rounding_of(mask)
    inside = ndimage.minimum_filter(labels, 5) == ndimage.maximum_filter(labels, 5)
    difference = np.abs(image.array - CENTERS[labels])[inside]
    assert difference.max(initial=0) <= 1, "each tissue lies where its label lies"
