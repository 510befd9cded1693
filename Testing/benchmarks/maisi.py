"""MAISI's networks run by MedGen and by MONAI's own code in a plain loop.

    python Testing/benchmarks/maisi.py [--threads 2] [--steps 30] [--skip-exact]

A mask of 128^3 voxels, 30 steps, the published architecture with random weights, because only speed
and memory are measured. Each job runs in a separate process:

- MONAI's U-Net, ControlNet and autoencoder called one after the other, as in speed.py;
- `generate` with a package of the same networks in float32, and in the default number format;
- decoding with decreasing limits of kept feature maps: time, peak memory and difference from MONAI.

Seconds are those of sampling and decoding; the peak memory is that of the whole process, including
loading. CPU seconds are given as well, because they do not depend on other load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, in_process, save, table

NAME = "nv-generate-ct"
SIZE = 128


def mask():
    """A body with liver, kidney and lungs in a cube of 2 mm voxels."""
    sys.path.append(str(ROOT / "Testing" / "support"))
    import numpy as np
    from maisis import trunk

    return trunk((SIZE,) * 3, np.diag([2.0, 2.0, 2.0, 1.0]))


def write_weights(folder: Path) -> None:
    """Write a package of the published architecture with random weights."""
    sys.path.append(str(ROOT / "Testing" / "support"))
    import torch
    from hubfiles import random_tensors

    from MedGenLib.packages.export import write_package
    from MedGenLib.packages.hub.convert import expected_shapes
    from MedGenLib.packages.hub.nv_generate import PUBLISHED

    metadata = PUBLISHED[NAME].metadata()
    metadata["medgen"]["preprocessing"]["scale_factor"] = 1.0
    weights = {}
    for seed, (role, spec) in enumerate(metadata["medgen"]["networks"].items()):
        shapes = expected_shapes(spec["network"], spec["arguments"])
        weights[role] = random_tensors(shapes, torch.float32, seed)
        for tensor in weights[role].values():
            tensor.div_(max(1, tensor[0].numel()) ** 0.5)
    metadata |= {"version": "1.0.0", "changelog": {"1.0.0": "random weights"}}
    write_package(folder / NAME, metadata, weights, "# Random weights\n", "No license.\n")


def theirs() -> dict[str, float]:
    from speed import maisi

    start = time.process_time()
    figures = maisi(SIZE, steps())
    return {**figures, "CPU": time.process_time() - start}


def ours(bfloat16: bool) -> dict[str, float]:
    from MedGenLib import generate
    from MedGenLib.pipelines.maisi import sampling

    if not bfloat16:
        sampling.bfloat16_pays = lambda device: False
    at = {}

    def note(progress) -> None:
        at.setdefault(progress.stage, (time.perf_counter(), time.process_time()))

    report = generate(
        mask(), NAME, seed=1, steps=steps(), retries=0, device="cpu", any_grid=True, accept_license=True, progress=note
    ).report
    assert report.parameters["working_shape"] == (SIZE,) * 3, report.parameters
    begin, decode, end = (at[stage] for stage in ("reading the mask", "decoding", "checking"))
    return {
        "seconds": end[0] - begin[0],
        "CPU": end[1] - begin[1],
        "sampling": decode[0] - begin[0],
        "decoding": end[0] - decode[0],
        "precision": report.parameters["precision"],
    }


def decoding(kind: str) -> dict[str, float]:
    """Decode a random latent once; the image is written to a file for comparison."""
    import torch
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi

    from MedGenLib.networks.maisi import MaisiAutoencoder
    from MedGenLib.networks.slabs import Room
    from MedGenLib.packages.hub.nv_generate import AUTOENCODER

    torch.manual_seed(0)
    arguments = AUTOENCODER["arguments"]
    latent = torch.randn(1, 4, *(SIZE // 4,) * 3)
    rooms = {
        "everything": Room(),
        "float16": Room(dtype=torch.float16),
        "64 channels": Room(4 * 64 * SIZE**3),
        "half the size": Room(4 * 32 * SIZE**3),
    }
    torch.manual_seed(1)
    if kind == "MONAI":
        net = AutoencoderKlMaisi(**arguments, num_splits=4, dim_split=1).eval()
    else:
        net = MaisiAutoencoder(**arguments).eval().to(memory_format=torch.channels_last_3d)
    start = time.perf_counter()
    with torch.inference_mode():
        image = net.decode(latent) if kind == "MONAI" else net.decode(latent, rooms[kind])
    seconds = time.perf_counter() - start
    torch.save(image, Path(os.environ["MEDGEN_HOME"]) / f"{kind}.pt")
    return {"seconds": seconds}


JOBS: dict[str, Callable[[], dict]] = {
    "MONAI, plain loop": theirs,
    "MedGen, float32": lambda: ours(False),
    "MedGen, auto": lambda: ours(True),
}
DECODERS = ("MONAI", "everything", "float16", "64 channels", "half the size")


def steps() -> int:
    return int(os.environ["MAISI_STEPS"])


def child(name: str, threads: int) -> None:
    """Run one job and print its results as JSON."""
    import torch

    from MedGenLib.devices import peak_memory_mib

    torch.set_num_threads(threads)
    figures = decoding(name) if name in DECODERS else JOBS[name]()
    print(json.dumps({**figures, "peak MiB": peak_memory_mib()}))


def decoders(threads: int, home: Path) -> dict[str, dict]:
    """Time, memory and difference of the decoders; prints a table."""
    import torch

    figures = {}
    for name in DECODERS:
        figures[name] = in_process(__file__, name, threads)
        difference = torch.load(home / f"{name}.pt") - torch.load(home / "MONAI.pt")
        figures[name]["largest difference"] = float(difference.abs().max())
    base = figures["MONAI"]
    rows = [
        [n, f["seconds"] / base["seconds"], f["peak MiB"] / base["peak MiB"], f["largest difference"]]
        for n, f in figures.items()
    ]
    print(table(["decoder, maps kept", "time / MONAI", "peak / MONAI", "difference"], rows))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--skip-exact", action="store_true", help="skip the decoders")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads)
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"MEDGEN_HOME": home, "MAISI_STEPS": str(arguments.steps)}
        write_weights(Path(home) / "models")
        print("system load before:", os.getloadavg())
        figures = {}
        for name in JOBS:
            figures[name] = in_process(__file__, name, arguments.threads)
            print(name, figures[name], flush=True)
        base = figures["MONAI, plain loop"]
        rows = [
            [
                n,
                f["seconds"],
                f["sampling"],
                f["decoding"],
                f["peak MiB"],
                f["seconds"] / base["seconds"],
                f["CPU"] / base["CPU"],
                f["peak MiB"] / base["peak MiB"],
            ]
            for n, f in figures.items()
        ]
        heads = ["job", "seconds", "sampling", "decoding", "peak MiB", "time", "CPU time", "memory"]
        print(table(heads, rows))
        print("system load after:", os.getloadavg())
        if not arguments.skip_exact:
            figures["decoders"] = decoders(arguments.threads, Path(home))
    save("maisi", figures)


if __name__ == "__main__":
    main()
