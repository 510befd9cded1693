"""Cohorts: start, overhead a case, efficiency on two workers, memory of a long run, and chaos.

    python Testing/benchmarks/cohort.py [--only start overhead efficiency memory chaos disk] [--ray]

start: seconds from the command to the start of the first case.
overhead: time between two tiny evaluations on one worker, less the time of the evaluation itself in a plain loop.
efficiency: 12 generations on two workers of one thread. "Busy" is the part of the workers' time spent in cases;
"speed-up" compares with the same cases on one worker, and contains what the cores share.
memory: 1,000 tiny evaluations; growth of the resident memory of driver and workers after the first hundred.
chaos: 200 tiny generations with 20 SIGKILLs of workers and 2 of the driver; the images are compared with those of an
undisturbed run.
disk: 20 tiny generations on a file system (in memory; as root) of half the size of their results, which then grows.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import save, table

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cohorts import contents, disturbed, generation, records, small_disk, start, workers_of, write_images, write_masks  # noqa: E402, E501

from MedGenLib.cohort.manifest import write_cohort  # noqa: E402
from MedGenLib.cohort.records import CASES  # noqa: E402

LARGE = (96, 96, 72)
PARTS = ("start", "overhead", "efficiency", "memory", "chaos", "disk")


def evaluations(folder: Path, count: int) -> Path:
    """A manifest of tiny evaluations."""
    images = write_images(folder / "images", 10)
    names = sorted(path.name for path in images.iterdir())
    cases = [
        {"id": f"c{n:04}", "inputs": {role: f"images/{names[n % 10]}" for role in ("image", "reference")}}
        for n in range(count)
    ]
    write_cohort(folder / "c.yaml", {"cohort": "tiny", "verb": "evaluate", "cases": cases})
    return folder / "c.yaml"


def timed(manifest: Path, out: Path, *options: str) -> dict[str, float]:
    """Run a cohort; seconds until its first case, of all cases together, and inside of cases."""
    begin = time.time()
    driver = start(manifest, out, *options)
    _, errors = driver.communicate()
    if driver.returncode:
        raise SystemExit(errors)
    found = records(out)
    ends = {name: (out / CASES / name / "record.json").stat().st_mtime for name in found}
    first = min(ends[name] - record.seconds for name, record in found.items())
    return {
        "start": first - begin,
        "cases": max(ends.values()) - first,
        "busy": sum(record.seconds for record in found.values()),
        "end": time.time() - max(ends.values()),
    }


def measure_start(folder: Path, options: list[str]) -> list[list[Any]]:
    found = timed(evaluations(folder, 2), folder / "out", "--workers", "2", *options)
    return [["start to the first case", found["start"], "s"], ["end after the last case", found["end"], "s"]]


def measure_overhead(folder: Path, options: list[str]) -> list[list[Any]]:
    from MedGenLib.evaluation.pair import evaluate
    from MedGenLib.io.files import read_volume

    count = 100
    found = timed(evaluations(folder, count), folder / "out", "--workers", "1", "--threads", "1", *options)
    paths = sorted((folder / "images").iterdir())
    evaluate(read_volume(paths[0]), read_volume(paths[0]))  # imports
    begin = time.perf_counter()
    for number in range(count):
        path = paths[number % len(paths)]
        evaluate(read_volume(path), read_volume(path))
    alone = (time.perf_counter() - begin) / count
    return [
        ["wall time of a tiny case", found["cases"] / count, "s"],
        ["the evaluation in a plain loop", alone, "s"],
        ["overhead of a case", found["cases"] / count - alone, "s"],
        ["of it between two cases", (found["cases"] - found["busy"]) / count, "s"],
    ]


def measure_efficiency(folder: Path, options: list[str]) -> list[list[Any]]:
    masks = write_masks(folder / "masks", 12, LARGE)
    manifest = generation(folder / "c.yaml", masks, steps=6)
    one = timed(manifest, folder / "one", "--workers", "1", "--threads", "1", *options)
    two = timed(manifest, folder / "two", "--workers", "2", "--threads", "1", *options)
    return [
        ["seconds of a case on one worker", one["busy"] / 12, "s"],
        ["seconds of a case beside another", two["busy"] / 12, "s"],
        ["busy workers", two["busy"] / (2 * two["cases"]), ""],
        ["speed-up by the second worker", one["cases"] / two["cases"], ""],
    ]


def measure_memory(folder: Path, options: list[str]) -> list[list[Any]]:
    import psutil

    out, count = folder / "out", 1000
    driver = start(evaluations(folder, count), out, "--workers", "2", "--threads", "1", *options)
    early: dict[int, float] = {}
    late: dict[int, float] = {}
    while driver.poll() is None:
        done = len(list((out / CASES).glob("*/record.json"))) if (out / CASES).is_dir() else 0
        for pid in [driver.pid, *workers_of(driver.pid)] if 100 <= done < count else []:  # the report comes later
            try:
                now = psutil.Process(pid).memory_info().rss / 2**20
            except psutil.Error:  # it ended
                continue
            early.setdefault(pid, now)
            late[pid] = max(now, late.get(pid, 0.0))
        time.sleep(0.2)
    driver.communicate()
    rows = [["cases done", len(records(out)), ""]]
    for pid in late:
        who = "driver" if pid == driver.pid else "a worker"
        rows.append([f"largest growth of {who} from {early[pid]:.0f} MiB", late[pid] - early[pid], "MiB"])
    return rows


def measure_chaos(folder: Path, options: list[str]) -> list[list[Any]]:
    manifest = generation(folder / "c.yaml", write_masks(folder / "masks", 200))
    driver = start(manifest, folder / "peace", *options)
    driver.communicate()
    deaths = ["worker"] * 22
    deaths[7] = deaths[15] = "driver"
    begin = time.perf_counter()
    happened = Counter(disturbed(manifest, folder / "chaos", deaths, seed=0, options=options))
    expected, found = contents(folder / "peace"), contents(folder / "chaos")
    return [
        ["kills of workers, of drivers", f"{happened['worker']}, {happened['driver']}", ""],
        ["cases with a record", len(found), ""],
        ["images equal to the undisturbed run", sum(found[name] == expected[name] for name in expected), ""],
        ["files left half-written", len(list((folder / "chaos").rglob(".*"))), ""],
        ["wall time", time.perf_counter() - begin, "s"],
    ]


def measure_disk(folder: Path, options: list[str]) -> list[list[Any]]:
    manifest = generation(folder / "c.yaml", write_masks(folder / "masks", 20))
    start(manifest, folder / "peace", *options).communicate()
    size, out = sum(path.stat().st_blocks for path in (folder / "peace").rglob("*")) // 4, folder / "disk" / "out"
    with small_disk(folder / "disk", size) as enlarge:
        driver = start(manifest, out, *options)
        _, errors = driver.communicate()
        failed = [line for line in errors.splitlines() if line.startswith("medgen: failed: ")]
        done = len(list((out / CASES).glob("*/image.nii.gz")))
        hidden = len(list(out.rglob(".*")))
        enlarge(10 * size)
        start(manifest, out, *options).communicate()
        found, expected = contents(out), contents(folder / "peace")
    return [
        ["size of the file system", size, "KiB"],
        ["cases done, and failed", f"{done}, {len(failed)}", ""],
        ["failed with the sentence that the disk is full", sum("the disk is full" in line for line in failed), ""],
        ["files left half-written", hidden, ""],
        ["after the disk grew: images equal to a run on a large disk", sum(found[n] == expected[n] for n in found), ""],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--ray", action="store_true", help="on Ray instead of worker processes")
    arguments = parser.parse_args()
    figures, rows = {}, []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found = globals()[f"measure_{name}"](Path(folder), ["--ray"] if arguments.ray else [])
        figures[name] = found
        rows += [[name, *row] for row in found]
        print(table(["part", "measure", "value", "unit"], [[name, *row] for row in found]), flush=True)
    save("cohort_ray" if arguments.ray else "cohort", figures)
    print(f"\n{table(['part', 'measure', 'value', 'unit'], rows)}\nload of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
