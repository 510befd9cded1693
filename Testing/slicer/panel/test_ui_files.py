"""Static checks of the forms: what Qt's loader would accept without a word and Slicer would get wrong."""

import ast
import re
import unittest
import xml.etree.ElementTree as ElementTree

import slicer.util

import support

support.useModuleFolder()

#: Issue 3: names that scripts may rely on.
PROMISED = {
    "taskTabWidget",
    "generateInputSelector",
    "generateModelComboBox",
    "generateOutputSelector",
    "generateButton",
    "translateInputSelector",
    "translateTargetComboBox",
    "translateModelComboBox",
    "translateOutputSelector",
    "translateButton",
    "cancelButton",
    "progressBar",
    "statusLabel",
    "seedSpinBox",
    "presetComboBox",
    "deviceComboBox",
    "installButton",
}

FORM = support.ROOT / "Resources" / "UI" / "MedGen.ui"


def forms():
    return sorted((support.ROOT / "Resources" / "UI").glob("*.ui"))


def names(path) -> set[str]:
    return {element.get("name") for element in ElementTree.parse(path).getroot().iter() if element.get("name")}


def usedNames() -> dict[str, str]:
    """Every X of ``ui.X`` or ``self.ui.X`` in the module: {X: file}."""
    found = {}
    for path in sorted((support.ROOT / "MedGen").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"(.*\.)?_?ui", ast.unparse(node.value)):
                found[node.attr] = path.name
    return found


class FormTest(support.SlicerTestCase):
    def test_there_is_a_form(self):
        self.assertIn(FORM, forms())

    def test_promised_names(self):
        self.assertEqual(PROMISED - names(FORM), set())

    def test_names_are_unique(self):
        for path in forms():
            found = [e.get("name") for e in ElementTree.parse(path).getroot().iter("widget")]
            self.assertEqual(sorted(n for n in set(found) if found.count(n) > 1), [], path.name)

    def test_used_widgets_exist(self):
        used = usedNames()
        self.assertGreater(len(used), len(PROMISED))
        known = set().union(*(names(path) for path in forms()))
        self.assertEqual({name: file for name, file in used.items() if name not in known}, {})

    def test_selectors_get_the_scene(self):
        for path in forms():
            root = ElementTree.parse(path).getroot()
            selectors = {w.get("name") for w in root.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
            connected = {
                c.findtext("receiver")
                for c in root.iter("connection")
                if c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
                and c.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
            }
            self.assertEqual(selectors - connected, set(), path.name)

    def test_parameter_names_are_parameters(self):
        from MedGenSlicer.parameters import MedGenParameterNode

        for path in forms():
            bound = {
                p[0].text
                for p in ElementTree.parse(path).getroot().iter("property")
                if p.get("name") == "SlicerParameterName"
            }
            self.assertEqual(bound - set(MedGenParameterNode.allParameters), set(), path.name)

    def test_no_style_of_its_own(self):
        for path in forms():
            properties = {p.get("name") for p in ElementTree.parse(path).getroot().iter("property")}
            self.assertEqual(properties & {"styleSheet", "palette"}, set(), path.name)

    def test_inputs_have_tooltips(self):
        """Buttons say what they do; what is chosen or typed needs an explanation."""
        classes = {
            "QComboBox",
            "QSpinBox",
            "QDoubleSpinBox",
            "QCheckBox",
            "QSlider",
            "QPushButton",
            "QToolButton",
            "qMRMLNodeComboBox",
            "ctkPathLineEdit",
            "ctkSliderWidget",
        }
        for path in forms():
            silent = [
                w.get("name")
                for w in ElementTree.parse(path).getroot().iter("widget")
                if w.get("class") in classes and w.find("property[@name='toolTip']") is None
            ]
            self.assertEqual(silent, [], path.name)

    def test_keys_of_a_page_are_unique(self):
        """Alt and a letter lead to one field, among those of a page and of what is always visible."""
        root = ElementTree.parse(FORM).getroot()
        parents = {child: parent for parent in root.iter() for child in parent}
        pages: dict[str, list[str]] = {}
        for widget in root.iter("widget"):
            found = re.search("&(.)", widget.findtext("property[@name='text']/string") or "")
            if found is None:
                continue
            place = parents[widget]
            while place in parents and not re.search("(Page|Section)$", place.get("name", "")):
                place = parents[place]
            pages.setdefault(place.get("name") or "panel", []).append(found.group(1).lower())
        always = pages.pop("panel")
        always.remove("o")  # the outputs of both tasks, of which one is visible
        for page, keys in pages.items():
            self.assertEqual(sorted({k for k in keys + always if (keys + always).count(k) > 1}), [], page)
        self.assertGreater(len(pages), 5)

    def test_at_most_four_sections(self):
        """What folds lies below the result, and there are not more than four of it."""
        root = ElementTree.parse(FORM).getroot()
        layout = next(element for element in root.iter("layout") if element.get("name") == "panelLayout")
        parts = [item.find("*") for item in layout.findall("item")]
        names = [part.get("name") for part in parts]
        folding = [part.get("name") for part in parts if part.get("class") == "ctkCollapsibleButton"]
        self.assertEqual(folding, ["editSection", "evaluateSection", "exportSection", "moreSection"])
        self.assertEqual(len(list(root.iterfind(".//widget[@class='ctkCollapsibleButton']"))), len(folding))
        order = ["taskTabWidget", "qualityLayout", "runLayout", "resultFrame", "disclaimerLabel", *folding]
        self.assertEqual([name for name in names if name in order], order)

    def test_tab_order_is_the_order_of_the_panel(self):
        root = ElementTree.parse(FORM).getroot()
        drawn = [widget.get("name") for widget in root.iter("widget")]
        stops = [element.text for element in root.iter("tabstop")]
        places = [drawn.index(name) for name in stops]
        self.assertEqual([stops[n] for n in range(1, len(stops)) if places[n] < places[n - 1]], [])

    def test_tab_stops_exist(self):
        for path in forms():
            stops = [e.text for e in ElementTree.parse(path).getroot().iter("tabstop")]
            self.assertEqual(set(stops) - names(path), set(), path.name)

    def test_loads(self):
        for path in forms():
            form = slicer.util.loadUI(str(path))
            form.setMRMLScene(slicer.mrmlScene)
            self.addCleanup(form.setMRMLScene, None)
            self.assertGreaterEqual(form.sizeHint.width(), 100)
            self.assertLess(form.minimumSizeHint.width(), 500, "wider than Slicer's module panel")


if __name__ == "__main__":
    unittest.main()
