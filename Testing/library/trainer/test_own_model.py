"""`medgen plan` and `medgen train DATASET`: from the sample crops to an installed, measured model."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from MedGenLib import cli, generate
from MedGenLib.errors import InputError
from MedGenLib.imaging.texture import texture
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.networks import FlowUNet
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.pipelines.loading import network as trained_network
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.layouts import read_dataset
from MedGenLib.trainer.measurement import measure
from MedGenLib.trainer.plan import TrainingPlan, make_plan, with_budget
from MedGenLib.trainer.run import Choices, plan_of, train_own
from MedGenLib.training.data.volumes import Volumes
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes.latent_flow import LatentFlowRecipe
from MedGenLib.training.warm_start import copy_autoencoder, load_flow

TINY = {
    "widths": "[8, 16]",
    "blocks": "[1, 1]",
    "autoencoder_width": "8",
    "batch": "1",
    "steps.autoencoder": "8",
    "steps.latent-flow": "8",
}


@pytest.fixture(scope="module")
def crops() -> Path:
    return sample("hippocampi/dataset.json").parent


@pytest.fixture(scope="module")
def run(crops, home, tmp_path_factory) -> Path:
    """The folder of a run on the command line."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    words = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    assert cli.main(["train", str(crops), "--out", str(out), "--name", "mine", "--device", "cpu", *words]) == 0
    return out


def test_the_model_is_installed_and_generates(run):
    model = find("mine")
    assert [label.name for label in model.input.labels.values()] == ["anterior hippocampus", "posterior hippocampus"]
    assert model.license.spdx == "CC-BY-SA-4.0" and store.verify(model.folder) == []
    mask = read_label_map(sample("hippocampus_mask.nii.gz"))
    result = generate(mask, "mine", seed=1, preset="draft", retries=0, device="cpu")
    assert result.volume.geometry.is_close(mask.geometry) and np.isfinite(result.volume.array).all()


def test_the_card_states_what_was_measured_on_people_kept_out(run):
    model, plan = find("mine"), TrainingPlan.read(run / "plan.json")
    assert model.training.held_out == plan.held_out and len(plan.held_out) == 1
    assert "## Measured on held-out people" in model.card and "Nothing else was measured" not in model.card
    assert "0 of 1 volumes" in model.card or "1 of 1 volumes" in model.card
    (name,) = plan.held_out
    image = read_volume(plan.dataset + f"/imagesTr/{name}.nii.gz").array.astype(float)
    labels = read_label_map(plan.dataset + f"/labelsTr/{name}.nii.gz").array
    real, _ = json.loads((run / f"evaluation/{name}.json").read_text())["labels"]["2"]
    assert real == pytest.approx((image[labels == 2].mean() - image.mean()) / image.std(), rel=1e-4)
    assert f"in real images {real:.3g} SD from the mean of the image" in model.card
    made = sorted(path.name for path in (run / "evaluation/synthetic").iterdir())
    assert made == [f"{name}.nii.gz"]
    trained = {Path(entry[1]).name for entry in plan.config(read_dataset(plan.dataset).cases, run)["data"]["cases"]}
    assert len(trained) == 5 and f"{name}.nii.gz" not in trained


def test_the_page_shows_curves_pictures_and_reasons(run):
    text = (run / "index.html").read_text()
    assert text.count("data:image/png") >= 5 and "because there are at most two labels" in text
    assert "Measured on held-out people" in text
    steps = [json.loads(line)["step"] for line in (run / "flow/validation.jsonl").read_text().splitlines()]
    assert steps[-1] == 8 and len(list((run / "flow/pictures").iterdir())) == len(set(steps))


def test_a_second_call_does_nothing_and_other_data_are_refused(run, crops, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert train_own(crops, run, device="cpu").name == "mine"
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    other = shutil.copytree(crops, tmp_path / "other")
    with pytest.raises(InputError, match="holds a run on"):
        train_own(other, run, device="cpu")
    with pytest.raises(InputError, match="another plan"):
        train_own(crops, run, Choices(name="yours"), device="cpu")
    assert train_own(crops, run, Choices(name="mine", changes=TINY), device="cpu").name == "mine"
    with pytest.raises(InputError, match="another plan"):
        train_own(crops, run, Choices(changes={"batch": "3"}), device="cpu")
    with pytest.raises(InputError, match="holds no run"):
        train_own(crops, crops, device="cpu")


@pytest.mark.parametrize("stage", [pytest.param("autoencoder", marks=pytest.mark.slow), "latent-flow"])
def test_a_run_killed_in_any_stage_ends_with_the_same_weights(run, crops, tmp_path, stage):
    choices = Choices(name=f"again-{stage}", changes=TINY)
    steps = []

    def kill(progress):
        steps.append(progress)
        training = [p for p in steps if p.stage == "training" and p.step == 0]
        if (
            len(training) == (1 if stage == "autoencoder" else 2)
            and progress.stage == "training"
            and progress.step == 5
        ):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_own(crops, tmp_path / "out", choices, device="cpu", progress=kill)
    assert choices.name not in [model.name for model in catalogue()]
    unfinished = tmp_path / "out" / "autoencoder" / ".0a1b2c3d.part.checkpoint.pt"
    unfinished.write_bytes(b"what a kill in the middle of a write leaves")
    train_own(crops, tmp_path / "out", choices, device="cpu")
    assert not unfinished.exists()
    for folder in ("autoencoder", "flow"):
        one, two = (torch.load(root / folder / "checkpoint.pt", weights_only=True) for root in (run, tmp_path / "out"))
        for name, averages in one["averages"].items():
            assert all(torch.equal(value, two["averages"][name][key]) for key, value in averages.items())


@pytest.fixture
def tumors(crops, tmp_path) -> Path:
    """Three crops whose posterior part is 1, and a tumor in it 2."""
    for number, path in enumerate(sorted((crops / "labelsTr").iterdir())[:3]):
        labels = read_label_map(path)
        array = (labels.array == 2).astype(np.uint8)
        index = np.argwhere(array)[number * 50]
        array[tuple(slice(i - 1, i + 2) for i in index)] = 2
        for kind in ("imagesTr", "labelsTr"):
            (tmp_path / kind).mkdir(exist_ok=True)
        shutil.copy(crops / "imagesTr" / path.name, tmp_path / "imagesTr")
        write_volume(LabelMap(array, labels.affine), tmp_path / "labelsTr" / path.name)
    names = {"background": 0, "posterior hippocampus": 1, "cyst": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1"}, "labels": names}))
    return tmp_path


def test_an_installed_model_is_continued_with_a_new_label(run, tumors, tmp_path):
    choices = Choices(name="with-cyst", license="CC0-1.0", start="mine", changes={"steps.latent-flow": "4"})
    made = train_own(tumors, tmp_path / "out", choices, device="cpu")
    before = find("mine")
    names = {value: label.name for value, label in made.input.labels.items()}
    assert names == {1: "anterior hippocampus", 2: "posterior hippocampus", 3: "cyst"}
    assert TrainingPlan.read(tmp_path / "out/plan.json").numbers == {1: 2, 2: 3}
    assert [item.subjects for item in made.training.data] == [5, 2]
    assert made.license.spdx == "CC-BY-SA-4.0 AND CC0-1.0"
    one, two = (trained_network(model, "autoencoder", torch.device("cpu")) for model in (before, made))
    x = torch.randn(1, 1, 16, 16, 16)
    assert torch.allclose(one.encode(x), two.encode(x), atol=0.05)
    share = re.search(r"differ from those of mine by (\d\.\d\d) of what its own seeds differ by", made.card)
    assert 0 < float(share[1]) < 1  # four steps change little


def test_the_weights_of_a_continued_package_are_drawn_back(run, tumors, tmp_path):
    dataset = read_dataset(tumors)
    changes = {"steps.latent-flow": "1", "keep": "0.5"}
    plan, _ = plan_of(dataset, Choices(start="mine", license="CC0-1.0", changes=changes), "cpu")
    copy_autoencoder("mine", tmp_path / "autoencoder")
    chooses = next(case.subject for case in dataset.cases if case.subject not in plan.held_out)
    config = plan.with_values(validation=[chooses]).config(dataset.cases, tmp_path / "cache")
    recipe = LatentFlowRecipe(config, tmp_path / "flow")
    (made,), (real,) = recipe.samples(recipe.networks)
    assert made.shape == real.shape == plan.patch and np.isfinite(made).all() and real.any()
    assert [case[0] for case in config["data"]["validation_cases"]] == [chooses]
    assert chooses not in [case[0] for case in config["data"]["cases"]]
    batch = recipe.batch(Draw.of(0, 0), 1)
    assert recipe.objectives[0].loss(batch, Draw.of(0, 0))[1]["moved"] == 0
    bias = recipe.networks["flow"].leave.bias
    bias.data += 0.2
    loss, figures = recipe.objectives[0].loss(batch, Draw.of(0, 0))
    assert figures["moved"] == pytest.approx(8 * 0.04, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(figures["velocity"] + 0.25 * figures["moved"], rel=1e-4)


def test_a_continued_network_starts_where_the_package_ended(run):
    package = find("mine")
    old = trained_network(package, "flow", torch.device("cpu"))
    arguments = dict(package.networks["flow"].arguments)
    new = FlowUNet(**{**arguments, "maps": arguments["maps"] + 2}).eval()
    load_flow(new, "mine", 2)
    maps = torch.rand(1, arguments["maps"], 16, 16, 16)
    more = torch.cat([maps[:, :-3], torch.rand(1, 2, 16, 16, 16), maps[:, -3:]], 1)  # new labels have no effect yet
    point, time = torch.randn(1, 8, 8, 8, 8), torch.tensor([0.3])
    with torch.no_grad():
        assert torch.allclose(
            old(point, time, old.encode_mask(maps)), new(point, time, new.encode_mask(more)), atol=1e-4
        )


@pytest.mark.parametrize(("start", "sentence"), [("ct-tissue", "cannot be continued"), ("mine", "makes MR, but")])
def test_what_cannot_be_continued(run, tmp_path, start, sentence):
    with pytest.raises(InputError, match=sentence):
        train_own(body(tmp_path / "data"), tmp_path / "out", Choices(start=start), device="cpu")
    assert not (tmp_path / "out").exists()


def body(folder: Path, people: int = 3) -> Path:
    """CT of a body with a liver of 100 HU, fat of -100 HU and spine of 700 HU; only the liver has a label."""
    for number in range(people):
        generator = np.random.default_rng(number)
        hu = np.full((40, 36, 24), -1000.0)
        hu[4:36, 4:32, 1:23] = -100
        hu[7:33, 7:29, 1:23] = 50
        hu[18:22, 8:12, 1:23] = 700
        labels = np.zeros(hu.shape, np.uint8)
        labels[10:20, 14:24, 6:18] = 7
        hu[labels == 7] = 100
        hu[hu > -1000] += generator.normal(0, 10, np.count_nonzero(hu > -1000))
        for kind, item in (
            ("images", Volume(hu.round().astype(np.int16), np.diag([2.0, 2, 2, 1]))),
            ("labels", labels),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            made = item if isinstance(item, Volume) else LabelMap(item, np.diag([2.0, 2, 2, 1]))
            write_volume(made, folder / kind / f"p{number}.nii.gz")
    return folder


def planned(folder: Path, **changes) -> tuple[TrainingPlan, tuple]:
    dataset = read_dataset(folder)
    plan = replace(make_plan(dataset, inspect(dataset)), steps={"autoencoder": 1, "latent-flow": 1}, **changes)
    return plan, dataset.cases


def test_a_ct_keeps_its_hu(tmp_path):
    plan, cases = planned(body(tmp_path / "data"))
    assert (plan.modality, plan.unit, plan.outside, plan.background) == ("CT", "HU", "anatomy", -1000)
    assert plan.numbers == {7: 1} and plan.labels == {1: "label 7"}
    reader = Volumes(plan.config(cases, tmp_path / "cache"), [16, 16, 16])
    x, labels = reader.cases[0].values, reader.cases[0].labels
    hu = reader.codec.decode(np.asarray(x, np.float32), labels)
    for place, expected in (((13, 18, 10), 100), ((5, 5, 10), -100), ((19, 9, 10), 700), ((1, 1, 1), -1000)):
        around = tuple(slice(p - 1, p + 2) for p in place)
        assert hu[around].mean() == pytest.approx(expected, abs=12)
    assert reader.statistics()["1"]["mean"] == pytest.approx(100, abs=2)


def test_a_ct_model_gets_intervals_of_five_people(tmp_path):
    plan, cases = planned(body(tmp_path / "data", 5))
    held = [case.subject for case in cases]
    for number, people in ((4, None), (5, 5)):
        measured = measure(find("ct-tissue"), replace(plan, held_out=held[:number]), cases, tmp_path / "m", "cpu")
        assert (measured.intervals and measured.intervals.people) == people
    assert measured.intervals.tissues["fat"] > 10


def test_labels_that_cover_the_image_have_their_own_scale(tmp_path):
    folder = body(tmp_path / "data")
    for path in (folder / "images").iterdir():
        image = read_volume(path, modality="CT")
        labels = np.digitize(image.array, [-500, 0, 75, 300]).astype(np.uint8)
        write_volume(LabelMap(labels, image.affine), folder / "labels" / path.name)
    plan, _ = planned(folder)
    assert plan.outside == "background" and plan.ablation == 0
    assert plan.codec["centers"] == pytest.approx([-1000, -100, 50, 100, 700], abs=12)


def test_a_brain_without_background_is_standardized_inside_its_labels(tmp_path):
    for number, margin in enumerate((2, 12)):
        shape = (20 + 2 * margin,) * 3
        labels, image = np.zeros(shape, np.uint8), np.zeros(shape, np.float32)
        part = (slice(margin, margin + 20),) * 3
        labels[part], image[part] = 1, np.random.default_rng(number).normal(300, 30, (20, 20, 20))
        for kind, item in (("images", Volume(image, np.eye(4))), ("labels", LabelMap(labels, np.eye(4)))):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_volume(item, tmp_path / kind / f"b{number}.nii.gz")
    dataset = read_dataset(tmp_path)
    plan = make_plan(dataset, inspect(dataset, "T1w"))
    assert plan.outside == "background" and (plan.codec["mean"], plan.codec["sd"]) == (300, pytest.approx(30, abs=1))
    plan = replace(plan, steps={"autoencoder": 1, "latent-flow": 1}, held_out=())
    for case in Volumes(plan.config(dataset.cases, tmp_path / "cache"), [16] * 3).cases:
        assert np.std(np.asarray(case.values[case.labels > 0], float)) == pytest.approx(1, abs=0.01)
        assert not np.any(case.values[case.labels == 0])


@pytest.mark.parametrize("people, textured", [(14, True), (6, False)])
def test_the_texture_of_whole_mr_crops_is_a_condition(tmp_path, people, textured):
    """A smooth and a noisy half of the cases have unlike conditions, and mean and spread of the package are theirs."""
    for number in range(people):
        labels = np.zeros((24, 28, 24), np.uint8)
        labels[8:16, 8:20, 8:16] = 1
        noise = np.random.default_rng(number).normal(0, 60 if number % 2 else 5, labels.shape)
        image = 300 + 100.0 * labels + noise + np.linspace(-80, 80, 24)
        for kind, item in (
            ("images", Volume(image.astype(np.float32), np.eye(4))),
            ("labels", LabelMap(labels, np.eye(4))),
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_volume(item, tmp_path / kind / f"c{number:02}.nii.gz")
    dataset = read_dataset(tmp_path)
    plan = make_plan(dataset, inspect(dataset, "T1w"))
    assert plan.texture is textured and plan.reasons["texture"]
    plan = replace(plan, steps={"autoencoder": 1, "latent-flow": 1}, held_out=())
    reader = Volumes(plan.config(dataset.cases, tmp_path / "cache"), [24, 28, 24])
    assert reader.scalars == (6 if textured else 0) and ("texture" in reader.preprocessing()) is textured
    if textured:
        patches = [reader.patch(np.random.default_rng(seed)) for seed in range(20)]
        stated, found = ([float(p["scalars"][0]) for p in patches], [texture(p["x"][0])[0] for p in patches])
        assert np.corrcoef(stated, found)[0, 1] > 0.95 and np.ptp(stated) > 1
        assert reader.preprocessing()["texture"]["means"][5] == pytest.approx(
            np.mean([case.texture[5] for case in reader.cases]), abs=1e-3
        )


def test_people_are_never_on_both_sides(tmp_path):
    folder = body(tmp_path, people=8)
    rows = [f"images/p{n}.nii.gz,labels/p{n}.nii.gz,person {n // 2}" for n in range(8)]
    (tmp_path / "cases.csv").write_text("image,labels,subject\n" + "\n".join(rows) + "\n")
    plan, cases = planned(folder / "cases.csv")
    (person,) = plan.held_out
    kept = {entry[0] for entry in plan.config(cases, tmp_path)["data"]["cases"]}
    assert kept == {case.name for case in cases if case.subject != person} and len(kept) == 6


def test_the_budget_decides_the_steps(tmp_path):
    plan, _ = planned(body(tmp_path))
    seconds = {"autoencoder": 0.5, "latent-flow": 2.0}
    made = with_budget(plan, seconds, 3600)
    assert made.steps == {"autoencoder": 1080, "latent-flow": 1260} and "steps.autoencoder" in made.reasons
    with pytest.raises(InputError, match=r"allows 18 steps of the autoencoder.*at least 10 min"):
        with_budget(plan, seconds, 60)


def test_choices_are_checked_and_kept(tmp_path):
    plan, _ = planned(body(tmp_path))
    changed = plan.changed({"patch": "[16, 24, 16]", "name": "other", "steps.latent-flow": "77"})
    assert (changed.patch, changed.name, changed.steps["latent-flow"]) == ((16, 24, 16), "other", 77)
    changed.write(tmp_path / "plan.json")
    assert TrainingPlan.read(tmp_path / "plan.json") == changed
    for choices, sentence in (
        ({"pach": "3"}, "pach is not a setting"),
        ({"batch": "many"}, "batch is 'many'"),
        ({"patch": "[15, 16, 16]"}, "side of 15 voxels"),
        ({"widths": "[8]"}, "1 widths but 3 blocks"),
    ):
        with pytest.raises(InputError, match=sentence):
            plan.changed(choices)


def test_a_disk_that_is_too_full_is_noticed_before_the_training(tmp_path):
    folder = body(tmp_path / "data")
    plan, _ = planned(folder)
    assert plan.cache_mib == pytest.approx(3 * 40 * 36 * 24 * 3 / 2**20, abs=0.1)
    with pytest.raises(InputError, match="GiB are free; make room"):
        train_own(folder, tmp_path / "out", Choices(changes={**TINY, "cache_mib": "1e12"}), device="cpu")
    assert not (tmp_path / "out").exists()


def test_bad_data_are_refused_before_the_training(tmp_path, capsys):
    folder = body(tmp_path / "data", people=3)
    shutil.copy(folder / "images/p1.nii.gz", folder / "images/p2.nii.gz")
    words = ["train", str(folder), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main(words) == 2 and not (tmp_path / "out").exists()
    printed = capsys.readouterr().err
    assert "1 case of" in printed and "p2: The image is a copy of that of the case p1." in printed
    sure = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    assert cli.main(["plan", str(folder), "--skip-bad", "--device", "cpu", *sure, "-o", str(tmp_path / "p.json")]) == 0
    assert "left out: p2" in capsys.readouterr().err and TrainingPlan.read(tmp_path / "p.json").unit == "HU"
    for name in ("p1", "p2"):
        (folder / f"images/{name}.nii.gz").unlink()
        (folder / f"labels/{name}.nii.gz").unlink()
    assert cli.main(words) == 2
    assert "are of one person (p0)" in capsys.readouterr().err
    assert cli.main(["train", "autoencoder", "--out", str(tmp_path / "out")]) == 2
    assert "needs a configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["plan", "{crops}", "-o", "{file}/plan.json"], "is no folder, so the output"),
        (["plan", "{crops}", "-o", "plan.nii"], "none of the suffixes .json"),
        (["train", "{crops}", "--out", "{file}/run"], "cannot be written"),
        (
            ["train", "{crops}", "--out", "{tmp}/run", "--modality", "CT"],
            "No case of .* stated to be CT but looks like MR",
        ),
        (["train", "{crops}", "--out", "{tmp}/run", "--budget", "10"], "is no duration"),
    ],
)
def test_paths_and_options_that_cannot_be_used(crops, tmp_path, capsys, words, sentence):
    (tmp_path / "file").write_text("no folder")
    words = [word.format(crops=crops, file=tmp_path / "file", tmp=tmp_path) for word in words]
    sure = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    assert cli.main([*words, "--device", "cpu", *sure, "--name", "unused"]) == 2
    printed = capsys.readouterr().err
    assert re.search(sentence, printed) and "unexpected" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
