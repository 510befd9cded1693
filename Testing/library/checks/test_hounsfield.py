"""CT whose values are not HU, and images that are not what they are stated to be."""

import numpy as np
import pytest

from MedGenLib.checks.input import check_image, check_stated
from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.evaluation.pair import evaluate
from MedGenLib.imaging.modality import hu_problem
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import find


def head(modality="CT"):
    """A head in HU: skin, skull, brain, ventricles, air."""
    k, j, i = np.meshgrid(*(np.linspace(-1.15, 1.15, n) for n in (24, 48, 40)), indexing="ij")
    r = np.sqrt((k / 1.3) ** 2 + j**2 + (i / 0.85) ** 2)
    hu = np.select([r < 0.8, r < 0.9, r < 0.95, r < 1], [35, 900, 30, -90], -1000)
    hu[(np.abs(i) < 0.12) & (np.abs(j) < 0.3) & (np.abs(k) < 0.3)] = 5
    hu = np.rint(hu + np.random.default_rng(1).normal(0, 6, hu.shape)).clip(-1024)
    return Volume(hu.transpose(2, 1, 0).astype(np.float32), np.diag([4.0, 4, 7, 1]), modality, "HU")


def with_values(change, modality="CT"):
    return head(modality).with_array(change(head().array).astype(np.float32))


def windowed(hu):
    return np.rint((hu + 100).clip(0, 300) * 255 / 300)


SPOILED = {
    "+1024": (lambda hu: hu + 1024, "--hu-offset -1024"),
    "+1000": (lambda hu: (hu + 1000).clip(0), "--hu-offset -1024"),
    "8 bits": (windowed, "scaled to 8 bits"),
    "0..1": (lambda hu: (hu + 1024) / 4095, "scaled to 0..1"),
    "windowed to 0..1": (lambda hu: windowed(hu) / 255, "scaled to 0..1"),
}


@pytest.mark.parametrize("kind", SPOILED)
@pytest.mark.parametrize("modality", ["CT", None])
def test_a_ct_that_is_not_in_hu_is_refused(kind, modality):
    change, words = SPOILED[kind]
    found = check_image(with_values(change, modality), find("head-ct-to-mr"))
    if modality is None and kind == "8 bits":  # as MR is stored
        words = "looks like MR by its values"
    assert found[0].level == "error" and words in found[0].sentence


@pytest.mark.parametrize(
    "change", [lambda hu: hu, lambda hu: np.where((hu > -20) & (hu < 100), hu, 0), lambda hu: hu.clip(-150, 250)]
)
def test_a_ct_in_hu_is_not_doubted(change):
    assert hu_problem(with_values(change)) is None


def test_real_images_are_not_doubted():
    for name in ("head_t1.nii.gz", "hippocampus_real.nii.gz"):
        assert "HU + 1024" not in (hu_problem(read_volume(sample(name), modality="CT")) or "")


def test_the_offset_makes_hu(tmp_path):
    path = write_volume(with_values(lambda hu: hu + 1024, None), tmp_path / "ct.nii.gz")
    image = read_volume(path, hu_offset=-1024)
    np.testing.assert_array_equal(image.array, head().array)
    assert (image.modality, image.unit) == ("CT", "HU") and image.notes == ("-1024 was added to get HU.",)
    with pytest.raises(InputError, match="is T1w, but an offset to HU is for CT"):
        read_volume(path, modality="T1w", hu_offset=-1024)


def test_evaluation_refuses_what_is_not_in_hu():
    spoiled = with_values(lambda hu: hu + 1024)
    with pytest.raises(InputError, match="HU \\+ 1024"):
        evaluate(head(), spoiled)


@pytest.mark.parametrize("verb", ["translate", "edit", "insert-lesion", "evaluate"])
def test_every_command_asks_for_the_offset(tmp_path, capsys, verb):
    path = str(write_volume(with_values(lambda hu: hu + 1024, None), tmp_path / "ct.nii.gz"))
    mask = LabelMap((head().array > 500).astype(np.uint8) * 4, head().affine)
    mask = str(write_volume(mask, tmp_path / "mask.nii.gz"))
    out = ["-o", str(tmp_path / "o.nii.gz")]
    words = {
        "translate": [path, "--to", "T1w", "--accept-license", *out],
        "edit": [path, "--mask", mask, "--new-mask", mask, *out],
        "insert-lesion": [path, "--mask", mask, "--contrast", "20", *out],
        "evaluate": [path, "--reference", path, "--modality", "CT"],
    }[verb]
    assert main([verb, *words]) == 2
    assert "--hu-offset -1024" in capsys.readouterr().err and not (tmp_path / "o.nii.gz").exists()
    if verb == "evaluate":
        assert main([verb, *words, "--hu-offset", "-1024"]) == 0


def test_a_ct_that_looks_like_mr_can_be_stated(tmp_path, capsys):
    """A brain cut out of a CT on a background of 0."""
    brain = with_values(lambda hu: np.where((hu > -20) & (hu < 100), hu, 0), None)
    words = ["translate", str(write_volume(brain, tmp_path / "ct.nii.gz")), "--to", "T1w", "--accept-license"]
    words += ["-o", str(tmp_path / "o.nii.gz"), "--preset", "draft"]
    assert main(words) == 2
    assert "By its values the image looks like MR" in (text := capsys.readouterr().err) and "--modality" in text
    assert main([*words, "--modality", "CT"]) == 3  # made, but it fails its checks
    assert (tmp_path / "o.nii.gz").exists()
    assert "stated to be CT but looks like MR by its values" in capsys.readouterr().err


def test_a_stated_modality_is_doubted_by_the_values():
    assert "looks like CT by its values" in check_stated(head("T1w"))[0].sentence
    assert check_stated(head("CT")) == []
