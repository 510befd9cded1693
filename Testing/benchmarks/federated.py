"""Federated training against training on pooled data: models of the hippocampus at two sites.

MEDGEN_DATA=... python Testing/benchmarks/federated.py [--rounds 8] [--steps 40] [--cases 168] [--held 40] [--mu 0 0.01]
MEDGEN_DATA=... python Testing/benchmarks/federated.py --generator [--rounds 6] [--steps 100] [--autoencoder 30]

The training cases of the shipped configuration are dealt to two sites, two thirds and one third. Pooled training takes
rounds x steps steps, and so does each site. All are measured on held-out cases that none has seen. The federation runs
without NVFlare, which does not change the weights, in one process or, for the generator, one for each site. Prints a
table for RESULTS.md.

- the segmenter of `hippocampus-segmenter.json`, with a small network; pooled training without a mean over its last
  steps, as the server has none.
- generator: `mr-hippocampus.json`, first its autoencoder (`--autoencoder` steps a round), then its flow, both federated
  or both pooled; pooled training with its last weights, as the server has no others, and with their mean. An image is
  made from each held-out mask. FID is that of `medgen distribution`; its ratio to that of pooled training has an
  interval from 100 bootstrap samples of the people, the same for both (1.96 SD on a logarithmic scale). Pictures go to
  out/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from common import OUT
from federations import SHIPPED, federation_in, run_here

from MedGenLib.evaluation.feature_networks import extractor
from MedGenLib.federated.server import Coordinator
from MedGenLib.federated.site import Site
from MedGenLib.imaging.normalization import ZScore
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.metrics.distribution import compare_cohorts, fid
from MedGenLib.metrics.features import Features, describe
from MedGenLib.metrics.image import dice
from MedGenLib.metrics.slices import Standard
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.pipelines.loading import network
from MedGenLib.segmentation.package import label_array
from MedGenLib.trainer.measurement import generated
from MedGenLib.training import train
from MedGenLib.training.data.cases import case_names, read_case
from MedGenLib.training.loop import CHECKPOINT
from MedGenLib.training.recipes import RECIPES
from MedGenLib.training.splits import hold_out
from MedGenLib.visual.planes import translation_planes

CASES = Path(os.environ.get("MEDGEN_DATA", ".")) / "mr_hippocampus_msd"
VALIDATION = 8
"""Cases of each site by which the best round is chosen."""
SAMPLES, SHOWN = 100, 2
STAGES = {"autoencoder": "l1", "latent-flow": "velocity"}
"""Stage of the generator -> figure by which its best round is chosen."""


def deal(folder: Path, names: list[str]) -> Path:
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for name in names:
            (folder / part / name).symlink_to((CASES / part / name).resolve())
    return folder


def settings(steps: int) -> dict:
    config = json.loads((SHIPPED / "hippocampus-segmenter.json").read_text())
    config["segmenter"] = {"patch": [32, 48, 32], "network": {"widths": [12, 24, 48], "blocks": [1, 1, 1], "stem": 6}}
    config["package"]["license_file"] = str(SHIPPED / config["package"]["license_file"])
    config["data"]["hold_out"] = VALIDATION
    config["optimisation"]["segmenter"] |= {"steps": steps, "batch": 2, "ema": 0.0, "warmup": 20}
    return config


def measured(package: Path, names: list[str]) -> list[float]:
    """Mean Dice of each label over the cases."""
    import torch

    manifest = load_manifest(package)
    found = network(manifest, "segmenter", torch.device("cpu"))
    cases = [read_case(CASES, name, ZScore(-3, 5), (1.0,) * 3) for name in names]
    arrays = [label_array(found, case.image) for case in cases]
    pairs = list(zip(arrays, cases, strict=True))
    return [float(np.nanmean([dice(a == v, c.labels == v) for a, c in pairs])) for v in (1, 2)]


def generator_settings(rounds: int, steps: dict[str, int]) -> dict:
    config = json.loads((SHIPPED / "mr-hippocampus.json").read_text())
    config["package"]["license_file"] = str(SHIPPED / config["package"]["license_file"])
    config["data"]["hold_out"] = 0
    config.pop("start_from")
    for stage, count in steps.items():
        total = rounds * count
        more = {"steps": total, "warmup": min(100, total // 10), "validate_every": 10**6}
        config["optimisation"][stage] |= more
    return config


class Generators:
    """Generators compared on the held-out cases."""

    def __init__(self, held: list[str]) -> None:
        self.extract = extractor("medgen-features", "cpu")
        self.masks = [read_label_map(CASES / "labels" / name) for name in held]
        images = [read_volume(CASES / "images" / name, modality="T1w") for name in held]
        self.standard = Standard.set_by(images[0], "real", False)
        self.real, self.shown = self._described(images), {"real": images[:SHOWN]}
        self.base: np.ndarray | None = None

    def measure(self, title: str, package: Path, minutes: float) -> None:
        """Print a row; the first one is what the others are compared with."""
        manifest = load_manifest(package)
        made = [generated(manifest, mask, seed, "cpu") for seed, mask in enumerate(self.masks, 1)]
        found = self._described([volume for volume, _ in made])
        self.shown[title] = [volume for volume, _ in made[:SHOWN]]
        measures = {measure.name: measure for measure in compare_cohorts(self.real, found).measures}
        whole, diverse = measures["FID"], measures["diversity"].value
        cells = [title, f"{whole.value:.1f} ({whole.low:.1f} to {whole.high:.1f})", self._ratio(found)]
        cells += [f"{measures['precision'].value:.2f}, {measures['recall'].value:.2f}", f"{diverse:.2f}"]
        cells += [f"{sum(passed for _, passed in made)} of {len(made)}", f"{minutes:.1f} min"]
        print(f"| {' | '.join(cells)} |", flush=True)
        self._draw()

    def _draw(self) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        for number in range(SHOWN):
            images = {title: volumes[number] for title, volumes in self.shown.items()}
            (OUT / f"federated_{number}.png").write_bytes(translation_planes(images))

    def _described(self, images: list[Volume]) -> list[Features]:
        return [describe(image, str(n), self.standard, self.extract, cache=False) for n, image in enumerate(images)]

    def _ratio(self, found: list[Features]) -> str:
        """FID relative to the first row's, with its interval."""
        people, generator = np.arange(len(self.real)), np.random.default_rng(0)
        samples = [people, *(generator.choice(people, len(people)) for _ in range(SAMPLES))]
        values = np.log([fid(_stacked(self.real, chosen), _stacked(found, chosen)) for chosen in samples])
        if self.base is None:
            self.base = values
            return "1"
        middle, error = (values - self.base)[0], 1.96 * float(np.std((values - self.base)[1:], ddof=1))
        low, value, high = np.exp([middle - error, middle, middle + error])
        return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _stacked(cohort: list[Features], chosen: np.ndarray) -> list[np.ndarray]:
    return [np.concatenate([cohort[i].planes[plane] for i in chosen]) for plane in range(3)]


def pooled_generator(folder: Path, config: dict) -> tuple[Path, Path]:
    """The packages with the mean of the weights, and with the last weights, of pooled training."""
    for stage in STAGES:
        package = train(stage, config, folder / stage, threads=1, device="cpu")
    import torch

    state = torch.load(folder / "latent-flow" / CHECKPOINT, weights_only=True)
    recipe = RECIPES["latent-flow"](config, folder / "latent-flow")
    recipe.networks["flow"].load_state_dict(state["networks"]["flow"])
    return package, recipe.export(recipe.networks, state["step"], folder / "last")


def run_apart(home: Path) -> str:
    """The result of a federation whose sites are processes of their own, with a thread each."""
    context, server, sites = multiprocessing.get_context("spawn"), Coordinator(home), {}
    for path in sorted((home / "sites").iterdir()):
        sites[path.name], there = context.Pipe()
        context.Process(target=serve, args=(path, there), daemon=True).start()
    while task := server.next(sorted(sites)):
        for name in task.sites:
            sites[name].send((task.name, task.number, task.weights))
        server.take(task, {name: sites[name].recv() for name in task.sites})
    for link in sites.values():
        link.send(None)
    for process in multiprocessing.active_children():
        process.join()
    return server.state["result"]


def serve(path: Path, link: Connection) -> None:
    site = Site(path)
    while (task := link.recv()) is not None:
        link.send(site.work(*task))


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    return sum(os.times()[:4])


def federated_generator(folder: Path, config: dict, sites: dict[str, Path], rounds: int, steps: dict[str, int]) -> Path:
    files, made = {}, ""
    (folder / "config.json").write_text(json.dumps(config))
    for stage, metric in STAGES.items():
        changes = {"recipe": stage, "metric": metric, "better": "lower", "rounds": rounds, "steps": steps[stage]}
        home = federation_in(folder / stage, folder / "config.json", sites, files=files, **changes)
        made = run_apart(home)
        files = {"run/autoencoder": made}
    return Path(made)


def generators(folder: Path, arguments: argparse.Namespace, sites: dict[str, Path], rest: Path, out: list[str]) -> None:
    rounds, steps = arguments.rounds, {"autoencoder": arguments.autoencoder, "latent-flow": arguments.steps}
    compared = Generators(out)
    print("| training | FID | / pooled | precision, recall | diversity | checks | CPU time |")
    print("|---|---|---|---|---|---|---|")
    begun, config = cpu_seconds(), generator_settings(rounds, steps)
    config["data"]["folder"], config["folder"] = str(rest), str(folder)
    mean, last = pooled_generator(folder / "out", config)
    minutes, begun = (cpu_seconds() - begun) / 60, cpu_seconds()
    compared.measure("pooled, last weights", last, minutes)
    (folder / "federated").mkdir()
    begun = cpu_seconds()
    package = federated_generator(folder / "federated", generator_settings(rounds, steps), sites, rounds, steps)
    compared.measure(f"FedAvg, {rounds} rounds of 2 sites", package, (cpu_seconds() - begun) / 60)
    compared.measure("pooled, mean of the weights", mean, minutes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generator", action="store_true")
    parser.add_argument("--autoencoder", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cases", type=int, default=168)
    parser.add_argument("--held", type=int, default=40)
    parser.add_argument("--mu", type=float, nargs="*", default=[0.0, 0.01])
    arguments = parser.parse_args()
    total, names = arguments.rounds * arguments.steps, case_names(CASES)
    out = hold_out(names, 40, 0)
    rest, out = [name for name in names if name not in out][: arguments.cases], out[: arguments.held]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cut = 2 * len(rest) // 3
        sites = {"a": deal(folder / "a", rest[:cut]), "b": deal(folder / "b", rest[cut:])}
        if arguments.generator:
            return generators(folder, arguments, sites, deal(folder / "pooled", rest), out)
        pooled = {**settings(total), "folder": temporary}
        pooled["data"]["folder"] = str(deal(folder / "pooled", rest))
        config = folder / "config.json"
        config.write_text(json.dumps(settings(total)))
        changes = {"rounds": arguments.rounds, "steps": arguments.steps}
        print(f"| training, {total} steps | anterior | posterior | CPU time |\n|---|---|---|---|")
        begun = time.process_time()
        package = train("segmenter", pooled, folder / "out", threads=1, device="cpu")
        line("pooled", package, out, begun)
        for mu in arguments.mu:
            title, begun = f"FedProx, mu {mu:g}" if mu else "FedAvg", time.process_time()
            state = run_here(federation_in(folder / title, config, sites, mu=mu, **changes)).state
            line(f"{title}, {arguments.rounds} rounds of 2 sites", Path(state["result"]), out, begun)


def line(title: str, package: Path, held: list[str], begun: float) -> None:
    minutes = (time.process_time() - begun) / 60
    anterior, posterior = measured(package, held)
    print(f"| {title} | {anterior:.3f} | {posterior:.3f} | {minutes:.1f} min |", flush=True)


if __name__ == "__main__":
    main()
