import json
import math

import numpy as np
import pytest
import torch
from federations import federation_file, federation_in, run_here, segmenter_config, write_data
from hippocampi import small_config, write_crops
from scipy.stats import norm

from MedGenLib.cli import main
from MedGenLib.errors import InputError
from MedGenLib.federated.server import Coordinator, read_state
from MedGenLib.federated.site import RoundSettings, Site, proximal
from MedGenLib.federated.updates import averaged, epsilon, from_bytes, problem_of, protect, to_bytes
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.training.loop import Draw, Objective, OptimizationSettings


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("federation")
    return segmenter_config(folder), write_data(folder)


@pytest.fixture(scope="module")
def finished(parts, tmp_path_factory):
    """A federation of two sites that trained two rounds."""
    home = tmp_path_factory.mktemp("run")
    run_here(federation_in(home, *parts))
    return home


# The whole training, in one process


def test_the_package_names_rounds_and_cases_and_no_case_leaves_its_site(finished):
    stated = load_manifest(finished / "result" / "balls").metadata["medgen"]["training"]["federation"]
    assert {site: item["cases"] for site, item in stated["sites"].items()} == {"a": 3, "b": 2}
    assert stated["rounds"] == read_state(finished)["rounds"]
    assert len({entry["sha256"] for entry in stated["rounds"]}) == 2
    values = [entry["value"] for entry in stated["rounds"]]
    best = {"round": 1 + int(np.argmax(values)), "value": max(values)}
    assert stated["best"] == {**best, "metric": "dice", "better": "higher"}
    dice = [sum(stated["rounds"][0]["metrics"][site].values()) / 2 for site in "ab"]
    assert values[0] == pytest.approx((3 * dice[0] + 2 * dice[1]) / 5)
    outside = [p for p in finished.rglob("*") if p.is_file() and "sites" not in p.relative_to(finished).parts]
    assert len(outside) > 5 and not [path for path in outside if b"case_" in path.read_bytes()]


def test_an_interrupted_federation_gives_the_same_model(parts, finished, tmp_path):
    """The server and the sites are new objects after each task, as after a crash."""
    home = federation_in(tmp_path, *parts)
    while not run_here(home, tasks=1).state.get("ended"):
        pass
    known, again = (read_state(folder)["rounds"] for folder in (finished, home))
    assert [entry["sha256"] for entry in again] == [entry["sha256"] for entry in known]


def test_a_site_that_sends_nonsense_is_left_out_of_the_round(parts, tmp_path):
    """NaN in round 1 and another shape in round 2, of three sites of which two are enough."""
    home = federation_in(tmp_path, parts[0], {**parts[1], "c": parts[1]["b"]}, steps=1, mu=0.1)

    def spoil(task, answers):
        if task.name == "train":
            update = from_bytes(answers["c"]["update"])
            name = sorted(update)[0]
            update[name] = update[name] * math.nan if task.number == 0 else update[name][:1]
            answers["c"]["update"] = to_bytes(update)
        return answers

    state = run_here(home, spoil).state
    assert state["ended"] == "done" and [entry["sites"] for entry in state["rounds"]] == [["a", "b"]] * 2
    said = [line for line in state["log"] if "goes on without the site c" in line]
    assert "no numbers" in said[0] and "has the shape" in said[1] and len(said) == 2


@pytest.mark.parametrize(
    ("task", "answer", "sentence"),
    [
        ("train", {"update": b"nonsense", "releases": 1}, "Only 1 of 2 sites .* site a: these are no weights"),
        ("train", {"error": "The disk is full"}, "Only 1 of 2 sites .* The disk is full"),
        ("start", {"weights": to_bytes({"w": torch.zeros(1)}), "cases": 1}, "Only 1 of 2 sites"),
        ("measure", {"metrics": {"dice": math.nan}}, None),
        ("export", {"archive": b"no zip"}, "not a zip file"),
        ("export", {"error": "no"}, "could not export"),
    ],
)
def test_bad_answers_end_in_a_sentence_and_leave_no_model(parts, tmp_path, task, answer, sentence):
    home = federation_in(tmp_path, *parts, rounds=1, steps=1)

    def spoil(asked, answers):
        return {**answers, "a": answer} if asked.name == task else answers

    if sentence is None:
        assert run_here(home, spoil).state["ended"] == "done"
        return
    with pytest.raises(InputError, match=sentence):
        run_here(home, spoil)
    assert Coordinator(home).next(["a", "b"]) is None and not (home / "result").exists()


def test_an_exported_package_with_other_weights_is_refused(parts, finished, tmp_path):
    home = federation_in(tmp_path, *parts, rounds=1, steps=1)
    server = run_here(home, tasks=3)
    task = server.next(["a", "b"])
    assert task.name == "export" and task.sites == ("a",)
    archive = (finished / "sites" / "a" / "run" / "export" / "archive.zip").read_bytes()
    with pytest.raises(InputError, match="other weights than round 1"):
        server.take(task, {"a": {"archive": archive}})


@pytest.mark.slow
def test_a_generator_from_masks_with_a_federated_autoencoder(tmp_path):
    (tmp_path / "crops").mkdir()
    config = small_config(tmp_path, write_crops(tmp_path / "crops"))
    data = dict.fromkeys("ab", tmp_path / "crops")
    lower = {"rounds": 1, "steps": 2, "better": "lower"}
    first = run_here(federation_in(tmp_path / "1", config, data, recipe="autoencoder", metric="l1", **lower)).state
    lower["files"] = {"run/autoencoder": first["result"]}
    flow = run_here(federation_in(tmp_path / "2", config, data, recipe="latent-flow", metric="velocity", **lower))
    assert load_manifest(flow.state["result"]).pipeline == "latent-flow"


TINY = {
    "autoencoder": "widths=[8,16] blocks=[1,1] steps.latent-flow=4",
    "gan": "network.widths=[8,8] network.blocks=[1,0] discriminator.widths=[8,8] discriminator.blocks=[1,0]",
    "pix2pix": "network.widths=[8,16] network.blocks=[1,1] discriminator.width=8",
}


def planned(folder, recipe, *more):
    """The file of `medgen plan` for tiny networks, and its data set, which both sites use here."""
    (folder / "crops").mkdir()
    data = write_crops(folder / "crops")
    words = ["--recipe", recipe] if recipe != "autoencoder" else []
    if recipe == "pix2pix":
        for side, power in (("source", 1.0), ("target", 0.8)):
            (folder / "pairs" / side).mkdir(parents=True)
            for path in (data / "images").iterdir():
                image = read_volume(path)
                write_volume(image.with_array(image.array**power), folder / "pairs" / side / path.name)
        data, words = folder / "pairs", [*words, "--modality", "T2w", "--source-modality", "T1w"]
    changes = [f"steps.{recipe}=4", *TINY[recipe].split(), *more]
    words += [word for change in changes for word in ("--set", change)]
    assert main(["-q", "plan", str(data), "-o", str(folder / "plan.json"), "--device", "cpu", *words]) == 0
    return folder / "plan.json", dict.fromkeys("ab", data)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "metric"), [("autoencoder", "l1"), ("gan", "held_out_logit"), ("pix2pix", "l1")])
def test_recipes_of_a_plan_are_trained_at_two_sites(tmp_path, recipe, metric):
    """Each site holds out people of its own; nobody of the coordinator's is named."""
    plan, data = planned(tmp_path, recipe)
    home = federation_in(tmp_path / "run", plan, data, recipe=recipe, steps=2, metric=metric, better="lower")
    state = run_here(home).state
    assert state["ended"] == "done" and [entry["sites"] for entry in state["rounds"]] == [["a", "b"]] * 2
    assert len({entry["sha256"] for entry in state["rounds"]}) == 2 and state["sites"]["a"]["cases"] == 5
    outside = [p for p in home.rglob("*") if p.is_file() and "sites" not in p.relative_to(home).parts]
    assert not [path for path in outside if b"case_" in path.read_bytes()]
    if recipe != "autoencoder":
        made = load_manifest(state["result"])
        assert made.task == {"gan": "generate", "pix2pix": "translate"}[recipe]
        assert "The data named here are those of one site" in made.card and "Held out of" not in made.card


def test_a_plan_that_cannot_be_federated_is_refused(tmp_path):
    plan, data = planned(tmp_path, "pix2pix")
    kept = {"recipe": "pix2pix", "metric": "l1", "better": "lower"}
    site = Site(federation_in(tmp_path / "run", plan, data, **kept) / "sites" / "a")
    assert len(site.config["data"]["held_out"]) == 1 and len(site.config["data"]["cases"]) == 5
    with pytest.raises(InputError, match="for pix2pix, not for the recipe gan"):
        federation_in(tmp_path / "other", plan, data, **{**kept, "recipe": "gan"})
    (tmp_path / "flow").mkdir()
    with pytest.raises(InputError, match=r'latent-flow needs the result of .*: "files": \{"run/autoencoder": PATH\}'):
        flow = planned(tmp_path / "flow", "autoencoder")
        federation_in(tmp_path / "flow" / "run", *flow, recipe="latent-flow", metric="velocity", better="lower")
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "align": True}))
    with pytest.raises(InputError, match="Sites cannot align their pairs"):
        federation_in(tmp_path / "aligned", plan, data, **kept)


# FedAvg, FedProx and what is refused


def test_the_average_is_weighted_by_cases_and_does_not_depend_on_the_order():
    start = {"net.w": torch.tensor([1.0, 2.0])}
    updates = {"b": {"net.w": torch.tensor([4.0, 0.0])}, "a": {"net.w": torch.tensor([0.0, 8.0])}}
    found = averaged(start, updates, {"a": 3, "b": 1})
    assert found["net.w"].tolist() == [2.0, 8.0]
    assert to_bytes(found) == to_bytes(averaged(start, dict(reversed(updates.items())), {"a": 3, "b": 1}))


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"w": torch.zeros(3)}, "the shape"),
        ({}, "w is missing"),
        ({"w": torch.zeros(2), "x": torch.zeros(1)}, "x is unknown"),
        ({"w": torch.tensor([0.0, math.inf])}, "no numbers"),
        ({"w": torch.zeros(2, dtype=torch.int64)}, "no numbers"),
        ({"w": torch.tensor([0.0, 1e9])}, "too large"),
        ({"w": torch.ones(2)}, ""),
    ],
)
def test_problems_of_an_update(found, problem):
    said = problem_of(found, {"w": torch.zeros(2)})
    assert problem in said and bool(said) == bool(problem)


def test_the_term_of_fedprox_pulls_to_the_start():
    """Its gradient is mu times the way from the start, and 0 at the start."""
    network = torch.nn.Linear(2, 1, bias=False)
    plain = Objective("plain", ("net",), lambda batch, draw: (0 * network.weight.sum(), {}))
    objective = proximal(plain, {"net": network}, 0.5)
    assert objective.loss({}, Draw.of(0, 0))[1]["proximal"] == 0
    with torch.no_grad():
        network.weight += torch.tensor([[3.0, 4.0]])
    loss, parts = objective.loss({}, Draw.of(0, 1))
    loss.backward()
    assert parts["proximal"] == pytest.approx(0.25 * 25)
    assert torch.allclose(network.weight.grad, torch.tensor([[1.5, 2.0]]))


def test_the_learning_rate_follows_all_rounds_and_a_site_that_missed_some_goes_on(parts, tmp_path):
    whole, part = OptimizationSettings(steps=100, warmup=10), RoundSettings(steps=10, warmup=10, total=100)
    assert [part.rate(step) for step in (0, 50, 99)] == [whole.rate(step) for step in (0, 50, 99)]
    site = Site(federation_in(tmp_path, *parts, rounds=4, steps=1, clip=1.0, noise=0.1) / "sites" / "a")
    begin = site.work("start", 0, b"")["weights"]
    answers = [site.work("train", number, begin) for number in (0, 0, 3)]
    assert torch.load(site.out / "checkpoint.pt", weights_only=True)["step"] == 4
    assert [answer["releases"] for answer in answers] == [1, 2, 3]
    assert answers[0]["update"] != answers[1]["update"]


def test_a_site_that_comes_late_trains_one_round_and_no_round_beyond_the_last(parts, tmp_path, monkeypatch):
    site = Site(federation_in(tmp_path, *parts, rounds=4, steps=2) / "sites" / "b")
    begin = site.work("start", 0, b"")["weights"]
    batches, batch = [], site.recipe.batch
    monkeypatch.setattr(site.recipe, "batch", lambda draw, size: batches.append(draw) or batch(draw, size))
    site.work("train", 3, begin)
    assert [draw.step for draw in batches] == [6, 7]
    other = Draw.of(2**16 + 1, 6)  # another site: noise of its own
    assert not torch.equal(torch.randn(4, generator=batches[0].torch), torch.randn(4, generator=other.torch))
    with pytest.raises(InputError, match="asks for round 5, but the sites agreed on 4"):
        site.work("train", 4, begin)


# Privacy


def test_clipping_and_noise_have_the_stated_size():
    update = {"w": torch.full((100_000,), 1.0)}
    clipped, gentle = protect(update, 2.0, 0)["w"], protect(update, 1e3, 0)["w"]
    assert float(clipped.double().norm()) == pytest.approx(2, rel=1e-5) and torch.equal(gentle, update["w"])
    noise = protect(update, 2.0, 0.5)["w"] - clipped
    assert float(noise.std()) == pytest.approx(1.0, rel=0.02) and abs(float(noise.mean())) < 0.02
    assert not torch.equal(noise, protect(update, 2.0, 0.5)["w"] - clipped)


@pytest.mark.parametrize(("noise", "releases"), [(0.5, 1), (2.0, 10), (30.0, 50), (0.05, 100)])
def test_epsilon_solves_its_closed_form(noise, releases):
    """Exactly at delta, and below the bound of Renyi privacy (Mironov 2017, proposition 3)."""
    delta, found, ratio = 1e-5, epsilon(noise, releases, 1e-5), 2 * math.sqrt(releases) / noise
    orders = 1 + np.geomspace(1e-3, 1e4, 20_000)
    bound = np.min(orders * ratio**2 / 2 + math.log(1 / delta) / (orders - 1))
    assert 0.5 * bound < found < bound
    if found < 500:
        one = norm.cdf(ratio / 2 - found / ratio) - math.exp(found) * norm.cdf(-ratio / 2 - found / ratio)
        assert one == pytest.approx(delta, rel=1e-4)


def test_epsilon_at_its_ends():
    assert epsilon(0, 3, 1e-5) == math.inf and epsilon(1, 0, 1e-5) == 0 and epsilon(1e7, 1, 1e-5) == 0
    assert epsilon(1, 4, 1e-5) == pytest.approx(epsilon(2, 16, 1e-5))


# Commands and bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"better": "more"}, "better"),
        ({"sites": ["a"]}, "two sites or more"),
        ({"sites": ["A", "b"]}, "'A' cannot name a site"),
        ({"fewest": 3}, "and 3 for a round"),
        ({"noise": 1}, "give clip"),
        ({"recipe": "nothing"}, "nothing"),
        ({"recipe": "autoencoder"}, "for segmenter, not for the recipe autoencoder"),
        ({"rounds": 0}, "rounds"),
        ({"files": {"run/x": "nowhere"}}, "nowhere"),
        ({}, "--site a=PATH --site b=PATH"),
    ],
)
def test_a_wrong_federation_is_one_sentence(parts, tmp_path, capsys, changes, sentence):
    given = federation_file(tmp_path, parts[0], changes.pop("sites", "ab"), **changes)
    sites = [f"--site={name}={parts[1][name]}" for name in "ab"] if changes.get("files") else []
    assert main(["federate", "simulate", str(given), "--out", str(tmp_path / "out"), *sites]) != 0
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out" / "state.json").exists()


def test_without_nvflare_its_extra_is_named(parts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("MedGenLib.federated.federation.find_spec", lambda name: None)
    given = federation_file(tmp_path, parts[0], "ab")
    assert main(["federate", "provision", str(given), "--out", str(tmp_path / "out"), "--host", "x"]) != 0
    assert "pip install medgen[federated]" in capsys.readouterr().err


def test_status_prints_rounds_and_sites(finished, capsys):
    assert main(["federate", "status", str(finished)]) == 0
    said = capsys.readouterr().out
    assert "a: 3 cases, 2 updates" in said and "dice after round 2: " in said and "It has ended." in said
