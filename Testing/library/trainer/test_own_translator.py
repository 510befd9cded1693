"""`medgen plan` and `medgen train` on images to translate: pairs or not, to an installed, measured translator."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from MedGenLib import cli, translate
from MedGenLib.checks.input import INVENTS
from MedGenLib.errors import InputError
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.trainer.pair_inspection import inspect_pairs
from MedGenLib.trainer.pair_plan import TranslationPlan, make_translation_plan
from MedGenLib.trainer.pairs import read_data
from MedGenLib.trainer.run import Choices, train_own
from MedGenLib.training.data.pairs import Pairs

SHAPE, SPACING = (36, 40, 16), (2.0, 2.0, 2.0)
TINY = {"network.widths": "[8, 16]", "network.blocks": "[1, 1]", "network.stem": "4", "batch": "2"}
QUICK = {**TINY, "discriminator.width": "8", "steps.pix2pix": "8"}


def person(number: int) -> tuple[Volume, Volume]:
    """MR and CT of an oval body with a liver of 100 HU and a spine of 700 HU; dense tissue is bright in MR."""
    generator = np.random.default_rng(number)
    i, j, k = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij")
    round_ = (i / (14 + number % 3)) ** 2 + (j / (16 + number % 2)) ** 2
    hu, mr = np.full(SHAPE, -1000.0), np.zeros(SHAPE)
    for inside, density, signal in (
        (round_ < 1, -100, 450),
        (round_ < 0.75, 50, 550),
        (((i - 2) / 6) ** 2 + ((j - 5) / 7) ** 2 < 1, 700, 900),
        (((i + 6) / 5) ** 2 + ((j + 5) / 5) ** 2 + (k / 9) ** 2 < 1, 100, 620),
    ):
        hu[inside], mr[inside] = density, signal
    body = hu > -1000
    hu[body] += generator.normal(0, 8, body.sum())
    mr[body] += generator.normal(0, 8, body.sum())
    affine = np.diag([*SPACING, 1.0])
    return Volume(mr.clip(0).astype(np.float32), affine), Volume(hu.round().astype(np.int16), affine)


def pairs(folder: Path, people: int = 4, names: tuple[str, str] = ("mr", "ct"), end: str = ".nii.gz") -> Path:
    for number in range(people):
        for side, image in zip(names, person(number), strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write_volume(image, folder / side / f"p{number}{end}")
    return folder


def apart(folder: Path) -> Path:
    """MR of two people and CT of two others."""
    for number in range(4):
        side = ("mr", "ct")[number % 2]
        (folder / side).mkdir(parents=True, exist_ok=True)
        write_volume(person(number)[number % 2], folder / side / f"{side}{number}.nii.gz")
    return folder


def words(changes: dict[str, str]) -> list[str]:
    return ["--device", "cpu", *(word for key, value in changes.items() for word in ("--set", f"{key}={value}"))]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return pairs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(data, home, tmp_path_factory) -> Path:
    """The folder of a run of pix2pix on the command line."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert cli.main(["train", str(data), "--out", str(out), "--name", "mine", *words(QUICK)]) == 0
    return out


def planned(folder: Path, **choices) -> tuple[TranslationPlan, tuple]:
    dataset = read_data(folder)
    plan = make_translation_plan(dataset, inspect_pairs(dataset), **choices)
    return plan.changed({f"steps.{plan.recipe}": "1"}), dataset.cases


def test_the_model_is_listed_and_translates_any_size(run, tmp_path, capsys):
    assert cli.main(["models", "list"]) == 0
    assert re.search(r"mine +1\.0\.0 +MR +CT +1\.6-2\.5", capsys.readouterr().out)
    model = find("mine")
    assert model.training.held_out == ("p3",) and store.verify(model.folder) == []
    image = person(9)[0]
    large = resample(image, (2.0, 1.7, 3.0))
    slab = Volume(image.array[:, :, 5:6], image.affine)
    for number, source in enumerate((large, slab)):
        write_volume(source, tmp_path / f"{number}.nii.gz")
        out = tmp_path / f"{number}_ct.nii.gz"
        code = cli.main(
            ["translate", str(tmp_path / f"{number}.nii.gz"), "--to", "CT", "--model", "mine", "-o", str(out)]
        )
        assert code in (0, 3)  # eight steps teach little
        made = read_volume(out)
        assert made.geometry.is_close(source.geometry) and made.array.min() >= -1024
        facts = json.loads(out.with_name(f"{number}_ct.medgen.json").read_text())
        assert facts["model"] == "mine" and facts["task"] == "translate"


def test_a_ct_keeps_its_hu_and_its_errors_are_measured(data, tmp_path):
    """The network of a finished training, on the image of a person that it saw and on the one kept out."""
    changes = {**TINY, "network.stem": "8", "steps.regression": "400", "learning_rate": "0.006"}
    made = train_own(data, tmp_path / "out", Choices(name="in-hu", recipe="regression", changes=changes), device="cpu")
    source, real = person(0)
    volume = translate(source, "CT", model="in-hu", device="cpu").volume
    assert (volume.modality, volume.unit) == ("CT", "HU")
    for low, high, expected, off in (
        (-1100, -900, -1000, 60),
        (-140, -60, -100, 60),
        (20, 80, 50, 60),
        (600, 800, 700, 200),  # bone is learned last
    ):
        inside = (real.array > low) & (real.array < high)
        assert float(np.median(volume.array[inside])) == pytest.approx(expected, abs=off)
    facts = json.loads((tmp_path / "out/evaluation/p3.json").read_text())
    figures = {name: value for name, _, value in facts["figures"]}
    other, wanted = (
        item.array.astype(float) for item in (translate(person(3)[0], "CT", model="in-hu").volume, person(3)[1])
    )
    body = wanted > -500
    assert figures["MAE"] == pytest.approx(np.abs(other - wanted)[body].mean(), rel=0.2) and figures["MAE"] < 120
    assert figures["SSIM"] > 0.8 and figures["Dice of bone"] > 0.7
    card = made.card
    assert (
        f"- MAE: {figures['MAE']:.3g} HU (1 image)" in card
        and "Nothing else was measured" not in card
        and "misses" not in card
    )
    assert made.settings.outline and made.statistics.tissues[3].mean == pytest.approx(700, abs=40)


def test_the_page_shows_curves_pictures_reasons_and_the_measurement(run):
    text = (run / "index.html").read_text()
    assert text.count("data:image/png") >= 5 and "a discriminator keeps them sharp" in text
    assert "Measured on held-out people" in text and "source, translation and, of pairs, the real target" in text
    lines = [json.loads(line) for line in (run / "translator/validation.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 8 and {"l1", "held_out_logit"} <= set(lines[-1])
    assert len(list((run / "translator/pictures").iterdir())) == 8


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(run, data, tmp_path):
    def kill(progress):
        if progress.stage == "training" and progress.step == 5:
            raise KeyboardInterrupt

    choices = Choices(name="again", changes=QUICK)
    with pytest.raises(KeyboardInterrupt):
        train_own(data, tmp_path / "out", choices, device="cpu", progress=kill)
    assert "again" not in [model.name for model in catalogue()]
    train_own(data, tmp_path / "out", choices, device="cpu")
    one, two = (torch.load(root / "translator/checkpoint.pt", weights_only=True) for root in (run, tmp_path / "out"))
    for name, averages in one["averages"].items():
        assert all(torch.equal(value, two["averages"][name][key]) for key, value in averages.items())
    with pytest.raises(InputError, match="another plan"):
        train_own(data, run, Choices(recipe="regression"), device="cpu")


@pytest.mark.parametrize("recipe", [None, pytest.param("cyclegan", marks=pytest.mark.slow)])
def test_images_without_pairs_are_learned(tmp_path, capsys, recipe):
    folder, name = apart(tmp_path / "data"), recipe or "cut"
    changes = {"network.width": "8", "network.blocks": "2", "discriminator.width": "8", f"steps.{name}": "4"}
    assert cli.main(["plan", str(folder), *(["--recipe", recipe] if recipe else []), *words(changes)]) == 0
    printed = capsys.readouterr().out
    assert f"recipe: {name}" in printed and "may add or remove lesions" in printed
    made = train_own(folder, tmp_path / "out", Choices(name=f"loose-{name}", recipe=recipe, changes=changes), "cpu")
    assert INVENTS in made.card and "the images are not pairs" in made.card
    assert "The model misses bone: its amount relative to real images is 0.0" in made.card
    assert len(made.training.held_out) == 2 and not made.settings.paired and set(made.networks) == {"translator"}
    result = translate(person(7)[0], "CT", model=made.name, device="cpu")
    assert INVENTS in [finding.sentence for finding in result.report.input_findings]


def test_recipes_for_pairs_refuse_images_without_pairs(tmp_path, capsys):
    folder = apart(tmp_path / "data")
    for recipe in ("pix2pix", "pix2pixhd", "regression"):
        assert cli.main(["train", str(folder), "--out", str(tmp_path / recipe), "--recipe", recipe]) == 2
        assert f"The recipe {recipe} needs pairs" in (printed := capsys.readouterr().err) and "--recipe cut" in printed


def test_a_pair_is_learned_at_the_scales_that_fit_the_patch(tmp_path, capsys):
    folder = pairs(tmp_path / "data", people=2)
    changes = {**TINY, "discriminator.width": "8", "steps.pix2pixhd": "4", "patch": "64", "discriminator.scales": "2"}
    command_ = ["train", str(folder), "--out", str(tmp_path / "out"), "--recipe", "pix2pixhd", "--name", "scales"]
    assert cli.main(["plan", str(folder), "--recipe", "pix2pixhd", *words({"steps.pix2pixhd": "1"})]) == 0
    assert "discriminators of several scales judge them" in capsys.readouterr().out
    assert cli.main([*command_, *words({**changes, "discriminator.scales": "3"})]) == 2
    assert "too few for 3 scales of discriminators; give 128" in capsys.readouterr().err
    assert cli.main([*command_, *words(changes)]) == 0
    missing = "The model misses bone: its Dice is 0.00 on people kept out, below 0.2"
    assert missing in capsys.readouterr().err
    made = find("scales")
    assert made.settings.paired and "MAE: " in made.card and missing in made.card
    assert missing in (tmp_path / "out/index.html").read_text()
    assert "held_out_logit" in (tmp_path / "out/translator/validation.jsonl").read_text()
    result = translate(person(7)[0], "CT", model="scales", device="cpu")
    assert result.volume.geometry.is_close(person(7)[0].geometry)


def nnunet(folder: Path) -> None:
    (folder / "imagesTr").mkdir(parents=True)
    for number in range(3):
        for channel, image in enumerate(person(number)):
            write_volume(image, folder / f"imagesTr/p{number}_{channel:04d}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "CT"}, "license": "CC0-1.0"}))


def cases(folder: Path, form: str) -> None:
    for number in range(3):
        name = f"BraTS-GLI-0000{number}-000"
        (folder / name).mkdir(parents=True)
        for what, image in zip(("t1n", "ct"), person(number), strict=True):
            write_volume(image, folder / name / (form.format(name=name, what=what) + ".nii.gz"))


def bids(folder: Path) -> None:
    for number in range(3):
        for what, place, image in zip(("T1w", "ct"), ("anat", "ct"), person(number), strict=True):
            (folder / f"sub-{number}/{place}").mkdir(parents=True)
            write_volume(image, folder / f"sub-{number}/{place}/sub-{number}_{what}.nii.gz")


def table(folder: Path) -> None:
    pairs(folder, 3)
    rows = [f"mr/p{n}.nii.gz,ct/p{n}.nii.gz,person {n // 2}" for n in range(3)]
    (folder / "cases.csv").write_text("source,target,subject\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("make", "names", "layout", "modalities"),
    [
        (lambda f: pairs(f, 3, end=".nrrd"), (), "two folders", ("MR", "CT")),
        (lambda f: pairs(f, 3, ("images", "labels"), ".mha"), (), "two folders", (None, None)),
        (lambda f: pairs(f, 3, ("mri", "dense")), ("mri", "dense"), "two folders", ("MR", None)),
        (nnunet, ("0", "ct"), "nnU-Net", ("T1w", "CT")),
        (bids, ("T1w", "ct"), "BIDS", ("T1w", "CT")),
        (lambda f: cases(f, "{name}-{what}"), ("t1n", "ct"), "folders of cases", ("T1w", "CT")),
        (lambda f: cases(f, "{what}"), ("t1n", "ct"), "folders of cases", ("T1w", "CT")),
        (table, (), "CSV", (None, None)),
    ],
)
def test_layouts(tmp_path, make, names, layout, modalities):
    make(tmp_path / "data")
    path = next((tmp_path / "data").glob("*.csv"), tmp_path / "data")
    found = read_data(path, **dict(zip(("source", "target"), names, strict=False)))
    assert (found.layout, len(found.cases), found.paired, found.translates) == (layout, 3, True, True)
    assert (found.source_modality, found.modality) == modalities and found.problems == ()
    inspected = inspect_pairs(found)
    assert (inspected.source_modality, inspected.modality) == (modalities[0] or "MR", "CT")
    mr, ct = (read_volume(path).array for path in (found.cases[1].source, found.cases[1].target))
    assert all(np.array_equal(one, two.array) for one, two in zip((mr, ct), person(1), strict=True))
    subjects = [case.subject for case in found.cases]
    expected = {"CSV": "person 0", "BIDS": "0"}.get(layout, "BraTS-GLI-00000" if layout == "folders of cases" else "p0")
    assert subjects[0] == expected


def test_series_of_dicom_are_pairs_if_they_share_a_frame(tmp_path):
    for number in range(2):
        for side, image, modality in zip(("mr", "ct"), person(number), ("MR", "CT"), strict=True):
            stated = Volume(image.array.astype(np.int16), image.affine, modality, "HU" if modality == "CT" else "a.u.")
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            write_series(stated, tmp_path / "data" / side / f"p{number}")
    dataset = read_data(tmp_path / "data")
    assert [case.name for case in dataset.cases] == ["p0", "p1"]
    assert _problems(dataset) == dict.fromkeys(
        ("p0", "p1"), "Source and target have different DICOM frames of reference"
    )
    share_frames(tmp_path / "data")
    inspected = inspect_pairs(dataset)
    assert inspected.problems == () and (inspected.source_modality, inspected.modality) == ("MR", "CT")


def share_frames(folder: Path) -> None:
    """Give all series one frame of reference, as registered ones have."""
    import pydicom

    for file in folder.rglob("*.dcm"):
        data = pydicom.dcmread(file)
        data.FrameOfReferenceUID = "1.2.3.4"
        data.save_as(file)


def _problems(dataset) -> dict[str, str]:
    """Case -> the sentence up to its semicolon; also where no case is left."""
    try:
        return {p.case: p.sentence.split(";")[0] for p in inspect_pairs(dataset).problems}
    except InputError as error:
        first = re.search(r"the first one, (\w+): ([^;]*)", str(error))
        return dict.fromkeys((case.name for case in dataset.cases), first[2])


def test_what_is_wrong_with_a_case_is_said(tmp_path):
    folder = pairs(tmp_path / "data", people=7)
    mr, ct = (lambda n: folder / f"mr/p{n}.nii.gz"), (lambda n: folder / f"ct/p{n}.nii.gz")
    image = read_volume(ct(1))
    far = image.affine.copy()
    far[:3, 3] += 500
    write_volume(Volume(image.array, far), ct(1))
    shifted = image.affine.copy()
    shifted[:3, 3] += (0, 60, 0)
    write_volume(Volume(image.array, shifted), ct(2))
    shutil.copy(mr(0), mr(3))
    image = read_volume(mr(4))
    write_volume(Volume((image.array - 300).astype(np.float32), image.affine), mr(4))
    write_volume(Volume(np.clip(read_volume(ct(5)).array / 8, 0, 255), image.affine), ct(5))
    ct(6).unlink()
    found = {problem.case: problem.sentence for problem in inspect_pairs(read_data(folder)).problems}
    for case, sentence in {
        "p1": "do not overlap in space; register them first",
        "p2": "overlap in 25% of the source only",
        "p3": "copy of one of the case p0",
        "p4": "MR with values down to -3",
        "p5": "stated to be CT but looks like MR",
        "p6": "has no ct",
    }.items():
        assert sentence in found.pop(case)
    assert not found


def test_a_target_on_another_grid_is_resampled_to_its_source(tmp_path):
    folder = pairs(tmp_path / "data", people=2)
    for number in range(2):
        image = person(number)[1]
        part = Volume(image.array[:, :, 4:].astype(np.float32), image.geometry.moved((0, 0, 4), (36, 40, 12)).affine)
        write_volume(resample(part, (2.0, 2.0, 3.0)), folder / f"ct/p{number}.nii.gz")
    plan, cases_ = planned(folder)
    assert "2 of 2 targets are resampled to the grid of their source" in plan.text()
    reader = Pairs(plan.config(cases_, tmp_path / "cache"), 32, 1, True)
    (case,) = reader.cases
    assert case.images["source"].shape == case.images["target"].shape == (36, 40, 12)
    hu = 1000 * case.images["target"].astype(float)
    kept = next(c for c in cases_ if c.subject not in plan.held_out)
    real = person(int(kept.name[1:]))[1].array[::-1, ::-1, 4:]  # LPS
    assert np.abs(hu - real)[real > -500].mean() < 25


def test_data_that_are_no_pairs_are_refused(data, tmp_path, capsys):
    for number in range(2):
        (tmp_path / "empty" / ("source", "target")[number]).mkdir(parents=True)
    one = pairs(tmp_path / "one", people=1)
    for words_, sentence in (
        ([str(sample("hippocampi/dataset.json").parent), "--task", "translate"], "have one channel"),
        ([str(tmp_path / "empty")], "has no usable sources"),
        ([str(one)], r"sources of .* are of one person \(p0\)"),
        ([str(data), "--source", "ct", "--target", "ct"], "copy of its target"),
    ):
        assert cli.main(["plan", *words_, "--device", "cpu"]) == 2
        assert re.search(sentence, capsys.readouterr().err)


def test_errors_are_measured_where_a_smaller_source_shows_the_body(tmp_path):
    folder = pairs(tmp_path / "data", people=2)
    for path in (folder / "mr").iterdir():
        image = read_volume(path)
        write_volume(image.with_array(np.where(np.arange(SHAPE[0])[:, None, None] < 18, image.array, 0)), path)
    changes = {**TINY, "steps.regression": "2"}
    made = train_own(folder, tmp_path / "out", Choices(name="half", recipe="regression", changes=changes), device="cpu")
    assert not made.settings.outline and "where both images show the body" in made.card
    (who,) = made.training.held_out
    facts = json.loads((tmp_path / f"out/evaluation/{who}.json").read_text())
    error = next(value for name, _, value in facts["figures"] if name == "MAE")
    both = (read_volume(tmp_path / f"out/evaluation/{kind}/{who}.nii.gz").array for kind in ("synthetic", "real"))
    off, body = np.abs(np.subtract(*both)), person(int(who[1:]))[1].array > -500
    assert error == pytest.approx(off[:18][body[:18]].mean(), rel=0.01)
    assert abs(error / off[body].mean() - 1) > 0.02


def test_people_are_never_on_both_sides(tmp_path):
    folder = pairs(tmp_path, people=6)
    rows = [f"mr/p{n}.nii.gz,ct/p{n}.nii.gz,person {n // 2}" for n in range(6)]
    (folder / "cases.csv").write_text("source,target,subject\n" + "\n".join(rows) + "\n")
    plan, cases_ = planned(folder / "cases.csv")
    (who,) = plan.held_out
    config = plan.config(cases_, tmp_path)["data"]
    assert {name for name, *_ in config["cases"]} == {case.name for case in cases_ if case.subject != who}
    assert len(config["cases"]) == 4 and len(config["held_cases"]) == 2


def test_slices_of_both_images_are_cut_at_one_place(data, tmp_path):
    plan, cases_ = planned(data)
    reader = Pairs(plan.config(cases_, tmp_path / "cache"), 32, 1, True)
    batch = reader.sample(np.random.default_rng(0), 24)
    assert set(batch["plane"].tolist()) == {0, 1, 2} and batch["source"].shape == (24, 1, 32, 32)
    air = batch["target"] < -0.9
    assert float((batch["source"][air] < -0.95).float().mean()) > 0.99 and 0.1 < float(air.float().mean()) < 0.9
    loose = Pairs(plan.config(cases_, tmp_path / "cache"), 32, 1, False).sample(np.random.default_rng(0), 24)
    air = loose["target"] < -0.9
    assert float((loose["source"][air] < -0.95).float().mean()) < 0.9


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--source", "mr"], "needs --source and --target"),
        (["--source", "mr", "--target", "pet"], "layout of .* is not known"),
        (["--from", "ct-tissue"], "--from belongs to images with labels"),
        (["--set", "patch=30"], "patch is 30"),
        (["--set", "patch=40"], "multiple of 16"),
        (["--budget", "1s"], "too few to be useful"),
    ],
)
def test_options_that_cannot_be_used(data, tmp_path, capsys, extra, sentence):
    assert cli.main(["train", str(data), "--out", str(tmp_path / "out"), *words(TINY), *extra]) == 2
    printed = capsys.readouterr().err
    assert re.search(sentence, printed) and "unexpected" not in printed and not (tmp_path / "out").exists()
