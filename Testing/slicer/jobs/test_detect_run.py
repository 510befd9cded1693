"""Candidates of lesions in Slicer: segmentation, point list and table lie where the volume does; what is refused."""

import subprocess

import numpy as np
import slicer

import support
from support.nodes import affine, rotation, transformNode
from support.processes import PYTHON, WorkerTestCase
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.detection import NO_DIAGNOSIS
from MedGenLib.errors import InputError, PackageError
from MedGenLib.packages import store

PACKAGE = """
import sys
from pathlib import Path
from MedGenLib.packages import store
from tiny_packages import write_detector

store.add(write_detector(Path(sys.argv[1])).folder)
"""
CENTERS = ((24, 20, 18), (40, 22, 14))
"""Voxels of the lesions, the larger one first."""
TURN = affine(rotation(4), (1.0, 1.0, 1.0), (30.0, -12.0, 8.0))


def ctNode():
    """An oblique CT of a body with two bright balls."""
    places = np.stack(np.indices((64, 44, 30)), -1)
    values = np.random.default_rng(1).normal(40, 10, places.shape[:3])
    values[np.abs(places[..., 0] - 32) > 22] -= 1040
    for center, radius in zip(CENTERS, (6, 4), strict=True):
        values[((places - center) ** 2).sum(-1) < radius**2] = 210
    matrix = slicer.util.vtkMatrixFromArray(affine(rotation(5), (1.5, 1.5, 1.5)))
    node = slicer.util.addVolumeFromArray(values.transpose(2, 1, 0).astype(np.int16), matrix, "CT")
    node.SetAttribute("MedGen.Modality", "CT")
    return node


class DetectTest(WorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        program = f"import sys; sys.path.insert(0, {str(support.ROOT / 'Testing' / 'support')!r})\n{PACKAGE}"
        subprocess.run([PYTHON, "-c", program, str(self.temporaryFolder())], check=True, cwd=support.ROOT)
        self.addCleanup(store.remove, "tiny-detector")

    def testCandidatesLieUnderTheTransformOfTheVolume(self):
        parent, ct = transformNode(TURN), ctNode()
        ct.SetAndObserveTransformNodeID(parent.GetID())
        run = self.api.detect(ct, "tiny-detector", device="cpu", wait=False)
        segments, points, table = run.result()
        self.assertEqual(len(run.candidates), 2)
        self.assertIn(NO_DIAGNOSIS, table.GetDescription())
        self.assertIn(NO_DIAGNOSIS, segments.GetDescription())
        self.assertEqual(segments.GetTransformNodeID(), parent.GetID())
        sizes = [one["volume_ml"] for one in run.candidates]
        for n in range(2):
            center = CENTERS[0 if sizes[n] == max(sizes) else 1]
            world = (TURN @ support.matrixOf(ct) @ [*center, 1.0])[:3]
            found = [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(n, found)
            self.assertLess(np.linalg.norm(world - found), 2.5)
            self.assertEqual(points.GetNthControlPointLabel(n), f"lesion {n + 1}")
            segmentID = segments.GetSegmentation().GetNthSegmentID(n)
            self.assertEqual(segments.GetSegmentation().GetSegment(segmentID).GetName(), f"lesion {n + 1}")
            inside = slicer.util.arrayFromSegmentBinaryLabelmap(segments, segmentID, ct)
            self.assertEqual(inside[center[::-1]], 1)
            self.assertAlmostEqual(inside.sum() * 1.5**3 / 1000 / sizes[n], 1, delta=0.35)

    def testWhatCannotBeSearchedAddsNothing(self):
        ct = ctNode()
        before = snapshotOfScene()
        for error, options in ((InputError, {"model": "ct-tissue"}), (PackageError, {"model": "unknown"})):
            with self.assertRaises(error):
                self.api.detect(ct, **options, device="cpu")
        self.assertEqual(differences(before, snapshotOfScene()), [])
