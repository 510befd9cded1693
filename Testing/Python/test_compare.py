"""An image against a reference: figures, sentences, other grids, and the spread of samples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from MedGenLib.errors import Cancelled, InputError
from MedGenLib.quality import metrics
from MedGenLib.quality.compare import compare, spread
from MedGenLib.volume import LabelMap, Volume, crop

NAMES = ["MAE", "RMSE", "PSNR", "SSIM", "Pearson"]


def phantom(shape=(40, 36, 30), spacing=2.0, modality="CT") -> Volume:
    """A warm cylinder with texture in air."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    inside = np.repeat((np.hypot(x, y) < 0.8)[..., None], shape[2], axis=2)
    texture = np.random.default_rng(3).normal(40, 30, shape)
    array = np.where(inside, texture, -1000 if modality == "CT" else 0).astype(np.float32)
    unit = "HU" if modality == "CT" else "a.u."
    return Volume(array, np.diag([spacing] * 3 + [1.0]), modality, unit)


def noisy(volume: Volume, sd: float = 20.0) -> Volume:
    noise = np.random.default_rng(4).normal(0, sd, volume.shape)
    return volume.with_array((volume.array + noise).astype(np.float32))


def test_the_rows_are_the_library_s_measures_inside_the_mask():
    reference, image = phantom(), noisy(phantom())
    mask = LabelMap(reference.array > -500, reference.affine)
    result = compare(image, reference, mask)
    inside = mask.array > 0
    assert [row.name for row in result.rows] == NAMES
    assert result.value("MAE") == pytest.approx(
        metrics.mae(reference.array, image.array, inside)
    )
    assert result.value("SSIM") == pytest.approx(
        metrics.ssim(reference.array, image.array, inside)
    )
    assert result.value("PSNR") == pytest.approx(
        metrics.psnr(reference.array, image.array, inside)
    )
    assert "mean absolute error is 1" in result.rows[0].sentence
    assert result.rows[0].unit == "HU" and "inside the mask" in result.note
    assert json.loads(json.dumps(result.to_dict()))["rows"][0]["name"] == "MAE"


def test_without_a_mask_the_air_around_the_body_does_not_count():
    reference, image = phantom(), noisy(phantom())
    array = image.array.copy()
    array[0, 0] = 3000.0  # in a corner, far from the body
    spoilt = image.with_array(array)
    assert compare(spoilt, reference).value("MAE") == compare(image, reference).value("MAE")
    assert "inside the body" in compare(image, reference).note


def test_another_grid_is_resampled_and_told():
    reference = phantom()
    moved = crop(reference, (4, 4, 4), (36, 32, 26))
    result = compare(moved, reference)
    assert "resampled" in result.note and result.value("MAE") == pytest.approx(0, abs=1e-3)
    assert "resampled" not in compare(reference, reference).note


def test_what_the_reference_does_not_cover_does_not_count():
    whole, part = phantom(), crop(phantom(), (0, 0, 0), (40, 36, 15))
    mask = LabelMap(whole.array > -500, whole.affine)
    result = compare(whole, part, mask)
    assert "covers 50% of it" in result.note
    assert result.value("MAE") == pytest.approx(0, abs=1e-3)


def test_images_that_do_not_overlap_are_refused():
    far = phantom().affine.copy()
    far[:3, 3] += 5000
    with pytest.raises(InputError, match="do not overlap"):
        compare(phantom(), Volume(phantom().array, far, "CT", "HU"))
    empty = LabelMap(np.zeros(phantom().shape, np.uint8), phantom().affine)
    with pytest.raises(InputError, match="mask is empty"):
        compare(phantom(), phantom(), empty)


def test_mr_is_measured_in_the_reference_s_own_range():
    reference = phantom(modality="T1w")
    scaled = reference.with_array(reference.array * 10)
    other = noisy(reference, 5)
    result = compare(other, reference)
    assert "range of" in result.note and result.rows[0].unit == "a.u."
    ten = compare(other.with_array(other.array * 10), scaled)
    assert ten.value("PSNR") == pytest.approx(result.value("PSNR"), abs=0.1)


def test_different_modalities_are_told():
    result = compare(phantom(modality="T1w"), phantom())
    assert "T1w and the reference CT" in result.note


def test_what_is_not_defined_has_no_value_and_a_sentence():
    same = compare(phantom(), phantom())
    assert same.value("PSNR") is None and same.value("MAE") == 0
    assert "not defined" in {row.name: row for row in same.rows}["PSNR"].sentence
    thin = crop(phantom(), (0, 0, 0), (40, 36, 4))
    rows = {row.name: row for row in compare(noisy(thin), thin).rows}
    assert rows["SSIM"].value is None and "cannot be given" in rows["SSIM"].sentence
    assert rows["MAE"].value > 0


def test_voxels_that_are_no_number_are_refused():
    array = phantom().array.copy()
    array[3, 3, 3] = np.nan
    holed = phantom().with_array(array)
    for pair in ((holed, phantom()), (phantom(), holed)):
        with pytest.raises(InputError, match="NaN"):
            compare(*pair)


def test_progress_can_stop_it():
    def stop(progress):
        if progress.step == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        compare(phantom(), phantom(), progress=stop)


def test_the_spread_is_the_standard_deviation_of_the_samples():
    samples = [noisy(phantom(), sd) for sd in (1, 10, 50)]
    samples = [s.with_array(np.round(s.array).astype(np.int16)) for s in samples]
    result = spread(samples)
    expected = np.stack([s.array for s in samples]).astype(float).std(axis=0, ddof=1)
    assert np.allclose(result.array, expected, atol=1e-3) and result.array.dtype == np.float32
    assert np.array_equal(result.affine, samples[0].affine) and result.unit == "HU"


def test_the_spread_of_what_does_not_belong_together_is_refused():
    with pytest.raises(InputError, match="at least two"):
        spread([phantom()])
    with pytest.raises(InputError, match="different grids"):
        spread([phantom(), phantom(spacing=1.0)])
