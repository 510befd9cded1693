"""The real scheduler on many simulated workers that die, are slow, or are lost with their computer."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from simulated import Cluster

from MedGenLib.cluster.actors import RayPool
from MedGenLib.cohort.board import Board
from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE, QUARANTINED
from MedGenLib.cohort.scheduler import run_cases


def run(cluster: Cluster, folder, count: int) -> Counter:
    """Id and status -> how often a record was kept."""
    kept, board = Counter(), Board(count, 0, lambda text: None, quiet=True)
    cases = [CohortCase(f"c{number:05}", "evaluate") for number in range(count)]
    run_cases(cases, folder, cluster, board, lambda record: kept.update([(record.id, record.status)]), cluster.wait)
    assert {name for name, _ in kept} == {case.id for case in cases} and set(kept.values()) == {1}
    assert sum(board.count.values()) == count
    return Counter(status for _, status in kept)


def times(seed: int = 0):
    draw = np.random.default_rng(seed)
    return lambda case: draw.gamma(16, 30 / 16)


def test_every_case_is_done_once_whatever_happens(tmp_path):
    cluster = Cluster(64, times(), deaths=6, slow=0.05, lost={2: 200.0, 5: 900.0})
    statuses = run(cluster, tmp_path, 2000)
    assert cluster.died > 60 and statuses[DONE] + statuses[QUARANTINED] == 2000
    assert statuses[QUARANTINED] <= 12, "a case is set aside only where two workers died in it"


def test_efficiency_with_64_workers_and_deaths(tmp_path):
    cluster = Cluster(64, times(), deaths=0.01)
    assert run(cluster, tmp_path, 5000)[DONE] == 5000
    assert cluster.efficiency > 0.9


def test_the_clock_agrees_with_the_closed_form(tmp_path):
    """Equal cases without deaths: start, then whole rounds."""
    cluster = Cluster(8, lambda case: 10.0, start=7.0, between=0.5)
    run(cluster, tmp_path, 40)
    assert cluster.now == pytest.approx(7 + 5 * 10 + 4 * 0.5)


def test_cases_of_a_lost_computer_go_elsewhere(tmp_path):
    """Its workers take a case each and never begin it."""
    cluster = Cluster(16, lambda case: 10.0, lost={1: 15.0})
    assert run(cluster, tmp_path, 160)[DONE] == 160
    assert cluster.died == 8 and cluster.now < 8 + 10 + 10.1 * 20


class PlayedRay:
    """Actors whose answers the test gives."""

    def __init__(self):
        self.ready, self.run, self.killed = Future(), Future(), []

    def _actor(self):
        def method(future):
            return SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: future))

        return SimpleNamespace(ready=method(self.ready), run=method(self.run))

    def kill(self, actor):
        self.killed.append(actor)


@pytest.fixture
def ray():
    """A pool without Ray, and what plays it."""
    pool, played = RayPool.__new__(RayPool), PlayedRay()
    pool._ray, pool._actors, pool._out, pool._actor = played, {}, "", played._actor
    return pool, played


def test_a_case_on_ray_can_be_taken_back_until_its_actor_has_a_place(ray):
    pool, played = ray
    future = pool.submit(0, CohortCase("c", "evaluate"))
    assert future.cancel() and len(played.killed) == 1 and pool._actors == {}
    played.ready.set_result(None)  # too late
    played.run.set_result({})
    assert future.cancelled()


@pytest.mark.parametrize("dies", [False, True])
def test_a_case_that_an_actor_has_begun_stays_with_it(ray, dies):
    pool, played = ray
    future = pool.submit(0, CohortCase("c", "evaluate"))
    played.ready.set_result(None)
    assert not future.cancel() and not played.killed
    played.run.set_exception(RuntimeError("died")) if dies else played.run.set_result({"id": "c"})
    assert (0 in pool._actors) is not dies
    assert future.exception() if dies else future.result() == {"id": "c"}
