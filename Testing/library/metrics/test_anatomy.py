"""Expected against found labels: theory, MONAI, and sentences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.metrics import labels as anatomy
from MedGenLib.metrics.labels import compare_labels, hd95

SPACING = (1.0, 1.5, 2.0)


def label_map(array, spacing=SPACING, names=None) -> LabelMap:
    return LabelMap(np.asarray(array), np.diag([*spacing, 1.0]), names or {})


def box(*sides, shape=(30, 28, 26)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def two_boxes(a=1, b=2):
    return np.where(box((4, 12), (4, 12), (4, 12)), a, 0) + np.where(box((16, 26), (8, 20), (6, 18)), b, 0)


def test_the_same_labels_are_perfect():
    rows = compare_labels(label_map(two_boxes()), label_map(two_boxes()))
    for row in rows:
        assert row.dice == 1 and row.hd95_mm == 0 and row.difference_ml == 0
        assert row.difference_percent == 0
    voxel = np.prod(SPACING) / 1000
    assert [row.wanted_ml for row in rows] == pytest.approx([8**3 * voxel, 10 * 12 * 12 * voxel])


def test_a_known_shift():
    """A box shifted by 2 of its 8 voxels along the second axis of 1.5 mm."""
    wanted = label_map(box((4, 12), (4, 12), (4, 12)).astype(np.uint8))
    found = label_map(np.roll(wanted.array, 2, axis=1))
    (row,) = compare_labels(wanted, found)
    assert row.dice == pytest.approx(6 / 8)
    assert row.hd95_mm == pytest.approx(3.0)
    assert row.difference_ml == 0


def test_a_known_growth():
    """One voxel of 1, 1.5 and 2 mm more on every side."""
    wanted = label_map(box((10, 18), (10, 18), (10, 18)).astype(np.uint8))
    found = label_map(box((9, 19), (9, 19), (9, 19)).astype(np.uint8))
    (row,) = compare_labels(wanted, found)
    assert row.dice == pytest.approx(2 * 512 / (512 + 1000))
    assert row.difference_percent == pytest.approx(100 * (1000 - 512) / 512)
    assert row.difference_ml == pytest.approx((1000 - 512) * 3 / 1000)
    assert row.found_ml - row.wanted_ml == pytest.approx(row.difference_ml)
    assert 2.0 <= row.hd95_mm <= np.sqrt(1 + 1.5**2 + 2**2)


def test_swapped_labels_are_not_found():
    rows = compare_labels(label_map(two_boxes(1, 2)), label_map(two_boxes(2, 1)))
    assert [row.dice for row in rows] == [0, 0]
    assert all(row.hd95_mm > 5 for row in rows)


def test_some_swapped_voxels_count_in_both_labels():
    wanted = two_boxes()
    found = wanted.copy()
    found[16:21, 8:20, 6:18] = 1  # half of the larger box
    first, second = compare_labels(label_map(wanted), label_map(found))
    assert second.dice == pytest.approx(2 * 720 / (1440 + 720))
    assert second.difference_percent == pytest.approx(-50)
    assert first.dice == pytest.approx(2 * 512 / (512 + 512 + 720))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_hd95_and_dice_agree_with_monai(spacing):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_dice, compute_hausdorff_distance
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(0)
    first, second = (gaussian_filter(generator.normal(0, 1, (30, 28, 26)), 3) > 0.02 for _ in range(2))
    pair = [torch.from_numpy(mask)[None, None] for mask in (first, second)]
    (row,) = compare_labels(label_map(first, spacing), label_map(second, spacing))
    expected = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    assert row.hd95_mm == pytest.approx(expected.item(), abs=1e-4) and row.hd95_mm > 2
    assert row.dice == pytest.approx(compute_dice(*pair).item(), abs=1e-4)


def test_hd95_of_a_single_slice_uses_its_outlines():
    disc = np.hypot(*np.meshgrid(np.arange(-20, 21), np.arange(-20, 21))) < 15
    small = np.hypot(*np.meshgrid(np.arange(-20, 21), np.arange(-20, 21))) < 10
    assert 4 <= hd95(disc[..., None], small[..., None], (1.0, 1.0, 5.0)) <= 6
    assert np.isnan(hd95(disc[..., None], np.zeros((41, 41, 1)), (1.0, 1.0, 5.0)))


def test_hd95_of_a_large_surface_uses_every_nth_voxel(monkeypatch):
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 24, 24, 24)) > 0.3
    expected = hd95(first, second, SPACING)
    monkeypatch.setattr(anatomy, "_MOST_QUERIES", 1000)
    assert hd95(first, second, SPACING) == pytest.approx(expected, rel=0.1)


def test_missing_labels_have_no_value_and_a_sentence():
    wanted = label_map(two_boxes(1, 2), names={1: "liver", 2: "spleen"})
    found = label_map(np.where(two_boxes() == 1, 1, 0) + 3 * box((28, 30), (0, 3), (0, 4)))
    names = {1: "liver", 2: "spleen", 3: "kidney", 4: "aorta"}
    liver, spleen, kidney, aorta = compare_labels(wanted, found, names)
    assert liver.dice == 1
    assert (spleen.dice, spleen.hd95_mm, spleen.difference_percent) == (0, None, -100)
    assert spleen.sentence == ("spleen: 4.32 ml in the mask, but not found in the image.")
    assert (kidney.dice, kidney.hd95_mm, kidney.difference_percent) == (0, None, None)
    assert "kidney: not in the mask, but 0.072 ml" in kidney.sentence
    assert (aorta.dice, aorta.hd95_mm, aorta.difference_percent) == (None, None, None)
    assert aorta.sentence == "aorta: neither in the mask nor found in the image."


def test_names_select_the_labels_or_come_from_the_masks():
    wanted = label_map(two_boxes(1, 1035), names={1: "thalamus"})
    found = label_map(two_boxes(1, 1035), names={1: "other", 7: "absent"})
    assert [(r.label, r.name) for r in compare_labels(wanted, found)] == [(1, "thalamus"), (1035, "label 1035")]
    (row,) = compare_labels(wanted, found, {1035: "insula"})
    assert (row.name, row.dice) == ("insula", 1) and "Dice 1.000, HD95 0 mm" in row.sentence
    assert json.loads(json.dumps(row.to_dict()))["label"] == 1035


def test_large_label_values_need_no_large_list():
    wanted = label_map(two_boxes(1, 2_000_000_000))
    assert [row.dice for row in compare_labels(wanted, wanted)] == [1, 1]


def test_labels_at_the_border_of_the_image():
    mask = label_map(box((0, 30), (0, 28), (0, 5)).astype(np.uint8))
    (row,) = compare_labels(mask, label_map(box((0, 30), (0, 28), (0, 6)).astype(np.uint8)))
    assert row.hd95_mm == pytest.approx(2.0)


def test_other_grids_and_empty_masks_are_refused():
    wanted = label_map(two_boxes())
    with pytest.raises(InputError, match=r"mask has 30 x 28 x 26 voxels of 1 x 1.5 x 2 mm and"):
        compare_labels(wanted, label_map(two_boxes(), (1.0, 1.0, 1.0)))
    with pytest.raises(InputError, match=r"holds none of the labels .*\(7 heart\)"):
        compare_labels(wanted, wanted, {7: "heart"})
    empty = label_map(np.zeros((30, 28, 26), np.uint8))
    with pytest.raises(InputError, match="holds none of the labels that can be compared;"):
        compare_labels(empty, empty)
