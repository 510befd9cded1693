"""Export to DICOM: whose study a series joins, what is written, and the section's words."""

import sys
import types
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer

import support
from support import SlicerTestCase
from support.panelcase import PanelCase

support.useModuleFolder()

from MedGenLib.imaging.volume import Volume
from MedGenLib.io.dicom import read_series
from MedGenSlicer.jobs import dicom
from MedGenSlicer.results import volumes as results
from support.nodes import (
    GRIDS,
    MADE,
    affine,
    hierarchy,
    maskNode,
    readInput,
    rotation,
    segmentationOf,
    synthetic,
    transformNode,
    volumeNode,
)

SECONDS = 180


class Database:
    """Slicer's DICOM database as far as it is asked: instance UID -> file."""

    isOpen = True

    def __init__(self):
        self.files = {}
        self.series = {}

    def fileForInstance(self, uid):
        return self.files.get(uid, "")

    def filesForSeries(self, uid):
        return self.series.get(uid, ())


def cornersOf(node) -> np.ndarray:
    """(8, 3) RAS of the corner voxels."""
    shape = slicer.util.arrayFromVolume(node).shape[::-1]
    indices = np.array(np.meshgrid(*[(0, count - 1) for count in shape])).reshape(3, -1)
    matrix = support.matrixOf(node)
    return (matrix[:3, :3] @ indices + matrix[:3, 3:]).T


class DicomCase(SlicerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.requireWorker()

    def setUp(self):
        super().setUp()
        self.database = Database()
        patch = mock.patch.object(slicer, "dicomDatabase", self.database, create=True)
        patch.start()
        self.addCleanup(patch.stop)

    def scan(self, matrix=GRIDS["oblique"], shape=(12, 10, 8), name="Scan"):
        """A CT that was loaded from DICOM files, which are really there."""
        import pydicom

        from MedGenLib.io.dicom import write_series

        array = np.random.default_rng(3).integers(-1000, 1000, shape).astype(np.int16)
        folder = self.temporaryFolder() / "source"
        files = write_series(Volume(array, matrix, "CT", "HU"), folder)
        uids = [str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files]
        self.database.files.update(zip(uids, map(str, files), strict=True))
        node = volumeNode(matrix, shape=shape, name=name)
        slicer.util.updateVolumeFromArray(node, array.transpose(2, 1, 0))
        node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
        node.SetAttribute("DICOM.Modality", "CT")
        return node

    def result(self, inputNode, seed: int = 0):
        snapshot = readInput(inputNode)
        return results.addResult(snapshot, synthetic(snapshot, seed=seed), MADE)


class SourceTest(DicomCase):
    def test_filesOfAVolume(self):
        node = self.scan()
        self.assertEqual(len(dicom.sourceFiles(node)), 8)
        self.assertTrue(all(Path(file).is_file() for file in dicom.sourceFiles(node)))
        self.assertEqual(dicom.sourceFiles(volumeNode()), [])

    def test_withoutADatabase(self):
        node = self.scan()
        self.database.isOpen = False
        self.assertIsNone(dicom.database())
        self.assertIsNone(dicom.findSource(node))

    def test_aResultBelongsToTheStudyOfItsInput(self):
        scan, other = self.scan(), volumeNode(name="Other")
        tree = hierarchy()
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "P"), "S")
        tree.SetItemParent(tree.GetItemByDataNode(scan), study)
        result = self.result(scan)
        self.assertIs(dicom.findSource(result), scan)
        self.assertIs(dicom.findSource(scan), scan)
        self.assertIsNone(dicom.findSource(other))

    def test_aSegmentationBelongsToWhatItWasDrawnOn(self):
        scan = self.scan()
        segmentation = segmentationOf(maskNode())
        self.assertIsNone(dicom.findSource(segmentation))
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        self.assertIs(dicom.findSource(segmentation), scan)

    def test_newFoldersNeverMeetOldOnes(self):
        parent = self.temporaryFolder()
        first = Path(dicom.newFolder(str(parent), "Head/T1 (synthetic)"))
        self.assertEqual(first, parent / "Head_T1_synthetic")
        first.mkdir()
        self.assertEqual(Path(dicom.newFolder(str(parent), "Head/T1 (synthetic)")), parent / "Head_T1_synthetic_2")
        self.assertEqual(Path(dicom.newFolder(str(parent), "../..")), parent / "series")


class ExportCase(PanelCase, DicomCase):
    def setUp(self):
        super().setUp()
        self.ui.exportSection.collapsed = False
        self.addCleanup(setattr, self.ui.exportSection, "collapsed", True)
        self.answers.path = str(self.temporaryFolder())

    def select(self, node):
        self.parameters.exportNode = node
        self.settle()

    def export(self) -> list[Path]:
        self.assertTrue(self.ui.exportButton.enabled)
        self.ui.exportButton.click()
        support.processUntil(lambda: self.ui.exportButton.enabled, SECONDS)
        self.settle()
        return sorted(Path(self.answers.path).rglob("*.dcm"))

    def dicomLib(self, importDicom):
        """Slicer's DICOM library with that import."""
        utilities = types.SimpleNamespace(importDicom=importDicom)
        return mock.patch.dict(sys.modules, {"DICOMLib": types.SimpleNamespace(DICOMUtils=utilities)})

    def headers(self, files) -> list:
        import pydicom

        return [pydicom.dcmread(file) for file in files]


class ChoicesTest(ExportCase):
    def test_saysWhatItWouldDo(self):
        self.settle()
        self.assertFalse(self.ui.exportButton.enabled)
        self.assertIn("Select", self.ui.exportHintLabel.text)
        self.select(volumeNode(name="Plain"))
        self.assertIn("new, synthetic patient", self.ui.exportHintLabel.text)
        scan = self.scan()
        self.select(scan)
        self.assertIn("in the study of 'Scan'", self.ui.exportHintLabel.text)
        self.assertEqual(self.parameters.exportSource.GetID(), scan.GetID())
        self.select(segmentationOf(maskNode()))
        self.assertIsNone(self.parameters.exportSource)
        self.assertIn("belongs to an image series", self.ui.exportHintLabel.text)
        self.assertFalse(self.ui.exportButton.enabled)

    def test_onlyVolumesFromDicomAreStudies(self):
        volumeNode(name="Plain")
        scan = self.scan()
        selector = self.ui.exportSourceSelector
        self.assertEqual([selector.nodeFromIndex(index) for index in range(selector.nodeCount())], [scan])

    def test_choiceIsKept(self):
        first, second = self.scan(name="First"), self.scan(name="Second")
        self.select(first)
        self.parameters.exportSource = second
        self.settle()
        self.assertIs(self.parameters.exportSource, second)

    def test_databaseIsOfferedOnlyWhereThereIsOne(self):
        self.select(volumeNode())
        self.assertTrue(self.isShown(self.ui.exportDatabaseCheckBox))
        self.database.isOpen = False
        self.select(volumeNode(name="Another"))
        self.assertFalse(self.isShown(self.ui.exportDatabaseCheckBox))


class SeriesTest(ExportCase):
    def test_synthetic_series_in_the_patient_s_study(self):
        scan = self.scan()
        tree = hierarchy()
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "P"), "S")
        tree.SetItemParent(tree.GetItemByDataNode(scan), study)
        result = self.result(scan)
        self.select(result)
        self.screenshot("export")
        files = self.export()
        self.assertEqual(len(files), 8, self.ui.exportLabel.text)
        self.assertIn("8 files in", self.ui.exportLabel.text)
        old, new = self.headers(dicom.sourceFiles(scan)), self.headers(files)
        for keyword in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
            self.assertEqual(getattr(new[0], keyword), getattr(old[0], keyword))
        self.assertNotEqual(new[0].SeriesInstanceUID, old[0].SeriesInstanceUID)
        self.assertEqual(list(new[0].ImageType)[:2], ["DERIVED", "SECONDARY"])
        self.assertIn("SYNTHETIC", new[0].SeriesDescription)
        self.assertIn("ct-tissue", str(new[0].ContributingEquipmentSequence))
        from MedGenLib.io.provenance import Provenance
        from MedGenLib.io.recorded import read

        facts = read(files[0].parent)
        self.assertIsInstance(facts, Provenance)
        self.assertEqual(
            (facts.model, facts.seed, facts.passed, facts.inputs[0].name), ("ct-tissue", MADE.seed, True, "Mask")
        )
        volume = read_series(files[0].parent)
        wanted = readInput(result).image
        self.assertSamePlace(volume, wanted)

    def assertSamePlace(self, found, wanted):
        """The same value at the same place, whatever the order of the axes."""
        from MedGenLib.imaging.resampling import resample_to

        again = resample_to(found, wanted, order=0)
        np.testing.assert_allclose(again.array, np.asarray(wanted.array, float), atol=0.5)

    def test_slicersOwnReaderSeesTheSame(self):
        """The reader below Slicer's DICOM loader gives the same places to 1e-3 mm and the same values."""
        for name, matrix in GRIDS.items():
            with self.subTest(name):
                result = self.result(maskNode(matrix))
                files = self.logic.exportDicom(result, str(Path(self.answers.path) / name))
                logic = slicer.modules.volumes.logic()
                loaded = logic.AddArchetypeVolume(files[0], "Loaded", 0)
                self.assertSamePlace(readInput(loaded).image, readInput(result).image)
                corners = [np.sort(cornersOf(node), axis=0) for node in (loaded, result)]
                np.testing.assert_allclose(corners[0], corners[1], atol=1e-3)

    def test_transformsAreTakenFromTheStudysFrame(self):
        """Result and scan under one transform: the series lies on the scan; the result alone: where it is seen."""
        scan = self.scan()
        transform = transformNode(affine(rotation(3), origin=(5, 6, 7)))
        for node in (scan, result := self.result(scan)):
            node.SetAndObserveTransformNodeID(transform.GetID())
        folder = Path(self.answers.path)
        files = self.logic.exportDicom(result, str(folder / "joined"), scan)
        joined = read_series(Path(files[0]).parent)
        alone = read_series(Path(self.logic.exportDicom(result, str(folder / "alone"))[0]).parent)
        seen = readInput(result).image
        self.assertSamePlace(alone, seen)
        self.assertSamePlace(joined, Volume(seen.array, readInput(result).ijkToParent, "CT", "HU"))

    def test_newPatientAndDatabase(self):
        result = self.result(maskNode())
        self.select(result)
        self.parameters.exportToDatabase = True
        taken = []

        def importDicom(folder, database):
            taken.append((folder, database))
            files = tuple(Path(folder).glob("*.dcm"))
            database.series[str(self.headers(files)[0].SeriesInstanceUID)] = files
            return True

        with self.dicomLib(importDicom):
            files = self.export()
        self.assertGreater(len(files), 0, self.ui.exportLabel.text)
        self.assertEqual(taken, [(str(files[0].parent), self.database)])
        self.assertIn("Listed in the module DICOM", self.ui.exportLabel.text)
        self.assertIn("SYNTHETIC", str(self.headers(files)[0].PatientName).upper())

    @support.slow
    def test_aSeriesThatTheDatabaseDidNotTakeIsSaid(self):
        """Slicer's import says that all is well whenever nothing raised."""
        self.select(self.result(maskNode()))
        self.parameters.exportToDatabase = True
        with self.dicomLib(lambda folder, database: True):
            self.assertGreater(len(self.export()), 0)
        self.assertIn("did not take the series", self.ui.exportLabel.text)

    def test_deidentified(self):
        import pydicom

        scan = self.scan()
        for file in dicom.sourceFiles(scan):
            header = pydicom.dcmread(file)
            header.PatientName, header.PatientID = "Doe^Jane", "12345"
            header.save_as(file)
        result = self.result(scan)
        result.SetName("Doe Jane synthetic")
        self.select(result)
        self.parameters.exportSource = scan
        self.parameters.exportDeidentify = True
        files = self.export()
        self.assertEqual([file for file in files if "Doe" in str(file)], [])
        headers = self.headers(files)
        self.assertGreater(len(headers), 0, self.ui.exportLabel.text)
        self.assertEqual(headers[0].PatientIdentityRemoved, "YES")
        self.assertNotIn("Doe", str(headers[0]))
        self.assertNotIn("12345", str(headers[0]))

    def test_segmentationAsDicomSegmentation(self):
        scan = self.scan()
        segmentation = segmentationOf(maskNode(GRIDS["oblique"], (12, 10, 8)))
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        self.select(segmentation)
        files = self.export()
        self.assertEqual(len(files), 1, self.ui.exportLabel.text)
        header = self.headers(files)[0]
        self.assertEqual(header.Modality, "SEG")
        self.assertEqual(header.StudyInstanceUID, self.headers(dicom.sourceFiles(scan))[0].StudyInstanceUID)

    def test_filesThatAreGoneAreSaid(self):
        scan = self.scan()
        self.select(scan)
        self.database.files.clear()
        self.ui.exportButton.click()
        self.assertIn("no longer in Slicer's DICOM database", self.ui.exportLabel.text)
        self.assertTrue(self.ui.exportButton.enabled)

    def test_whatIsNoImageIsRefused(self):
        from MedGenSlicer.results import error_map

        snapshot = readInput(self.scan())
        error = Volume(np.ones(snapshot.shape, np.float32), snapshot.affine, None, "HU")
        self.select(error_map.addErrorMap(snapshot, error_map.prepareErrorMap(error), "Real"))
        self.assertEqual(self.export(), [])
        self.assertIn("export the image itself", self.ui.exportLabel.text)

    @support.slow
    def test_theButtonComesBackAfterAFault(self):
        self.select(volumeNode())
        with mock.patch.object(self.logic, "exportDicom", side_effect=MemoryError):
            self.ui.exportButton.click()
        self.assertTrue(self.ui.exportButton.enabled)
        self.assertEqual(self.ui.exportLabel.text, "")
        self.assertIn("MemoryError", self.panel.context.unexpected.pop())
        self.parameters.exportToDatabase = True
        with self.dicomLib(mock.Mock(side_effect=OSError)):
            self.export()  # waits for the button
        self.assertIn("OSError", self.panel.context.unexpected.pop())

    def test_anExistingSeriesIsNotTouched(self):
        node = self.result(maskNode())
        folder = self.temporaryFolder()
        (folder / "mine.txt").write_text("mine", encoding="utf-8")
        from MedGenLib.errors import InputError

        with self.assertRaises(InputError):
            self.logic.exportDicom(node, str(folder))
        self.assertEqual([path.name for path in folder.iterdir()], ["mine.txt"])


class ResultTest(ExportCase):
    def test_theResultsButtonOpensTheSection(self):
        self.ui.exportSection.collapsed = True
        node = self.result(maskNode())
        self.ui.resultComboBox.clear()  # of the results of other tests
        self.ui.resultComboBox.addItem(node.GetName(), node.GetID())
        self.addCleanup(self.ui.resultComboBox.clear)
        self.ui.dicomButton.click()
        self.settle()
        self.assertFalse(self.ui.exportSection.collapsed)
        self.assertIs(self.ui.exportNodeSelector.currentNode(), node)
        self.assertTrue(self.ui.exportButton.enabled)


if __name__ == "__main__":
    unittest.main()
