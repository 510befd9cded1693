"""Input and output checks, on synthetic bodies made of plain arrays."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from MedGenLib.checks.input import check_image, check_mask
from MedGenLib.checks.output import check_generated, check_translated
from MedGenLib.imaging.modality import guess_modality
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.labels.tissues import resegment
from MedGenLib.labels.vocabulary import Label
from MedGenLib.packages.manifest import FieldOfView, InputSpec, OutputSpec, SpacingRange
from MedGenLib.packages.sections import Statistics
from MedGenLib.packages.settings import GenerationSettings
from MedGenLib.packages.typed import read

TISSUES = {1: "fat", 2: "soft tissue", 3: "bone", 4: "lung or gas"}
HU = {0: -1000, 1: -100, 2: 45, 3: 500, 4: -800}
SHAPE = (32, 30, 28)


def affine(*spacing):
    return np.diag([*spacing, 1.0])


def model(task="mask", **changes):
    """As much of a manifest as the checks read."""
    if task == "mask":
        given = InputSpec("labels", {v: Label(v, name) for v, name in TISSUES.items()}, None)
    else:
        given = InputSpec("image", {}, task)
    fields = {
        "name": "toy",
        "input": given,
        "output": OutputSpec("CT", "HU", (-1024, 2000), -1000),
        "spacing": SpacingRange(1.5, 3.0, 2.0),
        "field_of_view": FieldOfView((30, 30, 30), (400, 400, 1000)),
        "settings": GenerationSettings(name="toy"),
        "needs_head": False,
        "statistics": {
            "tissues": {
                "1": {"name": "fat", "mean": -100, "sd": 20, "low": -125, "high": -75},
                "2": {"name": "soft tissue", "mean": 45, "sd": 20, "low": 20, "high": 70},
                "4": {"name": "lung or gas", "mean": -800, "sd": 50, "low": -900, "high": -650},
            },
            "resegment": {
                "thresholds": [-250, -30, 180],
                "labels": [4, 1, 2, 3],
                "median": 3,
                "minimum_dice": {"1": 0.7, "2": 0.8, "4": 0.8},
            },
            "background": {"low": -1000, "high": -990},
        },
    }
    fields |= changes
    return SimpleNamespace(**fields | {"statistics": read(Statistics, fields["statistics"], "statistics")})


@pytest.fixture
def mask():
    """An ellipsoid of fat round soft tissue, with bone and a lung inside."""
    grid = np.indices(SHAPE) / np.reshape(SHAPE, (3, 1, 1, 1)) - 0.5
    radius = np.sqrt((grid**2).sum(0))
    labels = np.select([radius < 0.38, radius < 0.46], [2, 1], 0)
    labels[8:14, 9:20, 8:18] = 4
    labels[20:24, 12:17, 6:22] = 3
    return LabelMap(labels, affine(2, 2, 2), TISSUES)


@pytest.fixture
def ct(mask):
    noise = np.random.default_rng(0).normal(0, 12, SHAPE)
    values = np.vectorize(HU.get)(mask.array) + noise * (mask.array > 0)
    return Volume(values.astype(np.float32), mask.affine, "CT", "HU")


def mr_like(mask, scale=1.0, offset=0.0):
    brightness = np.array([3, 160, 90, 20, 5])[mask.array]
    noise = np.random.default_rng(1).normal(0, 4, SHAPE)
    values = ndimage.gaussian_filter(np.abs(brightness + noise), 0.5)
    return Volume((values * scale + offset).astype(np.float32), mask.affine)


def codes(findings):
    return {finding.code for finding in findings}


def assert_readable(findings):
    """Each sentence says what a reader can do, and no index against a limit."""
    for finding in findings:
        what, _, advice = finding.sentence.partition("; ")
        assert any(verb in advice for verb in ("do not", "compare", "make the image again")), finding.sentence
        assert not any(word in what for word in ("index", "limit", "Dice", "expected")), finding.sentence


class TestGuessModality:
    def test_ct(self, ct):
        assert guess_modality(ct) == "CT"

    def test_ct_of_a_masked_body_with_padding(self, ct):
        padded = np.where(ct.array <= -999, -1500, ct.array)
        assert guess_modality(ct.with_array(padded)) == "CT"

    def test_ct_of_one_slice(self, ct):
        assert guess_modality(Volume(ct.array[:, :, 14:15], ct.affine)) == "CT"

    def test_ct_without_air(self, ct):
        assert guess_modality(Volume(ct.array[5:27, 5:25, 19:21], ct.affine)) == "CT"

    @pytest.mark.parametrize("scale", [1, 4, 40])
    def test_mr(self, mask, scale):
        assert guess_modality(mr_like(mask, scale)) == "MR"

    def test_mr_that_was_shifted_below_zero(self, mask):
        scaled = mr_like(mask, 12, -1000)
        assert scaled.array.min() < -900
        assert guess_modality(scaled) == "MR"

    def test_ct_without_its_offset_is_not_called_mr(self, ct):
        assert guess_modality(ct.with_array(ct.array + 1024)) is None

    def test_label_maps_and_unit_scales_cannot_tell(self, mask):
        assert guess_modality(Volume(mask.array, mask.affine)) is None
        assert guess_modality(mr_like(mask, 1 / 255)) is None

    def test_ignores_what_the_volume_states(self, ct):
        assert guess_modality(ct.with_array(ct.array, "T1w")) == "CT"


class TestMask:
    def test_a_fitting_mask_has_no_findings(self, mask):
        assert check_mask(mask, model()) == []

    def test_empty(self, mask):
        (finding,) = check_mask(mask.with_array(np.zeros(SHAPE, int)), model())
        assert (finding.level, finding.code) == ("error", "empty-mask")

    def test_unknown_labels_are_named_with_a_way_out(self, mask):
        labels = mask.array.copy()
        labels[0, 0, :3] = [7, 9, 9]
        strange = mask.with_array(labels, {**TISSUES, 7: "stent"})
        (finding,) = [f for f in check_mask(strange, model()) if f.level == "error"]
        assert "7 (stent), 9" in finding.sentence and "--map 7=1" in finding.sentence

    def test_absent_labels_are_a_warning(self, mask):
        (finding,) = check_mask(mask.with_array(np.where(mask.array == 4, 2, mask.array)), model())
        assert (finding.level, finding.code) == ("warning", "absent-labels")
        assert "lung or gas (4)" in finding.sentence

    @pytest.mark.parametrize("spacing", [(2, 2, 5), (0.5, 2, 2)])
    def test_spacing_outside_of_the_range(self, mask, spacing):
        findings = check_mask(LabelMap(mask.array, affine(*spacing)), model())
        assert "spacing" in codes(findings)
        assert all(finding.level == "warning" for finding in findings)
        assert "1.5 to 3 mm" in findings[0].sentence

    def test_spacing_stored_in_single_precision_is_no_finding(self, mask):
        spacing = float(np.float32(3.0)) * (1 + 1e-7)
        stored = LabelMap(mask.array, affine(spacing, spacing, spacing))
        assert "spacing" not in codes(check_mask(stored, model()))

    def test_field_of_view_is_compared_by_anatomical_axis(self, mask):
        tall = model(field_of_view=FieldOfView((30, 30, 100), (400, 400, 1000)))
        (finding,) = check_mask(mask, tall)
        assert finding.code == "small-field-of-view" and "head-foot 56 mm" in finding.sentence
        # The same mask stored with its first axis towards the feet.
        turned = np.zeros((4, 4))
        turned[2, 0], turned[0, 1], turned[1, 2], turned[3, 3] = -2, 2, 2, 1
        stored = LabelMap(mask.array.transpose(2, 0, 1)[::-1], turned)
        assert check_mask(stored, tall) == [finding]

    def test_large_field_of_view(self, mask):
        (finding,) = check_mask(mask, model(field_of_view=FieldOfView((0, 0, 0), (400, 50, 400))))
        assert finding.code == "large-field-of-view" and "front-back 60 mm" in finding.sentence

    def test_a_lone_slice_has_no_field_of_view_across(self, mask):
        lone = LabelMap(mask.array[:, :, 14:15], affine(2, 2, 10))
        assert codes(check_mask(lone, model())) == set()


class TestImage:
    def test_a_fitting_image_has_no_findings(self, mask, ct):
        assert check_image(ct, model("CT")) == []
        assert check_image(mr_like(mask), model("T1w")) == []

    def test_mr_given_to_a_ct_model_is_an_error(self, mask):
        for modality in (None, "MR", "T1w"):
            image = mr_like(mask)
            image = image.with_array(image.array, modality)
            (finding,) = check_image(image, model("CT"))
            assert (finding.level, finding.code) == ("error", "wrong-modality")
            assert "CT in HU" in finding.sentence

    def test_ct_given_to_an_mr_model_is_an_error(self, ct):
        unstated = Volume(ct.array, ct.affine)
        for image in (ct, unstated):
            assert [f.level for f in check_image(image, model("T1w"))] == ["error"]

    def test_a_mask_is_no_image_unless_it_is_stated_to_be_one(self, mask):
        for needed in ("CT", "T1w"):
            (finding,) = check_image(Volume(mask.array, mask.affine), model(needed))
            assert (finding.level, finding.code) == ("error", "mask") and "looks like a mask" in finding.sentence
        stated = check_image(Volume(mask.array, mask.affine, "T1w"), model("T1w"))
        assert "mask" not in [finding.code for finding in stated]

    def test_a_stated_modality_outweighs_the_values(self, mask):
        image = mr_like(mask)
        (finding,) = check_image(image.with_array(image.array, "CT"), model("CT"))
        assert (finding.level, finding.code) == ("warning", "doubtful-modality")

    def test_unclear_values_are_a_warning(self, mask):
        (finding,) = check_image(mr_like(mask, 1 / 255), model("T1w"))
        assert (finding.level, finding.code) == ("warning", "unknown-modality")

    def test_another_contrast_is_an_error(self, mask):
        image = mr_like(mask)
        (finding,) = check_image(image.with_array(image.array, "T2w"), model("T1w"))
        assert (finding.level, finding.code) == ("error", "other-contrast")
        assert "T2w" in finding.sentence and "--modality MR" in finding.sentence
        assert check_image(image.with_array(image.array, "MR"), model("T1w")) == []

    def test_a_constant_image_is_an_error(self, ct):
        (finding,) = check_image(ct.with_array(np.full(SHAPE, 7.0)), model("CT"))
        assert finding.level == "error" and "is 7" in finding.sentence


class TestGenerated:
    def test_a_good_volume_passes_with_figures(self, ct, mask):
        check = check_generated(ct, mask, model(), seams=[(0, 16)])
        assert check.passed and check.findings == []
        assert check.figures["mean"]["fat"] == pytest.approx(-100, abs=2)
        assert check.figures["dice"]["lung or gas"] > 0.9
        assert check.figures["background"] == -1000
        assert check.figures["stripe"] < 1.08

    def test_resegment_follows_the_thresholds(self):
        spec = replace(model().statistics.resegment, median=1)
        values = np.array([-900.0, -100, 50, 700])[:, None, None] * np.ones((1, 1, 1))
        labels = resegment(values, spec)
        assert labels.ravel().tolist() == [4, 1, 2, 3]

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (lambda a, m: np.where(m == 2, a + 60, a), "tissue-mean"),
            (lambda a, m: np.roll(a, 5, axis=0), "mask-fidelity"),
            (lambda a, m: np.where(m == 0, -900, a), "background"),
            (lambda a, m: np.where(m == 3, 5000, a), "range"),
            (lambda a, m: np.where(m == 3, np.nan, a), "not-finite"),
            (lambda a, m: a + 12 * (np.indices(a.shape)[2] // 2 % 2) * (m == 2), "stripe"),
        ],
    )
    def test_a_fault_is_named(self, ct, mask, change, code):
        faulty = ct.with_array(change(ct.array, mask.array))
        check = check_generated(faulty, mask, model())
        assert not check.passed and code in codes(check.findings)
        assert all(finding.level == "error" for finding in check.findings)
        assert_readable(check.findings)

    def test_a_seam_is_found_where_windows_meet(self, mask):
        flat = LabelMap(np.full((48, 48, 48), 2), mask.affine)
        noise = np.random.default_rng(2).normal(45, 5, flat.shape)
        noise[24:] += 10
        volume = Volume(noise, mask.affine, "CT", "HU")
        found = check_generated(volume, flat, model(), [(0, 24)]).findings
        assert "seam" in codes(found)
        assert_readable(found)
        assert "seam" not in codes(check_generated(volume, flat, model(), [(0, 12)]).findings)

    def test_interpolation_is_not_taken_for_a_grid(self, ct, mask):
        from MedGenLib.imaging.resampling import resample, resample_to

        coarse = resample_to(resample(ct, (2.9, 2.9, 2.9)), ct.geometry)
        assert not check_generated(coarse, mask, model(statistics={})).passed
        elsewhere = model(statistics={}, spacing=SpacingRange(1.5, 3.0, 2.9))
        check = check_generated(coarse, mask, elsewhere, [(0, 16)])
        assert check.passed and not {"stripe", "seam"} & set(check.figures)

    def test_checks_without_limits_are_left_out(self, ct, mask):
        check = check_generated(ct, mask, model(statistics={}))
        assert check.passed and "dice" not in check.figures
        unlimited = {"tissues": {"1": {"name": "fat", "mean": 0, "sd": 1}}}
        check = check_generated(ct, mask, model(statistics=unlimited))
        assert check.passed and list(check.figures["mean"]) == ["fat"]

    def test_specks_of_a_tissue_are_not_judged(self, ct, mask):
        labels = np.where(mask.array == 4, 2, mask.array)
        labels[15, 15, 15] = 4
        image = np.where(mask.array == 4, 45.0, ct.array)
        check = check_generated(ct.with_array(image), mask.with_array(labels), model())
        assert check.passed and "lung or gas" not in check.figures["mean"]


class TestTranslated:
    def test_a_good_translation_passes(self, ct, mask):
        check = check_translated(ct, mr_like(mask), model("T1w"))
        assert check.passed, check.findings
        assert check.figures["body_dice"] > 0.9
        assert "soft tissue" in check.figures["mean"]

    def test_a_shifted_translation_fails(self, ct, mask):
        shifted = ct.with_array(np.roll(ct.array, 12, axis=1))
        found = check_translated(shifted, mr_like(mask), model("T1w")).findings
        assert "body" in codes(found)
        assert_readable(found)

    def test_an_empty_translation_fails(self, ct, mask):
        air = ct.with_array(np.full(SHAPE, -1000.0))
        assert "body" in codes(check_translated(air, mr_like(mask), model("T1w")).findings)

    def test_tissues_can_be_found_in_the_source(self, ct, mask):
        statistics = {
            "tissues": {"2": {"name": "soft tissue", "low": 80, "high": 100}},
            "resegment": {"thresholds": [-250, -30, 180], "labels": [4, 1, 2, 3], "median": 3, "image": "source"},
        }
        manifest = model("CT", statistics=statistics, output=OutputSpec("T1w", "a.u.", (0, 300), 0))
        image = mr_like(mask)
        check = check_translated(image.with_array(image.array, "T1w"), ct, manifest)
        assert check.passed, check.findings
        assert check.figures["mean"]["soft tissue"] == pytest.approx(90, abs=8)
