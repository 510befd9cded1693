"""Image files: geometry in every format, errors for invalid files, atomic writes."""

import errno
import gzip
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from grids import oblique

from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io import files
from MedGenLib.io.files import read_label_map, read_volume, temporary_output, write_volume
from MedGenLib.io.system import decimal_point

FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha"]
SHAPES = [(7, 6, 5), (1, 6, 5), (7, 1, 5), (7, 6, 1)]


def image(shape=(7, 6, 5), left_handed=False, dtype=np.float32):
    array = np.random.default_rng(3).normal(0, 100, shape).astype(dtype)
    return Volume(array, oblique((0.6, 1.3, 3.7), left_handed))


def corner_distance(a, b):
    """Largest distance in mm between corresponding corner voxels."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape])).reshape(3, -1)
    positions = [v.affine[:3, :3] @ corners + v.affine[:3, 3:] for v in (a, b)]
    return np.linalg.norm(positions[0] - positions[1], axis=0).max()


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left_handed", [False, True])
def test_geometry_and_values_survive_a_round_trip(tmp_path, suffix, shape, left_handed):
    volume = image(shape, left_handed)
    result = read_volume(write_volume(volume, tmp_path / f"v{suffix}"))
    assert result.shape == volume.shape
    assert corner_distance(volume, result) < 1e-4
    np.testing.assert_array_equal(result.array, volume.array)
    assert result.array.flags.c_contiguous and result.array.dtype == np.float32


@pytest.mark.parametrize("suffix", FORMATS)
def test_simpleitk_reads_the_same_positions(tmp_path, suffix):
    volume = image(left_handed=True)
    path = write_volume(volume, tmp_path / f"v{suffix}")
    with decimal_point():  # otherwise the library misreads numbers in a locale with a decimal comma
        picture = sitk.ReadImage(str(path))
    position = np.array(picture.TransformIndexToPhysicalPoint((6, 5, 4))) * (-1, -1, 1)
    np.testing.assert_allclose(position, (volume.affine @ (6, 5, 4, 1))[:3], atol=1e-4)


def test_a_detached_metaimage_is_read(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5), np.int16)), str(tmp_path / "v.mhd"))
    assert read_volume(tmp_path / "v.mhd").shape == (5, 4, 3)


@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_are_read_as_small_integers(tmp_path, suffix):
    array = np.zeros((4, 5, 6), np.int32)
    array[1], array[2] = 4, 200
    result = read_label_map(write_volume(LabelMap(array, oblique()), tmp_path / f"m{suffix}"))
    np.testing.assert_array_equal(result.array, array)
    assert result.array.dtype == np.uint8


def test_nrrd_keeps_label_names(tmp_path):
    labels = LabelMap(np.eye(3, dtype=np.uint8)[None].repeat(3, 0), np.eye(4), {1: "soft tissue"})
    assert read_label_map(write_volume(labels, tmp_path / "m.nrrd")).names == {1: "soft tissue"}


def test_label_names_in_a_nifti_extension(tmp_path):
    """As written by TotalSegmentator and Connectome Workbench."""
    write_volume(LabelMap(np.ones((3, 3, 3), np.uint8), np.eye(4)), tmp_path / "m.nii")
    raw = (tmp_path / "m.nii").read_bytes()
    text = b'<LabelTable><Label Key="1" Red="0.5"><![CDATA[spleen]]></Label></LabelTable>'
    extension = struct.pack("<ii", 96, 30) + text.ljust(88, b"\0")
    header = bytearray(raw[:348]) + b"\1\0\0\0"
    header[108:112] = struct.pack("<f", 352 + len(extension))
    with gzip.open(tmp_path / "m.nii.gz", "wb") as stream:
        stream.write(bytes(header) + extension + raw[352:])
    labels = read_label_map(tmp_path / "m.nii.gz")
    assert labels.names == {1: "spleen"} and labels.values() == [1]


def test_modality_sets_the_unit(tmp_path):
    path = write_volume(image(), tmp_path / "v.nii.gz")
    assert read_volume(path).modality is None
    assert read_volume(path, modality="CT").unit == "HU"


# --- Modified NIfTI headers -----------------------------------------------------------


def nifti(path, **fields):
    """NIfTI-1 file with 4 x 5 x 6 float voxels and replaced header fields: name=(format, offset, *v)."""
    write_volume(Volume(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2, 3, 1])), path)
    raw = bytearray(path.read_bytes())
    for code, offset, *values in fields.values():
        struct.pack_into(code, raw, offset, *values)
    path.write_bytes(bytes(raw))
    return path


NO_SFORM = ("<h", 254, 0)
NO_QFORM = ("<h", 252, 0)


def test_nifti_qform_without_sform(tmp_path):
    volume = image(left_handed=True)
    path = write_volume(volume, tmp_path / "v.nii")
    raw = bytearray(path.read_bytes())
    struct.pack_into(*NO_SFORM[:1], raw, *NO_SFORM[1:])
    raw[280:328] = bytes(48)
    path.write_bytes(bytes(raw))
    assert corner_distance(volume, read_volume(path)) < 1e-4


def test_nifti_without_orientation_is_noted(tmp_path):
    volume = read_volume(nifti(tmp_path / "v.nii", sform=NO_SFORM, qform=NO_QFORM))
    np.testing.assert_allclose(volume.affine, np.diag([2.0, 2, 3, 1]))
    assert "does not state its orientation" in volume.notes[0]


def test_nifti_in_meters(tmp_path):
    volume = read_volume(nifti(tmp_path / "v.nii", units=("<B", 123, 1)))
    np.testing.assert_allclose(volume.spacing, (2000, 2000, 3000))


@pytest.mark.parametrize("pixdim", [0.0, -1.5, float("nan")])
def test_bad_spacing_in_nifti(tmp_path, pixdim):
    path = nifti(tmp_path / "v.nii", spacing=("<f", 84, pixdim))
    with pytest.raises(InputError, match="spacing"):
        read_volume(path)


def test_singular_nifti(tmp_path):
    path = nifti(tmp_path / "v.nii", row=("<4f", 296, 2.0, 0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="singular"):
        read_volume(path)


def test_sheared_nifti(tmp_path):
    path = nifti(tmp_path / "v.nii", row=("<4f", 280, 2.0, 0.7, 0.0, 0.0))
    with pytest.raises(InputError, match="90 degrees"):
        read_volume(path)


def test_a_header_of_2000_cubed_voxels_is_refused_before_reading(tmp_path, monkeypatch):
    import psutil

    memory = type("Memory", (), {"available": 16 * 2**30})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    path = nifti(tmp_path / "v.nii", dim=("<3h", 42, 2000, 2000, 2000))
    with pytest.raises(MemoryPlanError, match="2000 x 2000 x 2000 voxels"):
        read_volume(path)


def test_color_nifti(tmp_path):
    with pytest.raises(InputError, match="colors"):
        read_volume(nifti(tmp_path / "v.nii", datatype=("<h", 70, 128)))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("part", [0.02, 0.6, 0.99])
def test_truncated_files(tmp_path, suffix, part):
    path = write_volume(image((20, 20, 20)), tmp_path / f"v{suffix}")
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(InputError, match="truncated|damaged|not an? "):
        read_volume(path)


def test_files_with_a_wrong_suffix(tmp_path):
    for name in ("v.nii", "v.nii.gz", "v.nrrd", "v.mha"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
        with pytest.raises(InputError, match="not an? |truncated"):
            read_volume(tmp_path / name)


# --- Other bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suffix, old, new, words",
    [
        (".nrrd", "space directions: (2,0,0)", "space directions: (0,0,0)", "spacing"),
        (".nrrd", "(2,0,0) (0,2,0)", "(2,0,0) (2,0,0)", "singular"),
        (".mha", "ElementSpacing = 2 2", "ElementSpacing = 2 0", "spacing"),
        (".mha", "ElementSpacing = 2 2", "ElementSpacing = 2 -2", "spacing"),
        (".mha", "TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 0 0 1 0 0", "spacing"),
        (".mha", "DimSize = 4 5 6", "DimSize = four 5 6", "numbers are expected"),
    ],
)
def test_bad_text_headers(tmp_path, suffix, old, new, words):
    picture = sitk.GetImageFromArray(np.ones((6, 5, 4), np.float32))
    picture.SetSpacing((2.0, 2.0, 3.0))
    path = tmp_path / f"v{suffix}"
    sitk.WriteImage(picture, str(path))
    raw = path.read_bytes()
    assert old.encode() in raw
    path.write_bytes(raw.replace(old.encode(), new.encode()))
    with pytest.raises(InputError, match=words):
        read_volume(path)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_volume(tmp_path / "nothing.nii.gz")


def test_unknown_suffix_and_picture(tmp_path):
    for name, words in (("a.xyz", "suffix"), ("a.png", "2-D picture")):
        (tmp_path / name).write_bytes(b"abc")
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / name)


def test_a_folder_is_not_a_mask(tmp_path):
    with pytest.raises(InputError, match="folder"):
        read_label_map(tmp_path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_four_axes(tmp_path, suffix):
    picture = sitk.JoinSeries([sitk.Image(4, 4, 4, sitk.sitkInt16)] * 2)
    sitk.WriteImage(picture, str(tmp_path / f"v{suffix}"))
    with pytest.raises(InputError, match="4 axes"):
        read_volume(tmp_path / f"v{suffix}")


def test_a_fourth_axis_of_one_voxel_is_dropped(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([sitk.Image(4, 5, 6, sitk.sitkInt16)]), str(tmp_path / "v.nii.gz"))
    assert read_volume(tmp_path / "v.nii.gz").shape == (4, 5, 6)


def test_several_numbers_per_voxel(tmp_path):
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkVectorFloat32, 3), str(tmp_path / "v.mha"))
    with pytest.raises(InputError, match="3 numbers"):
        read_volume(tmp_path / "v.mha")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_must_be_finite(tmp_path, value, suffix):
    volume = image()
    volume.array[2, 3, 1] = value
    path = write_volume(volume, tmp_path / f"v{suffix}")
    with pytest.raises(InputError, match="NaN or infinite"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9)])
def test_a_voxel_or_a_line_is_not_an_image(tmp_path, shape):
    path = write_volume(Volume(np.ones(shape), np.eye(4)), tmp_path / "v.nrrd")
    with pytest.raises(InputError, match="has only"):
        read_volume(path)


def test_an_image_is_not_a_mask(tmp_path):
    path = write_volume(image(), tmp_path / "v.nii.gz")
    with pytest.raises(InputError, match="whole numbers"):
        read_label_map(path)


# --- Writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, words", [("v.png", "suffixes"), ("v.mhd", "suffixes"), ("no/v.nii", "does not exist")])
def test_invalid_output_paths(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        write_volume(image(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="permission is denied"):
        write_volume(image(), tmp_path / "v.nii.gz")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_no_file(tmp_path, suffix):
    """A limit on the file size has the same effect as a full disk."""
    code = f"""
import resource, numpy as np
from MedGenLib.errors import InputError
from MedGenLib.io.files import write_volume
from MedGenLib.imaging.volume import Volume
volume = Volume(np.random.default_rng(0).random((40, 40, 40), np.float32), np.eye(4))
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
try:
    write_volume(volume, {str(tmp_path / ("v" + suffix))!r})
except InputError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(files.__file__))),
    )
    assert "full" in done.stdout and done.stdout.count("\n") == 1, done
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "v.nii.gz"
    path.write_bytes(b"old")
    with pytest.raises(error), temporary_output(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_nothing_is_printed_on_the_terminal(tmp_path, capfd):
    path = nifti(tmp_path / "v.nii", scale=("<f", 280, 2.0001))
    read_volume(path)
    captured = capfd.readouterr()
    assert captured.err == "" and captured.out == ""
