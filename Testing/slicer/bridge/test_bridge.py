"""The bridge is as strict as Slicer: what would fail there, or fail silently, fails here."""

import logging
import sys
import time
import unittest
from pathlib import Path
from typing import Annotated

import ctk
import numpy as np
import qt
import slicer
import slicer.util
import vtk

import support

if support.inSlicer():
    raise unittest.SkipTest("these tests are about the stand-in for the application")

from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

import bridge
from bridge import eventloop
from support.views import pixels

MODULE = """
import slicer
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin

VERSION = {version}

class Sample(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Sample"

class SampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.calls = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = SampleLogic()
        self.version = VERSION

    def enter(self):
        self.calls.append("enter")

    def exit(self):
        self.calls.append("exit")

    def cleanup(self):
        self.calls.append("cleanup")

class SampleLogic(ScriptedLoadableModuleLogic):
    pass

class SampleTest(ScriptedLoadableModuleTest):
    done = []

    def setUp(self):
        self.done.append("setUp")

    def test_one(self):
        self.done.append("one")
"""

FORM = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Form</class><widget class="qMRMLWidget" name="Form">
 <layout class="QVBoxLayout" name="layout">
  <item><widget class="{cls}" name="selector"><property name="{prop}"><bool>false</bool></property></widget></item>
  <item><widget class="ctkCollapsibleButton" name="section"><property name="text"><string>Section</string></property>
    <property name="collapsed"><bool>true</bool></property>
    <layout class="QVBoxLayout" name="inner"><item><widget class="QCheckBox" name="box"/></item></layout>
  </widget></item>
 </layout></widget>
 <connections><connection><sender>Form</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
  <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>"""


class QtTest(support.SlicerTestCase):
    def test_aFoldedSectionShowsTheBeginningOfItsContents(self):
        heights = []
        for height in (None, 0):
            section = ctk.ctkCollapsibleButton()
            self.assertEqual(section.collapsedHeight, 14)
            if height is not None:
                section.collapsedHeight = height
            section.collapsed = True
            heights.append(section.maximumHeight)
        self.assertEqual(heights[0] - heights[1], 14)

    def test_properties_are_attributes(self):
        button = qt.QPushButton("Run")
        self.assertEqual((button.text, button.enabled, button.checkable), ("Run", True, False))
        button.text = 7
        self.assertEqual(button.text, "7")
        with self.assertRaises(TypeError):
            button.text()
        self.assertEqual(button.sizeHint.height(), qt.QPushButton("Run").sizeHint.height())

    def test_misspelt_property_is_refused(self):
        with self.assertRaises(AttributeError):
            qt.QPushButton().enabeld = False
        with self.assertRaises(AttributeError):
            _ = qt.QPushButton().enabeld
        with self.assertRaises(AttributeError):
            ctk.ctkCollapsibleButton().colapsed = True

    def test_new_attribute_only_on_python_classes(self):
        class Mine(qt.QWidget):
            pass

        mine = Mine()
        mine.anything = 1
        self.assertEqual(mine.anything, 1)
        with self.assertRaises(AttributeError):
            qt.QWidget().anything = 1

    def test_methods_and_signals_cannot_be_overwritten(self):
        button = qt.QPushButton()
        for name in ("click", "clicked"):
            with self.assertRaises(AttributeError):
                setattr(button, name, print)

    def test_property_types(self):
        with self.assertRaises(AttributeError):
            qt.QLabel().text = None
        with self.assertRaises(AttributeError):
            slicer.qMRMLNodeComboBox().nodeTypes = "vtkMRMLVolumeNode"
        with self.assertRaises(AttributeError):
            qt.QWidget().sizeHint = qt.QSize(1, 1)
        spin = qt.QSpinBox()
        spin.value = 3.9
        self.assertEqual(spin.value, 3)

    def test_lists_are_tuples(self):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLSegmentationNode"]
        self.assertEqual(selector.nodeTypes, ("vtkMRMLSegmentationNode",))
        self.assertIsInstance(qt.QWidget().children(), tuple)

    def test_dynamic_properties_and_direct_children(self):
        widget = qt.QWidget()
        box = qt.QCheckBox(widget)
        box.name = "box"
        widget.setProperty("SlicerParameterName", "seed")
        self.assertIs(widget.box, box)
        self.assertEqual(widget.SlicerParameterName, "seed")

    def test_no_plain_setters_of_ctk_and_qmrml(self):
        for widget, setter in (
            (slicer.qMRMLNodeComboBox(), "setNodeTypes"),
            (slicer.qMRMLNodeComboBox(), "setNoneEnabled"),
            (ctk.ctkCollapsibleButton(), "setCollapsed"),
            (ctk.ctkSliderWidget(), "setMinimum"),
            (ctk.ctkSliderWidget(), "setRange"),
            (ctk.ctkPathLineEdit(), "setCurrentPath"),
        ):
            self.assertFalse(hasattr(widget, setter), f"{type(widget).__name__}.{setter}")

    def test_names_that_one_qt_lacks_are_absent(self):
        for name in ("QTextCodec", "QRegExp", "QDesktopWidget", "Signal", "Slot"):
            self.assertFalse(hasattr(qt, name), name)

    def test_enumerations_are_integers(self):
        self.assertEqual(qt.Qt.Checked, 2)
        self.assertIsInstance(qt.Qt.AlignLeft | qt.Qt.AlignTop, int)

    def test_methods_refuse_keywords(self):
        label = qt.QLabel("text")
        with self.assertRaisesRegex(TypeError, "keyword"):
            label.setText(text="other")
        with self.assertRaisesRegex(TypeError, "keyword"):
            label.setAlignment(alignment=qt.Qt.AlignRight)
        with self.assertRaises(TypeError):
            qt.QFileDialog.getExistingDirectory(None, "Folder", dir="/")
        label.setText("other")
        self.assertEqual(label.text, "other")


class SignalTest(support.SlicerTestCase):
    def setUp(self):
        super().setUp()
        self.button, self.seen = qt.QPushButton(), []
        self.button.checkable = True

    def test_signature_chooses_the_overload(self):
        self.button.connect("clicked()", lambda *values: self.seen.append(values))
        self.button.connect("clicked(bool)", lambda *values: self.seen.append(values))
        self.button.clicked.connect(lambda *values: self.seen.append(values))
        self.button.click()
        self.assertEqual(self.seen, [(), (True,), (True,)])

    def test_surplus_arguments_are_dropped(self):
        self.button.clicked.connect(lambda: self.seen.append("none"))
        self.button.click()
        self.assertEqual(self.seen, ["none"])

    def test_unknown_signal_is_refused(self):
        for name in ("clickd()", "clicked(int)"):
            with self.assertRaises(bridge.BridgeError):
                self.button.connect(name, print)

    def test_what_cannot_be_called_is_refused(self):
        with self.assertRaises(bridge.BridgeError):
            self.button.clicked.connect(None)

    def test_disconnect(self):
        self.button.clicked.connect(self.seen.append)
        self.assertTrue(self.button.clicked.disconnect(self.seen.append))
        self.button.click()
        self.assertEqual(self.seen, [])

    def test_exceptions_in_slots_are_kept(self):
        self.button.clicked.connect(lambda: {}["missing"])
        with self.assertNoOutput():
            self.button.click()
        self.assertEqual([type(e) for e in support.slotErrors()], [KeyError])
        support.slotErrors().clear()

    def test_exceptions_in_timers_and_observers_are_kept(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
        kept = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: 1 / 0)
        with self.assertNoOutput():
            node.Modified()
            qt.QTimer.singleShot(0, lambda: {}["missing"])
            support.processUntil(lambda: len(support.slotErrors()) > 1, 5)
        node.RemoveObserver(kept)
        self.assertEqual([type(e) for e in support.slotErrors()], [ZeroDivisionError, KeyError])
        support.slotErrors().clear()

    def test_dialogs_do_not_wait(self):
        with self.assertRaises(bridge.BridgeError):
            qt.QMessageBox().exec_()
        bridge.answers["QFileDialog.getExistingDirectory"] = "/somewhere"
        self.addCleanup(bridge.answers.clear)
        self.assertEqual(qt.QFileDialog.getExistingDirectory(None, "Folder"), "/somewhere")

    def assertNoOutput(self):
        """Keep the printed traceback of a fault made on purpose out of the report."""
        import contextlib
        import io

        return contextlib.redirect_stderr(io.StringIO())


class FormTest(support.SlicerTestCase):
    def load(self, **changes):
        path = self.temporaryFolder() / "Form.ui"
        path.write_text(FORM.format(**{"cls": "qMRMLNodeComboBox", "prop": "addEnabled", **changes}))
        return slicer.util.loadUI(str(path))

    def test_loads_and_passes_the_scene_on(self):
        form = self.load()
        ui = slicer.util.childWidgetVariables(form)
        self.assertFalse(ui.selector.addEnabled)
        self.assertFalse(ui.selector.enabled)
        form.setMRMLScene(slicer.mrmlScene)
        self.assertIs(ui.selector.mrmlScene(), slicer.mrmlScene)
        self.assertTrue(ui.selector.enabled)

    def test_collapsed_section_hides_its_content(self):
        form = self.load()
        ui = slicer.util.childWidgetVariables(form)
        form.show()
        slicer.app.processEvents()
        self.assertFalse(ui.box.visible)
        ui.section.collapsed = False
        self.assertTrue(ui.box.visible)
        ui.section.click()
        self.assertTrue(ui.section.collapsed)
        self.assertFalse(ui.box.visible)

    def test_unknown_class_is_reported(self):
        with self.assertRaisesRegex(bridge.BridgeError, "qMRMLNodeCombBox"):
            self.load(cls="qMRMLNodeCombBox")

    def test_unknown_property_is_reported(self):
        with self.assertRaisesRegex(bridge.BridgeError, "addEnable"):
            self.load(prop="addEnable")

    def test_missing_file(self):
        with self.assertRaises(RuntimeError):
            slicer.util.loadUI("/nowhere/Form.ui")


class NodeSelectorTest(support.SlicerTestCase):
    def selector(self, **properties):
        selector = slicer.qMRMLNodeComboBox()
        for name, value in {"nodeTypes": ["vtkMRMLScalarVolumeNode"], **properties}.items():
            setattr(selector, name, value)
        selector.setMRMLScene(slicer.mrmlScene)
        self.addCleanup(selector.setMRMLScene, None)
        return selector

    def volume(self, kind="vtkMRMLScalarVolumeNode", name="volume"):
        return slicer.mrmlScene.AddNewNodeByClass(kind, name)

    def test_first_node_when_the_scene_is_set_only(self):
        first = self.volume()
        self.volume()
        self.assertIs(self.selector().currentNode(), first)
        slicer.mrmlScene.Clear(0)
        late = self.selector()
        self.volume()
        self.assertIsNone(late.currentNode())

    def test_label_maps_are_scalar_volumes(self):
        self.volume("vtkMRMLLabelMapVolumeNode")
        self.assertEqual(self.selector().nodeCount(), 1)
        self.assertEqual(self.selector(showChildNodeTypes=False).nodeCount(), 0)

    def test_removed_node(self):
        """Qt's combo box selects the row before; only the first one leaves nothing selected."""
        for index, expected in ((2, 1), (1, 0), (0, None)):
            with self.subTest(index):
                slicer.mrmlScene.Clear(0)
                selector, strict = self.selector(noneEnabled=True), self.selector()
                nodes = [self.volume(name=str(n)) for n in range(3)]
                selector.setCurrentNode(nodes[index])
                strict.setCurrentNode(nodes[index])
                slicer.mrmlScene.RemoveNode(nodes[index])
                self.assertIs(selector.currentNode(), None if expected is None else nodes[expected])
                self.assertIs(strict.currentNode(), nodes[expected or 1 - index])

    def test_hidden_node(self):
        selector = self.selector(noneEnabled=True)
        nodes = [self.volume(name=str(n)) for n in range(3)]
        selector.setCurrentNode(nodes[2])
        nodes[2].SetHideFromEditors(True)
        self.assertIs(selector.currentNode(), nodes[1])

    def test_signals(self):
        selector, seen = self.selector(noneEnabled=True), []
        selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(node))
        selector.connect("currentNodeChanged(bool)", lambda valid: seen.append(valid))
        selector.currentNodeIDChanged.connect(seen.append)
        node = self.volume()
        selector.setCurrentNodeID(node.GetID())
        self.assertEqual(seen, [node, True, node.GetID()])
        self.assertEqual(selector.currentNodeID, node.GetID())

    def test_scene_closed(self):
        selector = self.selector()
        self.volume()
        slicer.mrmlScene.Clear(0)
        self.assertIsNone(selector.currentNode())
        self.assertEqual(selector.nodeCount(), 0)

    def test_attribute_of_a_node_that_has_the_id_of_one_before(self):
        """Scenes give IDs again; the node that has it now is the one that is listened to."""
        selector = self.selector(noneEnabled=True)
        selector.addAttribute("vtkMRMLScalarVolumeNode", "DICOM.instanceUIDs")
        first = self.volume().GetID()
        slicer.mrmlScene.Clear(0)
        node = self.volume()
        self.assertEqual((node.GetID(), selector.nodeCount()), (first, 0))
        node.SetAttribute("DICOM.instanceUIDs", "1.2 1.3")
        self.assertIs(selector.nodeFromIndex(0), node)

    def test_foreign_object(self):
        with self.assertRaises(bridge.BridgeError):
            self.selector().setCurrentNode(3)


@parameterNodeWrapper
class Parameters:
    mask: slicer.vtkMRMLSegmentationNode | slicer.vtkMRMLScalarVolumeNode | None
    output: slicer.vtkMRMLScalarVolumeNode
    seed: Annotated[int, WithinRange(0, 100)] = 7
    preset: Annotated[str, Choice(["draft", "normal"]), Default("normal")]
    opacity: Annotated[float, WithinRange(0.0, 1.0)] = 0.5
    locked: bool


class ParameterNodeTest(support.SlicerTestCase):
    def setUp(self):
        super().setUp()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "Parameters")
        self.parameters = Parameters(node)

    def test_defaults_and_storage(self):
        found = {name: self.parameters.getValue(name) for name in Parameters.allParameters}
        self.assertEqual(
            found, {"mask": None, "output": None, "seed": 7, "preset": "normal", "opacity": 0.5, "locked": False}
        )
        self.parameters.locked = True
        self.assertEqual(self.parameters.parameterNode.GetParameter("locked"), "True")
        self.assertTrue(Parameters(self.parameters.parameterNode).locked)

    def test_values_are_checked(self):
        for name, value, error in (
            ("seed", 101, ValueError),
            ("seed", 1.5, TypeError),
            ("preset", "best", ValueError),
            ("seed", None, ValueError),
            ("output", "node", TypeError),
        ):
            with self.assertRaises(error):
                setattr(self.parameters, name, value)
        with self.assertRaises(AttributeError):
            self.parameters.sead = 1

    def test_types_are_checked(self):
        with self.assertRaises(TypeError):
            parameterNodeWrapper(type("Wrong", (), {"__annotations__": {"a": object}}))
        with self.assertRaises(TypeError):
            union = slicer.vtkMRMLSegmentationNode | slicer.vtkMRMLScalarVolumeNode
            parameterNodeWrapper(type("Wrong", (), {"__annotations__": {"a": union}}))

    def test_nodes(self):
        volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        for node in (volume, segmentation, volume, None, segmentation):
            self.parameters.mask = node
            self.assertIs(self.parameters.mask, node)
        slicer.mrmlScene.RemoveNode(segmentation)
        self.assertIsNone(self.parameters.mask)

    def test_widgets_both_ways(self):
        panel = qt.QWidget()
        self.addCleanup(lambda: panel)  # the widgets go with it
        widgets = {
            "seed": qt.QSpinBox(panel),
            "preset": qt.QComboBox(panel),
            "opacity": ctk.ctkSliderWidget(panel),
            "locked": qt.QCheckBox(panel),
            "output": slicer.qMRMLNodeComboBox(panel),
        }
        widgets["output"].setMRMLScene(slicer.mrmlScene)
        self.addCleanup(widgets["output"].setMRMLScene, None)
        for name, widget in widgets.items():
            widget.setProperty("SlicerParameterName", name)
        tag = self.parameters.connectGui(panel)
        widgets["seed"].value, widgets["locked"].checked = 12, True
        widgets["preset"].currentText = "draft"
        self.assertEqual((self.parameters.seed, self.parameters.locked, self.parameters.preset), (12, True, "draft"))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        self.parameters.output, self.parameters.opacity = node, 0.25
        self.assertIs(widgets["output"].currentNode(), node)
        self.assertEqual(widgets["opacity"].value, 0.25)
        self.parameters.disconnectGui(tag)
        widgets["seed"].value = 1
        self.parameters.locked = False
        self.assertEqual((self.parameters.seed, widgets["locked"].checked), (12, True))

    def test_widgets_that_do_not_fit(self):
        for name, widget in (("seed", qt.QCheckBox()), ("output", qt.QComboBox()), ("locked", qt.QToolButton())):
            with self.assertRaises(RuntimeError):
                self.parameters.connectParametersToGui({name: widget})
        with self.assertRaises(ValueError):
            self.parameters.connectParametersToGui({"sead": qt.QSpinBox()})

    def test_saved_with_the_scene(self):
        self.parameters.seed = 33
        self.parameters.output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "out")
        support.crop(support.headVolume(16), 4)
        path = str(self.temporaryFolder() / "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        restored = Parameters(slicer.util.getNode("Parameters"))
        self.assertEqual((restored.seed, restored.output.GetName()), (33, "out"))


class ModuleTest(support.SlicerTestCase):
    def test_life_of_a_module(self):
        path = self.temporaryFolder() / "Sample.py"
        path.write_text(MODULE.format(version=1))
        module = bridge.loadModule(path)
        self.assertEqual((module.title, slicer.util.modulePath("Sample")), ("Sample", str(path)))
        widget = slicer.util.getModuleWidget("Sample")
        self.assertIs(slicer.util.getModuleLogic("Sample"), widget.logic)
        host = slicer.modules.sample.widgetRepresentation()
        self.assertFalse(host.isEntered)
        host.enter()
        host.exit()
        path.write_text(MODULE.format(version=20))  # another size, since Python compares whole seconds and sizes
        slicer.util.reloadScriptedModule("Sample")
        self.assertEqual(widget.calls, ["enter", "exit", "cleanup"])
        again = slicer.util.getModuleWidget("Sample")
        self.assertIsNot(again, widget)
        self.assertEqual(again.version, 20)
        slicer.selfTests["Sample"]()
        self.assertEqual(sys.modules["Sample"].SampleTest.done, ["setUp", "one"])
        bridge.unloadModule("Sample")
        self.assertEqual((widget.calls[-1], again.calls), ("cleanup", ["cleanup"]))

    def test_parent_takes_known_attributes_only(self):
        path = self.temporaryFolder() / "Sample.py"
        path.write_text(MODULE.format(version=1).replace("parent.title", "parent.tittle"))
        with self.assertRaises(AttributeError):
            bridge.loadModule(path)

    def test_no_such_module(self):
        with self.assertRaises(RuntimeError):
            slicer.util.getModule("Absent")
        with self.assertRaises(bridge.BridgeError):
            bridge.loadModule("/nowhere/Absent.py")


class ApplicationTest(support.SlicerTestCase):
    def test_restart_is_asked_for(self):
        with self.assertRaisesRegex(bridge.BridgeError, "question"):
            slicer.util.restart()
        with self.assertRaisesRegex(bridge.BridgeError, "Really"):
            slicer.app.confirmRestart("Really?")
        bridge.dialogs.clear()

    def test_nodes_are_filed(self):
        node = support.headVolume(8)
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = tree.GetItemByDataNode(node)
        self.assertEqual(tree.GetItemParent(item), tree.GetSceneItemID())
        slicer.mrmlScene.RemoveNode(node)
        self.assertNotIn(item, self.items(tree))

    def items(self, tree):
        found = vtk.vtkIdList()
        tree.GetItemChildren(tree.GetSceneItemID(), found, True)
        return [found.GetId(index) for index in range(found.GetNumberOfIds())]

    def test_volume_survives_a_file(self):
        node = support.headVolume(12)
        path = str(self.temporaryFolder() / "head.nii.gz")
        self.assertTrue(slicer.util.saveNode(node, path))
        again = slicer.util.loadVolume(path, {"show": False})
        self.assertEqual(again.GetName(), "head")
        self.assertLess(abs(support.matrixOf(again) - support.matrixOf(node)).max(), 1e-4)
        self.assertTrue((slicer.util.arrayFromVolume(again) == slicer.util.arrayFromVolume(node)).all())

    def test_missing_file(self):
        with self.assertRaises(RuntimeError):
            slicer.util.loadVolume("/nowhere/head.nii.gz", {})

    def test_color_nodes_stay_when_the_scene_is_closed(self):
        slicer.mrmlScene.Clear(0)
        for name in ("vtkMRMLColorTableNodeGrey", "vtkMRMLColorTableNodeFileGenericColors.txt"):
            self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(name), name)

    def test_messages_only_log(self):
        bridge.dialogs.clear()
        with self.assertLogs(level=logging.ERROR) as logs:
            slicer.util.errorDisplay("The disk is full.")
        self.assertIn("The disk is full.", logs.output[0])
        self.assertEqual(bridge.dialogs, [])

    def test_questions_are_shown_without_testing_mode(self):
        bridge.dialogs.clear()
        self.assertTrue(slicer.app.commandOptions().testingEnabled)
        with bridge.withoutTestingMode(), self.assertRaisesRegex(bridge.BridgeError, "full"):
            self.assertFalse(slicer.app.testingEnabled() or slicer.app.commandOptions().testingEnabled)
            slicer.util.confirmOkCancelDisplay("The disk is full.")
        self.assertTrue(slicer.app.testingEnabled())
        bridge.dialogs.clear()

    def test_errors_reach_the_caller_in_testing_mode(self):
        with self.assertRaises(KeyError), slicer.util.tryWithErrorDisplay("failed"):
            raise KeyError("x")

    def test_settings_are_not_the_users(self):
        slicer.app.settings().setValue("MedGen/Test", "value")
        self.assertEqual(qt.QSettings().value("MedGen/Test"), "value")
        self.assertNotIn(str(Path.home() / ".config"), qt.QSettings().fileName())

    def test_worst_gap(self):
        with support.worstGap() as gap:
            support.processUntil(lambda: gap.milliseconds > 0, 5)
            time.sleep(0.12)
        self.assertGreater(gap.milliseconds, 100)

    @unittest.skipUnless(eventloop.holdsLock, "Python's lock cannot be held in Qt on this system")
    def test_threads_stand_still_in_the_event_loop(self):
        import threading

        seen, interval = [], sys.getswitchinterval()
        sys.setswitchinterval(100)  # the thread gets the lock only where it is let go of
        try:
            threading.Thread(target=lambda: [seen.append(time.sleep(0)) for _ in range(3)], daemon=True).start()
            before = len(seen)
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                slicer.app.processEvents()
                bridge.idle(0.002)
            self.assertEqual(len(seen), before)
            time.sleep(0.05)
            self.assertEqual(len(seen), 3)
        finally:
            sys.setswitchinterval(interval)

    def test_process(self):
        process, seen = qt.QProcess(), []
        process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: seen.append(code))
        process.start(sys.executable, ["-c", "print('hello'); raise SystemExit(3)"])
        support.processUntil(lambda: seen, 20)
        self.assertEqual(seen, [3])
        self.assertEqual(process.readAllStandardOutput().data().strip(), b"hello")


class ViewsTest(support.SlicerTestCase):
    """What the views show is drawn by the logics and displayable managers of the scene."""

    def setUp(self):
        super().setUp()
        self.manager = slicer.app.layoutManager()

    def test_slice_is_drawn(self):
        node = support.headVolume(None)
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        for name in ("Red", "Yellow", "Green"):
            self.assertGreater(len(np.unique(pixels(name))), 50, name)

    def test_segmentation_is_drawn_over_the_slice(self):
        node = support.ctSegmentation(None)
        self.manager.sliceWidget("Red").sliceLogic().FitSliceToVolume(self.volumeLike(node), 256, 256)
        filled = pixels("Red").any(axis=2).mean()
        self.assertGreater(filled, 0.2)
        node.GetDisplayNode().SetVisibility2DFill(False)
        outlined = pixels("Red").any(axis=2).mean()
        self.assertTrue(0.01 < outlined < filled / 2, (outlined, filled))
        node.GetDisplayNode().SetVisibility(False)
        self.assertFalse(pixels("Red").any())

    def volumeLike(self, segmentation):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(segmentation, labels)
        return labels

    def test_volume_is_drawn_in_3d(self):
        self.assertEqual(self.manager.threeDViewCount, 1)
        logic = slicer.modules.volumerendering.logic()
        display = logic.CreateDefaultVolumeRenderingNodes(support.headVolume(32))
        display.SetVisibility(True)
        self.manager.resetThreeDViews()
        background = pixels(0)[0, 0]
        shown = (pixels(0) != background).any(axis=2).mean()
        self.assertGreater(shown, 0.1)
        display.SetVisibility(False)
        self.assertEqual((pixels(0) != background).any(axis=2).mean(), 0)

    def test_orientation_of_a_layout_is_given_to_new_views_only(self):
        node = self.manager.sliceWidget("Yellow").mrmlSliceNode()
        node.SetOrientation("Axial")
        self.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        self.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self.assertEqual(node.GetOrientation(), "Axial")
        self.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutThreeOverThreeView)
        self.assertEqual(self.manager.sliceWidget("Yellow+").mrmlSliceNode().GetOrientation(), "Sagittal")

    def test_layouts_tell_which_views_they_show(self):
        layouts, seen = slicer.vtkMRMLLayoutNode, []
        view = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLViewNode")
        self.manager.layoutChanged.connect(seen.append)
        self.addCleanup(self.manager.layoutChanged.disconnect, seen.append)
        self.manager.setLayout(layouts.SlicerLayoutOneUpRedSliceView)
        self.assertFalse(view.IsMappedInLayout())
        self.assertEqual(seen[-1], layouts.SlicerLayoutOneUpRedSliceView)
        self.manager.setLayout(layouts.SlicerLayoutFourUpView)
        self.assertTrue(view.IsMappedInLayout())
        self.manager.addMaximizedViewNode(self.manager.sliceWidget("Red").mrmlSliceNode())
        self.assertFalse(view.IsMappedInLayout())

    def test_a_view_of_another_shape_has_another_field_of_view(self):
        node = self.manager.sliceWidget("Red").mrmlSliceNode()
        before = node.GetFieldOfView()
        self.manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
        self.assertEqual(node.GetFieldOfView(), before)
        slicer.app.processEvents()
        self.assertNotEqual(node.GetFieldOfView(), before)


if __name__ == "__main__":
    unittest.main()
