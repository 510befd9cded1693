"""Models that make images without a mask: in the panel and in logic.generate."""

import os
import shutil
import subprocess

import numpy as np
import slicer

import support
from support.panelcase import PanelCase
from support.processes import PYTHON

support.useModuleFolder()

from MedGenLib import user_folders
from MedGenSlicer.nodes import provenance

NAMES = {"tiny-noise": (), "tiny-kinds": ("large", "small")}
SECONDS = 120


class WithoutMaskTest(PanelCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = user_folders.models_dir()
        folder.mkdir(parents=True, exist_ok=True)
        paths = os.pathsep.join([str(support.ROOT), str(support.ROOT / "Testing" / "support")])
        for name, classes in NAMES.items():
            program = (
                "from pathlib import Path; from tiny_packages import write_noise_model;"
                f"write_noise_model(Path({str(folder)!r}), '{name}', {classes})"
            )
            subprocess.run([PYTHON, "-c", program], check=True, env={**os.environ, "PYTHONPATH": paths}, timeout=120)
            cls.addClassCleanup(shutil.rmtree, folder / name, ignore_errors=True)

    def setUp(self):
        super().setUp()
        self.panel.context.models.reload()
        self.panel.update()
        self.settle()

    def choices(self):
        combo = self.ui.generateModelComboBox
        return [combo.itemData(number) for number in range(combo.count)]

    def test_thePanelSaysThatNoMaskIsNeededAndRunsWithoutOne(self):
        self.assertIn("tiny-noise", self.choices())
        self.assertFalse(self.ui.generateButton.enabled)  # ct-tissue needs a mask
        self.choose(self.ui.generateModelComboBox, "tiny-noise")
        self.parameters.device = "cpu"
        self.settle()
        self.assertIn("makes images without a mask", self.ui.planLabel.text)
        self.assertTrue(self.ui.generateButton.enabled)
        self.ui.generateButton.click()
        support.processUntil(lambda: not self.logic.isRunning, SECONDS)
        self.settle()
        run = self.logic.currentRun
        self.assertIsNone(run.error)
        self.assertEqual(run.node.GetImageData().GetDimensions(), (16, 16, 24))
        self.assertEqual(provenance.read(run.node).model, "tiny-noise")

    def test_aSelectedMaskIsNotUsed(self):
        mask = support.hippocampusSegmentation()
        self.ui.generateInputSelector.setCurrentNode(mask)
        self.choose(self.ui.generateModelComboBox, "tiny-noise")
        self.assertIsNone(self.panel.tab.inputNode)
        self.choose(self.ui.generateModelComboBox, "mr-hippocampus")
        self.assertIs(self.panel.tab.inputNode, mask)

    @support.slow
    def test_classesAreLeftToTheConsole(self):
        from MedGenLib.errors import InputError  # a reload of the module loads it again

        self.choose(self.ui.generateModelComboBox, "tiny-kinds")
        self.assertFalse(self.ui.generateButton.enabled)
        self.assertIn("logic.generate(label=...)", self.ui.checkLabel.text)
        quick = {"model": "tiny-kinds", "seed": 1, "device": "cpu", "retries": 0}
        large, small = (self.logic.generate(label=label, **quick) for label in NAMES["tiny-kinds"])
        arrays = [slicer.util.arrayFromVolume(node) for node in (large, small)]
        self.assertFalse(np.array_equal(*arrays))
        np.testing.assert_allclose(support.matrixOf(large)[:3, 3], [-15, -15, -23])
        with self.assertRaisesRegex(InputError, "makes images without a mask; leave it out"):
            self.logic.generate(support.hippocampusSegmentation(), label="large", **quick)
