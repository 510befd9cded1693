"""`medgen benchmark`: several recipes on one data set, in one table."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_own_translator import TINY, apart, pairs, words

from MedGenLib import cli
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import catalogue
from MedGenLib.trainer.benchmark import benchmark
from MedGenLib.trainer.run import Choices

SMALL = {
    **{f"{recipe}.{key}": value for recipe in ("regression", "pix2pix") for key, value in TINY.items()},
    "cyclegan.network.width": "8",
    "cyclegan.network.blocks": "1",
    "discriminator.width": "8",
    "regression.steps.regression": "4",
    "cyclegan.steps.cyclegan": "4",
    "pix2pix.steps.pix2pix": "4",
    "pix2pix.learning_rate": "1e30",  # its training fails
    "cut.network.width": "8",  # which is not compared
}
RECIPES = ("regression", "cyclegan", "pix2pix")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def out(data, home, tmp_path_factory) -> Path:
    """A benchmark that was killed while its second recipe trained, and was started again."""
    folder, trained = tmp_path_factory.mktemp("runs") / "all", []

    def kill(progress):
        if progress.stage == "training" and progress.step == 2:
            trained.append(progress)
            if len(trained) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(data, folder, RECIPES, Choices(name="three", changes=SMALL), "cpu", progress=kill)
    before = (folder / "regression/translator/checkpoint.pt").stat().st_mtime_ns
    assert (
        "| regression | done |" in (folder / "benchmark.md").read_text()
        and not (folder / "cyclegan/cost.json").exists()
    )
    options = ["--recipes", ",".join(RECIPES), "--out", str(folder), "--name", "three", *words(SMALL)]
    assert cli.main(["benchmark", str(data), *options]) == 1  # one recipe failed
    assert (folder / "regression/translator/checkpoint.pt").stat().st_mtime_ns == before
    return folder


def test_each_recipe_has_a_row_with_its_figures_and_the_cost_of_one_volume(out):
    with (out / "benchmark.csv").open(newline="") as stream:
        rows = {row["recipe"]: row for row in csv.DictReader(stream)}
    assert tuple(rows) == RECIPES
    measured = {row["name"]: row for row in json.loads((out / "regression/measured.json").read_text())["rows"]}
    assert float(rows["regression"]["MAE in HU"]) == pytest.approx(measured["MAE"]["value"])
    evaluated = json.loads((out / "regression/evaluation/p3.json").read_text())
    assert ["MAE", "HU", measured["MAE"]["value"]] in evaluated["figures"]
    for recipe, parameters in (("regression", 0.1), ("cyclegan", 0.1)):
        row = rows[recipe]
        assert 0 < float(row["Parameters in million"]) < parameters and row["Steps"] == "4"
        assert float(row["One volume in s"]) > 0 and float(row["Memory for it in MiB"]) > 100
    assert {"three-regression", "three-cyclegan"} <= {model.name for model in catalogue()}
    assert len({tuple(json.loads((out / r / "plan.json").read_text())["held_out"]) for r in RECIPES}) == 1


def test_a_failed_training_is_a_visible_row(out):
    text = (out / "benchmark.md").read_text()
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert len({line.count("|") for line in lines.values()}) == 1
    assert lines["pix2pix"].startswith("| pix2pix | failed | –") and "| cyclegan | done |" in text
    assert "- pix2pix: The translation loss became nan" in text and "- regression: The model misses" in text
    page = (out / "index.html").read_text()
    assert "pix2pix: The translation loss became nan" in page and "failed" in page
    assert "three-pix2pix" not in {model.name for model in catalogue()}


def test_the_page_shows_the_recipes_side_by_side(out):
    page = (out / "index.html").read_text()
    assert "p3: Source, regression, cyclegan, Real image." in page
    (data_,) = re.findall(r"data:image/png;base64,([^']+)", page)
    shown = np.asarray(Image.open(BytesIO(base64.b64decode(data_))).convert("L"))
    rows = np.array_split(shown[:, : shown.shape[1] // 3], 4)  # the axial plane of each of four images
    _, regression, cyclegan, real = (float((row > 250).mean()) for row in rows)
    assert real > max(regression, cyclegan) + 0.05  # bone is white; neither recipe has learned it
    assert len({round(float(row.std()), 1) for row in rows}) == 4


def test_cases_are_prepared_once_for_all_recipes(out):
    facts = [file for file in (out / "cache").iterdir() if file.suffix == ".json"]
    assert len(facts) == 4 and (out / "cyclegan/cache").resolve() == (out / "cache").resolve()


@pytest.mark.parametrize(
    ("recipes", "extra", "sentence"),
    [
        ("cut,pix2pix", (), "The recipe pix2pix needs pairs"),
        ("cut,latent-flow", (), "which has images to translate; take regression or pix2pix or"),
        ("cut,pix3pix", (), "pix3pix"),
        (" , ", (), "--recipes names no recipe"),
        ("cut", ("--from", "ct-tissue"), "--from"),
        ("cut", ("--budget", "1s"), "too few to be useful"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_the_training(tmp_path, capsys, recipes, extra, sentence):
    folder = apart(tmp_path / "data")
    options = ["--recipes", recipes, "--out", str(tmp_path / "out"), "--device", "cpu", *extra]
    assert cli.main(["benchmark", str(folder), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_a_path_deletes_nothing(data, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for recipe in (str(mine), str(mine / "notes.txt"), "..", ".", "../pix2pix"):
        options = ["--recipes", f"regression,{recipe}", "--out", str(tmp_path / "out"), "--device", "cpu"]
        assert cli.main(["benchmark", str(data), *options]) == 2
        assert recipe in capsys.readouterr().err
    assert (mine / "notes.txt").read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_benchmark_that_is_stopped_while_it_plans_leaves_nothing(data, tmp_path):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark(data, tmp_path / "out", ["regression"], Choices(), "cpu", progress=stop)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(out, data, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for folder, extra, sentence in (
        (tmp_path, (), "is not empty and holds no benchmark"),
        (out, ("--budget", "3h"), "of other data, another budget"),
    ):
        options = ["--recipes", "regression", "--out", str(folder), "--device", "cpu", *extra]
        assert cli.main(["benchmark", str(data), *options]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_generators_with_and_without_masks_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr("MedGenLib.trainer.benchmark.STEPS", 2)
    crops = tmp_path / "crops"
    for image in sorted((sample("hippocampi/dataset.json").parent / "imagesTr").iterdir())[:3]:
        for kind, source in (("images", image), ("labels", image.parents[1] / "labelsTr" / image.name)):
            (crops / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, crops / kind / image.name)
    tiny = {"widths": "[8, 16]", "blocks": "[1, 1]", "autoencoder_width": "8", "batch": "1"}
    tiny |= {"steps.autoencoder": "2", "steps.latent-flow": "2"}
    changes = {f"latent-flow.{key}": value for key, value in tiny.items()}
    changes |= {f"gan.{part}": '{"widths": [8, 8], "blocks": [1, 0]}' for part in ("network", "discriminator")}
    names = [path.name.removesuffix(".nii.gz") for path in sorted((crops / "images").iterdir())]
    changes |= {"gan.steps.gan": "2", "gan.batch": "2", "held_out": json.dumps(names[1:])}
    rows = benchmark(crops, tmp_path / "out", ["latent-flow", "gan"], Choices(name="crops", changes=changes), "cpu")
    for row, steps in zip(rows, (4, 2), strict=True):
        figures = {figure.name: figure.value for figure in row.figures}
        assert figures["Steps"] == steps and figures["One volume"] > 0 and figures["Parameters"] > 0
        dice = [name for name in figures if name.startswith("Dice after learning from")]
        assert len(dice) == (3 if row.recipe == "latent-flow" else 0) and all(0 <= figures[name] <= 1 for name in dice)
    page = (tmp_path / "out/index.html").read_text()
    assert "latent-flow, Real image." in page and re.search(r"hippocampus_\d+: gan\.", page)
