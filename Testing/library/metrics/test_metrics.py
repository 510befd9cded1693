"""Measures against second implementations and known results."""

import numpy as np
import patch_distance
import pytest
import texture
from scipy import linalg, ndimage, stats
from skimage import metrics as skimage_metrics
from skimage.transform import downscale_local_mean

from MedGenLib.errors import InputError
from MedGenLib.metrics import image as metrics
from MedGenLib.metrics.distribution import frechet_distance


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture
def pair(generator):
    """A smooth image in HU, and the same with noise."""
    image = ndimage.gaussian_filter(generator.normal(0, 3000, (20, 22, 24)), 2)
    return image, image + generator.normal(0, 40, image.shape)


def ball(shape, radius):
    grid = np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2
    return np.sqrt((grid**2).sum(0)) < radius


class TestErrors:
    def test_by_hand(self):
        reference, candidate = np.zeros((2, 2, 1)), np.array([[3.0, -4.0], [0, 1]])[..., None]
        mask = np.array([[1, 1], [1, 0]])[..., None]
        assert metrics.mae(reference, candidate) == 2
        assert metrics.mae(reference, candidate, mask) == pytest.approx(7 / 3)
        assert metrics.rmse(reference, candidate, mask) == pytest.approx(np.sqrt(25 / 3))

    def test_unsigned_values_do_not_wrap(self):
        assert metrics.mae(np.zeros((2, 2, 2), np.uint8), np.full((2, 2, 2), 5, np.uint8)) == 5

    def test_psnr_agrees_with_scikit_image(self, pair):
        expected = skimage_metrics.peak_signal_noise_ratio(*pair, data_range=3024)
        assert metrics.psnr(*pair) == pytest.approx(expected)

    def test_psnr_with_range_4024_follows_the_definition(self, pair):
        gain = metrics.psnr(*pair, data_range=4024) - metrics.psnr(*pair)
        assert gain == pytest.approx(2.48, abs=0.005)

    def test_psnr_of_equal_images_is_infinite(self, pair):
        assert metrics.psnr(pair[0], pair[0]) == np.inf

    def test_bias_is_the_mean_of_candidate_minus_reference(self, pair):
        mask = ball(pair[0].shape, 8)
        assert metrics.bias(pair[0], pair[0] + 12, mask) == pytest.approx(12)
        expected = (pair[1] - pair[0])[mask].mean()
        assert metrics.bias(*pair, mask) == pytest.approx(expected)

    def test_pearson_agrees_with_scipy(self, pair):
        mask = ball(pair[0].shape, 8)
        expected = stats.pearsonr(pair[0][mask], pair[1][mask]).statistic
        assert metrics.pearson(*pair, mask) == pytest.approx(expected)
        assert np.isnan(metrics.pearson(pair[0], np.ones(pair[0].shape)))

    def test_different_grids_and_empty_masks_are_refused(self, pair):
        with pytest.raises(InputError, match="cannot be compared"):
            metrics.mae(pair[0], pair[1][1:])
        with pytest.raises(InputError, match="empty"):
            metrics.mae(*pair, np.zeros(pair[0].shape))
        with pytest.raises(InputError, match="does not fit"):
            metrics.mae(*pair, np.ones((2, 2, 2)))


class TestDice:
    def test_agrees_with_monai(self, generator):
        torch = pytest.importorskip("torch")
        from monai.metrics import compute_dice

        first, second = generator.random((2, 8, 8, 8)) > 0.6
        expected = compute_dice(*(torch.from_numpy(m)[None, None] for m in (first, second)))
        assert metrics.dice(first, second) == pytest.approx(expected.item())

    def test_extremes(self):
        full, empty = np.ones((2, 2, 2)), np.zeros((2, 2, 2))
        assert metrics.dice(full, full) == 1
        assert metrics.dice(full, empty) == 0
        assert np.isnan(metrics.dice(empty, empty))


class TestMsSsim:
    LARGE = (120, 112, 113)

    @pytest.fixture(scope="class")
    def large(self):
        """A pair in HU in which all five scales fit."""
        generator = np.random.default_rng(1)
        image = ndimage.gaussian_filter(generator.normal(0, 30000, self.LARGE), 4)
        image = np.clip(image, -1024, 3000)
        return image, np.clip(image + generator.normal(0, 200, self.LARGE), -1024, 3000)

    def test_agrees_with_monai(self, large):
        torch = pytest.importorskip("torch")
        from monai.metrics import MultiScaleSSIMMetric

        theirs = MultiScaleSSIMMetric(3, 4024, "uniform", kernel_size=7)
        expected = theirs(*(torch.from_numpy(image + 1024)[None, None] for image in large))
        result = metrics.ms_ssim(*large)
        assert result.levels == 5 and result.weights == pytest.approx(metrics.MS_WEIGHTS, abs=1e-4)
        assert result.value == pytest.approx(expected.item(), abs=1e-4)
        assert result.value < 0.99

    def test_the_first_scale_agrees_with_scikit_image(self, large):
        crops = [image[:30, :32, :34] + 1024 for image in large]
        mask = ball(crops[0].shape, 12)
        _, full = skimage_metrics.structural_similarity(
            *(np.where(mask, image, 0) for image in crops), win_size=7, data_range=4024, full=True
        )
        result = metrics.ms_ssim(*(image - 1024 for image in crops), mask)
        assert result.ssim == pytest.approx(full[mask].mean(), abs=1e-9)

    def test_a_mask_agrees_with_a_loop_over_maps_of_scikit_image(self, large):
        """scikit-image with a luminance of 1 gives contrast times structure."""
        x, y = (image[:40, :42, :45] + 1024 for image in large)
        mask = ball(x.shape, 16)
        result = metrics.ms_ssim(x - 1024, y - 1024, mask)
        x, y = np.where(mask, x, 0), np.where(mask, y, 0)
        expected = 1.0
        for level, weight in enumerate(result.weights):
            luminance_off = {"K1": 1e9} if level < result.levels - 1 else {}
            _, full = skimage_metrics.structural_similarity(
                x, y, win_size=7, data_range=4024, full=True, **luminance_off
            )
            fits = np.pad(np.ones([n - 6 for n in x.shape], bool), 3)
            expected *= full[mask & fits].mean() ** weight
            even = tuple(slice(n // 2 * 2) for n in x.shape)
            x, y, mask = (downscale_local_mean(a[even], (2, 2, 2)) for a in (x, y, mask))
            mask = mask >= 0.5
        assert result.levels == 3
        assert result.value == pytest.approx(expected, abs=1e-9)

    def test_small_images_have_fewer_scales_and_their_weights_sum_to_1(self, large):
        for side, levels in ((7, 1), (13, 1), (14, 2), (28, 3), (60, 4)):
            crops = [image[:side, :side, :side] for image in large]
            result = metrics.ms_ssim(*crops)
            assert result.levels == levels and sum(result.weights) == pytest.approx(1)
        assert metrics.ms_ssim(*(image[:13, :13, :13] for image in large)).value == pytest.approx(
            metrics.ms_ssim(*(image[:13, :13, :13] for image in large)).ssim
        )

    def test_equal_images_are_1_and_opposite_ones_are_nearly_0(self, large):
        image = large[0][:40, :40, :40]
        assert metrics.ms_ssim(image, image).value == pytest.approx(1)
        assert 0 <= metrics.ms_ssim(image, -image, outside=-3000.0).value < 0.2

    def test_air_around_the_mask_does_not_count(self, large):
        image, other = (image[:40, :40, :40] for image in large)
        mask = ball(image.shape, 12)
        wide = [np.pad(a, 64, constant_values=0) for a in (image, other, mask)]
        result = metrics.ms_ssim(*wide)
        assert result.ssim == pytest.approx(metrics.ms_ssim(image, other, mask).ssim)

    def test_cropping_to_the_mask_changes_nothing(self, large):
        mask = np.zeros(self.LARGE, bool)
        mask[95:103, 90:99, 85:93] = True
        result = metrics.ms_ssim(*large, mask)
        whole = [np.where(mask, image, -1024) for image in large]
        every = mask.copy()
        every[0, 0, 0] = True  # where no window fits: only widens the box
        assert result == metrics.ms_ssim(*whole, every)

    def test_slabs_change_nothing(self, large, monkeypatch):
        expected = metrics.ms_ssim(*large)
        monkeypatch.setattr(metrics, "_SLAB", 1000)
        assert metrics.ms_ssim(*large).value == pytest.approx(expected.value, abs=1e-12)

    def test_a_single_slice_is_measured_in_its_plane(self, large):
        flat = [image[:, :, 5] for image in large]
        for axis in (0, 1, 2):
            volume = [np.expand_dims(image, axis) for image in flat]
            assert metrics.ms_ssim(*volume).value == pytest.approx(metrics.ms_ssim(*flat).value)

    def test_too_small_or_different_images_are_refused(self, large):
        with pytest.raises(InputError, match="window of 7 voxels around it, .* compared, 4x9x9 voxels;"):
            metrics.ms_ssim(np.zeros((4, 9, 9)), np.zeros((4, 9, 9)))
        with pytest.raises(InputError, match="empty"):
            metrics.ms_ssim(*large, np.zeros(self.LARGE))
        with pytest.raises(InputError, match="cannot be compared"):
            metrics.ms_ssim(large[0], large[1][1:])


class TestTheory:
    """Expected results for known errors."""

    @pytest.fixture
    def image(self, generator):
        return np.clip(generator.normal(100, 200, (48, 48, 48)), -1024, 3000)

    def test_identical_images(self, image):
        assert metrics.mae(image, image) == metrics.rmse(image, image) == 0
        assert metrics.bias(image, image) == 0 and metrics.psnr(image, image) == np.inf
        assert metrics.pearson(image, image) == pytest.approx(1)
        assert metrics.ms_ssim(image, image).value == pytest.approx(1)

    def test_a_known_offset(self, image):
        assert metrics.mae(image, image + 50) == pytest.approx(50)
        assert metrics.bias(image, image - 50) == pytest.approx(-50)
        expected = 20 * np.log10(4024 / 50)
        assert metrics.psnr(image, image + 50, data_range=4024) == pytest.approx(expected)
        assert metrics.pearson(image, image + 50) == pytest.approx(1)

    def test_known_noise(self, image, generator):
        noisy = image + generator.normal(0, 25, image.shape)
        assert metrics.rmse(image, noisy) == pytest.approx(25, rel=0.01)
        assert metrics.mae(image, noisy) == pytest.approx(25 * np.sqrt(2 / np.pi), rel=0.01)
        assert metrics.bias(image, noisy) == pytest.approx(0, abs=0.5)
        expected = 200 / np.hypot(200, 25)
        assert metrics.pearson(image, noisy) == pytest.approx(expected, abs=0.002)

    def test_scaled_hu(self, image):
        scaled = 1.1 * image
        assert metrics.pearson(image, scaled) == pytest.approx(1)
        assert metrics.bias(image, scaled) == pytest.approx(0.1 * image.mean())
        assert metrics.rmse(image, scaled) == pytest.approx(0.1 * np.sqrt((image**2).mean()))

    def test_ssim_of_an_offset_is_its_luminance_term(self):
        flat = np.full((9, 9, 9), 1000.0)
        c1 = (0.01 * 4024) ** 2
        x, y = 1000 + 1024, 1400 + 1024
        expected = (2 * x * y + c1) / (x * x + y * y + c1)
        assert metrics.ms_ssim(flat, flat + 400).ssim == pytest.approx(expected)


class TestTexture:
    def test_local_sd_agrees_with_a_loop(self, pair):
        image, mask = pair[1], ball(pair[1].shape, 7)
        spots = np.argwhere(texture.interior(mask))
        windows = [image[tuple(slice(n - 1, n + 2) for n in spot)] for spot in spots]
        expected = np.mean([window.std() for window in windows])
        assert texture.local_sd(image, mask) == pytest.approx(expected, rel=1e-6)

    def test_local_sd_is_precise_far_from_zero(self, generator):
        noise = generator.normal(0, 1, (16, 16, 16))
        mask = np.ones(noise.shape)
        assert texture.local_sd(noise - 1e6, mask) == pytest.approx(texture.local_sd(noise, mask))

    def test_highpass_sd(self, pair):
        image, mask = pair[1], ball(pair[1].shape, 7)
        inside = ndimage.binary_erosion(mask, np.ones((3, 3, 3)), iterations=2)
        expected = (image - ndimage.gaussian_filter(image, 1))[inside].std()
        assert texture.highpass_sd(image, mask) == pytest.approx(expected)

    def test_the_edge_of_a_tissue_does_not_count_as_texture(self):
        mask = ball((24, 24, 24), 8)
        image = np.where(mask, 40.0, -1000.0)
        assert texture.local_sd(image, mask) == pytest.approx(0, abs=1e-4)

    def test_thin_tissue_has_no_interior(self):
        mask = np.zeros((9, 9, 9))
        mask[4] = 1
        assert np.isnan(texture.local_sd(mask, mask))
        assert np.isnan(texture.highpass_sd(mask, mask))

    def test_a_single_slice_has_an_interior(self):
        assert texture.interior(np.ones((9, 1, 9))).sum() == 25

    def test_seed_sd(self, generator):
        samples = generator.normal(0, 10, (12, 16, 16, 16))
        mask = np.ones((16, 16, 16))
        assert texture.seed_sd(samples, mask) == pytest.approx(10, rel=0.05)
        assert texture.seed_sd(samples, mask, lowpass=1.5) < 2
        with pytest.raises(InputError, match="two samples"):
            texture.seed_sd(samples[:1], mask)


class TestPatterns:
    @pytest.mark.parametrize("period", [2, 4, 8])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_stripe_index_finds_one_period_in_one_axis(self, generator, period, axis):
        image = generator.normal(0, 1, (32, 32, 32))
        assert metrics.stripe_index(image) < 1.08
        # A jump before every n-th voxel: alternating offsets of whole groups.
        groups = np.arange(32) // period % 2
        striped = image + np.moveaxis(np.zeros_like(image) + 3 * groups, 2, axis)
        assert metrics.stripe_index(striped, periods=(period,)) > 1.5
        assert metrics.stripe_index(striped) >= metrics.stripe_index(striped, periods=(period,))

    def test_stripe_index_of_a_ramp_with_known_steps(self):
        steps = np.tile([1.0, 1.0, 1.0, 2.0], 8)
        ramp = np.cumsum(steps)[:, None, None] * np.ones((1, 2, 2))
        # Positions p with p mod 4 == 2 carry the step of 2 (the first step is lost by cumsum).
        assert metrics.stripe_index(ramp, periods=(4,)) == pytest.approx(2)

    def test_stripe_index_ignores_what_is_outside_of_the_mask(self):
        image = np.arange(16.0)[:, None, None] * np.ones((1, 16, 16))
        mask = np.ones(image.shape, bool)
        mask[:, :4] = False
        image[::2, :4] += 100
        assert metrics.stripe_index(image, mask) == pytest.approx(1)

    def test_faces_between_labels_are_neither_stripes_nor_seams(self, generator):
        labels = np.ones((32, 32, 32), np.uint8)
        labels[8:16] = 2
        image = generator.normal(0, 1, labels.shape) + 50 * labels
        assert metrics.stripe_index(image, labels > 0) > 2
        assert metrics.stripe_index(image, labels) < 1.08
        assert metrics.seam_index(image, 0, 17, labels) == pytest.approx(1, abs=0.1)

    def test_stripe_index_without_steps_is_nan(self):
        assert np.isnan(metrics.stripe_index(np.zeros((32, 32, 32))))
        assert np.isnan(metrics.stripe_index(np.arange(27.0).reshape(3, 3, 3)))
        assert np.isnan(metrics.stripe_index(np.ones((32, 32, 32)), np.zeros((32, 32, 32))))

    def test_seam_index_finds_the_plane(self, generator):
        image = generator.normal(0, 1, (20, 20, 20))
        image[:, 12:] += 2
        assert metrics.seam_index(image, 1, 12) > 1.5
        assert metrics.seam_index(image, 1, 6) == pytest.approx(1, abs=0.15)
        assert metrics.seam_index(image, 0, 12) == pytest.approx(1, abs=0.15)

    def test_seam_index_by_hand(self):
        line = np.cumsum([0.0, 1, 2, 6, 3, 4, 9])[:, None, None] * np.ones((1, 3, 3))
        assert metrics.seam_index(line, 0, 3) == pytest.approx(6 / np.mean([1, 2, 3, 4]))
        assert metrics.seam_index(line, 0, 6) == pytest.approx(9 / np.mean([3, 4]))

    def test_seam_index_needs_a_step(self):
        with pytest.raises(InputError, match="from 1 to 3"):
            metrics.seam_index(np.zeros((4, 4, 4)), 0, 4)


class TestFeatureDistance:
    @pytest.fixture
    def real(self, generator):
        noise = ndimage.gaussian_filter(generator.normal(0, 1, (40, 36, 38)), 0.7)
        return np.where(ball(noise.shape, 15), 60, -100) + 60 * noise

    @pytest.fixture
    def mask(self, real):
        return ball(real.shape, 15)

    def test_frechet_distance_of_lines_has_a_closed_form(self, generator):
        first, second = generator.normal(0, 2, (500, 1)), generator.normal(3, 1, (400, 1))
        expected = (first.mean() - second.mean()) ** 2
        expected += (first.std(ddof=1) - second.std(ddof=1)) ** 2
        assert frechet_distance(first, second) == pytest.approx(expected)

    def test_frechet_distance_agrees_with_the_matrix_root(self, generator):
        first, second = generator.normal(0, 1, (2, 300, 5))
        second = second @ generator.normal(0, 1, (5, 5)) + 1
        covariances = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
        root = linalg.sqrtm(covariances[0] @ covariances[1]).real
        expected = np.square(first.mean(0) - second.mean(0)).sum()
        expected += np.trace(covariances[0] + covariances[1] - 2 * root)
        assert frechet_distance(first, second) == pytest.approx(expected)

    def test_zero_for_the_volume_itself(self, real, mask):
        assert patch_distance.feature_distance(real, real, mask, 150) == pytest.approx(0, abs=1e-3)

    def test_deterministic_and_seeded(self, real, mask):
        fake = ndimage.gaussian_filter(real, 1)
        first, again, other = (patch_distance.feature_distance(real, fake, mask, 150, seed=seed) for seed in (1, 1, 2))
        assert first == pytest.approx(again, rel=1e-5)
        assert first != pytest.approx(other, rel=1e-5)

    @pytest.mark.parametrize("highpass", [False, True])
    def test_orders_floor_slight_and_strong_blur(self, real, mask, highpass):
        def distance(sigma):
            fake = ndimage.gaussian_filter(real, sigma)
            return patch_distance.feature_distance(real, fake, mask, 300, highpass=highpass)

        floor = patch_distance.split_floor(real, mask, 300, highpass=highpass)
        assert 0 < distance(0.35) < distance(0.6) < distance(1.2)
        assert floor < distance(1.2)

    def test_scale_and_offset_of_both_do_not_matter(self, real, mask):
        fake = ndimage.gaussian_filter(real, 0.7)
        expected = patch_distance.feature_distance(real, fake, mask, 150)
        moved = patch_distance.feature_distance(5 * real + 1000, 5 * fake + 1000, mask, 150)
        assert moved == pytest.approx(expected, rel=1e-3)

    def test_has_96_statistics_in_three_orientations(self, real, mask):
        places = patch_distance.patch_places(mask, 30, 0)
        features = patch_distance.patch_features(real, places)
        assert features.shape == (30, 96) == (30, patch_distance.N_FEATURES)
        assert np.bincount(places[:, 0]).tolist() == [10, 10, 10]
        assert mask[tuple(places[:, 1:].T)].all()

    def test_small_crops_and_single_slices_are_padded(self, generator):
        for shape in [(12, 20, 14), (40, 40, 1)]:
            image = generator.normal(0, 1, shape)
            distance = patch_distance.feature_distance(image, 2 * image, np.ones(shape), 60)
            assert np.isfinite(distance) and distance > 0

    def test_refuses_empty_masks_and_other_grids(self, real, mask):
        with pytest.raises(InputError, match="empty"):
            patch_distance.feature_distance(real, real, np.zeros(real.shape))
        with pytest.raises(InputError, match="one grid"):
            patch_distance.feature_distance(real, real[1:], mask)
