"""Classification in Slicer: the table of probabilities, the place of the saliency map, what is refused."""

import subprocess

import numpy as np
import slicer

import support
from support.nodes import affine, rotation, transformNode
from support.processes import PYTHON, WarmWorkerTestCase
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.classification import NO_DIAGNOSIS
from MedGenLib.errors import InputError, PackageError
from MedGenLib.packages import store

PACKAGE = """
import sys, torch
from MedGenLib.networks import build
from MedGenLib.packages import store
from MedGenLib.packages.export import write_package
from tiny_packages import generator_metadata

data = generator_metadata("balls")
arguments = {"dims": 3, "channels": 2, "classes": 2, "width": 8, "growth": 8, "blocks": [1, 1]}
del data["medgen"]["sampler"]
data["medgen"] |= {
    "task": "classify", "pipeline": "classification", "input": {"kind": "image", "modality": "CT"}, "statistics": {},
    "output": {"labels": {"1": {"name": "ball"}, "2": {"name": "none"}}}, "performance": [],
    "preprocessing": {"name": "hounsfield", "shape": [32, 32, 32], "temperature": 0.5},
    "networks": {"classifier": {"network": "ImageClassifier", "arguments": arguments}},
    "spacing_mm": {"min": 0.5, "max": 2, "native": 1}, "field_of_view_mm": {"min": [8, 8, 8], "max": [99, 99, 99]},
}
torch.manual_seed(1)
write_package(sys.argv[1], data, {"classifier": build("ImageClassifier", arguments).state_dict()}, "# balls", "CC0")
store.add(sys.argv[1])
"""


TURN = affine(rotation(4), (0.5, 0.5, 0.5), (30.0, -12.0, 8.0))
"""A parent transform that makes its nodes smaller."""


def ctNode():
    """A CT of a ball of water in air."""
    places = np.indices((32, 32, 32)) - 15.5
    values = np.where((places**2).sum(axis=0) < 144, 40, -1000) + np.random.default_rng(1).normal(
        0, 30, places[0].shape
    )
    matrix = slicer.util.vtkMatrixFromArray(affine(rotation(5), (1.0, 1.0, 1.0)))
    node = slicer.util.addVolumeFromArray(values.astype(np.int16), matrix, "CT")
    node.SetAttribute("MedGen.Modality", "CT")
    return node


class ClassifyTest(WarmWorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        program = f"import sys; sys.path.insert(0, {str(support.ROOT / 'Testing' / 'support')!r})\n{PACKAGE}"
        folder = self.temporaryFolder() / "balls"
        subprocess.run([PYTHON, "-c", program, str(folder)], check=True, cwd=support.ROOT)
        self.addCleanup(store.remove, "balls")

    def testProbabilitiesAndWhereTheImageSpeaksForAClass(self):
        parent, ct = transformNode(TURN), ctNode()
        ct.SetAndObserveTransformNodeID(parent.GetID())
        before = snapshotOfScene()
        run = self.api.classify(ct, "balls", target="none", saliency=True, device="cpu", wait=False)
        table, saliency = run.result(), run.saliencyNode
        known = dict(zip(("ball", "none"), slicer.util.arrayFromTableColumn(table, "Value"), strict=True))
        self.assertEqual(known, run.probabilities)
        self.assertAlmostEqual(sum(known.values()), 1, places=5)
        self.assertEqual(table.GetTable().GetColumnByName("Label").GetValue(1), "none")
        self.assertIn(NO_DIAGNOSIS, run.sentences)
        self.assertIn(NO_DIAGNOSIS, table.GetDescription())
        np.testing.assert_array_equal(support.matrixOf(saliency), support.matrixOf(ct))
        self.assertEqual(saliency.GetTransformNodeID(), parent.GetID())
        self.assertEqual(saliency.GetName(), "CT saliency of none")
        self.assertIn("No diagnosis", saliency.GetDescription())
        voxels = slicer.util.arrayFromVolume(saliency)
        self.assertEqual(voxels.shape, (32, 32, 32))
        self.assertGreater(np.ptp(voxels), 0)
        after = snapshotOfScene(without=[table, saliency, saliency.GetDisplayNode()])
        left = [text for text in differences(before, after) if not any(word in text for word in ("Hierarchy", "Color"))]
        self.assertEqual(left, [])

    def testWhatCannotBeClassifiedAddsNothing(self):
        ct = ctNode()
        before = snapshotOfScene()
        for error, options in ((InputError, {"target": "cube"}), (PackageError, {"model": "unknown"})):
            with self.assertRaises(error):
                self.api.classify(ct, **({"model": "balls"} | options), device="cpu")
        self.assertEqual(differences(before, snapshotOfScene()), [])
