"""What adding a thing costs, by doing it: one file of another package, which only its decorator registers.

Each addition is used in a process of its own, so that it leaves nothing behind in this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
MASK = REPOSITORY / "Resources" / "SampleData" / "hippocampus_mask.nii.gz"

SAMPLER = '''
"""Ralston's method: two thirds of a step ahead, one quarter of the first slope, three of the second."""

from MedGenLib.diffusion import sampler
from MedGenLib.diffusion.flow import path_times


@sampler("ralston", path="flow", order=2, evaluations=2, total=lambda steps: 2 * max(1, steps // 2))
def sample(denoise, noise, steps, generator=None, on_step=None, shift=1.0):
    x, done = noise, 0
    times = path_times(max(1, steps // 2), shift)
    for t, t_next in zip(times[:-1], times[1:]):
        step = t_next - t
        slopes = []
        for share in (0, 2 / 3):
            ahead = x + share * step * slopes[0] if slopes else x
            time = t + share * step
            slopes.append((ahead - denoise(ahead, 1 - time, time)) / time)
            done += 1
            if on_step is not None:
                on_step(done)
        x = x + step * (slopes[0] + 3 * slopes[1]) / 4
    return x
'''

READER = '''
"""Balls of one label in noise."""

import numpy as np
import torch

from MedGenLib.imaging.normalization import Affine
from MedGenLib.training.data import reader


@reader("balls")
class Balls:
    maps, scalars, held_out = 2, 0, []

    def __init__(self, config, patch):
        self.side, self.codec = patch, Affine(0.0, 1.0)
        self.radii = config["data"]["radii"]

    def sample(self, generator, batch):
        radii = generator.choice(self.radii, (batch, 1, 1, 1, 1))
        distance = np.linalg.norm(np.indices((self.side,) * 3) - self.side / 2, axis=0)
        ball = (distance < radii).astype(np.float32)
        x = ball + 0.1 * generator.standard_normal(ball.shape, np.float32)
        arrays = {"x": x, "maps": np.concatenate([1 - ball, ball], 1), "valid": np.ones_like(x)}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def statistics(self):
        return {"1": {"name": "ball", "mean": 1.0, "sd": 0.1}}

    def preprocessing(self):
        return {"mean": 0.0, "sd": 1.0}
'''

RECIPE = '''
"""A threshold that finds the label again."""

import json

import torch
from torch import nn

from MedGenLib.training.data import read_data
from MedGenLib.training.loop import Objective
from MedGenLib.training.recipes import recipe


@recipe("threshold")
class Threshold:
    def __init__(self, config, out):
        self.data = read_data(config, config["threshold"]["patch"])
        self.networks = {"threshold": nn.Conv3d(1, 1, 1)}
        self.objectives = [Objective("threshold", ("threshold",), self.loss)]

    def batch(self, draw, size):
        return self.data.sample(draw.numpy, size)

    def loss(self, batch, draw):
        found = self.networks["threshold"](batch["x"])
        loss = nn.functional.binary_cross_entropy_with_logits(found, batch["maps"][:, 1:])
        return loss, {"entropy": float(loss.detach())}

    def validate(self, networks, step, log):
        return {"weight": float(networks["threshold"].weight)}

    def export(self, networks, step, out):
        path = out / "threshold.json"
        path.write_text(json.dumps({"steps": step, "weight": float(networks["threshold"].weight)}))
        return path
'''

PIPELINE = '''
"""Each label gets a gray level of the package, in white noise: no network is asked."""

import math
from dataclasses import dataclass

import numpy as np

from MedGenLib.imaging.volume import Volume
from MedGenLib.packages.settings import GenerationSettings, settings
from MedGenLib.packages.typed import setting
from MedGenLib.pipelines.base import Estimate, pipeline


@settings("levels")
@dataclass(frozen=True, kw_only=True)
class LevelSettings(GenerationSettings):
    levels: tuple[float, ...]
    noise: float = setting(1.0, above=0)

    def contradictions(self, medgen):
        yield from super().contradictions(medgen)
        if len(self.levels) <= max(map(int, medgen["input"]["labels"])):
            yield f"preprocessing.levels has {len(self.levels)} values; give one for each label"


class Run:
    sampler, steps, findings, own_grid, seams = None, None, [], True, []

    def __init__(self, manifest, mask):
        self.manifest, self.mask = manifest, mask
        self.parameters = {"levels": len(manifest.settings.levels)}

    def sample(self, seed, progress=None):
        return np.random.default_rng(seed).normal(0, self.manifest.settings.noise, self.mask.shape)

    def drawn(self, seed):
        return {}

    def decode(self, sampled, progress=None):
        return np.asarray(self.manifest.settings.levels)[self.mask.array] + sampled

    def finish(self, values):
        output = self.manifest.output
        return Volume(values.clip(*output.range).astype(np.float32), self.mask.affine, output.modality, output.unit)


@pipeline("levels")
class Levels:
    editable = False

    def __init__(self, manifest):
        self.manifest = manifest

    def prepare(self, source, device, options):
        return Run(self.manifest, source)

    def estimate(self, geometry, preset, device="cpu", free_mib=None):
        return Estimate(math.prod(geometry.shape), 100 + 12 * math.prod(geometry.shape) / 2**20)

    def measured_cost(self, run):
        return math.prod(run.size)
'''

PACKAGE = {
    **{key: "1.0" for key in ("monai_version", "pytorch_version", "numpy_version")},
    **{key: "toy" for key in ("task", "description", "authors", "copyright")},
    "version": "1.0.0",
    "changelog": {},
    "name": "toy-levels",
    "network_data_format": {},
    "medgen": {
        "schema": 1,
        "task": "generate",
        "pipeline": "levels",
        "input": {"kind": "labels", "labels": {"1": {"name": "anterior"}, "2": {"name": "posterior"}}},
        "output": {"modality": "T1w", "unit": "a.u.", "range": [0, 255], "background": 0},
        "spacing_mm": {"min": 0.5, "max": 2.0, "native": 1.0},
        "field_of_view_mm": {"min": [8, 8, 8], "max": [300, 300, 300]},
        "networks": {"codec": {"network": "Autoencoder", "arguments": {}}},
        "preprocessing": {"name": "levels", "levels": [10, 80, 160], "noise": 2},
        "sampler": {"name": "none", "presets": {"normal": {}}},
        "performance": [
            {"size": [100, 100, 100], "preset": "normal", "seconds": 2.0, "peak_mib": 200, "device": "CPU, float32"}
        ],
        "statistics": {"tissues": {"2": {"name": "posterior", "low": 150, "high": 170}}},
        "training": {"data": [], "commands": [], "held_out": []},
        "license": {"spdx": "CC0-1.0", "commercial_use": True, "acceptance_required": False},
        "checksums": {},
        "citation": "",
    },
}

CONFIGURATION = {
    "data": {"adaptor": "balls", "radii": [3, 4, 5]},
    "threshold": {"patch": 12},
    "autoencoder": {"patch": 12, "network": {"width": 8, "blocks": 1}},
    "optimisation": {
        name: {"steps": 2, "batch": 2, "precision": "fp32", "learning_rate": 0.1, "warmup": 0}
        for name in ("threshold", "autoencoder")
    },
}


@pytest.fixture
def toys(tmp_path) -> Path:
    """A folder for a package `toys` of another author, and for what its parts make."""
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "__init__.py").touch()
    return tmp_path


def run(folder: Path, code: str) -> str:
    """What a process prints that finds the package `toys`."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "MEDGEN_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_sampler_is_one_file(toys):
    (toys / "toys" / "ralston.py").write_text(SAMPLER)
    code = f"""
import numpy as np, torch
from MedGenLib import generate
from MedGenLib.diffusion import SAMPLERS
from MedGenLib.errors import InputError

options = dict(model="mr-hippocampus", steps=6, seed=1, device="cpu", retries=0)
try:
    generate({str(MASK)!r}, sampler="ralston", **options)
except InputError as error:
    print(error)
import toys.ralston
noise = torch.tensor([0.5, 2.0], dtype=torch.float64)
exact = lambda x, alpha, sigma: 1.5 + alpha * 0.09 / (alpha**2 * 0.09 + sigma**2) * (x - alpha * 1.5)
errors = [float((SAMPLERS["ralston"](exact, noise, n) - 1.5 - 0.3 * noise).abs().max()) for n in (64, 256)]
print(errors[0] / errors[1] > 3 ** SAMPLERS["ralston"].order)
made = {{name: generate({str(MASK)!r}, sampler=name, **options) for name in ("ralston", "euler")}}
print(made["ralston"].report.sampler, SAMPLERS["ralston"].total(6))
print(bool(np.abs(made["ralston"].volume.array - made["euler"].volume.array).max() > 0))
print(bool(np.corrcoef(made["ralston"].volume.array.ravel(), made["euler"].volume.array.ravel())[0, 1] > 0.98))
"""
    unknown, *facts = run(toys, code).splitlines()
    assert unknown.startswith("There is no sampler 'ralston'; choose ")
    assert facts == ["True", "ralston 6", "True", "True"]


def test_a_recipe_and_a_data_reader_are_one_file_each_and_a_configuration(toys):
    (toys / "toys" / "balls.py").write_text(READER)
    (toys / "toys" / "threshold.py").write_text(RECIPE)
    (toys / "config.json").write_text(json.dumps(CONFIGURATION))
    code = """
from MedGenLib.errors import InputError
from MedGenLib.training import train

try:
    train("threshold", "config.json", "out")
except InputError as error:
    print(error)
import toys.balls, toys.threshold
from MedGenLib.cli import main

print(train("threshold", "config.json", "out", device="cpu").read_text())
print(main(["train", "threshold", "--data", "config.json", "--out", "out", "--steps", "5", "--device", "cpu"]))
print(train("threshold", "config.json", "out", device="cpu", steps=5).read_text())
print(train("autoencoder", "config.json", "other", device="cpu").name)
"""
    unknown, first, exported, code, more, of_ours = run(toys, code).splitlines()
    assert unknown.startswith("There is no recipe 'threshold'; choose ")
    assert json.loads(first)["steps"] == 2 and json.loads(more)["steps"] == 5
    assert json.loads(more)["weight"] != json.loads(first)["weight"]
    assert (exported, code) == ("Exported out/threshold.json.", "0")
    assert of_ours == "autoencoder.safetensors", "a recipe of ours reads the data by the new reader"


def test_a_pipeline_is_one_file_and_a_package(toys):
    (toys / "toys" / "levels.py").write_text(PIPELINE)
    (toys / "package.json").write_text(json.dumps(PACKAGE))
    code = f"""
import json
import numpy as np
from MedGenLib import generate, user_folders
from MedGenLib.errors import InputError, PackageError
from MedGenLib.io.files import read_label_map
from MedGenLib.packages import find, write_package

metadata, weights = json.load(open("package.json")), {{"codec": {{"x": np.zeros(1, np.float32)}}}}
folder = user_folders.models_dir() / "toy-levels"
try:
    write_package(folder, metadata, weights, "# Toy", "CC0")
except PackageError as error:
    print(error)
import toys.levels
metadata["medgen"]["preprocessing"]["levels"] = [10, 80]
try:
    write_package(folder, metadata, weights, "# Toy", "CC0")
except PackageError as error:
    print(error)
metadata["medgen"]["preprocessing"]["levels"] = [10, 80, 160]
manifest = write_package(folder, metadata, weights, "# Toy", "CC0")
made = [generate({str(MASK)!r}, "toy-levels", seed=seed, device="cpu") for seed in (1, 1, 2)]
first, again, other = (result.volume.array for result in made)
print(bool((first == again).all()), bool((first != other).any()), made[0].report.passed)
print(made[0].report.parameters["levels"], round(made[0].report.output_checks[0].figures["mean"]["posterior"]))
from MedGenLib.pipelines.base import is_editable
from MedGenLib.pipelines.estimate import plan_run
print(plan_run(manifest, read_label_map({str(MASK)!r}).geometry).sentence)
from MedGenLib.editing.session import Canvas
try:
    Canvas.generate({str(MASK)!r}, "toy-levels")
except InputError as error:
    print(error)
print(find("ct-tissue").pipeline, is_editable(find("ct-tissue")), is_editable(manifest))
"""
    unknown, contradiction, same, report, sentence, refused, ours = run(toys, code).splitlines()
    assert "pipeline is 'levels', which is not registered; choose " in unknown
    assert "preprocessing.levels has 2 values; give one for each label." in contradiction
    assert same == "True True True" and report == "3 160"
    assert sentence == "about 1 s on CPU, 0.1 GB"
    assert "cannot redraw a part of an image" in refused
    assert ours == "latent-flow True False"


@pytest.mark.parametrize(
    ("source", "name", "taken", "owner"),
    [
        (SAMPLER, "ralston", "heun", "MedGenLib.diffusion.heun"),
        (READER, "balls", "brain-scans", "MedGenLib.training.data.brain"),
        (RECIPE, "threshold", "latent-flow", "MedGenLib.training.recipes.latent_flow"),
        (PIPELINE, "levels", "maisi", "MedGenLib.packages.settings"),
        (PIPELINE.replace('@settings("levels")', ""), "levels", "maisi", "MedGenLib.pipelines.maisi_pipeline"),
    ],
    ids=["sampler", "data reader", "recipe", "settings", "pipeline"],
)
def test_a_name_that_is_taken_is_refused_in_one_sentence(toys, source, name, taken, owner):
    (toys / "toys" / "taken.py").write_text(source.replace(f'("{name}"', f'("{taken}"'))
    code = """
from MedGenLib.errors import InputError
try:
    import toys.taken
except InputError as error:
    print(error)
"""
    (sentence,) = run(toys, code).splitlines()
    assert sentence.endswith(
        f"'{taken}' of toys.taken cannot be registered because {owner} uses this name; choose another name."
    )
