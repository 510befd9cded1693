"""An image against a reference, and the spread of samples: values that theory knows."""

import json

import numpy as np
import pytest

from MedGenLib.errors import InputError
from MedGenLib.quality.compare import compare, spread
from MedGenLib.volume import LabelMap, Volume

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def ct(shift=0.0, affine=AFFINE, noise=0.0):
    """A ball of water (0 HU) with structure in air, plus a shift inside of everything."""
    i, j, k = np.mgrid[:24, :24, :24] - 11.5
    body = i**2 + j**2 + k**2 < 100
    texture = np.random.default_rng(0).normal(0, 20, body.shape)
    values = np.where(body, texture, -1000.0) + shift
    values += np.random.default_rng(1).normal(0, 1, body.shape) * noise
    return Volume(values.astype(np.float32), affine, "CT", "HU")


def test_an_image_against_itself_is_perfect():
    result = compare(ct(), ct())
    assert result.value("MAE") == result.value("RMSE") == 0
    assert result.value("SSIM") == pytest.approx(1, abs=1e-6)
    assert result.value("Pearson") == pytest.approx(1, abs=1e-6)
    psnr = next(row for row in result.rows if row.name == "PSNR")
    assert psnr.value is None or np.isinf(psnr.value)
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_known_shift_is_the_error():
    result = compare(ct(shift=30.0), ct())
    assert result.value("MAE") == pytest.approx(30, abs=1e-3)
    assert result.value("RMSE") == pytest.approx(30, abs=1e-3)
    assert result.value("Pearson") == pytest.approx(1, abs=1e-5)
    assert result.value("PSNR") == pytest.approx(20 * np.log10(3024 / 30), abs=1e-3)
    assert [row.unit for row in result.rows] == ["HU", "HU", "dB", "", ""]


def test_known_noise_is_the_root_mean_squared_error():
    result = compare(ct(noise=25.0), ct())
    assert result.value("RMSE") == pytest.approx(25, rel=0.05)
    assert result.value("MAE") == pytest.approx(25 * np.sqrt(2 / np.pi), rel=0.05)


def test_only_the_mask_counts():
    wrong = ct()
    array = wrong.array.copy()
    array[:12] += 100
    mask = np.zeros(array.shape, np.uint8)
    mask[12:, 8:16, 8:16] = 1
    result = compare(wrong.with_array(array), ct(), LabelMap(mask, AFFINE))
    assert result.value("MAE") == 0 and "inside the mask" in result.note


def test_a_reference_on_another_grid_is_resampled_and_this_is_said():
    affine = AFFINE.copy()
    affine[:3, 3] = 2.0  # one voxel further
    moved = Volume(np.roll(ct().array, -1, (0, 1, 2)), affine, "CT", "HU")
    result = compare(ct(), moved)
    assert "resampled" in result.note
    assert result.value("MAE") == pytest.approx(0, abs=1e-3)


def test_without_overlap_there_is_one_sentence():
    affine = AFFINE.copy()
    affine[0, 3] = 500.0
    with pytest.raises(InputError, match="do not overlap"):
        compare(ct(), ct(affine=affine))


def test_an_empty_mask_and_voxels_that_are_no_numbers_are_refused():
    with pytest.raises(InputError, match="mask is empty"):
        compare(ct(), ct(), LabelMap(np.zeros(ct().shape, np.uint8), AFFINE))
    broken = ct().array.copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="The reference holds 1 voxels that are NaN"):
        compare(ct(), ct().with_array(broken))


def test_ct_against_mr_is_measured_with_a_warning():
    mr = Volume(ct().array + 1000, AFFINE, "T1w", "a.u.")
    assert "mean little" in compare(ct(), mr).note


def test_the_spread_is_the_standard_deviation():
    samples = [ct(shift=s, noise=n) for s, n in ((0.0, 3.0), (5.0, 7.0), (-9.0, 1.0))]
    result = spread(samples)
    expected = np.std([v.array for v in samples], axis=0, ddof=1)
    np.testing.assert_allclose(result.array, expected, atol=1e-3)
    assert result.unit == "HU" and result.geometry.is_close(samples[0].geometry)


def test_a_spread_needs_two_samples_on_one_grid():
    with pytest.raises(InputError, match="at least two"):
        spread([ct()])
    with pytest.raises(InputError, match="different grids"):
        spread([ct(), ct(affine=np.eye(4))])
