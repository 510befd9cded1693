"""MR <-> CT with the real embedded models: geometry, planes, units, licenses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedGenLib import translate
from MedGenLib.errors import Cancelled, InputError, LicenseError, MemoryPlanError
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.metrics.image import dice
from MedGenLib.pipelines import slice_sampling

FAST = {"device": "cpu", "accept_license": True, "preset": "draft"}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def head() -> Volume:
    return read_volume(sample("head_t1.nii.gz"), modality="T1w")


@pytest.fixture(scope="module")
def slab(head) -> Volume:
    """Twelve axial slices through the ventricles."""
    middle = head.shape[2] // 2
    return crop(head, (0, 0, middle), (*head.shape[:2], middle + 12))


@pytest.fixture(scope="module")
def block(head) -> Volume:
    """110 mm of the head from the skull base up, wide enough for all planes."""
    return crop(head, (0, 0, 60), (*head.shape[:2], 170))


def placed(volume: Volume, spacing: tuple[float, float, float], flip: bool = False) -> Volume:
    """The same voxels somewhere else in space, oblique."""
    turn = Rotation.from_euler("xyz", [15, 10, -25], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = volume.direction @ turn * np.array(spacing)
    affine[:3, 3] = [3.5, -7.25, 11.125]
    array = volume.array
    if flip:
        array = np.ascontiguousarray(array[::-1])
        affine[:3, 3] += affine[:3, 0] * (array.shape[0] - 1)
        affine[:3, 0] *= -1
    return Volume(array, affine, volume.modality, volume.unit)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 5.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_the_output_lies_exactly_where_the_image_lies(slab, tmp_path, spacing, flip):
    image = placed(slab, spacing, flip)
    result = translate(image, "CT", **FAST)
    back = read_volume(write_volume(result.volume, tmp_path / "ct.nii.gz"))
    assert back.shape == image.shape
    corners = np.array([[i, j, k, 1] for i in (0, 99) for j in (0, 99) for k in (0, 11)]).T
    assert np.abs(back.affine @ corners - image.affine @ corners).max() < 1e-4


def test_storage_order_does_not_change_the_translation(slab):
    affine = slab.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (slab.shape[0] - 1)
    affine[:3, 0] *= -1
    mirrored = Volume(np.ascontiguousarray(slab.array[::-1]), affine, "T1w")
    straight, flipped = (translate(v, "CT", **FAST).volume.array for v in (slab, mirrored))
    assert np.abs(straight - flipped[::-1]).max() <= 1  # rounding to whole HU


def test_a_head_gets_a_skull_a_brain_and_air_around(slab):
    hu = translate(slab, "CT", **FAST).volume
    assert hu.unit == "HU" and hu.modality == "CT"
    inside = ndimage.binary_fill_holes(slab.array[..., 6] > 40)
    brain = ndimage.binary_erosion(inside, iterations=25)
    values = hu.array[..., 6]
    assert 15 < np.median(values[brain]) < 55
    ring = inside & ~ndimage.binary_erosion(inside, iterations=20)
    assert (values[ring] > 250).mean() > 0.15
    # The network draws the air within 12 mm itself.
    assert values[~ndimage.binary_dilation(inside, iterations=6)].max() < -850
    far = ndimage.distance_transform_edt(~inside) > 18
    assert far.any() and (values[far] == -1000).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_translated_in_its_plane(head, axis):
    middle = [n // 2 for n in head.shape]
    low, high = [0, 0, 0], list(head.shape)
    low[axis], high[axis] = middle[axis], middle[axis] + 1
    image = crop(head, low, high)
    result = translate(image, "CT", **FAST)
    assert result.volume.shape == image.shape
    assert np.array_equal(result.volume.affine, image.affine)
    plane = {0: "sagittal", 1: "coronal", 2: "axial"}[axis]
    assert result.report.parameters["planes"] == [plane]
    assert result.volume.array.max() > 500


@pytest.mark.slow
def test_presets_choose_the_slices_and_mirrored_passes(block):
    draft, normal, best = (translate(block, "CT", **{**FAST, "preset": p}) for p in ("draft", "normal", "best"))
    found = [result.report.parameters for result in (draft, normal, best)]
    assert [len(parameters["planes"]) for parameters in found] == [3, 3, 3]
    assert [parameters["every_nth_slice"] for parameters in found] == [[3] * 3, [2] * 3, [1] * 3]
    assert [parameters["mirrored_passes"] for parameters in found] == [False, False, True]
    hu = [result.volume.array.astype(float) for result in (draft, normal, best)]
    for array in hu[:2]:  # interpolated slices show the same head
        assert np.abs(array - hu[2])[hu[2] > -500].mean() < 40
        assert dice(array > 250, hu[2] > 250) > 0.93


def test_the_window_of_the_head_changes_no_value(block, monkeypatch):
    """The network sees each slice around its own part of the head; whole slices give the same image."""
    cut = translate(block, "CT", **FAST)
    assert cut.report.parameters["every_nth_slice"] == [3, 3, 3] and cut.report.passed
    monkeypatch.setattr(slice_sampling, "MARGIN", 1000)
    whole = translate(block, "CT", **FAST)
    assert np.abs(cut.volume.array.astype(int) - whole.volume.array).max() <= 2


@pytest.mark.parametrize("preset", ["draft", "normal"])
def test_a_slab_is_translated_in_its_wide_plane_with_every_slice(slab, preset):
    """Strips of two centimeters, which the other planes see, would make the brain fat."""
    result = translate(slab, "CT", **{**FAST, "preset": preset})
    assert result.report.parameters["planes"] == ["axial"]
    assert result.report.parameters["every_nth_slice"] == [1]
    inside = ndimage.binary_fill_holes(slab.array[..., 6] > 40)
    brain = ndimage.binary_erosion(inside, iterations=25)
    assert all(25 < np.median(part[brain]) < 45 for part in np.moveaxis(result.volume.array, 2, 0))


def test_thick_slices_keep_to_their_plane_and_are_not_resampled(slab):
    report = translate(placed(slab, (1.0, 1.0, 5.0)), "CT", **{**FAST, "preset": "best"}).report
    assert report.parameters["planes"] == ["axial"]
    assert report.parameters["working_shape"] == list(slab.shape)


def test_a_coarse_image_is_worked_on_at_the_models_spacing(slab):
    coarse = resample(placed(slab, (1.0, 1.0, 1.0)), (2.0, 2.0, 2.0))
    result = translate(coarse, "CT", **FAST)
    assert result.report.parameters["working_spacing_mm"] == [1.0, 1.0, 1.0]
    assert result.volume.shape == coarse.shape


def test_ct_becomes_mr_with_a_dark_skull(slab):
    ct = translate(slab, "CT", **FAST).volume
    mr = translate(ct, "T1w", **FAST).volume
    assert mr.modality == "T1w" and mr.array.min() >= 0
    skull = ct.array > 600
    brain = ndimage.binary_erosion(np.abs(ct.array - 35) < 15, iterations=2)
    assert np.median(mr.array[skull]) < 0.6 * np.median(mr.array[brain])


@pytest.mark.parametrize(
    ("to", "model", "words"),
    [
        ("T1w", None, "No model translates"),
        ("PET", None, "PET"),
        ("CT", "ct-tissue", "needs a mask"),
        ("T1w", "head-mr-to-ct", "makes CT, not T1w"),
        ("T1w", "head-ct-to-mr", "looks like MR|is T1w"),
    ],
)
def test_the_wrong_way_round_ends_in_a_sentence(slab, to, model, words):
    with pytest.raises(Exception, match=words) as caught:
        translate(slab, to, model=model, **FAST)
    assert "\n" not in str(caught.value)


def test_values_of_mr_are_refused_by_ct_to_mr(slab):
    nameless = Volume(slab.array, slab.affine)
    with pytest.raises(InputError, match="looks like MR"):
        translate(nameless, "T1w", model="head-ct-to-mr", **FAST)


def test_the_license_is_asked_for_once(slab):
    thin = crop(slab, (0, 0, 0), (*slab.shape[:2], 1))
    options = {"device": "cpu", "preset": "draft"}
    with pytest.raises(LicenseError, match="--accept-license"):
        translate(thin, "CT", **options)
    translate(thin, "CT", accept_license=True, **options)
    assert translate(thin, "CT", **options).volume.unit == "HU"


def test_lines_and_constants_are_refused(slab):
    line = crop(slab, (0, 90, 5), (slab.shape[0], 91, 6))
    with pytest.raises(InputError, match="a line or a point"):
        translate(line, "CT", **FAST)
    with pytest.raises(InputError, match="Every voxel"):
        translate(slab.with_array(np.full(slab.shape, 7.0, np.float32)), "CT", **FAST)


def test_memory_is_planned_first(slab, monkeypatch):
    monkeypatch.setattr("MedGenLib.pipelines.slice_sampling.free_memory", lambda: 1_000_000)
    with pytest.raises(MemoryPlanError, match="GiB"):
        translate(slab, "CT", **FAST)


def test_cancel_takes_effect_at_the_next_batch(slab):
    def stop(progress):
        if progress.step == 1:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        translate(slab, "CT", progress=stop, **FAST)
