"""The trainer: kills, throughput, and the time of a plan.

    python Testing/benchmarks/trainer.py [--kills 10] [--threads 2]
    python Testing/benchmarks/trainer.py --processes [--steps 20] [--threads 1]
    python Testing/benchmarks/trainer.py --pairs FOLDER --source mr_t1 --target ct [--steps 600] [--recipes ...]

kills: `medgen train` on the sample crops with tiny networks, SIGKILLed at random moments and started again until it is
done; the weights are compared bit by bit with those of an undisturbed run.
throughput: steps of the latent flow of the planned size in the training loop, and in a plain PyTorch loop with the same
network, optimizer and batches that are in memory already; the difference is the loader, the average and the files.
plan: seconds to inspect and plan 200 cases, copies of the sample crops with other voxels.
processes: instead of these, the weights and the seconds of one process and of two that train together, and the memory
that the plan predicts against the peak of short trainings, each in a process of its own.
pairs: instead of these, `medgen train` on image pairs with each recipe, and what it measured on the people kept out.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, save, table

CROPS = ROOT / "Resources" / "SampleData" / "hippocampi"
TINY = {
    "widths": "[8, 16]",
    "blocks": "[1, 1]",
    "autoencoder_width": "8",
    "batch": "1",
    "steps.autoencoder": "300",
    "steps.latent-flow": "300",
}
STEPS = 30
CASES = 200


def command(out: Path, name: str) -> list[str]:
    words = [word for key, value in TINY.items() for word in ("--set", f"{key}={value}")]
    start = [sys.executable, "-m", "MedGenLib", "train", str(CROPS), "--out", str(out), "--name", name]
    return [*start, "--device", "cpu", *words]


def kills(count: int, home: Path) -> dict[str, Any]:
    """Kill a run 4 to 9 s after each of its starts, which take about 3 s."""
    import torch

    environment = {**os.environ, "MEDGEN_HOME": str(home)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
    start = time.perf_counter()
    subprocess.run(command(home / "straight", "straight"), check=True, **quiet)
    seconds = time.perf_counter() - start
    generator = np.random.default_rng(0)
    killed = 0
    for _ in range(count):
        process = subprocess.Popen(command(home / "killed", "killed"), **quiet)
        try:
            process.wait(4 + 5 * generator.random())
            break  # done before its kill
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    subprocess.run(command(home / "killed", "killed"), check=True, **quiet)
    equal = True
    for stage in ("autoencoder", "flow"):
        one, two = (
            torch.load(home / run / stage / "checkpoint.pt", weights_only=True)["averages"]
            for run in ("straight", "killed")
        )
        equal &= all(torch.equal(value, two[name][key]) for name in one for key, value in one[name].items())
    left = [path.name for path in (home / "killed").rglob(".*part*")]
    return {"kills": killed, "equal_weights": bool(equal), "seconds": seconds, "files_left_over": len(left)}


def throughput(home: Path) -> dict[str, float]:
    """Steps per second of our loop relative to a plain one, with everything else equal."""
    import torch

    from MedGenLib.trainer.inspection import inspect
    from MedGenLib.trainer.layouts import read_dataset
    from MedGenLib.trainer.plan import make_plan
    from MedGenLib.training import train
    from MedGenLib.training.loop import Draw, OptimizationSettings
    from MedGenLib.training.recipes import RECIPES

    dataset = read_dataset(CROPS)
    plan = make_plan(dataset, inspect(dataset)).changed({"steps.autoencoder": "1", "steps.latent-flow": str(STEPS)})
    config = plan.config(dataset.cases, home / "cache")
    train("autoencoder", config, home / "autoencoder", device="cpu")
    recipe = RECIPES["latent-flow"](copy.deepcopy(config), home / "plain")
    settings = OptimizationSettings(**config["optimisation"]["latent-flow"])
    batches = [recipe.batch(Draw.of(0, step), settings.batch) for step in range(STEPS)]
    network = recipe.networks["flow"]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def plain(step: int) -> None:
        loss, _ = recipe.objectives[0].loss(batches[step], Draw.of(0, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    plain(0)
    start = time.perf_counter()
    for step in range(STEPS):
        plain(step)
    simple = time.perf_counter() - start
    config["optimisation"]["latent-flow"].update(validate_every=10**6, checkpoint_every=10**6, precision="fp32")
    moments: list[float] = []
    train("latent-flow", config, home / "flow", device="cpu", progress=lambda p: moments.append(time.perf_counter()))
    ours = moments[STEPS] - moments[0]
    start = time.perf_counter()
    for step in range(STEPS):
        recipe.batch(Draw.of(1, step), settings.batch)
    loading = time.perf_counter() - start
    return {"plain_s": simple, "ours_s": ours, "ratio": simple / ours, "loading_share": loading / ours}


def planning(home: Path) -> float:
    """Seconds to inspect and plan `CASES` cases, without the timing of steps."""
    from MedGenLib.imaging.volume import LabelMap
    from MedGenLib.io.files import read_label_map, read_volume, write_volume
    from MedGenLib.trainer.layouts import read_dataset
    from MedGenLib.trainer.run import Choices, plan_of

    images = sorted((CROPS / "imagesTr").iterdir())
    folder = home / "cases"
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(CASES):
        path = images[number % len(images)]
        image, labels = read_volume(path), read_label_map(CROPS / "labelsTr" / path.name)
        write_volume(image.with_array(image.array + number), folder / "images" / f"case_{number}.nii.gz")
        write_volume(LabelMap(labels.array, labels.affine), folder / "labels" / f"case_{number}.nii.gz")
    start = time.perf_counter()
    plan_of(read_dataset(folder), Choices(changes={"steps.autoencoder": "1", "steps.latent-flow": "1"}), "cpu")
    return time.perf_counter() - start


def processes(home: Path, steps: int, threads: int) -> list[list[Any]]:
    """Rows: what was measured, in one process, in two, and their ratio or largest difference."""
    import torch

    rows: list[list[Any]] = []
    changes = {"steps.autoencoder": str(steps), "steps.latent-flow": str(steps), "parts": "2"}
    path = _config(home, changes, {})
    config = json.loads(path.read_text())
    for settings in config["optimisation"].values():  # the steps are measured, not files and pictures
        settings |= {"validate_every": steps, "checkpoint_every": steps}
    path.write_text(json.dumps(config))
    for stage in ("autoencoder", "latent-flow"):
        seconds, weights = [], []
        for count in (1, 2):
            out = home / f"processes{count}" / stage
            seconds.append(_trained(stage, path, out, "--workers", str(count), "--threads", str(threads)))
            averages = torch.load(out / "checkpoint.pt", weights_only=True)["averages"]
            weights.append({(role, name): x for role, state in averages.items() for name, x in state.items()})
        rows.append([f"{stage}: seconds of {steps} steps", *seconds, seconds[0] / seconds[1]])
        apart = max(float((value - weights[1][name]).abs().max()) for name, value in weights[0].items())
        largest = max(float(value.abs().max()) for value in weights[0].values())
        rows.append([f"{stage}: largest weight, difference", largest, largest, apart])
    return rows


SMALL = {"widths": "[16, 32]", "blocks": "[1, 1]", "attention": "false", "patch": "[32, 48, 32]"}
MEMORIES = {
    "autoencoder": ({}, None),
    "latent-flow": (SMALL, None),
    "latent-flow of batch 4": ({**SMALL, "batch": "4"}, None),
    "gan": ({}, "gan"),
}
"""What is trained on the sample crops -> changes of the plan, and the recipe of the choices."""


def memory(home: Path, threads: int) -> list[list[Any]]:
    """Rows: what is trained, predicted MiB, measured MiB, and their ratio."""
    rows = []
    for name, (changes, recipe) in MEMORIES.items():
        stage, folder = name.partition(" ")[0], home / name.replace(" ", "-")
        folder.mkdir()
        words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
        words += ["--device", "cpu", "--threads", str(threads), *(["--recipe", recipe] if recipe else [])]
        planned = folder / "plan.json"
        _medgen("plan", str(CROPS), "-o", str(planned), "--budget", "100h", *words)
        predicted = json.loads(planned.read_text())["memory_mib"][stage]
        steps = {f"steps.{part}": "3" for part in ({"autoencoder", "latent-flow"} if recipe is None else {recipe})}
        config = _config(folder, {**changes, **steps}, {"recipe": recipe})
        if stage == "latent-flow":
            _trained("autoencoder", config, folder / "autoencoder", "--threads", str(threads))
        _trained(stage, config, folder / "run", "--threads", str(threads))
        measured = json.loads((folder / "run" / "memory.json").read_text())["peak_mib"]
        rows.append([name, predicted, measured, predicted / measured])
    return rows


def _config(folder: Path, changes: dict[str, str], choices: dict[str, Any]) -> Path:
    """The configuration of a plan for the sample crops, as a file."""
    from MedGenLib.trainer.run import Choices, plan_of

    stated = Choices(changes=changes, **choices)
    dataset = stated.data(CROPS)
    plan, _ = plan_of(dataset, stated, "cpu")
    config = plan.config(dataset.cases, folder / "cache")
    for settings in config["optimisation"].values():
        settings["precision"] = "fp32"
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


def _trained(stage: str, config: Path, out: Path, *words: str) -> float:
    """Train one stage in a process of its own; returns the seconds of its steps."""
    said = _medgen("train", stage, "--data", str(config), "--out", str(out), "--device", "cpu", *words)
    return float(re.search(r"training: \d+ steps? in ([\d.]+) s", said)[1])


def _medgen(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "MedGenLib", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stderr


def recipes(home: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each recipe reaches in equally many steps on the same pairs, with networks for a CPU."""
    from MedGenLib.trainer.run import Choices, train_own

    found = []
    for recipe in options.recipes:
        network = "[16, 32, 64, 96]" if recipe != "cut" else ""
        changes = {f"steps.{recipe}": str(options.steps), "batch": "2", "patch": "96", "discriminator.width": "16"}
        changes |= {"network.widths": network} if network else {"network.width": "16", "network.blocks": "4"}
        choices = Choices(
            name=f"pairs-{recipe}", recipe=recipe, source=options.source, target=options.target, changes=changes
        )
        start = time.perf_counter()
        made = train_own(options.pairs, home / recipe, choices, device="cpu", threads=options.threads)
        lines = made.card.partition("## Measured on held-out people")[2].strip().splitlines()
        found.append({"recipe": recipe, "seconds": time.perf_counter() - start, "measured": lines})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processes", action="store_true", help="measure processes that train together, and memory")
    parser.add_argument("--pairs", type=Path, help="data set of image pairs")
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--recipes", nargs="+", default=["regression", "pix2pix", "cut"])
    parser.add_argument("--keep", type=Path, help="folder for the runs on pairs, with their pages")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["MEDGEN_HOME"] = str(home)
        if arguments.pairs:
            results = recipes(arguments.keep or home, arguments)
            for result in results:
                print(f"{result['recipe']}, {result['seconds']:.0f} s", *result["measured"], sep="\n")
            save("trainer-pairs", {"steps": arguments.steps, "results": results})
            return
        if arguments.processes:
            needed = memory(home, arguments.threads)
            print(table(["training", "predicted MiB", "measured MiB", "ratio"], needed))
            shared = processes(home, arguments.steps, arguments.threads)
            print(table(["measure", "1 process", "2 processes", "ratio or difference"], shared))
            save("trainer-processes", {"steps": arguments.steps, "processes": shared, "memory": needed})
            return
        figures = {**kills(arguments.kills, home), **throughput(home), f"plan_of_{CASES}_cases_s": planning(home)}
    print(table(["measure", "value"], [[key, value] for key, value in figures.items()]))
    save("trainer", figures)


if __name__ == "__main__":
    main()
