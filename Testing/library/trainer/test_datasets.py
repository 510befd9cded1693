"""Layouts of data sets, made as published, and what is wrong with a case."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.layouts import read_dataset

AFFINE = np.diag([1.5, 1.5, 2.0, 1.0])
SHAPE = (12, 14, 10)


def mask(value: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:8, 3:9, 2:7] = value
    return labels


def put(image: Path, labels: Path, seed: int = 0, value: int = 1, array: np.ndarray | None = None) -> None:
    """An MR case; the image has the same noise for the same seed."""
    noise = np.random.default_rng(seed).normal(300, 60, SHAPE).clip(0).astype(np.float32)
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(noise if array is None else array, AFFINE), image)
    write_volume(LabelMap(mask(value), AFFINE), labels)


def nnunet(root: Path) -> Path:
    for seed, case in enumerate(("a", "b", "c")):
        put(root / f"imagesTr/{case}_0000.nii.gz", root / f"labelsTr/{case}.nii.gz", seed)
        shutil.copy(root / f"imagesTr/{case}_0000.nii.gz", root / f"imagesTr/{case}_0001.nii.gz")
    (root / "labelsTr/._a.nii.gz").write_bytes(b"a file that macOS leaves")
    facts = {
        "channel_names": {"0": "T2", "1": "CT"},
        "labels": {"background": 0, "whole": [1, 2], "liver": 1, "cyst": 2},
    }
    (root / "dataset.json").write_text(json.dumps({**facts, "file_ending": ".nii.gz", "numTraining": 3}))
    return root


def test_nnunet(tmp_path):
    found = read_dataset(nnunet(tmp_path))
    assert (found.layout, found.modality, found.labels) == ("nnU-Net", "T2w", {1: "liver", 2: "cyst"})
    assert [case.name for case in found.cases] == ["a", "b", "c"]
    assert read_dataset(tmp_path, "ct").cases[0].image.name == "a_0001.nii.gz"
    assert read_dataset(tmp_path, "1").modality == "CT"
    with pytest.raises(InputError, match=r"no channel 'PET'; choose one of 0 \(T2\), 1 \(CT\)"):
        read_dataset(tmp_path, "PET")


def test_decathlon(tmp_path):
    for seed in range(2):
        put(tmp_path / f"imagesTr/hippo_{seed}.nii.gz", tmp_path / f"labelsTr/hippo_{seed}.nii.gz", seed)
    put(tmp_path / "imagesTr/other.nii.gz", tmp_path / "labelsTr/lonely.nii.gz")
    facts = {
        "name": "Hippo",
        "license": "CC-BY-SA 4.0",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "A"},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    found = read_dataset(tmp_path)
    assert (found.layout, found.title, found.license) == ("Decathlon", "Hippo", "CC-BY-SA 4.0")
    assert found.labels == {1: "A"} and found.modality is None and len(found.cases) == 2
    assert [problem.case for problem in found.problems] == ["lonely"]


def test_brats_knows_that_two_scans_are_of_one_person(tmp_path):
    for case in ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"):
        for what in ("t1n", "t2f"):
            put(tmp_path / case / f"{case}-{what}.nii.gz", tmp_path / case / f"{case}-seg.nii.gz", value=3)
    found = read_dataset(tmp_path, "t2f")
    assert found.modality == "FLAIR" and found.labels[3] == "enhancing tumor"
    assert [case.subject for case in found.cases] == ["BraTS-GLI-00000"] * 2 + ["BraTS-GLI-00002"]
    (tmp_path / case / f"{case}-t1n.nii.gz").unlink()
    assert [problem.case for problem in read_dataset(tmp_path).problems] == ["BraTS-GLI-00002-000"]


def test_bids_pairs_sessions(tmp_path):
    for name in ("sub-01/ses-a", "sub-01/ses-b", "sub-02/ses-a"):
        stem = name.replace("/", "_")
        put(tmp_path / f"{name}/anat/{stem}_T2w.nii.gz", tmp_path / f"derivatives/seg/{name}/anat/{stem}_dseg.nii.gz")
    (tmp_path / "derivatives/seg/dseg.tsv").write_text("index\tname\n0\tbackground\n1\tthalamus\n")
    found = read_dataset(tmp_path)
    assert (found.layout, found.modality, found.labels) == ("BIDS", "T2w", {1: "thalamus"})
    assert [case.subject for case in found.cases] == ["01", "01", "02"]
    assert all(case.name.rpartition("_")[0] in case.labels.name for case in found.cases)
    with pytest.raises(InputError, match="choose T2w as --channel"):
        read_dataset(tmp_path, "T1w")


@pytest.mark.parametrize("pair", [("images", "labels"), ("images", "masks"), ("imagesTr", "labelsTr")])
def test_two_folders(tmp_path, pair):
    put(tmp_path / pair[0] / "x_0000.nrrd", tmp_path / pair[1] / "x.nii.gz")
    found = read_dataset(tmp_path)
    assert (found.layout, [case.name for case in found.cases]) == ("folders", ["x"])


def test_a_table(tmp_path):
    put(tmp_path / "scans/one.nii.gz", tmp_path / "scans/one_mask.nrrd")
    table = tmp_path / "cases.csv"
    table.write_text(
        "case,image,labels,subject\nA,scans/one.nii.gz,scans/one_mask.nrrd,Ann\nB,scans/two.nii.gz,scans/one_mask.nrrd,Bo\n"
    )
    found = read_dataset(table)
    assert [(case.name, case.subject) for case in found.cases] == [("A", "Ann")]
    assert "two.nii.gz of line 3 does not exist" in found.problems[0].sentence
    table.write_text("image,labels\nnowhere.nii.gz,scans/one_mask.nrrd\n")
    with pytest.raises(InputError, match="no image with labels: The file .*nowhere.nii.gz of line 2 does not exist"):
        read_dataset(table)
    table.write_text("picture,labels\n")
    with pytest.raises(InputError, match="has no column 'image'"):
        read_dataset(table)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda root: None, "layout of .* is not known"),
        (lambda root: (root / "images").mkdir() or (root / "labels").mkdir(), "has no image with labels"),
        (lambda root: (root / "imagesTr").mkdir() or (root / "dataset.json").write_text("[1"), "not a dataset.json"),
    ],
)
def test_what_is_no_data_set(tmp_path, make, sentence):
    make(tmp_path)
    with pytest.raises(InputError, match=sentence):
        read_dataset(tmp_path)


def damaged(root: Path) -> Path:
    """A data set in which every case but two has another fault."""
    nnunet(root)

    def more(name: str, **how) -> None:
        put(root / f"imagesTr/{name}_0000.nii.gz", root / f"labelsTr/{name}.nii.gz", **how)

    more("constant", array=np.full(SHAPE, 7, np.float32))
    more("copy", seed=1)
    more("empty", seed=5, value=0)
    more("unknown", seed=6, value=9)
    more("shifted", seed=7)
    moved = AFFINE.copy()
    moved[0, 3] = 30
    write_volume(LabelMap(mask(), moved), root / "labelsTr/shifted.nii.gz")
    broken = np.random.default_rng(8).normal(300, 60, SHAPE).astype(np.float32)
    broken[2, 3, 4] = np.nan
    more("nan", array=broken)
    (root / "imagesTr/c_0000.nii.gz").write_bytes((root / "imagesTr/c_0000.nii.gz").read_bytes()[:200])
    return root


def test_each_fault_is_named_by_case(tmp_path):
    found = inspect(read_dataset(damaged(tmp_path)))
    assert [case.name for case in found.facts] == ["a", "b"]
    sentences = {problem.case: problem.sentence for problem in found.problems}
    assert sentences.keys() == {"c", "constant", "copy", "empty", "unknown", "shifted", "nan"}
    assert "are 7" in sentences["constant"] and "a copy of that of the case b" in sentences["copy"]
    assert "empty" in sentences["empty"] and "number 9" in sentences["unknown"]
    assert "30 mm away" in sentences["shifted"] and "NaN" in sentences["nan"]


def test_the_figures_of_a_case(tmp_path):
    found = inspect(read_dataset(nnunet(tmp_path)), "T1w")
    case = found.facts[0]
    assert (found.modality, case.shape, case.spacing) == ("T1w", SHAPE, pytest.approx((1.5, 1.5, 2.0)))
    values = np.random.default_rng(0).normal(300, 60, SHAPE).clip(0).astype(np.float32)
    assert case.labels[1].count == 5 * 6 * 5
    assert case.labels[1].mean == pytest.approx(values[3:8, 3:9, 2:7].mean(), rel=1e-5)
    assert case.beyond == pytest.approx((values.size - 150) / 150, rel=0.01)


def test_a_ct_that_is_not_in_hu_is_refused_by_case(tmp_path):
    ct = np.full(SHAPE, -1000, np.float32)
    ct[2:10, 2:12, 1:9] = np.random.default_rng(0).normal(40, 20, (8, 10, 8))
    ct[2:4, 2:12, 1:9] = -100
    put(tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz", array=ct)
    put(tmp_path / "images/b.nii.gz", tmp_path / "labels/b.nii.gz", array=ct + 1024)
    found = inspect(read_dataset(tmp_path), "CT")
    assert [case.name for case in found.facts] == ["a"]
    assert "HU + 1024" in found.problems[0].sentence
