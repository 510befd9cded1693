"""What a user sees of a result: the pixels of the three slice views and of a 3D view, for every kind of input."""

import types
import unittest
from unittest import mock

import numpy as np
import slicer

import support
from support import SlicerTestCase

support.useModuleFolder()

from MedGenLib.errors import InputError
from MedGenSlicer.nodes import provenance
from MedGenSlicer.results.error_map import ErrorMapView
from MedGenSlicer.results.kept_views import nodesOf, sliceViews
from MedGenSlicer.results.study_views import ReadingView
from MedGenSlicer.results.views import ResultView, showInstead
from support.nodes import MADE, affine, maskNode, segmentationOf, transformNode, volumeNode
from support.views import pixels, views

VIEWS = ("Red", "Yellow", "Green")
SHAPE = (40, 44, 48)
LAYOUTS = slicer.vtkMRMLLayoutNode


def imageNode(name: str, low: int, high: int):
    """A volume whose gray values run along i from one window to another."""
    node = volumeNode(affine(origin=(-20, -22, -24)), SHAPE, name)
    array = np.broadcast_to(np.linspace(low, high, SHAPE[0]), SHAPE[::-1])
    slicer.util.updateVolumeFromArray(node, array.astype(np.int16))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(1000, 500)
    return node


def resultNode(name: str = "Result"):
    node = imageNode(name, 200, 600)
    provenance.write(node, MADE)
    return node


def labelMap(dtype=np.uint8):
    node = maskNode(affine(origin=(-20, -22, -24)), SHAPE)
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node).astype(dtype))
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileGenericColors.txt")
    return node


def segmentation():
    labels = labelMap()
    node = segmentationOf(labels)
    node.CreateDefaultDisplayNodes()
    for index, color in enumerate(((1, 0.2, 0.2), (0.2, 0.4, 1))):
        node.GetSegmentation().GetNthSegment(index).SetColor(*color)
    slicer.mrmlScene.RemoveNode(labels)
    return node


def showAsUsers(node) -> None:
    """Show an input as a user who has loaded it and looked for a while."""
    layer = "label" if node.IsA("vtkMRMLLabelMapVolumeNode") else "background"
    slicer.util.setSliceViewerLayers(**({} if node.IsA("vtkMRMLSegmentationNode") else {layer: node}))
    for name, offset in zip(VIEWS, (3.0, -2.0, 4.0), strict=True):
        slice_ = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
        slice_.SetFieldOfView(70, 70, 1)
        slice_.SetXYZOrigin(2, 1, 0)
        slice_.SetSliceOffset(offset)


def drawn() -> dict:
    return {name: pixels(name) for name in VIEWS}


def colored(image: np.ndarray) -> float:
    """Share of the pixels that have a color."""
    return float((np.ptp(image.astype(int), axis=2) > 8).mean())


def colorOf(image: np.ndarray) -> float:
    """How colored they are on average."""
    return float(np.ptp(image.astype(int), axis=2).mean())


@unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
class ResultViewCase(SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.manager = slicer.app.layoutManager()
        self.modes = []
        self.view = ResultView(lambda: self.modes.append(self.view.mode))
        self.addCleanup(self.view.close)

    def assertSame(self, first: dict, second: dict):
        for name in VIEWS:
            self.assertEqual(first[name].shape, second[name].shape, name)
            difference = np.abs(first[name].astype(int) - second[name]).max()
            self.assertLessEqual(difference, 1, name)

    def alone(self, node) -> dict:
        """What a volume looks like with nothing over it, in the views as they are."""
        hidden = [d for d in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode") if d.GetVisibility()]
        before = [
            (c, c.GetBackgroundVolumeID(), c.GetForegroundVolumeID(), c.GetLabelVolumeID())
            for c in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        ]
        for display in hidden:
            display.SetVisibility(False)
        slicer.util.setSliceViewerLayers(background=node, foreground=None, label=None)
        found = drawn()
        for display in hidden:
            display.SetVisibility(True)
        for composite, background, foreground, label in before:
            composite.SetBackgroundVolumeID(background)
            composite.SetForegroundVolumeID(foreground)
            composite.SetLabelVolumeID(label)
        return found


class OverTest(ResultViewCase):
    """Background, outline, blend, and everything back."""

    def checkMask(self, mask):
        showAsUsers(mask)
        before, places = drawn(), [views()[name][4:] for name in VIEWS]
        for name in VIEWS:
            self.assertGreater(colored(before[name]), 0.2, name)
        result = resultNode()
        self.view.show(mask, result)
        first, alone = drawn(), self.alone(result)
        for name in VIEWS:
            self.assertTrue(0.002 < colored(first[name]) < 0.08, f"{name}: the mask is no outline")
            isGray = np.ptp(first[name].astype(int), axis=2) <= 8
            difference = np.abs(first[name].astype(int) - alone[name])[isGray].max()
            self.assertLessEqual(difference, 1, f"{name}: the result is not seen")
        self.assertEqual([views()[name][4:] for name in VIEWS], places)  # neither zoom nor plane
        seen = []
        for share in (0.3, 0.6, 1.0):
            self.view.blend(share)
            seen.append({name: colorOf(image) for name, image in drawn().items()})
            if share == 0.3:
                for name, image in drawn().items():  # the gray values of the result run through the fill
                    run = [image.mean(axis=2).ravel(), alone[name].mean(axis=2).ravel()]
                    self.assertGreater(np.corrcoef(run)[0, 1], 0.8, name)
        for name in VIEWS:
            rising = [colorOf(first[name]), *(colors[name] for colors in seen)]
            self.assertTrue(all(b > a * 1.2 for a, b in zip(rising, rising[1:], strict=False)), f"{name}: {rising}")
        self.view.blend(0)
        self.assertSame(drawn(), first)
        slicer.mrmlScene.RemoveNode(result)
        self.view.close()
        self.assertSame(drawn(), before)

    def testSegmentation(self):
        self.checkMask(segmentation())

    def testLabelMap(self):
        self.checkMask(labelMap())

    def testLabelMapOfFloats(self):
        self.checkMask(labelMap(np.float32))

    def testSegmentationOfSurfaces(self):
        node = segmentation()
        node.CreateClosedSurfaceRepresentation()
        node.GetDisplayNode().SetPreferredDisplayRepresentationName2D("Closed surface")
        self.checkMask(node)

    def testSegmentationBelowATransform(self):
        node = segmentation()
        node.SetAndObserveTransformNodeID(transformNode(affine(origin=(1, 2, 0))).GetID())
        self.checkMask(node)

    def testImage(self):
        image = imageNode("Scan", 900, 100)
        showAsUsers(image)
        before = drawn()
        result = resultNode()
        self.view.show(image, result)
        alone = self.alone(result)
        self.assertSame(drawn(), alone)
        for share in (0.25, 0.5, 0.75):
            self.view.blend(share)
            blended = drawn()
            for name in VIEWS:
                expected = (1 - share) * alone[name].astype(float) + share * before[name]
                self.assertLess(np.abs(blended[name] - expected).max(), 4, name)
        self.view.blend(1)
        self.assertSame(drawn(), before)
        slicer.mrmlScene.RemoveNode(result)
        self.view.close()
        self.assertSame(drawn(), before)

    def testLayersOfTheUserComeBack(self):
        image, other, label = imageNode("Scan", 900, 100), imageNode("PET", 0, 900), labelMap()
        slicer.util.setSliceViewerLayers(
            background=image, foreground=other, label=label, foregroundOpacity=0.4, labelOpacity=0.3
        )
        for name in VIEWS:
            self.manager.sliceWidget(name).mrmlSliceNode().SetUseLabelOutline(True)
        before = views()
        result = resultNode()
        self.view.show(image, result)
        self.assertNotEqual(views(), before)
        self.view.close()
        after = views()
        self.assertEqual([after[name][:4] for name in VIEWS], [before[name][:4] for name in VIEWS])
        composite = self.manager.sliceWidget("Red").mrmlSliceCompositeNode()
        self.assertAlmostEqual(composite.GetLabelOpacity(), 0.3)
        self.assertTrue(self.manager.sliceWidget("Red").mrmlSliceNode().GetUseLabelOutline())

    def testAViewThatTheUserChangedIsLeftAlone(self):
        image, other = imageNode("Scan", 900, 100), imageNode("Other", 0, 900)
        showAsUsers(image)
        result = resultNode()
        self.view.show(image, result)
        composite = self.manager.sliceWidget("Green").mrmlSliceCompositeNode()
        composite.SetBackgroundVolumeID(other.GetID())
        self.view.blend(0.5)
        self.assertEqual(composite.GetBackgroundVolumeID(), other.GetID())
        self.view.close()
        self.assertEqual(composite.GetBackgroundVolumeID(), other.GetID())

    def testViewsThatShowNothingOfTheResultAreFitted(self):
        mask = segmentation()
        for name in VIEWS:
            self.manager.sliceWidget(name).mrmlSliceNode().SetXYZOrigin(0, 0, 0)
            self.manager.sliceWidget(name).mrmlSliceNode().SetSliceOffset(500)
        self.view.show(mask, resultNode())
        for name, image in drawn().items():
            self.assertGreater((image > 0).mean(), 0.3, name)

    def testSmallResultInViewsThatNobodyHasSet(self):
        mask = segmentation()
        for name in VIEWS:
            node = self.manager.sliceWidget(name).mrmlSliceNode()
            node.SetSliceOffset(0)
            node.SetXYZOrigin(0, 0, 0)
            node.SetFieldOfView(400, 400, 1)
        self.view.show(mask, resultNode())
        for name, image in drawn().items():
            self.assertGreater((image > 0).mean(), 0.3, name)

    def testHiddenMaskStaysHiddenUntilItIsBlendedIn(self):
        mask = segmentation()
        showAsUsers(mask)
        mask.GetDisplayNode().SetVisibility(False)
        result = resultNode()
        self.view.show(mask, result)
        self.assertSame(drawn(), self.alone(result))
        self.view.blend(0.5)
        self.assertGreater(colored(drawn()["Red"]), 0.2)
        self.view.blend(0)
        self.assertSame(drawn(), self.alone(result))
        self.view.close()
        self.assertFalse(mask.GetDisplayNode().GetVisibility())

    def testWhatIsChangedElsewhereIsNotTakenBack(self):
        mask = segmentation()
        showAsUsers(mask)
        self.view.show(mask, resultNode())
        mask.GetDisplayNode().SetVisibility(False)
        mask.GetDisplayNode().SetVisibility2DFill(True)
        self.view.close()
        self.assertFalse(mask.GetDisplayNode().GetVisibility())
        self.assertEqual(mask.GetDisplayNode().GetOpacity2DFill(), 0.5)

    def testAnotherMaskGetsTheOutline(self):
        masks = [segmentation(), segmentation()]
        result = resultNode()
        self.view.show(masks[0], result)
        self.view.show(masks[1], result)
        self.assertEqual([bool(mask.GetDisplayNode().GetVisibility2DFill()) for mask in masks], [True, False])

    def testDeletedMask(self):
        mask = segmentation()
        showAsUsers(mask)
        result = resultNode()
        self.view.show(mask, result)
        slicer.mrmlScene.RemoveNode(mask)
        self.view.show(None, result)
        self.view.blend(0.5)
        self.assertSame(drawn(), self.alone(result))
        self.view.close()


class BesideTest(ResultViewCase):
    """Input on the left, result on the right; a second press brings all back."""

    def checkPair(self, node, isColored: bool):
        showAsUsers(node)
        result = resultNode()
        self.view.show(node, result, 0.4)
        before, state, layout = drawn(), views(), self.manager.layout
        self.view.showBeside()
        self.assertEqual((self.view.mode, self.modes), ("beside", ["beside"]))
        left, right = pixels("Red"), pixels("Yellow")
        self.assertEqual(left.shape, right.shape)
        self.assertEqual(colored(left) > 0.1, isColored)
        self.assertLess(colored(right), 0.001)
        self.assertGreater((right > 0).mean(), 0.1)
        seen = (left > 0).any(axis=2)
        self.assertGreater((seen & (right > 0).any(axis=2)).sum() / seen.sum(), 0.95, "not the same place")
        self.assertTrue(all(views()[name][4] for name in ("Red", "Yellow")))
        self.view.showOver()
        self.assertEqual((self.view.mode, self.manager.layout, views()), ("over", layout, state))
        self.assertSame(drawn(), before)

    def testSegmentation(self):
        self.checkPair(segmentation(), True)

    def testLabelMap(self):
        self.checkPair(labelMap(), True)

    def testImage(self):
        self.checkPair(imageNode("Scan", 900, 100), False)

    def testEveryLayout(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        names = [name for name in dir(LAYOUTS) if name.startswith("SlicerLayout")]
        node = self.manager.layoutLogic().GetLayoutNode()
        found = {getattr(LAYOUTS, name) for name in names}
        for layout in sorted(number for number in found if isinstance(number, int) and number > 0):
            if not node.IsLayoutDescription(layout) or layout == LAYOUTS.SlicerLayoutCustomView:
                continue
            with self.subTest(layout):
                self.manager.setLayout(layout)
                slicer.app.processEvents()
                self.view.show(image, result)
                state = self.shownViews()
                for show in (self.view.showBeside, self.view.show3D):
                    show()
                    self.assertNotEqual(self.view.mode, "over")
                    self.view.showOver()
                    self.assertEqual(self.manager.layout, layout)
                    self.assertEqual(self.shownViews(), state)

    def shownViews(self) -> dict:
        return {n: v for n, v in views().items() if self.manager.sliceWidget(n).mrmlSliceNode().IsMappedInLayout()}

    def testMaximizedViewComesBack(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        self.view.show(image, result)
        green = self.manager.sliceWidget("Green").mrmlSliceNode()
        self.manager.addMaximizedViewNode(green)
        for show in (self.view.showBeside, self.view.show3D):
            show()
            self.assertFalse(self.manager.layoutLogic().GetLayoutNode().IsMaximizedViewNode(green))
            self.view.showOver()
            self.assertTrue(self.manager.layoutLogic().GetLayoutNode().IsMaximizedViewNode(green))

    def testShowsThePlaneThatTheUserLooksAt(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        showAsUsers(image)
        self.view.show(image, result)
        self.manager.setLayout(LAYOUTS.SlicerLayoutOneUpYellowSliceView)
        slicer.app.processEvents()
        self.view.showBeside()
        for name in ("Red", "Yellow"):
            node = self.manager.sliceWidget(name).mrmlSliceNode()
            self.assertEqual((node.GetOrientation(), node.GetSliceOffset()), ("Sagittal", -2.0))

    def testLayoutThatTheUserChoosesStays(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        showAsUsers(image)
        self.view.show(image, result)
        before = drawn()
        self.view.showBeside()
        self.manager.setLayout(LAYOUTS.SlicerLayoutConventionalView)
        slicer.app.processEvents()
        self.assertEqual((self.view.mode, self.modes), ("over", ["beside", "over"]))
        self.assertEqual(self.manager.layout, LAYOUTS.SlicerLayoutConventionalView)
        self.assertSame(drawn(), before)

    def testReaderStudyMeanwhile(self):
        """Nothing but the image that is read may come into its views."""
        image, result = imageNode("Scan", 900, 100), resultNode()
        self.view.show(image, result)
        for show in (self.view.showBeside, self.view.show3D):
            show()
            reading = ReadingView()
            for shape in ((1, 64, 64), (8, 9, 10)):
                reading.show(np.full(shape, 60, np.uint8), "Image 1 of 3")
                slicer.app.processEvents()
                shown = {views()[name][0] for name in VIEWS[: 3 if shape[0] > 1 else 1]}
                self.assertEqual([slicer.mrmlScene.GetNodeByID(i).GetName() for i in shown], ["Image 1 of 3"])
            reading.close()
            self.view.showOver()

    def testDeletedWhileItIsShown(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        showAsUsers(image)
        before, layout = drawn(), self.manager.layout
        self.view.show(image, result)
        self.view.showBeside()
        slicer.mrmlScene.RemoveNode(result)
        self.view.close()
        self.assertEqual(self.manager.layout, layout)
        self.assertSame(drawn(), before)

    def testInputDeletedWhileItIsShown(self):
        image, result = imageNode("Scan", 900, 100), resultNode()
        self.view.show(image, result)
        self.view.showBeside()
        slicer.mrmlScene.RemoveNode(image)
        self.view.show(None, result)
        self.assertEqual(self.view.mode, "over")
        self.assertSame(drawn(), self.alone(result))
        with self.assertRaises(InputError):
            self.view.showBeside()

    def testSceneClosedMeanwhile(self):
        layout = self.manager.layout
        self.view.show(imageNode("Scan", 900, 100), resultNode())
        self.view.showBeside()
        slicer.mrmlScene.Clear(0)
        self.view.close()
        self.assertEqual(self.manager.layout, layout)

    def testAnotherResult(self):
        image = imageNode("Scan", 900, 100)
        first, second = resultNode("Same name"), resultNode("Same name")
        slicer.util.updateVolumeFromArray(second, slicer.util.arrayFromVolume(second) + 300)
        self.view.show(image, first)
        self.view.showBeside()
        before = pixels("Yellow")
        self.view.show(image, second)
        self.assertEqual(self.view.mode, "beside")
        self.assertGreater(np.abs(pixels("Yellow").astype(int) - before).max(), 50)


class SavedSceneTest(ResultViewCase):
    """A scene that is saved while a result is shown comes back with the mask as the user had drawn it."""

    def setUp(self):
        super().setUp()
        support.moduleWidget()
        self.mask = segmentation()
        self.display = self.mask.GetDisplayNode()
        self.display.SetOpacity2DFill(0.7)
        self.display.SetVisibility2DOutline(False)
        showAsUsers(self.mask)
        self.result = resultNode()

    def savedState(self) -> tuple:
        before = drawn(), stateOf(self.display)
        path = self.temporaryFolder() / "scene.mrml"
        self.assertTrue(slicer.util.saveScene(str(path)))
        self.assertSame(drawn(), before[0])
        self.assertEqual(stateOf(self.display), before[1])
        self.assertNotEqual(before[1], (True, True, True, False, 0.7, 1.0, 0))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(str(path))
        (loaded,) = slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")
        self.assertIsNone(loaded.GetAttribute("MedGen.Display"))
        return stateOf(loaded)

    def testOver(self):
        for share in (0.0, 0.4):
            with self.subTest(share):
                self.view.show(self.mask, self.result, share)
        self.assertEqual(self.savedState(), (True, True, True, False, 0.7, 1.0, 0))

    def testBeside(self):
        self.view.show(self.mask, self.result)
        self.view.showBeside()
        self.assertEqual(self.savedState(), (True, True, True, False, 0.7, 1.0, 0))

    def testWhatTheUserChangesMeanwhileIsSaved(self):
        self.view.show(self.mask, self.result)
        self.display.SetOpacity2DOutline(0.3)
        self.assertEqual(self.savedState(), (True, True, True, False, 0.7, 0.3, 0))

    def testErrorMap(self):
        view = ErrorMapView()
        self.addCleanup(view.hide)
        view.show(self.result, imageNode("Error", -100, 100))
        self.assertEqual(self.savedState(), (True, True, True, False, 0.7, 1.0, 0))

    def testAfterTheResult(self):
        self.view.show(self.mask, self.result)
        self.view.close()
        self.display.SetOpacity2DFill(0.2)
        self.assertIsNone(self.display.GetAttribute("MedGen.Display"))

    def testAnotherSceneThatIsAdded(self):
        """Its masks come back; the one that is an outline here stays one."""
        self.view.show(self.mask, self.result)
        path = self.temporaryFolder() / "scene.mrml"
        self.assertTrue(slicer.util.saveScene(str(path)))
        before = stateOf(self.display)
        slicer.util.loadScene(str(path))
        states = [stateOf(node) for node in slicer.util.getNodesByClass("vtkMRMLSegmentationDisplayNode")]
        self.assertEqual(states, [before, (True, True, True, False, 0.7, 1.0, 0)])


class SavedLabelsTest(ResultViewCase):
    """The same for a label map, which the slice views draw."""

    def setUp(self):
        super().setUp()
        support.moduleWidget()
        self.mask, self.result = labelMap(), resultNode()
        slicer.util.setSliceViewerLayers(label=self.mask, labelOpacity=0.6)

    def savedState(self) -> set:
        """What the views draw after the scene was saved, closed and loaded; saving changes nothing."""
        before = labelStates()
        path = self.temporaryFolder() / "scene.mrml"
        self.assertTrue(slicer.util.saveScene(str(path)))
        self.assertEqual(labelStates(), before)
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(str(path))
        (loaded,) = slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeDisplayNode")
        self.assertIsNone(loaded.GetAttribute("MedGen.Display"))
        return labelStates()

    def testOutlineAndFill(self):
        for share in (0.0, 0.4):
            with self.subTest(share):
                self.view.show(self.mask, self.result, share)
                self.assertEqual(labelStates(), {(share or 1.0, not share)})
        self.assertEqual(self.savedState(), {(0.6, False)})

    def testOutline(self):
        self.view.show(self.mask, self.result)
        self.assertEqual(self.savedState(), {(0.6, False)})

    def testWhatTheUserChangesMeanwhileIsSaved(self):
        self.view.show(self.mask, self.result)
        slicer.util.setSliceViewerLayers(labelOpacity=0.8)
        self.assertEqual(self.savedState(), {(0.8, True)})

    def testAfterTheResult(self):
        self.view.show(self.mask, self.result)
        self.view.close()
        self.assertEqual(labelStates(), {(0.6, False)})
        self.assertIsNone(self.mask.GetDisplayNode().GetAttribute("MedGen.Display"))


def labelStates() -> set:
    """Opacity of the labels and whether they are outlines, in the slice views."""
    nodes = map(nodesOf, sliceViews())
    return {(round(composite.GetLabelOpacity(), 3), bool(node.GetUseLabelOutline())) for composite, node in nodes}


def stateOf(display) -> tuple:
    """What a segmentation's display node says of the slice views."""
    return (
        bool(display.GetVisibility()),
        bool(display.GetVisibility2D()),
        bool(display.GetVisibility2DFill()),
        bool(display.GetVisibility2DOutline()),
        round(display.GetOpacity2DFill(), 3),
        round(display.GetOpacity2DOutline(), 3),
        display.GetNumberOfViewNodeIDs(),
    )


class ThreeDTest(ResultViewCase):
    def setUp(self):
        super().setUp()
        self.image, self.result = imageNode("Scan", 900, 100), resultNode()
        self.view.show(self.image, self.result)
        pixels(0)  # makes the camera, as the view of the application does at its start
        self.camera = slicer.util.getNodesByClass("vtkMRMLCameraNode")[0]
        self.camera.SetPosition(10, 20, 900)
        self.empty = pixels(0)

    def shown(self) -> float:
        return float((np.abs(pixels(0).astype(int) - self.empty).max(axis=2) > 8).mean())

    def testTogglesAndGivesTheCameraBack(self):
        state = views()
        self.view.show3D()
        self.assertGreater(self.shown(), 0.05)
        self.assertNotEqual(self.camera.GetPosition(), (10, 20, 900))
        self.view.showOver()
        self.assertEqual(self.shown(), 0)
        self.assertEqual((self.camera.GetPosition(), views()), ((10, 20, 900), state))

    def testSecondResultAlone(self):
        second = resultNode("Second")
        self.view.show3D()
        self.view.show(self.image, second)
        self.assertEqual(self.view.mode, "3D")
        displays = slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode")
        self.assertEqual(
            [(d.GetDisplayableNode(), d.GetVisibility()) for d in displays], [(self.result, 0), (second, 1)]
        )

    def testARenderingOfAnotherResultIsHiddenMeanwhile(self):
        """As one that a scene was saved with."""
        self.view.show3D()
        self.view.showOver()
        logic, second = slicer.modules.volumerendering.logic(), resultNode("Second")
        other = logic.GetFirstVolumeRenderingDisplayNode(self.result)
        other.SetVisibility(True)
        self.view.show(self.image, second)
        self.view.show3D()
        own = logic.GetFirstVolumeRenderingDisplayNode(second)
        self.assertEqual((other.GetVisibility(), own.GetVisibility()), (0, 1))
        self.view.showOver()
        self.assertEqual((other.GetVisibility(), own.GetVisibility()), (1, 0))

    def testTransferFunctionOfTheUserStays(self):
        self.view.show3D()
        display = slicer.modules.volumerendering.logic().GetFirstVolumeRenderingDisplayNode(self.result)
        display.GetVolumePropertyNode().GetScalarOpacity().AddPoint(777, 0.5)
        count = display.GetVolumePropertyNode().GetScalarOpacity().GetSize()
        self.view.showOver()
        self.view.show3D()
        self.assertEqual(display.GetVolumePropertyNode().GetScalarOpacity().GetSize(), count)
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode")), 1)

    def testLayoutWithoutA3DView(self):
        self.manager.setLayout(LAYOUTS.SlicerLayoutOneUpRedSliceView)
        slicer.app.processEvents()
        state = views()
        self.view.show3D()
        self.assertTrue(slicer.util.getNodesByClass("vtkMRMLViewNode")[0].IsMappedInLayout())
        self.view.showOver()
        self.assertEqual((self.manager.layout, views()), (LAYOUTS.SlicerLayoutOneUpRedSliceView, state))

    def testLayoutThatTheUserChoosesEndsIt(self):
        self.view.show3D()
        self.manager.setLayout(LAYOUTS.SlicerLayoutOneUpRedSliceView)
        slicer.app.processEvents()
        self.assertEqual((self.view.mode, self.manager.layout), ("over", LAYOUTS.SlicerLayoutOneUpRedSliceView))
        self.assertEqual(self.modes, ["3D", "over"])

    def testSceneWithoutA3DView(self):
        for node in list(slicer.util.getNodesByClass("vtkMRMLViewNode")):
            slicer.mrmlScene.RemoveNode(node)
        self.view.show3D()
        self.assertTrue(slicer.util.getNodesByClass("vtkMRMLViewNode")[0].IsMappedInLayout())

    def testDeletedWhileItIsShown(self):
        self.view.show3D()
        slicer.mrmlScene.RemoveNode(self.result)
        self.view.close()
        self.assertEqual(self.camera.GetPosition(), (10, 20, 900))

    def testSlicerWithoutVolumeRendering(self):
        with mock.patch.object(slicer.modules, "volumerendering", None), self.assertRaises(InputError) as caught:
            self.view.show3D()
        self.assertIn("Volume Rendering", str(caught.exception))
        self.assertEqual(self.view.mode, "over")


class WithoutViewsTest(SlicerTestCase):
    def testASentence(self):
        view = ResultView()
        without, result = (
            types.SimpleNamespace(layoutManager=lambda: None, translate=lambda _, text: text),
            resultNode(),
        )
        with mock.patch.object(slicer, "app", without):
            view.show(None, result)
            for show in (view.showBeside, view.show3D):
                with self.assertRaises(InputError) as caught:
                    show()
                self.assertIn("without views", str(caught.exception))
            view.close()


@unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
class InsteadTest(SlicerTestCase):
    def testTheViewsThatShowedIt(self):
        source, copy, other = imageNode("Scan", 900, 100), imageNode("Copy", 100, 900), imageNode("Other", 0, 10)
        slicer.util.setSliceViewerLayers(background=other)
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        composite.SetBackgroundVolumeID(source.GetID())
        showInstead(source, copy)
        found = [views()[name][0] for name in VIEWS]
        self.assertEqual(found, [copy.GetID(), other.GetID(), other.GetID()])

    def testSeenWhereTheSourceWasNot(self):
        source, copy = imageNode("Scan", 900, 100), imageNode("Copy", 100, 900)
        showInstead(source, copy)
        for name in VIEWS:
            self.assertGreater((pixels(name) > 0).mean(), 0.3, name)


if __name__ == "__main__":
    unittest.main()
