"""`runCohort` and `openCase` of the logic, with the real command."""

from pathlib import Path

import numpy as np
import slicer

import support
from support.processes import WorkerTestCase
from support.snapshots import snapshotOfScene

support.useModuleFolder()

from MedGenLib.errors import InputError, LicenseError, WorkerError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import write_volume
from MedGenSlicer.jobs.cohort import CohortRun
from MedGenSlicer.nodes import provenance

QUICK = {"model": "ct-tissue", "steps": 2, "retries": 0, "device": "cpu"}


class CohortRunTest(WorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.masks = self.workFolder / "masks"
        self.masks.mkdir()
        labels = np.ones((16, 16, 12), np.uint8)
        labels[4:12, 4:10] = 3
        write_volume(LabelMap(labels, np.diag([-2.0, 2.0, 3.0, 1.0])), self.masks / "a.nii.gz")

    def testACaseIsOpenedWhereItsMaskLies(self):
        before, seen = snapshotOfScene(), []
        cohort = self.api.runCohort(
            str(self.masks), mapping={"3": "soft tissue"}, samples=2, seed=4, onProgress=seen.append, **QUICK
        )
        self.assertSceneIs(before)
        self.assertEqual({name: case.status for name, case in cohort.cases.items()}, {"a_1": "done", "a_2": "done"})
        self.assertEqual((seen[-1]["step"], seen[-1]["total"]), (2, 2))
        self.assertTrue(Path(cohort.report).is_file())
        node = self.api.openCase(cohort.outputFolder, "a_2")
        path = Path(cohort.outputFolder) / "cases" / "a_2" / "image.nii.gz"
        shown = slicer.util.loadVolume(str(path))
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVolume, (node, shown)))
        mask = slicer.util.loadVolume(str(self.masks / "a.nii.gz"), {"labelmap": True})
        np.testing.assert_allclose(support.matrixOf(node), support.matrixOf(mask), atol=1e-6)
        inside = slicer.util.arrayFromVolume(mask) == 3
        values = slicer.util.arrayFromVolume(node)
        self.assertGreater(values[inside].mean(), values[~inside].mean() + 50)
        made = provenance.read(node)
        self.assertEqual(
            (made.model, made.task, made.modality, made.input), ("ct-tissue", "generate", "CT", "a.nii.gz")
        )
        with self.assertRaisesRegex(InputError, "'a_3' has no image"):
            self.api.openCase(cohort.outputFolder, "a_3")

    def testWhatCannotRunIsRaised(self):
        folder = str(self.masks)
        with self.assertRaisesRegex(InputError, "no verb 'grow'; choose generate"):
            self.api.runCohort(folder, "grow")
        with self.assertRaisesRegex(LicenseError, "acceptLicense"):
            self.api.runCohort(folder, "translate", model="head-mr-to-ct", to="CT")
        with self.assertRaisesRegex(InputError, "There is no folder"):
            self.api.runCohort(folder + "-gone", **QUICK)
        with self.assertRaisesRegex(InputError, "'prest'.* use preset"):
            self.api.runCohort(folder, prest="best", **QUICK)
        first = self.api.runCohort(folder, wait=False, **QUICK)
        with self.assertRaisesRegex(InputError, "running already"):
            self.api.runCohort(folder, **QUICK)
        first.cancel()
        self.assertEqual(first.wait().state, "cancelled")
        gone = self.logic(python=str(self.workFolder / "python"))
        with self.assertRaisesRegex(WorkerError, "stopped unexpectedly") as caught:
            gone.runCohort(folder, **QUICK)
        self.assertIn("executable not found", caught.exception.detail)
        self.assertIsInstance(gone.currentCohort, CohortRun)
