"""Reading input nodes: geometry, names, what is refused; and that nothing is changed by it."""

import time
import unittest

import support
from support import SlicerTestCase

support.useModuleFolder()

import numpy as np
import slicer
import vtk

from MedGenLib.errors import InputError
from MedGenLib.packages.catalogue import light_catalogue
from MedGenSlicer.engine.background import Background
from MedGenSlicer.nodes import voxels
from MedGenSlicer.nodes.copies import hardenedCopy
from MedGenSlicer.nodes.geometry import gridIn
from MedGenSlicer.nodes.inputs import captureInput, outlineOf
from MedGenSlicer.nodes.labels import suggestMapping
from MedGenSlicer.nodes.modality import guessModality
from MedGenSlicer.nodes.segments import segmentsOf
from support.nodes import GRIDS, SHAPE, affine, maskNode, readInput, rotation, segmentationOf, transformNode, volumeNode
from support.snapshots import differences, snapshotOfScene


def thinPlateNode():
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    random = np.random.default_rng(3)
    for _ in range(9):
        point = random.uniform(-30, 30, 3)
        source.InsertNextPoint(point)
        target.InsertNextPoint(point + random.normal(0, 1.5, 3))
    spline = vtk.vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    node.SetAndObserveTransformToParent(spline)
    return node


def bSplineNode():
    spline = slicer.vtkOrientedBSplineTransform()
    coefficients = vtk.vtkImageData()
    coefficients.SetDimensions(5, 5, 5)
    coefficients.SetSpacing(30, 30, 30)
    coefficients.SetOrigin(-60, -60, -60)
    coefficients.AllocateScalars(vtk.VTK_DOUBLE, 3)
    array = vtk.util.numpy_support.vtk_to_numpy(coefficients.GetPointData().GetScalars())
    array[:] = np.random.default_rng(4).normal(0, 2, array.shape)
    spline.SetCoefficientData(coefficients)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "BSpline")
    node.SetAndObserveTransformToParent(spline)
    return node


def arrayOf(node) -> np.ndarray:
    """(i, j, k)"""
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


class UnchangedSceneTestCase(SlicerTestCase):
    """Reading leaves every node of the scene as it was."""

    def read(self, node, kind=None):
        before = snapshotOfScene()
        try:
            return readInput(node, kind)
        finally:
            self.assertEqual(differences(before, snapshotOfScene()), [])

    def assertRefused(self, node, words: str, kind=None):
        with self.assertRaises(InputError) as caught:
            self.read(node, kind)
        self.assertIn(words, str(caught.exception))
        self.assertTrue(str(caught.exception).endswith("."), caught.exception)


class GridTest(UnchangedSceneTestCase):
    """The voxels of every kind of node lie where the node says, in any grid."""

    def testVolume(self):
        for name, matrix in GRIDS.items():
            with self.subTest(name):
                node = volumeNode(matrix)
                snapshot = self.read(node)
                np.testing.assert_array_equal(snapshot.image.array, arrayOf(node))
                np.testing.assert_allclose(snapshot.image.affine, matrix, atol=1e-9)
                np.testing.assert_allclose(snapshot.ijkToParent, support.matrixOf(node), rtol=0, atol=1e-12)

    def testLabelMap(self):
        for name, matrix in GRIDS.items():
            with self.subTest(name):
                node = maskNode(matrix)
                image = self.read(node).image
                np.testing.assert_array_equal(image.array, arrayOf(node))
                np.testing.assert_allclose(image.affine, matrix, atol=1e-9)

    def testSegmentation(self):
        for name, matrix in GRIDS.items():
            with self.subTest(name):
                labels = maskNode(matrix)
                snapshot = self.read(segmentationOf(labels))
                self.assertEqual(snapshot.shape, SHAPE)
                np.testing.assert_array_equal(snapshot.image.array, arrayOf(labels))
                np.testing.assert_allclose(snapshot.image.affine, matrix, atol=1e-6)
                self.assertEqual(snapshot.notes, [])

    def testSegmentationTakesTheExactGridOfItsReferenceVolume(self):
        # The segmentation itself keeps its geometry as text.
        labels = maskNode(GRIDS["oblique"])
        place = self.read(segmentationOf(labels)).place
        self.assertEqual(place.origin, tuple(labels.GetOrigin()))
        self.assertEqual(place.spacing, tuple(labels.GetSpacing()))

    def testSingleSlice(self):
        node = volumeNode(GRIDS["oblique"], shape=(12, 10, 1))
        snapshot = self.read(node)
        self.assertEqual(snapshot.image.shape, (12, 10, 1))
        np.testing.assert_array_equal(snapshot.image.array, arrayOf(node))

    def testScalarVolumeOfWholeNumbersAsMask(self):
        node = volumeNode()
        slicer.util.updateVolumeFromArray(node, np.tile(np.float32([0, 1, 1, 3, 3, 3, 0]), (11, 9, 1)))
        self.assertEqual(self.read(node, "labels").image.values(), [1, 3])

    def testVoxelsAreThoseOfTheMomentOfCapture(self):
        node = volumeNode()
        expected = arrayOf(node).copy()
        snapshot = captureInput(node)
        slicer.util.arrayFromVolume(node)[:] = 0
        np.testing.assert_array_equal(snapshot.image.array, expected)


def balls(scan, count: int, radius: float, resolution: int = 40):
    """A segmentation of closed surfaces only, in the middle of a volume, each a little further."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surfaces")
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    matrix, shape = support.matrixOf(scan), arrayOf(scan).shape[::-1]
    for index in range(count):
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(radius)
        sphere.SetCenter(*(matrix @ [*(np.array(shape) / 2 + index), 1])[:3])
        sphere.SetPhiResolution(resolution)
        sphere.SetThetaResolution(resolution)
        sphere.Update()
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), f"ball {index}", [1, 0, 0])
    node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
    return node


class SegmentationTest(UnchangedSceneTestCase):
    def testCroppedSegmentsAreTakenInTheReferenceGeometry(self):
        labels = maskNode(GRIDS["oblique"])
        node = segmentationOf(labels)
        first = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        self.assertNotEqual(first.GetDimensions(), SHAPE)  # Slicer crops it when it imports
        snapshot = self.read(node)
        np.testing.assert_array_equal(snapshot.image.array, arrayOf(labels))

    def testReferenceLargerThanTheSegments(self):
        labels = maskNode(GRIDS["left-handed"])
        bigger = volumeNode(shape=(17, 19, 15), name="Scan")
        matrix = support.matrixOf(labels)
        matrix[:3, 3] -= matrix[:3, :3] @ [4, 5, 2]
        bigger.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        node = segmentationOf(labels, withReference=False)
        node.SetReferenceImageGeometryParameterFromVolumeNode(bigger)
        snapshot = self.read(node)
        expected = np.zeros((17, 19, 15), np.uint8)
        expected[4:11, 5:14, 2:13] = arrayOf(labels)
        np.testing.assert_array_equal(snapshot.image.array, expected)

    def testReferenceSmallerThanTheSegmentsIsSaid(self):
        labels = maskNode()
        smaller = volumeNode(shape=(4, 9, 11), name="Scan")
        node = segmentationOf(labels, withReference=False)
        node.SetReferenceImageGeometryParameterFromVolumeNode(smaller)
        snapshot = self.read(node)
        np.testing.assert_array_equal(snapshot.image.array, arrayOf(labels)[:4])
        lost = int(np.count_nonzero(arrayOf(labels)[4:]))
        self.assertIn(f"{lost} voxels", snapshot.image.notes[0])

    def testReferenceOnAnotherLatticeResamples(self):
        labels = maskNode(affine(spacing=(2, 2, 2)))
        finer = volumeNode(
            affine(spacing=(1, 1, 1), origin=np.array([3.25, -40.5, 11.125]) - 0.5), shape=(14, 18, 22), name="Scan"
        )
        node = segmentationOf(labels, withReference=False)
        node.SetReferenceImageGeometryParameterFromVolumeNode(finer)
        expected = arrayOf(labels).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        np.testing.assert_array_equal(self.read(node).image.array, expected)

    def testWithoutReferenceTheBoxOfTheSegmentsIsTakenAndSaid(self):
        labels = maskNode(GRIDS["oblique"])
        snapshot = self.read(segmentationOf(labels, withReference=False))
        box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(arrayOf(labels)))
        np.testing.assert_array_equal(snapshot.image.array, arrayOf(labels)[box])
        start = np.array([part.start for part in box] + [1])
        np.testing.assert_allclose(snapshot.image.affine[:3, 3], (GRIDS["oblique"] @ start)[:3], atol=1e-6)
        self.assertIn("source geometry", snapshot.image.notes[0])

    def testReferenceVolumeUnderAnotherTransform(self):
        # The grid of a segmentation lies in the segmentation's own frame.
        scan = volumeNode(GRIDS["oblique"])
        shift = transformNode(affine(rotation(7), origin=(10, 20, 30)))
        scan.SetAndObserveTransformNodeID(shift.GetID())
        labels = maskNode(affine(rotation(7), origin=(10, 20, 30)) @ GRIDS["oblique"])
        node = segmentationOf(labels, withReference=False)
        node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        snapshot = self.read(node)
        np.testing.assert_array_equal(snapshot.image.array, arrayOf(labels))
        np.testing.assert_allclose(snapshot.image.affine, support.matrixOf(labels), atol=1e-5)

    def testClosedSurfaceOnlyIsConvertedOnACopy(self):
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(9)
        sphere.SetCenter(12, 14, 10)
        sphere.SetPhiResolution(40)
        sphere.SetThetaResolution(40)
        sphere.Update()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surface")
        node.GetSegmentation().SetSourceRepresentationName("Closed surface")
        node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", [1, 0, 0])
        scan = volumeNode(affine(origin=(0, 0, 0)), shape=(25, 28, 21))
        node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        snapshot = self.read(node)  # compares the scene too
        self.assertFalse(node.GetSegmentation().ContainsRepresentation("Binary labelmap"))
        self.assertEqual(snapshot.shape, (25, 28, 21))
        self.assertAlmostEqual(np.count_nonzero(snapshot.image.array) / (4 / 3 * np.pi * 9**3), 1, delta=0.05)

    def testClosedSurfacesBecomeTheVoxelsOfSlicersOwnConversion(self):
        for matrix in (GRIDS["oblique"], GRIDS["left-handed"], GRIDS["anisotropic"]):
            scan = volumeNode(matrix, shape=(25, 28, 21))
            node = balls(scan, 4, radius=3.0)
            converted = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Converted")
            converted.GetSegmentation().DeepCopy(node.GetSegmentation())
            self.assertTrue(converted.GetSegmentation().CreateRepresentation("Binary labelmap"))
            expected, found = captureInput(converted).image, captureInput(node).image
            self.assertGreater(np.count_nonzero(found.array), 100)
            for index in range(1, 5):  # Slicer numbers the segments in its own way
                name = f"ball {index - 1}"
                theirs = next(value for value, known in expected.names.items() if known == name)
                ours = next(value for value, known in found.names.items() if known == name)
                np.testing.assert_array_equal(found.array == ours, expected.array == theirs)

    def testLabelMapOnATurnedGridIsResampledLikeSlicerDoes(self):
        own, turn, middle = affine(spacing=(1, 1, 1)), np.eye(4), np.eye(4)
        turn[:3, :3], middle[:3, 3] = rotation(9), (5, 6, 5)
        node = segmentationOf(maskNode(own), withReference=False)
        scan = volumeNode(own @ middle @ turn @ np.linalg.inv(middle), shape=(15, 14, 13))
        node.SetReferenceImageGeometryParameterFromVolumeNode(scan)
        image = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
        resampled = slicer.vtkOrientedImageData()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
            image, gridIn(node, scan), resampled, False
        )
        found = captureInput(node).image.array
        self.assertGreater(np.count_nonzero(found), 20)
        np.testing.assert_array_equal(found.transpose(2, 1, 0), voxels.arrayOf(resampled))

    def testSurfacesWithoutAGridGetABoxAroundThem(self):
        node = balls(volumeNode(affine(), shape=(25, 28, 21)), 2, radius=3.0)
        node.GetSegmentation().SetConversionParameter(
            slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(), ""
        )
        node.RemoveNodeReferenceIDs(node.GetReferenceImageGeometryReferenceRole())
        snapshot = self.read(node)
        self.assertIn("source geometry", snapshot.image.notes[0])
        self.assertAlmostEqual(np.prod(snapshot.shape) / 250**3, 1, delta=0.1)
        self.assertEqual(snapshot.image.values(), [1, 2])

    def testSegmentsThatAreNeitherVoxelsNorSurfaces(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Contours")
        node.GetSegmentation().SetSourceRepresentationName("Planar contour")
        segment = slicer.vtkSegment()
        segment.SetName("contour")
        segment.AddRepresentation("Planar contour", vtk.vtkPolyData())
        node.GetSegmentation().AddSegment(segment)
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode())
        with self.assertRaisesRegex(InputError, "neither voxels nor surfaces"):
            captureInput(node)

    def testOverlappingSegmentsTheLaterOneCounts(self):
        labels = maskNode()
        node = segmentationOf(labels)
        other = maskNode(name="Other")
        array = np.zeros(SHAPE[::-1], np.uint8)
        array[5:8, 3:6, 1:5] = 1
        slicer.util.updateVolumeFromArray(other, array)
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(other, node)
        snapshot = self.read(node)
        expected = arrayOf(labels).copy()
        expected[arrayOf(other) > 0] = 3
        np.testing.assert_array_equal(snapshot.image.array, expected)
        self.assertIn("overlap", " ".join(snapshot.image.notes))

    def testNamesValuesAndTerminology(self):
        node = segmentationOf(maskNode())
        segmentation = node.GetSegmentation()
        segmentation.GetNthSegment(0).SetName("Liver")
        segmentation.GetNthSegment(1).SetName("Segment_2")
        segmentation.GetNthSegment(1).SetTag(
            slicer.vtkSegment.GetTerminologyEntryTagName(),
            "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^272673000^Bone~^^~"
            "Anatomic codes - DICOM master list~^^~^^|",
        )
        before = snapshotOfScene()
        found = segmentsOf(node)
        self.assertEqual(
            [(s.value, s.name, s.terminology) for s in found], [(1, "Liver", ""), (2, "Segment_2", "Bone")]
        )
        model = next(model for model in light_catalogue() if model.name == "ct-tissue")
        self.assertEqual(suggestMapping(node, model), {"Liver": "soft tissue", "Segment_2": "bone"})
        self.assertEqual(differences(before, snapshotOfScene()), [])

    def testMappingByNameReachesSegmentsWhoseNameSaysNothing(self):
        node = segmentationOf(maskNode())
        for index, name in enumerate(("Segment_1", "Segment_1")):
            node.GetSegmentation().GetNthSegment(index).SetName(name)
        snapshot = self.read(node)
        self.assertEqual(
            snapshot.mappingByValue({"Segment_1": "bone", "7": "fat"}), {"1": "bone", "2": "bone", "7": "fat"}
        )
        self.assertEqual(snapshot.mappingByValue("totalsegmentator"), "totalsegmentator")

    def testSuggestionKnowsGenericAndUnknownNames(self):
        node = segmentationOf(maskNode())
        for index, name in enumerate(("Segment_3", "thingamajig")):
            node.GetSegmentation().GetNthSegment(index).SetName(name)
        model = next(model for model in light_catalogue() if model.name == "ct-tissue")
        self.assertEqual(suggestMapping(node, model), {"Segment_3": "fat", "thingamajig": None})


class WaitingTest(UnchangedSceneTestCase):
    """Slicer's window goes on while surfaces become voxels."""

    def testPlanNeedsNoVoxels(self):
        node = balls(volumeNode(affine(), shape=(256, 256, 200)), 8, radius=40.0, resolution=120)
        start = time.process_time()
        outline = outlineOf(node)
        self.assertLess(time.process_time() - start, 0.1)
        self.assertEqual((outline.shape, outline.build), ((256, 256, 200), None))
        np.testing.assert_array_equal(outline.affine, captureInput(node).affine)

    def testConversionInAThread(self):
        node = balls(volumeNode(affine(), shape=(256, 256, 200)), 8, radius=40.0, resolution=120)
        done, start = [], time.perf_counter()
        with support.worstGap() as gap:
            snapshot = captureInput(node)
            Background(lambda: snapshot.image, done.append, done.append)
            support.processUntil(lambda: done)
        self.assertEqual(done[0].values(), list(range(1, 9)))
        self.assertLess(gap.milliseconds, 0.4 * 1000 * (time.perf_counter() - start))


class LabelNamesTest(UnchangedSceneTestCase):
    def testOwnColorTableNamesTheLabels(self):
        node = maskNode()
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetAndObserveColorNodeID(support.colorTable(("fat", "bone")).GetID())
        self.assertEqual(self.read(node).image.names, {1: "fat", 2: "bone"})

    def testBuiltInColorTablesNameNothing(self):
        # Slicer's default table would call these labels by names that have nothing to do with the mask.
        node = maskNode()
        node.CreateDefaultDisplayNodes()
        self.assertTrue(node.GetDisplayNode().GetColorNode().GetColorName(1))
        self.assertEqual(self.read(node).image.names, {})


class ParentTransformTest(UnchangedSceneTestCase):
    def under(self, node, *matrices):
        parent = None
        for number, matrix in enumerate(matrices):  # outermost first
            transform = transformNode(matrix, f"T{number}")
            transform.SetAndObserveTransformNodeID(parent)
            parent = transform.GetID()
        node.SetAndObserveTransformNodeID(parent)
        return parent

    def testChainOfLinearTransforms(self):
        chain = [
            affine(rotation(11), origin=(5, 6, 7)),
            affine(spacing=(1.2, 1.2, 1.2), origin=(0, 0, 9)),
            affine(np.diag([-1.0, 1.0, 1.0]), origin=(-3, 0, 0)),
        ]
        for make in (volumeNode, maskNode, lambda matrix: segmentationOf(maskNode(matrix))):
            node = make(GRIDS["oblique"])
            parent = self.under(node, *chain)
            snapshot = self.read(node)
            expected = chain[0] @ chain[1] @ chain[2] @ GRIDS["oblique"]
            np.testing.assert_allclose(snapshot.image.affine, expected, atol=1e-5)
            np.testing.assert_allclose(snapshot.ijkToParent, GRIDS["oblique"], atol=1e-6)
            self.assertEqual(snapshot.parentTransformID, parent)
            self.assertEqual(snapshot.notes, [])

    def testAxisAlignedScaleKeepsTheGridRectangular(self):
        node = volumeNode(affine(spacing=(1, 1, 2)))
        self.under(node, affine(spacing=(0.5, 1.5, 3)))
        np.testing.assert_allclose(self.read(node).image.spacing, (0.5, 1.5, 6), atol=1e-9)

    def testShearedGridIsUsedInItsOwnFrameAndSaid(self):
        shear = np.eye(4)
        shear[0, 1] = 0.3
        node = volumeNode(GRIDS["anisotropic"])
        parent = self.under(node, shear)
        snapshot = self.read(node)
        np.testing.assert_allclose(snapshot.image.affine, GRIDS["anisotropic"], atol=1e-9)
        self.assertIn("shears", snapshot.image.notes[0])
        self.assertEqual(snapshot.parentTransformID, parent)

    def testScaleAcrossObliqueAxesShearsToo(self):
        node = volumeNode(GRIDS["oblique"])
        self.under(node, affine(spacing=(1, 1, 2)))
        self.assertIn("shears", self.read(node).notes[0])

    def testNonInvertible(self):
        flat = np.diag([1.0, 1.0, 0.0, 1.0])
        coplanar = np.eye(4)
        coplanar[:3, 2] = coplanar[:3, 1]
        for matrix in (flat, coplanar, np.diag([np.nan, 1, 1, 1])):
            for make in (volumeNode, maskNode, lambda: segmentationOf(maskNode())):
                node = make()
                node.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
                self.assertRefused(node, "cannot be inverted")

    def testNonLinear(self):
        for warp in (thinPlateNode, bSplineNode):
            for make in (volumeNode, maskNode, lambda: segmentationOf(maskNode())):
                node = make()
                node.SetAndObserveTransformNodeID(warp().GetID())
                self.assertRefused(node, "harden the transform on a copy")

    def testNonLinearAboveALinearOne(self):
        node = volumeNode()
        inner = transformNode(affine(rotation()))
        inner.SetAndObserveTransformNodeID(thinPlateNode().GetID())
        node.SetAndObserveTransformNodeID(inner.GetID())
        self.assertRefused(node, "non-linear")


class HardenedCopyTest(SlicerTestCase):
    def harden(self, node):
        before = snapshotOfScene()
        copy = hardenedCopy(node)
        after = snapshotOfScene()
        self.assertEqual(before[node.GetID()], after[node.GetID()])
        self.assertIsNone(copy.GetParentTransformNode())
        self.assertIsNotNone(node.GetParentTransformNode())
        return copy

    def testVolumeUnderThinPlate(self):
        node = volumeNode(affine(origin=(-3, -4, -5)))
        ramp = np.arange(11 * 9 * 7).reshape(11, 9, 7).astype(np.int16)
        slicer.util.updateVolumeFromArray(node, ramp)
        node.SetAndObserveTransformNodeID(thinPlateNode().GetID())
        copy = self.harden(node)
        self.assertGreaterEqual(readInput(copy).shape, SHAPE)  # Slicer makes room for what is bent outwards
        # A voxel of the original is found where the transform takes it.
        toWorld = vtk.vtkGeneralTransform()
        node.GetParentTransformNode().GetTransformToWorld(toWorld)
        place = toWorld.TransformPoint((support.matrixOf(node) @ [3, 4, 5, 1])[:3])
        found = np.linalg.solve(support.matrixOf(copy), [*place, 1])[:3]
        low = np.floor(found).astype(int)
        around = arrayOf(copy)[tuple(slice(start, start + 2) for start in low)]
        self.assertLessEqual(around.min(), arrayOf(node)[3, 4, 5])
        self.assertGreaterEqual(around.max(), arrayOf(node)[3, 4, 5])

    def testLinear(self):
        node = volumeNode(GRIDS["oblique"])
        matrix = affine(rotation(9), origin=(1, 2, 3))
        node.SetAndObserveTransformNodeID(transformNode(matrix).GetID())
        expected = readInput(node).image.affine
        np.testing.assert_allclose(readInput(self.harden(node)).image.affine, expected, atol=1e-9)

    def testSegmentationUnderBSpline(self):
        labels = maskNode(affine(origin=(-3, -4, -5)))
        node = segmentationOf(labels)
        node.SetAndObserveTransformNodeID(bSplineNode().GetID())
        self.assertEqual(readInput(self.harden(node)).image.values(), [1, 2])


class RefusedTest(UnchangedSceneTestCase):
    def testNone(self):
        self.assertRefused(None, "No node is selected")

    def testNotANode(self):
        self.assertRefused("Segmentation", "is not a node")

    def testDeleted(self):
        node = volumeNode()
        slicer.mrmlScene.RemoveNode(node)
        self.assertRefused(node, "no longer in the scene")

    def testWithoutImageData(self):
        self.assertRefused(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"), "no image data")

    def testSegmentationWithoutSegments(self):
        self.assertRefused(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "None"), "has no segments")

    def testSegmentationWithEmptySegments(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Blank")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode())
        node.GetSegmentation().AddEmptySegment("a", "a")
        self.assertRefused(node, "empty")

    def testSegmentationWhoseVoxelsWereErased(self):
        node = segmentationOf(maskNode())
        for segmentID in node.GetSegmentation().GetSegmentIDs():
            slicer.util.arrayFromSegmentInternalBinaryLabelmap(node, segmentID)[:] = 0
        self.assertRefused(node, "is empty")

    def testEmptyLabelMap(self):
        node = maskNode()
        slicer.util.arrayFromVolume(node)[:] = 0
        self.assertRefused(node, "is empty")

    def testOneVoxel(self):
        self.assertRefused(volumeNode(shape=(1, 1, 1)), "one voxel")

    def testVector(self):
        array = np.zeros((11, 9, 7, 3), np.uint8)
        node = slicer.util.addVolumeFromArray(array, nodeClassName="vtkMRMLVectorVolumeNode", name="Color")
        self.assertRefused(node, "3 numbers per voxel")

    def testSeveralComponentsInAScalarVolume(self):
        image = vtk.vtkImageData()
        image.SetDimensions(SHAPE)
        image.AllocateScalars(vtk.VTK_SHORT, 4)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "4-D")
        node.SetAndObserveImageData(image)
        self.assertRefused(node, "4 numbers per voxel")

    def testSequence(self):
        self.assertRefused(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Beating"), "sequence")

    def testOtherNode(self):
        self.assertRefused(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "Surface"), "neither")

    def testMaskWhereAnImageIsNeeded(self):
        self.assertRefused(maskNode(), "choose a scalar volume", kind="volume")
        self.assertRefused(segmentationOf(maskNode()), "choose a scalar volume", kind="volume")

    def testImageWhereAMaskIsNeeded(self):
        self.assertRefused(volumeNode(), "negative labels", kind="labels")

    def testNotFinite(self):
        node = volumeNode(dtype=np.float32)
        slicer.util.arrayFromVolume(node)[3, 2, 1] = np.nan
        self.assertRefused(node, "NaN")

    def testShearedGrid(self):
        node = volumeNode()
        matrix = np.eye(4)
        matrix[0, 1] = 0.4
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        self.assertRefused(node, "right angles")


class ModalityTest(SlicerTestCase):
    def testStatedInTheSubjectHierarchy(self):
        node = volumeNode()
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        tree.SetItemAttribute(tree.GetItemByDataNode(node), "DICOM.Modality", "MR")
        self.assertEqual(guessModality(node), "MR")
        self.assertEqual(readInput(node).image.modality, "MR")

    def testFromTheValues(self):
        self.assertEqual(guessModality(support.headVolume(64)), "MR")
        node = volumeNode(shape=(40, 40, 40))
        random = np.random.default_rng(0)
        body = np.where(
            random.random((40, 40, 40)) < 0.3,
            random.normal(-100, 20, (40, 40, 40)),
            random.normal(40, 15, (40, 40, 40)),
        )
        body[:12] = -1000
        slicer.util.updateVolumeFromArray(node, body.astype(np.int16))
        self.assertEqual(guessModality(node), "CT")

    def testNothingToGuess(self):
        self.assertIsNone(guessModality(None))
        self.assertIsNone(guessModality(maskNode()))
        self.assertIsNone(guessModality(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")))


if __name__ == "__main__":
    unittest.main()
