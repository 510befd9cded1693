"""A grid in meters is refused by every command with a model, and noted by `evaluate`, before the work."""

from dataclasses import replace

import numpy as np
import pytest

from MedGenLib.cli import main
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.pipelines import estimate

METERS = np.diag([1e-3, 1e-3, 1e-3, 1.0])


@pytest.fixture
def files(tmp_path):
    mask, ct = read_label_map(sample("ct_tissue_mask.nii.gz")), read_volume(sample("ct_tissue_real.nii.gz"))
    head = read_volume(sample("head_t1.nii.gz"))
    return {
        name: str(write_volume(replace(image, affine=METERS @ image.affine, forms=None), tmp_path / f"{name}.nii"))
        for name, image in (("mask", mask), ("ct", ct), ("head", head))
    }


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "mask"),
        ("translate", "head", "--to", "CT", "--accept-license"),
        ("edit", "ct", "--mask", "mask", "--new-mask", "mask"),
        ("insert-lesion", "ct", "--labels", "mask", "--organ", "soft tissue", "--contrast", "20"),
    ],
)
def test_commands_with_a_model_refuse_it(files, tmp_path, capsys, words):
    output = tmp_path / "o.nii.gz"
    assert main([files.get(word, word) for word in words] + ["-o", str(output), "--seed", "1"]) == 2
    shown = capsys.readouterr().err
    assert "which would be usual in meters" in shown and not output.exists()


def test_no_time_is_estimated_for_what_is_refused(tmp_path, capsys, monkeypatch):
    mask, head = read_label_map(sample("ct_tissue_mask.nii.gz")), ["--to", "T1w", "--accept-license"]
    write_volume(replace(mask, affine=np.diag([100.0, 100.0, 100.0, 1.0]), forms=None), tmp_path / "huge.nii.gz")
    assert main(["generate", str(tmp_path / "huge.nii.gz"), "-o", str(tmp_path / "o.nii.gz")]) == 2
    shown = capsys.readouterr().err
    assert "correct the spacing" in shown and "Estimate" not in shown
    monkeypatch.setattr(estimate, "LONG_SECONDS", 0.0)
    assert main(["translate", str(sample("ct_tissue_real.nii.gz")), "-o", str(tmp_path / "o.nii.gz"), *head]) == 2
    shown = capsys.readouterr().err
    assert "this is no head" in shown and "Estimate" not in shown


def test_evaluate_notes_it_first(files, capsys):
    assert main(["evaluate", files["ct"], "--reference", files["ct"], "--modality", "CT", "--mask", files["mask"]]) == 0
    shown = capsys.readouterr().err
    assert shown.index("which would be usual in meters") < shown.index("Measured inside the mask")
