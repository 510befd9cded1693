"""What a user reads of live editing in another module: the status bar and the slice views."""

import unittest

import qt
import slicer
import vtk

import support
from support import SlicerTestCase
from support.views import pixels

support.useModuleFolder()

from MedGenSlicer.editing.notice import ViewNotice

VIEWS = ("Red", "Yellow", "Green")


class NoticeTest(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.notice = ViewNotice()
        self.addCleanup(self.notice.clear)

    @unittest.skipIf(support.inSlicer(), "Slicer has its own window")
    def testStatusBar(self):
        self.notice.show("Nobody reads this.")  # nor fails: Slicer runs without a window, too
        window = qt.QMainWindow()
        window.objectName = "qSlicerMainWindow"
        self.addCleanup(window.delete)
        self.notice.show("Redrawn in 0.41 s.")
        self.assertEqual(window.statusBar().currentMessage(), "Redrawn in 0.41 s.")

    def lit(self) -> list[int]:
        """Bright pixels in the lower right quarter of each view."""
        images = [pixels(name) for name in VIEWS]
        return [int((image[image.shape[0] // 2 :, image.shape[1] // 4 :].max(axis=2) > 120).sum()) for image in images]

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testInTheCornerOfTheViews(self):
        self.assertEqual(self.lit(), [0, 0, 0])
        self.notice.show("Ready: paint.")
        short = self.lit()
        self.assertTrue(all(count > 20 for count in short), short)
        self.notice.show("Nothing is drawn: 'Tumor', 'Tumor 2' and 'Scar' have no label of the model yet.")
        self.assertTrue(all(b > a for a, b in zip(short, self.lit(), strict=True)))
        self.notice.clear()
        self.assertEqual(self.lit(), [0, 0, 0])

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testTextsOfOtherModulesDoNotRemoveIt(self):
        """Slicer writes the corners of a view with every move of its slice."""
        self.notice.show("Ready: paint.")
        before = self.lit()
        for name in VIEWS:
            own = slicer.app.layoutManager().sliceWidget(name).sliceView().cornerAnnotation()
            for corner in range(vtk.vtkCornerAnnotation.NumTextPositions):
                own.SetText(corner, "")
        self.assertEqual(self.lit(), before)

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testViewsOfANewLayout(self):
        manager = slicer.app.layoutManager()
        self.notice.show("Ready: paint.")
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
        slicer.app.processEvents()
        self.notice.show("Redrawn.")
        self.assertGreater((pixels("Red+").max(axis=2) > 120).sum(), 20)


if __name__ == "__main__":
    unittest.main()
