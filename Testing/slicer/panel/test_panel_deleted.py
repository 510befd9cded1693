"""Nothing of the user's is lost or changed without a word: nodes that are deleted or hidden, and a restart."""

import unittest

import numpy as np
import slicer

import support
from support.panelcase import PanelCase

# isort: split
from MedGenSlicer.panel.dialogs import Dialogs, restartQuestion

SELECTORS = 17
"""At least that many parameters of the panel are nodes."""


class DeletedTest(PanelCase):
    """Qt's combo box would select the row above, and the parameter would follow."""

    def selectors(self) -> dict:
        """Parameter -> its node selector."""
        found = {}
        for widget in vars(self.ui).values():
            if widget.className() == "qMRMLNodeComboBox" and widget.property("SlicerParameterName"):
                found[widget.property("SlicerParameterName")] = widget
        return found

    def nodes(self) -> dict:
        """Class -> three nodes of it with something in them."""
        made = {}
        for kind in ("vtkMRMLScalarVolumeNode", "vtkMRMLLabelMapVolumeNode"):
            made[kind] = [
                slicer.util.addVolumeFromArray(np.ones((4, 5, 6), np.int16), name=f"{kind} {n}", nodeClassName=kind)
                for n in range(3)
            ]
        for kind in ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsFiducialNode"):
            made[kind] = [slicer.mrmlScene.AddNewNodeByClass(kind, f"{kind} {n}") for n in range(3)]
        for node in made["vtkMRMLScalarVolumeNode"]:
            node.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
        return made

    def test_everySelectorLetsGo(self):
        selectors, nodes = self.selectors(), self.nodes()
        self.settle()
        self.assertGreaterEqual(len(selectors), SELECTORS)
        for parameter, selector in selectors.items():
            for kind in (kind for kind in selector.nodeTypes if kind in nodes):
                with self.subTest(parameter, kind=kind):
                    node = slicer.mrmlScene.AddNode(nodes[kind][2].NewInstance())
                    node.Copy(nodes[kind][2])
                    node.SetName("Last of the list")
                    setattr(self.parameters, parameter, node)
                    self.assertIs(selector.currentNode(), node)
                    others = self.values(without=parameter)
                    slicer.mrmlScene.RemoveNode(node)
                    self.assertIsNone(getattr(self.parameters, parameter))
                    self.assertIsNone(selector.currentNode())
                    self.assertEqual(self.values(without=parameter), others)
                    self.assertIn("'Last of the list' was deleted", self.ui.statusLabel.text)
                    self.assertNotIn(parameter, self.ui.statusLabel.text)  # but the words of the panel

    def values(self, without: str) -> dict:
        names = self.parameters.allParameters
        return {name: self.parameters.getValue(name) for name in names if name != without}

    def test_oneNodeInManyPlaces(self):
        volumes = self.nodes()["vtkMRMLScalarVolumeNode"]
        self.settle()
        for parameter in ("translateInput", "evaluateImage", "exportNode"):
            setattr(self.parameters, parameter, volumes[1])
        self.parameters.generateStyle = volumes[0]
        slicer.mrmlScene.RemoveNode(volumes[1])
        for parameter in ("translateInput", "evaluateImage", "exportNode"):
            self.assertIsNone(getattr(self.parameters, parameter))
        self.assertIs(self.parameters.generateStyle, volumes[0])
        self.assertEqual(self.ui.statusLabel.text.count(","), 2)
        self.settle()
        self.assertTrue(self.isShown(self.ui.statusLabel))

    def test_hiddenNode(self):
        volumes = self.nodes()["vtkMRMLScalarVolumeNode"]
        self.settle()
        self.parameters.generateStyle = volumes[2]
        volumes[2].SetHideFromEditors(True)
        self.assertIsNone(self.parameters.generateStyle)
        self.assertIsNone(self.ui.styleSelector.currentNode())
        self.assertIn("was hidden", self.ui.statusLabel.text)

    def test_nodeThatIsNotSelected(self):
        volumes = self.nodes()["vtkMRMLScalarVolumeNode"]
        self.settle()
        self.parameters.generateStyle = volumes[0]
        slicer.mrmlScene.RemoveNode(volumes[2])
        self.assertIs(self.parameters.generateStyle, volumes[0])
        self.assertEqual(self.ui.statusLabel.text, "")

    def test_whileAnotherModuleIsOpen(self):
        volumes = self.nodes()["vtkMRMLScalarVolumeNode"]
        self.settle()
        self.parameters.evaluateReference = volumes[2]
        self.widget.exit()
        slicer.mrmlScene.RemoveNode(volumes[2])
        self.widget.enter()
        self.assertIsNone(self.parameters.evaluateReference)


class RestartTest(PanelCase):
    def test_asksAndNamesWhatIsUnsaved(self):
        support.headVolume(16).SetName("My head")
        self.assertIn("'My head'", restartQuestion())
        for number in range(7):
            slicer.util.addVolumeFromArray(np.ones((4, 5, 6)), name=f"Volume {number}")
        self.assertIn("3 more", restartQuestion())
        slicer.mrmlScene.Clear(0)
        self.assertIn("All data of the scene is saved", restartQuestion())

    @unittest.skipIf(support.inSlicer(), "Slicer would restart")
    def test_onlyThroughTheQuestion(self):
        support.headVolume(16).SetName("My head")
        self.panel.context.dialogs = Dialogs()
        import bridge

        bridge.answers["confirmRestart"] = lambda dialog: False
        self.addCleanup(bridge.answers.pop, "confirmRestart")
        self.addCleanup(bridge.dialogs.clear)
        readiness = self.panel.readiness
        self.addCleanup(readiness._checkAgain)
        readiness._show("restart", "warning", "The packages are in use.", "Restart")
        self.ui.installButton.click()
        asked = [text for name, text in bridge.dialogs if name == "confirmRestart"]
        self.assertEqual(len(asked), 1)
        self.assertIn("'My head'", asked[0])


if __name__ == "__main__":
    unittest.main()
