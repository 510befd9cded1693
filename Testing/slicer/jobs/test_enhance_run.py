"""Enhancement in Slicer: the place of a finer image, what is kept of the input, what is refused."""

import numpy as np
import slicer

import support
from support import processUntil
from support.nodes import affine, maskNode, rotation, transformNode
from support.processes import WarmWorkerTestCase
from support.snapshots import differences, snapshotOfScene

support.useModuleFolder()

from MedGenLib.degradation.slices import Acquisition, grid_of_thick
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.volume import Geometry
from MedGenSlicer.nodes import provenance

FINE = Geometry((32, 32, 32), affine(rotation(3), (1.0, 1.0, 1.0)))
"""Of the patient, in world RAS."""
POINT = (11.0, 20.0, 14.0)
"""Voxel of FINE with a bright point."""
TURN = affine(rotation(4), (0.5, 0.5, 0.5), (30.0, -12.0, 8.0))
"""A parent transform that makes its nodes smaller."""


def patient() -> np.ndarray:
    """A smooth body with a bright point and a little noise, with the values of an MR image."""
    places = np.indices(FINE.shape).astype(float)
    middle = sum((axis - 15.5) ** 2 for axis in places)
    point = sum((axis - place) ** 2 for axis, place in zip(places, POINT, strict=True))
    body = 400 / (1 + np.exp(np.sqrt(middle) - 13)) + 900 * np.exp(-point / 8)
    return (body + np.random.default_rng(0).normal(0, 4, FINE.shape)).clip(0)


def stackNode(name: str, axis: int, transform=None, parent=None):
    """Slices of 4 mm of the patient across an axis of FINE, below a parent transform."""
    thick = grid_of_thick(FINE, axis, factor=4)
    values = Acquisition(FINE, thick).degrade(patient())
    own = thick.affine if transform is None else np.linalg.inv(transform) @ thick.affine
    node = addNode(values.astype(np.float32), own, name)
    node.SetAndObserveTransformNodeID(parent.GetID() if parent is not None else None)
    node.SetAttribute("MedGen.Modality", "T1w")
    return node


def addNode(values, matrix, name: str = "Image"):
    return slicer.util.addVolumeFromArray(values.transpose(2, 1, 0), slicer.util.vtkMatrixFromArray(matrix), name)


def ctNode(sides=(1.0, 1.0, 1.0)):
    """A noisy CT of water in air."""
    values = np.where(patient() > 200, 40, -1000) + np.random.default_rng(1).normal(0, 30, FINE.shape)
    node = addNode(values.astype(np.int16), affine(rotation(5), sides), "CT")
    node.SetAttribute("MedGen.Modality", "CT")
    return node


def voxels(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


def world(node, *places) -> np.ndarray:
    """World RAS of places in voxels."""
    matrix = slicer.util.arrayFromVTKMatrix(slicer.util.vtkMatrixFromArray(support.matrixOf(node)))
    transform = node.GetParentTransformNode()
    if transform is not None:
        matrix = slicer.util.arrayFromTransformMatrix(transform, toWorld=True) @ matrix
    return np.array([(matrix @ [*place, 1])[:3] for place in places])


def outline(node) -> np.ndarray:
    """World RAS of the center and the corners of the field of view."""
    faces = [(-0.5, n - 0.5) for n in voxels(node).shape]
    corners = np.array(np.meshgrid(*faces)).reshape(3, -1).T
    return world(node, corners.mean(axis=0), *corners)


def brightest(node) -> np.ndarray:
    """World RAS of the bright point, from the voxels that are brighter than the body."""
    weights = (voxels(node).astype(float) - 600).clip(0)
    places = np.indices(weights.shape).reshape(3, -1)
    return world(node, (places * weights.reshape(-1)).sum(axis=1) / weights.sum())[0]


class EnhanceTest(WarmWorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()

    def made(self, *arguments, **options):
        """The new node; nothing else in the scene is changed."""
        before = snapshotOfScene()
        node = self.api.enhance(*arguments, device="cpu", **options)
        after = snapshotOfScene(without=[node, node.GetDisplayNode()])
        self.assertEqual([text for text in differences(before, after) if "SubjectHierarchy" not in text], [])
        return node

    def testFinerSlicesLieWhereTheThickOnesLie(self):
        parent = transformNode(TURN)
        first, second = stackNode("First", 2, TURN, parent), stackNode("Second", 0)
        first.GetDisplayNode().SetAutoWindowLevel(False)
        first.GetDisplayNode().SetWindowLevel(321, 123)
        place = (FINE.affine @ [*POINT, 1])[:3]
        errors = []
        for further in (None, second):
            node = self.made(first, secondNode=further)
            self.assertEqual(voxels(node).shape, FINE.shape)
            np.testing.assert_allclose(node.GetSpacing(), (2, 2, 2), atol=1e-6)
            self.assertEqual(node.GetTransformNodeID(), parent.GetID())
            np.testing.assert_allclose(outline(node), outline(first), atol=1e-4)
            np.testing.assert_allclose(brightest(node), place, atol=0.3)
            self.assertEqual((node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()), (321, 123))
            errors.append(np.abs(voxels(node) - patient()).mean())
        self.assertLess(errors[1], 0.7 * errors[0])
        made = provenance.read(node)
        self.assertEqual((made.model, made.task, made.input, made.modality), ("enhance-mr", "enhance", "First", "T1w"))
        self.assertEqual(made.parameters["task"], "superres")
        self.assertLess(max(made.parameters["consistency"]), 0.02)
        self.assertEqual(node.GetAttribute("MedGen.Synthetic"), "1")
        self.assertIn('secondNode=slicer.util.getNode("Second")', made.python)

    def testLessNoiseAndEvenBrightnessKeepTheGrid(self):
        ct, mr = ctNode(), addNode(patient(), FINE.affine, "MR")
        mr.SetAttribute("MedGen.Modality", "T1w")
        for image, task, dtype in ((ct, "denoise", np.int16), (mr, "debias", np.float32)):
            node = self.made(image, task, strength=0.5)
            self.assertEqual((voxels(node).dtype, voxels(node).shape), (dtype, voxels(image).shape))
            np.testing.assert_array_equal(support.matrixOf(node), support.matrixOf(image))
            made = provenance.read(node)
            self.assertEqual((made.task, made.parameters["task"], made.input), ("enhance", task, image.GetName()))
            again = eval(
                made.python.replace('slicer.util.getModuleLogic("MedGen")', "api"), {"api": self.api, "slicer": slicer}
            )
            np.testing.assert_array_equal(voxels(again), voxels(node))

    def testWhatCannotBeDoneAddsNothing(self):
        cube, thick, mask = ctNode(), stackNode("Thick", 2), maskNode()
        sheared = stackNode("Sheared", 0)
        shear = np.eye(4)
        shear[0, 1] = 0.3
        sheared.SetAndObserveTransformNodeID(transformNode(shear).GetID())
        before = snapshotOfScene()
        for arguments, words in (
            ((cube,), ("not finer",)),
            ((cube, "debias"), ("no uneven brightness",)),
            ((thick, "denoise", cube), ("takes one image",)),
            ((thick, "superres", cube), ("CT and MR",)),
            ((thick, "superres", sheared), ("Sheared", "shears")),
            ((mask,), ("scalar volume",)),
            ((thick, "sharpen"), ("task", "superres")),
        ):
            with self.assertRaises(InputError) as caught:
                self.api.enhance(*arguments, device="cpu")
            self.assertSentence(caught.exception, *words)
            self.assertSceneIs(before)
        run = self.api.enhance(thick, wait=False)
        processUntil(lambda: run.state == "running")
        run.cancel()
        self.assertRaises(Cancelled, run.result)
        self.assertStopped(self.api.engine)
        self.assertSceneIs(before)
