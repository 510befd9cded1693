"""Any image in any format: written and read, every voxel is at its place; damaged, it is refused or unchanged."""

import gzip

import damage_forms
import numpy as np
import pytest
from any_grids import ANY, TIMES, any_grid, furthest, rounding_of
from hypothesis import given, settings
from hypothesis import strategies as st

from MedGenLib.imaging.volume import Volume
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.nifti_layout import LAYOUTS

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64")


def values(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 1000, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -30000), min(limits.max, 30000), shape).astype(dtype)


@ANY
@given(any_grid(), st.sampled_from(DTYPES), st.sampled_from(SUFFIXES), st.integers(0, 1000))
def test_what_is_written_is_read(tmp_path_factory, grid, dtype, suffix, seed):
    shape, affine = grid
    image = Volume(values(shape, dtype, seed), affine)
    path = write_volume(image, tmp_path_factory.mktemp("p") / f"v{suffix}")
    copy = read_volume(path)
    np.testing.assert_array_equal(copy.array, image.array.astype(np.float32))
    rounding = rounding_of(image) if ".nii" in suffix else 0
    assert furthest(image, copy) < 1e-3 + rounding
    assert all("correct the spacing" in note for note in copy.notes), "only images of a few mm are doubted"


@ANY
@given(
    any_grid(),
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
    assert furthest(reference, copy) < 1e-3 + rounding_of(reference)


@settings(ANY, max_examples=15 * TIMES)
@given(any_grid(shears=(0,)), st.sampled_from(["CT", "T1w"]))
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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDGEN_HOME", str(tmp_path_factory.mktemp("home")))
    yield damage_forms.originals(tmp_path_factory.mktemp("whole"))
    patch.undo()


@pytest.mark.parametrize("name", damage_forms.FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_one_sentence_or_does_no_harm(files, name):
    found = damage_forms.complaints(files[name], count=60, seconds=6)
    assert not found, "\n".join(found)
