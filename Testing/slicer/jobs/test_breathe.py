"""A breathing series in Slicer: sequences in one browser, and the file of the command line read by Slicer's class."""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import slicer

import support
from support.processes import WarmWorkerTestCase
from support.snapshots import snapshotOfScene

support.useModuleFolder()
sys.path.insert(0, str(support.ROOT / "Testing" / "support"))

from chests import LESION, chest

from MedGenLib.errors import InputError
from MedGenLib.io.frames import write_sequence
from MedGenLib.motion import breathe
from MedGenSlicer.nodes import provenance
from MedGenSlicer.results.sequences import sequencesOf

SPACING = (4.0, 4.0, 4.0)


def node(image, name, className="vtkMRMLScalarVolumeNode"):
    matrix = slicer.util.vtkMatrixFromArray(image.affine)
    return slicer.util.addVolumeFromArray(image.array.transpose(2, 1, 0), matrix, name, className)


class BreatheTest(WarmWorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.image, self.mask = chest(SPACING)
        self.volume = node(self.image, "CT")

    def testOneBrowserShowsVolumesLabelsAndTransforms(self):
        labels = node(self.mask, "Organs", "vtkMRMLLabelMapVolumeNode")
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Places")
        points.AddControlPointWorld((188, 126, 520), "tumor")
        expected = breathe(self.image, labels=replace(self.mask, names={}), phases=3, amplitude=12)
        browser = self.api.breathe(
            self.volume, phases=3, amplitude=12, labelsNode=labels, pointsNode=points, transforms=True
        )
        self.assertEqual(browser.GetClassName(), "vtkMRMLSequenceBrowserNode")
        sequences = sequencesOf(browser)
        self.assertEqual([sequence.GetNumberOfDataNodes() for sequence in sequences], [3, 3, 3])
        self.assertEqual(sequences[0].GetNthIndexValue(1), "33.3333")
        for phase in range(3):
            browser.SetSelectedItemNumber(phase)
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
            shown, organs, transform = (browser.GetProxyNode(sequence) for sequence in sequences)
            found = slicer.util.arrayFromVolume(shown).transpose(2, 1, 0)
            np.testing.assert_array_equal(found, expected.volumes[phase].array)
            np.testing.assert_allclose(support.matrixOf(shown), support.matrixOf(self.volume))
            moved = slicer.util.arrayFromVolume(organs).transpose(2, 1, 0)
            np.testing.assert_array_equal(moved, expected.labels[phase].array)
            self.assertTransformIs(transform, expected, phase)
        made = provenance.read(shown)
        self.assertEqual((made.task, made.input, made.parameters["amplitude_mm"]), ("breathe", "CT", 12))
        tracks = list(self.api.currentRun.tracks.values())
        np.testing.assert_allclose(tracks[LESION - 1], expected.tracks[str(LESION)], atol=1e-6)
        self.assertGreater(self.api.currentRun.tracks["tumor"][1][2], 522)

    def assertTransformIs(self, transform, expected, phase):
        """Slicer's transform takes a place of the phase to where the input shows it."""
        index = np.argwhere(expected.labels[phase].array == LESION)[7]
        place = expected.source.affine[:3, :3] @ index + expected.source.origin
        source = transform.GetTransformFromParent().TransformDoublePoint(place)
        wanted = place + expected.displacement(phase)[tuple(index)] * (-1, -1, 1)
        self.assertLess(np.linalg.norm(np.subtract(source, wanted)), 0.05)

    def testAnInputWithoutLungsAddsNothing(self):
        slicer.util.updateVolumeFromArray(self.volume, np.full((20, 30, 40), 40, np.int16))
        before = snapshotOfScene()
        with self.assertRaises(InputError):
            self.api.breathe(self.volume, phases=2)
        self.assertSceneIs(before)

    def testSlicerReadsTheSequenceFile(self):
        made = breathe(self.image, phases=3)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "breath.seq.nrrd"
        write_sequence(made.volumes, path, [phase.percent for phase in made.phases])
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeSequenceStorageNode")
        storage.SetFileName(str(path))
        self.assertTrue(storage.ReadData(sequence))
        self.assertEqual((sequence.GetIndexName(), sequence.GetIndexUnit()), ("phase", "%"))
        self.assertEqual([sequence.GetNthIndexValue(n) for n in range(3)], ["0", "33.3333", "66.6667"])
        for number, volume in enumerate(made.volumes):
            frame = sequence.GetNthDataNode(number)
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(frame).transpose(2, 1, 0), volume.array)
            np.testing.assert_allclose(support.matrixOf(frame), support.matrixOf(self.volume), atol=1e-6)
