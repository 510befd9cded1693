"""The parts of editing: the working grid over an image, noise with a place, history, known latents."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from workers import left_handed_oblique, trunk

from MedGenLib.diffusion import SAMPLERS
from MedGenLib.diffusion.flow import FlowDenoiser
from MedGenLib.diffusion.inpainting import Known
from MedGenLib.editing import blending, window
from MedGenLib.editing.grid_map import GridMap
from MedGenLib.editing.history import History, HistoryStep
from MedGenLib.editing.noise import NoiseField
from MedGenLib.imaging import boxes
from MedGenLib.imaging.normalization import TissueRange, TissueStandard
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.scene import prepare

GRIDS = {
    "own": ((24, 20, 16), np.diag([2.0, 2.0, 2.0, 1.0])),
    "own, turned": ((24, 20, 16), left_handed_oblique((2.0, 2.0, 2.0))),
    "finer": ((30, 26, 20), left_handed_oblique((0.9, 0.8, 1.1))),
    "coarser": ((16, 12, 10), left_handed_oblique((5.0, 4.0, 6.0))),
    "anisotropic": ((24, 20, 12), left_handed_oblique((1.2, 1.0, 5.0))),
    "slice": ((40, 36, 1), left_handed_oblique((2.0, 2.0, 5.0))),
}
CT = "ct-tissue"


def bodies(shape, affine) -> LabelMap:
    """A body that leaves a wide margin on some sides only."""
    labels = np.zeros(shape, np.uint8)
    inner = tuple(slice(0 if n == 1 else n // 2, n) for n in shape)
    labels[inner] = trunk(tuple(s.stop - s.start for s in inner)).array
    return LabelMap(labels, affine)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_working_grid_continues_the_scene_over_the_whole_image(grid):
    mask = bodies(*GRIDS[grid])
    scene = prepare(mask, find(CT))
    grid_map, place = GridMap.over(scene, 8)
    assert grid_map.own == scene.own_grid
    assert all(n % 8 == 0 and part.start % 8 == 0 for n, part in zip(grid_map.shape, place, strict=True))
    labels = grid_map.labels(mask.array, tuple(slice(0, n) for n in grid_map.shape))
    assert np.mean(labels[place] != scene.labels) < (1e-9 if grid_map.own else 0.01)
    assert set(np.unique(labels)) >= set(mask.values())
    everything = grid_map.voxels_in(grid_map.extent)
    assert everything == tuple(slice(0, n) for n in mask.shape)


@pytest.mark.parametrize("grid", GRIDS)
def test_values_come_back_where_they_were(grid):
    """A ramp in the patient stays the same ramp on the way to the working grid and back."""
    mask = bodies(*GRIDS[grid])
    grid_map, _ = GridMap.over(prepare(mask, find(CT)), 8)
    index = np.indices(mask.shape).reshape(3, -1)
    ramp = (mask.affine[:3, :3] @ index).sum(axis=0).reshape(mask.shape).astype(np.float32)
    whole = tuple(slice(0, n) for n in grid_map.shape)
    values = grid_map.values(ramp, (0, 0, 0), whole)
    box = tuple(slice(n // 4, max(n // 4 + 1, n - n // 4)) for n in mask.shape)
    back = grid_map.back(values, (0, 0, 0), box)
    error = np.abs(back - ramp[box]).max()
    assert error <= (0 if grid_map.own else 0.35 * max(mask.spacing))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_changed_voxel_has_its_cells(grid):
    mask = bodies(*GRIDS[grid])
    grid_map, _ = GridMap.over(prepare(mask, find(CT)), 8)
    rng = np.random.default_rng(0)
    box = tuple(slice(n // 3, n // 3 + max(1, n // 3)) for n in mask.shape)
    changed = rng.random([part.stop - part.start for part in box]) < 0.05
    changed.flat[0] = True
    place, cells = grid_map.cells_of(changed, box)
    marked = np.zeros(grid_map.shape, bool)
    marked[boxes.scaled(place, 2)] = cells.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    weight = grid_map.back(marked.astype(np.float32), (0, 0, 0), box)
    assert (weight[changed] > (0.999 if grid_map.own else 0.5)).all()
    if grid_map.own:
        assert (weight[~changed] == 0).sum() > 0.3 * changed.size, "no more than needed"


def test_a_place_has_the_same_noise_in_every_window():
    drawn = torch.randn(1, 8, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    field = NoiseField(7, 8, drawn, (10, 10, 10))
    whole = field.read((slice(0, 40),) * 3)
    part = (slice(9, 30), slice(3, 15), slice(12, 40))
    assert torch.equal(field.read(part), whole[(slice(None), slice(None), *part)])
    assert torch.equal(whole[..., 10:16, 10:16, 10:16], drawn)
    assert not torch.equal(NoiseField(8, 8).read(part), NoiseField(7, 8).read(part))
    assert torch.equal(NoiseField(7, 8).read((slice(20, 40),) * 3), whole[..., 20:, 20:, 20:])
    assert abs(float(whole.mean())) < 0.01 and abs(float(whole.std()) - 1) < 0.01


@pytest.mark.parametrize("name", ["euler", "heun", "ddim"])
def test_what_is_known_stays_and_the_rest_is_sampled(name):
    """Exact denoiser of data of one value: the free part becomes that value, the rest is kept."""
    denoise = FlowDenoiser(lambda x, t: (x - 3.0) / t)
    data = torch.randn(1, 8, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    free = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    free[..., :2] = True
    noise = torch.randn(1, 8, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    done = SAMPLERS[name](Known(data, free).kept_by(denoise), noise, 5)
    assert torch.allclose(done[..., :2], torch.full((1, 8, 4, 4, 2), 3.0), atol=1e-4)
    assert torch.allclose(done[..., 2:], data[..., 2:], atol=1e-4)


def test_the_known_part_is_seen_at_each_step_with_its_own_noise():
    seen = []

    def denoise(x, alpha, sigma):
        seen.append((x.clone(), alpha, sigma))
        return x

    data, noise = torch.full((1, 8, 2, 2, 2), 5.0), torch.full((1, 8, 2, 2, 2), -1.0)
    free = torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    SAMPLERS["euler"](Known(data, free).kept_by(denoise), noise, 4)
    assert len(seen) == 4
    for x, alpha, sigma in seen:
        assert torch.allclose(x, alpha * data + sigma * noise, atol=1e-5)


def test_windows_have_context_usual_sizes_and_stay_inside():
    shape = (200, 48, 32)
    for box in [(slice(90, 96),) * 3, (slice(0, 4), slice(40, 48), slice(3, 9))]:
        box = tuple(slice(min(p.start, n - 4), min(p.stop, n)) for p, n in zip(box, shape, strict=True))
        found = window.about(box, shape, 4)
        for part, inner, n in zip(found, box, shape, strict=True):
            assert part.start % 4 == 0 and part.start >= 0 and part.stop <= n
            assert inner.start - part.start >= min(window.CONTEXT, inner.start)
            assert part.stop - inner.stop >= min(window.CONTEXT, n - inner.stop)
            assert part.stop - part.start in (*window.SIDES, n)


def test_far_changes_get_windows_of_their_own_and_near_ones_share():
    shape = (160, 160, 160)
    cells = np.zeros(shape, bool)
    cells[10:14, 10:14, 10:14] = cells[140:144, 140:144, 140:144] = True
    whole = (slice(0, 160),) * 3
    apart = window.pieces(*_about(cells, whole), shape, 4)
    assert [part for part, _ in apart] == [(slice(10, 14),) * 3, (slice(140, 144),) * 3]
    assert sum(marks.sum() for _, marks in apart) == cells.sum()
    cells[:] = False
    cells[10:14, 10:14, 10:14] = cells[24:28, 10:14, 10:14] = True
    assert len(window.pieces(*_about(cells, whole), shape, 4)) == 1


def _about(cells, box):
    place, part = boxes.tight(cells, box)
    return place, cells[part]


def test_the_rim_is_one_at_changed_voxels_and_ends_within_the_halo():
    changed = np.zeros((24, 24, 1), bool)
    changed[9:12, 9:12] = True
    steps = (0.5, 1.0, 1.0)
    weight = blending.falling(changed, steps)
    assert (weight[changed] == 1).all()
    distance = ndimage.distance_transform_edt(~changed, steps)
    assert (weight[distance >= blending.FAR] == 0).all() and (weight[distance < blending.FAR] > 0).all()
    along = weight[9:, 10, 0]
    assert (np.diff(along) <= 0).all() and 0 < along[5] < 1


CODEC = TissueStandard((-1000.0, -95.0, 40.0, 380.0), (100.0, 40.0, 45.0, 180.0))
LIMITS = TissueRange((-1024, -250, -30, 180), (3071, -30, 180, 3071), 4)


def test_structures_that_the_mask_does_not_describe_are_found_where_the_new_label_allows_them():
    rng = np.random.default_rng(0)
    labels = np.full((20, 16, 12), 2)
    labels[:, :8] = 1
    hu = np.array(CODEC.centers)[labels] + rng.normal(0, 15, labels.shape)
    hu[4:8, 11:15, 3:9] = 120  # spongy bone, marked soft tissue
    hu[12:16, 2:6, 3:9] = 90  # a vessel, marked fat
    bone, vessel = hu == 120, hu == 90
    core = ndimage.binary_erosion
    beside = blending.undescribed(hu, labels, labels, CODEC, LIMITS)
    assert (beside[core(bone)] > 0.9).all() and (beside[core(vessel)] > 0.9).all()
    assert beside[~ndimage.binary_dilation(bone | vessel)].mean() < 0.05
    soft = blending.undescribed(hu, labels, np.full_like(labels, 2), CODEC, LIMITS)
    assert (soft[core(vessel)] > 0.9).all()
    fat = blending.undescribed(hu, labels, np.full_like(labels, 1), CODEC, LIMITS)
    assert (fat[core(bone)] == 0).all(), "fat does not allow bone"
    assert (blending.undescribed(hu, labels, np.zeros_like(labels), CODEC, LIMITS) == 0).all()
    without_limits = blending.undescribed(hu, labels, np.full_like(labels, 2), CODEC, None)
    assert (without_limits[core(vessel)] > 0.9).all()


def test_the_edge_of_what_is_erased_is_no_structure_of_its_own():
    """Beside bone the blur makes soft tissue brighter by half of the difference."""
    labels = np.full((16, 16, 16), 2)
    labels[5:11, 5:11, 5:11] = 3
    hu = ndimage.gaussian_filter(np.array(CODEC.centers)[labels], 0.7)
    after = np.full_like(labels, 2)
    ring = ndimage.binary_dilation(labels == 3) & (labels == 2)
    assert hu[ring].mean() > 100
    share = blending.undescribed(hu, labels, after, CODEC, LIMITS)
    assert share[ring].mean() < 0.5 and share[labels == 3].max() == 0


def test_no_voxel_of_another_label_becomes_as_bright_as_bone():
    labels = np.array([[[1, 2, 3, 2]]])
    values = np.array([[[150, 300, 900, 100]]], np.float32)
    assert blending.without_specks(values, labels, LIMITS).tolist() == [[[150, 180, 900, 100]]]


def test_history_finds_a_state_by_its_content_and_forgets_the_oldest():
    history, mask = History(most_bytes=400), np.zeros((4, 4, 4), np.uint8)
    start = history.key

    def paint(index, value):
        index = np.array(index)
        key = history.key_after(index, mask.flat[index], np.full(len(index), value))
        before = mask.copy()
        mask.flat[index] = value
        history.add(HistoryStep([("mask", ..., before, mask.copy())], boxes.NOWHERE, len(index)), key)
        return key

    first = paint([1, 2, 3], 2)
    second = paint([2, 3], 1)
    assert len({start, first, second}) == 3
    assert history.find(start) == 0 and history.find(first) == 1
    assert history.key_after(np.array([1, 2, 3]), np.array([2, 1, 1]), np.zeros(3, int)) == start
    assert history.key_after(np.array([3, 2]), np.array([1, 1]), np.array([2, 2])) == first
    paint([9], 1), paint([10], 1)
    assert sum(step.size for step in history.steps) <= 400 and history.find(start) is None


@pytest.mark.parametrize("shape", [(12, 14, 10), (12, 14, 1), (1, 2, 9)])
def test_ranges_are_enforced_as_by_a_median_filter(shape):
    """The counted medians are those of a median filter, bit for bit."""
    low, high = (-1024, -250, -30, 180, -1024), (3071, -30, 180, 3071, -250)
    rng = np.random.default_rng(1)
    labels = ndimage.zoom(rng.integers(0, 5, (3, 3, 3)), [n / 3 for n in shape], order=0)
    labels = np.resize(labels, shape)
    hu = rng.normal(size=shape).astype(np.float32) * 150
    expected, size = hu, [3 if n > 1 else 1 for n in shape]
    lower, upper = (np.asarray(v, np.float32)[labels] for v in (low, high))
    for _ in range(4):
        median = ndimage.median_filter(expected, size)
        shift = np.where(labels > 0, np.clip(median, lower, upper) - median, 0)
        middle = (lower + upper) / 2  # no shift goes much beyond it
        end = np.clip(middle + 0.3 * (hu - middle), lower, upper)
        up, down = np.maximum(expected, end), np.minimum(expected, end)
        moved = expected + shift
        expected = np.where(shift > 0, np.minimum(moved, up), np.maximum(moved, down))
    assert np.abs(expected - hu).max() > 100
    assert np.array_equal(TissueRange(low, high, 4).enforce(hu, labels), expected)
