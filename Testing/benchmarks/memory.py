"""Predicted and measured peak memory of runs, each in a separate process.

    python Testing/benchmarks/memory.py [--threads 1] [--large]

One sampling step, because the memory does not depend on the number of steps. ct-tissue, mr-brain and
mr-hippocampus on drawn masks of several sizes, in both number formats and both plans, and
head-mr-to-ct; with --large also ct-tissue on 512 x 512 x 256 voxels with the whole draft preset and
the plan "auto".
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from common import in_process, save, table
from speed import head

JOBS: dict[str, dict[str, Any]] = {
    f"{model} {'x'.join(map(str, shape))}, {form}, {memory}": {
        "model": model,
        "shape": shape,
        "form": form,
        "memory": memory,
    }
    for model, shape, form, memory in (
        ("ct-tissue", (64, 64, 64), "float32", "normal"),
        ("ct-tissue", (96, 96, 96), "float32", "normal"),
        ("ct-tissue", (128, 128, 128), "float32", "normal"),
        ("ct-tissue", (128, 128, 128), "bfloat16", "normal"),
        ("ct-tissue", (160, 160, 160), "bfloat16", "normal"),
        ("ct-tissue", (192, 192, 192), "bfloat16", "normal"),
        ("ct-tissue", (192, 192, 192), "bfloat16", "small"),
        ("mr-brain", (96, 96, 96), "float32", "normal"),
        ("mr-brain", (128, 128, 128), "bfloat16", "normal"),
        ("mr-hippocampus", (48, 64, 48), "float32", "normal"),
        ("mr-hippocampus", (256, 256, 256), "float32", "normal"),
        ("head-mr-to-ct", (192, 256, 256), "bfloat16", "normal"),
    )
}
LARGE = "ct-tissue 512x512x256, bfloat16, auto"
LARGE_JOB = {"model": "ct-tissue", "shape": (512, 512, 256), "form": "bfloat16", "memory": "auto", "steps": None}


def drawn(model: str, shape: tuple[int, ...]):
    """Mask with the labels of the model: a trunk with two lungs, or two halves of an ellipsoid."""
    import numpy as np

    from MedGenLib.imaging.volume import LabelMap

    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in shape]
    labels = np.zeros(shape, np.uint8)
    if model == "mr-hippocampus":
        size = [min(n, 40) / n for n in shape]
        x, y, z = np.meshgrid(*(a / s for a, s in zip(axes, size, strict=True)), indexing="ij", sparse=True)
        inside = x**2 + y**2 + z**2 < 0.8
        labels[inside & (y > 0)] = 1
        labels[inside & (y <= 0)] = 2
        return LabelMap(labels, np.eye(4))
    x, y = np.meshgrid(*axes[:2], indexing="ij")
    radius = np.hypot(x, 1.2 * y)[..., None]
    for value, outline in ((1, 0.95), (2, 0.85)):
        labels[np.broadcast_to(radius < outline, shape)] = value
    lungs = (np.hypot(np.abs(x) - 0.4, y) < 0.3)[..., None] & (axes[2] > -0.2)
    labels[lungs] = 4
    labels[np.broadcast_to((np.hypot(x, y - 0.5) < 0.12)[..., None], shape)] = 3
    return LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]))


def run(job: dict[str, Any]) -> dict[str, Any]:
    from MedGenLib import generate, translate
    from MedGenLib.devices import free_memory, peak_memory_mib
    from MedGenLib.packages import find
    from MedGenLib.pipelines import estimate, flow_sampling, latent_flow, loading, slice_sampling, slice_translation

    half = job["form"] == "bfloat16"
    for module in (loading, flow_sampling, slice_sampling):
        module.bfloat16_pays = lambda device: half
    for module in (latent_flow, slice_translation):
        module.computes_in_bfloat16 = lambda device: half
    manifest, common = find(job["model"]), {"device": "cpu", "memory": job["memory"]}
    free = free_memory() / 2**20
    start = time.perf_counter()
    if manifest.task == "translate":
        image = head()
        expected = estimate.plan_run(manifest, image.geometry)
        report = translate(image, "CT", model=job["model"], accept_license=True, preset="draft", **common).report
    else:
        mask = drawn(job["model"], job["shape"])
        steps = job.get("steps", 1)
        given = None if job["memory"] == "normal" else free if job["memory"] == "auto" else 0.0
        expected = estimate.plan_run(manifest, mask.geometry, "draft", free_mib=given)
        report = generate(
            mask, job["model"], mapping="model", seed=1, retries=0, preset="draft", steps=steps, **common
        ).report
    return {
        "predicted": expected.memory_mib,
        "measured": peak_memory_mib(),
        "free": free,
        "seconds": time.perf_counter() - start,
        "plan": report.parameters["memory"],
        "windows": report.parameters.get("windows", 1),
        "passed": report.passed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", help="run only jobs whose name contains this text")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jobs = JOBS | ({LARGE: LARGE_JOB} if arguments.large or arguments.child == LARGE else {})
    if arguments.child:
        import torch

        torch.set_num_threads(arguments.threads)
        print(json.dumps(run(jobs[arguments.child])))
        return
    figures = {}
    for name in jobs:
        if arguments.only is None or arguments.only in name:
            figures[name] = in_process(__file__, name, arguments.threads)
            print(name, figures[name], flush=True)
    rows = [
        [name, f["plan"], f["windows"], f["predicted"], f["measured"], f["predicted"] / f["measured"]]
        for name, f in figures.items()
    ]
    print(table(["run", "plan", "windows", "predicted MiB", "measured MiB", "ratio"], rows))
    save("memory", figures)


if __name__ == "__main__":
    main()
