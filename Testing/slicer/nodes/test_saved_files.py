"""A synthetic volume that Slicer saves as .nrrd tells how it was made to `medgen info`."""

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import support
from support import SlicerTestCase

support.useModuleFolder()

import slicer

from MedGenLib.io import recorded
from MedGenSlicer.nodes import provenance
from support.nodes import MADE, volumeNode


class SavedFileTest(SlicerTestCase):
    def saved(self, made=None) -> Path:
        node = volumeNode()
        if made is not None:
            provenance.write(node, made)
        storage = slicer.vtkMRMLNRRDStorageNode()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        storage.SetFileName(str(Path(folder.name, "saved.nrrd")))
        self.assertTrue(storage.WriteData(node))
        return Path(storage.GetFileName())

    def testFactsAreReadBack(self):
        read = recorded.read(self.saved(MADE))
        self.assertEqual((read.model, read.version, read.task), (MADE.model, MADE.modelVersion, MADE.task))
        self.assertEqual((read.seed, read.preset, read.device), (MADE.seed, MADE.preset, MADE.device))
        self.assertEqual((read.modality, read.unit, read.content), ("CT", "HU", "image"))
        self.assertEqual((read.parameters, read.software), (MADE.parameters, MADE.software))
        self.assertEqual((list(read.checks), read.passed), (MADE.checks, True))
        self.assertEqual([source.name for source in read.inputs], ["Mask"])

    def testContentsAndVerdicts(self):
        for content, name in (("spread", "uncertainty"), ("error", "error map")):
            read = recorded.read(self.saved(replace(MADE, content=content, passed=False, seed=None)))
            self.assertEqual((read.content, read.passed, read.seed), (name, False, None))
        self.assertIsNone(recorded.read(self.saved(replace(MADE, passed=None))).passed)

    def testOtherVolumesTellNothing(self):
        self.assertIsNone(recorded.read(self.saved()))


if __name__ == "__main__":
    unittest.main()
