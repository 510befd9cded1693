"""Federated training against training on pooled data: the hippocampus segmenter at two sites.

MEDGEN_DATA=... python Testing/benchmarks/federated.py [--rounds 8] [--steps 40] [--cases 168] [--held 40] [--mu 0 0.01]

The training cases of `hippocampus-segmenter.json` are dealt to two sites, two thirds and one third. Pooled training
takes rounds x steps steps of a small network, and so does each site. All are measured on held-out cases that none has
seen; pooled training without a mean over its last steps, as the server has none. The federation runs in one process,
without NVFlare, which does not change the weights. Prints a table for RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from federations import SHIPPED, federation_in, run_here

from MedGenLib.imaging.normalization import ZScore
from MedGenLib.metrics.image import dice
from MedGenLib.packages.manifest import load_manifest
from MedGenLib.pipelines.loading import network
from MedGenLib.segmentation.package import label_array
from MedGenLib.training import train
from MedGenLib.training.data.cases import case_names, read_case
from MedGenLib.training.splits import hold_out

CASES = Path(os.environ.get("MEDGEN_DATA", ".")) / "mr_hippocampus_msd"
VALIDATION = 8
"""Cases of each site by which the best round is chosen."""


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


def main() -> None:
    parser = argparse.ArgumentParser()
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
