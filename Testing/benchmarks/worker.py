"""What the worker costs: start, overhead, warm networks, cancel, and memory over many runs.

    python Testing/benchmarks/worker.py [--runs 50]

- start: from the start of the process to its answer, PyTorch loaded;
- overhead: 256 x 256 x 128 voxels through the worker, less the same run called directly in a
  process that is warm as well; and the two ways of the files alone;
- first and second run of a fresh worker, whose difference is the loading of the networks;
- cancel: from the request to the answer, in the middle of a large run;
- the small plan: peak memory beside the usual one;
- memory held after each of many draft runs on a small mask.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
from common import save, table
from speed import tissue_mask

from MedGenLib import generate
from MedGenLib.errors import Cancelled
from MedGenLib.progress import Progress
from MedGenLib.volume import LabelMap
from MedGenLib.worker import transfer
from MedGenLib.worker.client import Worker

OPTIONS = {"seed": 1, "retries": 0, "device": "cpu"}


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def large_mask() -> LabelMap:
    """256 x 256 x 128 voxels with a small body in the middle.

    What is handed over is as large as ever, what is computed is not, so that the noise of a long
    computation does not hide the difference.
    """
    array = np.zeros((256, 256, 128), np.uint8)
    array[96:160, 96:160, 32:96] = tissue_mask(64).array
    return LabelMap(array, np.diag([2.0, 2.0, 2.0, 1.0]))


def start() -> dict[str, float]:
    times = []
    for _ in range(3):
        worker = Worker()
        times.append(seconds(worker.start))
        worker.close()
    return {"start, s": statistics.median(times)}


def overhead(worker: Worker) -> dict[str, float]:
    """Each way in turn after a first run that warms it; the shortest counts."""
    mask, options = large_mask(), {**OPTIONS, "steps": 1}
    remote, direct = [], []
    for _ in range(6):
        direct.append(seconds(lambda: generate(mask, **options)))
        remote.append(seconds(lambda: worker.generate(mask, **options)))
    with tempfile.TemporaryDirectory() as folder:
        volume = mask.array.astype(np.int16)
        files = seconds(
            lambda: [
                np.array(transfer.take(transfer.put(image, folder, name)).array)
                for name, image in (("in", mask), ("out", mask.with_array(volume)))
            ]
        )
    best = min(remote[1:]), min(direct[1:])
    return {
        "256 x 256 x 128 through the worker, s": best[0],
        "called directly, s": best[1],
        "overhead, s": best[0] - best[1],
        "files alone, s": files,
    }


def warm() -> dict[str, float]:
    with Worker() as worker:
        runs = [worker.generate(tissue_mask(40), preset="draft", **OPTIONS) for _ in range(2)]
    first, second = (sum(run.report["timings"].values()) for run in runs)
    loading = [run.report["timings"]["preparing"] for run in runs]
    return {
        "first run 40^3 draft, s": first,
        "second run, s": second,
        "preparing first, s": loading[0],
        "preparing second, s": loading[1],
    }


def cancel(worker: Worker) -> dict[str, float]:
    """In the middle of the sampling of 176^3 voxels, which takes eight windows."""
    times, marks = [], []

    def progress(p: Progress) -> None:
        if p.stage == "sampling" and p.step >= 1:
            marks.append(time.perf_counter())
            raise Cancelled("enough")

    for _ in range(3):
        try:
            worker.generate(tissue_mask(176), progress=progress, steps=20, **OPTIONS)
        except Cancelled:
            times.append(time.perf_counter() - marks[-1])
    return {"cancel until the answer, longest of 3, s": max(times)}


def small_plan() -> dict[str, float]:
    figures = {}
    for memory in ("normal", "small"):
        with Worker() as worker:
            result = worker.generate(tissue_mask(128), steps=1, memory=memory, **OPTIONS)
            again = seconds(
                lambda worker=worker, memory=memory: worker.generate(
                    tissue_mask(128), steps=3, memory=memory, **OPTIONS
                )
            )
        figures[f"128^3, peak of the plan '{memory}', MiB"] = result.report["peak_memory_mib"]
        figures[f"128^3, 3 steps, plan '{memory}', s"] = again
    return figures


def held(runs: int) -> dict[str, float]:
    import psutil

    with Worker() as worker:
        process, memory, times = psutil.Process(worker.info["pid"]), [], []
        for _ in range(runs):
            times.append(
                seconds(lambda: worker.generate(tissue_mask(40), preset="draft", **OPTIONS))
            )
            worker.call("devices")  # is answered after the clean-up
            memory.append(process.memory_info().rss / 2**20)
    return {
        "median of a draft run of 40^3, s": statistics.median(times),
        "memory after run 5, MiB": memory[4],
        f"memory after run {runs}, MiB": memory[-1],
        "largest growth after run 5, MiB": max(memory[5:]) - memory[4],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=50)
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    with Worker() as worker:
        for part in (
            start, lambda: overhead(worker), lambda: cancel(worker), warm, small_plan,
            lambda: held(arguments.runs),
        ):  # fmt: skip
            figures |= (found := part())
            print(found, flush=True)
    save("worker", figures)
    print(table(["figure", "value"], [[name, value] for name, value in figures.items()]))


if __name__ == "__main__":
    main()
