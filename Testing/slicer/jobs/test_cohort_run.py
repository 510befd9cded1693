"""`runCohort` and `openCase` of the logic, with the real command."""

from pathlib import Path

import numpy as np

import support
from support.processes import WorkerTestCase
from support.snapshots import snapshotOfScene

support.useModuleFolder()

from MedGenLib.errors import InputError, WorkerError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.io.files import write_volume

QUICK = {"model": "ct-tissue", "steps": 2, "retries": 0, "device": "cpu"}


class CohortRunTest(WorkerTestCase):
    def setUp(self):
        super().setUp()
        self.api = self.logic()
        self.masks = self.workFolder / "masks"
        self.masks.mkdir()
        labels = np.ones((16, 16, 12), np.uint8)
        labels[4:12, 4:10] = 9
        write_volume(LabelMap(labels, np.diag([2.0, 2.0, 3.0, 1.0])), self.masks / "a.nii.gz")

    def testEverySampleIsACase(self):
        before, seen = snapshotOfScene(), []
        cohort = self.api.runCohort(
            str(self.masks), mapping={"9": "soft tissue"}, samples=2, onProgress=seen.append, **QUICK
        )
        self.assertSceneIs(before)
        self.assertEqual({name: case.status for name, case in cohort.cases.items()}, {"a_1": "done", "a_2": "done"})
        self.assertEqual(seen[-1]["stage"], "2 of 2 done, 0 failed")
        self.assertTrue(Path(cohort.report).is_file())
        node = self.api.openCase(cohort.outputFolder, "a_2")
        np.testing.assert_allclose(support.matrixOf(node), np.diag([2.0, 2.0, 3.0, 1.0]))
        with self.assertRaisesRegex(InputError, "'a_3' has no image"):
            self.api.openCase(cohort.outputFolder, "a_3")

    def testWhatCannotRunIsRaised(self):
        folder = str(self.masks)
        for words, arguments in (
            ("no verb 'grow'; choose generate", {"folder": folder, "verb": "grow"}),
            ("'prest'.* use preset", {"folder": folder, "prest": "best", **QUICK}),
        ):
            with self.assertRaisesRegex(InputError, words):
                self.api.runCohort(**arguments)
        first = self.api.runCohort(folder, wait=False, **QUICK)
        with self.assertRaisesRegex(InputError, "running already"):
            self.api.runCohort(folder, **QUICK)
        first.cancel()
        self.assertEqual(first.wait().state, "cancelled")
        with self.assertRaisesRegex(WorkerError, "stopped unexpectedly") as caught:
            self.logic(python=str(self.workFolder / "python")).runCohort(folder, **QUICK)
        self.assertIn("executable not found", caught.exception.detail)
