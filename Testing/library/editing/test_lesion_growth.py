"""Lesions that push their surroundings aside, and lesions that grow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from workers import left_handed_oblique

from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.editing.lesions.push import Push
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume, crop

FAST = {"preset": "draft", "device": "cpu", "seed": 1}
RADIUS = 10.0
CENTER = np.array([1.0, -2.0, 3.0])


@pytest.fixture(params=[0.3, 1.0])
def push(request) -> Push:
    return Push.of(CENTER, 4 / 3 * np.pi * RADIUS**3, request.param)


def shell(radius: float, count: int = 400) -> np.ndarray:
    towards = np.random.default_rng(0).normal(size=(count, 3))
    return CENTER + radius * towards / np.linalg.norm(towards, axis=1, keepdims=True)


def radii(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - CENTER, axis=-1)


# Mass effect


def test_the_border_moves_outwards_and_nothing_moves_from_the_reach_on(push):
    assert (push.after, push.reach) == (pytest.approx(RADIUS), pytest.approx(3 * RADIUS))
    assert radii(push.moved(shell(push.before))) == pytest.approx(RADIUS)
    for far in (push.reach, 40.0, 200.0):
        assert push.moved(shell(far)) == pytest.approx(shell(far), abs=0 if far > push.reach else 1e-9)
    displaced = [float((radii(push.moved(shell(r))) - r).mean()) for r in np.linspace(push.before, push.reach, 20)]
    assert (np.diff(displaced) < 0).all() and displaced[-1] == pytest.approx(0)


def test_the_inverse_brings_every_point_back(push):
    points = CENTER + np.random.default_rng(1).uniform(-35, 35, (5000, 3))
    assert push.moved(push.sources(points)) == pytest.approx(points, abs=1e-9)
    assert push.sources(push.moved(points)) == pytest.approx(points, abs=1e-9)


def test_the_surroundings_are_compressed_evenly(push):
    """The Jacobian by finite differences is the one stated, and never below it."""
    step, points = 1e-4, CENTER + np.random.default_rng(2).uniform(-32, 32, (3000, 3))
    rows = [(push.moved(points + e) - push.moved(points - e)) / (2 * step) for e in step * np.eye(3)]
    found, radius = np.linalg.det(np.stack(rows, axis=1)), radii(points)
    clear = np.min([np.abs(radius - edge) for edge in (push.before, push.reach)], axis=0) > 0.01
    outside = clear & (radius > push.before) & (radius < push.reach)
    assert found[outside] == pytest.approx(push.least_jacobian, abs=1e-4)
    assert found[clear].min() == pytest.approx(push.least_jacobian, abs=1e-4) and 0.95 < push.least_jacobian < 1


@pytest.mark.parametrize("labels", [False, True])
def test_images_and_labels_move_as_points_do(push, labels):
    affine = left_handed_oblique((1.2, 1.5, 2.0))
    grid = Geometry((60, 50, 40), affine)
    push = Push(affine[:3, :3] @ [30.2, 24.7, 19.5] + affine[:3, 3], push.before, push.after, push.reach)
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    distance = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - push.center, axis=-1)
    ball = (distance < 12).astype(np.uint8) if labels else np.float32(distance)
    moved = push.warp(ball, grid, labels)
    assert moved.dtype == ball.dtype
    if labels:
        wanted = np.linalg.norm(push.moved([push.center + [0, 0, 12.0]]) - push.center)
        overlaps = [
            2 * (ball & target).sum() / (ball.sum() + target.sum())
            for ball, target in ((moved > 0, distance < wanted), (distance < 12, distance < wanted))
        ]
        assert wanted > 12.5 and overlaps[0] > max(0.93, overlaps[1] + 0.02)
    else:  # a ramp along the radius shows the radius of each source
        near = (distance > 2) & (distance < push.reach - 2)
        wanted = np.linalg.norm(push.sources(index @ affine[:3, :3].T + affine[:3, 3]) - push.center, axis=-1)
        assert np.abs(moved - wanted)[near].max() < 0.2
    assert np.array_equal(moved[distance >= push.reach], ball[distance >= push.reach])


def liver(spacing=2.0, radius=30.0) -> tuple[Volume, LabelMap]:
    """A round organ in the middle of soft tissue with noise, and its labels."""
    shape, affine = (46, 46, 46), np.diag([spacing] * 3 + [1.0])
    index = np.moveaxis(np.indices(shape), 0, -1) * spacing
    organ = np.linalg.norm(index - 45, axis=-1) < radius
    noise = np.random.default_rng(3).normal(0, 12, shape) + np.where(organ, 100, 40)
    return (
        Volume(noise.astype(np.int16), affine, "CT", "HU"),
        LabelMap(np.where(organ, 3, 2).astype(np.uint8), affine, {2: "soft tissue", 3: "liver"}),
    )


def inserted(image: Volume, labels: LabelMap, **options):
    mapping = {"liver": "soft tissue"}
    return insert_lesion(image, labels=labels, organ="liver", mapping=mapping, contrast=-50.0, **{**FAST, **options})


def test_a_single_slice_has_no_mass_effect():
    image, labels = (crop(grid, (0, 0, 22), (*grid.shape[:2], 23)) for grid in liver())
    with pytest.raises(InputError, match="one slice"):
        inserted(image, labels, at=(45, 45, image.origin[2]), size_mm=12, mass_effect=0.5)


def test_the_insertion_displaces_image_and_labels_and_states_its_reach():
    image, labels = liver()
    done = inserted(image, labels, at=(45, 45, 61), size_mm=20, mass_effect=0.8)
    effect = done.report.parameters["mass_effect"]
    assert effect["reach_mm"] <= done.halo_mm < effect["reach_mm"] + 3 and effect["least_jacobian"] > 0.9
    changed = done.volume.array != image.array
    away = distance_transform_edt(done.lesion.array == 0, image.spacing)
    assert away[changed].max() <= done.halo_mm and away[changed].max() > 12
    assert done.report.passed and done.report.output_checks[0].figures["outside_difference"] == 0
    assert np.array_equal(done.tissues.array == 3, done.push.warp(labels.array, labels.geometry, True) == 3)
    top = [int(np.flatnonzero(mask.array[22, 22] == 3).max()) for mask in (labels, done.tissues)]
    assert top[1] > top[0]  # the lesion below the surface lifts it
    still = inserted(image, labels, at=(45, 45, 61), size_mm=20)
    assert np.array_equal(still.tissues.array, labels.array) and still.push is None
    assert "mass_effect" not in still.report.parameters


# Growth


def test_only_the_lesion_changes_and_its_volume_follows_the_doubling_time():
    image, labels = liver()
    options = {"at": (44, 46, 45), "size_mm": 12, "shape": "lobulated", "texture": "mixed", "mass_effect": 0.3}
    done = inserted(image, labels, **options, grow=5, doubling_days=120, days_between=60)
    facts = done.result.report.parameters["frames"]
    assert [fact["day"] for fact in facts] == [0, 60, 120, 180, 240]
    volumes = np.array([frame.lesion.array.sum() for frame in done.frames])
    assert volumes / volumes[0] == pytest.approx(2 ** (np.arange(5) / 2), rel=0.03)
    assert [fact["voxels"] for fact in facts] == volumes.tolist()
    assert [fact["size_mm"] / 12 for fact in facts] == pytest.approx(2 ** (np.arange(5) / 6), rel=0.01)
    for number, frame in enumerate(done.frames):
        away = distance_transform_edt(frame.lesion.array == 0, image.spacing) > frame.halo_mm + 1e-3
        assert away.any() and np.array_equal(frame.volume.array[away], image.array[away])
        assert frame.report.passed and frame.source is done.source
        if number:
            assert (frame.lesion.array >= done.frames[number - 1].lesion.array).all()
    first = inserted(image, labels, **options)
    assert np.array_equal(first.volume.array, done.volume.array) and not first.later
    assert np.array_equal(first.lesion.array, done.lesion.array)
    assert len(done.result.volumes) == len(done.result.report.output_checks) == 5


@pytest.mark.parametrize("shape", ["sphere", "spiculated", "plaque-round"])
def test_small_lesions_grow_as_exactly(shape):
    """A ball of few voxels would grow by whole shells of them."""
    image, labels = liver(3.0, 60)
    options = {"at": (69, 69, 69), "size_mm": 13, "shape": shape, "grow": 9, "days_between": 30, "doubling_days": 100}
    done = inserted(image, labels, **options)
    volumes = np.array([frame.lesion.array.sum() for frame in done.frames])
    assert volumes / volumes[0] == pytest.approx(2 ** (np.arange(9) * 0.3), abs=0.5 / volumes[0] + 1e-9)


def test_a_painted_lesion_grows():
    image, labels = liver()
    painted = np.zeros(image.shape, np.uint8)
    painted[20:25, 20:24, 20:23] = 1
    lesion = LabelMap(painted, image.affine)
    done = inserted(image, labels, lesion=lesion, grow=3, days_between=120)
    assert np.array_equal(done.lesion.array, painted)
    assert [int(frame.lesion.array.sum()) for frame in done.frames] == [60, 120, 240]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"at": (45, 45, 65), "size_mm": 12, "grow": 5}, r"outgrows 'liver' by day 360, when it has"),
        ({"at": (45, 45, 73), "size_mm": 12, "grow": 2}, r"outgrows 'liver' by day 90"),
        ({"size_mm": 30, "grow": 12}, r"The grown lesion of 202 mm is larger than 'liver', where a ball of 57.1 mm"),
        ({"at": (45, 45, 65), "size_mm": 12, "grow": 13, "doubling_days": 1}, "outgrows 'liver'"),
        ({"at": (45, 45, 45), "size_mm": 90}, r"larger than 'liver', where a ball"),
        ({"at": (45, 45, 45), "size_mm": 20, "grow": 1}, r"number of images is 1"),
        ({"at": (7.2, 45, 45), "size_mm": 13, "grow": 2}, "outgrows 'liver' by day 90"),  # the image ends
    ],
)
def test_growth_past_the_organ_is_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        inserted(*liver(radius=300 if options.get("at") == (7.2, 45, 45) else 30), **options)
