"""Usual levels of tissues: cells and voxels, texture, geometry, training, edits, and a femur against the flow alone."""

import numpy as np
import pytest
import torch

from MedGenLib import generate
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.networks import VoxelLevelNet
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines import flow_sampling
from MedGenLib.pipelines.tissue_levels import (
    ImageLevels,
    TextureLevels,
    at_voxels,
    cell_counts,
    texture_levels,
    tissue_shares,
    tissue_sums,
)
from MedGenLib.training.loop import Draw, OptimizationSettings, Trainer
from MedGenLib.training.recipes.tissue_levels import TissueLevelsRecipe
from MedGenLib.training.recipes.voxel_levels import VoxelLevelsRecipe

CODEC = TissueStandard((-1000, -95, 40, 380, -830), (100, 40, 45, 180, 110))


def half_bone() -> np.ndarray:
    labels = np.full((12, 16, 20), 2, np.uint8)
    labels[:6] = 3
    labels[:, :, 18:] = 0
    return labels


def test_cells_have_the_shares_and_means_of_their_voxels():
    labels = half_bone()
    cells = cell_counts(labels.shape, (2.0, 2.0, 2.0))
    assert cells == (6, 8, 10)
    shares = tissue_shares(labels, cells, 4)
    assert np.allclose(shares.sum(0), 1)
    assert np.all(shares[3, :3, :, :9] == 1) and np.all(shares[2, 3:, :, :9] == 1) and np.all(shares[0, :, :, 9] == 1)
    sums, counts = tissue_sums(np.where(labels == 3, 700.0, 50.0), labels, cells, 4)
    assert counts[2].sum() == np.count_nonzero(labels == 3)
    assert np.allclose(sums[2][counts[2] > 0] / counts[2][counts[2] > 0], 700)


def test_cells_of_voxels_larger_than_cells_are_voxels():
    assert cell_counts((10, 7, 1), (6.0, 4.1, 30.0)) == (10, 7, 1)


def test_texture_gets_the_levels_and_the_spread_of_its_tissue():
    labels = np.repeat(half_bone(), 2, 0)
    rng = np.random.default_rng(0)
    hu = np.where(labels == 3, 500.0, 20.0) + rng.normal(0, 20, labels.shape)
    levels = np.zeros((3, *labels.shape), np.float32)
    cells = np.zeros((4, 8, 8, 8), np.float32)
    cells[2], cells[1] = (900 - 380) / 180, (60 - 40) / 45
    levels[0] = np.where(labels == 3, (900 - 380) / 180, (60 - 40) / 45)
    levels[1] = np.where(labels == 3, 0.8 * 40 / 180, 0.8 * 10 / 45)  # 0.8: mean absolute value of a unit normal
    levels[2] = levels[1] / 5
    offset, factor = texture_levels(CODEC.encode(hu, labels), labels, cells, levels, CODEC)
    center = np.array(CODEC.centers)[labels]
    made = center + offset + factor * (hu - center)
    for value, level, spread in ((3, 900, 40), (2, 60, 10)):
        assert made[labels == value].mean() == pytest.approx(level, abs=4)
        assert made[labels == value].std() == pytest.approx(spread, rel=0.15)
        assert np.corrcoef(made[labels == value], hu[labels == value])[0, 1] > 0.95  # the texture is the image's own
    assert np.all(offset[labels == 0] == 0) and np.all(factor[labels == 0] == 1)


@pytest.mark.parametrize("noise", [8.0, 30.0])
def test_all_tissues_keep_the_noise_of_soft_tissue(noise):
    labels = np.repeat(half_bone(), 2, 0)
    hu = np.where(labels == 3, 700.0, 50.0)
    hu += np.random.default_rng(0).normal(0, np.where(labels == 3, 40, noise))
    levels = np.full((3, *labels.shape), 0.01, np.float32)
    levels[1] = np.where(labels == 3, 0.8 * 60 / 180, 0.8 * 12 / 45)  # 12 HU are usual in soft tissue, 60 in bone
    offset, factor = texture_levels(CODEC.encode(hu, labels), labels, np.zeros((4, 8, 8, 8)), levels, CODEC, soft=2)
    center = np.array(CODEC.centers)[labels]
    made = center + offset + factor * (hu - center)
    assert made[labels == 2].std() == pytest.approx(noise, rel=0.1)
    assert made[labels == 3].std() == pytest.approx(np.sqrt(60**2 + noise**2 - 12**2), rel=0.15)


def test_without_cells_the_mean_follows_the_levels_of_the_voxels():
    """And blotches, which are wider than coarse texture, vanish."""
    labels = np.repeat(half_bone(), 2, 0)
    blotches = 30 * np.sin(np.arange(20) / 4)
    hu = np.where(labels == 3, 500.0, 20.0) + blotches + np.random.default_rng(0).normal(0, 10, labels.shape)
    levels = np.full((3, *labels.shape), 0.8 * 10 / 45, np.float32)
    levels[0], levels[2] = np.linspace(-1, 1, 20), levels[1] / 5
    offset, factor = texture_levels(CODEC.encode(hu, labels), labels, None, levels, CODEC)
    made = (np.array(CODEC.centers)[labels] * (1 - factor) + offset + factor * hu)[:, 4:12, 4:14]
    inner = labels[:, 4:12, 4:14] == 2
    error = (made - (40 + 45 * levels[0, :, 4:12, 4:14]))[inner].reshape(-1, 10).mean(0)
    assert np.abs(error).max() < 8 and np.ptp(blotches[4:14]) > 30


def test_levels_follow_one_another_and_are_removed_in_reverse():
    class Doubled:
        def applied(self, values, labels, box):
            return 2 * values

        def removed(self, values, labels, box):
            return values / 2

    grid, labels = Geometry((8, 8, 8), np.eye(4)), np.full((8, 8, 8), 2, np.uint8)
    texture = levels_of(grid, np.full(grid.shape, 7, np.float32), np.ones(grid.shape, np.float32), labels)
    levels, whole = ImageLevels((texture, Doubled())), tuple(slice(0, n) for n in grid.shape)
    made = levels.applied(np.full(grid.shape, 40.0), labels, whole)
    assert np.allclose(made, 94) and np.allclose(levels.removed(made, labels, whole), 40)


def test_a_network_without_cells_knows_the_label_of_the_voxel_alone():
    net = VoxelLevelNet(5, (4, 8, 8), cells=False)
    found = net(torch.rand(1, 8, 8, 8, 8))
    assert found.shape == (1, 3, 5, 8, 8, 8) and (found[:, :, 0] == found[:, :, 4]).all() and (found[:, 1:] > 0).all()
    assert VoxelLevelNet(**net.arguments).head.out_channels == 3


def test_a_tissue_of_few_voxels_stays_as_it_is():
    labels = np.full((16, 16, 16), 2, np.uint8)
    labels[4:8, 4:8, 4:8] = 3
    cells, levels = np.ones((4, 4, 4, 4), np.float32), np.ones((3, *labels.shape), np.float32)
    offset, factor = texture_levels(np.zeros(labels.shape), labels, cells, levels, CODEC)
    assert np.all(offset[labels == 3] == 0) and np.all(factor[labels == 3] == 1) and np.all(offset[labels == 2] != 0)


def test_values_of_cells_at_voxels_are_linear_between_their_middles():
    cells = np.arange(4.0).reshape(1, 4, 1, 1)
    found = at_voxels(cells, (8, 3, 3), (slice(1, 8), slice(0, 2), slice(0, 3)))
    assert found.shape == (1, 7, 2, 3)
    assert np.allclose(found[0, :, 0, 0], np.clip((np.arange(1, 8) + 0.5) / 2 - 0.5, 0, 3))


def oblique(order: tuple[int, ...], signs: tuple[int, ...]) -> Geometry:
    """An oblique, anisotropic grid with axes in this order."""
    tilt, _ = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.15, 1, 0.2], [0.1, -0.25, 1]]))
    affine = np.eye(4)
    affine[:3, :3] = (tilt * np.sign(np.diag(tilt)))[:, order] * signs * (2.0, 2.0, 4.0)
    affine[:3, 3] = 10, -20, 30
    return Geometry((24, 20, 16), affine)


def levels_of(grid: Geometry, offset: np.ndarray, factor: np.ndarray, labels: np.ndarray) -> TextureLevels:
    """Levels with these offsets and factors on a grid."""
    order = Reorientation.to(grid, "RAS")
    found, working = tuple(map(order.apply, (offset, factor))), order.apply(labels)
    return TextureLevels.of(found, working, CODEC.centers, grid, order, LabelMap(labels, grid.affine))


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (-1, -1, 1))]
)
def test_levels_lie_where_the_image_lies(order, signs):
    """Offsets that are linear in space are added at every voxel of an oblique, anisotropic image."""
    grid = oblique(order, signs)
    linear = (np.stack(np.indices(grid.shape), -1) @ grid.affine[:3, :3].T + grid.affine[:3, 3]) @ (0.7, -0.4, 0.9)
    labels = np.full(grid.shape, 2, np.uint8)
    levels = levels_of(grid, linear.astype(np.float32), np.full(grid.shape, 1.5, np.float32), labels)
    inner = tuple(slice(3, n - 3) for n in grid.shape)
    hu = np.random.default_rng(0).normal(40, 30, labels[inner].shape)
    made = levels.applied(hu, labels[inner], inner)
    assert np.allclose(made, 40 + 1.5 * (hu - 40) + linear[inner], atol=1e-2)
    assert np.allclose(levels.removed(made, labels[inner], inner), hu, atol=1e-2)


@pytest.mark.parametrize(("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1))])
def test_a_part_of_an_image_with_its_own_voxels_gets_its_levels_there(order, signs):
    grid, rng = oblique(order, signs), np.random.default_rng(0)
    offset, factor = rng.normal(0, 50, grid.shape).astype(np.float32), rng.uniform(0.5, 2, grid.shape)
    image = grid.moved((-2, -1, -3), [n + 5 for n in grid.shape])
    place = tuple(slice(first, first + n) for first, n in zip((2, 1, 3), grid.shape, strict=True))
    labels = np.full(image.shape, 2, np.uint8)
    turned = Reorientation.to(grid, "RAS")
    found, working = tuple(map(turned.apply, (offset, factor))), turned.apply(labels[place])
    levels = TextureLevels.of(found, working, CODEC.centers, grid, turned, LabelMap(labels, image.affine), place)
    hu, box = rng.normal(40, 30, image.shape), tuple(slice(1, n - 1) for n in image.shape)
    made = levels.applied(hu[box], labels[box], box)
    expected = hu.copy()
    expected[place] = 40 + offset + factor * (hu[place] - 40)
    assert np.allclose(made, expected[box], atol=1e-2)


def test_a_changed_label_knows_nothing_of_the_old_border():
    """The border of bone is darker; where bone grows over it, and on its own side, the line does not stay."""
    grid, labels = Geometry((32, 24, 24), np.diag([2.0, 2.0, 2.0, 1.0])), np.full((32, 24, 24), 2, np.uint8)
    labels[:16] = 3
    offset = np.where(labels == 3, 200.0, 20.0).astype(np.float32)
    offset[15], offset[16] = -100, -50
    levels = levels_of(grid, offset, np.ones(labels.shape, np.float32), labels)
    whole, grown = tuple(slice(0, n) for n in grid.shape), labels.copy()
    grown[16:22] = 3
    before, after = (levels.applied(np.zeros(grid.shape), part, whole) for part in (labels, grown))
    assert np.array_equal(before[:12], after[:12]) and before[15].max() < 0
    assert after[12:22].min() > 100 and np.ptp(after[12:22]) < 120


def thigh(spacing: float = 2.5) -> LabelMap:
    """Fat, muscle, and the tube of a femur, 100 mm long."""
    n = round(160 / spacing)
    x, y = (np.indices((n, n)) + 0.5) * spacing - 80
    radius = np.hypot(x, y)
    plane = np.select([radius < 7, radius < 14, radius < 55, radius < 70], [1, 3, 2, 1], 0)
    return LabelMap(
        np.repeat(plane[..., None].astype(np.uint8), round(100 / spacing), 2), np.diag([spacing] * 3 + [1.0])
    )


def test_femur_is_compact_bone(monkeypatch):
    mask, options = thigh(), {"seed": 1, "preset": "draft", "retries": 0, "device": "cpu"}
    bone = mask.array == 3
    with_levels = generate(mask, **options).volume
    monkeypatch.setattr(flow_sampling, "with_levels", lambda scene, *_: scene)
    without = generate(mask, **options).volume
    assert with_levels.geometry.is_close(mask.geometry)
    assert with_levels.array[bone].mean() > 750 > without.array[bone].mean()
    fine = [v.array - np.roll(v.array, 1, 2) for v in (with_levels, without)]
    assert 0.3 * fine[1][bone].std() < fine[0][bone].std() < fine[1][bone].std()  # less speckled, but not smooth


@pytest.fixture(scope="module")
def bones(tmp_path_factory) -> dict:
    """Configuration of two scans: a thick bone of 900 HU and a thin one of 300 HU, whose borders are half as bright."""
    folder, scans, noise = tmp_path_factory.mktemp("bones"), [], np.random.default_rng(0)
    for name, half, hu in (("thick", 8, 900), ("thin", 3, 300)):
        array = np.full((32, 32, 32), 40, np.float32)
        array[15 - half : 17 + half, 15 - half : 17 + half] = 40 + (hu - 40) / 2
        array[16 - half : 16 + half, 16 - half : 16 + half] = hu
        array += noise.normal(0, np.where(array > 200, 40, 10))
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        write_volume(Volume(array, affine, "CT", "HU"), folder / f"{name}.nii.gz")
        write_volume(LabelMap(np.ones(array.shape, np.uint8), affine), folder / f"{name}_body.nii.gz")
        scans.append({"subject": name, "image": f"{name}.nii.gz", "label": f"{name}_body.nii.gz"})
    codec = {"centers": list(CODEC.centers), "scales": list(CODEC.scales)}
    return {
        "data": {"adaptor": "tissue-scans", "codec": codec, "spacings_mm": [2.0], "scans": scans},
        "levels": {"package": "ct-tissue", "patch": 8},
        "folder": str(folder),
    }


def trained(recipe, out, steps: int, **settings) -> dict[str, torch.nn.Module]:
    recipe.export = lambda networks, step, out: networks  # the package would need its card
    return Trainer(recipe, OptimizationSettings(steps=steps, batch=1, warmup=5, ema=0.9, **settings), out / "run").run()


def test_recipe_learns_that_thick_bone_is_brighter(bones, tmp_path):
    torch.manual_seed(0)
    recipe = TissueLevelsRecipe(bones, tmp_path)
    networks = trained(recipe, tmp_path, 60)
    for shares, levels in recipe.cells:
        bone = shares[3] > 0.9
        with torch.no_grad():
            found = networks["levels"](torch.from_numpy(shares)[None])[0, 3].numpy()
        assert found[bone].mean() == pytest.approx(levels[2][bone].mean(), abs=0.8)


def test_recipe_learns_levels_and_textures_of_voxels(bones, tmp_path):
    torch.manual_seed(0)
    recipe = VoxelLevelsRecipe({**bones, "levels": {"package": "ct-tissue", "patch": 16}}, tmp_path)
    before = recipe.validate(recipe.networks, 0, None)
    after = recipe.validate(trained(recipe, tmp_path, 40, learning_rate=0.02), 40, None)
    assert all(after[name] < 0.8 * before[name] for name in ("level", "fine texture", "coarse texture"))


def test_patches_have_both_kinds_of_masks(bones, tmp_path):
    recipe = VoxelLevelsRecipe({**bones, "levels": {"package": "ct-tissue", "patch": 16}}, tmp_path)
    centers, scales = (np.array(x) for x in (CODEC.centers, CODEC.scales))
    agree = []
    for number in range(12):
        batch = {key: value[0].numpy() for key, value in recipe.batch(Draw.of(number, 0), 1).items()}
        labels = batch["labels"][0]
        hu = (centers[labels] + scales[labels] * batch["levels"][0])[labels > 0]
        found = np.array([4, 1, 2, 3])[np.digitize(hu, (-250, -30, 180))]
        agree.append(np.array_equal(found, labels[labels > 0]))
        assert np.array_equal(batch["known"][:5].argmax(0), labels)
    assert 2 < sum(agree) < 10


def test_single_slices_and_models_without_the_network_keep_their_levels():
    manifest = find("mr-hippocampus")
    scene = type("Scene", (), {"manifest": manifest, "grid": np.zeros((4, 4, 4))})()
    assert flow_sampling.with_levels(scene, torch.device("cpu"), 72) is scene
    scene = type("Scene", (), {"manifest": find("ct-tissue"), "grid": np.zeros((4, 4, 1))})()
    assert flow_sampling.with_levels(scene, torch.device("cpu"), 72) is scene
