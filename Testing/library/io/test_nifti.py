"""NIfTI headers as other programs write them: two positions, voxel offsets, scaled labels, damaged compression."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK
from grids import oblique

from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Forms, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.nifti_layout import LAYOUTS
from MedGenLib.io.samples import sample

SHAPE = (7, 6, 5)


def volume(affine=None, dtype=np.int16):
    array = np.random.default_rng(3).normal(0, 100, SHAPE).astype(dtype)
    return Volume(array, oblique((0.6, 1.3, 3.7)) if affine is None else affine)


def changed(path, **fields):
    """Replace header fields of an uncompressed file."""
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, LAYOUTS[348], 1)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(raw)
    return path


def header(path):
    return np.frombuffer(path.read_bytes(), LAYOUTS[348], 1)[0]


# --- Two positions -----------------------------------------------------------------------------


def test_both_positions_are_written_alike(tmp_path):
    image = volume(oblique((0.6, 1.3, 3.7), left_handed=True))
    path = write_volume(image, tmp_path / "v.nii")
    changed(path, sform_code=0, srow=0)
    np.testing.assert_allclose(read_volume(path).affine, image.affine, atol=1e-5)
    assert SimpleITK.ReadImage(str(path)).GetSpacing() == pytest.approx((0.6, 1.3, 3.7))


def test_positions_that_disagree_are_noted_and_kept(tmp_path):
    path = write_volume(volume(), tmp_path / "v.nii")
    moved = header(path)["offset"] + (30, 0, 0)
    image = read_volume(changed(path, offset=moved, qform_code=2, sform_code=4))
    (note,) = image.notes
    assert "lie up to 30 mm apart" in note and "the sform is used" in note
    np.testing.assert_allclose(image.affine, volume().affine, atol=1e-5)
    copy = header(write_volume(image, tmp_path / "copy.nii"))
    assert (copy["qform_code"], copy["sform_code"]) == (2, 4)
    np.testing.assert_allclose(copy["offset"], moved)
    np.testing.assert_allclose(copy["quatern"], header(path)["quatern"], atol=1e-6)


def test_positions_that_agree_but_for_rounding_are_not_noted(tmp_path):
    path = write_volume(volume(), tmp_path / "v.nii")
    assert read_volume(changed(path, offset=header(path)["offset"] + (0.01, 0, 0))).notes == ()


def test_voxel_sizes_that_disagree_are_noted(tmp_path):
    path = write_volume(volume(np.diag([2.0, 2, 3, 1])), tmp_path / "v.nii")
    image = read_volume(changed(path, pixdim=(1, 1, 2, 3, 0, 0, 0, 0)))
    assert "up to 6 mm apart, with voxels of 2 x 2 x 3 and 1 x 2 x 3 mm" in image.notes[0]
    image = read_volume(changed(path, qform_code=0))
    assert "measure 1 x 2 x 3 mm by its pixdim, 2 x 2 x 3 mm by its sform" in image.notes[0]
    np.testing.assert_allclose(image.spacing, (2, 2, 3))


def test_positions_of_another_grid_are_not_written(tmp_path):
    image = volume()
    forms = Forms(image.affine + np.eye(4), np.eye(4), 3, 3)
    stored = header(write_volume(Volume(image.array, image.affine, forms=forms), tmp_path / "v.nii"))
    assert (stored["qform_code"], stored["sform_code"]) == (1, 1)


def test_a_run_keeps_both_positions_of_its_mask(tmp_path):
    plain = tmp_path / "mask.nii"
    write_volume(read_label_map(sample("hippocampus_mask.nii.gz")), plain)
    changed(plain, offset=header(plain)["offset"] + (30, 0, 0), sform_code=2)
    words = [str(plain), "-o", str(tmp_path / "o.nii"), "--model", "mr-hippocampus", "--preset", "draft", "--seed", "1"]
    assert main(["generate", *words, "--retries", "0"]) == 0
    for field in ("qform_code", "sform_code", "offset", "srow"):
        np.testing.assert_array_equal(header(tmp_path / "o.nii")[field], header(plain)[field])


@pytest.mark.parametrize("shear", [1e-5, 5e-4, 9e-4])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_axes_a_hair_off_a_right_angle_are_kept(tmp_path, suffix, shear):
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    affine[0, 1] = shear
    array = np.zeros((4, 300, 4), np.int16)
    copy = read_volume(write_volume(Volume(array, affine), tmp_path / f"v{suffix}"))
    assert copy.geometry.distance(Volume(array, affine).geometry) < 1e-4


# --- Where the voxels begin ---------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, 348, 351, float("nan")])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_voxels_never_begin_inside_the_header(tmp_path, offset, suffix):
    path = changed(write_volume(volume(), tmp_path / "v.nii"), vox_offset=offset)
    if suffix == ".nii.gz":
        raw, path = path.read_bytes(), tmp_path / "v.nii.gz"
        path.write_bytes(gzip.compress(raw))
    np.testing.assert_array_equal(read_volume(path).array, volume().array)


def test_an_offset_that_cannot_be_known_is_refused(tmp_path):
    path = changed(write_volume(volume(), tmp_path / "v.nii"), vox_offset=100)
    path.write_bytes(path.read_bytes() + bytes(4))
    with pytest.raises(InputError, match="begin inside the header, and the file has 4 bytes too many"):
        read_volume(path)


# --- Labels that are no whole numbers ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_labels_scaled_to_integers_are_rounded_and_noted(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 4, SHAPE)
    limits = np.iinfo(dtype)
    slope = 7 / (limits.max - limits.min)
    stored = np.rint(labels / slope + limits.min).astype(dtype)
    path = write_volume(Volume(stored, np.eye(4)), tmp_path / "m.nii")
    changed(path, scl_slope=slope, scl_inter=-slope * limits.min)
    mask = read_label_map(path)
    np.testing.assert_array_equal(mask.array, labels)
    assert "they are rounded" in mask.notes[0]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_labels_with_float_noise_are_rounded_and_noted(tmp_path, suffix):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, SHAPE)
    noisy = (labels + rng.uniform(-1e-5, 1e-5, SHAPE)).astype(np.float32)
    mask = read_label_map(write_volume(Volume(noisy, np.eye(4)), tmp_path / f"m{suffix}"))
    np.testing.assert_array_equal(mask.array, labels)
    assert mask.array.dtype == np.uint8 and "deviate from whole numbers by up to 1e-05" in mask.notes[0]


def test_a_probability_map_is_no_mask(tmp_path):
    path = write_volume(Volume(np.linspace(0, 1, 210, dtype=np.float32).reshape(SHAPE), np.eye(4)), tmp_path / "p.nii")
    with pytest.raises(InputError, match="whole numbers"):
        read_label_map(path)


# --- Damaged compression -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_flipped_bit_never_changes_a_voxel_silently(tmp_path, suffix):
    image = Volume(np.random.default_rng(1).normal(0, 100, (12, 12, 12)).astype(np.int16), np.eye(4))
    path = write_volume(image, tmp_path / f"v{suffix}")
    raw = path.read_bytes()
    first = 20 if suffix == ".nii.gz" else raw.index(b"\n\n" if suffix == ".nrrd" else b"LOCAL") + 8
    refused = 0
    for position in np.random.default_rng(0).integers(first, len(raw), 60):
        flipped = bytearray(raw)
        flipped[position] ^= 1 << int(position) % 8
        path.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(read_volume(path).array, image.array)
        except InputError as error:
            assert "damaged" in str(error) or "truncated" in str(error)
            refused += 1
    assert refused > 50


def test_a_detached_compressed_file_is_checked(tmp_path):
    picture = SimpleITK.GetImageFromArray(np.arange(1000, dtype=np.int16).reshape(10, 10, 10))
    SimpleITK.WriteImage(picture, str(tmp_path / "v.mhd"), useCompression=True)
    assert read_volume(tmp_path / "v.mhd").array[9, 9, 9] == 999
    raw = bytearray((tmp_path / "v.zraw").read_bytes())
    raw[-2] ^= 1
    (tmp_path / "v.zraw").write_bytes(raw)
    with pytest.raises(InputError, match="checksum"):
        read_volume(tmp_path / "v.mhd")


def test_other_data_after_a_compressed_file_do_no_harm(tmp_path):
    path = write_volume(volume(), tmp_path / "v.nii.gz")
    path.write_bytes(path.read_bytes() + b"more")
    np.testing.assert_array_equal(read_volume(path).array, volume().array)


def test_an_extension_of_a_big_file_is_not_mistaken_for_voxels(tmp_path):
    path = write_volume(volume(), tmp_path / "v.nii")
    raw = path.read_bytes()
    changed(path, vox_offset=384)
    longer = bytearray(path.read_bytes())
    path.write_bytes(bytes(longer[:348]) + struct.pack("<4B2i", 1, 0, 0, 0, 32, 6) + b"x" * 24 + raw[352:])
    np.testing.assert_array_equal(read_volume(path).array, volume().array)
