"""Cohorts past these machines: the real scheduler on hundreds of simulated workers.

    python Testing/benchmarks/cohort_simulation.py [--only check workers faults cost] [--mean 5.5]

check: a real run of 12 generations on two worker processes, the same run on the virtual clock with the measured times
of its cases, and the formula of docs/how-to/cohorts.md.
workers: efficiency of 8 to 512 workers for cases of --mean seconds, with 1 % deaths an hour.
faults: what deaths, slow workers and lost computers cost 64 workers.
cost: a cohort of 10,000 cases.
Times of cases are drawn from those of the check (without it from a gamma distribution), scaled to --mean.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cohort import timed
from common import save, table

from cohorts import generation, records, write_masks  # isort: skip
from simulated import Cluster  # isort: skip

from MedGenLib.cohort.board import Board
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE
from MedGenLib.cohort.scheduler import run_cases
from MedGenLib.progress import duration

START, BETWEEN, SPREAD = 7.9, 0.084, 0.15
"""Seconds until the first case and between two cases, of RESULTS.md, and a relative spread of cases without a check."""
PARTS = ("check", "workers", "faults", "cost")


def predicted(cases: int, workers: int, mean: float, start: float, between: float, deaths: float = 0.0) -> float:
    """Seconds of a cohort by the formula of the documentation; ``deaths`` of a worker in an hour."""
    lost = deaths / 3600 * (start + mean / 2)
    return start + cases * (mean + between) / workers / (1 - lost) + mean / 2 * (workers - 1) / workers


def simulate(cluster: Cluster, count: int) -> dict[str, Any]:
    """Run a cohort on the virtual clock; its figures, and the time that the scheduler itself took."""
    cases = [CohortCase(f"c{number:05}", "evaluate") for number in range(count)]
    kept, begin = [], time.process_time()
    board = Board(count, 0, lambda text: None, quiet=True)
    with tempfile.TemporaryDirectory() as out:
        run_cases(cases, Path(out), cluster, board, kept.append, cluster.wait)
    assert sorted(record.id for record in kept) == [case.id for case in cases]
    return {
        "seconds": cluster.now,
        "efficiency": cluster.efficiency,
        "died": cluster.died,
        "failed": sum(record.status != DONE for record in kept),
        "overhead_ms": 1000 * (time.process_time() - begin) / count,
    }


def drawn(times: np.ndarray, mean: float, seed: int = 0) -> Callable[[CohortCase], float]:
    """Times of cases, drawn from measured ones and scaled to a mean."""
    draw = np.random.default_rng(seed)
    return lambda case: float(draw.choice(times)) * mean / times.mean()


def measure_check(times: np.ndarray, mean: float, folder: Path) -> list[list[Any]]:
    manifest = generation(folder / "c.yaml", write_masks(folder / "masks", 12, (64, 64, 48)), steps=4)
    found = timed(manifest, folder / "out", "--workers", "2", "--threads", "1")
    seconds = {name: record.seconds for name, record in records(folder / "out").items()}
    measured = found["cases"]
    between = (2 * measured - found["busy"]) / 12
    cluster = Cluster(2, lambda case: list(seconds.values())[int(case.id[1:])], start=0.0, between=between)
    simulated = simulate(cluster, 12)["seconds"]
    formula = predicted(12, 2, found["busy"] / 12, 0.0, between)
    return [
        ["12 cases on two processes, from the first case to the last", measured, "s"],
        ["mean of a case, time between two cases", f"{found['busy'] / 12:.2f}, {between:.2f}", "s"],
        ["the same on the virtual clock", simulated, "s"],
        ["by the formula", formula, "s"],
    ]


def measure_workers(times: np.ndarray, mean: float, folder: Path) -> list[list[Any]]:
    rows = []
    for workers in (8, 16, 32, 64, 128, 256, 512):
        found = simulate(Cluster(workers, drawn(times, mean), START, BETWEEN, deaths=0.01), 10_000)
        formula = predicted(10_000, workers, mean, START, BETWEEN, 0.01)
        rows.append([f"{workers} workers: efficiency", found["efficiency"], ""])
        rows.append([f"{workers} workers: time, and by the formula", f"{found['seconds']:.0f}, {formula:.0f}", "s"])
    return [*rows, ["the scheduler's own time, 512 workers", found["overhead_ms"], "ms a case"]]


def measure_faults(times: np.ndarray, mean: float, folder: Path) -> list[list[Any]]:
    rows = []
    for name, fault in (
        ("no fault", {}),
        ("1 % deaths an hour", {"deaths": 0.01}),
        ("10 deaths an hour of each worker", {"deaths": 10.0}),
        ("a twentieth of the workers takes three times as long", {"slow": 0.05}),
        ("one of eight computers is lost halfway", {"lost": {3: 400.0}}),
        ("all of these but the 10 deaths", {"deaths": 0.01, "slow": 0.05, "lost": {3: 400.0}}),
    ):
        found = simulate(Cluster(64, drawn(times, mean), START, BETWEEN, **fault), 10_000)
        figures = f"{found['efficiency']:.3f}, {duration(found['seconds'])}, {found['died']}, {found['failed']}"
        rows.append([f"64 workers, {name}: efficiency, time, deaths, cases set aside", figures, ""])
    return rows


def measure_cost(times: np.ndarray, mean: float, folder: Path) -> list[list[Any]]:
    rows = []
    for seconds, workers in ((mean, 2), (mean, 64), (60.0, 64), (600.0, 64), (600.0, 512)):
        found = simulate(Cluster(workers, drawn(times, seconds), START, BETWEEN, deaths=0.01), 10_000)
        hours = workers * found["seconds"] / 3600
        figures = f"{duration(found['seconds'])}, {hours:.0f} worker hours, {found['efficiency']:.3f}"
        rows.append([f"10,000 cases of {seconds:g} s on {workers} workers: time, cost, efficiency", figures, ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--mean", type=float, default=5.5, help="seconds of a case")
    arguments = parser.parse_args()
    times = np.random.default_rng(0).gamma(1 / SPREAD**2, SPREAD**2, 1000)
    figures = {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = globals()[f"measure_{name}"](times, arguments.mean, Path(folder))
            if name == "check":
                times = np.array([record.seconds for record in records(Path(folder) / "out").values()])
        print(table(["measure", "value", "unit"], figures[name]), flush=True)
    save("cohort_simulation", figures)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
