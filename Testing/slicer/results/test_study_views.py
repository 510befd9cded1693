"""The views during a reader study: one image alone, nothing that tells; afterwards everything as before."""

import types
import unittest
from unittest import mock

import numpy as np
import slicer

import support
from support import SlicerTestCase

support.useModuleFolder()

from MedGenSlicer.panel import guess
from MedGenSlicer.results.study_views import AWAY_MM, ReadingView
from support.nodes import GRIDS, maskNode, segmentationOf, volumeNode
from support.snapshots import differences, snapshotOfScene
from support.views import views


def picture() -> np.ndarray:
    """(k, j, i): a bright upper left quarter."""
    image = np.full((1, 64, 64), 30, np.uint8)
    image[0, :32, :32] = 220
    return image


class ReadingViewTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.scan = volumeNode(GRIDS["oblique"], name="Patient")
        self.mask = maskNode()
        self.segmentation = segmentationOf(maskNode())
        slicer.util.setSliceViewerLayers(
            background=self.scan, foreground=volumeNode(name="Over"), foregroundOpacity=0.3, fit=True
        )
        slicer.app.layoutManager().sliceWidget("Yellow").sliceLogic().GetSliceNode().SetXYZOrigin(3, 4, 0)
        self.layout = slicer.app.layoutManager().layout

    def testEverythingComesBack(self):
        before, scene = views(), snapshotOfScene()
        view = ReadingView()
        view.show(picture(), "Image 1 of 3")
        view.show(np.zeros((8, 9, 10), np.int16), "Image 2 of 3", (1, 1, 2), 400, 40)
        self.assertNotEqual(views(), before)
        view.close()
        self.assertEqual(views(), before)
        self.assertEqual(slicer.app.layoutManager().layout, self.layout)
        views_ = ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode", "SubjectHierarchy")  # compared by `views` above
        self.assertEqual(
            [text for text in differences(scene, snapshotOfScene()) if not any(name in text for name in views_)], []
        )

    def testNothingOfTheUserIsChangedMeanwhile(self):
        scene = snapshotOfScene()
        view = ReadingView()
        self.addCleanup(view.close)
        view.show(picture(), "Image 1 of 3")
        # Those of the views themselves, among them the planes that they hang into the 3D view.
        ignored = (
            "vtkMRMLSliceNode",
            "vtkMRMLSliceCompositeNode",
            "vtkMRMLLayoutNode",
            "vtkMRMLViewNode",
            "vtkMRMLModelNode",
            "SubjectHierarchy",
            "is new",
        )
        self.assertEqual(
            [text for text in differences(scene, snapshotOfScene()) if not any(name in text for name in ignored)], []
        )

    def testShowsTheImageAlone(self):
        view = ReadingView()
        self.addCleanup(view.close)
        view.show(picture(), "Image 1 of 3")
        layouts = slicer.vtkMRMLLayoutNode
        self.assertEqual(slicer.app.layoutManager().layout, layouts.SlicerLayoutOneUpRedSliceView)
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
        self.assertEqual((composite.GetForegroundVolumeID(), composite.GetLabelVolumeID()), (None, None))
        self.assertEqual(node.GetName(), "Image 1 of 3")
        self.assertFalse(node.GetSaveWithScene())
        self.assertFalse(guess.isImage(node))
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        self.assertGreater(min(bounds), AWAY_MM - 1000)
        view.show(picture(), "Image 2 of 3")
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByName("Image 1 of 3"))

    def testViewsThatAreGone(self):
        """Slicer ends during a reading."""
        view = ReadingView()
        self.addCleanup(view.close)
        view.show(picture(), "Image 1 of 3")
        ending = types.SimpleNamespace(
            app=types.SimpleNamespace(layoutManager=lambda: None), mrmlScene=slicer.mrmlScene
        )
        with mock.patch("MedGenSlicer.results.study_views.slicer", ending):
            view.close()
        self.assertIsNone(slicer.mrmlScene.GetFirstNodeByName("Image 1 of 3"))

    def testAMaximizedViewComesBack(self):
        manager = slicer.app.layoutManager()
        node = manager.layoutLogic().GetLayoutNode()
        yellow = manager.sliceWidget("Yellow").mrmlSliceNode()
        self.addCleanup(manager.removeAllMaximizedViewNodes)
        for layout in (self.layout, slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView):
            manager.setLayout(layout)
            manager.addMaximizedViewNode(yellow)
            view = ReadingView()
            view.show(picture(), "Image 1 of 3")
            self.assertEqual(node.GetNumberOfMaximizedViewNodes(), 0)
            view.close()
            self.assertEqual(manager.layout, layout)
            self.assertTrue(node.IsMaximizedViewNode(yellow))
        manager.setLayout(self.layout)

    def testFittedToTheImageAlone(self):
        """Also where a view is not clipped to its background, and so is fitted to all that it shows."""
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        composite.SetClipToBackgroundVolume(False)
        self.addCleanup(composite.SetClipToBackgroundVolume, True)
        view = ReadingView()
        self.addCleanup(view.close)
        view.show(picture(), "Image 1 of 3", (0.5, 0.5, 1.0))
        field = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceNode().GetFieldOfView()
        self.assertAlmostEqual(min(field[:2]), 32, delta=1)

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testUpperLeftIsUpperLeft(self):
        view = ReadingView()
        self.addCleanup(view.close)
        view.show(picture(), "Image 1 of 3")
        drawn = support.sliceImage("Red")
        size = drawn.width()
        grays = [[drawn.pixelColor(int(size * x), int(size * y)).red() for x in (0.3, 0.7)] for y in (0.3, 0.7)]
        self.assertGreater(grays[0][0], 200)
        self.assertLess(max(grays[0][1], *grays[1]), 60)

    def testSceneClosedMeanwhile(self):
        view = ReadingView()
        view.show(picture(), "Image 1 of 3")
        slicer.mrmlScene.Clear(0)
        view.close()
        self.assertEqual(slicer.app.layoutManager().layout, self.layout)
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertIsNone(composite.GetBackgroundVolumeID())


if __name__ == "__main__":
    unittest.main()
