"""`medgen train --recipe image-classifier` and `medgen classify`: calibrated models of images with classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_classes import chexpert, picture, single, table

from MedGenLib import classify, cli
from MedGenLib.classification import NO_DIAGNOSIS, prepared, scores_of, shares
from MedGenLib.classification.grid import network_input, on_grid
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.pictures import read_image
from MedGenLib.metrics.classification import fitted_temperature
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network
from MedGenLib.progress import Progress
from MedGenLib.trainer.class_inspection import inspect_classes
from MedGenLib.trainer.class_plan import make_classifier_plan
from MedGenLib.trainer.classes import read_classes
from MedGenLib.trainer.run import Choices, train_own

TINY = {"network.width": "8", "network.blocks": "[2, 2]", "steps.image-classifier": "40", "learning_rate": "0.004"}
SIDE = 40
SPOT = (slice(6, 16), slice(22, 32))
"""Rows and columns that are bright in pictures of the class "ill"."""


def pixels(person: int, ill: bool) -> np.ndarray:
    generator = np.random.default_rng([person, ill])
    image = generator.normal(90, 25, (SIDE, SIDE))
    image[SPOT] += 100 * ill
    return image.clip(0, 255).astype(np.uint8)


def draw(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


def pictures(folder: Path, people: int = 8) -> Path:
    for person in range(people):
        for ill in (False, True):
            draw(folder / ("ill" if ill else "well") / f"p{person}{'i' if ill else 'w'}.png", pixels(person, ill))
    return folder


def words(changes: dict[str, str]) -> list[str]:
    return ["--device", "cpu", *(word for key, value in changes.items() for word in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, home, tmp_path_factory) -> Path:
    """The folder of a run on the command line."""
    out = tmp_path_factory.mktemp("runs") / "spots"
    line = ["train", str(data), "--recipe", "image-classifier", "--out", str(out), "--name", "spots", *words(TINY)]
    assert cli.main(line) == 0
    return out


def volume(person: int, ill: bool) -> Volume:
    """A CT of a ball of water, with a dense one inside if ill."""
    generator = np.random.default_rng([person, ill])
    i, j, k = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in (32, 36, 34)], indexing="ij")
    hu = np.where(i**2 + j**2 + k**2 < 15**2, 40.0, -1000.0) + generator.normal(0, 15, i.shape)
    hu[(i**2 + j**2 + k**2 < 13**2) & (k < -9)] = -80
    hu[(i + 3) ** 2 + j**2 + k**2 < 25 + ill * 11] += 250 * ill
    return Volume(hu.clip(-1024).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]), "CT", "HU")


def plan_for(folder: Path, **choices):
    dataset = read_classes(folder)
    return make_classifier_plan(dataset, inspect_classes(dataset), **choices)


def test_held_out_people_are_measured_and_the_card_says_it(run):
    model = find("spots")
    assert model.task == "classify" and store.verify(model.folder) == []
    plan = json.loads((run / "plan.json").read_text())
    assert set(plan["held_out"]) == set(model.training.held_out)
    assert not set(plan["held_out"]) & set(plan["validation"]) and len(plan["held_out"]) == 4
    figures = {row["name"]: row for row in json.loads((run / "measured.json").read_text())["rows"]}
    assert figures["AUC of ill"]["value"] > 0.9 and 0 < figures["AUC of ill"]["low"] < figures["AUC of ill"]["high"]
    assert figures["Accuracy"]["low"] < figures["Accuracy"]["value"]  # an interval also where all are right
    for text in ("4 images of 4 people", "Calibration error", "True class ill; found: ill 2", NO_DIAGNOSIS):
        assert text in model.card
    assert "The images do not show real patients" not in model.card
    page = (run / "index.html").read_text(encoding="utf-8")
    assert "Reliability" in page and "True class" in page
    rows = (run / "evaluation" / "predictions.csv").read_text().splitlines()
    assert rows[0] == "case,person,ill,well" and len(rows) == 5


def test_the_temperature_is_fitted_to_the_people_for_validation(run, data):
    """With the doubt that few cases leave; the people kept out are not in the cache."""
    model, plan = find("spots"), json.loads((run / "plan.json").read_text())
    assert np.load(run / "cache" / "images.npy").shape == (12, 1, 48, 48)
    net, several = network(model, "classifier", torch.device("cpu")), model.settings.several
    cases = [case for case in read_classes(data).cases if case.subject in plan["validation"]]
    scores = np.concatenate([scores_of(net, prepared(read_image(c.image), model)[1][None]) for c in cases])
    wanted = np.array([case.targets for case in cases]) * (1 - 1 / 3) + 1 / 6  # 2 / (4 + 2) of them in doubt
    fitted = fitted_temperature(lambda t: -(wanted * np.log(shares(scores, t, several))).sum(1))
    assert model.settings.temperature == pytest.approx(fitted, rel=0.02)  # of weights before they are stored


def test_classify_writes_probabilities_and_a_map_on_the_grid_of_the_image(run, tmp_path, capsys):
    image = draw(tmp_path / "new.png", pixels(50, True))
    files = [str(tmp_path / name) for name in ("found.json", "map.nii.gz")]
    assert cli.main(["classify", str(image), "--model", "spots", "-o", files[0], "--saliency", files[1]]) == 0
    shown = capsys.readouterr()
    assert "ill" in shown.out and NO_DIAGNOSIS in shown.err
    found = json.loads(Path(files[0]).read_text())
    assert found["probabilities"]["ill"] > 0.6 and sum(found["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert found["target"] == "ill" and found["image"] == "new.png" and NO_DIAGNOSIS in found["notes"]
    saliency = read_volume(files[1])
    assert saliency.shape == (SIDE, SIDE, 1)
    rows = saliency.array[..., 0].T
    inside = np.zeros_like(rows, bool)
    inside[SPOT] = True
    assert rows[inside].mean() > 3 * abs(rows[~inside].mean()) and inside[np.unravel_index(rows.argmax(), rows.shape)]
    other = classify(image, model="spots", target="well", saliency=True, device="cpu")
    assert other.probabilities == found["probabilities"] and other.saliency.array[..., 0].T[inside].mean() < 0


def test_a_volume_for_a_model_of_pictures_and_other_bad_input_is_refused(run, tmp_path, capsys):
    write_volume(volume(0, True), tmp_path / "ct.nii.gz")
    constant = draw(tmp_path / "constant.png", np.full((SIDE, SIDE), 9, np.uint8))
    small = draw(tmp_path / "small.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    image = draw(tmp_path / "a.png", pixels(1, True))
    for words_, sentence in (
        ([str(tmp_path / "ct.nii.gz")], "reads single slices or pictures of one plane, but the image has 32 x 36 x 34"),
        ([str(constant)], "All pixels of the image are the same"),
        ([str(small)], "only 6 x 5 x 1 voxels"),
        ([str(image), "--target", "tall"], "has no class 'tall'; choose one of ill, well"),
        ([str(image), "--model", "ct-tissue"], "needs a mask"),
    ):
        assert cli.main(["classify", "--model", "spots", *words_, "-o", str(tmp_path / "no.json")]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") <= 2
    assert not (tmp_path / "no.json").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_weights(run, data, tmp_path):
    class Killed(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.stage == "training" and progress.step == 23:
            raise Killed

    choices = Choices(name="again", recipe="image-classifier", changes=TINY)
    with pytest.raises(Killed):
        train_own(data, tmp_path / "out", choices, device="cpu", progress=stop)
    made = train_own(data, tmp_path / "out", choices, device="cpu")
    weights = "models/classifier.safetensors"
    assert made.checksums[weights] == find("spots").checksums[weights]


def test_volumes_in_hu_and_several_classes(tmp_path):
    """CT keeps its HU; each class is calibrated and measured by itself; an unknown class teaches nothing."""
    rows = []
    for person in range(9):
        for ill in (False, True):
            name = f"p{person}{ill:d}.nii.gz"
            write_volume(volume(person, ill), tmp_path / name)
            classes = "|".join(["old"] * (person % 2) + ["dense"] * ill) or "No Finding"
            rows.append({"image": name, "class": classes, "subject": f"p{person}"})
    changes = {**TINY, "steps.image-classifier": "16"}
    choices = Choices(name="dense", recipe="image-classifier", changes=changes)
    made = train_own(table(tmp_path / "t.csv", rows), tmp_path / "out", choices, device="cpu")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["modality"] == "CT" and plan["shape"] == [32, 48, 48] and plan["classes"] == ["dense", "old"]
    found = classify(volume(30, True), model="dense", device="cpu")
    assert found.several and found.saliency is None and 0 < found.probabilities["dense"] < 1
    assert (
        found.probabilities["dense"] > classify(volume(30, False), model="dense", device="cpu").probabilities["dense"]
    )
    assert "Class dense; true, found" in made.card
    mr = Volume(np.abs(volume(1, True).array).astype(np.float32), volume(1, True).affine, "T1w")
    with pytest.raises(InputError, match="The image is T1w, but the model 'dense' needs CT in HU"):
        classify(mr, model="dense")
    with pytest.raises(InputError, match="reads volumes, but the image has"):
        classify(draw(tmp_path / "a.png", pixels(1, True)), model="dense")


def test_problems_are_stated_by_case(tmp_path, capsys):
    folder = pictures(tmp_path / "set", 4)
    draw(folder / "ill" / "copy.png", pixels(0, True))
    draw(folder / "ill" / "even.png", np.full((SIDE, SIDE), 5, np.uint8))
    (folder / "well" / "broken.png").write_bytes(b"none")
    for person in range(2):
        draw(folder / "rare" / f"r{person}.png", pixels(90 + person, False))
    write_volume(volume(0, False), folder / "well" / "ct.nii.gz")
    found = inspect_classes(read_classes(folder))
    assert found.people == {"ill": 4, "well": 4} and found.dropped == ("rare",)
    sentences = {problem.case: problem.sentence for problem in found.problems}
    assert set(sentences) == {"ill-p0i", "ill-even", "well-broken", "well-ct", "rare-r0", "rare-r1"}
    assert "copy of that of the case ill-copy" in sentences["ill-p0i"] and "All voxels are 5" in sentences["ill-even"]
    assert (
        sentences["well-ct"] == "The image is a CT volume, but most are pictures."
        and "3 people" in sentences["rare-r0"]
    )
    for options, words_ in (
        (["--task", "classify"], "6 cases of"),
        (["--task", "classify", "--recipe", "cut"], "--recipe cut does not belong to a classifier"),
        (["--recipe", "cut", "--uncertain", "ones"], "--uncertain belongs to --recipe image-classifier"),
    ):
        assert cli.main(["plan", str(folder), *options]) == 2
        assert words_ in capsys.readouterr().err


def test_people_are_on_one_side_and_stated_splits_count(tmp_path):
    rows = []
    for person in range(12):
        draw(tmp_path / f"{person}.png", pixels(person, person % 2 == 0))
        split = ("train", "validation", "test")[person // 4]
        rows.append({"image": f"{person}.png", "class": "abc"[person % 2], "subject": f"p{person}", "split": split})
    rows[11]["subject"] = "p0"
    found = inspect_classes(read_classes(table(tmp_path / "t.csv", rows)))
    assert [(problem.case, problem.sentence) for problem in found.problems] == [
        ("0", "The person p0 is in test, too, and counts only there.")
    ]
    plan = plan_for(tmp_path / "t.csv")
    assert plan.validation == ("p4", "p5", "p6", "p7") and set(plan.held_out) == {"p0", "p8", "p9", "p10"}
    for row in rows:
        row["split"] = ""
    plan = plan_for(table(tmp_path / "t.csv", rows))
    assert not set(plan.validation) & set(plan.held_out) and len(plan.held_out) == 2
    for number, row in enumerate(rows):
        row["split"] = "test" if number < 8 else "train"
    with pytest.raises(InputError, match="no people for the training, the calibration or the measurement"):
        plan_for(table(tmp_path / "t.csv", rows))


def test_single_ct_slices_keep_their_hu(tmp_path):
    tags = {"Modality": "CT", "PhotometricInterpretation": "MONOCHROME2", "RescaleSlope": 1, "RescaleIntercept": -1024}
    for person in range(3):
        for ill in (False, True):
            folder = tmp_path / ("ill" if ill else "well")
            folder.mkdir(exist_ok=True)
            hu = volume(person, ill).array[:, :, 17].T.astype(int)
            single(folder / f"p{person}{ill:d}.dcm", hu + 1024, PixelSpacing=[2, 2], **tags)
    plan = plan_for(tmp_path)
    assert (plan.modality, plan.codec, plan.whole, plan.shape) == ("CT", "hounsfield", True, (48, 48, 1))
    image = read_image(tmp_path / "ill" / "p01.dcm")
    whole, soft = network_input(image, on_grid(image, plan.shape, plan.spacing_mm, plan.whole), plan.codec)
    assert whole.shape == (48, 48)
    water = (whole > -0.05) & (whole < 0.13)
    assert np.median(1000 * whole[water]) == pytest.approx(40, abs=8)
    assert np.median(200 * soft[water]) == pytest.approx(0, abs=8) and 1000 * whole.max() == pytest.approx(290, abs=60)
    assert whole[0, 0] < -0.95 and soft[0, 0] == -1


def test_uncertain_findings_are_known_to_the_plan(tmp_path):
    folder = chexpert(tmp_path / "CheXpert-v1.0-small")
    lines = (folder / "train.csv").read_text().splitlines()
    for person in range(10, 20):
        view = f"train/patient{person:05d}/study1/view1_frontal.jpg"
        picture(folder / view)
        values = ",," + ("1.0" if person % 2 else "-1.0" if person == 10 else "0.0") + "," * 11
        lines.append(f"CheXpert-v1.0-small/{view},Male,50,Frontal,AP,{values}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    dataset = read_classes(folder)
    plan = plan_for(folder).changed({"steps.image-classifier": "1"})
    assert plan.classes == ("Cardiomegaly",) and plan.held_out == ("patient64541",)
    targets = {name: target for name, _, _, target in plan.config(dataset.cases, tmp_path / "cache")["data"]["cases"]}
    assert [targets[f"patient{person:05d}-study1-view1_frontal"] for person in (10, 11, 12)] == [[None], [1], [0]]
