"""The first minute as docs/tutorials/first-minute.md tells it: the clicks are counted, the result is seen."""

import re
import sys
import unittest

import numpy as np
import slicer

import support
from support.panelcase import PanelCase
from support.views import pixels

sys.path.insert(0, str(support.FOLDER / "tutorials"))
sys.path.insert(0, str(support.ROOT / "Testing" / "support"))

import first_minute

PAGE = support.ROOT / "docs" / "tutorials" / "first-minute.md"
FEWEST = {"sample": 3, "own scan": 4}
"""Clicks of the two journeys."""


def stepsOf(journey: str) -> list[str]:
    """What the page tells the reader to press in a journey: the first words in italics of each numbered step."""
    text = PAGE.read_text(encoding="utf-8").lower().partition(f"## {journey}")[2].partition("\n## ")[0]
    return re.findall(r"^\d\. [^*]*\*([^*]+)\*", text, re.MULTILINE)


def headSeries(folder):
    """40 slices of 1 mm of the MR of a head as DICOM files, as a scanner sends them; the first file."""
    import dicoms

    image = support.headVolume(None)
    voxels = slicer.util.arrayFromVolume(image)[130:170, ::-1, ::-1]  # LPS
    spacing, origin = image.GetSpacing(), image.GetOrigin()
    size = (voxels.shape[2], voxels.shape[1])
    last = np.array(origin[:2]) + np.multiply(spacing[:2], np.subtract(size, 1))
    dicoms.patient_series(
        folder,
        [index * spacing[2] for index in range(len(voxels))],
        size=size,
        pixel=spacing[:2],
        modality="MR",
        origin=(-last[0], -last[1], origin[2]),
        pixels=np.round(voxels).astype(np.int16),
        SeriesDescription="T1 MPRAGE",
    )
    slicer.mrmlScene.RemoveNode(image)
    return folder / "slice1.dcm"


def journeys(case):
    """The script, with the module opened as on the bridge, and a scan that comes from DICOM files."""

    class Journeys(first_minute.FirstMinuteTest):
        def setUp(self):
            super().setUp()
            case.host.exit()

        def openModule(self):
            case.host.enter()

        def loadOwnScan(self):
            first = headSeries(case.temporaryFolder() / "series")
            self.scan = slicer.util.loadVolume(str(first), {"name": "T1 MPRAGE", "singleFile": False})

        def ended(self, journey):
            case.journeyEnded(journey, self)

    return Journeys()


class FirstMinute(PanelCase):
    def setUp(self):
        super().setUp()
        self.host = slicer.modules.medgen.widgetRepresentation()
        self.seen = []

    @unittest.skipIf(support.inSlicer(), "the application opens modules itself; run tutorials/first_minute.py there")
    def test_clicks(self):
        journeys(self).runTest()
        self.assertEqual(self.seen, ["sample", "own scan"])

    def journeyEnded(self, journey, script):
        self.seen.append(journey)
        self.assertEqual(len(script.clicks), FEWEST[journey])
        steps = stepsOf(journey)
        self.assertEqual(len(steps), len(script.clicks), steps)
        for step, clicked in zip(steps, script.clicks, strict=True):
            self.assertTrue(step.startswith(clicked.lower()), (step, clicked))
        self.settle()
        made = self.logic.currentRun.nodes[0]
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        self.assertIn(made.GetID(), (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()))
        before = pixels("Red")
        slicer.util.arrayFromVolume(made)[:] = -1000
        slicer.util.arrayFromVolumeModified(made)
        slicer.app.processEvents()
        changed = np.abs(before.astype(int) - pixels("Red")).max(axis=2) > 20
        self.assertGreater(changed.mean(), 0.05, "the result is not what the view shows")
        if journey == "own scan":
            grid = slicer.util.arrayFromVolume(made).shape
            self.assertEqual(grid, slicer.util.arrayFromVolume(script.scan).shape)


if __name__ == "__main__":
    unittest.main()
