"""The embedded examples: what they load, and how Slicer's Sample Data module gets to know them.

Slicer's own SampleData module is used where it can be imported (in the application, or on the path of the tests).
Elsewhere a recorder takes its place that has the one method that MedGen calls, with its parameters.
"""

import hashlib
import inspect
import re
import sys
import types
import unittest
import urllib.request
from unittest import mock

import numpy as np
import qt
import slicer

import support
from support.views import pixels, views

support.useModuleFolder()

from MedGenLib.errors import InputError
from MedGenSlicer import samples


class Recorder:
    """registerCustomSampleDataSource() of Slicer 5.10 to 5.12."""

    ARGUMENTS = {
        "category": "Custom",
        **dict.fromkeys(("sampleName", "uris", "fileNames", "nodeNames", "customDownloader", "thumbnailFileName")),
        **dict.fromkeys(("loadFileTypes", "loadFiles")),
        "loadFileProperties": {},
        **dict.fromkeys(("checksums", "loadFileType")),
    }
    sources: list[dict] = []

    @staticmethod
    def registerCustomSampleDataSource(**keywords):
        unknown = set(keywords) - set(Recorder.ARGUMENTS)
        if unknown:
            raise TypeError(f"unexpected keyword arguments {unknown}")
        Recorder.sources.append({**Recorder.ARGUMENTS, **keywords})

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        return [types.SimpleNamespace(**source) for source in Recorder.sources if source["category"] == category]


def sampleDataModule():
    """Slicer's module, or the recorder in its place."""
    try:
        import SampleData

        return SampleData
    except ImportError:
        return types.SimpleNamespace(SampleDataLogic=Recorder)


def registered() -> list:
    """The sources of MedGen after registering, as objects with the same names on both."""
    module = sampleDataModule()
    Recorder.sources.clear()
    with mock.patch.dict(sys.modules, {"SampleData": module}):
        samples.register()
    if module.SampleDataLogic is Recorder:
        return [types.SimpleNamespace(**source) for source in Recorder.sources]
    return slicer.modules.sampleDataSources[samples.CATEGORY]


class LoadTest(support.SlicerTestCase):
    def test_masks_become_segmentations_with_names(self):
        for name, model in (("MedGenAbdomen", "ct-tissue"), ("MedGenHippocampus", "mr-hippocampus")):
            node = samples.loadFor(model)
            sample = samples.forModel(model)
            self.assertEqual(sample.name, name)
            self.assertTrue(node.IsA("vtkMRMLSegmentationNode"))
            segmentation = node.GetSegmentation()
            found = [segmentation.GetNthSegment(i) for i in range(segmentation.GetNumberOfSegments())]
            self.assertEqual([s.GetName() for s in found], [s[0] for s in sample.segments])
            self.assertTrue(np.allclose(found[0].GetColor(), sample.segments[0][1:]))

    def test_segmentation_is_the_file(self):
        node = samples.loadSample("MedGenAbdomen")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLLabelMapVolumeNode"), 0)
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        slicer.vtkSlicerSegmentationsModuleLogic.ExportAllSegmentsToLabelmapNode(
            node, labels, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
        )
        whole = support.ctMaskNode(None)
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(labels), slicer.util.arrayFromVolume(whole)))
        self.assertLess(abs(support.matrixOf(labels) - support.matrixOf(whole)).max(), 1e-4)

    def test_image_is_shown(self):
        node = samples.loadSample("MedGenHead")
        self.assertEqual((node.GetClassName(), node.GetName()), ("vtkMRMLScalarVolumeNode", "Head T1"))
        composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
        self.assertEqual(composite.GetBackgroundVolumeID(), node.GetID())

    @unittest.skipIf(support.inSlicer(), "only the bridge draws without a window")
    def test_every_sample_is_seen(self):
        for sample in samples.SAMPLES:
            with self.subTest(sample.title):
                slicer.mrmlScene.Clear(0)
                for name in ("Red", "Yellow", "Green"):
                    slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().SetXYZOrigin(900, 0, 0)
                samples.loadSample(sample.name)
                for name in ("Red", "Yellow", "Green"):
                    self.assertGreater((pixels(name).max(axis=2) > 20).mean(), 0.05, name)

    def test_views_of_the_user_stay(self):
        scan = slicer.util.loadVolume(str(support.SAMPLES / "ct_tissue_real.nii.gz"), {"name": "Scan", "show": False})
        slicer.util.setSliceViewerLayers(background=scan, fit=True)
        node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        node.SetFieldOfView(50, 50, 1)
        node.SetSliceOffset(node.GetSliceOffset() + 12)
        before = views()["Red"]
        samples.loadFor("ct-tissue")
        self.assertEqual(views()["Red"], before)

    def test_twice_gives_two_nodes(self):
        names = [samples.loadSample("MedGenHippocampus").GetName() for _ in range(2)]
        self.assertEqual(len(set(names)), 2)

    def test_unknown_sample_and_model(self):
        with self.assertRaisesRegex(InputError, "MedGenHead"):
            samples.loadSample("Foot")
        with self.assertRaisesRegex(InputError, "head-ct-to-mr"):
            samples.loadFor("head-ct-to-mr")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode"), 0)

    def test_damaged_or_missing_file(self):
        folder = self.temporaryFolder()
        with mock.patch.object(samples.paths, "resource", lambda name: folder / name.split("/")[-1]):
            with self.assertRaisesRegex(InputError, "cannot be read"):
                samples.loadSample("MedGenHead")
            (folder / "head_t1.nii.gz").write_bytes(b"cut off")
            with self.assertRaisesRegex(InputError, "damaged"):
                samples.loadSample("MedGenHead")


class RegistrationTest(support.SlicerTestCase):
    def test_all_are_offered(self):
        sources = registered()
        self.assertEqual([s.sampleName for s in sources], [s.title for s in samples.SAMPLES])
        for page in ("README.md", "docs/tutorials/slicer.md"):
            named = re.findall(r"\*(MedGen [a-z][^*]*)\*", (support.ROOT / page).read_text(encoding="utf-8"))
            self.assertGreater(len(named), 0)
            self.assertEqual(set(named) - {s.title for s in samples.SAMPLES}, set(), page)
        self.assertEqual(len(registered()), len(sources))

    def test_files_are_there_and_need_no_network(self):
        for source in registered():
            self.assertTrue(source.uris[0].startswith("file:"))
            with urllib.request.urlopen(source.uris[0]) as file:
                digest = hashlib.sha256(file.read()).hexdigest()
            self.assertEqual(list(source.checksums), [f"SHA256:{digest}"])

    def test_secondRegistrationAddsNothing(self):
        # At the start of Slicer, and when the module is opened, because one that is loaded later hears of no start.
        count = len(registered())
        with mock.patch.dict(sys.modules, {"SampleData": sampleDataModule()}):
            samples.register()
            found = sampleDataModule().SampleDataLogic.sampleDataSourcesByCategory(samples.CATEGORY)
        self.assertEqual(len(found), count)

    def test_openingTheModuleRegistersThem(self):
        cls = type(support.moduleWidget())
        with mock.patch("MedGenSlicer.samples.register") as register:
            widget = cls(slicer.qMRMLWidget())
            widget.layout = qt.QVBoxLayout(widget.parent)
            widget.setup()
            self.addCleanup(widget.cleanup)
        register.assert_called_once()

    def test_thumbnails(self):
        for source in registered():
            image = qt.QImage(source.thumbnailFileName)
            self.assertGreaterEqual(min(image.width(), image.height()), 200, source.thumbnailFileName)
            self.assertLess(max(image.width(), image.height()), 400)

    def test_button(self):
        source = registered()[1]
        nodes = source.customDownloader(source)
        self.assertEqual([node.GetClassName() for node in nodes], ["vtkMRMLSegmentationNode"])

    def test_without_the_module(self):
        with mock.patch.dict(sys.modules, {"SampleData": None}):
            samples.register()

    @unittest.skipIf(sampleDataModule().SampleDataLogic is Recorder, "Slicer's SampleData module is not there")
    def test_recorder_has_the_parameters_of_the_real_module(self):
        real = sampleDataModule().SampleDataLogic.registerCustomSampleDataSource
        self.assertEqual(list(inspect.signature(real).parameters), list(Recorder.ARGUMENTS))

    @unittest.skipIf(sampleDataModule().SampleDataLogic is Recorder, "Slicer's SampleData module is not there")
    def test_downloaded_by_the_real_module(self):
        registered()
        for sample in samples.SAMPLES:
            nodes = sampleDataModule().SampleDataLogic().downloadSamples(sample.name)
            self.assertEqual([bool(node.GetName()) for node in nodes], [True])


if __name__ == "__main__":
    unittest.main()
