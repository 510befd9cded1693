"""Any image in any format: written and read, every voxel is at its place; damaged, it is refused or unchanged."""

import gzip
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MedGenLib.errors import MedGenError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom import write_segmentation, write_series
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.nifti_layout import LAYOUTS

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")
ANY = settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def grids(draw, shears=(0, 0, 1e-5, 5e-4)):
    """Shape and affine: oblique, flipped, anisotropic, far from the origin, a hair off a right angle."""
    shape = draw(st.tuples(*[st.integers(2, 7)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.05, 12)] * 3))
    angles = draw(st.one_of(st.tuples(*[st.sampled_from([0, 90, 180, 270])] * 3), st.tuples(*[st.floats(0, 360)] * 3)))
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    direction = direction @ np.diag(draw(st.tuples(*[st.sampled_from([1, -1])] * 3)))
    shear = np.eye(3)
    shear[0, 1] = draw(st.sampled_from(shears))
    affine = np.eye(4)
    affine[:3, :3] = direction @ shear * spacing
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return shape, affine


def values(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -30000), min(limits.max, 30000), shape).astype(dtype)


def furthest(first, second):
    """Largest distance of two grids' corresponding voxel centers, in voxels."""
    return first.geometry.distance(second.geometry) / min(first.spacing)


@ANY
@given(grids(), st.sampled_from(DTYPES), st.sampled_from(SUFFIXES), st.integers(0, 1000))
def test_what_is_written_is_read(tmp_path_factory, grid, dtype, suffix, seed):
    shape, affine = grid
    image = Volume(values(shape, dtype, seed), affine)
    path = write_volume(image, tmp_path_factory.mktemp("p") / f"v{suffix}")
    copy = read_volume(path)
    np.testing.assert_array_equal(copy.array, image.array.astype(np.float32))
    # NIfTI stores 32 bits: far from the origin a small voxel is known to 1e-7 of the distance.
    rounding = 2e-7 * np.abs(affine[:3, 3]).max() / min(image.spacing) if ".nii" in suffix else 0
    assert furthest(image, copy) < 1e-3 + rounding and copy.notes == ()


@ANY
@given(
    grids(),
    st.sampled_from(("uint8", "int16", "uint16", "float32")),
    st.sampled_from((1.0, 0.5, 2.0, 0.01)),
    st.sampled_from((0.0, -1024.0, 3.5)),
    st.sampled_from([(2, 1.0), (0, 1.0), (1, 1000.0), (3, 0.001)]),
    st.sampled_from("<>"),
    st.booleans(),
)
def test_scales_units_and_byte_orders_of_nifti(tmp_path_factory, grid, dtype, slope, intercept, unit, order, packed):
    shape, affine = grid
    code, to_mm = unit
    stored = values(shape, dtype, 1)
    path = write_volume(Volume(stored, affine), tmp_path_factory.mktemp("p") / "v.nii")
    raw = path.read_bytes()
    header = np.frombuffer(raw[:348], LAYOUTS[348]).copy()
    header["scl_slope"], header["scl_inter"], header["units"] = slope, intercept, code
    header["pixdim"][:, 1:4] /= to_mm
    header["srow"] /= to_mm
    header["offset"] /= to_mm
    data = stored.astype(np.dtype(dtype).newbyteorder(order)).tobytes(order="F")
    swapped = header.astype(LAYOUTS[348].newbyteorder(order)).tobytes()
    raw = (348).to_bytes(4, "little" if order == "<" else "big") + swapped[4:] + bytes(4) + data
    path = path.with_name("w.nii.gz" if packed else "w.nii")
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    copy = read_volume(path)
    expected = stored.astype(np.float64) * slope + intercept
    np.testing.assert_allclose(copy.array, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    reference = Volume(stored, affine)
    assert furthest(reference, copy) < 1e-3 + 2e-7 * np.abs(affine[:3, 3]).max() / min(reference.spacing)


@settings(ANY, max_examples=15)
@given(grids(shears=(0,)), st.sampled_from(["CT", "T1w"]))
def test_series_are_read_as_written(tmp_path_factory, grid, modality):
    shape, affine = grid
    image = Volume(values(shape, "int16", 2).clip(-1000, 3000), affine, modality)
    folder = tmp_path_factory.mktemp("p") / "series"
    write_series(image, folder)
    copy = read_volume(folder)
    to_copy = np.linalg.solve(copy.affine, image.affine)
    index = np.indices(shape).reshape(3, -1)
    place = to_copy[:3, :3] @ index + to_copy[:3, 3:]
    assert np.abs(place - np.rint(place)).max() < 1e-3
    np.testing.assert_array_equal(copy.array[tuple(np.rint(place).astype(int))], image.array[tuple(index)])


# --- Damage --------------------------------------------------------------------------------------


def originals(folder):
    """One file or folder of every format."""
    rng = np.random.default_rng(0)
    smooth = (np.add.outer(np.add.outer(np.arange(9), np.arange(8)), np.arange(7)) * 10).astype(np.int16)
    image = Volume(smooth + rng.integers(0, 5, smooth.shape, np.int16), np.diag([1.0, 1.5, 2.0, 1.0]), "CT")
    labels = LabelMap((smooth > 100).astype(np.uint8), image.affine, {1: "bone"})
    files = {suffix: write_volume(image, folder / f"v{suffix}") for suffix in SUFFIXES}
    files |= {f"mask{suffix}": write_volume(labels, folder / f"m{suffix}") for suffix in SUFFIXES}
    picture = SimpleITK.GetImageFromArray(image.array.transpose(2, 1, 0))
    for suffix in (".nhdr", ".mhd"):
        SimpleITK.WriteImage(picture, str(folder / f"d{suffix}"), useCompression=True)
        files[suffix] = folder / f"d{suffix}"

    head = struct.pack(">7ih", 1, 9, 8, 7, 1, 4, 0, 1) + struct.pack(">15f", 1, 1, 1, *np.eye(3).ravel(), 0, 0, 0)
    (folder / "f.mgz").write_bytes(gzip.compress(head.ljust(284, b"\0") + image.array.astype(">i2").tobytes("F")))
    files[".mgz"] = folder / "f.mgz"
    files["dicom"] = write_series(image, folder / "series")[2]
    files["maskdicom"] = write_segmentation(labels, folder / "seg", source=folder / "series")[0]
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return originals(tmp_path_factory.mktemp("whole"))


FORMATS = [*SUFFIXES, *(f"mask{s}" for s in SUFFIXES), ".nhdr", ".mhd", ".mgz", "dicom", "maskdicom"]
UNCHECKED = (".nii", "mask.nii", "dicom", "maskdicom")
"""Formats without a checksum of the voxels: a flipped bit of a voxel is another voxel."""


def damaged(raw, rng):
    """One of: a flipped bit, several, a cut, a block of zeros, a block twice, garbage."""
    raw, kind = bytearray(raw), rng.integers(6)
    place = int(rng.integers(len(raw)) if rng.random() < 0.5 else rng.integers(min(len(raw), 600)))
    if kind < 2:
        for _ in range(1 if kind == 0 else 20):
            raw[place] ^= 1 << int(rng.integers(8))
            place = int(rng.integers(len(raw)))
    elif kind == 2:
        del raw[place:]
    elif kind == 3:
        raw[place : place + 40] = bytes(len(raw[place : place + 40]))
    elif kind == 4:
        raw[place:place] = raw[place : place + 40]
    else:
        raw[place : place + 8] = rng.bytes(8)
    return bytes(raw)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_sentence_or_does_no_harm(files, name):
    path = Path(files[name])
    read = read_label_map if name.startswith("mask") else read_volume
    target = path.parent if name == "dicom" else path
    whole, raw = read(target), path.read_bytes()
    rng = np.random.default_rng(len(raw))
    began = time.monotonic()
    try:
        for _ in range(60):
            path.write_bytes(damaged(raw, rng))
            started = time.monotonic()
            try:
                found = read(target)
            except MedGenError as error:
                assert str(error).endswith(".") and "\n" not in str(error)
            else:
                if name not in UNCHECKED and path.suffix not in (".nhdr", ".mhd") and found.shape == whole.shape:
                    same = np.array_equal(found.array, whole.array)
                    assert same or _header_differs(path.read_bytes(), raw), "voxels changed without a word"
            assert time.monotonic() - started < 10
            if time.monotonic() - began > 8:
                break
    finally:
        path.write_bytes(raw)


def _header_differs(changed, raw):
    """Whether the text header, which no checksum covers, was damaged, such as the byte order it states."""
    ends = [raw.find(mark) for mark in (b"\n\n", b"ElementDataFile = LOCAL\n") if raw.find(mark) > 0]
    return bool(ends) and changed[: min(ends)] != raw[: min(ends)]
