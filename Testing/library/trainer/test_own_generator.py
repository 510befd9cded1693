"""`medgen plan`, `train` and `generate` on images without labels: to an installed generator without a mask."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import MedGenLib
from MedGenLib import cli
from MedGenLib.errors import InputError, PackageError
from MedGenLib.evaluation.cohorts import evaluate_cohorts
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.packages.settings import read_settings
from MedGenLib.pipelines.fixed_grid import fitted
from MedGenLib.trainer.image_measurement import MeasuredImages
from MedGenLib.trainer.image_plan import make_image_plan
from MedGenLib.trainer.image_sets import read_images
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.run import Choices, train_own
from MedGenLib.training.data.images import Images
from MedGenLib.training.recipes.vae import Vae

SHAPE, SPACING = (20, 24, 16), (2.0, 2.0, 2.0)
TINY = {"network": '{"widths": [8, 8], "blocks": [1, 0]}', "discriminator": '{"widths": [8, 8], "blocks": [1, 0]}'}


def ball(number: int, kind: str = "MR", radius: float = 6) -> Volume:
    """A ball in its own place: bright in an arbitrary unit, or of 60 HU in air."""
    generator = np.random.default_rng(number)
    axes = [np.arange(n) - (n - 1) / 2 + generator.uniform(-2, 2) for n in SHAPE]
    inside = sum(x**2 for x in np.meshgrid(*axes, indexing="ij")) < radius**2
    noise = generator.normal(0, 1, SHAPE)
    ct, mr = np.where(inside, 60, -1000) + 8 * noise, (inside * 900 + 20 + 5 * noise) * (1 + number % 3)
    array = ct if kind == "CT" else mr
    return Volume(array.astype(np.float32), np.diag([*SPACING, 1.0]), kind)


def images(folder: Path, people: int = 8, kind: str = "MR") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(people):
        write_volume(ball(number, kind), folder / f"p{number}.nii.gz")
    return folder


def in_classes(folder: Path, people: int = 4) -> Path:
    for kind, radius in (("small", 4), ("large", 7)):
        (folder / kind).mkdir(parents=True)
        for number in range(people):
            write_volume(ball(number, radius=radius), folder / kind / f"{kind}{number}.nii.gz")
    return folder


def tiny(recipe: str, steps: int = 4) -> dict[str, str]:
    network = {"network": '{"widths": [8, 8]}'} if recipe == "style-gan" else {}
    return {**TINY, **network, f"steps.{recipe}": str(steps), "batch": "2"}


def words(changes: dict[str, str]) -> list[str]:
    return ["--device", "cpu", *(word for key, value in changes.items() for word in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return images(tmp_path_factory.mktemp("data"), 10)


@pytest.fixture(
    scope="module",
    params=["gan", "wgan-gp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("style-gan", "vae"))],
)
def run(request, data, home, tmp_path_factory) -> tuple[str, Path]:
    """A recipe, and the folder of its run on the command line."""
    recipe, out = request.param, tmp_path_factory.mktemp("runs") / "mine"
    line = ["train", str(data), "--out", str(out), "--name", f"my-{recipe}", "--recipe", recipe, "--modality", "T2w"]
    assert cli.main([*line, *words(tiny(recipe))]) == 0
    return recipe, out


def test_the_model_makes_a_volume_without_a_mask(run, tmp_path, capsys):
    recipe, _ = run
    name, out = f"my-{recipe}", tmp_path / "made.nii.gz"
    model = find(name)
    assert cli.main(["models", "info", name]) == 0 and "generate: noise -> T2w" in capsys.readouterr().out
    assert cli.main(["models", "list"]) == 0
    assert re.search(rf"{name} +1\.0\.0 +noise +T2w +2-2", capsys.readouterr().out)
    command = json.loads((model.folder / "configs/inference.json").read_text())["command"]
    assert command == f"medgen generate -o OUT --model {name}"
    assert model.input.kind == "none" and store.verify(model.folder) == [] and len(model.training.held_out) == 2
    line = ["generate", "--model", name, "-o", str(out), "--seed", "5", "--retries", "0", "--device", "cpu"]
    assert cli.main([*line, "--report", str(tmp_path / "report.json")]) in (0, 3)  # four steps teach little
    made, facts = read_volume(out), json.loads((tmp_path / "made.medgen.json").read_text())
    assert made.shape == SHAPE and made.spacing == pytest.approx(SPACING)
    assert (facts["model"], facts["task"], facts["seed"], facts["unit"]) == (name, "generate", 5, "a.u.")
    assert np.allclose(made.affine[:3, 3], [-2 * (n - 1) / 2 for n in SHAPE]) and made.array.min() >= 0
    checks = json.loads((tmp_path / "report.json").read_text())["output_checks"][0]["figures"]
    assert "image" in checks["mean"] and "range" in checks
    same, other = (MedGenLib.generate(model=name, seed=seed, device="cpu", retries=0).volume for seed in (5, 6))
    assert np.array_equal(same.array, made.array) and not np.array_equal(same.array, other.array)
    large = MedGenLib.generate(model=name, seed=5, size=(40, 24, 16), spacing=(2, 2, 2), device="cpu", retries=0).volume
    assert np.array_equal(large.array[10:30], made.array) and not large.array[:10].any()
    fine = MedGenLib.generate(model=name, seed=5, spacing=(1, 1, 1), device="cpu", retries=0).volume
    assert fine.shape == tuple(2 * n for n in SHAPE)


@pytest.mark.parametrize("run", ["gan"], indirect=True)
def test_what_the_model_does_not_take_is_refused(run, capsys):
    name = f"my-{run[0]}"
    mask = LabelMap(np.ones(SHAPE, np.uint8), np.eye(4))
    for options, sentence in (
        ({"mask": mask}, f"The model '{name}' makes images without a mask; leave it out."),
        ({"label": "large"}, f"The model '{name}' has no classes; leave the label out."),
        ({"guidance": 2.0}, "makes an image in one step from noise; leave guidance out"),
        ({"noise_hu": 8.0}, "leave noise_hu out"),
    ):
        with pytest.raises(InputError, match=re.escape(sentence)):
            MedGenLib.generate(model=name, device="cpu", **options)
    with pytest.raises(InputError, match="'mr-hippocampus' has no classes; leave the label out"):
        MedGenLib.generate(sample("hippocampus_mask.nii.gz"), "mr-hippocampus", label="large")
    with pytest.raises(InputError, match="'mr-hippocampus' needs a mask; give one"):
        MedGenLib.generate(model="mr-hippocampus")


@pytest.mark.parametrize("run", ["gan"], indirect=True)
def test_settings_that_contradict_the_network_are_refused(run):
    for path, value, sentence in (
        (("input", "kind"), "labels", "pipeline 'volume-gan' takes no input; give 'none'"),
        (("preprocessing", "grid"), [20, 24, 24], "grid is [20, 24, 16], but must be [20, 24, 24]"),
        (("preprocessing", "classes"), ["a", "b"], "classes is 0, but must be 2"),
    ):
        medgen = json.loads(json.dumps(find(f"my-{run[0]}").metadata["medgen"]))
        medgen[path[0]][path[1]] = value
        with pytest.raises(PackageError, match=re.escape(sentence)):
            read_settings(medgen).require_consistent(medgen)


@pytest.mark.parametrize("run", ["gan"], indirect=True)
def test_the_page_and_the_card_state_the_measurement(run):
    recipe, out = run
    text, card = (out / "index.html").read_text(), find(f"my-{recipe}").card
    assert text.count("data:image/png") >= 5 and "as published" in text
    assert "Measured on held-out people" in text and "Nothing else was measured" not in card
    assert "of 2 volumes, as many as held-out images" in card
    last = json.loads((out / "generator/validation.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 4 and {"logit", "held_out_logit", "made_logit"} < set(last)


@pytest.mark.slow
def test_a_model_that_has_not_learned_the_images_says_so(tmp_path):
    for number in range(8):
        for name, seed, width in (("real", number, 1), ("alike", number + 20, 1), ("blurs", number, 5)):
            (tmp_path / name).mkdir(exist_ok=True)
            values = gaussian_filter(np.random.default_rng(seed).normal(0, 1, (32, 32, 32)), width)
            image = Volume((500 + 150 * values / values.std()).astype(np.float32), np.eye(4), "MR", "a.u.")
            write_volume(image, tmp_path / name / f"{number}.nii.gz")
    faults = {}
    for name in ("alike", "blurs"):
        compared = evaluate_cohorts(tmp_path / name, tmp_path / "real", device="cpu")
        measured = MeasuredImages(compared, "", 8, 8, ())
        faults[name] = measured.faults
        assert measured.lines()[: len(measured.faults)] == measured.faults
    assert faults["alike"] == []
    assert re.fullmatch(
        "The model has not learned these images: 0% of its volumes .*; train it longer.", *faults["blurs"]
    )


@pytest.mark.parametrize("run", ["wgan-gp"], indirect=True)
def test_a_killed_run_ends_with_the_same_weights(run, data, tmp_path):
    def kill(progress):
        if progress.stage == "training" and progress.step == 3:
            raise KeyboardInterrupt

    recipe, folder = run
    choices = Choices(name="again", recipe=recipe, modality="T2w", changes=tiny(recipe))
    with pytest.raises(KeyboardInterrupt):
        train_own(data, tmp_path / "out", choices, device="cpu", progress=kill)
    assert "again" not in [model.name for model in catalogue()]
    train_own(data, tmp_path / "out", choices, device="cpu")
    store.remove("again")
    one, two = (torch.load(root / "generator/checkpoint.pt", weights_only=True) for root in (folder, tmp_path / "out"))
    for name, averages in one["averages"].items():
        assert all(torch.equal(value, two["averages"][name][key]) for key, value in averages.items())


def test_a_generator_of_classes_makes_the_asked_one(tmp_path, capsys):
    folder = in_classes(tmp_path / "data")
    choices = Choices(name="balls", recipe="style-gan", modality="T2w", changes=tiny("style-gan"))
    made = train_own(folder, tmp_path / "out", choices, device="cpu")
    assert made.settings.classes == ("large", "small")
    for extra, sentence in (
        ([], "makes images of several classes; give large or small as label (--label)"),
        (["--label", "huge"], "has no class 'huge'"),
    ):
        assert cli.main(["generate", "--model", "balls", "-o", str(tmp_path / "x.nii.gz"), *extra]) == 2
        assert sentence in capsys.readouterr().err
    for kind in made.settings.classes:
        line = ["generate", "--model", "balls", "-o", str(tmp_path / f"{kind}.nii.gz"), "--seed", "1", "--retries", "0"]
        assert cli.main([*line, "--label", kind]) in (0, 3)
        assert json.loads((tmp_path / f"{kind}.medgen.json").read_text())["options"]["label"] == kind
    one, two = (read_volume(tmp_path / f"{kind}.nii.gz").array for kind in made.settings.classes)
    assert np.abs(one - two).max() > 1


def test_a_ct_keeps_its_hu(tmp_path):
    folder = images(tmp_path / "data", 4, "CT")
    dataset = read_images(folder)
    plan = make_image_plan(dataset, inspect(dataset), "gan").changed({"steps.gan": "1"})
    assert (plan.modality, plan.unit, plan.background) == ("CT", "HU", -1000)
    reader = Images(plan.config(dataset.cases, tmp_path / "cache"), "cases")
    known = next(case for case in dataset.cases if case.subject not in plan.held_out)
    back = reader.grid.decoded(np.asarray(reader.values[0]))
    image = np.clip(read_volume(known.image).array, -1024, None)
    assert np.abs(back.array - image).max() < 1.5  # half precision, and whole numbers
    chosen = plan.with_values(recipe="vae", steps={"vae": 1}, validation=[known.subject])
    recipe = Vae(chosen.config(dataset.cases, tmp_path / "cache"), tmp_path)
    made, real = recipe.samples(recipe.networks)
    assert np.array_equal(real, reader.values[:1]) and made.shape == real.shape and len(recipe.data.values) == 2


def test_images_are_brought_onto_one_grid():
    values = fitted(np.arange(5.0)[:, None, None] * np.ones((1, 4, 3)), (3, 4, 6), -1)
    assert values.shape == (3, 4, 6) and values[:, 0, 2].tolist() == [1, 2, 3]
    assert (values[:, :, 0] == -1).all() and (values[:, :, 4:] == -1).all() and (values[:, :, 1:4] >= 1).all()


def test_a_rotated_coarse_image_lands_in_the_same_place(tmp_path):
    dataset = read_images(images(tmp_path / "data", 3))
    grid = make_image_plan(dataset, inspect(dataset), "gan").fixed_grid
    image = ball(1)
    image = image.with_array(np.where(np.arange(SHAPE[0])[:, None, None] < 5, 700, image.array))
    turned = Volume(image.array[::-1, :, ::-1].copy(), image.affine @ np.diag([-1, 1, -1, 1.0]))
    for other in (turned, resample(image, (1.0, 2.0, 1.0))):
        assert np.abs(grid.encoded(other) - grid.encoded(image)).mean() < 0.1
    far = grid.encoded(image)[::-1]
    assert np.abs(far - grid.encoded(image)).mean() > 0.15


def table(folder: Path) -> Path:
    in_classes(folder)
    rows = [f"{file.relative_to(folder)},{file.parent.name},{file.stem[-5]}" for file in sorted(folder.rglob("*.gz"))]
    (folder / "cases.csv").write_text("image,class,subject\n" + "\n".join(rows) + "\n")
    return folder / "cases.csv"


def test_layouts(tmp_path, data):
    for path, layout, count, classes in (
        (data, "one folder", 10, ()),
        (in_classes(tmp_path / "classes"), "folders", 8, ("large", "small")),
        (table(tmp_path / "table"), "CSV", 8, ("large", "small")),
        (sample("hippocampi/dataset.json").parent, "Decathlon", 6, ()),
    ):
        found = read_images(path)
        assert (found.layout, len(found.cases), found.classes) == (layout, count, classes) and found.unlabeled
    people = {case.name: case.subject for case in read_images(tmp_path / "table/cases.csv").cases}
    assert people["large1"] == people["small1"] != people["large2"]
    plain = tmp_path / "plain.csv"
    plain.write_text("image,subject\n" + "".join(f"{data}/p{n}.nii.gz,who{n // 2}\n" for n in range(3)))
    assert [case.subject for case in read_images(plain).cases] == ["who0", "who0", "who1"]


def test_bids_without_labels_and_folders_of_cases(tmp_path):
    for number in range(3):
        for what in ("T1w", "T2w"):
            (tmp_path / f"bids/sub-{number}/anat").mkdir(parents=True, exist_ok=True)
            write_volume(ball(number), tmp_path / f"bids/sub-{number}/anat/sub-{number}_{what}.nii.gz")
            images(tmp_path / f"cases/person{number}", 1)
    for channel, modality in ((None, "T1w"), ("T2w", "T2w")):
        found = read_images(tmp_path / "bids", channel)
        assert (found.layout, found.modality, found.classes) == ("BIDS", modality, ())
        assert [case.subject for case in found.cases] == ["0", "1", "2"] and modality in found.cases[0].image.name
    with pytest.raises(InputError, match=r"no images \*_PDw; choose T1w or T2w as --channel"):
        read_images(tmp_path / "bids", "PDw")
    with pytest.raises(InputError, match="class 'person0' of .* has images of one person only"):
        read_images(tmp_path / "cases")


def test_data_that_cannot_be_used_are_refused(data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for path, extra, sentence in (
        (tmp_path / "empty", [], "folder for each class"),
        (images(tmp_path / "one", 1), ["--modality", "T2w"], "are of one person"),
        (data, ["--from", "mr-hippocampus"], "--from does not belong to the recipe gan"),
        (data, ["--modality", "T2w", "--set", "grid=[21,24,16]"], "side of 21 voxels; give multiples of 4"),
        (data, ["--modality", "T2w", "--budget", "1s"], "too few to be useful"),
    ):
        assert cli.main(["plan", str(path), "--recipe", "gan", "--device", "cpu", *extra]) == 2
        assert re.search(sentence, printed := capsys.readouterr().err), printed
