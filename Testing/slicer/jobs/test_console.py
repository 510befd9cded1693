"""The options of a run, and the line that repeats it, for every option that is declared."""

import inspect
import unittest
from unittest import mock

import slicer

import support
from support import SlicerTestCase

support.useModuleFolder()

from MedGenLib.options import COMMANDS, REQUIRED, of, validate
from MedGenSlicer import console
from MedGenSlicer.console import RunParameters
from MedGenSlicer.logic import MedGenLogic
from MedGenSlicer.nodes.inputs import InputSnapshot
from support.nodes import volumeNode

METHODS = {
    "generate": "generate",
    "translate": "translate",
    "edit": "edit",
    "live_edit": "liveEdit",
    "insert_lesion": "insertLesion",
    "breathe": "breathe",
    "enhance": "enhance",
    "classify": "classify",
    "detect": "detect",
    "evaluate": "evaluate",
}
"""Command -> method of the logic; "redraw" is one edit of an open canvas."""
OTHERS = {bool: True, int: 3, float: 1.5, str: 'a "b" \\ ü', dict: {'liver "x"': "soft tissue", "7": 0}}
"""Type -> a value that is no default."""


def taken(node) -> InputSnapshot:
    return InputSnapshot("volume", node.GetID(), node.GetName(), None, (1, 1, 1))


def other(option):
    """A value of an option that differs from its default."""
    if option.choices:
        return next(choice for choice in option.choices if choice != option.default)
    if option.count:
        return [option.number(2 + axis) for axis in range(option.count)]
    return OTHERS[option.kinds[0]]


class DeclarationTest(unittest.TestCase):
    """The methods of the logic have the options that are declared, with the same defaults and help."""

    def testEveryCommandHasAMethod(self):
        self.assertEqual(set(METHODS), {command for command in COMMANDS if of(command, "slicer")})

    def testDefaultsAndHelp(self):
        for command, name in METHODS.items():
            method = getattr(MedGenLogic, name)
            parameters = inspect.signature(method).parameters
            text = " ".join(inspect.getdoc(method).split())
            for option, declared in of(command, "slicer").items():
                with self.subTest(f"{name} {option}"):
                    default = inspect.Parameter.empty if declared.default is REQUIRED else declared.default
                    self.assertEqual(parameters[option].default, default)
                    self.assertIn(f"{option}: {declared.help}", text)


class PythonLineTest(SlicerTestCase):
    def testGenerate(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
        options = validate("generate", {"maskNode": taken(node), "seed": 7}, "slicer")
        self.assertEqual(
            console.pythonLine(RunParameters("generate", options)),
            'slicer.util.getModuleLogic("MedGen").generate(slicer.util.getNode("Segmentation"), model="ct-tissue", '
            "seed=7)",
        )

    def testWithoutANode(self):
        options = validate("generate", {"model": "mr", "size": [8, 9, 10], "seed": 1}, "slicer")
        line = console.pythonLine(RunParameters("generate", options))
        self.assertTrue(line.endswith('.generate(None, model="mr", seed=1, size=[8, 9, 10])'), line)

    def testEveryChoiceComesBack(self):
        node = volumeNode(name='it\'s "5 mm" \\ ü')
        for command in ("generate", "translate"):
            known = of(command, "slicer")
            nodes = {name: volumeNode(name=name) for name, option in known.items() if option.image}
            nodes[next(iter(nodes))] = node
            given = {name: other(option) for name, option in known.items() if not option.image}
            options = {known[name].name: value for name, value in given.items()}
            options |= {known[name].name: taken(found) for name, found in nodes.items()}
            logic = mock.Mock(spec=MedGenLogic)
            with mock.patch.object(slicer.util, "getModuleLogic", lambda name, logic=logic: logic):
                exec(console.pythonLine(RunParameters(command, options)), {"slicer": slicer})
            call = getattr(logic, command).call_args
            bound = inspect.signature(getattr(MedGenLogic, command)).bind(None, *call.args, **call.kwargs).arguments
            self.assertEqual({name: bound[name] for name in given}, given)
            for name, found in nodes.items():
                self.assertIs(bound[name], found)

    def testOptionsAreAttributes(self):
        parameters = RunParameters("generate", validate("generate", {"noiseHU": 8.0, "seed": 2}, "slicer"))
        self.assertEqual((parameters.noiseHU, parameters.seed, parameters.mapping), (8.0, 2, None))
        self.assertEqual(parameters.replaced(seed=3).seed, 3)
        self.assertFalse(hasattr(parameters, "noise"))

    def testNamesThatAreNotUniqueOrArePatterns(self):
        for name in ("Twice", "CT [axial] *"):
            found = [volumeNode(name=name) for unused in range(2)]
            for node in found:
                expression = console.nodeExpression(node.GetID(), node.GetName())
                self.assertIs(eval(expression, {"slicer": slicer}), node)


if __name__ == "__main__":
    unittest.main()
