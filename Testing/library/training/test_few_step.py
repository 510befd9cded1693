"""Few steps: midpoint rule, recipe of the student, package, and guidance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import MedGenLib
from MedGenLib import generate
from MedGenLib.diffusion import euler, midpoint
from MedGenLib.diffusion.flow import FlowDenoiser
from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.pipelines import loading
from MedGenLib.pipelines.flow_sampling import LARGEST_GUIDANCE, Sampling
from MedGenLib.pipelines.latent_flow import network_role
from MedGenLib.pipelines.scene import prepare
from MedGenLib.training import config as training_config
from MedGenLib.training import train
from MedGenLib.training.config import read_config
from MedGenLib.training.loop import Draw
from MedGenLib.training.recipes.few_step import FewStepRecipe, follow, spread_error, student_of

CPU = torch.device("cpu")
CONFIGS = Path(training_config.__file__).parent / "configs"


def trunk(shape=(32, 28, 24)) -> LabelMap:
    """A trunk along the last axis: fat, soft tissue, a spine and a lung."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    slab = np.zeros(shape[:2], np.uint8)
    slab[np.hypot(x, y) < 0.95] = 1
    slab[np.hypot(x, y) < 0.75] = 2
    slab[np.hypot(x - 0.35, y) < 0.25] = 4
    slab[np.hypot(x + 0.1, y - 0.5) < 0.18] = 3
    return LabelMap(np.repeat(slab[..., None], shape[2], axis=2), np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """The shipped configuration on one small phantom, for patches of 16 voxels."""
    folder = tmp_path_factory.mktemp("scan")
    mask = trunk()
    means = np.array([-1000, -95, 40, 400, -830], np.float32)
    noise = np.random.default_rng(0).normal(0, 12, mask.shape)
    write_volume(Volume((means[mask.array] + noise).astype(np.float32), mask.affine, "CT", "HU"), folder / "ct.nii.gz")
    write_volume(mask, folder / "tissue.nii.gz")
    made = json.loads((CONFIGS / "ct-tissue-draft.json").read_text())
    made["data"]["spacings_mm"] = [2.0]
    made["data"]["scans"] = [
        {"subject": "phantom", "image": str(folder / "ct.nii.gz"), "label": str(folder / "tissue.nii.gz")}
    ]
    made["few_step"]["patch"] = 16
    made["optimisation"]["few-step"].update(
        steps=12, warmup=2, learning_rate=3e-4, ema=0.8, validate_every=100, precision="fp32"
    )
    card = made["package"]["card"]
    (folder / card).write_text((CONFIGS / card).read_text())
    path = folder / "config.json"
    path.write_text(json.dumps(made))
    return path


@pytest.fixture(scope="module")
def recipe(config, tmp_path_factory) -> FewStepRecipe:
    return FewStepRecipe(read_config(config), tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    """The run's folder after twelve real steps from the weights of ct-tissue."""
    out = tmp_path_factory.mktemp("run") / "draft"
    train("few-step", config, out, device="cpu")
    return out


# The midpoint rule


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_the_midpoint_rule_makes_the_requested_evaluations(steps):
    times, reported = [], []

    def velocity(x, t):
        times.append(t)
        return torch.zeros_like(x)

    midpoint.sample(FlowDenoiser(velocity), torch.ones(2), steps, on_step=reported.append)
    assert reported == list(range(1, steps + 1))
    assert times == pytest.approx([1 - i / steps for i in range(steps)])


def test_the_midpoint_rule_is_exact_for_linear_velocity():
    # dx/dt = 2t + c: exact for a second-order rule, not for a first-order one.
    def velocity(x, t):
        return torch.full_like(x, 2 * t + 0.5)

    noise = torch.tensor([0.3, -2.0], dtype=torch.float64)
    for steps in (2, 4, 6):
        found = midpoint.sample(FlowDenoiser(velocity), noise, steps)
        assert torch.allclose(found, noise - 1.5, atol=1e-9)
    assert (euler.sample(FlowDenoiser(velocity), noise, 6) - (noise - 1.5)).abs().min() > 0.1


def scene_of(mask: LabelMap):
    manifest = find("ct-tissue")
    return manifest, prepare(mask, manifest)


def latent(mask: LabelMap, sampler: str, steps: int, role: str = "flow", **more) -> torch.Tensor:
    manifest, scene = scene_of(mask)
    return Sampling.of(manifest, CPU, sampler, steps, scene, role=role, **more).sample(1)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).square().mean())


@pytest.fixture(scope="module")
def path_end() -> torch.Tensor:
    """End point of the main network's path from the noise of seed 1."""
    return latent(trunk(), "midpoint", 48)


def test_four_midpoint_evaluations_follow_the_path_better_than_eight_of_euler(path_end):
    assert distance(latent(trunk(), "midpoint", 4), path_end) < distance(latent(trunk(), "euler", 8), path_end)


# The student's recipe


def test_the_student_is_initialized_as_its_teacher(recipe):
    batch = recipe.batch(Draw.of(0, 0), 1)
    teacher, student = recipe.teacher, student_of(recipe.teacher)
    x = torch.randn(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = teacher(x, torch.tensor([0.6]), teacher.encode_mask(batch["maps"]), batch["scalars"])
        for step in (0.25, 1.0):
            found = student(
                x, torch.tensor([0.6]), student.encode_mask(batch["maps"]), batch["scalars"], torch.tensor([step])
            )
            assert torch.allclose(found, wanted, atol=1e-5)


def test_the_targets_follow_the_path_of_the_teacher(recipe):
    batch, draw = recipe.batch(Draw.of(0, 1), 1), Draw.of(0, 1)
    path = recipe._path(batch, draw)
    for steps in recipe.budgets:
        x = path[0]
        for index in range(steps):
            start, velocity, time, step = recipe._interval(path, steps, index)
            assert time == pytest.approx(1 - index / steps) and step == pytest.approx(1 / steps)
            assert torch.allclose(x, start, atol=1e-5)
            x = x - step * velocity
        assert torch.allclose(x, path[-1], atol=1e-5)


def test_training_moves_one_step_closer_to_the_path(recipe, trained):
    state = torch.load(trained / "checkpoint.pt", weights_only=True)
    student = student_of(recipe.teacher)
    before, after = [], []
    for index in range(3):
        draw = Draw.of(9, index)
        batch = recipe.batch(draw, 1)
        path = recipe._path(batch, draw)
        for weights, errors in ((None, before), (state["averages"]["draft"], after)):
            student = student_of(recipe.teacher)
            if weights is not None:
                student.load_state_dict(weights)
            with torch.no_grad():
                errors.append(distance(follow(student, path[0], batch, 1), path[-1]))
    assert np.mean(after) < 0.8 * np.mean(before)


def test_the_detail_term_detects_blur():
    sharp = torch.randn(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(1, 1, 8, 8, 8)
    blurred = 0.5 * sharp
    assert float(spread_error(sharp, sharp, weight)) == 0
    assert float(spread_error(-sharp, sharp, weight)) < 1e-9  # other noise, the same spread
    assert float(spread_error(blurred, sharp, weight)) > 0.1


def test_budgets_that_do_not_divide_the_path_get_a_sentence(config, tmp_path):
    made = read_config(config)
    made["few_step"]["budgets"] = {"3": 1}
    with pytest.raises(InputError, match="cannot be divided evenly into 3 steps"):
        FewStepRecipe(made, tmp_path)


def test_additional_noise_levels_are_drawn(recipe):
    drawn = {float(recipe.batch(Draw.of(0, i), 1)["scalars"][0, 1]) for i in range(12)}
    assert len(drawn) > 1


# The package


def test_the_exported_package_is_valid_and_keeps_the_weights_of_the_teacher(trained):
    package = trained / "package" / "ct-tissue"
    assert store.verify(package) == []
    made, teacher = load_manifest(package), find("ct-tissue")
    assert made.networks["draft"].arguments["step_size"] is True
    for role in ("flow", "autoencoder"):
        file = teacher.networks[role].weights
        assert made.checksums[file] == teacher.checksums[file]
    assert made.metadata["changelog"][made.version]
    assert (package / "models" / "draft.safetensors").stat().st_size < 16 * 2**20


def test_exporting_twice_is_idempotent(trained, config):
    before = load_manifest(trained / "package" / "ct-tissue")
    train("few-step", config, trained, device="cpu")
    after = load_manifest(trained / "package" / "ct-tissue")
    assert after.training.commands == before.training.commands
    assert after.card == before.card


def test_a_section_of_the_card_is_added_once_and_replaced_later():
    from MedGenLib.training.package import with_section

    card = "# m\n\nText.\n\n## Limits\n\nSome.\n"
    first = with_section(card, "## Few steps\n\nOld.\n")
    assert first == card.rstrip() + "\n\n## Few steps\n\nOld.\n"
    second = with_section(first, "## Few steps\n\nNew.\n")
    assert second.count("## Few steps") == 1 and "New." in second and "Old." not in second
    assert second.startswith(card.rstrip())


def test_a_preset_with_an_unknown_network_is_refused(trained, tmp_path):
    import shutil

    folder = shutil.copytree(trained / "package" / "ct-tissue", tmp_path / "ct-tissue")
    path = folder / "configs" / "metadata.json"
    data = json.loads(path.read_text())
    data["medgen"]["sampler"]["presets"]["draft"]["network"] = "sketch"
    path.write_text(json.dumps(data))
    with pytest.raises(PackageError, match="there is no network 'sketch'"):
        load_manifest(folder)
    data["medgen"]["sampler"]["presets"]["draft"]["network"] = "draft"
    data["medgen"]["networks"]["draft"]["arguments"]["scalars"] = 0
    path.write_text(json.dumps(data))
    with pytest.raises(PackageError, match="not the 2 of the network 'flow'"):
        load_manifest(folder)


# The shipped student


def test_presets_use_the_student_and_other_options_the_main_network():
    manifest = find("ct-tissue")
    draft, normal, best = (manifest.preset(name) for name in ("draft", "normal", "best"))
    assert network_role(manifest, draft) == "draft"
    assert network_role(manifest, draft, "euler", 1.0) == "draft"
    assert network_role(manifest, draft, "midpoint") == "flow"
    assert network_role(manifest, draft, guidance=2.0) == "flow"
    assert network_role(manifest, draft, steps=1) == network_role(manifest, draft, steps=4)
    assert network_role(manifest, draft, steps=5) == "flow"
    assert network_role(manifest, normal) == "draft" and network_role(manifest, best) == "flow"


def test_the_report_contains_the_network():
    drafted = generate(trunk(), seed=1, preset="draft", retries=0, device="cpu")
    assert drafted.report.parameters["network"] == "draft"
    assert drafted.report.steps == find("ct-tissue").preset("draft").steps
    other = generate(trunk(), seed=1, preset="draft", sampler="heun", retries=0, device="cpu")
    assert other.report.parameters["network"] == "flow"
    assert other.report.steps == find("ct-tissue").preset("best").steps


@pytest.mark.parametrize("steps", [1, 2])
def test_the_student_is_closer_to_the_path_than_any_sampler_of_its_teacher(steps, path_end):
    student = distance(latent(trunk(), "euler", steps, "draft"), path_end)
    for sampler in ("euler", "midpoint", "heun", "ddim"):
        assert student < 0.5 * distance(latent(trunk(), sampler, steps), path_end), sampler


def test_the_student_keeps_the_texture_and_the_diversity_of_its_teacher(path_end):
    found = latent(trunk(), "euler", find("ct-tissue").preset("draft").steps, "draft")
    manifest, scene = scene_of(trunk())
    sampling = Sampling.of(manifest, CPU, "euler", 2, scene, role="draft")
    assert float(found.std() / path_end.std()) == pytest.approx(1, abs=0.07)
    correlation = np.corrcoef(found.flatten(), sampling.sample(2).flatten())[0, 1]
    own = np.corrcoef(found.flatten(), path_end.flatten())[0, 1]
    assert own > 0.95 > correlation


# Guidance


def test_guidance_1_is_off_and_guidance_0_ignores_the_mask():
    plain = latent(trunk(), "euler", 2)
    assert torch.equal(latent(trunk(), "euler", 2, guidance=1.0), plain)
    swapped = trunk()
    swapped = swapped.with_array(np.array([0, 1, 4, 3, 2], np.uint8)[swapped.array])
    forgot = latent(trunk(), "euler", 2, guidance=0.0)
    assert torch.equal(forgot, latent(swapped, "euler", 2, guidance=0.0))
    assert distance(plain, latent(swapped, "euler", 2)) > 10 * 1e-3


def test_guidance_extrapolates_between_predictions_without_and_with_the_mask():
    # In a single Euler step the formula applies to the result.
    without, plain, strong = (latent(trunk(), "euler", 1, guidance=w) for w in (0.0, 1.0, 2.5))
    wanted = without + 2.5 * (plain - without)
    error = distance(strong, wanted) / distance(strong, plain)
    assert error < 1e-3


def test_guidance_works_in_windows_and_with_little_memory(monkeypatch):
    whole = latent(trunk(), "euler", 2, guidance=2.0)
    manifest, scene = scene_of(trunk())
    made = Sampling.of(manifest, CPU, "euler", 2, scene, memory="small", guidance=2.0)
    assert distance(made.sample(1), whole) < 1e-3
    assert LARGEST_GUIDANCE >= 2


def test_guidance_is_reported_and_invalid_values_get_a_sentence():
    report = generate(trunk(), seed=1, steps=2, guidance=1.5, retries=0, device="cpu").report
    assert report.parameters["guidance"] == 1.5
    for wrong in (-1.0, 11.0, float("nan")):
        with pytest.raises(InputError, match="The guidance is"):
            generate(trunk(), seed=1, steps=2, guidance=wrong, device="cpu")


def test_guidance_from_the_command_line(tmp_path, capsys):
    from MedGenLib.cli import main

    path = write_volume(trunk(), tmp_path / "mask.nii.gz")
    command = [
        "generate",
        str(path),
        "-o",
        str(tmp_path / "ct.nii.gz"),
        "--seed",
        "1",
        "--steps",
        "2",
        "--device",
        "cpu",
        "--guidance",
    ]
    assert main([*command, "12"]) != 0
    assert "The guidance is 12; choose 0 to 10." in capsys.readouterr().err
    report = tmp_path / "report.json"
    assert main([*command, "2", "--report", str(report)]) == 0
    assert json.loads(report.read_text())["parameters"]["guidance"] == 2.0


def test_a_loaded_student_does_not_replace_its_teacher():
    manifest = find("ct-tissue")
    student, teacher = (loading.network(manifest, role, CPU) for role in ("draft", "flow"))
    assert student.arguments["step_size"] and not teacher.arguments["step_size"]
    assert MedGenLib.generate is generate
