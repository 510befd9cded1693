"""`medgen train --recipe sequence` on series over time, and `medgen translate` with its model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

import MedGenLib
from MedGenLib import cli
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_frames, read_volume, write_volume
from MedGenLib.io.frames import write_sequence
from MedGenLib.networks.sequence_net import ConvGRU, SequenceNet, animated, phases, warp
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.pipelines.sequence import least_jacobian
from MedGenLib.trainer import page
from MedGenLib.trainer.image_sets import read_series
from MedGenLib.trainer.page import write_page
from MedGenLib.trainer.run import Choices, train_own
from MedGenLib.trainer.sequence_measurement import MEASURES, measure_series
from MedGenLib.trainer.sequence_plan import SequencePlan

SHAPE, FRAMES, STEPS = (16, 16, 24), 4, 24
TINY = {"network": '{"widths": [8, 16]}', "steps.sequence": str(STEPS), "ema": "0.9", "learning_rate": "0.005"}


def person(number: int, frames: int = FRAMES, kind: str = "CT") -> list[Volume]:
    """A ball that rises by up to 6 mm, in a body, and lies elsewhere in each person."""
    draw = np.random.default_rng(number)
    center = np.array([16.0, 16.0, 20.0]) + draw.uniform(-2, 2, 3)
    x = np.stack(np.meshgrid(*(2.0 * np.arange(n) for n in SHAPE), indexing="ij"), -1)
    found = []
    for frame in range(frames):
        lifted = center + (0, 0, 6 * np.sin(np.pi * frame / frames) ** 2)
        level = np.clip(8.5 - np.linalg.norm(x - lifted, axis=-1), 0, 1)
        array = np.where(kind == "CT", -1000 + 1060 * level, 100 + 800 * level) + draw.normal(0, 3, SHAPE)
        array = np.rint(array).astype(np.int16)
        found.append(Volume(array, np.diag([2.0, 2, 2, 1]), kind, "HU" if kind == "CT" else "a.u."))
    return found


def write(folder: Path, people: int = 6, kind: str = "CT", frames: int = FRAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(people):
        write_sequence(person(number, frames, kind), folder / f"p{number}.seq.nrrd", range(frames))
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_page():
    """The page is written once, at the end of a run, as its curves take most of the time of such a short training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "write_page", lambda plan, out, *found: found and write_page(plan, out, *found))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, home, tmp_path_factory) -> Path:
    """The folder of a run on the command line."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert cli.main(line_of(data, out)) == 0
    return out


def line_of(data: Path, out: Path) -> list[str]:
    line = ["train", str(data), "--out", str(out), "--name", "rising", "--recipe", "sequence", "--modality", "CT"]
    changes = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    return [*line, "--device", "cpu", *changes]


# The network


def test_the_first_frame_is_exact_and_every_weight_learns():
    torch.manual_seed(0)
    network, first = SequenceNet(3, [8, 16]), torch.randn(2, 1, 8, 8, 12)
    displacement, residual = network(first)
    assert displacement.shape == (2, 3, 3, 8, 8, 12) and residual.shape == (2, 3, 8, 8, 12)
    assert not displacement[:, 0].any() and not residual[:, 0].any() and displacement[:, 1:].abs().max() > 0
    made = animated(first, displacement, residual)
    assert torch.allclose(made[:, 0], first[:, 0], atol=1e-5)
    made[:, 1:].square().mean().backward()
    assert all(weight.grad.any() for weight in network.parameters())
    alone = network(first[1:])[0]
    assert torch.allclose(alone, displacement[1:], atol=1e-5)


def test_a_displacement_says_where_a_voxel_comes_from():
    image = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 2, 6, 5, 4).contiguous()
    moved = torch.zeros(1, 3, 6, 5, 4)
    moved[:, 0] = 1.5
    assert torch.allclose(warp(image, moved)[0, 1, :, 2, 2], torch.tensor([1.5, 2.5, 3.5, 4.5, 5, 5]), atol=1e-5)
    field = np.zeros((3, 6, 5, 4))
    field[2] = -0.4 * np.arange(4)
    assert least_jacobian(field) == pytest.approx(0.6)


def test_the_unit_keeps_its_state_where_its_gate_is_closed():
    unit, x, state = ConvGRU(3, 4), torch.randn(1, 3, 4, 4, 4), torch.randn(1, 4, 4, 4, 4)
    torch.nn.init.constant_(unit.gates.bias, -50)
    assert torch.allclose(unit(x, state), state, atol=1e-4)
    torch.nn.init.constant_(unit.gates.bias, 50)
    assert unit(x, state).abs().max() <= 1
    assert torch.allclose(phases(4)[1], torch.tensor([1.0, 0, 0.25]), atol=1e-6)


# A training


def test_the_model_moves_people_it_never_saw(run, data, capsys):
    model = find("rising")
    assert cli.main(line_of(data, run)) == 0  # of a finished run it says what was measured
    assert "Error relative to no motion: 0." in capsys.readouterr().out
    assert model.task == "sequence" and model.settings.frames == FRAMES and store.verify(model.folder) == []
    rows = {row["name"]: row for row in json.loads((run / "measured.json").read_text())["rows"]}
    assert rows["Error relative to no motion"]["value"] < 0.8
    far, still = (rows[f"Mean absolute error of {n}the farthest frame"]["value"] for n in ("", "no motion in "))
    assert far < 0.8 * still and rows["Smallest Jacobian"]["value"] > 0
    assert "Error relative to no motion, over people (1): 0." in model.card and "has not learned" not in model.card
    text = (run / "index.html").read_text()
    assert text.count("data:image/png") >= 4 and "the largest image at this spacing" in text
    last = json.loads((run / "sequence/validation.jsonl").read_text().splitlines()[-1])
    assert last["l1"] < 0.8 * last["no_motion"]
    command = json.loads((model.folder / "configs/inference.json").read_text())["command"]
    assert command == "medgen translate IMAGE -o OUT.seq.nrrd --model rising"
    assert cli.main(["models", "list"]) == 0 and "rising" in capsys.readouterr().out.split("they make no images")[0]


def test_a_series_from_the_command_line(run, tmp_path, capsys):
    image, out = tmp_path / "ct.nii.gz", tmp_path / "out/breath.seq.nrrd"
    write_volume(person(40)[0], image)
    line = ["translate", str(image), "--model", "rising", "-o", str(out), "--device", "cpu", "--modality", "CT"]
    extra = ["--report", str(tmp_path / "r.json"), "--preview", str(tmp_path / "p.png"), "--dicom", str(tmp_path / "d")]
    assert cli.main([*line, *extra]) == 0
    assert "4 frames of CT in HU, 16 x 16 x 24 voxels" in capsys.readouterr().out
    frames, real = read_frames(out), person(40)
    assert len(frames) == FRAMES and np.array_equal(frames[0].array, real[0].array)
    errors = [np.abs(made.array - real[2].array.astype(float)).mean() for made in (frames[2], frames[0])]
    assert errors[0] < 0.8 * errors[1]
    facts, report = (json.loads((tmp_path / name).read_text()) for name in ("out/breath.seq.medgen.json", "r.json"))
    assert (facts["model"], facts["task"]) == ("rising", "translate")
    assert report["parameters"]["frames"][1] == {"phase": 25.0}
    assert 0 < report["output_checks"][0]["figures"]["least_jacobian"] <= 1
    again = read_frames(tmp_path / "d", "CT")
    assert len(again) == FRAMES and np.abs(again[2].array.sum() - frames[2].array.sum()) < 1
    assert b"axis 3 index values:=0 25 50 75" in out.read_bytes()[:1000] and (tmp_path / "p.png").is_file()


def turned() -> Volume:
    """The image of another person on oblique, anisotropic, flipped axes."""
    image = person(7)[0]
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.0, -1, 1])
    columns = (turn * (1.3, 2.5, 1.7))[:, [2, 0, 1]]
    shape = (26, 22, 14)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.array([16, 16, 22]) - columns @ ((np.array(shape) - 1) / 2)
    array = affine_transform(image.array.astype(float), columns / 2, affine[:3, 3] / 2, shape, order=1, cval=-1000)
    return Volume(array.astype(np.float32), affine, "CT", "HU")


def test_an_oblique_image_keeps_its_grid_and_its_content_rises(run):
    image = turned()
    made = MedGenLib.translate(image, model="rising", device="cpu").volumes
    assert len(made) == FRAMES and np.array_equal(made[0].array, image.array)

    def height(volume: Volume) -> np.ndarray:
        weight = (volume.array > -500)[..., None]
        index = np.stack(np.indices(volume.shape), -1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        return (index * weight).sum((0, 1, 2)) / weight.sum()

    assert all(np.array_equal(frame.affine, image.affine) and frame.shape == image.shape for frame in made)
    moved = height(made[2]) - height(made[0])
    assert 2 < moved[2] < 9 and np.abs(moved[:2]).max() < 1.2


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(run, data, tmp_path):
    def kill(progress):
        if progress.stage == "training" and progress.step == 12:
            raise KeyboardInterrupt

    choices = Choices(name="again", recipe="sequence", modality="CT", changes=TINY)
    with pytest.raises(KeyboardInterrupt):
        train_own(data, tmp_path / "out", choices, device="cpu", progress=kill)
    assert "again" not in [model.name for model in catalogue()]
    train_own(data, tmp_path / "out", choices, device="cpu")
    store.remove("again")
    one, two = (torch.load(root / "sequence/checkpoint.pt", weights_only=True) for root in (run, tmp_path / "out"))
    assert all(
        torch.equal(value, two["averages"]["sequence"][key]) for key, value in one["averages"]["sequence"].items()
    )


@pytest.mark.slow
def test_a_model_that_has_not_learned_the_motion_says_so(run, data, tmp_path):
    dataset, plan = read_series(data), SequencePlan.of(json.loads((run / "plan.json").read_text()))
    for people, ratio, verdict in (
        (1, 1.2, "has not learned the motion"),
        (2, 0.98, "may be no better than no motion"),
    ):
        folder, cases = tmp_path / str(people), dataset.cases[:people]
        folder.mkdir()
        for number, case in enumerate(cases):
            record = dict.fromkeys(MEASURES, 1.0) | {"ratio": ratio + 0.01 * number, "passed": True}
            (folder / f"{case.name}.json").write_text(json.dumps(record))
            (folder / f"{case.name}.png").write_bytes(b"")
        some = plan.with_values(held_out=[case.subject for case in cases])
        found = measure_series(find("rising"), some, dataset.cases, folder, "cpu")
        assert [verdict in fault for fault in found.faults] == [True] and found.lines()[0] == found.faults[0]


@pytest.mark.slow
def test_mr_is_relative_to_its_own_scale(tmp_path):
    changes = {**TINY, "steps.sequence": "2", "loss.residual": "0.1"}
    folder = write(tmp_path / "data", 4, "MR")
    assert train_own(
        folder, tmp_path / "out", Choices(name="mr", recipe="sequence", modality="MR", changes=changes), device="cpu"
    )
    first = person(9, kind="MR")[0]
    bright = Volume(5 * first.array, first.affine, "MR", "a.u.")
    one, two = (MedGenLib.translate(image, model="mr", device="cpu") for image in (first, bright))
    assert one.report.passed and one.volume.unit == "a.u."
    for a, b in zip(one.volumes, two.volumes, strict=True):
        assert np.abs(5 * a.array.astype(float) - b.array).max() <= 5  # both are rounded
    assert any(np.abs(frame.array - first.array).max() > 1 for frame in one.volumes[1:])


# What is refused


def test_the_command_line_refuses_what_a_series_is_not(run, tmp_path, capsys):
    image = tmp_path / "ct.nii.gz"
    write_volume(person(1)[0], image)
    for words, sentence in (
        (
            ["-o", "x.nii.gz", "--model", "rising"],
            "makes a series, but x.nii.gz holds one image; give an output that ends",
        ),
        (["-o", "x.seq.nrrd", "--model", "rising", "--to", "T1w"], "makes CT, not T1w"),
        (["-o", "x.seq.nrrd", "--model", "rising", "--uncertainty", "u.nii.gz"], "gives no uncertainty; leave it out"),
        (["-o", "x.nii.gz"], "not stated what to make of the image; give a modality such as CT (--to), or a model"),
        (["-o", "x.nii.gz", "--model", "mr-hippocampus"], "The model 'mr-hippocampus' needs a mask"),
    ):
        assert cli.main(["translate", str(image), "--modality", "CT", "--device", "cpu", *words]) == 2
        assert sentence in capsys.readouterr().err
    with pytest.raises(InputError, match="'rising' makes a series over time of an image; use `medgen translate`"):
        MedGenLib.generate(model="rising", size=(8, 8, 8))


def test_series_that_cannot_be_used(data, tmp_path):
    first = person(1)
    (tmp_path / "empty").mkdir()
    one = write(tmp_path / "one", 1)
    image = write(tmp_path / "image")
    write_volume(first[0], image / "p9.nii.gz")
    uneven = write(tmp_path / "uneven")
    write_sequence(person(9, 3), uneven / "p9.seq.nrrd", range(3))
    holed = write(tmp_path / "holed")
    array = np.stack([frame.array for frame in first]).astype(np.float32)
    array[2, 3, 4, 5] = np.nan
    write_sequence([f.with_array(a) for f, a in zip(first, array, strict=True)], holed / "p9.seq.nrrd", range(FRAMES))
    apart = write(tmp_path / "apart")
    (apart / "p9").mkdir()
    for number, frame in enumerate(first):
        affine = frame.affine.copy()
        affine[2, 3] += 3 * (number == 2)
        write_volume(Volume(frame.array, affine, "CT", "HU"), apart / f"p9/{number}.nii.gz")
    for folder, sentence in (
        (tmp_path / "empty", "has no series over time; put a 4-D file"),
        (one, "The series of .* are of one person"),
        (image, "p9.nii.gz holds 1 image, but a series over time is needed"),
        (uneven, "p9: The series has 3 frames, but most have 4."),
        (holed, "Frame 2 of .* holds NaN"),
        (apart, "frames 0 and 2 of .*p9 lie on different grids"),
        (tmp_path / "nowhere", "There is no data set"),
    ):
        with pytest.raises(InputError, match=sentence):
            train_own(folder, tmp_path / "out", Choices(recipe="sequence", modality="CT"), device="cpu")
    with pytest.raises(InputError, match=re.escape("--channel does not belong to the recipe sequence")):
        train_own(data, tmp_path / "out", Choices(recipe="sequence", channel="T1", modality="CT"), device="cpu")


def test_series_are_read_from_nifti_nrrd_and_folders(tmp_path):
    frames = person(3)
    write_sequence(frames, tmp_path / "a.seq.nrrd", range(FRAMES))
    (tmp_path / "b").mkdir()
    for number, frame in enumerate(frames):
        write_volume(frame, tmp_path / f"b/{number}.nii.gz")
    import SimpleITK

    together = SimpleITK.JoinSeries([SimpleITK.ReadImage(str(tmp_path / f"b/{n}.nii.gz")) for n in range(FRAMES)])
    names = ("c.nii.gz", "d.nrrd", "e.mha")
    for name in names:
        SimpleITK.WriteImage(together, str(tmp_path / name))
    for name in ("a.seq.nrrd", "b", *names):
        found = read_frames(tmp_path / name, "CT")
        assert [volume.unit for volume in found] == ["HU"] * FRAMES
        for one, two in zip(found, frames, strict=True):
            assert np.array_equal(one.array, two.array) and np.allclose(one.affine, two.affine, atol=1e-4)
    with pytest.raises(InputError, match="has 4 axes"):
        read_volume(tmp_path / "c.nii.gz")
