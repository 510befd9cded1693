"""Uncertainty from samples and views, and its agreement with the error."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from scipy import stats
from workers import temporary_environment

from MedGenLib import generate, translate
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.metrics import uncertainty as module
from MedGenLib.metrics.compare import Comparison, compare
from MedGenLib.metrics.uncertainty import error_correlation, spread
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.rules import METADATA
from MedGenLib.pipelines import slice_sampling

SHAPE = (24, 22, 20)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def volume(array) -> Volume:
    return Volume(np.asarray(array, np.float32), AFFINE, "CT", "HU")


@pytest.fixture
def generator():
    return np.random.default_rng(7)


@pytest.fixture
def sigma(generator):
    """A standard deviation that differs from voxel to voxel."""
    return generator.uniform(5, 60, SHAPE)


def compared(error) -> Comparison:
    """A comparison in the whole grid with that error."""
    reference = volume(np.linspace(-500, 500, np.prod(SHAPE)).reshape(SHAPE))
    whole = LabelMap(np.ones(SHAPE, np.uint8), AFFINE)
    return compare(volume(reference.array + error), reference, whole)


class TestStandardDeviation:
    def test_is_the_standard_deviation_of_the_samples(self, generator):
        arrays = [np.round(generator.normal(0, sd, SHAPE)) for sd in (1, 10, 50)]
        samples = [volume(a).with_array(a.astype(np.int16)) for a in arrays]
        result = spread(samples)
        expected = np.std(arrays, axis=0, ddof=1)
        assert np.allclose(result.array, expected, atol=1e-3)
        assert result.array.dtype == np.float32 and result.unit == "HU"
        assert np.array_equal(result.affine, AFFINE)

    def test_refuses_samples_that_do_not_match(self, sigma):
        with pytest.raises(InputError, match="at least two"):
            spread([volume(sigma)])
        with pytest.raises(InputError, match="different grids"):
            spread([volume(sigma), Volume(sigma, np.eye(4))])


class TestErrorCorrelation:
    def test_of_a_calibrated_uncertainty(self, sigma, generator):
        """Errors drawn with the standard deviation of the uncertainty."""
        result = error_correlation(volume(sigma), compared(generator.normal(0, sigma)))
        assert result.value("Ratio") == pytest.approx(1, abs=0.03)
        assert 0.4 < result.value("Spearman") < 0.7
        assert result.value("AUSE") < 0.6
        for part in result.bins:  # the mean of |N(0, s)| is s sqrt(2 / pi)
            assert part.error == pytest.approx(part.spread * np.sqrt(2 / np.pi), rel=0.1)
        assert sum(part.voxels for part in result.bins) == np.prod(SHAPE)
        assert len(result.bins) == 10

    def test_of_the_error_itself_is_perfect(self, generator):
        error = generator.normal(0, 30, SHAPE)
        result = error_correlation(volume(np.abs(error)), compared(error))
        assert result.value("Spearman") == pytest.approx(1, abs=1e-4)
        assert result.value("Pearson") == pytest.approx(1, abs=1e-4)
        assert result.value("AUSE") == pytest.approx(0, abs=1e-4)

    def test_of_random_values_is_uninformative(self, sigma, generator):
        error = generator.normal(0, 30, SHAPE)
        result = error_correlation(volume(sigma), compared(error))
        assert result.value("Spearman") == pytest.approx(0, abs=0.05)
        worst = error_correlation(volume(100 - np.abs(error).clip(0, 100)), compared(error))
        assert worst.value("Spearman") < -0.99
        assert worst.value("AUSE") > result.value("AUSE") > 0.3

    def test_the_area_agrees_with_a_loop(self, sigma, generator):
        error = np.abs(generator.normal(0, sigma))
        order, best = np.argsort(sigma.ravel()), np.sort(error.ravel())
        gaps = []
        for left_out in np.arange(0, 1, 0.1):
            kept = round(error.size * (1 - left_out))
            gaps.append(error.ravel()[order][:kept].mean() - best[:kept].mean())
        result = error_correlation(volume(sigma), compared(error))
        assert result.value("AUSE") == pytest.approx(np.mean(gaps) / error.mean(), rel=1e-3)

    def test_counts_only_where_the_images_were_compared(self, sigma, generator):
        error = generator.normal(0, sigma)
        inside = np.zeros(SHAPE, np.uint8)
        inside[4:20, 4:18, 4:16] = 1
        reference = volume(generator.normal(0, 200, SHAPE))
        pair = volume(reference.array + error), reference
        comparison = compare(*pair, LabelMap(inside, AFFINE))
        wild = np.where(inside, sigma, 1e4)
        result = error_correlation(volume(wild), comparison)
        chosen = inside > 0
        expected = stats.spearmanr(sigma[chosen], np.abs(error)[chosen]).statistic
        assert result.value("Spearman") == pytest.approx(expected, abs=1e-4)
        assert sum(part.voxels for part in result.bins) == chosen.sum()

    def test_large_regions_are_subsampled(self, sigma, generator, monkeypatch):
        comparison = compared(generator.normal(0, sigma))
        whole = error_correlation(volume(sigma), comparison)
        monkeypatch.setattr(module, "_MOST_VOXELS", 3000)
        result = error_correlation(volume(sigma), comparison)
        assert "3000 voxels were drawn" in result.note
        assert result.value("Spearman") == pytest.approx(whole.value("Spearman"), abs=0.05)
        assert result == error_correlation(volume(sigma), comparison)

    def test_a_constant_uncertainty_or_no_error_has_no_value(self, sigma, generator):
        flat = error_correlation(volume(np.full(SHAPE, 20.0)), compared(generator.normal(0, 30, SHAPE)))
        assert flat.value("Spearman") is flat.value("AUSE") is None
        assert flat.value("Ratio") == pytest.approx(1.5, rel=0.05)
        assert "is not defined: the spread or the error is the same" in flat.rows[0].sentence
        none = error_correlation(volume(np.zeros(SHAPE)), compared(np.zeros(SHAPE)))
        assert {row.value for row in none.rows} == {None}
        assert json.loads(json.dumps(none.to_dict()))["bins"][0]["spread"] == 0

    def test_invalid_uncertainties_are_refused(self, sigma):
        comparison = compared(np.ones(SHAPE))
        with pytest.raises(InputError, match="negative values"):
            error_correlation(volume(-sigma), comparison)
        with pytest.raises(InputError, match="uncertainty 24 x 22 x 20 voxels of 1 x 1 x 1 mm"):
            error_correlation(Volume(sigma, np.eye(4)), comparison)
        sigma[0, 0, 0] = np.nan
        with pytest.raises(InputError, match="The uncertainty holds NaN or infinite values in 1 of its voxels"):
            error_correlation(volume(sigma), comparison)


class TestViews:
    def test_running_sums_are_the_weighted_standard_deviation(self, generator):
        """With reliability weights; equal weights give the usual n - 1."""
        views, weights = generator.normal(1000, 20, (5, 4, 3)), [0.2, 1.0, 0.5, 1.5, 0.01]
        sums = slice_sampling.RunningSpread((4, 3))
        for view, weight in zip(views, weights, strict=True):
            sums.add((slice(None), slice(None)), view, weight)
        mean = np.average(views, axis=0, weights=weights)
        total = np.sum(weights)
        freedom = total - np.square(weights).sum() / total
        expected = np.sqrt(np.tensordot(weights, (views - mean) ** 2, 1) / freedom)
        assert np.allclose(sums.deviation(), expected, rtol=1e-3)

        equal = slice_sampling.RunningSpread((4, 3))
        for view in views:
            equal.add((slice(None), slice(None)), view, 0.7)
        assert np.allclose(equal.deviation(), views.std(axis=0, ddof=1), rtol=1e-3)

    def test_fewer_than_two_views_have_no_uncertainty(self):
        sums = slice_sampling.RunningSpread((2, 2))
        sums.add((0,), np.array([3.0, 4.0]), 1.0)
        assert not sums.deviation().any()


def head(shape=(48, 54, 18), spacing=(2.0, 2.0, 5.0)) -> Volume:
    """An MR-like head: skin, skull gap, brain."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid))
    array = np.select([radius < 0.7, radius < 0.78, radius < 0.9], [600, 80, 900], 5)
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return Volume((array + noise).clip(0).astype(np.float32), np.diag([*spacing, 1.0]), "T1w")


@pytest.fixture(scope="class")
def views(tmp_path_factory):
    """Name of a translator without measured intervals, whose uncertainty is the deviation of its views."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "models" / "views"
    shutil.copytree(find("head-mr-to-ct").folder, folder)
    metadata = json.loads((folder / METADATA).read_text())
    metadata["name"] = "views"
    del metadata["medgen"]["statistics"]["intervals"]
    (folder / METADATA).write_text(json.dumps(metadata))
    with temporary_environment(MEDGEN_HOME=str(home)):
        yield "views"


class TestTranslate:
    @pytest.fixture(scope="class")
    def results(self, views):
        options = {"model": views, "device": "cpu", "accept_license": True}
        return [translate(head(), "CT", uncertainty=wanted, **options) for wanted in (True, False)]

    def test_gives_an_uncertainty_in_hu_on_the_grid_of_the_input(self, results):
        result = results[0]
        found = result.uncertainty
        assert found.geometry.is_close(head().geometry) and found.unit == "HU"
        assert np.isfinite(found.array).all() and found.array.min() >= 0
        inside = result.volume.array > -500
        assert 1 < found.array[inside].mean() < 400
        assert not found.array[0, 0].any()
        assert result.report.parameters["uncertainty"] is True

    def test_does_not_change_the_image(self, results):
        assert np.array_equal(results[0].volume.array, results[1].volume.array)
        assert results[1].uncertainty is None

    def test_mirrored_passes_are_not_repeated(self, views):
        steps = []
        for preset, wanted in (("best", True), ("best", False), ("normal", True)):
            seen = []
            translate(
                head((48, 54, 1)),
                "CT",
                model=views,
                preset=preset,
                device="cpu",
                uncertainty=wanted,
                accept_license=True,
                progress=seen.append,
            )
            steps.append(next(p.total for p in seen if p.stage == "translating slices"))
        assert steps == [2, 2, 2]

    def test_sagittal_slices_are_shifted(self, views, monkeypatch):
        """Thick sagittal slices are translated in their plane only, without mirroring."""
        shapes = []
        evaluate = slice_sampling.SliceRun._evaluate

        def watched(job, slices, axis):
            shapes.append((axis, slices.shape[1:]))
            return evaluate(job, slices, axis)

        monkeypatch.setattr(slice_sampling.SliceRun, "_evaluate", watched)
        thick = head((8, 64, 64), (22.0, 3.0, 3.0))
        options = {"model": views, "preset": "draft", "device": "cpu", "accept_license": True}
        result = translate(thick, "CT", uncertainty=True, **options)
        rows, columns = slice_sampling.SHIFT
        assert {axis for axis, _ in shapes} == {0}
        for (_, plain), (_, moved) in zip(shapes[::2], shapes[1::2], strict=True):
            assert moved == (plain[0] + rows, plain[1] + columns)
        assert result.uncertainty.array.max() > 1


class TestGenerate:
    def test_gives_the_standard_deviation_of_its_samples(self):
        grid = np.indices((32, 40, 32)) - np.reshape([15.5, 19.5, 15.5], (3, 1, 1, 1))
        radius = np.sqrt((grid**2).sum(0))
        array = np.where(radius < 9, 1, 0) + np.where((radius < 9) & (grid[1] > 0), 1, 0)
        mask = LabelMap(array, np.eye(4))
        result = generate(
            mask,
            "mr-hippocampus",
            seed=3,
            samples=2,
            preset="draft",
            retries=0,
            device="cpu",
            accept_license=True,
            uncertainty=True,
        )
        expected = spread(result.volumes)
        assert np.array_equal(result.uncertainty.array, expected.array)
        assert result.uncertainty.array.max() > 0
