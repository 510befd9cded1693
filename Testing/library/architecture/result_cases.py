"""Quick runs of every embedded model and surface whose results must not change.

Each case computes on one thread of the CPU, from a fixed seed and a crop of the sample data, and
returns arrays and plain JSON. `record_results.py` records them, `test_same_results.py` compares.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import MedGenLib
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.pipelines import loading

SAMPLES = Path(__file__).resolve().parents[3] / "Resources" / "SampleData"
RUN = {"seed": 11, "device": "cpu", "memory": "normal"}
"""Options of every run: nothing may depend on the machine's free memory or devices."""
OMITTED = {"timings", "peak_memory_mib", "software", "device", "version", "created"}
"""Keys of reports that differ from run to run or from release to release."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a case computed.

    Attributes
    ----------
    arrays: name -> array, compared number by number.
    reports: name -> plain JSON types, without times, memory, versions and machine.
    """

    arrays: dict[str, NDArray] = field(default_factory=dict)
    reports: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One run: `compute` gets an empty folder. ``bfloat16`` is the networks' number format."""

    compute: Callable[[Path], Outcome]
    bfloat16: bool = False

    def run(self, folder: Path) -> Outcome:
        with _reproducible(folder / "home", self.bfloat16):
            return self.compute(folder)


CASES: dict[str, Case] = {}


def _case(name: str, **options: Any) -> Callable:
    def register(compute: Callable[[Path], Outcome]) -> Callable[[Path], Outcome]:
        CASES[name] = Case(compute, **options)
        return compute

    return register


@contextmanager
def _reproducible(home: Path, bfloat16: bool) -> Iterator[None]:
    """One thread, empty user folders, and a measured number format that is remembered in them."""
    before, threads = os.environ.get("MEDGEN_HOME"), torch.get_num_threads()
    os.environ["MEDGEN_HOME"] = str(home)
    torch.set_num_threads(1)
    remembered = home / "cache" / loading.PROBES
    remembered.parent.mkdir(parents=True)
    key = loading.probe_key(torch.device("cpu"))
    remembered.write_text(json.dumps({key: bfloat16}), encoding="utf-8")
    loading.bfloat16_pays.cache_clear()
    try:
        yield
    finally:
        loading.bfloat16_pays.cache_clear()
        torch.set_num_threads(threads)
        del os.environ["MEDGEN_HOME"]
        if before is not None:
            os.environ["MEDGEN_HOME"] = before


def machine() -> str:
    """What decides on the last digits of a result, in words."""
    kind = platform.processor()
    if (information := Path("/proc/cpuinfo")).is_file():
        text = information.read_text(encoding="utf-8")
        kind = " ".join(
            "".join(re.findall(rf"^{key}\s*: *(.*)$", text, re.M)[:1])
            for key in ("vendor_id", "cpu family", "model", "model name")
        )
    return ", ".join(
        [
            f"torch {torch.__version__}",
            f"numpy {np.__version__}",
            f"{platform.system()} {platform.machine()}",
            torch.backends.cpu.get_cpu_capability(),
            kind,
            "1 thread",
        ]
    )


def _mask(name: str, low: tuple[int, ...], high: tuple[int, ...]) -> LabelMap:
    return crop(read_label_map(SAMPLES / name), low, high)


def _image(name: str, modality: str, low: tuple[int, ...], high: tuple[int, ...]) -> Volume:
    return crop(read_volume(SAMPLES / name, modality=modality), low, high)


ABDOMEN = (34, 30, 40), (70, 62, 64)
WIDE = (18, 20, 40), (106, 84, 52)
BRAIN = (50, 60, 60), (90, 100, 92)
HEAD = (48, 48, 84), (144, 176, 148)
"""Crops of the sample data: the first voxel and the one behind the last."""


def _abdomen(box: tuple = ABDOMEN) -> LabelMap:
    return crop(read_label_map(SAMPLES / "ct_tissue_mask.nii.gz"), *box)


def _abdomen_ct() -> Volume:
    return crop(read_volume(SAMPLES / "ct_tissue_real.nii.gz", modality="CT"), *ABDOMEN)


def _brain() -> LabelMap:
    return crop(read_label_map(SAMPLES / "brain_labels.seg.nrrd"), *BRAIN)


def _hippocampus() -> LabelMap:
    return read_label_map(SAMPLES / "hippocampus_mask.nii.gz")


def _hippocampus_mr() -> Volume:
    return read_volume(SAMPLES / "hippocampus_real.nii.gz", modality="T1w")


def _head() -> Volume:
    return crop(read_volume(SAMPLES / "head_t1.nii.gz", modality="T1w"), *HEAD)


def _head_ct() -> Volume:
    """A CT of the head as far as a translation needs one: the MR image's values on HU."""
    head = _head()
    hounsfield = np.interp(head.array, [0, 15, 60, 120, 255], [-1000, -200, 300, 40, -80])
    return Volume(np.round(hounsfield).astype(np.float32), head.affine, "CT", "HU")


def _of(result: MedGenLib.Result) -> Outcome:
    arrays = {f"volume {n}": volume.array for n, volume in enumerate(result.volumes, 1)}
    if result.uncertainty is not None:
        arrays["uncertainty"] = result.uncertainty.array
    return Outcome(arrays, {"report": _stable(result.report.to_dict())})


def _generate(mask: LabelMap, model: str, **options: Any) -> Outcome:
    return _of(MedGenLib.generate(mask, model, **{**RUN, "retries": 0, **options}))


@_case("ct-tissue normal")
def _(folder: Path) -> Outcome:
    return _generate(_abdomen(), "ct-tissue")


@_case("ct-tissue draft")
def _(folder: Path) -> Outcome:
    return _generate(_abdomen(), "ct-tissue", preset="draft")


@_case("ct-tissue draft, bfloat16", bfloat16=True)
def _(folder: Path) -> Outcome:
    return _generate(_abdomen(), "ct-tissue", preset="draft")


@_case("ct-tissue in two windows, small memory, two tries")
def _(folder: Path) -> Outcome:
    return _generate(_abdomen(WIDE), "ct-tissue", preset="draft", memory="small", retries=1)


@_case("ct-tissue with mapping, fill, sampler, guidance, style and two samples")
def _(folder: Path) -> Outcome:
    return _generate(
        _abdomen(),
        "ct-tissue",
        mapping={1: "soft tissue", 2: 0, 3: "bone"},
        fill="fat",
        sampler="heun",
        steps=3,
        guidance=1.5,
        style=_abdomen_ct(),
        samples=2,
        uncertainty=True,
    )


@_case("mr-brain normal")
def _(folder: Path) -> Outcome:
    return _generate(_brain(), "mr-brain")


@_case("mr-brain draft")
def _(folder: Path) -> Outcome:
    return _generate(_brain(), "mr-brain", preset="draft")


@_case("mr-hippocampus normal")
def _(folder: Path) -> Outcome:
    return _generate(_hippocampus(), "mr-hippocampus")


@_case("mr-hippocampus draft, classifier guidance")
def _(folder: Path) -> Outcome:
    return _generate(_hippocampus(), "mr-hippocampus", preset="draft", classifier_guidance=0.5)


def _translate(image: Volume, to: str, model: str, **options: Any) -> Outcome:
    return _of(MedGenLib.translate(image, to, model=model, accept_license=True, **RUN, **options))


@_case("head-mr-to-ct normal")
def _(folder: Path) -> Outcome:
    return _translate(_head(), "CT", "head-mr-to-ct")


@_case("head-mr-to-ct draft, uncertainty")
def _(folder: Path) -> Outcome:
    return _translate(_head(), "CT", "head-mr-to-ct", preset="draft", uncertainty=True)


@_case("head-ct-to-mr normal")
def _(folder: Path) -> Outcome:
    return _translate(_head_ct(), "T1w", "head-ct-to-mr")


@_case("head-ct-to-mr draft")
def _(folder: Path) -> Outcome:
    return _translate(_head_ct(), "T1w", "head-ct-to-mr", preset="draft")


@_case("hippocampus-segmenter")
def _(folder: Path) -> Outcome:
    from MedGenLib.segmentation.segmenters import segmenter

    return Outcome({"labels": segmenter("hippocampus-segmenter", "cpu")(_hippocampus_mr()).array})


@_case("medgen-features")
def _(folder: Path) -> Outcome:
    from MedGenLib.evaluation.feature_networks import extractor
    from MedGenLib.metrics.features import describe
    from MedGenLib.metrics.slices import PLANES, Standard

    image = _hippocampus_mr()
    found = describe(image, "case", Standard.set_by(image, "case"), extractor(device="cpu"))
    return Outcome({**dict(zip(PLANES, found.planes, strict=True)), "cube": found.cube})


@_case("edits of a generated image: paint, undo, redo")
def _(folder: Path) -> Outcome:
    with MedGenLib.Canvas.generate(_brain(), "mr-brain", preset="draft", retries=0, **RUN) as canvas:
        before = canvas.volume.array.copy()
        stroke = np.zeros(canvas.volume.shape, np.uint8)
        stroke[18:23, 17:22, 12:17] = 1
        done = canvas.edit(stroke, label="ventricle")
        report = _stable(canvas.report(done).to_dict())
        arrays = {"edited": canvas.volume.array.copy(), "labels": canvas.labels.array.copy()}
        canvas.undo()
        assert np.array_equal(canvas.volume.array, before)
        canvas.redo()
        assert np.array_equal(canvas.volume.array, arrays["edited"])
    return Outcome({"generated": before, **arrays}, {"report": report})


@_case("edit of a real CT")
def _(folder: Path) -> Outcome:
    mask = _abdomen()
    with MedGenLib.Canvas.of_image(_abdomen_ct(), mask, "ct-tissue", **RUN) as canvas:
        changed = mask.array.copy()
        changed[14:19, 12:17, 9:14] = 3
        done = canvas.edit(mask.with_array(changed), preset="normal")
        report = _stable(canvas.report(done, "normal").to_dict())
        return Outcome({"edited": canvas.volume.array.copy()}, {"report": report})


@_case("lesion")
def _(folder: Path) -> Outcome:
    image = _abdomen_ct()
    made = MedGenLib.insert_lesion(
        image,
        labels=_abdomen(),
        organ="soft tissue",
        shape="spiculated",
        size_mm=24,
        label="fat",
        contrast=-20,
        preset="draft",
        **RUN,
    )
    arrays = {"volume": made.volume.array, "lesion": made.lesion.array}
    return Outcome(arrays, {"report": _stable(made.report.to_dict())})


@_case("evaluation of a pair")
def _(folder: Path) -> Outcome:
    from MedGenLib.cli import main
    from MedGenLib.io.files import write_volume

    real = _abdomen_ct()
    wave = 25 * np.sin(np.arange(real.array.size, dtype=np.float64)).reshape(real.shape)
    changed = np.roll(real.array, 1, axis=1) + np.round(wave).astype(np.float32)
    files = {"image": real.with_array(changed), "reference": real, "labels": _abdomen()}
    for name, grid in files.items():
        write_volume(grid, folder / f"{name}.nii.gz")
    arguments = ["evaluate", str(folder / "image.nii.gz"), "--segmenter", "ct-tissue", "--quiet"]
    for name in ("reference", "labels"):
        arguments += [f"--{name}", str(folder / f"{name}.nii.gz")]
    assert main([*arguments, "--report", str(folder / "report"), "--device", "cpu"]) == 0
    difference = read_volume(folder / "report" / "error_map.nii.gz").array
    report = json.loads((folder / "report" / "metrics.json").read_text(encoding="utf-8"))
    return Outcome({"error map": difference}, {"metrics": _stable(report)})


@_case("DICOM series")
def _(folder: Path) -> Outcome:
    from MedGenLib.io.dicom import write_series

    facts = {
        "model": "ct-tissue",
        "version": "1.0.0",
        "task": "generate",
        "seed": 11,
        "preset": "normal",
        "sampler": "euler",
        "steps": 12,
        "passed": True,
        "inputs": [{"role": "mask", "name": "mask.nii.gz", "sha256": "ab" * 32}],
    }
    image = crop(_abdomen_ct(), (0, 0, 10), (36, 32, 13))
    files = write_series(image, folder / "series", facts=facts, description="same results")
    return Outcome({}, {path.name: _data_set(path) for path in files})


UNSTABLE = {
    "FileMetaInformationGroupLength",
    "FileMetaInformationVersion",
    "ImplementationVersionName",
    "SoftwareVersions",
}


def _data_set(path: Path) -> dict[str, Any]:
    """A DICOM file without dates, times, versions and generated UIDs."""
    import pydicom

    data = pydicom.dcmread(path)
    return {**_elements(data.file_meta), **_elements(data)}


def _elements(data: Any) -> dict[str, Any]:
    kept = {}
    for element in data:
        unregistered = element.VR == "UI" and element.value.name == str(element.value)
        if element.VR in ("DA", "TM", "DT") or unregistered or element.keyword in UNSTABLE:
            continue
        if element.VR == "SQ":
            value = [_elements(item) for item in element.value]
        elif isinstance(element.value, bytes):
            value = hashlib.sha256(element.value).hexdigest()
        else:
            value = str(element.value).replace(MedGenLib.__version__, "VERSION")
        kept[element.keyword or str(element.tag)] = value
    return kept


def _stable(report: Any) -> Any:
    """The report without what `OMITTED` names."""
    if isinstance(report, dict):
        return {key: _stable(value) for key, value in report.items() if key not in OMITTED}
    return [_stable(item) for item in report] if isinstance(report, list) else report
