"""`medgen repeat` with the real models: each command makes its volume again from the record in the file."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from workers import number_format, temporary_environment

from MedGenLib import cli
from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.volume import as_stored, crop
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.recorded import read_inside
from MedGenLib.io.samples import sample

BOX = (36, 34, 44), (76, 74, 76)


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with temporary_environment(MEDGEN_HOME=str(tmp_path_factory.mktemp("home"))):
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Parts of the sample data, and a mask that differs from the other."""
    folder = tmp_path_factory.mktemp("inputs")
    image = crop(read_volume(sample("ct_tissue_real.nii.gz"), modality="CT"), *BOX)
    write_volume(as_stored(image), folder / "ct.nii.gz")
    mask = crop(read_label_map(sample("ct_tissue_mask.nii.gz")), *BOX)
    write_volume(mask, folder / "mask.nii.gz")
    changed = mask.array.copy()
    changed[18:22, 16:20, 12:16] = 3
    write_volume(mask.with_array(changed), folder / "new.nii.gz")
    head = read_volume(sample("head_t1.nii.gz"), modality="T1w")
    write_volume(crop(head, (0, 0, 90), (*head.shape[:2], 93)), folder / "t1.nii.gz")
    return folder


WORDS = {
    "generate": ["mask.nii.gz", "--preset", "draft", "--noise", "15", "--map", "3=bone", "--seed", "5"],
    "translate": ["t1.nii.gz", "--to", "CT", "--modality", "T1w", "--preset", "draft", "--accept-license"],
    "edit": ["ct.nii.gz", "--mask", "mask.nii.gz", "--new-mask", "new.nii.gz", "--preset", "draft"],
    "insert-lesion": [
        "ct.nii.gz",
        "--organ",
        "soft tissue",
        "--labels",
        "mask.nii.gz",
        "--size",
        "8",
        "--contrast=-40",
    ],
}


def run(command: str, inputs: Path, output: Path, *more: str) -> int:
    words = [str(inputs / word) if word.endswith(".gz") else word for word in WORDS[command]]
    return cli.main([command, *words, "-o", str(output), "--device", "cpu", *more])


@pytest.mark.parametrize("command", WORDS)
def test_the_volume_of_each_command_is_made_again(command, inputs, tmp_path, capsys):
    output, again = tmp_path / "out.nii.gz", tmp_path / "again.nrrd"
    assert run(command, inputs, output) in (0, 3)
    capsys.readouterr()
    assert cli.main(["repeat", str(output), "--input", str(inputs), "-o", str(again)]) == 0
    assert capsys.readouterr().out.startswith(f"Equal: {command}")
    assert np.array_equal(read_volume(again).array, read_volume(output).array)
    first, second = read_inside(output), read_inside(again)
    assert (second.seed, second.options, second.inputs) == (first.seed, first.options, first.inputs)
    assert second.output_sha256 == first.output_sha256


def test_after_retries_each_sample_is_made_again(inputs, tmp_path, monkeypatch, capsys):
    module, calls = importlib.import_module("MedGenLib.generate"), []

    def check(*arguments):
        calls.append(arguments)
        found = OutputCheck()
        if len(calls) in (1, 2, 4):  # two seeds of the first sample, one of the second
            found.fail("stripe", "This seed fails.")
        return found

    monkeypatch.setattr(module, "check_generated", check)
    assert run("generate", inputs, tmp_path / "ct.nii.gz", "--samples", "2", "--report", str(tmp_path / "r.json")) == 0
    files = sorted(tmp_path.glob("ct*.nii.gz"))
    assert [read_inside(path).seed for path in files] == [5 + 2 * 1_000_003, 6 + 1_000_003]
    printed = capsys.readouterr().out
    assert f"seed {5 + 2 * 1_000_003}" in printed
    for path in files:
        assert cli.main(["repeat", str(path), "--input", str(inputs)]) == 0


def test_the_input_is_found_by_its_content(inputs, tmp_path, capsys):
    output = tmp_path / "out.nii.gz"
    assert run("generate", inputs, output) in (0, 3)
    assert cli.main(["repeat", str(output)]) == 2
    assert "mask 'mask.nii.gz' of the run was not found" in capsys.readouterr().err
    shutil.copy(inputs / "new.nii.gz", tmp_path / "mask.nii.gz")
    assert cli.main(["repeat", str(output)]) == 2
    assert "had other voxels than" in capsys.readouterr().err
    shutil.copy(inputs / "mask.nii.gz", tmp_path / "renamed.nii.gz")
    assert cli.main(["repeat", str(output), "--input", str(tmp_path / "renamed.nii.gz")]) == 0


def test_other_voxels_and_their_reason_are_stated(inputs, tmp_path, capsys):
    output = tmp_path / "out.nii.gz"
    with number_format(False):
        assert run("generate", inputs, output) in (0, 3)
    capsys.readouterr()
    with number_format(True):
        assert cli.main(["repeat", str(output), "--input", str(inputs)]) == 1
    printed = capsys.readouterr().out
    assert "voxels of" in printed and "number format: float32 before, bfloat16 now" in printed


def test_a_volume_without_a_record_is_refused(inputs, capsys):
    assert cli.main(["repeat", str(inputs / "ct.nii.gz")]) == 2
    assert "has no record of how it was made" in capsys.readouterr().err


def test_output_folders_are_created_and_left_only_with_outputs(inputs, tmp_path):
    output = tmp_path / "a" / "b" / "out.nii.gz"
    assert run("generate", inputs, output, "--steps", "0") == 2
    assert run("edit", inputs, output, "--model", "head-mr-to-ct") == 2
    assert list(tmp_path.iterdir()) == []
    report = tmp_path / "c" / "report.json"
    assert run("generate", inputs, output, "--report", str(report)) in (0, 3)
    assert output.is_file() and report.is_file()
