"""Masks as other programs store them: layers of a segmentation, DICOM SEG, FreeSurfer; and images that are none."""

import gzip
import os
import struct

import numpy as np
import pytest
import SimpleITK
from dicoms import patient_series
from grids import oblique

from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.dicom import write_segmentation
from MedGenLib.io.files import check_output_path, read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample

# --- Layers of a segmentation -------------------------------------------------------------------


def segmentation(path, layers, segments, kinds="list domain domain domain"):
    """A .seg.nrrd as Slicer writes it; ``segments`` are (layer, value, name)."""
    text = ["NRRD0004", "type: unsigned char", "dimension: 4", "space: left-posterior-superior"]
    text += [f"sizes: {' '.join(map(str, layers.shape))}", f"kinds: {kinds}", "encoding: gzip"]
    text += ["space directions: none (-1,0,0) (0,-1,0) (0,0,1)", "space origin: (0,0,0)"]
    for number, (layer, value, name) in enumerate(segments):
        text += [f"Segment{number}_Layer:={layer}", f"Segment{number}_LabelValue:={value}"]
        text += [f"Segment{number}_Name:={name}"]
    path.write_bytes("\n".join(text).encode() + b"\n\n" + gzip.compress(layers.tobytes(order="F")))
    return path


def boxes():
    layers = np.zeros((2, 6, 5, 4), np.uint8)
    layers[0, :4], layers[1, 3:] = 1, 1
    return layers


def test_layers_are_merged_in_the_order_of_their_segments(tmp_path):
    path = segmentation(tmp_path / "s.seg.nrrd", boxes(), [(0, 1, "liver"), (1, 1, "tumor")])
    mask = read_label_map(path)
    np.testing.assert_array_equal(mask.array[:, 0, 0], [1, 1, 1, 2, 2, 2])
    assert mask.names == {1: "liver", 2: "tumor"} and mask.spacing == (1, 1, 1)
    assert "2 layers" in mask.notes[0] and "1 = liver, 2 = tumor" in mask.notes[0] and "20 voxels" in mask.notes[0]


def test_layers_with_values_of_their_own_keep_them(tmp_path):
    layers = boxes() * np.array([7, 3], np.uint8)[:, None, None, None]
    mask = read_label_map(segmentation(tmp_path / "s.seg.nrrd", layers, [(1, 3, "a"), (0, 7, "b")]))
    np.testing.assert_array_equal(mask.array[:, 0, 0], [7, 7, 7, 7, 3, 3])
    assert mask.names == {3: "a", 7: "b"}


def test_a_list_of_one_layer_is_a_label_map(tmp_path):
    path = segmentation(tmp_path / "s.seg.nrrd", boxes()[:1], [(0, 1, "liver")])
    mask = read_label_map(path)
    assert mask.shape == (6, 5, 4) and mask.names == {1: "liver"} and mask.notes == ()


def test_layers_without_segments_and_images_with_layers_are_refused(tmp_path):
    path = segmentation(tmp_path / "s.seg.nrrd", boxes(), [])
    with pytest.raises(InputError, match="2 numbers per voxel"):
        read_label_map(path)
    path = segmentation(tmp_path / "s.seg.nrrd", boxes(), [(0, 1, "liver")])
    with pytest.raises(InputError, match="segmentation with 2 layers; give an image"):
        read_volume(path)


# --- DICOM segmentations -------------------------------------------------------------------------


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_dicom_segmentation_is_a_mask(tmp_path, as_folder):
    source = patient_series(tmp_path / "ct", [0.0, 2.0, 4.0, 6.0, 8.0])
    image = read_volume(source)
    array = np.zeros(image.shape, np.uint8)
    array[2:6, 3:7, 1:3], array[7:9, 3:7, 3:4] = 5, 9  # the first and the last slice are empty
    labels = LabelMap(array, image.affine, {5: "Liver", 9: "Spleen"})
    (path,) = write_segmentation(labels, tmp_path / "seg", source=source)
    mask = read_label_map(tmp_path / "seg" if as_folder else path)
    assert mask.names == labels.names and mask.values() == [5, 9] and mask.notes == ()
    expected, found = np.argwhere(array), np.argwhere(mask.array)
    places = [
        grid.affine[:3, :3] @ index.T + grid.affine[:3, 3:] for grid, index in ((labels, expected), (mask, found))
    ]
    ordered = [place[:, np.lexsort(np.rint(place * 100))] for place in places]
    np.testing.assert_allclose(ordered[0], ordered[1], atol=1e-3)


def test_a_series_is_no_mask(tmp_path):
    source = patient_series(tmp_path / "ct", [0.0, 2.0])
    for path in (source, source / "slice1.dcm"):
        with pytest.raises(InputError, match="holds no DICOM segmentation"):
            read_label_map(path)


# --- FreeSurfer ------------------------------------------------------------------------------------


def mgz(path, array, affine, kind, is_placed=1):
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    center = affine[:3, :3] @ (np.array(array.shape) / 2) + affine[:3, 3]
    head = struct.pack(">7ih", 1, *array.shape, 1, kind, 0, is_placed)
    head += struct.pack(">15f", *spacing, *(affine[:3, :3] / spacing).T.ravel(), *center)
    raw = head.ljust(284, b"\0") + array.tobytes(order="F")
    path.write_bytes(gzip.compress(raw) if path.suffix == ".mgz" else raw)
    return path


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
@pytest.mark.parametrize("kind, dtype", [(0, ">u1"), (1, ">i4"), (3, ">f4"), (4, ">i2")])
def test_images_of_freesurfer(tmp_path, suffix, kind, dtype):
    array = np.random.default_rng(0).integers(0, 100, (7, 6, 5)).astype(dtype)
    affine = oblique((0.6, 1.3, 3.7), left_handed=True)
    path = mgz(tmp_path / f"aparc+aseg{suffix}", array, affine, kind)
    for image in (read_volume(path), read_label_map(path)):
        np.testing.assert_array_equal(image.array, array)
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)


def test_nibabel_agrees(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    array = np.random.default_rng(0).integers(0, 100, (7, 6, 5)).astype(np.int32)
    nibabel.save(nibabel.MGHImage(array, oblique()), tmp_path / "a.mgz")
    mask = read_label_map(tmp_path / "a.mgz")
    np.testing.assert_array_equal(mask.array, array)
    np.testing.assert_allclose(mask.affine, nibabel.load(tmp_path / "a.mgz").affine, atol=1e-4)


def test_an_image_of_freesurfer_without_a_place(tmp_path):
    path = mgz(tmp_path / "a.mgz", np.ones((4, 5, 6), ">f4"), np.diag([2.0, 2, 2, 1]), 3, is_placed=0)
    image = read_volume(path)
    assert image.orientation == "LIA" and "does not state its orientation" in image.notes[0]


def test_damaged_images_of_freesurfer(tmp_path):
    path = mgz(tmp_path / "a.mgz", np.ones((4, 5, 6), ">f4"), np.eye(4), 3)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        read_volume(path)
    path.write_bytes(raw[:40])
    with pytest.raises(InputError, match="damaged|truncated"):
        read_volume(path)


# --- Files that are no volumes, and their names ----------------------------------------------------


def test_a_detached_nrrd_is_read(tmp_path):
    picture = SimpleITK.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    SimpleITK.WriteImage(picture, str(tmp_path / "a.nhdr"), useCompression=True)
    assert read_volume(tmp_path / "a.nhdr").array[5, 4, 3] == 119


@pytest.mark.parametrize("suffix", [".hdr", ".img"])
def test_pairs_of_files_are_refused_with_the_way_out(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(bytes(400))
    with pytest.raises(InputError, match=r"convert it to .nii.gz first"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("shape, words", [((6, 5), "is a 2-D image"), ((6, 5, 3), "3 numbers per voxel|2-D image")])
def test_flat_and_colored_images_are_refused(tmp_path, suffix, shape, words):
    picture = SimpleITK.GetImageFromArray(np.ones(shape, np.uint8), isVector=len(shape) == 3)
    SimpleITK.WriteImage(picture, str(tmp_path / f"a{suffix}"))
    for read in (read_volume, read_label_map):
        with pytest.raises(InputError, match=words):
            read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_colored_volumes_are_refused(tmp_path, suffix):
    picture = SimpleITK.GetImageFromArray(np.ones((4, 6, 5, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(picture, str(tmp_path / f"a{suffix}"))
    with pytest.raises(InputError, match="3 numbers per voxel"):
        read_volume(tmp_path / f"a{suffix}")


def test_the_longest_name_works_and_a_longer_one_is_refused_before_the_work(tmp_path):
    image = Volume(np.ones((2, 2, 2), np.int16), np.eye(4))
    path = write_volume(image, tmp_path / ("a" * 228 + ".nii.gz"))
    assert read_volume(path).shape == (2, 2, 2)
    with pytest.raises(InputError, match="is too long; give one of at most 235 bytes"):
        check_output_path(tmp_path / ("ä" * 120 + ".nii.gz"))


def test_a_name_that_is_not_utf8_is_one_sentence(tmp_path, capsys):
    name = os.fsdecode(b"m\xe4rz.nii.gz")
    try:
        (tmp_path / name).write_bytes(sample("hippocampus_mask.nii.gz").read_bytes())
    except OSError:
        pytest.skip("this file system allows no such name")
    words = ["generate", str(tmp_path / name), "-o", str(tmp_path / "o.nii.gz"), "--model", "mr-hippocampus"]
    assert main(words) == 2
    text = capsys.readouterr().err
    assert "m\\xe4rz.nii.gz is not UTF-8" in text and text.count("\n") == 1
