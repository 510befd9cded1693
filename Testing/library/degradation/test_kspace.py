"""Artifacts of k-space against closed forms: shifts, copies, plane waves and ringing."""

from __future__ import annotations

import numpy as np
import pytest

from MedGenLib.degradation.kspace import ghosts, gibbs, motion, moved_segments, spikes


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blob(shape: tuple[int, ...] = (24, 36, 20), sd: float = 2.5) -> np.ndarray:
    distance = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) // 2
    return np.exp(-(distance**2).sum(axis=0) / (2 * sd**2)).astype(np.float32)


def test_every_line_shows_the_patient_where_he_was():
    image = np.pad(generator().uniform(1, 2, (12, 18, 10)), [(3, 3)] * 3, constant_values=1.5)
    poses, position = np.zeros((3, 2, 3)), generator(1).integers(0, 3, 24)
    poses[1, 0], poses[2, 0] = (1.0, -4.0, 6.0), (-2.0, 2.0, -3.0)  # mm; voxels (1, -2, 2) and (-2, 1, -1)
    found = moved_segments(image, (1, 2, 3), poses, position)
    copies = [image, np.roll(image, (1, -2, 2), (0, 1, 2)), np.roll(image, (-2, 1, -1), (0, 1, 2))]
    spectrum = np.zeros(image.shape, complex)
    for number, copy in enumerate(copies):
        spectrum[:, position == number] = np.fft.fftn(copy)[:, position == number]
    assert found == pytest.approx(np.abs(np.fft.ifftn(spectrum)), abs=1e-4)


@pytest.mark.parametrize(("axis", "wanted"), [(2, (-10, 6, 4)), (0, (6, -4, 10)), (1, (4, 10, -6))])
def test_a_rotation_is_about_the_center_in_mm(axis, wanted):
    """A point at (6, 10, 4) mm is turned by 90 degrees on voxels of 1 x 2 x 1 mm."""
    point = np.zeros((41, 21, 41))
    point[20 + 6, 10 + 5, 20 + 4] = 1
    poses = np.zeros((1, 2, 3))
    poses[0, 1, axis] = 90
    turned = moved_segments(point, (1, 2, 1), poses, np.zeros(21, int))
    place = np.array(np.unravel_index(turned.argmax(), turned.shape))
    assert ((place - [20, 10, 20]) * [1, 2, 1]).tolist() == list(wanted)


def test_a_movement_matters_while_the_center_of_k_space_is_measured():
    changes = sorted(np.abs(motion(blob(), (1, 1, 1), generator(n), moves=1) - blob()).max() for n in range(9))
    assert changes[3] < 1e-3 and changes[-1] > 0.02


def test_motion_of_one_slice_stays_in_its_plane():
    poses = generator().normal(size=(3, 2, 3)) * [[4], [20]]
    in_plane = poses * [[1, 1, 0], [0, 0, 1]]
    position = generator(1).integers(0, 3, 36)
    found = moved_segments(blob((24, 36, 1)), (1, 1, 4), poses, position)
    assert np.array_equal(found, moved_segments(blob((24, 36, 1)), (1, 1, 4), in_plane, position))
    assert np.abs(found - blob((24, 36, 1))).max() > 0.02


@pytest.mark.parametrize(("axis", "count"), [(1, 2), (0, 3), (1, 4)])
def test_ghosts_lie_at_parts_of_the_field_of_view(axis, count):
    image = blob()
    found = ghosts(image, axis, count, 0.6)
    size = image.shape[axis]
    line = np.moveaxis(found, axis, -1)[tuple(n // 2 for a, n in enumerate(image.shape) if a != axis)]
    places = (size // 2 + np.arange(count) * size // count) % size
    assert line[places] == pytest.approx([1 - 0.6 / count] + [0.6 / count] * (count - 1), abs=0.01)


def test_ghosts_keep_the_center_of_k_space():
    even = np.full((8, 12, 6), 3.0)
    assert ghosts(even, 1, 3, 0.9) == pytest.approx(even)


def test_a_spike_is_one_plane_wave():
    """|c + A exp(i phase)|**2 = c**2 + A**2 + 2 c A cos(phase): one frequency."""
    found = spikes(np.full((12, 16, 10), 50.0), generator(3), strength=0.2).astype(float)
    wave = np.abs(np.fft.fftn(found**2 - 50**2 - 10**2)) / found.size
    strongest = np.sort(wave.ravel())[::-1]
    assert strongest[:2] == pytest.approx(50 * 10, rel=1e-4) and strongest[2] < 0.1


def test_a_spike_of_a_2d_sequence_spoils_one_slice():
    found = spikes(np.full((12, 16, 10), 50.0), generator(3), axis=2)
    changed = np.flatnonzero(np.abs(found - 50).max(axis=(0, 1)) > 1e-3)
    assert len(changed) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ringing_has_the_overshoot_and_the_period_of_gibbs(axis):
    step = np.zeros(1200)
    step[300:900] = 1
    image = np.moveaxis(np.tile(step, (2, 2, 1)), 2, axis)
    line = np.moveaxis(gibbs(image, axis, 0.95), axis, 2)[1, 0]
    assert line.max() == pytest.approx(1.0895, abs=0.004)
    crossings = np.flatnonzero(np.diff(np.sign(line[400:800] - 1)))
    assert np.diff(crossings).mean() == pytest.approx(1 / 0.05, rel=0.03)  # half a period


def test_nothing_changes_at_strength_0_and_seeds_repeat():
    image = generator().uniform(1, 2, (9, 10, 8)).astype(np.float32)
    before = image.copy()
    same = [
        motion(image, (1, 1, 1), generator(), shift_mm=0, rotation_degrees=0),
        ghosts(image, strength=0),
        spikes(image, generator(), strength=0),
        gibbs(image, strength=0),
    ]
    assert all(np.array_equal(result, image) and result is not image for result in same)
    for degrade in (lambda rng: motion(image, (1, 1, 1), rng), lambda rng: spikes(image, rng)):
        first, again, other = (degrade(generator(seed)) for seed in (5, 5, 6))
        assert np.array_equal(first, again) and not np.array_equal(first, other)
    ghosts(image), gibbs(image)
    assert np.array_equal(image, before)


def test_torchio_makes_the_same_ghosts():
    torchio = pytest.importorskip("torchio")
    import torch

    image = blob((24, 30, 20))
    theirs = torchio.Ghosting(2, 1, 0.6, None)
    found = theirs(torch.from_numpy(image)[None])[0].numpy()
    assert ghosts(image, 1, 2, 0.6) == pytest.approx(found, abs=1e-5)
