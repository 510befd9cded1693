"""`medgen insert-lesion` and the worker's method: atomic outputs, sentences."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from workers import temporary_environment

from MedGenLib import cli
from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.editing.lesions.inputs import as_stored
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, crop
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.recorded import read_inside
from MedGenLib.io.samples import sample
from MedGenLib.pipelines import estimate
from MedGenLib.worker.client import Worker
from MedGenLib.worker.protocol.transfer import put, take

BOX = (36, 34, 44), (76, 74, 76)
SPOT = (20, 18, 14)
"""A voxel of soft tissue of that part of the sample."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with temporary_environment(MEDGEN_HOME=str(tmp_path_factory.mktemp("home"))):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Part of the real CT of the sample data and its tissues."""
    folder = tmp_path_factory.mktemp("in")
    image = crop(read_volume(sample("ct_tissue_real.nii.gz"), modality="CT"), *BOX)
    write_volume(as_stored(image), folder / "ct.nii.gz")
    write_volume(crop(read_label_map(sample("ct_tissue_mask.nii.gz")), *BOX), folder / "mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def place(folder) -> str:
    affine = read_volume(folder / "ct.nii.gz").affine
    return ",".join(f"{x:.2f}" for x in affine[:3, :3] @ SPOT + affine[:3, 3])


def run(*words) -> int:
    return cli.main(["insert-lesion", *(str(word) for word in words)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_files_are_written_and_tell_how_they_were_made(folder, place, tmp_path, capsys):
    out = tmp_path / "out.nii.gz"
    assert place.startswith("-")  # a minus must not be taken for an option
    code = run(
        folder / "ct.nii.gz",
        "-o",
        out,
        "--at",
        place,
        "--shape",
        "spiculated",
        "--size",
        18,
        "--label",
        "bone",
        "--labels",
        folder / "mask.nii.gz",
        "--seed",
        3,
        "--preset",
        "draft",
        "--lesion-mask",
        tmp_path / "lesion.nii.gz",
        "--preview",
        tmp_path / "p.png",
        "--report",
        tmp_path / "r.json",
        "--explanation",
        tmp_path / "e.html",
        "--device",
        "cpu",
    )
    captured = capsys.readouterr()
    assert code == 0, captured.err
    text = (tmp_path / "e.html").read_text()
    assert "Steps of the sampler" in text and text.count("data:image/png") == 2
    assert names(tmp_path) == ["e.html", "lesion.nii.gz", "out.medgen.json", "out.nii.gz", "p.png", "r.json"]
    before, after = read_volume(folder / "ct.nii.gz"), read_volume(out)
    lesion = read_label_map(tmp_path / "lesion.nii.gz").array > 0
    assert lesion[SPOT] and after.geometry.is_close(before.geometry)
    assert (before.array != after.array)[lesion].mean() > 0.9
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["task"] == "insert-lesion" and report["seed"] == 3
    assert report["output_checks"][0]["figures"]["outside_difference"] == 0
    halo = report["parameters"]["halo_mm"]
    assert f"voxels more than {halo:.3g} mm away" in captured.out
    made = read_inside(out)
    assert [source.role for source in made.inputs] == ["image", "labels"]
    assert made.parameters["shape"] == "spiculated" and made.model == "ct-tissue"
    info = subprocess.run([sys.executable, "-m", "MedGenLib", "info", str(out)], capture_output=True, text=True)
    assert info.returncode == 0 and "insert-lesion" in info.stdout


def test_the_time_of_a_long_change_comes_before_it_and_is_learned(folder, place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(estimate, "SHORT_RUN", 0.0)
    words = [folder / "ct.nii.gz", "--at", place, "--label", "bone", "--labels", folder / "mask.nii.gz"]
    words += ["--preset", "draft", "--device", "cpu", "--seed", 1]
    timings = tmp_path / "timings.json"
    monkeypatch.setattr(estimate.user_folders, "cache_dir", lambda: tmp_path)
    assert run(*words, "-o", tmp_path / "a.nii.gz") == 0
    shown = capsys.readouterr().err
    assert re.search(r"^medgen: Estimate of this edit: about \d+ s on CPU\.$", shown, re.MULTILINE)
    assert shown.index("Estimate") < shown.index("sampling")
    ((key, rate),) = json.loads(timings.read_text()).items()
    assert key.endswith("on cpu, edits") and rate > 0
    timings.write_text(json.dumps({key: 1e4 * rate}))
    assert run(*words, "-o", tmp_path / "b.nii.gz") == 0
    assert re.search(r"Estimate of this edit: about [\d.]+ (min|h) on CPU", capsys.readouterr().err)


def test_a_painted_lesion_and_a_contrast(folder, tmp_path):
    grid = read_volume(folder / "ct.nii.gz")
    painted = np.zeros(grid.shape, np.uint8)
    painted[18:23, 16:21, 12:17] = 7
    write_volume(LabelMap(painted, grid.affine), tmp_path / "painted.nrrd")
    out = tmp_path / "out.nrrd"
    words = [
        folder / "ct.nii.gz",
        "-o",
        out,
        "--mask",
        tmp_path / "painted.nrrd",
        "--contrast",
        "-40",
        "--device",
        "cpu",
    ]
    assert run(*words) == 0
    shift = read_volume(out).array - grid.array
    assert shift[painted > 0].min() == -40 and shift.max() <= 0
    assert run(*words) == 2  # it is there
    assert run(*words, "--overwrite") == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--at", "1,2"], "invalid place (X,Y,Z) value: '1,2'"),
        (["--contrast", "9"], "not said where"),
        (["--at", "{place}"], "not said what"),
        (["--at", "9999,0,0", "--contrast", "9"], "outside of the image, which reaches over"),
        (["--organ", "bone", "--contrast", "9", "--size", "90"], "90 mm is larger than 'bone'"),
        (["--organ", "liver", "--contrast", "9"], "no organ 'liver' in the labels; choose"),
        (["--at", "{place}", "--label", "liver"], "has no label 'liver'"),
        (["--at", "{place}", "--contrast", "9", "--shape", "x"], "no shape 'x'"),
        (["--mask", "{folder}/ct.nii.gz", "--contrast", "9"], "mask"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_no_file(folder, place, tmp_path, capsys, words, sentence):
    words = [word.format(place=place, folder=folder) for word in words]
    code = run(folder / "ct.nii.gz", "-o", tmp_path / "out.nii.gz", *words, "--device", "cpu")
    captured = capsys.readouterr()
    assert code == 2 and sentence in captured.err
    complaints = [line for line in captured.err.splitlines() if line.startswith("medgen: ")]
    assert len(complaints) == 1
    assert names(tmp_path) == []


def test_the_input_is_never_replaced(folder, place, tmp_path, capsys):
    image = folder / "ct.nii.gz"
    code = run(image, "-o", image, "--at", place, "--contrast", 9, "--overwrite")
    assert code == 2 and "is also the input" in capsys.readouterr().err


# The worker


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


def test_the_worker_inserts_a_lesion(worker, folder, place, tmp_path):
    image = read_volume(folder / "ct.nii.gz", modality="CT")
    at = [float(x) for x in place.split(",")]
    answer = worker.call(
        "insert_lesion",
        image=put(image, tmp_path, "image"),
        at=at,
        size_mm=12,
        label="bone",
        labels=put(read_label_map(folder / "mask.nii.gz"), tmp_path, "labels"),
        seed=1,
        preset="draft",
        device="cpu",
        folder=str(tmp_path),
    )
    volume, lesion = take(answer["volume"]), take(answer["lesion"])
    assert lesion.names == {1: "lesion"} and lesion.array[SPOT] == 1
    assert volume.geometry.is_close(image.geometry) and volume.modality == "CT"
    assert answer["passed"] and answer["at"] == pytest.approx(at, abs=0.01)
    assert answer["halo_mm"] == 9 and answer["halo_voxels"] == [2, 2, 2]
    assert answer["report"]["task"] == "insert-lesion"
    with pytest.raises(InputError, match="not said what"):
        worker.call("insert_lesion", image=put(image, tmp_path, "again"), at=at)


@pytest.fixture
def growing(folder, place) -> list:
    words = [folder / "ct.nii.gz", "--at", place, "--labels", folder / "mask.nii.gz", "--size", 12, "--contrast=-60"]
    words += ["--texture", "necrotic,core=0.5", "--mass-effect", 1, "--grow", 3, "--doubling-days", 100]
    return [*words, "--days-between", 50, "--seed", 2, "--device", "cpu"]


def test_a_lesion_grows_in_numbered_files_that_can_be_repeated(folder, growing, tmp_path, capsys):
    out, masks, labels = (tmp_path / f"{name}.nii.gz" for name in ("out", "lesion", "labels"))
    words = [*growing, "-o", out, "--lesion-mask", masks, "--moved-labels", labels, "--preview", tmp_path / "p.png"]
    assert run(*words, "--report", tmp_path / "r.json") == 0
    said = capsys.readouterr().out
    expected = [f"{name}_{n}" for name in ("labels", "lesion", "out", "p") for n in (1, 2, 3)]
    assert sorted({name.split(".")[0] for name in names(tmp_path)} - {"r"}) == expected
    frames = json.loads((tmp_path / "r.json").read_text())["parameters"]["frames"]
    assert [frame["day"] for frame in frames] == [0, 50, 100]
    for number, frame in enumerate(frames, 1):
        assert read_label_map(tmp_path / f"lesion_{number}.nii.gz").array.sum() == frame["voxels"]
        made = read_inside(tmp_path / f"out_{number}.nii.gz")
        assert made.parameters["texture"]["core"] == 0.5 and made.parameters["frame"] == number - 1
    assert frames[2]["voxels"] == 2 * frames[0]["voxels"]
    assert f"and by day 100 {frames[2]['size_mm']:g} mm" in said
    before, after = read_label_map(folder / "mask.nii.gz"), read_label_map(tmp_path / "labels_3.nii.gz")
    assert before.values() == after.values() and (before.array != after.array).any()
    assert cli.main(["repeat", str(tmp_path / "out_3.nii.gz"), "--input", str(folder)]) == 0
    assert "Equal" in capsys.readouterr().out


def test_a_growing_lesion_is_one_sequence(folder, growing, tmp_path):
    out, masks = tmp_path / "out.seq.nrrd", tmp_path / "lesion.seq.nrrd"
    page = tmp_path / "e.html"
    assert run(*growing, "-o", out, "--lesion-mask", masks, "--explanation", page) == 0
    assert names(tmp_path) == ["e.html", "lesion.seq.nrrd", "out.seq.medgen.json", "out.seq.nrrd"]
    header = out.read_bytes()[:3000]
    assert b"axis 3 index values:=0 50 100\n" in header and b'labels: "" "" "" "day"' in header
    pixels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out)))
    first = insert_lesion_of(growing, folder)
    assert_explains(page.read_text(), first)
    assert pixels.shape[-1] == 3 and np.array_equal(pixels[..., 0].transpose(2, 1, 0), first.volume.array)


def assert_explains(text: str, first) -> None:
    """Every changed voxel is counted with its reason."""
    before, after, inside = first.source.array, first.volume.array, first.lesion.array > 0
    moved = first.push.warp(before, first.source.geometry)
    reasons = {
        "inside the lesion": inside,
        "around it": ~inside & (after != moved),
        "surroundings that the mass effect moved": ~inside & (after == moved),
    }
    for reason, where in reasons.items():
        count = int(((after != before) & where).sum())
        assert count > 20 and re.search(rf"{reason}[^<]*</td>\s*<td[^>]*>{count}</td>", text), reason
    for words in ("texture: core", "least jacobian", "Day 100", "data:image/png", ">seed</td>"):
        assert words in text, words


def insert_lesion_of(growing, folder):
    """The first time, as Python makes it."""
    options = {"texture": "necrotic,core=0.5", "mass_effect": 1.0, "contrast": -60.0, "size_mm": 12.0, "seed": 2}
    at = tuple(float(number) for number in growing[2].split(","))
    image = as_stored(read_volume(folder / "ct.nii.gz"))
    return insert_lesion(image, at=at, labels=folder / "mask.nii.gz", device="cpu", **options)
