"""RT structure sets as masks: filled contours on the grid of their images, with names."""

import numpy as np
import pydicom
import pytest
from dicoms import SERIES, patient_series
from matplotlib.image import imread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import lps_from_affine
from MedGenLib.io.dicom import write_segmentation
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.visual.preview import preview

OBLIQUE = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0)


def item(**values):
    data = Dataset()
    for keyword, value in values.items():
        setattr(data, keyword, value)
    return data


def contour(points, kind="CLOSED_PLANAR"):
    return item(
        ContourGeometricType=kind,
        NumberOfContourPoints=len(points),
        ContourData=[f"{number:.6f}" for number in np.ravel(points)],
    )


def structures(path, rois, series=SERIES, colors=()):
    """Write a structure set; ``rois`` are (number, name, contours); ``colors`` by number."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    study = item(RTReferencedSeriesSequence=Sequence([item(SeriesInstanceUID=series)]))
    frame = item(FrameOfReferenceUID=generate_uid(), RTReferencedStudySequence=Sequence([study]))
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    data.StructureSetROISequence = Sequence([item(ROINumber=number, ROIName=name) for number, name, _ in rois])
    data.ROIContourSequence = Sequence(
        [item(ReferencedROINumber=number, ContourSequence=Sequence(contours)) for number, _, contours in rois]
    )
    for roi in data.ROIContourSequence:
        if roi.ReferencedROINumber in dict(colors):
            roi.ROIDisplayColor = dict(colors)[roi.ReferencedROINumber]
    data.save_as(path)
    return path


def rectangle(image, low, high, plane):
    """A rectangle around the voxels low to high of a plane, half a voxel outside of their centers."""
    (a, b), (c, d) = np.array(low) - 0.5, np.array(high) + 0.5
    corners = np.array([(a, b, plane), (c, b, plane), (c, d, plane), (a, d, plane)])
    spacing, origin, direction = lps_from_affine(image.affine)
    return (direction * spacing @ corners.T).T + origin


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_contours_become_labels_on_the_grid_of_the_images(tmp_path, orientation):
    folder = patient_series(tmp_path / "s", [0.0, 2.0, 4.0, 6.0], orientation)
    image = read_volume(folder)

    def box(low, high, planes):
        return [contour(rectangle(image, low, high, plane)) for plane in planes]

    hole = contour(rectangle(image, (4, 3), (5, 4), 1))
    rois = [
        (7, "liver", [*box((2, 2), (8, 6), (1, 2)), hole]),
        (3, "vessel", box((6, 3), (7, 3), (1,))),
        (9, "nothing", [contour([(0, 0, 0)], "POINT")]),
    ]
    mask = read_label_map(structures(folder / "rs.dcm", rois))
    expected = np.zeros(image.shape, np.uint8)
    expected[2:9, 2:7, 1:3] = 7
    expected[4:6, 3:5, 1] = 0
    expected[6:8, 3, 1] = 3
    np.testing.assert_array_equal(mask.array, expected)
    assert mask.geometry.is_close(image.geometry, 1e-6)
    assert mask.names == {7: "liver", 3: "vessel"}
    assert any("passed over: nothing" in note for note in mask.notes)
    assert any("2 voxels of overlapping structures" in note for note in mask.notes)


def test_colors_are_kept_in_labels_files_and_previews(tmp_path):
    folder = patient_series(tmp_path / "s", [0.0, 2.0, 4.0])
    image = read_volume(folder)
    boxes = [(1, "fat", (1, 1), (9, 8)), (2, "liver", (2, 2), (4, 6)), (3, "spleen", (6, 2), (8, 6))]
    rois = [
        (n, name, [contour(rectangle(image, low, high, plane)) for plane in (0, 1, 2)]) for n, name, low, high in boxes
    ]
    stated = {1: [255, 128, 0], 2: [10, 200, 30]}
    mask = read_label_map(structures(folder / "rs.dcm", rois, colors=stated))
    assert mask.colors == {1: "#ff8000", 2: "#0ac81e"}

    written = read_label_map(write_volume(mask, tmp_path / "a.seg.nrrd"))
    assert written.colors == mask.colors and written.names == mask.names
    write_segmentation(mask, tmp_path / "seg", source=folder)
    assert read_label_map(tmp_path / "seg").colors == mask.colors

    tissue = Vocabulary.from_dict({"4": {"name": "fat"}, "6": {"name": "soft tissue"}})
    rules = {"liver": 6, "spleen": 6}
    labels, _ = map_labels(mask, tissue, rules)
    assert labels.colors == {4: "#ff8000"}  # liver and spleen differ
    preview(labels, image, tmp_path / "p.png")
    picture = np.rint(imread(tmp_path / "p.png")[..., :3] * 255)
    assert (picture == stated[1]).all(2).sum() > 1000 and not (picture == stated[2]).all(2).any()


def test_colors_that_are_none_are_left_out(tmp_path):
    folder = patient_series(tmp_path / "s", [0.0, 2.0])
    image = read_volume(folder)
    rois = [(n, f"s{n}", [contour(rectangle(image, (n, n), (n, n), 0))]) for n in (1, 2, 3)]
    path = structures(folder / "rs.dcm", rois, colors={1: [300, 0, 0], 2: [1, 2], 3: [0, 0, 255]})
    assert read_label_map(path).colors == {3: "#0000ff"}


def test_a_body_that_comes_last_hides_no_organ(tmp_path):
    folder = patient_series(tmp_path / "s", [0.0, 2.0])
    image = read_volume(folder)
    rois = [
        (1, "organ", [contour(rectangle(image, (4, 4), (5, 5), 0))]),
        (2, "BODY", [contour(rectangle(image, (1, 1), (9, 8), plane)) for plane in (0, 1)]),
    ]
    mask = read_label_map(structures(folder / "rs.dcm", rois))
    assert np.count_nonzero(mask.array == 1) == 4 and mask.array[4, 4, 1] == 2


def test_without_its_images_the_contours_make_their_own_grid(tmp_path):
    square = np.array([(0, 0), (20, 0), (20, 10), (0, 10)], float)
    rings = [contour(np.column_stack([square, np.full(4, z)])) for z in (0.0, 3.0, 6.0)]
    mask = read_label_map(structures(tmp_path / "rs.dcm", [(1, "box", rings)]))
    assert mask.spacing == (1, 1, 3) and mask.names == {1: "box"}
    ml = np.count_nonzero(mask.array) * np.prod(mask.spacing) / 1000
    assert ml == pytest.approx(20 * 10 * 9 / 1000, rel=0.16)
    centers = mask.affine[:3, :3] @ np.argwhere(mask.array).mean(0) + mask.affine[:3, 3]
    np.testing.assert_allclose(centers, (-10, -5, 3), atol=0.51)
    assert any("are not in its folder" in note for note in mask.notes)


def test_contours_across_the_planes_or_none_are_refused(tmp_path):
    folder = patient_series(tmp_path / "s", [0.0, 2.0, 4.0])
    image = read_volume(folder)
    tilted = rectangle(image, (2, 2), (8, 6), 1)
    tilted[:2, 2] += 2
    with pytest.raises(InputError, match="do not lie in the planes"):
        read_label_map(structures(folder / "rs.dcm", [(1, "a", [contour(tilted)])]))
    with pytest.raises(InputError, match="no closed contours"):
        read_label_map(structures(folder / "rs.dcm", [(1, "a", [])]))
    data = pydicom.dcmread(structures(folder / "rs.dcm", [(1, "a", [contour(rectangle(image, (2, 2), (8, 6), 1))])]))
    data.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    data.save_as(folder / "rs.dcm")
    with pytest.raises(InputError, match="holds no points"):
        read_label_map(folder / "rs.dcm")
