"""A pool of worker processes on this computer."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from MedGenLib.cluster.plan import WorkerPlan
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.scheduler import WorkersUnusable
from MedGenLib.errors import WorkerError
from MedGenLib.worker.client import Worker

STARTS = 3
"""Attempts to start a worker before the run is given up."""


class ProcessPool:
    """Workers that live as long as the pool; a thread waits for each."""

    def __init__(self, plan: WorkerPlan, out: Path) -> None:
        self.size, self.threads, self._out, self._closed = plan.workers, plan.threads, out, False
        self._workers = [Worker(env=environment(plan, place)) for place in range(plan.workers)]
        self._waiting = ThreadPoolExecutor(plan.workers, thread_name_prefix="cohort")

    def submit(self, place: int, case: CohortCase) -> Future[dict[str, Any]]:
        return self._waiting.submit(self._run, self._workers[place], case)

    @property
    def pids(self) -> list[int]:
        """Process IDs of the workers that run."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.close()
        self._waiting.shutdown(wait=True)
        for worker in self._workers:  # one that started meanwhile
            worker.close()

    def _run(self, worker: Worker, case: CohortCase) -> dict[str, Any]:
        for attempt in range(1, STARTS + 1):
            try:
                worker.start()
                break
            except WorkerError as error:
                if attempt == STARTS or self._closed:
                    unusable = WorkersUnusable(str(error))
                    unusable.detail = error.detail
                    raise unusable from error
        return worker.call("cohort/case", case=case.to_dict(), out=str(self._out))


def environment(plan: WorkerPlan, place: int) -> dict[str, str]:
    """Environment of the worker at a place: its share of the threads and its GPU."""
    values = {name: str(plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    values["SITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(plan.threads)
    return values | ({"CUDA_VISIBLE_DEVICES": plan.gpus[place % len(plan.gpus)]} if plan.gpus else {})
