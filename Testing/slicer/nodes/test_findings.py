"""Findings on the nodes of a scene before a run."""

import unittest

import numpy as np
import slicer

import support

support.useModuleFolder()

from MedGenLib.packages.catalogue import find
from MedGenSlicer.nodes.findings import maskFindings
from support.nodes import readInput


class MaskFindingsTest(support.SlicerTestCase):
    def organs(self, count):
        """Balls that touch nothing, as a label map without names of colors."""
        array = np.zeros((40, 48, 48), np.uint8)
        centers = ((20, 14, 12), (20, 14, 34), (20, 34, 12), (20, 34, 34))
        for number, center in enumerate(centers[:count], 1):
            distance = np.linalg.norm(np.indices(array.shape).T - center, axis=-1).T
            array[distance < 8] = number
        affine = np.diag([3.0, 3.0, 3.0, 1.0])
        return slicer.util.addVolumeFromArray(array, affine, "organs", "vtkMRMLLabelMapVolumeNode")

    def codes(self, node, mapping=None):
        return {finding.code: finding.level for finding in maskFindings(readInput(node), find("ct-tissue"), mapping)}

    def test_numbersOfOtherToolsAreDoubted(self):
        for count in (1, 2, 3, 4):
            with self.subTest(count=count):
                node = self.organs(count)
                own = {str(number): number for number in range(1, count + 1)}
                self.assertEqual(self.codes(node)["doubtful-labels"], "warning")
                self.assertEqual(self.codes(node, own)["doubtful-labels"], "warning")

    def test_tissuesOfABodyAreNot(self):
        self.assertNotIn("doubtful-labels", self.codes(support.ctMaskNode(64)))


if __name__ == "__main__":
    unittest.main()
