"""The plan of a run: time and memory before anything is computed."""

import json
import math

import numpy as np
import pytest

from MedGenLib import home
from MedGenLib.errors import InputError
from MedGenLib.packages import find
from MedGenLib.planning import plan_run, remember
from MedGenLib.volume import Geometry


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))


def grid(side, spacing=2.0):
    return Geometry((side,) * 3 if isinstance(side, int) else side, np.diag([spacing] * 3 + [1]))


@pytest.mark.parametrize(("side", "seconds", "mib"), [(96, 7.8, 491), (128, 15.8, 709)])
def test_the_plan_agrees_with_what_the_card_measured(side, seconds, mib):
    plan = plan_run(find("ct-tissue"), grid(side))
    assert plan.seconds == pytest.approx(seconds, rel=0.2)
    assert plan.memory_mib == pytest.approx(mib, rel=0.15)
    assert plan.windows == 1 and plan.memory == "normal"
    size = f"{plan.memory_mib * 2**20 / 1e9:.1f} GB"
    assert plan.sentence == f"about {round(plan.seconds)} s on CPU, {size}"


def test_a_translation_as_the_card_measured_it():
    plan = plan_run(find("head-mr-to-ct"), grid((192, 256, 256), 1.0))
    assert plan.seconds == pytest.approx(25.2, rel=0.05)
    assert plan.memory_mib == pytest.approx(1006, rel=0.05)


def test_presets_samples_and_size_scale_the_time():
    model = find("ct-tissue")
    normal = plan_run(model, grid(96)).seconds
    assert plan_run(model, grid(96), "draft").seconds == pytest.approx(normal * 9 / 17)
    assert plan_run(model, grid(96), samples=3).seconds == pytest.approx(3 * normal)
    head = find("head-mr-to-ct")
    one, three, mirrored = (
        plan_run(head, grid(200, 1.0), p).seconds for p in ("draft", "normal", "best")
    )
    assert three == pytest.approx(3 * one) and mirrored == pytest.approx(5 * one)


def test_the_working_grid_counts_and_not_the_inputs():
    model = find("ct-tissue")
    fine = plan_run(model, grid(256, 0.75))  # becomes 128^3 voxels of 1.5 mm
    assert fine.seconds == pytest.approx(plan_run(model, grid(128)).seconds)


def test_a_large_grid_is_cut_into_windows_with_bounded_memory_of_the_networks():
    model = find("ct-tissue")
    large = plan_run(model, grid(320))
    assert large.windows == math.prod([4] * 3)
    assert f"in {large.windows} windows" in large.sentence
    per_voxel = plan_run(model, grid(128)).memory_mib / 128**3
    assert large.memory_mib < per_voxel * 320**3


def test_the_windows_are_those_of_the_sampler():
    from MedGenLib.sampling import OVERLAP, WHOLE, WINDOW
    from MedGenLib.tiling import Windows

    for side in (176, 240, 320):
        assert side // 2 > WHOLE
        windows = Windows((side // 2,) * 3, (WINDOW,) * 3, OVERLAP, 4)
        assert plan_run(find("ct-tissue"), grid(side)).windows == len(list(windows))


def test_little_free_memory_takes_the_small_plan_and_says_so():
    plan = plan_run(find("ct-tissue"), grid(128), free_mib=600)
    assert plan.memory == "small" and "little memory" in plan.sentence
    assert plan.memory_mib < plan_run(find("ct-tissue"), grid(128), free_mib=6000).memory_mib


def test_a_gpu_has_no_figure_until_it_was_measured():
    model = find("ct-tissue")
    plan = plan_run(model, grid(96), device="cuda:0")
    assert plan.seconds is None and "not known yet" in plan.sentence
    remember(model, grid(96), "normal", "cuda:0", 1, 0.6)
    assert plan_run(model, grid(96), device="cuda:0").seconds == pytest.approx(0.6)
    assert plan_run(model, grid(96), device="cpu").seconds > 5


def test_what_this_computer_measured_counts_more_than_the_card():
    model = find("ct-tissue")
    remember(model, grid(96), "normal", "cpu", 1, 2.0)
    assert plan_run(model, grid(96), device="auto").seconds == pytest.approx(2.0)
    remember(model, grid(96), "normal", "auto", 2, 8.0)  # 4 s each
    assert plan_run(model, grid(96)).seconds == pytest.approx(3.0)


def test_a_damaged_record_is_ignored():
    path = home.cache_dir() / "timings.json"
    path.parent.mkdir(parents=True)
    for text in ("{", "[1]", json.dumps({"ct-tissue 1.0.0 on cpu": "fast"})):
        path.write_text(text)
        assert plan_run(find("ct-tissue"), grid(96)).seconds == pytest.approx(7.8, rel=0.2)


def test_a_record_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    model = find("ct-tissue")
    monkeypatch.setattr(home, "cache_dir", lambda: tmp_path / "file" / "cache")
    remember(model, grid(96), "normal", "cpu", 1, 2.0)
    assert plan_run(model, grid(96)).seconds == pytest.approx(7.8, rel=0.2)


def test_a_structure_model_is_planned_for_its_field_of_view_only():
    model = find("mr-hippocampus")
    small, large = plan_run(model, grid(59, 1.0)), plan_run(model, grid(256, 1.0))
    assert large.memory_mib == pytest.approx(small.memory_mib)


def test_what_cannot_be_planned_is_said():
    with pytest.raises(InputError, match="no preset 'ultra'"):
        plan_run(find("ct-tissue"), grid(96), "ultra")
    with pytest.raises(InputError, match="single voxel"):
        plan_run(find("ct-tissue"), grid(1))
