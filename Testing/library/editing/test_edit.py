"""Editing by the mask with the packages that come with MedGen: what changes, and what must not."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from workers import left_handed_oblique, number_format, temporary_environment, trunk

import MedGenLib
from MedGenLib.cli import main
from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.editing.session import Canvas, edit_image
from MedGenLib.errors import Cancelled, InputError, PackageError
from MedGenLib.imaging.volume import LabelMap, Volume, crop, occupied
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines import flow_sampling

CPU = {"device": "cpu"}
FAT, SOFT, BONE, LUNG = 1, 2, 3, 4
HU = np.array([-1000, -100, 40, 400, -800])
"""Of background and tissues."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDGEN_HOME", str(tmp_path_factory.mktemp("home")))
    yield
    patch.undo()


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["float32", "bfloat16"])
def each_number_format(request, tmp_path):
    with temporary_environment(MEDGEN_HOME=str(tmp_path)), number_format(request.param):
        yield


def ct_of(mask: LabelMap, dtype=np.int16, seed=0) -> Volume:
    """A CT of plain tissues with noise."""
    noise = np.random.default_rng(seed).normal(0, 15, mask.shape)
    hu = HU[mask.array] + np.where(mask.array > 0, noise, 0)
    return Volume(np.rint(hu).astype(dtype), mask.affine, "CT", "HU")


def painted(mask: LabelMap, label: int, middle=(0.5, 0.5, 0.5), mm: float = 5.0) -> LabelMap:
    """The mask with a ball of a label, its middle as a part of the grid."""
    index = np.indices(mask.shape).reshape(3, *mask.shape)
    offset = [(i - round(m * (n - 1))) * s for i, m, n, s in zip(index, middle, mask.shape, mask.spacing, strict=True)]
    inside = sum(o**2 for o in offset) <= mm**2
    return mask.with_array(np.where(inside, label, mask.array).astype(mask.array.dtype))


def far_from(changed: np.ndarray, halo: tuple[int, int, int]) -> np.ndarray:
    """Voxels farther from a change than the halo along any axis."""
    return ~ndimage.maximum_filter(changed, [2 * h + 1 for h in halo], mode="constant")


GRIDS = {
    "own grid, int16": ((44, 40, 36), np.diag([2.0, 2.0, 2.0, 1.0]), np.int16),
    "turned and cropped, float32": ((40, 36, 40), left_handed_oblique(), np.float32),
    "anisotropic": ((50, 44, 14), left_handed_oblique((1.2, 1.0, 4.0)), np.int16),
    "much finer": ((88, 30, 30), left_handed_oblique((0.45, 1.5, 1.5)), np.float32),
    "slice": ((56, 50, 1), left_handed_oblique((2.0, 2.0, 5.0)), np.int16),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_only_the_surroundings_of_a_change_change(grid):
    shape, affine, dtype = GRIDS[grid]
    mask = trunk(shape, affine)
    image = ct_of(mask, dtype)
    before = image.array.copy()
    new = painted(mask, BONE, (0.3, 0.5, 0.5))
    with Canvas.of_image(image, mask, seed=1, **CPU) as canvas:
        done = canvas.edit(new)
        after = canvas.volume
        changed = new.array != mask.array
        assert done.changed == np.count_nonzero(changed) > 0
        assert after.array.dtype == dtype and np.array_equal(after.affine, affine)
        assert (after.modality, after.unit) == ("CT", "HU")
        outside = far_from(changed, canvas.halo_voxels)
        assert outside.any() and np.array_equal(after.array[outside], before[outside])
        assert np.array_equal(after.array[done.box], done.values)
        elsewhere = np.ones(shape, bool)
        elsewhere[done.box] = False
        assert np.array_equal(after.array[elsewhere], before[elsewhere])
        assert after.array[changed].mean() > 150, "bone is where it was painted"
        assert np.abs(after.array[mask.array == 0].astype(float) + 1000).max() == 0
        assert np.array_equal(image.array, before), "the user's image is not written to"
        assert np.array_equal(canvas.labels.array, new.array)
        assert canvas.halo_mm == pytest.approx(
            max(n * s for n, s in zip(canvas.halo_voxels, mask.spacing, strict=True))
        )


@pytest.fixture(scope="module")
def mask():
    return trunk((40, 36, 32))


@pytest.fixture
def canvas(mask):
    with Canvas.of_image(ct_of(mask), mask, seed=3, **CPU) as canvas:
        yield canvas


def test_an_earlier_mask_gives_back_the_earlier_voxels(canvas, mask):
    states = [canvas.volume.array.copy()]
    masks = [mask]
    for middle in ((0.3, 0.5, 0.5), (0.35, 0.5, 0.5), (0.7, 0.5, 0.5)):
        masks.append(painted(masks[-1], BONE, middle))
        canvas.edit(masks[-1])
        states.append(canvas.volume.array.copy())
    assert len({state.tobytes() for state in states}) == 4
    back = canvas.edit(masks[1])  # two steps at once, as a client that skipped masks asks
    assert np.array_equal(canvas.volume.array, states[1]) and back.changed > 0
    assert np.array_equal(canvas.volume.array[back.box], back.values)
    assert canvas.can_undo and canvas.can_redo
    canvas.edit(masks[3])
    assert np.array_equal(canvas.volume.array, states[3])
    for state in reversed(states[:3]):
        done = canvas.undo()
        assert np.array_equal(canvas.volume.array, state)
        assert np.array_equal(canvas.mask.array[done.box], done.mask)
    assert canvas.undo() is None and not canvas.can_undo
    assert np.array_equal(canvas.mask.array, mask.array)
    canvas.redo()
    assert np.array_equal(canvas.volume.array, states[1])
    assert np.array_equal(canvas.mask.array, masks[1].array)


def test_the_same_edit_gives_the_same_voxels_and_another_seed_others(canvas, mask):
    new = painted(mask, BONE)
    canvas.edit(new)
    first = canvas.volume.array.copy()
    for seed, same in ((3, True), (4, False)):
        with Canvas.of_image(ct_of(mask), mask, seed=seed, **CPU) as other:
            other.edit(new)
            assert np.array_equal(other.volume.array, first) == same
    canvas.undo()
    canvas.put(canvas.volume.array[:1, :1, :1] + 1, (slice(0, 1),) * 3)
    canvas.edit(new, seed=9)
    assert not np.array_equal(canvas.volume.array[1:], first[1:])


def test_a_block_a_label_or_the_whole_mask_say_the_same(canvas, mask):
    new = painted(mask, LUNG, (0.25, 0.5, 0.5))
    done = canvas.edit(new)
    first = canvas.volume.array.copy()
    canvas.undo()
    canvas.put(canvas.volume.array[:1, :1, :1], (slice(0, 1),) * 3)  # the history starts again
    start, stop = (3, 9, 5), (30, 30, 30)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    block = canvas.edit(crop(new, start, stop), box)
    assert block.box == done.box and block.changed == done.changed
    assert np.array_equal(canvas.volume.array, first)
    canvas.undo()
    canvas.put(canvas.volume.array[:1, :1, :1], (slice(0, 1),) * 3)
    ball = (new.array != mask.array)[box]
    canvas.edit(ball, box, label="lung or gas")
    assert np.array_equal(canvas.volume.array, first)
    assert np.array_equal(canvas.mask.array, new.array)


def test_masks_cropped_to_their_segments_are_extended(canvas, mask):
    new = painted(mask, BONE)
    canvas.edit(new)
    low, high = zip(*occupied(mask.array), strict=True)
    assert (low, high) != ((0, 0, 0), mask.shape)
    with Canvas.of_image(ct_of(mask), crop(mask, low, high), seed=3, **CPU) as other:
        other.edit(crop(new, low, high))
        assert np.array_equal(other.volume.array, canvas.volume.array)
        assert any("taken as unlabeled" in finding.sentence for finding in other.findings)


def test_the_border_of_a_cropped_mask_cuts_what_it_shows():
    """The part of a body inside of an image is no small body whose numbers are to be doubted."""
    image = read_volume(sample("ct_tissue_real.nii.gz"), modality="CT")
    mask = read_label_map(sample("ct_tissue_mask.nii.gz"))
    part = crop(mask.with_array(mask.array, {}), (40, 30, 40), (66, 56, 62))
    with Canvas.of_image(image, part, seed=1, **CPU) as opened:
        assert [f.code for f in opened.findings if f.level != "info"][0] == "read-by-number"
    options = {"label": "bone", "organ": 2, "size_mm": 9.0, "seed": 1, "preset": "draft", **CPU}
    assert insert_lesion(image, labels=part, **options).lesion.array.any()


def test_what_a_cropped_new_mask_does_not_cover_is_noted_before_the_work(canvas, mask, tmp_path):
    new = painted(mask, BONE)
    low, high = zip(*occupied(mask.array), strict=True)
    part = crop(new, low, high)
    announced = []

    class Listener:
        def announce(self, sentences):
            announced.extend(sentences)

        def __call__(self, progress):
            assert announced, "announced before the first step"

    done = canvas.edit(part, progress=Listener())
    size = " x ".join(map(str, part.shape))
    assert [f"The mask covers {size} of the " in sentence for sentence in announced] == [True]
    assert [f.sentence for f in done.findings if "The mask covers" in f.sentence] == announced
    assert announced[0] in [f.sentence for f in canvas.report(done).input_findings]
    assert [f.sentence for f in canvas.edit(part).findings] == announced  # also without a change
    assert not [f for f in canvas.edit(mask).findings if f.code == "input-note"]


def test_no_change_is_no_edit(canvas, mask):
    before = canvas.volume.array.copy()
    done = canvas.edit(mask)
    assert done.changed == 0 and done.values.size == 0 and not canvas.can_undo
    assert np.array_equal(canvas.volume.array, before)


def test_voxels_that_are_put_in_are_the_ground_of_the_next_edit(canvas, mask):
    box = (slice(10, 20), slice(10, 20), slice(10, 20))
    bright = canvas.volume.array[box] + 60
    canvas.put(bright, box)
    assert np.array_equal(canvas.volume.array[box], bright) and canvas.can_undo
    canvas.edit(painted(mask, BONE, (0.75, 0.5, 0.5)))
    canvas.undo(), canvas.undo()
    assert np.array_equal(canvas.volume.array, ct_of(mask).array)
    with pytest.raises(InputError, match="not finite"):
        canvas.put(np.full((2, 2, 2), np.nan), (slice(0, 2),) * 3)


def test_an_edit_of_every_voxel_is_a_generation(monkeypatch):
    """With nothing known, the same noise leads to the very volume that generate makes, but for bone-bright specks.

    An edit keeps the levels of tissues of the mask that the canvas was opened with, so both have none here.
    """
    monkeypatch.setattr(flow_sampling, "with_levels", lambda scene, *_: scene)
    full = LabelMap(np.full((24, 24, 16), SOFT, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    full.array[:12] = FAT
    other = full.with_array(np.where(full.array == FAT, SOFT, FAT).astype(np.uint8))
    options = {"seed": 5, "preset": "draft", "retries": 0, **CPU}
    with Canvas.generate(full, **options) as canvas:
        assert canvas.result.report.seed == 5
        assert np.array_equal(canvas.volume.array, canvas.result.volume.array)
        canvas.edit(other)
        whole = MedGenLib.generate(other, **options).volume.array
        assert np.abs(canvas.volume.array.astype(int) - np.minimum(whole, 180)).max() <= 1
        canvas.undo()
        assert np.array_equal(canvas.volume.array, canvas.result.volume.array)


def test_generated_volumes_keep_all_beyond_the_halo():
    small = trunk((28, 24, 24))
    new = painted(small, BONE, (0.2, 0.5, 0.5))
    with Canvas.generate(small, seed=2, preset="draft", retries=0, **CPU) as canvas:
        before = canvas.volume.array.copy()
        canvas.edit(new)
        changed = new.array != small.array
        outside = far_from(changed, canvas.halo_voxels)
        assert np.array_equal(canvas.volume.array[outside], before[outside])
        assert canvas.volume.array[changed].mean() > 150


def test_redrawn_bone_keeps_the_level_of_its_place():
    """The rim of a femur beside a changed muscle is redrawn as bright as the shaft was; undone, nothing is left."""
    x, y, z = (np.indices((40, 40, 32)) + 0.5) * 2.5 - 50
    radius = np.hypot(x, y)
    shaft = np.select([radius < 7, radius < 14, radius < 46], [FAT, BONE, SOFT], 0).astype(np.uint8)
    mask = LabelMap(shaft, np.diag([2.5, 2.5, 2.5, 1.0]))
    beside = (radius >= 14) & (radius < 20) & (np.abs(z + 10) < 8)
    with Canvas.generate(mask, seed=1, preset="draft", retries=0, **CPU) as canvas:
        before = canvas.volume.array.copy()
        canvas.edit(mask.with_array(np.where(beside, np.uint8(FAT), shaft)))
        after = canvas.volume.array
        rim = (shaft == BONE) & (after != before)
        assert rim.sum() > 100
        assert after[rim].mean() == pytest.approx(before[rim].mean(), rel=0.15)
        canvas.undo()
        assert np.array_equal(canvas.volume.array, before)


def test_the_first_label_outside_of_the_scene_and_erasing_everything():
    """The scene of a generated volume ends near its labels; an edit may lie anywhere."""
    array = np.zeros((64, 28, 28), np.uint8)
    array[:20] = trunk((20, 28, 28)).array
    mask = LabelMap(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    with Canvas.generate(mask, seed=1, preset="draft", retries=0, **CPU) as canvas:
        before = canvas.volume.array.copy()
        new = painted(mask, SOFT, (0.9, 0.5, 0.5), 8)
        canvas.edit(new)
        ball = new.array != array
        assert -60 < canvas.volume.array[ball].mean() < 120
        assert np.array_equal(canvas.volume.array[~ball], before[~ball]), "air about it stays air"
        canvas.edit(np.zeros_like(array))
        assert (canvas.volume.array == -1000).all()
        canvas.undo(), canvas.undo()
        assert np.array_equal(canvas.volume.array, before)


# What the mask does not mention


def bright_specks(image, labels, least=180, most=8):
    """Voxels of small groups as bright as bone that are not marked bone."""
    groups, _ = ndimage.label(image > least, np.ones((3, 3, 3)))
    sizes = np.bincount(groups.ravel())
    return (sizes <= most)[groups] & (groups > 0) & (labels != BONE)


@pytest.mark.parametrize("preset", ["draft", "normal"])
def test_a_small_edit_of_a_real_scan_keeps_what_the_mask_does_not_mention(preset):
    """A mass beside a vertebra, whose spongy bone of 60 to 180 HU the thresholds call soft tissue."""
    image = read_volume(sample("ct_tissue_real.nii.gz"), modality="CT")
    mask = read_label_map(sample("ct_tissue_mask.nii.gz"))
    new = mask.array.copy()
    new[48:60, 40:54, 50:62] = SOFT
    changed = new != mask.array
    with Canvas.of_image(image, mask, seed=1, **CPU) as canvas:
        done = canvas.edit(new, preset=preset)
        after, report = canvas.volume.array.astype(float), canvas.report(done, preset)
    before = image.array.astype(float)
    moved = (np.abs(after - before) > 50) & ~changed
    assert np.count_nonzero(changed) == 376 and np.count_nonzero(moved) < 200, "it was 2,800 with a wide rim"
    lost = np.count_nonzero((before > 100) & (after < 60) & ~changed)
    assert lost * np.prod(image.spacing) / 1000 < 0.3, "it was 23 ml"
    differs = (after != before) & ~changed
    facts = report.parameters
    assert facts["changed_beyond"] == np.count_nonzero(differs) == done.beyond > 0
    assert facts["largest_change_beyond"] == np.abs(after - before)[~changed].max()
    assert not (bright_specks(after, new) & (before <= 180)).any()


def test_a_vessel_in_the_fat_stays_where_the_new_label_allows_it():
    mask = LabelMap(np.full((32, 32, 32), FAT, np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    image = ct_of(mask)
    image.array[15:18, 15:18] = 100
    vessel = image.array == 100
    for label, kept in ((SOFT, True), (LUNG, False)):
        new = painted(mask, label, mm=12)
        inside = vessel & (new.array == label)
        core = ndimage.binary_erosion(vessel) & inside
        with Canvas.of_image(image, mask, seed=1, **CPU) as canvas:
            canvas.edit(new)
            assert (np.abs(canvas.volume.array[core] - 100) < 5).all() == kept
            assert (np.abs(canvas.volume.array[vessel & ~inside] - 100) <= 1).mean() > 0.9, "beside the edit it stays"
            assert kept or canvas.volume.array[core].mean() < -300


def test_edits_in_a_row_start_from_the_voxels_of_the_image():
    """The latent of what an edit blended is encoded again, not kept from the sample."""
    mask = trunk((40, 36, 32))
    image = ct_of(mask)
    near = painted(mask, BONE, (0.3, 0.5, 0.5))
    with Canvas.of_image(image, mask, seed=3, **CPU) as canvas:
        canvas.edit(near)
        middle = canvas.volume
        last = painted(near, BONE, (0.4, 0.5, 0.5))
        canvas.edit(last)
        both = canvas.volume.array.copy()
    with Canvas.of_image(middle, near, seed=3, noise_hu=15, **CPU) as canvas:
        canvas.edit(last)
        assert np.abs(canvas.volume.array.astype(int) - both).mean() < 1


def test_an_edit_at_the_corner_of_the_image(canvas, mask):
    corner = mask.array.copy()
    corner[:3, :3, :3] = corner[-3:, -3:, -3:] = SOFT
    before = canvas.volume.array.copy()
    done = canvas.edit(mask.with_array(corner))
    assert done.changed == np.count_nonzero(corner != mask.array)
    outside = far_from(corner != mask.array, canvas.halo_voxels)
    assert np.array_equal(canvas.volume.array[outside], before[outside])
    assert abs(canvas.volume.array[corner != mask.array].mean() - 40) < 100


def test_a_stopped_or_failed_edit_leaves_the_canvas_as_it_was(canvas, mask):
    new = painted(mask, BONE)
    seen = []

    def stop(progress):
        seen.append(progress.stage)
        if len(seen) > 4:
            raise Cancelled("Stopped.")

    before = canvas.volume.array.copy()
    with pytest.raises(Cancelled):
        canvas.edit(new, progress=stop)
    assert "sampling" in seen and not canvas.can_undo
    assert np.array_equal(canvas.volume.array, before)
    assert np.array_equal(canvas.mask.array, mask.array)
    canvas.edit(new)
    with Canvas.of_image(ct_of(mask), mask, seed=3, **CPU) as fresh:
        fresh.edit(new)
        assert np.array_equal(fresh.volume.array, canvas.volume.array)


def test_masks_keep_the_numbers_they_were_given_in():
    """Organs by name, mapped by tables; the rest of the body filled, also after an edit."""
    body = trunk((32, 28, 24))
    organs = np.where(body.array == LUNG, 10, np.where(body.array == SOFT, 1, 0)).astype(np.int32)
    names = {1: "liver", 10: "lung_upper_lobe_left", 25: "rib_left_1"}
    mask = LabelMap(organs, body.affine, names)
    options = {"mapping": "totalsegmentator", "fill": "fat", "seed": 1, **CPU}
    with Canvas.of_image(ct_of(body), mask, **options) as canvas:
        assert set(np.unique(canvas.labels.array)) == {0, FAT, SOFT, LUNG}
        erased = painted(mask, 0, (0.3, 0.5, 0.5))
        canvas.edit(erased)
        hole = (organs > 0) & (erased.array == 0)
        assert (canvas.labels.array[hole] == FAT).all()
        assert canvas.volume.array[hole].mean() < -40
        ribs = painted(mask, 25, (0.3, 0.5, 0.5))
        canvas.edit(ribs.with_array(ribs.array.astype(np.int64) + 0))
        assert (canvas.labels.array[hole] == BONE).all()
        assert (canvas.mask.array[hole] == 25).all() and canvas.mask.names == names
        with pytest.raises(InputError, match="does not know"):
            canvas.edit(ribs.with_array(np.where(hole, 4711, ribs.array)))
        with pytest.raises(InputError, match="no label 'plastic'"):
            canvas.edit(hole, label="plastic")


def test_a_number_does_not_change_its_meaning(mask, canvas):
    """As where another program has renumbered the segments of the new mask."""
    new = painted(mask, FAT)
    before = canvas.volume.array.copy()
    with pytest.raises(InputError, match="1 is 'bone' in the new mask.*uses it for fat"):
        canvas.edit(LabelMap(new.array, new.affine, {FAT: "bone"}))
    assert np.array_equal(canvas.volume.array, before) and not canvas.can_undo
    canvas.edit(LabelMap(new.array, new.affine, {FAT: "Segment_1", SOFT: "muscle"}))
    assert canvas.can_undo


@pytest.fixture(scope="module")
def hippocampus():
    image = read_volume(sample("hippocampus_real.nii.gz"), modality="T1w")
    return image, read_label_map(sample("hippocampus_mask.nii.gz"))


def test_an_mr_image_keeps_its_own_scale(hippocampus):
    image, mask = hippocampus
    scaled = image.with_array(image.array * 3.5)
    new = mask.with_array(np.where(mask.array == 2, 0, mask.array).astype(np.uint8))
    with Canvas.of_image(scaled, mask, "mr-hippocampus", seed=1, **CPU) as canvas:
        done = canvas.edit(new)
        after, changed = canvas.volume.array, new.array != mask.array
        assert done.changed == np.count_nonzero(mask.array == 2)
        outside = far_from(changed, canvas.halo_voxels)
        assert np.array_equal(after[outside], scaled.array[outside])
        assert 0.6 < after[changed].mean() / scaled.array[changed].mean() < 1.5
        assert after.dtype == np.float32 and after.min() >= 0
        canvas.edit(mask)
        assert np.array_equal(after, scaled.array)


@pytest.mark.parametrize("slope", [0.0, 5.0])
def test_an_mr_image_of_tissues_is_brought_to_the_scale_of_the_model(slope):
    """mr-brain knows white matter as 110; this scanner's is 385, and with a slope brighter on one side."""
    centers = find("mr-brain").settings.centers
    labels = np.repeat(np.repeat(trunk((14, 12, 14)).array, 2, 0), 2, 1)
    mask = LabelMap(np.select([labels == 2, labels > 0], [1, 2]).astype(np.uint8), np.eye(4))
    noise = np.random.default_rng(0).normal(0, 4, mask.shape)
    shade = np.exp(slope / 100 * (np.arange(mask.shape[0]) - mask.shape[0] / 2))[:, None, None]
    values = (np.array(centers)[mask.array] + noise) * 3.5 * (mask.array > 0) * shade
    image = Volume(np.rint(values).astype(np.int16), mask.affine, "T1w")
    new = painted(mask, 2, (0.3, 0.5, 0.5))
    with Canvas.of_image(image, mask, "mr-brain", seed=1, **CPU) as canvas:
        canvas.edit(new)
        after, changed = canvas.volume.array, new.array != mask.array
        outside = far_from(changed, canvas.halo_voxels)
        assert np.array_equal(after[outside], image.array[outside])
        place = np.broadcast_to(shade, mask.shape)[changed].mean()
        assert after[changed].mean() / 3.5 == pytest.approx(centers[2] * place, rel=0.15)
        near = ~outside & ~changed & (mask.array == 1)
        assert after[near].mean() == pytest.approx(values[near].mean(), rel=0.1)


def test_the_field_of_view_follows_the_labels_and_ends_where_the_model_does(hippocampus):
    """A hippocampus in a whole head: the model sees a part of it at once."""
    image, mask = hippocampus
    pads = [(8, 40), (0, 10), (0, 60)]
    wide = Volume(np.pad(image.array, pads, mode="reflect"), image.affine, "T1w")
    labels = LabelMap(np.pad(mask.array, pads), mask.affine)
    with Canvas.of_image(wide, labels, "mr-hippocampus", seed=1, **CPU) as canvas:
        before = canvas.volume.array.copy()
        lower = labels.array.copy()
        lower[..., :14] = 0
        assert canvas.edit(lower).findings == []
        above = lower.copy()
        above[22:27, 24:29, 47:52] = 1
        done = canvas.edit(above)
        assert [finding.code for finding in done.findings] == ["field-of-view"]
        outside = far_from(above != labels.array, canvas.halo_voxels)
        assert np.array_equal(canvas.volume.array[outside], before[outside])
        far = above.copy()
        far[70:74, 20:24, 70:74] = 2
        with pytest.raises(InputError, match="sees at once"):
            canvas.edit(far)
        assert np.array_equal(canvas.mask.array, above)


@pytest.mark.usefixtures("each_number_format")
def test_a_stopped_edit_does_not_move_the_field_of_view(hippocampus):
    image, mask = hippocampus
    pads = [(8, 40), (0, 10), (0, 60)]
    wide = Volume(np.pad(image.array, pads, mode="reflect"), image.affine, "T1w")
    labels = LabelMap(np.pad(mask.array, pads), mask.affine)

    def stop(progress):
        raise Cancelled("Stopped.")

    lower = labels.array.copy()
    lower[..., :14] = 0
    inside, above = np.minimum(lower, 1), lower.copy()
    above[22:27, 24:29, 47:52] = 1
    results = []
    for stopped in (True, False):
        with Canvas.of_image(wide, labels, "mr-hippocampus", seed=1, **CPU) as canvas:
            canvas.edit(lower)
            if stopped:
                with pytest.raises(Cancelled):
                    canvas.edit(above, progress=stop)
            canvas.edit(inside)
            results.append(canvas.volume.array)
    assert np.array_equal(*results)


def test_edit_image_is_one_edit_with_a_report(mask):
    image, new = ct_of(mask), painted(mask, BONE)
    result = edit_image(image, mask, new, seed=3, preset="draft", **CPU)
    report = result.report
    assert (report.task, report.seed, report.passed) == ("edit", 3, True)
    assert report.parameters["changed_voxels"] == np.count_nonzero(new.array != mask.array)
    with Canvas.of_image(image, mask, seed=3, **CPU) as canvas:
        canvas.edit(new)
        assert np.array_equal(canvas.volume.array, result.volume.array)
    with pytest.raises(InputError, match="same as the old"):
        edit_image(image, mask, mask, **CPU)


def test_what_cannot_be_edited_is_refused_in_a_sentence(mask):
    image = ct_of(mask)

    def opening(volume=image, labels=mask, model="ct-tissue", **options):
        return Canvas.of_image(volume, labels, model, **options, **CPU)

    shifted = mask.affine.copy()
    shifted[0, 3] += 5
    refused = [
        (lambda: opening(labels=LabelMap(mask.array, shifted)), "does not lie on the image's grid"),
        (lambda: opening(labels=mask.with_array(np.zeros_like(mask.array))), "mask is empty"),
        (lambda: opening(labels=mask.with_array(mask.array * 5)), "does not know"),
        (lambda: opening(image.with_array(image.array / 0.0)), "NaN or infinite"),
        (lambda: opening(image.with_array(image.array, "T1w")), "The image is T1w"),
        (lambda: opening(model="mr-hippocampus"), "The image is CT"),
        (lambda: opening(seed=-1), "seed is -1"),
        (lambda: opening(model="head-mr-to-ct"), "translate"),
    ]
    for run, words in refused:
        with pytest.raises((InputError, PackageError), match=words), np.errstate(all="ignore"):
            run()
    canvas = opening()
    other = LabelMap(mask.array, shifted)
    refused = [
        (lambda: canvas.edit(other), "does not lie on the image's grid"),
        (lambda: canvas.edit(mask.array[:5]), "5 x 36 x 32 voxels"),
        (lambda: canvas.edit(mask.array[:5], (slice(38, 43), slice(0, 36), slice(0, 32))), "inside"),
        (lambda: canvas.edit(mask.array * 9), "does not know"),
        (lambda: canvas.edit(mask.array + 0.5), "whole numbers"),
        (lambda: canvas.edit(mask, preset="slow"), "slow"),
    ]
    for run, words in refused:
        with pytest.raises((InputError, PackageError), match=words):
            run()
    assert not canvas.can_undo and np.array_equal(canvas.volume.array, image.array)
    canvas.close()
    assert canvas.closed
    for run in (lambda: canvas.edit(mask), lambda: canvas.volume, canvas.undo):
        with pytest.raises(InputError, match="closed"):
            run()


def test_the_command_writes_image_picture_report_and_facts(tmp_path, capsys):
    mask = trunk((28, 24, 20), left_handed_oblique())
    new = painted(mask, BONE, (0.3, 0.5, 0.5))
    image = ct_of(mask)
    for name, item in {"ct": image, "old": mask, "new": new}.items():
        write_volume(item, tmp_path / f"{name}.nii.gz")
    words = ["edit", "ct.nii.gz", "--mask", "old.nii.gz", "--new-mask", "new.nii.gz"]
    words += ["-o", "out.nii.gz", "--preview", "p.png", "--report", "r.json", "--seed", "3"]
    words = [str(tmp_path / word) if "." in word else word for word in words]
    words += ["--preset", "draft", "--device", "cpu"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    changed = new.array != mask.array
    assert f"{np.count_nonzero(changed)} voxels of the mask changed, and beside them " in printed
    beside = json.loads((tmp_path / "r.json").read_text())["parameters"]["changed_beyond"]
    assert beside > 0 and f" {beside} voxels of the image by up to " in printed
    assert "are those of the input" in printed
    out = read_volume(tmp_path / "out.nii.gz", modality="CT")
    report = json.loads((tmp_path / "r.json").read_text())
    outside = far_from(changed, report["parameters"]["halo_voxels"])
    assert outside.any() and np.array_equal(out.array[outside], image.array[outside])
    assert out.array[changed].mean() > 150 and np.allclose(out.affine, mask.affine, atol=1e-4)
    kinds = [sitk.ReadImage(tmp_path / f"{name}.nii.gz").GetPixelID() for name in ("ct", "out")]
    assert kinds == [sitk.sitkInt16, sitk.sitkInt16]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((tmp_path / "out.medgen.json").read_text())
    assert facts["task"] == "edit" and [s["role"] for s in facts["inputs"]] == ["image", "mask", "new mask"]
    assert main(words) == 2, "nothing is overwritten"
    assert "exists already" in capsys.readouterr().err
    words[words.index("--new-mask") + 1] = str(tmp_path / "old.nii.gz")
    assert main([*words, "--overwrite"]) == 2
    assert "same as the old" in capsys.readouterr().err


def test_a_mask_in_the_place_of_the_image_is_refused(mask):
    """Exchanged arguments: a label map is no CT, however it is called."""
    swapped = Volume(mask.array.astype(np.int16), mask.affine, "CT", "HU")
    with pytest.raises(InputError, match="only a few whole numbers, as masks do"):
        Canvas.of_image(swapped, mask, device="cpu")
