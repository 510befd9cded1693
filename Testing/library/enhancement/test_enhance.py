"""`enhance` with the embedded packages: better than interpolation, in place, and refused in a sentence."""

import json

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedGenLib import cli, enhance
from MedGenLib.degradation.kspace import ghosts, motion
from MedGenLib.degradation.noise import ct_noise, rician
from MedGenLib.degradation.slices import Acquisition, grid_of_thick
from MedGenLib.enhancement import measures
from MedGenLib.errors import Cancelled, InputError, MemoryPlanError, PackageError
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.packages.catalogue import embedded_dir

SAMPLES = embedded_dir().parent / "SampleData"


@pytest.fixture(scope="module")
def mr() -> Volume:
    """A real T1w crop at 1 mm."""
    volume = read_volume(SAMPLES / "hippocampus_real.nii.gz", modality="T1w")
    return volume.with_array(volume.array.astype(np.float32))


@pytest.fixture(scope="module")
def ct() -> Volume:
    volume = read_volume(SAMPLES / "ct_tissue_real.nii.gz")
    return crop(volume.with_array(volume.array.astype(np.float32)), (30, 30, 40), (78, 78, 80))


def thick(volume: Volume, axis: int = 2, factor: float = 3.0) -> Volume:
    grid = grid_of_thick(volume.geometry, axis, factor=factor)
    return Volume(Acquisition(volume.geometry, grid).degrade(volume.array), grid.affine, volume.modality, volume.unit)


def corners(volume: Volume) -> np.ndarray:
    """Places of the corner voxels, whatever the order of the axes."""
    index = np.array(np.meshgrid(*[(0, n - 1) for n in volume.shape])).reshape(3, -1)
    places = volume.affine[:3, :3] @ index + volume.affine[:3, 3:]
    return np.sort(places, axis=1)


def error(made: Volume, truth: Volume) -> float:
    """Root mean square, in the slab that stacks of all directions show."""
    inside = (slice(3, -3),) * 3
    return float(np.sqrt(np.square(resample_to(made, truth, 1).array - truth.array)[inside].mean()))


def test_thick_slices_become_cubes_that_are_better_than_splines(mr):
    stack = thick(mr)
    result = enhance(stack)
    report, made = result.report, result.volume
    assert max(made.spacing) / min(made.spacing) < 1.001 and report.passed and report.model == "enhance-mr"
    first = made.affine @ [-0.5, -0.5, -0.5, 1]
    assert np.allclose(first, stack.affine @ [-0.5, -0.5, -0.5, 1], atol=1e-3)  # the outer corner
    again = Acquisition(made.geometry, stack.geometry).degrade(made.array)
    assert np.abs(again - stack.array).mean() < 0.01 * np.ptp(stack.array)
    assert report.parameters["consistency"][0] < 0.01
    assert error(made, mr) < 0.9 * error(resample_to(stack, mr, 3), mr)


def test_three_stacks_show_more_than_one(mr):
    stacks = [thick(mr, axis) for axis in (2, 0, 1)]
    one, three = enhance(stacks[0]), enhance(stacks[0], second=stacks[1], third=stacks[2])
    assert len(three.report.parameters["consistency"]) == 3
    assert error(three.volume, mr) < 0.6 * error(one.volume, mr)


def test_a_ct_keeps_whole_hu_and_its_place(ct):
    stack = thick(ct, 0)
    made = enhance(stack, spacing=3.0).volume
    assert made.array.dtype == np.int16 and made.unit == "HU" and made.modality == "CT"
    assert error(made, ct) < 0.95 * error(resample_to(stack, ct, 3), ct)


def test_noise_is_removed_and_strength_is_a_share_of_it(mr, ct):
    rng = np.random.default_rng(0)
    sd = 0.1 * float(np.median(mr.array))
    quiet = ct.with_array(ndimage.gaussian_filter(ct.array, 1.0))  # the scan has noise of its own
    for truth, noisy, level in (
        (mr, rician(mr.array, sd, rng), sd),
        (quiet, ct_noise(quiet.array, ct.spacing, rng), 17),
    ):
        given = truth.with_array(noisy)
        result = enhance(given, task="denoise", noise=level)
        made = result.volume
        assert np.array_equal(made.affine, truth.affine) and made.shape == truth.shape
        assert error(made, truth) < 0.9 * error(given, truth)
        assert abs(result.report.parameters["mean change"]) < (2 if truth is quiet else 0.02 * np.median(mr.array))
        half = enhance(given, task="denoise", noise=level, strength=0.5).volume.array
        # Limits of the values are enforced at the end, which a few voxels show.
        assert np.percentile(np.abs(half - (given.array + made.array) / 2), 99) <= 1.0
        assert np.allclose(enhance(given, task="denoise", noise=level, strength=0).volume.array, noisy, atol=0.51)


def test_small_tiles_give_the_same(ct, monkeypatch):
    monkeypatch.setattr("MedGenLib.enhancement.restoring.TILES", {"normal": 160, "small": 18})
    normal, small = (enhance(ct, task="denoise", noise=15, memory=plan).volume.array for plan in ("normal", "small"))
    assert np.abs(normal.astype(int) - small).max() <= 1
    monkeypatch.setattr("MedGenLib.devices.free_memory", lambda *_: 2**20)
    with pytest.raises(MemoryPlanError, match="needs .* GiB, but 0.0 GiB are free; give a larger spacing"):
        enhance(ct, task="denoise")


def test_brightness_becomes_even():
    i, j, k = np.indices((48, 48, 40)) - 24
    inside = i**2 + j**2 + k**2 < 20**2
    tissue = np.where(inside, 400.0 + 200.0 * (i**2 + j**2 + k**2 < 14**2), 5.0)
    tissue += np.random.default_rng(0).normal(0, 4, tissue.shape)
    field = np.exp(0.012 * i + 0.006 * j)
    volume = Volume((tissue * field).clip(0).astype(np.float32), np.diag([2.0, 2, 2, 1]), "T1w")
    made = enhance(volume, task="debias").volume
    core = ndimage.binary_erosion(tissue > 550, iterations=2)
    before, after = (image[core].std() / image[core].mean() for image in (volume.array, made.array))
    assert after < 0.4 * before and np.array_equal(made.affine, volume.affine)


def test_what_cannot_be_enhanced_is_refused_in_a_sentence(mr, ct):
    stack = thick(mr)
    for images, options, sentence in (
        ([mr], {}, "voxels of 1 x 1 x 1 mm, so that cubes of 1 mm are not finer"),
        ([ct], {"task": "debias"}, "A CT has no uneven brightness"),
        ([ct], {"task": "deghost"}, "A CT has no ghosts of k-space"),
        ([stack], {"task": "denoise", "second": stack}, "The task denoise takes one image"),
        ([stack.with_array(np.zeros(stack.shape, np.float32))], {}, "so few values that it looks like a mask"),
        ([thick(ct, 0)], {"second": stack}, "The stacks are CT and MR images"),
        ([stack], {"spacing": 0.01}, "spacing"),
        ([stack.with_array(np.where(stack.array > 50, np.nan, stack.array))], {}, "not finite|NaN"),
    ):
        with pytest.raises(InputError, match=sentence):
            enhance(*images, **options)
    with pytest.raises(PackageError, match="'enhance-ct' restores CT images, but this one is T1w"):
        enhance(stack, model="enhance-ct")
    with pytest.raises(InputError, match="'mr-hippocampus' needs a mask"):
        enhance(stack, model="mr-hippocampus")


def test_another_contrast_is_said(mr):
    t2 = thick(Volume(mr.array.max() - mr.array, mr.affine, "T2w"))
    result = enhance(t2)
    assert any("was trained on T1w images" in sentence for sentence in result.report.sentences)


def test_the_command_writes_everything_and_repeats(mr, tmp_path, capsys):
    write_volume(thick(mr), tmp_path / "a.nii.gz")
    write_volume(thick(mr, 0), tmp_path / "b.nrrd")
    words = ["enhance", tmp_path / "a.nii.gz", "--second", tmp_path / "b.nrrd", "-o", tmp_path / "fine.nii.gz"]
    words += ["--modality", "T1w", "--preview", tmp_path / "p.png", "--report", tmp_path / "r.json"]
    assert cli.main([*map(str, words), "--dicom", str(tmp_path / "dicom")]) == 0
    assert "The slices of the result differ from those of the input by " in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["task"] == "enhance" and report["passed"] and len(report["parameters"]["consistency"]) == 2
    made = read_volume(tmp_path / "fine.nii.gz")
    series = read_volume(tmp_path / "dicom")
    assert np.allclose(np.sort(np.abs(series.spacing)), np.sort(made.spacing), atol=1e-3)
    assert np.allclose(corners(series), corners(made), atol=0.01)
    assert cli.main(["repeat", str(tmp_path / "fine.nii.gz")]) == 0
    assert cli.main([*map(str, words[:2]), "-o", str(tmp_path / "even.nii.gz"), "--task", "debias", "-q"]) == 0
    assert cli.main(["repeat", str(tmp_path / "even.nii.gz"), "-q"]) == 0


def test_a_stopped_run_writes_nothing(mr, tmp_path):
    class Stop:
        def __call__(self, progress) -> None:
            if progress.stage == "restoring":
                raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        enhance(thick(mr), progress=Stop())


def head_in_air() -> Volume:
    """A noisy phantom: skin, brain with folds, and ventricles."""
    i, j, k = np.indices((56, 64, 12)) - np.array([28, 32, 6])[:, None, None, None]
    rng = np.random.default_rng(0)
    skin, brain = ((i / a) ** 2 + (j / b) ** 2 < 1 for a, b in ((24, 28), (20, 24)))
    folds = ndimage.gaussian_filter(rng.standard_normal(i.shape), 2) > 0.04
    tissue = 40.0 * skin + brain * (80 + 60 * folds) - 70 * ((i / 4) ** 2 + ((j - 4) / 9) ** 2 < 1)
    smooth = ndimage.gaussian_filter(tissue.clip(0).astype(np.float32), (0.6, 0.6, 0))
    return Volume(rician(smooth, 2, rng), np.diag([-3.0, -3, 4, 1]), "T1w")


@pytest.mark.parametrize(("axis", "count", "strength"), [(1, 2, 0.3), (0, 4, 0.4)])
def test_ghosts_are_removed(axis, count, strength):
    head = head_in_air()
    given = head.with_array(ghosts(head.array, axis, count, strength))
    result = enhance(given, task="deghost")
    made, facts = result.volume, result.report.parameters
    found = facts["ghosts"]
    assert found["every_line"] == count and found["direction"] == ("R-L", "A-P")[axis]
    assert abs(found["lost"] - strength) < 0.02 and facts["consistency"][0] < 0.005
    assert np.sqrt(np.square(made.array - head.array).mean()) < 0.1 * np.sqrt(
        np.square(given.array - head.array).mean()
    )
    assert np.array_equal(made.affine, head.affine) and result.report.passed


def test_what_is_no_ghost_of_strength_stays_bit_for_bit():
    head = head_in_air()
    lines = np.round(np.fft.fftfreq(64) * 64).astype(int)[:, None] % 2
    turned = np.abs(np.fft.ifft(np.fft.fft(head.array, axis=1) * np.exp(0.4j * lines), axis=1)).astype(np.float32)
    moved = motion(head.array, head.spacing, np.random.default_rng(0))
    for values in (head.array, turned, moved):
        result = enhance(head.with_array(values), task="deghost")
        assert np.array_equal(result.volume.array, values) and result.report.parameters["ghosts"] is None
        assert any("No periodic ghosts" in sentence for sentence in result.report.sentences)
    with pytest.raises(InputError, match="negative values"):
        enhance(head.with_array(head.array - 50), task="deghost")


def chest(path, rows=200, columns=300):
    """A noisy radiograph as a scanner stores it, and what it would show without noise."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    y, x = np.indices((rows, columns)) / np.array([rows, columns])[:, None, None]
    truth = 800 + 300 * np.sin(9 * x) * np.cos(7 * y) + 150 * (np.sin(40 * y) > 0.6)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.3", pydicom.uid.ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = kind, "1.2.3", "CR"
    image.Rows, image.Columns, image.ImagerPixelSpacing = rows, columns, [0.2, 0.15]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
    noisy = truth + np.random.default_rng(0).normal(0, 40, truth.shape)
    image.PixelData = np.rint(noisy).astype(np.uint16).tobytes()
    image.save_as(path, enforce_file_format=True)
    return truth.T[..., None]


def test_a_radiograph_gets_less_noise_and_stays_in_place(tmp_path, capsys):
    image, out = tmp_path / "chest.dcm", tmp_path / "quiet.nii.gz"
    truth = chest(image)
    words = ["enhance", str(image), "-o"]
    assert cli.main([*words, str(out), "--task", "denoise", "--preview", str(tmp_path / "p.png")]) == 0
    assert "Noise 4" in capsys.readouterr().out
    made = read_volume(out)
    assert made.shape == truth.shape and np.allclose(made.spacing[:2], (0.15, 0.2))
    assert np.sqrt(np.square(made.array - truth).mean()) < 16 and abs((made.array - truth).mean()) < 1
    for more, sentence in (([], "radiograph"), (["--task", "denoise", "--dicom", str(tmp_path / "d")], "leave out")):
        assert cli.main([*words, str(tmp_path / "no.nii.gz"), *more]) == 2
        assert sentence in capsys.readouterr().err and not (tmp_path / "no.nii.gz").exists()


def test_one_slice_has_noise_but_no_slices_beside_it(mr):
    one = crop(mr, (0, 0, 17), (*mr.shape[:2], 18))
    given = one.with_array(rician(one.array, 25, np.random.default_rng(0)))
    assert measures.noise_of(given.array) > 20  # it was 0
    with pytest.raises(InputError, match="A single slice has no neighbors"):
        enhance(Volume(given.array, given.affine @ np.diag([1, 1, 5, 1]), "T1w"))
    picture = Volume(np.random.default_rng(0).random((40, 50, 1), np.float32), np.eye(4), "picture")
    assert any("may be fine structure" in said for said in enhance(picture, task="denoise").report.sentences)


def test_a_slice_lies_where_its_dicom_file_says(mr, tmp_path):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec((20, 15, 30), degrees=True).as_matrix()
    one = crop(mr, (0, 0, 17), (*mr.shape[:2], 18))
    (file,) = write_series(Volume(one.array, turn @ one.affine @ np.diag([1, 1, 3, 1]), "T1w"), tmp_path)
    made, known = enhance(file, task="debias").volume, read_volume(tmp_path)
    assert made.geometry.is_close(known.geometry) and made.modality == "MR"
