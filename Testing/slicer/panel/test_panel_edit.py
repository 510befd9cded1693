"""The sections Edit and Insert lesion: real clicks, real worker, real model."""

import json
import unittest
from unittest import mock

import numpy as np
import slicer

import support
from support.nodes import syntheticCT, volumeOn
from support.painter import Painter
from support.panelcase import PanelCase
from support.views import pixels

# isort: split
from MedGenSlicer.nodes import provenance
from MedGenSlicer.panel.dialogs import selection
from MedGenSlicer.results.sequences import sequencesOf

SECONDS = 180


class SectionCase(PanelCase):
    section = ""

    def setUp(self):
        super().setUp()
        self.openPage(self.page)

    def select(self, **choices):
        for name, value in choices.items():
            setattr(self.parameters, name, value)
        self.settle()


class EditTest(SectionCase):
    page = "editPage"

    @property
    def edit(self):
        """The live editing of the panel, None where there is none."""
        return self.panel.sections["edit"].edit

    def tearDown(self):
        self.panel.sections["edit"].close()
        super().tearDown()

    def begin(self):
        volume, segmentation = syntheticCT()
        self.select(editVolume=volume, editMask=segmentation)
        self.assertTrue(self.ui.liveButton.enabled)
        self.ui.liveButton.click()
        support.processUntil(lambda: self.edit is None or self.edit.state == "ready", SECONDS)
        self.assertIsNotNone(self.edit, self.ui.editStatusLabel.text)
        return volume, segmentation, Painter(segmentation, volume)

    def waitDrawn(self):
        self.edit.wait(SECONDS)

    def voxels(self, node) -> np.ndarray:
        return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)

    def testNothingSelected(self):
        self.select(editVolume=None, editMask=None)
        for button in (self.ui.liveButton, self.ui.redrawButton, self.ui.undoEditButton, self.ui.redoEditButton):
            self.assertFalse(button.enabled)

    def testPaintOpensTheSegmentEditor(self):
        volume, segmentation = syntheticCT()
        self.select(editVolume=volume, editMask=segmentation)
        module = mock.Mock()
        with (
            mock.patch.object(slicer.util, "selectModule") as opened,
            mock.patch.object(slicer.modules, "segmenteditor", module, create=True),
        ):
            self.ui.paintButton.click()
        opened.assert_called_once_with("SegmentEditor")
        editor = module.widgetRepresentation().self().editor
        editor.setSegmentationNode.assert_called_once_with(segmentation)
        editor.setSourceVolumeNode.assert_called_once_with(volume)

    def testLive(self):
        volume, _segmentation, painter = self.begin()
        before = self.voxels(volume).copy()
        ball = painter.paint("bone", (10, 20, 14), 4)
        self.waitDrawn()
        self.assertIn("Redrawn in", self.ui.editStatusLabel.text)
        drawn = self.voxels(volume).copy()
        self.assertGreater(float(drawn[ball].mean()), 200)  # bone, in HU
        self.screenshot("edit")
        self.ui.undoEditButton.click()
        self.waitDrawn()
        np.testing.assert_array_equal(self.voxels(volume), before)
        self.assertTrue(self.ui.redoEditButton.enabled)
        self.ui.redoEditButton.click()
        self.waitDrawn()
        np.testing.assert_array_equal(self.voxels(volume), drawn)
        painter.undo()  # of the Segment Editor: the earlier mask is the earlier image
        self.waitDrawn()
        np.testing.assert_array_equal(self.voxels(volume), before)

    def testPauseAndRedraw(self):
        volume, _segmentation, painter = self.begin()
        before = self.voxels(volume).copy()
        self.ui.liveButton.click()
        self.assertIn("Paused", self.ui.editStatusLabel.text)
        painter.paint("bone", (10, 20, 14), 4)
        self.waitDrawn()
        np.testing.assert_array_equal(self.voxels(volume), before)
        self.ui.redrawButton.click()
        self.waitDrawn()
        self.assertFalse(np.array_equal(self.voxels(volume), before))

    @support.slow
    def testItGoesOnInAnotherModule(self):
        volume, _segmentation, painter = self.begin()
        before = self.voxels(volume).copy()
        self.widget.exit()
        painter.paint("bone", (10, 20, 14), 4)
        self.waitDrawn()
        self.widget.enter()
        self.assertFalse(np.array_equal(self.voxels(volume), before))

    def testAUsersVolumeIsCopiedAndTheCopySelected(self):
        from MedGenSlicer.nodes import provenance

        volume, segmentation = syntheticCT()
        provenance.erase(volume)
        volume.SetAttribute("DICOM.Modality", "CT")
        self.select(editVolume=volume, editMask=segmentation)
        self.ui.liveButton.click()
        support.processUntil(lambda: self.parameters.editVolume is not volume, SECONDS)
        self.settle()
        self.assertEqual(self.parameters.editVolume.GetName(), "Volume edited")
        self.assertTrue(self.ui.liveButton.checked)

    def testWhatEndsItIsSaidOnceInADialog(self):
        volume, _segmentation, _painter = self.begin()
        self.widget.exit()  # the user paints in the Segment Editor
        slicer.mrmlScene.RemoveNode(volume)
        slicer.app.processEvents()
        self.assertEqual([text for text, _detail in self.answers.shown], [self.ui.editStatusLabel.text])
        self.widget.enter()
        self.settle()
        self.assertIn("was deleted", self.ui.editStatusLabel.text)
        self.assertEqual(len(self.answers.shown), 1)
        self.assertFalse(self.ui.liveButton.checked)
        self.assertFalse(self.ui.liveButton.enabled)

    @support.slow
    def testTheSentenceOutlivesTheScene(self):
        self.begin()
        slicer.mrmlScene.Clear(0)
        self.settle()
        self.assertIn("scene was closed", self.ui.editStatusLabel.text)
        self.assertFalse(self.ui.liveButton.checked)
        self.assertEqual(self.answers.shown, [])  # who closes a scene wants no dialog about it

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def testTheViewsSayHowItGoes(self):
        _volume, _segmentation, painter = self.begin()
        self.widget.exit()

        def lit() -> int:
            image = pixels("Red").astype(int)  # the annotation is yellow
            return int(((image[..., 0] > 120) & (image[..., 0] - image[..., 2] > 60)).sum())

        self.assertGreater(lit(), 20)
        painter.paint("bone", (10, 20, 14), 4)
        self.waitDrawn()
        self.assertGreater(lit(), 20)
        self.widget.enter()
        self.select(editVolume=None)
        self.assertIsNone(self.edit)
        self.assertEqual(lit(), 0)
        self.assertEqual(self.answers.shown, [])  # the user ended it

    def testAnotherSelectionEndsIt(self):
        _volume, segmentation, _painter = self.begin()
        edit = self.edit
        other = volumeOn(segmentation)
        self.select(editVolume=other)
        self.assertEqual(edit.state, "ended")
        self.assertFalse(self.ui.liveButton.checked)
        self.assertTrue(self.ui.liveButton.enabled)

    def testANewSegmentIsAskedAboutOnce(self):
        volume, segmentation, painter = self.begin()
        segmentation.GetSegmentation().AddEmptySegment("new", "Tumor")
        self.answers.path = ""  # Cancel
        ball = painter.paint("Tumor", (10, 20, 14), 4)
        self.waitDrawn()
        slicer.app.processEvents()
        painter.paint("Tumor", (10, 20, 15), 4)
        self.waitDrawn()
        slicer.app.processEvents()
        self.assertEqual(len(self.answers.asked), 1)
        self.assertIn("'Tumor'", self.answers.asked[0])
        self.assertIn("Tumor", self.ui.editStatusLabel.text)
        self.select(mapping='{"ct-tissue": {"Tumor": "bone"}}')
        self.waitDrawn()
        self.assertIn("Redrawn in", self.ui.editStatusLabel.text)
        self.assertGreater(float(self.voxels(volume)[ball].mean()), 200)

    def testTheAnswerIsDrawn(self):
        volume, segmentation, painter = self.begin()
        segmentation.GetSegmentation().AddEmptySegment("new", "Tumor")
        self.answers.path = "bone"
        ball = painter.paint("Tumor", (10, 20, 14), 4)
        support.processUntil(lambda: "Redrawn in" in self.ui.editStatusLabel.text, SECONDS)
        self.assertEqual(json.loads(self.parameters.mapping), {"ct-tissue": {"Tumor": "bone"}})
        self.assertGreater(float(self.voxels(volume)[ball].mean()), 200)

    def testTheQuestionItself(self):
        dialog, combo = selection("Label of a segment", "What does the new segment 'Tumor' show?", ["fat", "bone"])
        self.addCleanup(dialog.deleteLater)
        self.assertEqual([combo.itemText(index) for index in range(combo.count)], ["fat", "bone"])
        self.assertEqual(combo.accessibleName, "What does the new segment 'Tumor' show?")

    def testAnotherModelEndsItAndSaysSo(self):
        self.begin()
        edit = self.edit
        self.choose(self.ui.editModelComboBox, "ct-tissue")
        self.assertEqual(edit.state, "ended")
        self.assertIn("another model was chosen", self.ui.editStatusLabel.text)
        self.assertFalse(self.ui.liveButton.checked)

    def testWhatCannotBeEditedIsOneSentence(self):
        volume, segmentation = syntheticCT()
        segmentation.GetSegmentation().GetNthSegment(0).SetName("Somebody's liver of steel")
        self.select(editVolume=volume, editMask=segmentation)
        self.ui.liveButton.click()
        self.assertIn("liver of steel", self.ui.editStatusLabel.text)
        self.assertFalse(self.ui.liveButton.checked)
        self.assertFalse(self.isShown(self.ui.failureFrame))

    def testAfterARunItsVolumeIsProposedAndFollowsItsMask(self):
        segmentation = support.ctSegmentation(32)
        self.settle()
        self.choose(self.ui.presetComboBox, "draft")
        self.ui.generateButton.click()
        support.processUntil(lambda: not self.panel.sections["run"].isRunning, SECONDS)
        self.settle()
        volume = self.panel.sections["result"].node()
        self.assertIs(self.parameters.editVolume, volume)
        self.assertIs(self.parameters.editMask, segmentation)
        before = self.voxels(volume).copy()
        ball = Painter(segmentation, volume).paint("bone", (10, 20, 14), 4)  # painted before Live is switched on
        self.ui.liveButton.click()
        self.waitDrawn()
        now = self.voxels(volume)
        self.assertGreater(float(now[ball].mean()), 200)
        self.assertTrue(np.array_equal(now[:, :, -2:], before[:, :, -2:]))


class LesionTest(SectionCase):
    page = "lesionPage"

    def waitForEnd(self):
        support.processUntil(lambda: self.ui.insertLesionButton.text == "Insert lesion", SECONDS)
        self.settle()

    def point(self, volume, index):
        """A point list with one point at a voxel (i, j, k)."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Here")
        node.AddControlPoint(*(support.matrixOf(volume) @ [*index, 1.0])[:3])
        return node

    def testSaysWhatIsMissing(self):
        self.select(lesionVolume=None)
        self.assertIn("Select the volume", self.ui.lesionStatusLabel.text)
        volume, _segmentation = syntheticCT()
        self.select(lesionVolume=volume)
        self.assertIn("Place a point", self.ui.lesionStatusLabel.text)
        self.select(lesionPlace=self.point(volume, (16, 16, 16)))
        self.assertIn("Choose a tissue", self.ui.lesionStatusLabel.text)
        self.assertFalse(self.ui.insertLesionButton.enabled)
        self.choose(self.ui.lesionTissueComboBox, "soft tissue")
        self.assertTrue(self.ui.insertLesionButton.enabled)

    def testInsert(self):
        volume, segmentation = syntheticCT()
        labels = slicer.util.arrayFromVolume(volume)
        before = labels.transpose(2, 1, 0).copy()
        index = (16, 16, 16)
        self.select(lesionVolume=volume, lesionPlace=self.point(volume, index), lesionSize=12.0)
        self.choose(self.ui.lesionShapeComboBox, "sphere")
        self.choose(self.ui.lesionTissueComboBox, "bone")
        self.ui.insertLesionButton.click()
        self.assertEqual(self.ui.insertLesionButton.text, "Cancel")
        self.waitForEnd()
        self.assertIn("nothing farther than", self.ui.lesionStatusLabel.text)
        run = self.logic.currentRun
        made, lesion = run.node, run.lesionNode
        self.assertEqual(made.GetName(), "Volume with lesion")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume).transpose(2, 1, 0), before)
        inside = (
            slicer.util.arrayFromSegmentBinaryLabelmap(
                lesion, lesion.GetSegmentation().GetNthSegmentID(0), made
            ).transpose(2, 1, 0)
            > 0
        )
        self.assertTrue(inside[index])
        now = slicer.util.arrayFromVolume(made).transpose(2, 1, 0)
        self.assertGreater(float(now[inside].mean()), 200)
        self.screenshot("lesion")

    def testATexturedLesionGrowsAsASequence(self):
        volume, _segmentation = syntheticCT()
        before = slicer.util.arrayFromVolume(volume).copy()
        self.select(lesionVolume=volume, lesionPlace=self.point(volume, (16, 16, 16)), lesionSize=10.0)
        self.choose(self.ui.lesionShapeComboBox, "sphere")
        self.choose(self.ui.lesionTextureComboBox, "necrotic")
        self.assertTrue(self.ui.insertLesionButton.enabled)  # a texture is a change
        self.assertFalse(self.ui.lesionDoublingSpinBox.enabled)
        for box, value in ((self.ui.lesionMassEffectSpinBox, 0), (self.ui.lesionTimesSpinBox, 1)):
            self.addCleanup(box.setValue, value)  # the panel is the same for all tests
        self.ui.lesionContrastSpinBox.setValue(150)
        self.ui.lesionMassEffectSpinBox.setValue(40)
        self.ui.lesionTimesSpinBox.setValue(3)
        self.settle()
        self.assertTrue(self.ui.lesionDoublingSpinBox.enabled)
        self.ui.lesionDoublingSpinBox.setValue(60)
        self.ui.lesionBetweenSpinBox.setValue(30)
        self.ui.insertLesionButton.click()
        self.waitForEnd()
        run = self.logic.currentRun
        self.assertIsNone(run.error)
        self.assertIn(f"as '{run.node.GetName()}'", self.ui.lesionStatusLabel.text)
        volumes, lesions = sequencesOf(run.node)
        self.assertEqual([volumes.GetNthIndexValue(n) for n in range(3)], ["0", "30", "60"])
        self.assertEqual((volumes.GetIndexName(), volumes.GetIndexUnit()), ("day", "d"))
        count = [int(slicer.util.arrayFromVolume(lesions.GetNthDataNode(n)).sum()) for n in range(3)]
        self.assertEqual(count[2], 2 * count[0])
        for number in range(3):
            run.node.SetSelectedItemNumber(number)
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(run.node)
            now, inside = (slicer.util.arrayFromVolume(node) for node in (run.volumeNode, run.lesionNode))
            self.assertEqual(int((inside > 0).sum()), count[number])
            self.assertGreater(float((now - before.astype(float))[inside > 0].mean()), 80)
            self.assertTrue(np.array_equal(now[:4], before[:4]))
        made = provenance.read(run.volumeNode)
        self.assertEqual((made.task, made.parameters["texture"]["name"]), ("insert-lesion", "necrotic"))
        np.testing.assert_allclose(support.matrixOf(run.volumeNode), support.matrixOf(volume))

    def testAPaintedSegment(self):
        volume, _segmentation = syntheticCT()
        drawing = support.ctSegmentation(32)
        drawing.GetSegmentation().AddEmptySegment("tumor", "Tumor")
        ball = Painter(drawing, volume).paint("Tumor", (16, 16, 16), 3)
        self.select(lesionVolume=volume, lesionPlace=drawing, lesionSegment="tumor")
        self.choose(self.ui.lesionTissueComboBox, "bone")
        self.assertFalse(self.isShown(self.ui.lesionShapeComboBox))
        self.ui.insertLesionButton.click()
        self.waitForEnd()
        now = slicer.util.arrayFromVolume(self.logic.currentRun.node).transpose(2, 1, 0)
        self.assertGreater(float(now[ball].mean()), 200)

    def testPlaceStartsTheMouseModeOfSlicer(self):
        volume, _segmentation = syntheticCT()
        self.select(lesionVolume=volume)
        self.ui.placePointButton.click()
        self.settle()
        node = self.parameters.lesionPlace
        self.assertTrue(node.IsA("vtkMRMLMarkupsFiducialNode"))
        application = slicer.app.applicationLogic()
        self.assertEqual(application.GetSelectionNode().GetActivePlaceNodeID(), node.GetID())
        interaction = application.GetInteractionNode()
        self.assertEqual(interaction.GetCurrentInteractionMode(), interaction.Place)
        interaction.SetCurrentInteractionMode(interaction.ViewTransform)

    def testErrorsAreOneSentenceInTheSection(self):
        volume, _segmentation = syntheticCT()
        nodes = slicer.mrmlScene.GetNumberOfNodes()
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Nowhere")
        self.select(lesionVolume=volume, lesionPlace=empty, lesionTissue="bone")
        self.ui.insertLesionButton.click()
        self.assertIn("has no point yet", self.ui.lesionStatusLabel.text)
        empty.AddControlPoint(9000, 0, 0)
        self.ui.insertLesionButton.click()
        self.waitForEnd()
        self.assertIn("outside of the image", self.ui.lesionStatusLabel.text)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes + 1)

    @support.slow
    def testAnotherVolumeIsSelectedMeanwhile(self):
        volume, _segmentation = syntheticCT()
        slicer.util.setSliceViewerLayers(background=volume)
        self.select(lesionVolume=volume, lesionPlace=self.point(volume, (16, 16, 16)), lesionTissue="bone")
        self.ui.insertLesionButton.click()
        self.select(lesionVolume=None)
        self.waitForEnd()
        self.assertIn("nothing farther than", self.ui.lesionStatusLabel.text)
        composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
        self.assertEqual(composite.GetBackgroundVolumeID(), self.logic.currentRun.node.GetID())

    def testCancel(self):
        volume, _segmentation = syntheticCT()
        self.select(lesionVolume=volume, lesionPlace=self.point(volume, (16, 16, 16)), lesionTissue="bone")
        self.ui.insertLesionButton.click()
        self.ui.insertLesionButton.click()
        self.waitForEnd()
        self.assertIn("cancelled", self.ui.lesionStatusLabel.text)


if __name__ == "__main__":
    unittest.main()
