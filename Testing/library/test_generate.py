"""Mask -> volume with the real embedded models: geometry, seeds, labels, cancel, windows."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from texture import highpass_sd

import MedGenLib
from MedGenLib import generate
from MedGenLib.errors import Cancelled, InputError, MemoryPlanError, PackageError
from MedGenLib.findings import OutputCheck
from MedGenLib.imaging.normalization import TissueRange
from MedGenLib.imaging.texture import texture
from MedGenLib.imaging.volume import LabelMap, crop, pad
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.labels.tissues import resegment
from MedGenLib.metrics.image import dice, seam_index
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.settings import TEXTURE
from MedGenLib.pipelines import flow_sampling, loading, scene
from MedGenLib.pipelines.memory_plan import LAYOUTS, Layout

FAST = {"seed": 1, "steps": 3, "retries": 0, "device": "cpu"}


def torso(shape=(28, 24, 20), spacing=2.0, affine=None) -> LabelMap:
    """A trunk along the last axis: fat, soft tissue, a spine and a lung."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    slab = np.zeros(shape[:2], np.uint8)
    slab[np.hypot(x, y) < 0.95] = 1
    slab[np.hypot(x, y) < 0.75] = 2
    slab[np.hypot(x - 0.35, y) < 0.25] = 4
    slab[np.hypot(x + 0.1, y - 0.5) < 0.18] = 3
    labels = np.repeat(slab[..., None], shape[2], axis=2)
    if affine is None:
        affine = np.diag([spacing] * 3 + [1.0])
    return LabelMap(labels, affine)


def oblique(spacing: tuple[float, float, float], left_handed: bool = False) -> np.ndarray:
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    if left_handed:
        turn = turn @ np.diag([-1.0, 1.0, 1.0])
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = [-31.25, 12.5, 88.125]
    return affine


AFFINES = {
    "plain": np.diag([2.0, 2.0, 2.0, 1.0]),
    "oblique": oblique((2.0, 2.0, 2.0)),
    "left-handed": oblique((2.0, 2.0, 2.0), left_handed=True),
    "anisotropic": oblique((1.2, 1.2, 5.0)),
    "fine": oblique((0.9, 0.9, 0.9)),
}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_the_output_lies_exactly_where_the_mask_lies(tmp_path, name, suffix):
    if suffix != ".nii.gz" and name in ("plain", "fine"):
        pytest.skip("the formats are crossed with the harder geometries only")
    mask = torso(affine=AFFINES[name])
    path = write_volume(mask, tmp_path / f"mask{suffix}")
    result = generate(path, **FAST)
    back = read_volume(write_volume(result.volume, tmp_path / f"ct{suffix}"))
    assert back.shape == mask.shape
    corners = np.array([[i, j, k, 1] for i in (0, 27) for j in (0, 23) for k in (0, 19)]).T
    assert np.abs(back.affine @ corners - mask.affine @ corners).max() < 1e-4
    assert result.volume.modality == "CT" and result.volume.unit == "HU"


@pytest.mark.parametrize("name", ["oblique", "left-handed", "anisotropic"])
def test_tissue_appears_where_the_mask_says(name):
    mask = torso(affine=AFFINES[name])
    image = generate(mask, **FAST).volume.array
    spec = find("ct-tissue").statistics.resegment
    found = np.where(mask.array > 0, resegment(image, spec), 0)
    for value in (1, 2, 4):
        assert dice(found == value, mask.array == value) > 0.7, value
    assert (image[mask.array == 0] == -1000).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_in_any_axis_becomes_a_single_slice(axis):
    whole = torso((28, 24, 24))
    low, high = [0, 0, 0], list(whole.shape)
    low[axis], high[axis] = 10, 11
    mask = crop(whole, low, high)
    volume = generate(mask, **FAST).volume
    assert volume.shape == mask.shape
    assert np.allclose(volume.affine, mask.affine, atol=1e-4)
    soft, lung = (volume.array[mask.array == v] for v in (2, 4))
    assert -60 < soft.mean() < 120
    assert lung.size == 0 or lung.mean() < -400


def test_turning_the_mask_turns_the_result():
    # Axes permuted and flipped in storage: the same anatomy, so the very same voxels.
    mask = torso()
    straight = generate(mask, **FAST).volume
    affine = mask.affine.copy()
    affine[:3, 3] = [0, 0, (mask.shape[2] - 1) * 2.0]
    affine[:3, 2] *= -1
    flipped = LabelMap(np.ascontiguousarray(mask.array[:, :, ::-1]), affine)
    assert np.array_equal(generate(flipped, **FAST).volume.array[:, :, ::-1], straight.array)
    order = (2, 0, 1)
    permuted = LabelMap(np.ascontiguousarray(mask.array.transpose(order)), mask.affine[:, [*order, 3]])
    assert np.array_equal(generate(permuted, **FAST).volume.array, straight.array.transpose(order))


def test_the_same_seed_gives_the_same_volume_and_another_seed_another():
    first, again, other = (generate(torso(), **{**FAST, "seed": s}).volume for s in (5, 5, 6))
    assert np.array_equal(first.array, again.array)
    soft = torso().array == 2
    difference = (first.array.astype(float) - other.array)[soft]
    assert difference.std() > 5


def test_samples_use_following_seeds():
    result = generate(torso(), **{**FAST, "seed": 7, "samples": 2})
    assert [a.seed for a in result.report.attempts] == [7, 8]
    alone = generate(torso(), **{**FAST, "seed": 8})
    assert np.array_equal(result.volumes[1].array, alone.volume.array)


def test_a_drawn_seed_is_reported_and_repeats():
    result = generate(torso(), **{**FAST, "seed": None})
    again = generate(torso(), **{**FAST, "seed": result.report.seed})
    assert np.array_equal(result.volume.array, again.volume.array)


@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "ddpm"])
def test_every_sampler_runs_the_real_model(sampler):
    result = generate(torso(), **{**FAST, "sampler": sampler, "steps": 6})
    assert result.report.sampler == sampler
    assert -150 < result.volume.array[torso().array == 1].mean() < -40


def test_presets_take_their_steps_from_the_package():
    result = generate(torso(), seed=1, preset="draft", retries=0, device="cpu")
    assert result.report.steps == find("ct-tissue").preset("draft").steps


def test_windows_leave_no_seam_and_agree_with_the_whole(monkeypatch):
    mask = torso((64, 56, 112))
    whole = generate(mask, **FAST).volume.array.astype(float)
    monkeypatch.setitem(LAYOUTS, "normal", Layout("normal", whole=32, window=48, tile=64))
    result = generate(mask, **FAST)
    assert result.report.parameters["windows"] > 1
    tiled = result.volume.array.astype(float)
    figures = result.report.attempts[0].check.figures
    assert figures["seam"] < 1.25
    soft = mask.array == 2
    # The same noise is shared by all windows, so that they draw the same picture.
    assert np.abs(tiled - whole)[soft].mean() < 0.35 * whole[soft].std()
    for axis, plane in ((0, 16), (2, 16), (2, 96)):  # where the windows of 48 begin and end
        assert seam_index(tiled, axis, plane, mask.array) < 1.3


def test_labels_are_mapped_by_number_and_by_name():
    mask = torso()
    renumbered = mask.with_array(
        np.array([0, 10, 20, 30, 40], np.uint8)[mask.array],
        names={10: "adipose tissue", 20: "abdominal tissue", 30: "skull", 40: "lung_upper_lobe_left"},
    )
    by_name = generate(renumbered, **FAST)
    assert by_name.report.parameters["mapping"] == {10: 1, 20: 2, 30: 3, 40: 4}
    plain = renumbered.with_array(renumbered.array, names={})
    by_number = generate(plain, mapping={10: 1, 20: "soft tissue", 30: "bone", 40: 4}, **FAST)
    straight = generate(mask, **FAST).volume.array
    assert np.array_equal(by_name.volume.array, straight)
    assert np.array_equal(by_number.volume.array, straight)


def test_gaps_of_an_organ_segmentation_are_reported_and_can_be_filled():
    mask = torso()
    organs = mask.with_array(
        np.array([0, 11, 0, 27, 10], np.uint8)[mask.array],
        names={11: "subcutaneous_fat", 27: "vertebrae_T12", 10: "lung_upper_lobe_left"},
    )
    gappy = generate(organs, **FAST)
    filled = generate(organs, fill="soft tissue", **FAST)
    assert any("--fill" in s for s in gappy.report.sentences)
    assert not any("--fill" in s for s in filled.report.sentences)
    between = mask.array == 2
    assert (gappy.volume.array[between] == -1000).all()
    assert np.median(filled.volume.array[between]) > -100
    with pytest.raises(InputError, match="no label 'jelly'"):
        generate(organs, fill="jelly", **FAST)


def test_unknown_labels_are_named_with_the_way_out():
    mask = torso()
    mask = mask.with_array(np.where(mask.array == 4, 77, mask.array).astype(np.uint8))
    with pytest.raises(InputError, match=r"77.*--map 77="):
        generate(mask, **FAST)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": "nobody"}, PackageError, "no model named 'nobody'"),
        ({"model": "head-mr-to-ct"}, InputError, "translates images"),
        ({"preset": "fastest"}, InputError, "no preset"),
        ({"sampler": "magic"}, InputError, "no sampler 'magic'"),
        ({"steps": 0, "preset": "draft"}, InputError, "choose 1 to 1000"),
        ({"steps": 1001, "preset": "draft"}, InputError, "choose 1 to 1000"),
        ({"samples": 0}, InputError, "at least 1"),
        ({"retries": -1}, InputError, "0 or more"),
        ({"seed": 10**30}, InputError, "The seed is"),
        ({"device": "tpu"}, InputError, "device 'tpu'"),
        ({"noise_hu": 500.0}, InputError, "1 to 50 HU"),
    ],
)
def test_wrong_options_end_in_a_sentence(change, error, words):
    with pytest.raises(error, match=words) as caught:
        generate(torso(), **{**FAST, **change})
    assert "\n" not in str(caught.value)


def test_an_empty_mask_is_refused():
    with pytest.raises(InputError, match="empty"):
        generate(LabelMap(np.zeros((8, 8, 8), np.uint8), np.eye(4)), **FAST)


def test_a_grid_beyond_the_memory_is_refused_before_it_is_made(monkeypatch):
    for module in (scene, flow_sampling):
        monkeypatch.setattr(module, "free_memory", lambda device="cpu": 1_000_000)
    with pytest.raises(MemoryPlanError, match="million voxels"):
        generate(torso(), **FAST)


@pytest.mark.parametrize("stage", ["reading the mask", "sampling", "decoding"])
def test_cancel_takes_effect_at_the_next_step(stage):
    seen = []

    def stop(progress):
        seen.append(progress)
        if progress.stage == stage and progress.step == 1:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        generate(torso(), progress=stop, **FAST)
    assert seen[-1].stage == stage and seen[-1].step == 1


def test_progress_counts_every_step():
    seen = []
    generate(torso(), progress=seen.append, **FAST)
    steps = [p.step for p in seen if p.stage == "sampling"]
    assert steps == [0, 1, 2, 3]
    assert all(p.seconds_left is not None for p in seen if p.step)


def test_a_failing_check_is_retried_twice_and_then_reported(monkeypatch):
    def failing(*arguments):
        check = OutputCheck()
        check.fail("test", "This sample never passes.")
        return check

    # The name MedGenLib.generate is the function, so the module is looked up by its full name.
    monkeypatch.setattr(sys.modules["MedGenLib.generate"], "check_generated", failing)
    report = generate(torso(), **{**FAST, "retries": 2}).report
    assert len(report.attempts) == 3
    assert len({a.seed for a in report.attempts}) == 3
    assert not report.passed
    assert "This sample never passes." in report.sentences


def failing_for(*seeds):
    """A check that fails for the volumes of these seeds."""
    spoiled = [generate(torso(), **{**FAST, "seed": seed}).volume.array for seed in seeds]

    def check(volume, *arguments):
        found = OutputCheck()
        if any(np.array_equal(volume.array, array) for array in spoiled):
            found.fail("tissue-mean", "This seed fails.")
        return found

    return check


@pytest.mark.parametrize("failures", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_stored_seed_makes_the_same_volume_after_retries(monkeypatch, failures):
    seeds = [4 + 1_000_003 * number for number in range(failures)]
    check = failing_for(*seeds)
    monkeypatch.setattr(sys.modules["MedGenLib.generate"], "check_generated", check)
    options = {**FAST, "retries": 2}
    first = generate(torso(), **{**options, "seed": 4})
    stored = first.provenance().seed
    assert stored == first.report.seed == (4 if failures == 3 else seeds[-1] + 1_000_003)
    assert len(first.report.attempts) == min(failures + 1, 3) and first.report.passed == (failures < 3)
    again = generate(torso(), **{**options, "seed": stored})
    assert np.array_equal(first.volume.array, again.volume.array) and again.report.seed == stored


def test_no_other_seed_is_tried_where_none_can_help(monkeypatch):
    def check(*arguments):
        found = OutputCheck()
        found.fail("background", "The background is not that of the package.")
        return found

    monkeypatch.setattr(sys.modules["MedGenLib.generate"], "check_generated", check)
    report = generate(torso(), **{**FAST, "retries": 2}).report
    assert len(report.attempts) == 1 and not report.passed


def test_the_report_holds_what_is_needed_to_repeat_the_run():
    report = generate(torso(), **FAST).report.to_dict()
    assert report["model"] == "ct-tissue" and report["seed"] == 1 and report["steps"] == 3
    assert {"preparing", "sampling", "decoding", "checking"} <= report["timings"].keys()
    assert report["software"]["torch"] and report["peak_memory_mib"] > 0
    assert report["output_checks"][0]["figures"]["mean"]


def test_noise_can_be_set():
    mask = torso((32, 32, 32))
    quiet, loud = (highpass_sd(generate(mask, noise_hu=n, **FAST).volume.array, mask.array == 2) for n in (6.0, 30.0))
    assert loud > 1.3 * quiet


# mr-hippocampus


@pytest.fixture(scope="module")
def hippocampus() -> LabelMap:
    from MedGenLib.io.samples import sample

    return read_label_map(sample("hippocampus_mask.nii.gz"))


def test_hippocampus_fills_the_whole_crop(hippocampus):
    result = generate(hippocampus, "mr-hippocampus", **FAST)
    volume = result.volume
    assert volume.shape == hippocampus.shape and volume.modality == "T1w"
    assert np.array_equal(volume.affine, hippocampus.affine)
    assert (volume.array > 0).mean() > 0.9


def test_hippocampus_in_a_large_grid_is_generated_around_the_labels_only(hippocampus):
    large = pad(hippocampus, (30, 20, 30), (30, 20, 30))
    result = generate(large, "mr-hippocampus", **FAST)
    assert result.volume.shape == large.shape
    assert (result.volume.array[:8] == 0).all()
    # A few dark voxels may be at the lower limit of the values.
    assert (result.volume.array[large.array > 0] > 0).mean() > 0.998
    assert any("larger than the model's field of view" in s for s in result.report.sentences)


def test_texture_of_a_hippocampus_is_that_drawn_for_its_seed(hippocampus):
    """Mean and contrast exactly; detail and smoothness in order over seeds."""
    drawn, found = [], []
    for seed in range(6):
        result = generate(hippocampus, "mr-hippocampus", seed=seed, preset="draft", retries=0, device="cpu")
        stated = list(result.report.parameters["contrast"][str(seed)].values())
        measured = texture(result.volume.array)
        assert result.volume.array.mean() == pytest.approx(500, abs=2)
        assert measured[5] == pytest.approx(stated[5], rel=0.02)
        drawn.append(stated)
        found.append(measured)
    drawn, found = np.array(drawn), np.array(found)
    assert np.ptp(drawn[:, 5]) > 0.02
    for entry in (0, 1, 3):
        assert np.corrcoef(drawn[:, entry], found[:, entry])[0, 1] > 0.7, TEXTURE[entry]


def test_a_part_of_a_hippocampus_keeps_the_usual_scale(hippocampus):
    """Mean and spread of the training crops hold for a whole field of view only."""
    part = crop(hippocampus, (0, 0, 0), (*hippocampus.shape[:2], hippocampus.shape[2] // 2))
    for mask, whole in ((hippocampus, True), (part, False)):
        prepared = scene.prepare(mask, find("mr-hippocampus")).of_seed(3)
        x = (0.5 + 0.7 * np.sqrt(3) * np.random.default_rng(0).uniform(-1, 1, prepared.shape)).astype(np.float32)
        values = prepared.finish(x).array
        codec = prepared.codec
        wanted = (codec.mean, codec.sd) if whole else (codec.mean + 0.5 * codec.sd, 0.7 * codec.sd)
        assert (values.mean(), values.std()) == pytest.approx(wanted, rel=0.01)


def test_noise_is_refused_by_a_model_that_has_none(hippocampus):
    with pytest.raises(InputError, match="no noise setting"):
        generate(hippocampus, "mr-hippocampus", noise_hu=5.0, **FAST)


def test_the_tissue_range_moves_the_median_and_keeps_the_noise():
    labels = np.full((12, 12, 12), 2, np.uint8)
    labels[:4] = 0
    noise = np.random.default_rng(0).normal(0, 10, labels.shape)
    hu = np.where(labels > 0, -60 + noise, -1000)
    limits = TissueRange((-1024, -250, -30), (3071, -30, 180), 8)
    moved = limits.enforce(hu, labels)
    inside = moved[6:]
    assert -30 <= np.median(inside) < -20
    assert inside.std() == pytest.approx(noise[6:].std(), rel=0.25)
    assert (moved[:4] == -1000).all()
    fine = np.where(labels > 0, 40 + noise, -1000)
    assert np.array_equal(limits.enforce(fine, labels)[6:], fine[6:])


def test_what_is_thinner_than_a_median_does_not_run_away():
    """A nodule of two voxels across in the lung: its median is the lung's whatever is done."""
    labels = np.full((12, 12, 12), 2, np.uint8)
    labels[5:7, 5:7, 5:7] = 1
    texture = np.random.default_rng(0).normal(0, 40, labels.shape)
    hu = np.where(labels == 1, texture, -850.0)
    moved = TissueRange((-1024, -30, -1024), (3071, 180, -250), 4).enforce(hu, labels)
    nodule = moved[labels == 1]
    assert (nodule <= 180).all() and (nodule >= -30).all() and len(np.unique(nodule)) == 8
    assert (moved[labels == 2] == -850).all()


def test_networks_are_loaded_once():
    import torch

    first, again = (loading.network(find("ct-tissue"), "flow", torch.device("cpu")) for _ in range(2))
    assert first is again


def test_values_that_are_not_finite_are_reported(monkeypatch):
    decode = flow_sampling.Sampling.decode

    def broken(self, latent, progress):
        values = decode(self, latent, progress).copy()
        values[8:12] = np.nan
        return values

    monkeypatch.setattr(flow_sampling.Sampling, "decode", broken)
    report = generate(torso(), **FAST).report
    assert not report.passed and any("not finite" in s for s in report.sentences)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("preprocessing", "centres", [0.0, 1.0]),
        ("preprocessing", "outside", "somewhere"),
        ("preprocessing", "name", "magic"),
        ("arguments", "widths", []),
        ("arguments", "maps", 9),
    ],
)
def test_a_package_that_contradicts_itself_ends_in_a_sentence(tmp_path, monkeypatch, section, key, value):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    folder = tmp_path / "odd"
    shutil.copytree(find("ct-tissue").folder, folder)
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["name"] = "odd"
    part = metadata["medgen"]
    part = part["networks"]["flow"]["arguments"] if section == "arguments" else part[section]
    part[key] = value
    path.write_text(json.dumps(metadata))
    with pytest.raises(PackageError) as caught:
        store.add(folder)
        generate(torso(), "odd", **FAST)
    assert "\n" not in str(caught.value)


def test_a_coarse_header_is_refused_before_memory_is_taken(monkeypatch):
    """Two billion working voxels, whose image alone would fit, but not with the latents of the networks."""
    monkeypatch.setattr(scene, "free_memory", lambda: 12 * 2**30)
    monkeypatch.setattr(scene, "resample_to", lambda *arguments: pytest.fail("the working grid was allocated"))
    with pytest.raises(MemoryPlanError, match="Even the smallest plan for a grid of 1.* million voxels"):
        generate(torso((130, 130, 130), spacing=29.0), mapping="model", **FAST)


@pytest.mark.parametrize("spacing, unit", [(1000.0, "micrometers"), (0.002, "meters"), (0.2, "centimeters")])
def test_another_unit_is_refused_before_the_work(spacing, unit):
    with pytest.raises(InputError, match=f"would be usual in {unit}"):
        generate(torso((100, 80, 60), spacing=spacing), mapping="model", **FAST)


def test_findings_come_before_the_work():
    class Listener:
        def __init__(self):
            self.seen = []

        def __call__(self, progress):
            self.seen.append(progress.stage)

        def announce(self, sentences):
            self.seen += sentences

    listener = Listener()
    report = generate(torso(), progress=listener, **FAST).report
    said = listener.seen.index(report.input_findings[0].sentence)
    assert said < listener.seen.index("sampling") and "read by number" in listener.seen[said]


def test_the_public_names_are_the_functions():
    assert MedGenLib.generate is generate and callable(MedGenLib.translate)


def test_a_model_without_fixed_sizes_refuses_the_option_for_them():
    mask = LabelMap(np.full((16, 16, 16), 2, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="'ct-tissue' works on any grid"):
        generate(mask, seed=1, steps=1, device="cpu", any_grid=True)
