"""Comparison with a reference: measures, sentences, labels and other grids."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.metrics import image as metrics
from MedGenLib.metrics.compare import compare, require_same_grid

NAMES = ["MAE", "RMSE", "Bias", "PSNR", "SSIM", "MS-SSIM", "NCC"]
OF_LABELS = ["Voxels", "MAE", "RMSE", "Bias", "Mean", "Reference mean"]


def phantom(shape=(40, 36, 30), spacing=2.0, modality="CT") -> Volume:
    """A textured cylinder in air."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    inside = np.repeat((np.hypot(x, y) < 0.8)[..., None], shape[2], axis=2)
    texture = np.random.default_rng(3).normal(40, 30, shape)
    array = np.where(inside, texture, -1000 if modality == "CT" else 0).astype(np.float32)
    unit = "HU" if modality == "CT" else "a.u."
    return Volume(array, np.diag([spacing] * 3 + [1.0]), modality, unit)


def noisy(volume: Volume, sd: float = 20.0) -> Volume:
    noise = np.random.default_rng(4).normal(0, sd, volume.shape)
    return volume.with_array((volume.array + noise).astype(np.float32))


def test_rows_equal_the_image_measures_inside_the_mask():
    reference, image = phantom(), noisy(phantom())
    mask = LabelMap(reference.array > -500, reference.affine)
    result = compare(image, reference, mask)
    inside = mask.array > 0
    assert [row.name for row in result.rows] == NAMES
    pair = reference.array, image.array
    scales = metrics.ms_ssim(*pair, inside)
    expected = {
        "MAE": metrics.mae(*pair, inside),
        "RMSE": metrics.rmse(*pair, inside),
        "Bias": metrics.bias(*pair, inside),
        "PSNR": metrics.psnr(*pair, inside, 4024),
        "SSIM": scales.ssim,
        "MS-SSIM": scales.value,
        "NCC": metrics.pearson(*pair, inside),
    }
    assert {row.name: row.value for row in result.rows} == pytest.approx(expected, rel=1e-5)
    assert "mean absolute error is 1" in result.rows[0].sentence
    assert f"{scales.levels} scales, weights 0.0711, 0.453, 0.476" in result.note
    assert result.rows[0].unit == "HU" and "inside the mask" in result.note
    assert json.loads(json.dumps(result.to_dict()))["rows"][0]["name"] == "MAE"


def test_a_ct_is_clipped_for_psnr_but_not_for_its_errors():
    reference = phantom()
    mask = LabelMap(reference.array > -500, reference.affine)
    metal = reference.array.copy()
    metal[20, 18, 10:20] = 3000
    bright = metal.copy()
    bright[20, 18, 10:20] = 9000
    result = compare(reference.with_array(bright), reference.with_array(metal), mask)
    assert result.value("PSNR") is None and "both images are equal" in next(
        row.sentence for row in result.rows if row.name == "PSNR"
    )
    assert result.value("MAE") == pytest.approx(6000 * 10 / mask.array.sum(), rel=1e-5)
    assert result.value("SSIM") == pytest.approx(1)


def test_the_difference_is_image_less_reference_and_0_outside():
    reference = phantom()
    image = reference.with_array(reference.array + 25)
    mask = LabelMap(reference.array > -500, reference.affine)
    result = compare(image, reference, mask)
    assert np.allclose(result.difference.array[result.region], 25)
    assert not result.difference.array[~result.region].any()
    assert result.difference.array.dtype == np.float32 and result.difference.unit == "HU"
    assert np.array_equal(result.region, mask.array > 0)
    assert np.array_equal(result.difference.affine, image.affine)
    assert np.array_equal(result.reference.array, reference.array)


def test_the_difference_of_whole_numbers_does_not_wrap():
    reference = phantom().with_array(np.round(phantom().array).astype(np.int16))
    image = reference.with_array((reference.array.astype(int) * 20).clip(-32000, 32000))
    image = image.with_array(image.array.astype(np.int16))
    mask = LabelMap(np.ones(image.shape, np.uint8), image.affine)
    result = compare(image, reference, mask)
    expected = image.array.astype(float) - reference.array
    assert np.array_equal(result.difference.array, expected)
    assert result.value("Bias") == pytest.approx(expected.mean())


def halves(volume: Volume, names=None) -> LabelMap:
    """The left (2) and the right (5) half of the body."""
    array = np.where(volume.array > -500, 2, 0)
    array[20:] = np.where(array[20:], 5, 0)
    return LabelMap(array, volume.affine, {2: "left", 5: "right"} if names is None else names)


def test_an_mr_image_on_another_scale_is_noted():
    reference = phantom(modality="T1w")
    darker = reference.with_array(reference.array * 0.5)
    assert "MR has no common scale" in compare(darker, reference).note
    assert "scale," not in compare(noisy(reference), reference).note
    assert "scale," not in compare(reference, reference).note
    ct = phantom()
    assert "scale," not in compare(ct.with_array(ct.array + 100), ct).note


def test_a_ct_without_air_is_noted_unless_its_file_states_ct():
    ct = phantom()
    ct.array[:, :, :15] -= 140  # fat
    shifted = ct.array + 1024
    note = compare(ct, Volume(shifted, ct.affine)).note
    assert "The reference has no value below -200 HU" in note and "The image has" not in note
    assert "no value below" not in compare(ct, Volume(ct.array, ct.affine)).note
    named = Volume(shifted, ct.affine, "CT")
    assert "no value below" not in compare(Volume(ct.array, ct.affine), named).note


def test_each_label_is_measured_separately():
    reference = phantom()
    array = reference.array + np.where(np.arange(40) < 20, 10, -30)[:, None, None]
    result = compare(reference.with_array(array), reference, labels=halves(reference))
    assert [row.name for row in result.rows if row.label == "left"] == OF_LABELS
    for label, offset in (("left", 10), ("right", -30)):
        assert result.value("Bias", label) == pytest.approx(offset, rel=1e-4)
        assert result.value("MAE", label) == pytest.approx(abs(offset), rel=1e-4)
        assert result.value("RMSE", label) == pytest.approx(abs(offset), rel=1e-4)
        means = result.value("Mean", label), result.value("Reference mean", label)
        assert means[0] - means[1] == pytest.approx(offset, rel=1e-3)
    inside = result.region & (halves(reference).array == 5)
    assert result.value("Voxels", "right") == inside.sum()
    assert result.value("Reference mean", "right") == pytest.approx(reference.array[inside].mean(), rel=1e-5)
    assert result.value("Bias") == pytest.approx(-10, abs=1)


def test_labels_without_voxels_have_no_value_and_a_sentence():
    reference = phantom()
    labels = halves(reference, {2: "left", 9: "spleen"})
    mask = LabelMap(labels.array == 2, labels.affine)
    rows = compare(noisy(reference), reference, mask, labels).rows
    assert [row.label for row in rows if row.name == "Voxels"] == ["left", "label 5", "spleen"]
    absent = [row for row in rows if row.label in ("label 5", "spleen")]
    assert {row.value for row in absent if row.name != "Voxels"} == {None}
    assert "spleen: mean absolute error cannot be given: the label has no voxels" in absent[7].sentence


def test_without_a_mask_the_air_around_the_body_does_not_count():
    reference, image = phantom(), noisy(phantom())
    array = image.array.copy()
    array[0, 0] = 3000.0  # in a corner, far from the body
    spoilt = image.with_array(array)
    assert compare(spoilt, reference).value("MAE") == compare(image, reference).value("MAE")
    assert "inside the body" in compare(image, reference).note


def half_a_voxel_away(volume: Volume) -> Volume:
    """On another lattice."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] / 2
    return Volume(volume.array, affine, "CT", "HU")


def test_another_grid_is_resampled_and_noted():
    reference = phantom()
    moved = crop(reference, (4, 4, 4), (36, 32, 26))
    result = compare(moved, reference, resample=True)
    assert "resampled" in result.note and result.value("MAE") == pytest.approx(0, abs=1e-3)
    moved = half_a_voxel_away(moved)
    assert "resampled" not in compare(reference, reference, resample=True).note
    masks = [LabelMap(reference.array > -500, reference.affine), halves(reference)]
    result = compare(moved, moved, *masks, resample=True)
    assert "The mask was resampled" in result.note and "The label volume was" in result.note


def test_another_grid_is_refused_naming_both():
    reference = phantom()
    moved = crop(reference, (4, 4, 4), (36, 32, 26))
    both = r"40 x 36 x 30 voxels of 2 x 2 x 2 mm.*32 x 28 x 22 voxels of 2 x 2 x 2 mm"
    with pytest.raises(InputError, match=f"The image has {both}.*--resample"):
        compare(reference, moved)
    moved = half_a_voxel_away(moved)
    with pytest.raises(InputError, match=f"The image has {both}"):
        compare(reference, reference, LabelMap(moved.array > -500, moved.affine))
    with pytest.raises(InputError, match="label volume 32 x 28"):
        compare(reference, reference, labels=LabelMap(moved.array > -500, moved.affine))


def test_grids_that_differ_in_origin_only_are_described():
    shifted = phantom().affine.copy()
    shifted[0, 3] = 0.5
    other = Volume(phantom().array, shifted, "CT", "HU")
    with pytest.raises(InputError, match=r"RAS, the first at 0.00, 0.00, 0.00 mm.*at 0.50, 0.00"):
        require_same_grid(("image", phantom()), ("reference", other))
    require_same_grid(("image", phantom()), ("reference", phantom()))


def test_voxels_without_reference_do_not_count():
    whole, part = phantom(), crop(phantom(), (0, 0, 0), (40, 36, 15))
    mask = LabelMap(whole.array > -500, whole.affine)
    result = compare(whole, part, mask, resample=True)
    assert "covers 50 % of it" in result.note
    assert result.value("MAE") == pytest.approx(0, abs=1e-3)
    upper = LabelMap(mask.array * (np.arange(30) > 20), whole.affine)
    with pytest.raises(InputError, match="does not reach into the mask"):
        compare(whole, part, upper, resample=True)


def test_images_that_do_not_overlap_are_refused():
    far = phantom().affine.copy()
    far[:3, 3] += 5000
    for resample in (False, True):
        with pytest.raises(InputError, match="do not overlap"):
            compare(phantom(), Volume(phantom().array, far, "CT", "HU"), resample=resample)
    with pytest.raises(InputError, match="label volume is empty where the image lies"):
        compare(phantom(), phantom(), labels=LabelMap(halves(phantom()).array, far), resample=True)


def test_empty_masks_are_refused():
    empty = LabelMap(np.zeros(phantom().shape, np.uint8), phantom().affine)
    with pytest.raises(InputError, match="The mask is empty"):
        compare(phantom(), phantom(), empty)
    with pytest.raises(InputError, match="The label volume is empty"):
        compare(phantom(), phantom(), labels=empty)
    air = phantom().with_array(np.full(phantom().shape, -1000.0))
    with pytest.raises(InputError, match="shows no body"):
        compare(phantom(), air)


def test_mr_is_measured_in_the_range_of_the_reference():
    reference = phantom(modality="T1w")
    scaled = reference.with_array(reference.array * 10)
    other = noisy(reference, 5)
    result = compare(other, reference)
    assert "range of" in result.note and result.rows[0].unit == "a.u."
    ten = compare(other.with_array(other.array * 10), scaled)
    assert ten.value("PSNR") == pytest.approx(result.value("PSNR"), abs=0.1)


def test_mr_against_ct_is_refused():
    with pytest.raises(InputError, match="image is T1w and the reference CT"):
        compare(phantom(modality="T1w"), phantom())
    unknown = Volume(anatomy().array + 1000, anatomy().affine)
    with pytest.raises(InputError, match="image is CT and the reference T1w"):
        compare(anatomy(), unknown.with_array(unknown.array, "T1w"))
    with pytest.raises(InputError, match="image is MR and the reference CT"):
        compare(scan(), anatomy())


def anatomy() -> Volume:
    """Values typical of CT: air, lung, fat, soft tissue and bone; no modality."""
    generator = np.random.default_rng(2)
    tissues, shares = [-100, 40, 50, 60, 700], [0.2, 0.3, 0.3, 0.15, 0.05]
    array = generator.choice(tissues, phantom().shape, p=shares)
    array = np.where(phantom().array > -500, array + generator.normal(0, 10, array.shape), -1000)
    return Volume(array.astype(np.float32), phantom().affine)


def scan() -> Volume:
    """Values typical of MR; no modality."""
    body = np.random.default_rng(5).uniform(200, 900, phantom().shape)
    return Volume(np.where(phantom().array > -500, body, 3).astype(np.float32), phantom().affine)


def test_a_ct_without_modality_is_detected_by_its_values():
    image = noisy(anatomy())
    result = compare(image, anatomy())
    assert result.rows[0].unit == "HU" and "Taken as CT" in result.note
    named = [volume.with_array(volume.array, "CT", "HU") for volume in (image, anatomy())]
    assert result.rows == compare(*named).rows
    assert "Taken as CT" not in compare(*named).note


def test_what_values_without_a_modality_are_taken_for_is_stated():
    hu = anatomy().array.clip(-1000, 1000)
    scaled, eight = (Volume(array, phantom().affine) for array in ((hu + 1000) / 3000, np.rint((hu + 1000) / 8)))
    assert "do not show whether" in compare(scaled, scaled).note
    assert "Taken as MR in arbitrary units." in compare(eight, eight).note
    assert "Taken as" not in compare(replace(eight, modality="MR"), replace(eight, modality="MR")).note


def test_a_poor_ct_is_not_taken_for_an_mr_image():
    array = np.random.default_rng(6).uniform(-1000, 3000, phantom().shape)
    assert compare(Volume(array, phantom().affine), phantom()).rows[0].unit == "HU"


def test_different_mr_contrasts_are_compared_with_a_note():
    other = scan().with_array(scan().array, "T2w")
    result = compare(scan().with_array(scan().array, "T1w"), other)
    assert "T1w and the reference T2w" in result.note and result.rows[0].unit == "a.u."


def test_undefined_measures_have_no_value_and_a_sentence():
    same = compare(phantom(), phantom())
    assert same.value("PSNR") is None and same.value("MAE") == 0
    assert "no limit: both images are equal" in {r.name: r for r in same.rows}["PSNR"].sentence
    thin = crop(phantom(), (0, 0, 0), (40, 36, 4))
    rows = {row.name: row for row in compare(noisy(thin), thin).rows}
    for name in ("SSIM", "MS-SSIM"):
        assert rows[name].value is None and "cannot be given" in rows[name].sentence
    assert rows["MAE"].value > 0


def test_a_constant_image_is_noted():
    reference = phantom()
    flat = reference.with_array(np.full(reference.shape, 40.0, np.float32))
    result = compare(flat, reference)
    assert "The image is constant there (40): it has no structure." in result.note
    assert result.value("NCC") is None and result.value("MAE") > 0
    assert "not defined" in result.rows[-1].sentence


def test_voxels_that_are_not_finite_are_refused():
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
