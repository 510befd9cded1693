"""The same seed gives the same voxels, reports and DICOM as before: every embedded model and surface.

On a machine whose hashes are recorded every voxel is compared. Elsewhere the last digits depend on
the processor, and block means and single voxels decide alone, within the tolerances stated in
`record_results.py`, which also says when and how to record results again.
"""

from __future__ import annotations

import numpy as np
import pytest
from record_results import Record, digest
from result_cases import CASES, Outcome, machine

RECORD = Record.load()


def test_every_case_is_recorded():
    assert set(RECORD.reports) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_recorded(tmp_path, name):
    found = RECORD.differences(name, CASES[name].run(tmp_path))
    assert not found, "\n".join(found)


def test_the_hashes_of_this_machine_were_compared():
    if machine() not in RECORD.hashes:
        pytest.skip(f"no hashes recorded for: {machine()}; the coarse comparison decided alone")
    assert set(RECORD.hashes[machine()]) <= {key.rpartition("/")[0] for key in RECORD.coarse}


@pytest.mark.parametrize(
    "change",
    [
        lambda array: np.roll(array, 1, axis=0),
        lambda array: array + 1,
        lambda array: array + np.random.default_rng(0).integers(-5, 6, array.shape),
        lambda array: array[:-1],
        lambda array: np.where(array > 600, 600, array),
    ],
    ids=["shifted", "offset of 1 HU", "noise of 3 HU", "smaller", "cut at 600 HU"],
)
def test_the_coarse_comparison_alone_sees_a_change(tmp_path, change):
    name = "ct-tissue draft"
    outcome = CASES[name].run(tmp_path)
    assert RECORD.differences(name, outcome, exact=False) == []
    array = outcome.arrays["volume 1"]
    changed = Outcome({"volume 1": change(array).astype(array.dtype)}, outcome.reports)
    assert RECORD.differences(name, changed, exact=False)


def test_reports_and_hashes_see_the_smallest_change(tmp_path):
    name = "lesion"
    outcome = CASES[name].run(tmp_path)
    array = outcome.arrays["volume"].copy()
    before = digest(array)
    array[3, 4, 5] = np.nextafter(array[3, 4, 5], np.inf)
    assert digest(array) != before
    outcome.reports["report"]["parameters"]["halo_voxels"][0] += 1
    (found,) = RECORD.differences(name, outcome, exact=False)
    assert found.startswith("/report/parameters/halo_voxels/0 is 3, recorded was 2")
