"""Reading DICOM series written slice by slice: order, rescaling, gaps, tilt, invalid input."""

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import affine_from_lps
from MedGenLib.io.files import list_series, read_volume, write_volume

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SHAPE = (12, 10)  # columns, rows
PIXEL = (0.8, 1.2)  # mm between columns, between rows


def write_slice(folder, name, pixels, position, orientation=UPRIGHT, uid="1.2.3", **tags):
    """One CT file; `pixels` are (column, row) integers."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(folder / name), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality, data.SeriesDescription = uid, "CT", "Head"
    data.Columns, data.Rows = pixels.shape
    data.ImagePositionPatient = [f"{x:.8g}" for x in position]
    data.ImageOrientationPatient = [f"{x:.10f}" for x in orientation]
    data.PixelSpacing = [PIXEL[1], PIXEL[0]]
    data.RescaleSlope, data.RescaleIntercept = 2, -1000
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.PixelData = np.ascontiguousarray(pixels.T.astype(np.int16)).tobytes()
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(folder / name, enforce_file_format=True)
    return folder / name


def axes(orientation=UPRIGHT):
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    return row, column, np.cross(row, column)


def write_series(folder, positions, orientation=UPRIGHT, tilt=0.0, origin=(10.0, -20.0, 5.0), content=None, **tags):
    """Slices at `positions` mm along the normal, shifted in-plane along the columns by tilt mm per mm."""
    folder.mkdir(exist_ok=True)
    _, column, normal = axes(orientation)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(positions))  # file names do not follow the order
    for number, index in enumerate(order):
        depth = positions[index]
        position = np.array(origin) + depth * normal + tilt * depth * column
        pixels = np.full(SHAPE, 500 + index) if content is None else content(depth, tilt * depth)
        write_slice(folder, f"{number:03d}.dcm", pixels, position, orientation, **tags)
    return folder


def rotation(seed=4):
    matrix = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return tuple(np.concatenate([matrix[:, 0], matrix[:, 1]]))


def test_slices_are_sorted_by_position_and_rescaled(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0, 2.5, 5, 7.5, 10]))
    assert volume.shape == (*SHAPE, 5)
    assert (volume.modality, volume.unit, volume.notes) == ("CT", "HU", ())
    np.testing.assert_array_equal(volume.array[3, 4], 2 * (500 + np.arange(5)) - 1000)
    np.testing.assert_allclose(volume.spacing, (*PIXEL, 2.5), atol=1e-9)
    assert volume.orientation == "LPS"


def test_columns_are_i_and_rows_are_j(tmp_path):
    pixels = np.zeros(SHAPE, int)
    pixels[7, 2] = 700
    write_slice(tmp_path, "a.dcm", pixels, (0, 0, 0), SliceThickness=3)
    volume = read_volume(tmp_path)
    assert np.unravel_index(volume.array.argmax(), volume.shape) == (7, 2, 0)
    np.testing.assert_allclose((volume.affine @ (7, 2, 0, 1))[:3], (-7 * 0.8, -2 * 1.2, 0))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_oblique_geometry_is_preserved_in_every_format(tmp_path, suffix):
    orientation = rotation()
    volume = read_volume(write_series(tmp_path / "s", [0, 3, 6, 9], orientation))
    expected = affine_from_lps((*PIXEL, 3.0), (10, -20, 5), np.stack(axes(orientation), axis=1))
    far = (*SHAPE, 4, 1)
    np.testing.assert_allclose(volume.affine @ far, expected @ far, atol=1e-4)
    copy = read_volume(write_volume(volume, tmp_path / f"v{suffix}"))
    np.testing.assert_allclose(copy.affine @ far, expected @ far, atol=1e-4)


def test_a_single_slice(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0], SliceThickness=4))
    assert volume.shape == (*SHAPE, 1) and volume.spacing[2] == 4.0
    volume = read_volume(write_series(tmp_path / "t", [0]))
    assert volume.spacing[2] == 1.0 and "1 mm is assumed" in volume.notes[0]


def test_padding_below_air_is_clipped(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0, 1], content=lambda *_: np.full(SHAPE, -2000)))
    assert volume.array.min() == -1024


# --- Gaps and tilt ----------------------------------------------------------------------------


def linear(depth, shift):
    """Pixels of an object that is linear in patient coordinates, in HU + 1000."""
    i, j = np.meshgrid(np.arange(SHAPE[0]), np.arange(SHAPE[1]), indexing="ij")
    return np.round(500 + 10 * depth + 5 * (j * PIXEL[1] + shift) + 2 * i)


def test_gaps_within_one_percent_are_even(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0, 2.0, 4.01, 6.0]))
    assert volume.shape[2] == 4 and volume.notes == ()
    assert volume.spacing[2] == pytest.approx(2.0)


def test_uneven_gaps_are_interpolated_and_noted(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0, 2, 4, 7, 10, 12, 14], content=linear))
    assert volume.shape[2] == 8 and volume.spacing[2] == pytest.approx(2.0)
    assert "from 2.00 to 3.00 mm" in volume.notes[0]
    positions = 2.0 * np.arange(8)
    np.testing.assert_allclose(volume.array[0, 0], 2 * (500 + 10 * positions) - 1000, atol=1e-2)


def test_missing_slices_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"gap of 8.0 mm after its slice 3 of 5"):
        read_volume(write_series(tmp_path / "s", [0, 2, 4, 12, 14]))


@pytest.mark.parametrize("orientation", [UPRIGHT, rotation(7)])
def test_gantry_tilt_is_resampled_and_noted(tmp_path, orientation):
    positions = [0.0, 3.0, 6.0, 9.0]
    tilt = np.tan(np.radians(18.5))
    volume = read_volume(write_series(tmp_path / "s", positions, orientation, tilt, content=linear))
    assert "18.5 degrees" in volume.notes[0]
    assert volume.shape == (SHAPE[0], SHAPE[1] + 3, 4)  # wider by 9 mm x tan 18.5 = 2.5 rows
    row, column, normal = axes(orientation)
    expected = affine_from_lps((*PIXEL, 3.0), (10, -20, 5), np.stack(axes(orientation), axis=1))
    far = (*SHAPE, 4, 1)
    np.testing.assert_allclose(volume.affine @ far, expected @ far, atol=1e-4)
    # Where every slice has data, the volume is linear in patient coordinates.
    i, j, k = 3, 5, np.arange(4)
    value = 2 * (500 + 10 * 3.0 * k + 5 * j * PIXEL[1] + 2 * i) - 1000
    np.testing.assert_allclose(volume.array[i, j], value, atol=2.5)  # pixels are integers


def test_tilt_in_the_opposite_direction(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0.0, 3.0, 6.0], tilt=-0.2, content=linear))
    first_row = volume.affine @ (0, 0, 0, 1)
    np.testing.assert_allclose(first_row[:3], (-10, 20 + 1.2, 5), atol=1e-4)
    value = 2 * (500 + 5 * (4 * PIXEL[1] - 1.2) + 2 * 3) - 1000
    assert volume.array[3, 4, 0] == pytest.approx(value, abs=2.5)


# --- Contents of a folder --------------------------------------------------------------------


def test_two_series_are_listed_and_one_can_be_chosen(tmp_path):
    write_series(tmp_path / "a", [0, 2], uid="1.2.3.10", SeriesNumber=1)
    write_series(tmp_path / "b", [0, 2, 4], uid="1.2.3.20", SeriesNumber=2, SeriesDescription="Neck")
    with pytest.raises(InputError) as error:
        read_volume(tmp_path)
    sentence = str(error.value)
    assert all(w in sentence for w in ("2 series", "Head", "Neck", "1.2.3.20", "--series"))
    assert [(s.uid, s.description, s.modality, s.slices) for s in list_series(tmp_path)] == [
        ("1.2.3.10", "Head", "CT", 2),
        ("1.2.3.20", "Neck", "CT", 3),
    ]
    assert read_volume(tmp_path, series="2").shape[2] == 3
    assert read_volume(tmp_path, series="1.2.3.10").shape[2] == 2
    for wrong in ("3", "1.2.3.30"):
        with pytest.raises(InputError, match="no single series"):
            read_volume(tmp_path, series=wrong)


def test_other_files_are_skipped(tmp_path):
    folder = write_series(tmp_path / "s", [0, 2])
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "empty").write_bytes(b"")
    report = write_slice(folder, "report.dcm", np.zeros(SHAPE), (0, 0, 0), uid="9.9")
    import pydicom

    data = pydicom.dcmread(report)
    for tag in ("ImagePositionPatient", "PixelData", "Rows"):
        delattr(data, tag)
    data.save_as(report)
    assert read_volume(folder).shape[2] == 2


def test_a_folder_without_series(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    with pytest.raises(InputError, match="no DICOM image series"):
        read_volume(tmp_path)


def test_one_file_of_a_series(tmp_path):
    path = write_slice(tmp_path, "slice", np.zeros(SHAPE), (0, 0, 0))
    with pytest.raises(InputError, match="give the folder"):
        read_volume(path)


def test_duplicates_are_left_out_but_time_points_are_an_error(tmp_path):
    folder = write_series(tmp_path / "s", [0, 2])
    write_slice(folder, "again.dcm", np.full(SHAPE, 500), (10, -20, 5))
    volume = read_volume(folder)
    assert volume.shape[2] == 2 and "duplicates" in volume.notes[0]
    write_slice(folder, "later.dcm", np.full(SHAPE, 510), (10, -20, 5))
    with pytest.raises(InputError, match="same position"):
        read_volume(folder)


@pytest.mark.parametrize(
    "change, words",
    [({"orientation": (1, 0, 0, 0, 0, -1)}, "orientations"), ({"PixelSpacing": [2, 2]}, "pixel spacings")],
)
def test_mixed_images_in_one_series(tmp_path, change, words):
    folder = write_series(tmp_path / "s", [0, 2])
    write_slice(folder, "x.dcm", np.zeros(SHAPE), (10, -20, 9), **change)
    with pytest.raises(InputError, match=words):
        read_volume(folder)


def test_mixed_sizes_in_one_series(tmp_path):
    folder = write_series(tmp_path / "s", [0, 2])
    write_slice(folder, "x.dcm", np.zeros((4, 4)), (10, -20, 9))
    with pytest.raises(InputError, match="sizes"):
        read_volume(folder)


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"NumberOfFrames": 3}, "multi-frame"),
        ({"PixelSpacing": [0, 1]}, "above 0"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 1, 0]}, "position and orientation"),
    ],
)
def test_invalid_headers(tmp_path, tags, words):
    write_slice(tmp_path, "a.dcm", np.zeros(SHAPE), (0, 0, 0), **tags)
    with pytest.raises(InputError, match=words):
        read_volume(tmp_path)


def test_truncated_pixels(tmp_path):
    path = write_slice(tmp_path, "a.dcm", np.zeros(SHAPE), (0, 0, 0))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="damaged"):
        read_volume(tmp_path)


def test_compressed_pixels(tmp_path):
    import pydicom

    path = write_slice(tmp_path, "a.dcm", np.arange(120).reshape(SHAPE), (0, 0, 0))
    plain = read_volume(tmp_path)
    data = pydicom.dcmread(path)
    data.compress(RLELossless)
    data.save_as(path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, plain.array)


def test_pixels_without_a_decoder_in_pydicom(tmp_path, monkeypatch):
    from pydicom.dataset import Dataset

    write_slice(tmp_path, "a.dcm", np.arange(120).reshape(SHAPE), (0, 0, 0))
    plain = read_volume(tmp_path)

    def no_decoder(_):
        raise RuntimeError("no decoder")

    monkeypatch.setattr(Dataset, "pixel_array", property(no_decoder))
    np.testing.assert_array_equal(read_volume(tmp_path).array, plain.array)


def test_mr_has_arbitrary_units_and_no_lower_limit(tmp_path):
    volume = read_volume(write_series(tmp_path / "s", [0, 2], Modality="MR", content=lambda *_: np.full(SHAPE, -900)))
    assert (volume.modality, volume.unit) == ("MR", "a.u.")
    assert volume.array.min() == -2800
    assert read_volume(tmp_path / "s", modality="T1w").modality == "T1w"
