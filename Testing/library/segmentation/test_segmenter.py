"""Segmenters: network, recipe, package, thresholds, and tools that the user has installed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from balls import phantom, write_cases

from MedGenLib import generate
from MedGenLib.checks.output import check_generated
from MedGenLib.errors import Cancelled, InputError, LicenseError, PackageError
from MedGenLib.imaging.normalization import ZScore
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.metrics.image import dice
from MedGenLib.networks import build
from MedGenLib.packages import catalogue
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.inspection import verify
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.packages.sections import SegmenterCheck
from MedGenLib.segmentation import segmenters
from MedGenLib.segmentation.package import PackageSegmenter, label_array
from MedGenLib.segmentation.segmenters import names, segmenter
from MedGenLib.training import train
from MedGenLib.training.data.cases import Patches, TrainingCase, case_names, read_case

SAMPLE = catalogue.embedded_dir().parent / "SampleData" / "hippocampus_mask.nii.gz"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


CONFIG = {
    "seed": 0,
    "data": {"folder": "cases", "hold_out": 2, "seed": 0, "flip": [0]},
    "segmenter": {"patch": [16, 24, 16], "network": {"widths": [8, 16], "blocks": [1, 1], "stem": 6}},
    "optimisation": {"segmenter": {"steps": 60, "batch": 2, "learning_rate": 5e-3, "warmup": 5, "ema": 0.9}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A segmenter of the phantom's balls, trained and exported by the recipe."""
    folder = tmp_path_factory.mktemp("segmenter")
    write_cases(folder / "cases", range(8))
    shipped = Path(segmenters.__file__).parents[1] / "training" / "configs"
    package = json.loads((shipped / "hippocampus-segmenter.json").read_text())["package"]
    package["metadata"] |= {"name": "balls", "description": "A dark and a bright ball."}
    package["medgen"]["output"]["labels"] = {"1": {"name": "dark"}, "2": {"name": "bright"}}
    package["medgen"]["field_of_view_mm"] = {"min": [12, 12, 12], "max": [40, 40, 40]}
    package["license_file"] = str(shipped / package["license_file"])
    path = folder / "config.json"
    path.write_text(json.dumps({**CONFIG, "package": package}))
    return load_manifest(train("segmenter", path, folder / "out", threads=1, device="cpu"))


# The network and what it is trained on


def test_training_gives_the_threads_back(trained, tmp_path):
    """A program that trains and then generates must get the voxels of one that does not."""
    before = torch.get_num_threads()
    config = trained.folder.parents[2] / "config.json"
    try:
        torch.set_num_threads(2)
        train("segmenter", config, tmp_path, steps=1, threads=1, device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_network_scores_every_voxel_and_keeps_to_its_stride():
    network = build("Segmenter", {"labels": 3, "widths": [8, 16], "blocks": [1, 1], "stem": 4})
    assert network.stride == 4
    scores = network(torch.zeros(2, 1, 8, 12, 16))
    assert scores.shape == (2, 4, 8, 12, 16) and scores.dtype == torch.float32
    assert build("Segmenter", network.arguments).arguments == network.arguments


def test_a_flip_exchanges_left_and_right():
    image = np.zeros((8, 8, 8), np.float32)
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:3], labels[5:] = 1, 2
    plain = Patches([TrainingCase("a", image, labels)], (8, 8, 8), flip=[0])
    paired = Patches([TrainingCase("a", image, labels)], (8, 8, 8), flip=[0], exchange=[(1, 2)])
    plain.vary = paired.vary = type(
        "Same", (), {"set_random_state": lambda self, seed: None, "__call__": lambda self, pair: pair}
    )()
    seen = {int(plain.sample(np.random.default_rng(n), 1)["labels"][0, 0, 0, 0]) for n in range(9)}
    assert seen == {1, 2}  # mirrored, so both sides were seen as the first
    for n in range(9):
        found = paired.sample(np.random.default_rng(n), 1)["labels"][0]
        assert np.array_equal(found, labels)  # mirrored and exchanged: the same picture


def test_patches_vary_and_are_the_same_for_the_same_generator(tmp_path):
    folder = write_cases(tmp_path / "cases", range(2))
    cases = [read_case(folder, name, ZScore()) for name in case_names(folder)]
    patches = Patches(cases, (16, 32, 16))
    first, again = (patches.sample(np.random.default_rng(5), 3) for _ in range(2))
    assert first["image"].shape == (3, 1, 16, 32, 16) and first["labels"].shape == (3, 16, 32, 16)
    assert first["image"].dtype == np.float32 and first["labels"].dtype == np.int64
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["image"][0], first["image"][1])
    # Labels stay whole and follow the image: the dark ball stays darker than the bright one.
    assert set(np.unique(first["labels"])) <= {0, 1, 2}
    values = [first["image"][:, 0][first["labels"] == v].mean() for v in (1, 2)]
    assert values[0] < values[1] - 1


def test_cases_are_read_in_ras_at_one_voxel_size(tmp_path):
    def turned(image, labels):
        affine = np.diag([-1.0, 2.0, 1.0, 1.0]) @ np.eye(4)[[2, 1, 0, 3]]
        return replace(image, affine=affine), replace(labels, affine=affine)

    folder = write_cases(tmp_path / "cases", [1], turned)
    plain = read_case(folder, "case_01.nii.gz", ZScore())
    assert plain.image.shape == (18, 24, 20)  # k runs to the left, so it comes first, mirrored
    assert np.array_equal(plain.labels, phantom(1)[1].array.transpose(2, 1, 0)[::-1])
    finer = read_case(folder, "case_01.nii.gz", ZScore(), (1, 1, 1))
    assert finer.image.shape == (18, 48, 20) and finer.labels.shape == (18, 48, 20)


def test_folders_that_are_no_cases_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        case_names(tmp_path / "nothing")
    (tmp_path / "a" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no volumes"):
        case_names(tmp_path / "a")
    folder = write_cases(tmp_path / "b", [1])
    (folder / "labels" / "case_01.nii.gz").unlink()
    with pytest.raises(InputError, match="has no labels of the same name"):
        case_names(folder)
    several = write_cases(tmp_path / "d", [1])
    (several / "images").rename(several / "imagesTr")
    for channel in ("_0000", "_0001"):
        shutil.copy(several / "imagesTr" / "case_01.nii.gz", several / "imagesTr" / f"case_01{channel}.nii.gz")
    (several / "imagesTr" / "case_01.nii.gz").unlink()
    with pytest.raises(InputError, match="has several channels of a case"):
        case_names(several)
    (several / "imagesTr" / "case_01_0001.nii.gz").unlink()
    (several / "labels").rename(several / "labelsTr")
    assert case_names(several) == ["case_01_0000.nii.gz"]
    shifted = write_cases(tmp_path / "c", [1], lambda i, m: (i, replace(m, affine=np.diag([1, 1, 2, 1.0]))))
    with pytest.raises(InputError, match="lie on different grids"):
        read_case(shifted, "case_01.nii.gz", ZScore())


# Packages


def test_the_recipe_exports_a_sound_package(trained):
    assert verify(trained) == []
    assert trained.task == "segment" and trained.output.modality is None
    assert {v: label.name for v, label in trained.output.labels.items()} == {1: "dark", 2: "bright"}
    assert str(trained.output) == "2 labels" and len(trained.training.held_out) == 2
    lines = (trained.folder.parents[1] / "validation.jsonl").read_text().splitlines()
    assert min(json.loads(lines[-1])[f"dice_{v}"] for v in (1, 2)) > 0.8


@pytest.mark.parametrize("grid", ["same", "turned", "finer"])
def test_a_package_finds_labels_on_the_volumes_own_grid(trained, grid):
    image, wanted = phantom(50)
    if grid == "turned":
        affine = np.diag([-1.0, 1.0, -1.0, 1.0]) @ np.eye(4)[[1, 0, 2, 3]]
        image = Volume(image.array.transpose(1, 0, 2)[:, ::-1, ::-1], affine, "T1w")
        wanted = LabelMap(wanted.array.transpose(1, 0, 2)[:, ::-1, ::-1], affine)
    if grid == "finer":
        image, wanted = resample(image, (0.6, 0.7, 0.8)), resample(wanted, (0.6, 0.7, 0.8))
    found = PackageSegmenter(trained)(image)
    assert found.geometry.is_close(image.geometry) and found.names == {1: "dark", 2: "bright"}
    assert min(dice(found.array == v, wanted.array == v) for v in (1, 2)) > 0.75


def test_a_large_image_is_segmented_in_pieces(trained, monkeypatch):
    image, wanted = phantom(51)
    network = PackageSegmenter(trained)
    from MedGenLib.pipelines.loading import network as load

    net = load(trained, "segmenter", torch.device("cpu"))
    x = ZScore().encode(image.array)
    whole = label_array(net, x)
    monkeypatch.setattr("MedGenLib.segmentation.package.WHOLE", 16)
    pieces = label_array(net, x)
    assert pieces.shape == whole.shape == image.shape
    assert min(dice(pieces == v, whole == v) for v in (1, 2)) > 0.9
    assert network.name == "balls"


@pytest.mark.parametrize(
    ("affine", "shape", "words"),
    [
        (np.diag([4, 4, 4, 1.0]), (8, 8, 8), "reads voxels of 0.2 to 2 mm, but the image has 4 x"),
        (np.eye(4), (64, 20, 20), "crop it to the structure"),
        (np.eye(4), (20, 20, 4), "reads images of 12 x 12 x 12 to 40 x 40 x 40 mm"),
    ],
)
def test_an_image_that_the_package_was_not_made_for_is_refused(trained, affine, shape, words):
    with pytest.raises(InputError, match=words):
        PackageSegmenter(trained)(Volume(np.zeros(shape, np.float32), affine, "T1w"))


def test_an_image_of_another_modality_is_refused(trained):
    image, _ = phantom(1)
    find_labels = PackageSegmenter(trained)
    with pytest.raises(InputError, match="reads T1w images, but this one is CT; choose another"):
        find_labels(replace(image, modality="CT"))
    for modality in (None, "MR"):  # not known, or known as far as it fits
        assert find_labels(replace(image, modality=modality)).values() == [1, 2]


def test_an_image_with_holes_is_refused(trained):
    array = phantom(1)[0].array.copy()
    array[3, 3, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        PackageSegmenter(trained)(Volume(array, np.eye(4), "T1w"))


# By name


def test_segmenters_are_found_by_name():
    known = dict(names())
    assert {"ct-tissue", "hippocampus-segmenter"} <= set(known)
    assert all(sentence.endswith(".") for sentence in known.values())
    assert segmenter("hippocampus-segmenter").name == "hippocampus-segmenter"
    assert segmenter("mr-hippocampus").name == "hippocampus-segmenter"
    assert segmenter("ct-tissue").labels.value_of("bone") == 3
    for name in ("liver", "head-mr-to-ct"):
        with pytest.raises(InputError, match=f"no segmenter '{name}'; choose one of brain-segmenter, ct-tissue"):
            segmenter(name)


def test_the_embedded_segmenter_never_saw_the_generators_test_cases():
    manifest = find("hippocampus-segmenter")
    assert manifest.training.held_out == find("mr-hippocampus").training.held_out
    assert len(manifest.training.held_out) == 40
    assert manifest.weights_path("segmenter").stat().st_size < 3e6
    assert manifest.license.spdx == "CC-BY-SA-4.0"


def test_a_package_whose_license_was_not_accepted_is_not_used(trained, monkeypatch):
    asking = replace(trained, license=replace(trained.license, acceptance_required=True))
    monkeypatch.setattr(segmenters, "catalogue", lambda: [asking])
    with pytest.raises(LicenseError):
        segmenter("balls")


def test_a_broken_package_tells_what_is_wrong_with_it(tmp_path):
    folder = tmp_path / "home" / "models" / "torn" / "configs"
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text("{}")
    with pytest.raises(PackageError, match="metadata.json is wrong"):
        segmenter("torn")


# Thresholds


def test_thresholds_find_tissues_inside_the_body():
    shape = (48, 48, 48)
    radius = np.linalg.norm(np.indices(shape) - 23.5, axis=0)
    hu = np.select([radius < 6, radius < 14, radius < 18], [400.0, 40.0, -100.0], -1000.0)
    ct = Volume(hu.astype(np.float32), np.diag([3, 3, 3, 1.0]), "CT", "HU")
    found = segmenter("ct-tissue")(ct)
    middle = found.array[:, 23, 23]
    assert (middle[23], middle[13], middle[8]) == (3, 2, 1)  # bone, soft tissue, fat
    assert found.array[0, 0, 0] == 0 and found.names[4] == "lung or gas"
    untold = replace(ct, modality=None)
    assert np.array_equal(segmenter("ct-tissue")(untold).array, found.array)
    with pytest.raises(InputError, match="finds tissues by their HU, but the image is T1w"):
        segmenter("ct-tissue")(replace(ct, modality="T1w"))


# Tools of the user. TotalSegmentator and nnU-Net with their weights cannot be had here: stand-ins
# with their names and arguments take their place on the PATH.

STAND_IN = """#!{python}
import sys, time
import numpy as np
sys.path.insert(0, {root!r})
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.imaging.volume import LabelMap
from pathlib import Path
words = sys.argv[1:]
source, target = Path(words[words.index("-i") + 1]), Path(words[words.index("-o") + 1])
{body}
"""
THRESHOLD = """
if source.is_dir():
    source, target = source / "case_0000.nii.gz", target / "case.nii.gz"
image = read_volume(source)
write_volume(LabelMap((image.array > 100).astype(np.uint8) * 5, image.affine), target)
Path({log!r}).write_text(" ".join(words))
"""


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a stand-in on the PATH; returns a function of its name and what it does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, body: str) -> Path:
        path, log = folder / name, tmp_path / "arguments.txt"
        root = str(Path(segmenters.__file__).parents[2])
        body = body.replace("{log!r}", repr(str(log)))
        path.write_text(STAND_IN.format(python=sys.executable, root=root, body=body))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return log

    return install


@pytest.fixture
def ct():
    hu = np.random.default_rng(0).normal(0, 200, (12, 10, 8)).astype(np.float32)
    return Volume(hu, np.diag([-1, 1, 2, 1.0]), "CT", "HU")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_2").mkdir()
    write_dataset(folder)
    return folder


def write_dataset(folder, **changes):
    dataset = {"labels": {"background": 0, "liver": 5}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(dataset | changes))


def test_totalsegmentator_is_run_on_the_image(tool, ct):
    log = tool("TotalSegmentator", THRESHOLD)
    find = segmenter("TotalSegmentator", "cuda:0")
    found = find(ct)
    assert np.array_equal(found.array, (ct.array > 100) * 5)
    assert found.geometry.is_close(ct.geometry) and found.names[5] == "liver"
    words = log.read_text().split()
    assert "--ml" in words and words[words.index("--device") + 1] == "gpu:0"
    assert "totalsegmentator" in dict(names())
    with pytest.raises(InputError, match="asked for its CT classes, but the image is T1w"):
        find(replace(ct, modality="T1w"))


def test_nnunet_is_run_with_the_folds_that_were_trained(tool, ct, model):
    log = tool("nnUNetv2_predict_from_modelfolder", THRESHOLD)
    find = segmenter(f"nnunet:{model}", "cpu")
    found = find(ct)
    assert np.array_equal(found.array, (ct.array > 100) * 5) and found.names == {5: "liver"}
    words = log.read_text()
    assert f"-m {model} -f 0 2 -device cpu" in words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "reads several images"),
        ({"labels": {"background": 0, "all": [1, 2]}}, "regions instead of labels"),
        ({"file_ending": ".png"}, "reads .png files"),
        ({"labels": None}, "is not a trained nnU-Net model"),
    ],
)
def test_an_nnunet_that_does_not_fit_is_refused(tool, model, changes, words):
    tool("nnUNetv2_predict_from_modelfolder", THRESHOLD)
    write_dataset(model, **changes)
    with pytest.raises(InputError, match=words):
        segmenter(f"nnunet:{model}")


def test_a_tool_that_is_not_installed_tells_how_to_get_it(monkeypatch, model, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="pip install TotalSegmentator"):
        segmenter("totalsegmentator")
    with pytest.raises(InputError, match="pip install nnunetv2"):
        segmenter(f"nnunet:{model}")
    with pytest.raises(InputError, match="is not a trained nnU-Net model"):
        segmenter(f"nnunet:{tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('starting'); sys.exit('No space for weights.')", "failed with exit code 1: No space for weights."),
        ("sys.exit(3)", "failed with exit code 3: it said nothing."),
        ("pass", "ended without writing its labels"),
        (
            "write_volume(LabelMap(np.ones((3, 3, 3), np.uint8), np.eye(4)), target)",
            "labels on another grid .3 x 3 x 3 voxels instead of 12 x 10 x 8",
        ),
        ("target.write_text('x')", "wrote labels that cannot be read"),
    ],
)
def test_a_tool_that_fails_is_reported_in_a_sentence(tool, ct, body, words):
    tool("TotalSegmentator", body)
    with pytest.raises(InputError, match=words) as caught:
        segmenter("totalsegmentator")(ct)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_tool_that_is_cancelled_ends_with_its_children(tool, ct, tmp_path):
    log = tool(
        "TotalSegmentator",
        f"""
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
time.sleep(60)
""",
    )

    def cancel(_):
        if (tmp_path / "child").exists() and (tmp_path / "child").read_text():
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        segmenter("totalsegmentator")(ct, cancel)
    assert not log.exists()
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    assert not psutil.pid_exists(child) or (psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


# The loop: a generated image is segmented again


@pytest.fixture(scope="module")
def generated():
    result = generate(SAMPLE, "mr-hippocampus", seed=3, preset="draft", device="cpu")
    return result, read_label_map(SAMPLE)


def test_generated_images_are_checked_against_their_mask(generated):
    result, _ = generated
    assert result.report.passed
    figures = result.report.output_checks[0].figures["dice"]
    assert set(figures) == {"anterior hippocampus", "posterior hippocampus"}
    assert min(figures.values()) > 0.75


def test_an_image_that_does_not_show_its_mask_fails(generated):
    result, mask = generated
    wrong = mask.with_array(np.ascontiguousarray(mask.array[:, ::-1]))
    check = check_generated(result.volume, wrong, find("mr-hippocampus"), own_grid=False)
    assert not check.passed
    said = [f.sentence for f in check.findings if f.code == "mask-fidelity"]
    assert len(said) == 2 and "hippocampus of the output does not follow the mask;" in said[0]


def test_the_margin_around_a_generated_crop_does_not_count(generated):
    """A mask larger than the field of view has background around what was generated."""
    result, mask = generated
    margins = [(20, 30), (10, 25), (15, 40)]
    wide = np.pad(result.volume.array, margins)
    labels = np.pad(mask.array, margins)
    check = check_generated(
        Volume(wide, mask.affine, "T1w"), LabelMap(labels, mask.affine), find("mr-hippocampus"), own_grid=False
    )
    assert check.passed and check.findings == []
    inner = result.report.output_checks[0].figures["dice"]
    assert check.figures["dice"] == pytest.approx(inner, abs=0.02)


def test_what_cannot_be_checked_is_a_warning(generated):
    result, mask = generated
    manifest = find("mr-hippocampus")
    spec = SegmenterCheck(package="gone", minimum_dice={1: 0.9})
    absent = replace(manifest, statistics=replace(manifest.statistics, segmenter=spec))
    check = check_generated(result.volume, mask, absent, own_grid=False)
    assert check.passed and [f.level for f in check.findings] == ["warning"]
    assert "no segmenter 'gone'" in check.findings[0].sentence


def test_real_images_read_as_volumes_give_the_same_labels(generated, tmp_path):
    """Written and read again, the modality is lost but not what is seen."""
    result, _ = generated
    write_volume(result.volume, tmp_path / "t1.nii.gz")
    again = read_volume(tmp_path / "t1.nii.gz")
    find_labels = segmenter("hippocampus-segmenter", "cpu")
    assert np.array_equal(find_labels(again).array, find_labels(result.volume).array)
