"""The page Enhance: what it says before, the run, and what is shown after it."""

import slicer

import support
from support.panelcase import PanelCase, ctVolume
from support.snapshots import snapshotOfNode

support.useModuleFolder()

from MedGenLib.degradation.slices import Acquisition, grid_of_thick
from MedGenLib.imaging.volume import Geometry
from MedGenSlicer.nodes import provenance

SECONDS = 120
CONTROLS = ("Image", "Second", "Third", "Spacing", "Thickness", "Register", "Strength", "Noise")


def thickVolume(axis: int, name: str):
    """Slices of 4 mm of a head, across an axis of its voxels."""
    head = support.headVolume(32)
    fine = Geometry((32, 32, 32), support.matrixOf(head))
    thick = grid_of_thick(fine, axis, factor=4)
    values = Acquisition(fine, thick).degrade(slicer.util.arrayFromVolume(head).transpose(2, 1, 0))
    slicer.mrmlScene.RemoveNode(head)
    matrix = slicer.util.vtkMatrixFromArray(thick.affine)
    node = slicer.util.addVolumeFromArray(values.transpose(2, 1, 0), matrix, name)
    node.SetAttribute("MedGen.Modality", "T1w")
    return node


class EnhanceTest(PanelCase):
    def setUp(self):
        super().setUp()
        self.openPage("enhancePage")
        self.parameters.device = "cpu"
        self.settle()

    def give(self, image, task: str = "superres"):
        self.ui.enhanceImageSelector.setCurrentNode(image)
        self.choose(self.ui.enhanceTaskComboBox, task)

    def says(self, sentence: str, canRun: bool = False):
        self.settle()
        self.assertIn(sentence, self.ui.enhancePlanLabel.text)
        self.assertEqual(self.ui.enhanceButton.enabled, canRun)

    def visible(self) -> set[str]:
        ends = ("Selector", "SpinBox", "CheckBox")
        found = [(name, getattr(self.ui, f"enhance{name}{end}", None)) for name in CONTROLS for end in ends]
        return {name for name, widget in found if widget is not None and self.isShown(widget)}

    def press(self):
        self.assertTrue(self.ui.enhanceButton.enabled, self.ui.enhancePlanLabel.text)
        self.ui.enhanceButton.click()
        self.assertEqual(self.ui.enhanceButton.text, "Cancel")

    def finished(self):
        """The node of the run that was started."""
        support.processUntil(lambda: self.ui.enhanceButton.text == "Enhance", SECONDS)
        self.settle()
        self.assertIsNone(self.logic.currentRun.error)
        return self.logic.currentRun.node

    def test_saysWhatWillBeMade(self):
        thick, ct = thickVolume(2, "Axial"), ctVolume(32)
        ct.SetAttribute("MedGen.Modality", "CT")
        self.says("Select the image")
        self.give(thick)
        self.says("1 x 1 x 4 mm, 8 slices -> 1 mm cubes, 32 x 32 x 32.", canRun=True)
        self.assertEqual(self.visible(), {"Image", "Second", "Third", "Spacing", "Thickness", "Register"})
        self.assertFalse(self.ui.enhanceRegisterCheckBox.enabled)
        self.parameters.translateInput = ct  # the tab watches its own image
        self.settle()
        spacing = thick.GetSpacing()
        thick.SetSpacing(1, 1, 1)
        self.says("1 x 1 x 1 mm, so that cubes of 1 mm are not finer")
        thick.SetSpacing(spacing)
        self.ui.enhanceSpacingSpinBox.setValue(2)
        self.says("2 mm cubes, 16 x 16 x 16.", canRun=True)
        self.ui.enhanceSpacingSpinBox.setValue(0.1)
        self.says("0.2 to 10")
        self.ui.enhanceSpacingSpinBox.setValue(0)
        for second, sentence in ((thick, "two stacks"), (ct, "CT and MR")):
            self.ui.enhanceSecondSelector.setCurrentNode(second)
            self.says(sentence)
        self.assertTrue(self.ui.enhanceRegisterCheckBox.enabled)
        self.give(thick, "denoise")
        self.says("1 x 1 x 4 mm, 32 x 32 x 8 voxels, which stay where they are.", canRun=True)
        self.assertEqual(self.visible(), {"Image", "Strength", "Noise"})
        self.give(ct, "debias")
        self.says("no uneven brightness")
        self.assertEqual(self.visible(), {"Image", "Strength"})
        self.ui.enhanceSecondSelector.setCurrentNode(None)
        self.give(ct)
        self.says("3 x 3 x 3 mm, so that cubes of 3 mm are not finer")
        ct.SetAttribute("MedGen.Modality", "DX")  # a radiograph
        self.says("picture or radiograph, of which only noise can be removed")
        self.give(ct, "denoise")
        self.says("voxels, which stay where they are.", canRun=True)
        slicer.mrmlScene.RemoveNode(ct)
        self.says("Select the image")

    def test_thickSlicesBecomeCubes(self):
        image, second = thickVolume(2, "Axial"), thickVolume(0, "Sagittal")
        image.GetDisplayNode().SetAutoWindowLevel(False)
        image.GetDisplayNode().SetWindowLevel(321, 123)
        slicer.util.setSliceViewerLayers(background=image)
        self.give(image)
        self.ui.enhanceSecondSelector.setCurrentNode(second)
        before = [snapshotOfNode(node) for node in (image, second)]
        self.press()
        node = self.finished()
        self.assertEqual([snapshotOfNode(node) for node in (image, second)], before)
        self.assertEqual(slicer.util.arrayFromVolume(node).shape, (32, 32, 32))
        self.assertEqual((node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()), (321, 123))
        for view in ("Red", "Yellow", "Green"):
            composite = slicer.app.layoutManager().sliceWidget(view).sliceLogic().GetSliceCompositeNode()
            self.assertEqual(composite.GetBackgroundVolumeID(), node.GetID())
            self.assertIsNone(composite.GetForegroundVolumeID())
        said = self.ui.enhanceLabel.text
        for words in (
            f"as '{node.GetName()}'.",
            "The slices of the result differ from those of the input by 0.",
            "estimate",
        ):
            self.assertIn(words, said)
        self.assertIn("not for diagnosis", said)
        self.assertTrue(self.isShown(self.ui.enhanceLabel))
        self.screenshot("enhance")  # the whole panel; a visible one draws its section, too
        support.screenshot(self.ui.editSection, "enhance", self.ui.editSection.width)

    def test_lessNoiseThenEvenBrightnessThenCancel(self):
        image = support.headVolume(32)
        self.give(image, "denoise")
        self.ui.enhanceStrengthSpinBox.setValue(50)
        self.ui.enhanceNoiseSpinBox.setValue(7)
        self.press()
        made = provenance.read(self.finished())
        self.assertEqual((made.parameters["task"], made.parameters["noise"]), ("denoise", 7))
        self.assertIn("strength=0.5", made.python)
        self.assertIn("Noise 7 a.u.; removed", self.ui.enhanceLabel.text)
        self.give(image, "debias")
        self.press()
        self.assertEqual(provenance.read(self.finished()).parameters["task"], "debias")
        self.assertIn("The brightness varied by a factor of 1", self.ui.enhanceLabel.text)
        self.give(image, "deghost")
        self.press()
        self.assertEqual(provenance.read(self.finished()).parameters["task"], "deghost")
        self.assertIn("No periodic ghosts", self.ui.enhanceLabel.text)
        self.give(image, "debias")
        count = slicer.mrmlScene.GetNumberOfNodes()
        self.press()
        self.ui.enhanceButton.click()
        support.processUntil(lambda: self.ui.enhanceButton.text == "Enhance", SECONDS)
        self.assertIn("cancelled", self.ui.enhanceLabel.text)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)
