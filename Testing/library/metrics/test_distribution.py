"""Cohort measures: a second implementation, theory, and sentences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.errors import InputError
from MedGenLib.metrics import distribution
from MedGenLib.metrics.distribution import compare_cohorts, extrapolate, fid, manifold, mmd
from MedGenLib.metrics.features import CUBE, Features
from MedGenLib.metrics.memorization import find_memorized

FEATURES = 12


def unit_cube(generator: np.random.Generator) -> np.ndarray:
    """A smooth random cube."""
    cube = ndimage.gaussian_filter(generator.normal(size=(CUBE,) * 3), 2)
    cube -= cube.mean()
    return (cube / np.linalg.norm(cube)).astype(np.float32)


def volumes(
    count: int, seed: int, shift: float = 0.0, scale: float = 1.0, slices: int = 6, name: str = "v"
) -> list[Features]:
    """Volumes whose slices share half of their variance, as slices of one patient do."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        planes = tuple(
            (
                shift
                + scale * (generator.normal(size=FEATURES) + generator.normal(size=(slices, FEATURES))) / np.sqrt(2)
            ).astype(np.float32)
            for _ in range(3)
        )
        made.append(Features(f"{name}{number}", planes, unit_cube(generator)))
    return made


def planes(cohort_: list[Features]) -> list[np.ndarray]:
    return [np.concatenate([f.planes[p] for f in cohort_]) for p in range(3)]


def test_fid_agrees_with_monai():
    import torch
    from monai.metrics.fid import get_fid_score

    real, fake = planes(volumes(30, 1)), planes(volumes(30, 2, 0.3, 1.2))
    expected = np.mean(
        [float(get_fid_score(torch.from_numpy(b), torch.from_numpy(a))) for a, b in zip(real, fake, strict=True)]
    )
    assert fid(real, fake) == pytest.approx(expected, rel=1e-4)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)


def test_fid_with_more_features_than_slices_equals_that_of_full_matrices():
    import torch
    from monai.metrics.fid import get_fid_score

    generator = np.random.default_rng(0)
    real, fake = generator.normal(size=(20, 64)), 0.5 + generator.normal(size=(15, 64))
    expected = get_fid_score(torch.from_numpy(fake), torch.from_numpy(real))
    assert fid([real], [fake]) == pytest.approx(float(expected), rel=1e-3)


def test_frechet_distance_of_a_shift_is_its_square():
    real = planes(volumes(20, 1))
    assert fid(real, [plane + 0.5 for plane in real]) == pytest.approx(FEATURES * 0.25, rel=1e-5)


def test_mmd_agrees_with_monai_and_is_unbiased():
    """MONAI uses a linear kernel; compared with the same kernel matrix."""
    import torch
    from monai.metrics.mmd import compute_mmd

    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 5)), 0.2 + generator.normal(size=(30, 5))
    both = np.concatenate([x, y])
    expected = compute_mmd(torch.from_numpy(x), torch.from_numpy(y), None)
    assert mmd(both @ both.T, 30) == pytest.approx(float(expected), abs=1e-9)
    values = []
    for seed in range(60):
        pair = [*volumes(10, 2 * seed), *volumes(10, 2 * seed + 1)]
        values.append(mmd(distribution.volume_kernel([v.planes for v in pair]), 10))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)


def test_the_kernel_of_volumes_is_the_mean_over_their_slices():
    pair = [volumes(1, 1, slices=3)[0].planes, volumes(1, 2, slices=5)[0].planes]
    found = distribution.volume_kernel(pair)[0, 1]
    expected = np.mean(
        [np.mean((a.astype(float) @ b.astype(float).T / FEATURES + 1) ** 3) for a, b in zip(*pair, strict=True)]
    )
    assert found == pytest.approx(expected)


def test_extrapolation_is_exact_where_the_bias_is_a_multiple_of_one_over_n():
    sizes = [10, 20, 40]
    assert extrapolate(sizes, [3 + 8 / n for n in sizes]) == pytest.approx(3)


def test_fid_of_equal_distributions_is_biased_and_extrapolates_to_zero():
    found = [compare_cohorts(volumes(32, 10 * s), volumes(32, 10 * s + 1)) for s in range(6)]
    raw = np.mean([f.value("FID") for f in found])
    limit = np.mean([f.value("FID infinity") for f in found])
    assert raw > 0.3
    assert abs(limit) < raw / 3
    intervals = [next(m for m in f.measures if m.name == "FID infinity") for f in found]
    assert sum(m.low <= 0 <= m.high for m in intervals) >= 5


def test_measures_separate_bad_from_good_cohorts():
    real = volumes(24, 1)
    good, bad = (compare_cohorts(real, volumes(24, 2, s)) for s in (0.0, 1.5))
    assert bad.value("FID infinity") > 10 * abs(good.value("FID infinity"))
    assert bad.value("MMD") > 10 * abs(good.value("MMD"))
    assert good.value("coverage") > 0.8 > 0.2 > bad.value("coverage")
    assert good.value("precision") > 0.8 > 0.3 > bad.value("precision")


def test_a_collapsed_generator_shows_in_recall_coverage_and_diversity():
    real = volumes(24, 1)
    collapsed = compare_cohorts(real, volumes(24, 2, scale=0.1))
    assert collapsed.value("precision") > 0.9
    assert collapsed.value("recall") < 0.2
    assert collapsed.value("diversity") < 0.2
    assert compare_cohorts(real, volumes(24, 2)).value("diversity") == pytest.approx(1, abs=0.2)


def test_manifold_against_a_plain_loop():
    generator = np.random.default_rng(3)
    real, fake, k = generator.normal(size=(12, 4)), generator.normal(size=(9, 4)), 3

    def radius(points, center):
        return sorted(np.linalg.norm(points - center, axis=1))[k]

    inside = [[np.linalg.norm(r - f) <= radius(real, r) for f in fake] for r in real]
    recalled = [any(np.linalg.norm(r - f) <= radius(fake, f) for f in fake) for r in real]
    found = manifold(real, fake, k)
    assert found["precision"] == pytest.approx(np.mean(np.any(inside, 0)))
    assert found["coverage"] == pytest.approx(np.mean(np.any(inside, 1)))
    assert found["density"] == pytest.approx(np.sum(inside) / (k * 9))
    assert found["recall"] == pytest.approx(np.mean(recalled))


def test_seed_diversity_needs_groups():
    real = volumes(8, 1)
    one = volumes(1, 2)[0]
    same = [Features(f"s{i}", one.planes, one.cube) for i in range(4)]
    mixed = [*same, *volumes(4, 3)]
    assert compare_cohorts(real, mixed).value("seed diversity") is None
    assert compare_cohorts(real, mixed, groups=[[0, 1, 2, 3]]).value("seed diversity") == 0
    assert compare_cohorts(real, mixed, groups=[[4, 5], [6]]).value("seed diversity") > 0.5


def test_results_depend_only_on_the_seed():
    pair = volumes(16, 1), volumes(16, 2)
    assert compare_cohorts(*pair, seed=1).to_dict() == compare_cohorts(*pair, seed=1).to_dict()
    assert compare_cohorts(*pair, seed=1).curve != compare_cohorts(*pair, seed=2).curve


def test_few_volumes_are_refused_or_noted():
    with pytest.raises(InputError, match="synthetic cohort has 1 volume, but a distribution needs"):
        compare_cohorts(volumes(5, 1), volumes(1, 2))
    with pytest.raises(InputError, match="real cohort has 0 volumes"):
        compare_cohorts([], volumes(5, 2))
    few = compare_cohorts(volumes(3, 1), volumes(2, 2))
    assert few.value("FID") > 0
    assert few.value("FID infinity") is None
    sentences = " ".join(m.sentence for m in few.measures)
    assert "fewer than 8 volumes" in sentences
    assert "fewer than 4 real volumes" in sentences


def test_equal_real_volumes_have_no_diversity():
    one = volumes(1, 1)[0]
    same = [Features(f"r{i}", one.planes, one.cube) for i in range(3)]
    found = compare_cohorts(same, volumes(3, 2))
    assert found.value("diversity") is None


def test_a_plane_without_content_in_some_volumes_is_skipped():
    real, fake = volumes(9, 1), volumes(9, 2)
    empty = np.zeros((0, 1), np.float32)
    flat = [Features(f.name, (f.planes[0], empty, f.planes[2]), f.cube) for f in fake]
    found = compare_cohorts(real, flat)
    assert "sagittal, axial" in found.note
    assert np.isfinite(found.value("FID"))
    nothing = [Features(f.name, (empty,) * 3, f.cube) for f in fake]
    with pytest.raises(InputError, match="no plane"):
        compare_cohorts(real, nothing)


# memorization


def noisy(image: Features, noise: float, generator: np.random.Generator, name: str) -> Features:
    cube = image.cube + noise * generator.normal(size=image.cube.shape) * image.cube.std()
    cube -= cube.mean()
    planes_ = tuple(p + noise * generator.normal(size=p.shape).astype(np.float32) for p in image.planes)
    return Features(name, planes_, (cube / np.linalg.norm(cube)).astype(np.float32))


def test_exact_and_noisy_copies_are_found_and_new_images_are_not():
    generator = np.random.default_rng(0)
    training, held_out = volumes(30, 1, name="train"), volumes(15, 2, name="real")
    fresh = volumes(20, 3, name="fresh")
    copies = [Features("exact", training[4].planes, training[4].cube), noisy(training[7], 0.2, generator, "noisy")]
    found = find_memorized([*fresh, *copies], training, held_out)
    assert [n.name for n in found.copies] == ["exact", "noisy"]
    assert [n.copy_of for n in found.copies] == ["train4", "train7"]
    assert "exact looks like a copy of the training image train4" in found.copies[0].sentence
    assert found.note.startswith("2 of 22 synthetic images look like copies")


def test_a_shifted_copy_is_found_by_its_features():
    generator = np.random.default_rng(0)
    training = volumes(30, 1, name="train")
    moved = Features("moved", training[3].planes, unit_cube(generator))
    found = find_memorized([moved], training, volumes(10, 2))
    assert found.neighbors[0].copied
    assert found.neighbors[0].copy_of == "train3"


def test_shifted_and_mirrored_copies_are_found_by_their_voxels():
    training = volumes(30, 1, name="train")
    other = volumes(2, 3)
    moved = np.roll(training[5].cube, (1, -2), axis=(0, 2))
    changed = [
        Features("moved", other[0].planes, moved),
        Features("mirrored", other[1].planes, np.ascontiguousarray(training[6].cube[::-1])),
    ]
    found = find_memorized(changed, training, volumes(10, 2))
    assert [n.copy_of for n in found.neighbors] == ["train5", "train6"]


def test_images_in_both_cohorts_do_not_change_the_limits():
    training = volumes(20, 1, name="train")
    apart = find_memorized(volumes(4, 2), training)
    overlapping = find_memorized(volumes(4, 2), training, real=training[:10])
    assert overlapping.distance_limit == pytest.approx(apart.distance_limit, rel=0.2)
    copy = Features("copy", training[0].planes, training[0].cube)
    assert find_memorized([copy], training, real=training[:10]).copies


def test_too_few_real_images_mark_no_copies():
    training = volumes(2, 1)
    found = find_memorized(volumes(2, 2), training)
    assert [n.copied for n in found.neighbors] == [None, None]
    assert "fewer than 5 real images" in found.note
    with pytest.raises(InputError, match="training cohort has 1 volume,"):
        find_memorized(volumes(2, 2), training[:1])
