"""Folders as people have them: copies that broke off, files of other kinds, invalid header texts, padding."""

import struct

import numpy as np
import pydicom
import pytest
from dicoms import SERIES, patient_series
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import generate_uid

from MedGenLib.errors import InputError
from MedGenLib.io.dicom import list_series, write_series
from MedGenLib.io.files import read_volume

STEPS = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def folder(tmp_path):
    return patient_series(tmp_path / "s", STEPS)


def changed(path, **tags):
    """Write a file again with other values; None removes the attribute, bytes are written as they are."""
    data = pydicom.dcmread(path)
    for keyword, value in tags.items():
        tag = Tag(tag_for_keyword(keyword))
        if value is None:
            del data[tag]
        elif isinstance(value, bytes):
            data[tag] = RawDataElement(tag, dictionary_VR(tag)[:2], len(value), value, 0, False, True)
        else:
            setattr(data, keyword, value)
    data.save_as(path)


def other(folder, name, **tags):
    """A copy of the first slice as an object of another kind, with its own series."""
    data = pydicom.dcmread(folder / "slice1.dcm")
    data.SeriesInstanceUID = data.SOPInstanceUID = generate_uid()
    for keyword, value in tags.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(folder / name)


# --- Copies that broke off ---------------------------------------------------------------------


def test_slices_without_the_preamble_are_read(folder):
    expected = read_volume(folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_array_equal(read_volume(folder).array, expected.array)


def test_slices_without_preamble_and_meta_group_are_read(folder):
    expected = read_volume(folder)
    for path in folder.iterdir():
        raw = path.read_bytes()
        (length,) = struct.unpack("<I", raw[140:144])
        path.write_bytes(raw[144 + length :])
    result = read_volume(folder)
    np.testing.assert_array_equal(result.array, expected.array)
    assert result.notes == expected.notes == ()


@pytest.mark.parametrize(
    "content, words", [(b"", "is empty"), (bytes(1000), "zeros only"), (b"<html>" * 99, "no DICOM")]
)
def test_slices_without_content_are_counted(folder, content, words):
    for number in (5, 6):
        (folder / f"slice{number}.dcm").write_bytes(content)
    volume = read_volume(folder)
    assert volume.shape[2] == 4
    (note,) = volume.notes
    assert note.startswith("2 files were passed over") and words in note and "slice5.dcm" in note


def test_dead_links_are_counted(folder, tmp_path):
    (folder / "slice6.dcm").unlink()
    (folder / "slice6.dcm").symlink_to(tmp_path / "gone.dcm")
    assert "1 file was passed over (slice6.dcm is a link" in read_volume(folder).notes[0]


@pytest.mark.parametrize("part", [140, 400, 700, 900])
def test_slices_cut_in_the_header_are_never_lost_silently(folder, part):
    path = folder / "slice6.dcm"
    path.write_bytes(path.read_bytes()[:part])
    try:
        volume = read_volume(folder)
    except InputError as error:
        assert "slice6.dcm" in str(error) and "copy" in str(error)
    else:
        assert "slice6.dcm" in volume.notes[0]


def test_a_slice_without_its_place_stops_the_series(folder):
    changed(folder / "slice6.dcm", ImagePositionPatient=None)
    with pytest.raises(InputError, match=r"slice6.dcm has no ImagePositionPatient; copy or export it again"):
        read_volume(folder)


def test_a_folder_of_empty_slices_is_not_called_a_folder_without_series(folder):
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"slice1.dcm is empty \(and 5 more files\); copy"):
        read_volume(folder)


def test_a_gap_inside_the_series_is_named_with_its_place(folder):
    (folder / "slice3.dcm").write_bytes(b"")
    empty, gap = read_volume(folder).notes
    assert "slice3.dcm is empty" in empty
    assert "2.00 to 4.00 mm, the widest after its slice 2 of 5 (slice2.dcm)" in gap


def test_files_of_macos_are_no_slices(folder):
    (folder / "._slice1.dcm").write_bytes(b"\0\5\x16\7" + bytes(600))
    assert read_volume(folder).notes == ()


# --- Files of other kinds ----------------------------------------------------------------------

KINDS = {
    "RTDOSE": {"Modality": "RTDOSE", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "NumberOfFrames": 6},
    "RTDOSE of one plane": {"Modality": "RTDOSE", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"},
    "RTSTRUCT": {
        "Modality": "RTSTRUCT",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3",
        **dict.fromkeys(("Rows", "Columns", "ImagePositionPatient", "PixelData")),
    },
    "SEG": {"Modality": "SEG", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "NumberOfFrames": 3},
    "multi-frame OT": {"Modality": "OT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2", "NumberOfFrames": 3},
    "SR": {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Rows": None, "PixelData": None},
    "OT without a place": {"Modality": "OT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImagePositionPatient": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_kinds_are_passed_over_by_name(folder, kind):
    expected = read_volume(folder)
    other(folder, "other.dcm", **KINDS[kind])
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, expected.array)
    what = kind.removesuffix(" of one plane").replace("a place", "a place in the patient")
    assert volume.notes == (f"1 file was passed over as no slices of a scan (other.dcm: {what}).",)


def test_a_folder_with_other_kinds_only(folder):
    for number in range(1, 7):
        if number > 1:
            (folder / f"slice{number}.dcm").unlink()
    other(folder, "dose.dcm", **KINDS["RTDOSE"])
    (folder / "slice1.dcm").unlink()
    with pytest.raises(InputError, match=r"only other files \(dose.dcm: RTDOSE\)"):
        read_volume(folder)


T1 = {"RepetitionTime": 8.0}


@pytest.mark.parametrize("sop, modality", [("2.1", "CT"), ("4.1", "MR")])
def test_enhanced_images_are_read(folder, tmp_path, sop, modality):
    """Frames out of order, each with its own place and rescaling."""
    volume = read_volume(enhanced(folder, tmp_path / "e", sop, modality, (4, 0, 2, 6)))
    assert volume.modality == modality and volume.shape == (12, 10, 4) and volume.notes == ()
    np.testing.assert_allclose(volume.spacing, (0.8, 1.2, 2))
    np.testing.assert_allclose(volume.origin, (-10, 20, 5))
    np.testing.assert_array_equal(volume.array[3, 4], [200, 206, 212, 218])
    assert len(write_series(volume, tmp_path / "new", source=tmp_path / "e")) == 4


@pytest.mark.parametrize(
    "tags, group, expected",
    [
        ({}, {"MREchoSequence": {"EffectiveEchoTime": 92.0}}, "T2w"),
        ({}, {"MREchoSequence": {"EffectiveEchoTime": 5.0}, "MRTimingAndRelatedParametersSequence": T1}, "T1w"),
        ({"AcquisitionContrast": "FLUID_ATTENUATED"}, {}, "FLAIR"),
        ({"AcquisitionContrast": "DIFFUSION"}, {}, "T2w"),
        ({"PulseSequenceName": "*tfl3d1_16ns"}, {}, "T1w"),
    ],
)
def test_the_contrast_of_an_enhanced_image(folder, tmp_path, tags, group, expected):
    folder = enhanced(folder, tmp_path / "e", "4.1", "MR", (0, 2, 4), tags, group)
    assert read_volume(folder).modality == expected


def test_an_enhanced_image_of_several_echoes_is_one_sentence(folder, tmp_path):
    folder = enhanced(folder, tmp_path / "e", "4.1", "MR", (0, 2, 0, 2))
    with pytest.raises(InputError, match=r"enhanced.dcm, frame 1 and .*enhanced.dcm, frame 3\), such as .* export one"):
        read_volume(folder)


def enhanced(folder, target, sop, modality, places, tags=None, group=None):
    """The first slice of a series as a multi-frame file with frames at these places along its normal, in mm.

    Frames hold 100 + place and are rescaled by 2 and their place; ``group`` are shared functional groups.
    """
    data = pydicom.dcmread(folder / "slice1.dcm")
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sop}"
    data.Modality, data.NumberOfFrames = modality, len(places)
    for keyword, value in (tags or {}).items():
        setattr(data, keyword, value)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = data.PixelSpacing, 2
    orientation.ImageOrientationPatient = data.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    for keyword, values in (group or {}).items():
        setattr(shared, keyword, Sequence([Dataset()]))
        for key, value in values.items():
            setattr(getattr(shared, keyword)[0], key, value)
    frames = []
    for place in places:
        frame, position, values = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10, -20, 5 + place]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, place, "HU"
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([values])
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    data.PixelData = np.concatenate(
        [np.full((10, 12), 100 + n + places[:index].count(n), np.int16) for index, n in enumerate(places)]
    ).tobytes()
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(data, keyword)
    target.mkdir()
    data.save_as(target / "enhanced.dcm")
    return target


# --- Texts that are no numbers -----------------------------------------------------------------


def test_a_decimal_comma_is_a_point(folder):
    expected = read_volume(folder)
    for path in folder.iterdir():
        changed(path, RescaleIntercept=b"-1024,0 ", PixelSpacing=b"1,2\\0,8 ", SliceThickness=b"2,0 ")
    result = read_volume(folder)
    np.testing.assert_array_equal(result.array, (expected.array - 1024).clip(-1024))
    np.testing.assert_allclose(result.affine, expected.affine)


@pytest.mark.parametrize(
    "tags",
    [
        {"SeriesNumber": b"3A"},
        {"SeriesNumber": b"1.5 "},
        {"SliceThickness": b"2 mm"},
        {"SliceThickness": b"thin"},
        {"NumberOfFrames": b"one "},
        {"InstanceNumber": b"x "},
        {"PatientAge": b"fifty "},
        {"StudyDate": b"yesterday "},
    ],
)
def test_texts_that_are_not_needed_do_not_matter(folder, tmp_path, tags):
    expected = read_volume(folder)
    for path in folder.iterdir():
        changed(path, **tags)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert [series.uid for series in list_series(folder)] == [SERIES]
    assert len(write_series(volume, tmp_path / "new", source=folder)) == 6


@pytest.mark.parametrize(
    "tags, words",
    [
        ({"RescaleSlope": b"one "}, 'has "one" as RescaleSlope, where one number is expected'),
        ({"RescaleIntercept": b"-1024 HU"}, 'has "-1024 HU" as RescaleIntercept'),
        ({"RescaleIntercept": b"0\\0 "}, "where one number is expected"),
        ({"PixelSpacing": b"0.8 "}, 'has "0.8" as PixelSpacing, where 2 numbers are expected'),
        ({"PixelSpacing": b"0.8 mm\\0.8 mm "}, "as PixelSpacing"),
        ({"ImagePositionPatient": b"1\\2 "}, "where 3 numbers are expected"),
        ({"ImagePositionPatient": b"1\\2\\nan"}, "where 3 numbers are expected"),
        ({"ImageOrientationPatient": b"1\\0\\0\\0\\1\\zero "}, "where 6 numbers are expected"),
        ({"Rows": b"\1"}, "no Rows and Columns"),
    ],
)
def test_texts_that_are_needed_are_named(folder, tags, words):
    changed(folder / "slice2.dcm", **tags)
    with pytest.raises(InputError) as error:
        read_volume(folder)
    assert "slice2.dcm" in str(error.value) and words in str(error.value)


# --- Padding and rescaling ---------------------------------------------------------------------


def with_values(folder, values, **tags):
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.PixelData = np.ascontiguousarray(values, np.uint16).tobytes()
        data.PixelRepresentation = 0
        data.save_as(path)
        changed(path, **tags)


@pytest.mark.parametrize(
    "padding, limit, modality, expected",
    [
        (63536, None, "CT", -1024),
        (60000, 65535, "CT", -1024),
        (65535, 60000, "CT", -1024),
        (0, None, "CT", -1024),
        (63536, None, "MR", 0),
        (0, None, "MR", 0),
    ],
)
def test_padding_is_air_or_outside(tmp_path, padding, limit, modality, expected):
    folder = patient_series(tmp_path / "s", STEPS, modality=modality, RescaleSlope=1)
    values = np.full((10, 12), 1100)
    values[0], values[:, 0] = padding, padding if limit is None else limit
    tags = {"RescaleIntercept": -1024 if modality == "CT" else 0}
    tags["PixelPaddingValue"] = struct.pack("<H", padding)
    if limit is not None:
        tags["PixelPaddingRangeLimit"] = struct.pack("<H", limit)
    with_values(folder, values, **tags)
    array = read_volume(folder).array
    assert (array[0] == expected).all() and (array[:, 0] == expected).all()
    assert (array[1:, 1:] == 1100 + tags["RescaleIntercept"]).all()


def test_a_padding_value_that_the_body_has_is_padding_at_the_border_only(folder):
    values = np.full((10, 12), 1100)
    values[0], values[5, 5] = 1024, 1024
    with_values(folder, values, RescaleIntercept=-1024, PixelPaddingValue=struct.pack("<H", 1024))
    array = read_volume(folder).array
    assert (array[:, 0] == -1024).all() and (array[5, 5] == 0).all()


@pytest.mark.parametrize("intercept", [None, b""])
def test_a_ct_without_intercept_is_doubted(folder, intercept):
    for path in folder.iterdir():
        changed(path, RescaleSlope=None, RescaleIntercept=intercept)
    assert "may not be HU" in read_volume(folder).notes[0] and "--hu-offset" in read_volume(folder).notes[0]
