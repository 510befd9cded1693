"""Usual levels of tissues: cells, shift, geometry, training, and a femur against the flow alone."""

import numpy as np
import pytest
import torch

from MedGenLib import generate
from MedGenLib.imaging.normalization import TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import Geometry, LabelMap, Volume
from MedGenLib.io.files import write_volume
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines import flow_sampling
from MedGenLib.pipelines.tissue_levels import LevelShift, cell_counts, level_shift, tissue_shares, tissue_sums
from MedGenLib.training.loop import OptimizationSettings, Trainer
from MedGenLib.training.recipes.tissue_levels import TissueLevelsRecipe

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


def test_shift_is_the_difference_to_the_own_mean_of_each_tissue():
    labels = half_bone()
    rng = np.random.default_rng(0)
    hu = np.where(labels == 3, 500.0, 20.0) + rng.normal(0, 10, labels.shape)
    expected = np.zeros((4, *cell_counts(labels.shape, (2.0,) * 3)), np.float32)
    expected[2] = (900 - 380) / 180
    expected[1] = (60 - 40) / 45
    shift = level_shift(CODEC.encode(hu, labels), labels, expected, CODEC)
    assert np.allclose(shift[2, :3, :, :9], 400, atol=6) and np.allclose(shift[1, 3:, :, :9], 40, atol=3)
    assert np.all(shift[0] == 0) and np.all(shift[3] == 0)  # no such tissue


@pytest.mark.parametrize(
    ("order", "signs"), [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 2, 0), (-1, -1, 1))]
)
def test_shift_lies_where_the_cells_lie(order, signs):
    """A shift that is linear in space has its values at every voxel of an oblique, anisotropic image."""
    tilt, _ = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.15, 1, 0.2], [0.1, -0.25, 1]]))
    affine = np.eye(4)
    affine[:3, :3] = (tilt * np.sign(np.diag(tilt)))[:, order] * signs * (2.0, 2.0, 4.0)
    affine[:3, 3] = 10, -20, 30
    grid = Geometry((24, 20, 16), affine)
    linear = (np.stack(np.indices(grid.shape), -1) @ affine[:3, :3].T + affine[:3, 3]) @ (0.7, -0.4, 0.9)
    reorientation = Reorientation.to(grid, "RAS")
    stored = reorientation.apply(linear)
    cells = cell_counts(stored.shape, reorientation.axes(grid.spacing))
    sums, counts = tissue_sums(stored, np.ones(stored.shape, np.uint8), cells, 1)
    inner = tuple(slice(3, n - 3) for n in grid.shape)
    shift = LevelShift.of((sums / counts).astype(np.float32), grid, reorientation, grid)
    assert np.allclose(shift.at(np.ones([n - 6 for n in grid.shape], np.uint8), inner), linear[inner], atol=1e-2)


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
    monkeypatch.setattr(flow_sampling, "with_levels", lambda scene, device: scene)
    without = generate(mask, **options).volume
    assert with_levels.geometry.is_close(mask.geometry)
    assert with_levels.array[bone].mean() > 750 > without.array[bone].mean()
    fine = [v.array - np.roll(v.array, 1, 2) for v in (with_levels, without)]
    assert fine[0][bone].std() == pytest.approx(fine[1][bone].std(), rel=0.25)  # the texture stays


def test_recipe_learns_that_thick_bone_is_brighter(tmp_path):
    """Two scans: a thick bone of 900 HU and a thin one of 300 HU."""
    scans = []
    for name, half, hu in (("thick", 8, 900), ("thin", 3, 300)):
        array = np.full((32, 32, 32), 40, np.float32)
        array[16 - half : 16 + half, 16 - half : 16 + half] = hu
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        write_volume(Volume(array, affine, "CT", "HU"), tmp_path / f"{name}.nii.gz")
        write_volume(LabelMap(np.ones(array.shape, np.uint8), affine), tmp_path / f"{name}_body.nii.gz")
        scans.append({"subject": name, "image": f"{name}.nii.gz", "label": f"{name}_body.nii.gz"})
    codec = {"centers": list(CODEC.centers), "scales": list(CODEC.scales)}
    config = {
        "data": {"adaptor": "tissue-scans", "codec": codec, "spacings_mm": [2.0], "scans": scans},
        "levels": {"package": "ct-tissue", "patch": 8},
        "folder": str(tmp_path),
    }
    torch.manual_seed(0)
    recipe = TissueLevelsRecipe(config, tmp_path)
    recipe.export = lambda networks, step, out: networks  # the package would need its card
    networks = Trainer(recipe, OptimizationSettings(steps=60, batch=1, warmup=5, ema=0.9), tmp_path / "run").run()
    for shares, levels in recipe.cells:
        bone = shares[3] > 0.9
        with torch.no_grad():
            found = networks["levels"](torch.from_numpy(shares)[None])[0, 3].numpy()
        assert found[bone].mean() == pytest.approx(levels[2][bone].mean(), abs=0.8)


def test_single_slices_and_models_without_the_network_keep_their_levels():
    manifest = find("mr-hippocampus")
    scene = type("Scene", (), {"manifest": manifest, "grid": np.zeros((4, 4, 4))})()
    assert flow_sampling.with_levels(scene, torch.device("cpu")) is scene
    scene = type("Scene", (), {"manifest": find("ct-tissue"), "grid": np.zeros((4, 4, 1))})()
    assert flow_sampling.with_levels(scene, torch.device("cpu")) is scene
