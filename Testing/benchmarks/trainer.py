"""The trainer: kills, throughput, and the time of a plan.

    python Testing/benchmarks/trainer.py [--kills 10] [--threads 2]
    python Testing/benchmarks/trainer.py --pairs FOLDER --source mr_t1 --target ct [--steps 600] [--recipes ...]

kills: `medgen train` on the sample crops with tiny networks, SIGKILLed at random moments and started again until it is
done; the weights are compared bit by bit with those of an undisturbed run.
throughput: steps of the latent flow of the planned size in the training loop, and in a plain PyTorch loop with the same
network, optimizer and batches that are in memory already; the difference is the loader, the average and the files.
plan: seconds to inspect and plan 200 cases, copies of the sample crops with other voxels.
pairs: instead of these, `medgen train` on image pairs with each recipe, and what it measured on the people kept out.
"""

from __future__ import annotations

import argparse
import copy
import os
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
        figures = {**kills(arguments.kills, home), **throughput(home), f"plan_of_{CASES}_cases_s": planning(home)}
    print(table(["measure", "value"], [[key, value] for key, value in figures.items()]))
    save("trainer", figures)


if __name__ == "__main__":
    main()
