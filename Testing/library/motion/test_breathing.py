"""A breathing series keeps what it promises: phase 0, mass, volume, travel, invertible motion, geometry."""

import numpy as np
import pytest
import SimpleITK
from chests import LESION, LUNGS, chest

from MedGenLib import breathe
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume, crop, to_sitk
from MedGenLib.motion.trace import Cycle

TILTED = np.array(SimpleITK.Euler3DTransform((0, 0, 0), 0.2, -0.15, 0.1).GetMatrix()).reshape(3, 3)
GRIDS = {"plain": ((3, 3, 3), None), "oblique": ((3, 3, 3), TILTED), "thick": ((2.5, 2.5, 4), TILTED)}


@pytest.fixture(scope="module", params=GRIDS)
def series(request):
    image, labels = chest(*GRIDS[request.param])
    return breathe(image, labels=labels, phases=4, amplitude=15, chest=4)


@pytest.fixture(scope="module")
def scene():
    return chest()


def in_lps(vectors):
    return vectors * (-1, -1, 1)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_first_phase_is_the_input(grid):
    image, labels = chest(*GRIDS[grid])
    series = breathe(image, labels=labels, phases=2)
    assert np.array_equal(series.volumes[0].array, image.array) and series.volumes[0].array.dtype == np.int16
    assert np.array_equal(series.labels[0].array, labels.array)
    for volume in series.volumes:
        assert np.array_equal(volume.affine, image.affine)
    assert (series.displacement(0) == 0).all()


def test_the_mass_of_the_lungs_stays(series):
    """Measured from the images and the moved labels; the Jacobian alone keeps it, too."""
    masses = [
        float((volume.array[labels.array == LUNGS] + 1000.0).sum())
        for volume, labels in zip(series.volumes, series.labels, strict=True)
    ]
    assert np.abs(np.divide(masses, masses[0]) - 1).max() < 0.01
    assert max(abs(phase.blood - 1) for phase in series.phases) < 0.03
    assert min(phase.least_jacobian for phase in series.phases) > 0
    middle = series.volumes[2].array[series.labels[2].array == LUNGS]
    assert np.median(middle) > -795  # denser at expiration


def test_motion_and_displacement_are_inverse(series):
    """Every voxel of a phase, followed to the input by its displacement and back by the motion."""
    index = np.stack(np.indices(series.source.shape), axis=-1).reshape(-1, 3)
    places = index @ series.source.affine[:3, :3].T + series.source.origin
    for phase in (1, 2):
        field = in_lps(series.displacement(phase).reshape(-1, 3))
        back = series.moved(places + field, phase)
        assert np.linalg.norm(field, axis=1).max() > 8
        assert np.linalg.norm(back - places, axis=1).max() < 0.1


def test_itk_warps_the_input_by_the_displacement_into_the_phase(series):
    """Outside of the lungs, whose density changes."""
    field = SimpleITK.GetImageFromArray(series.displacement(2).transpose(2, 1, 0, 3).astype(float), isVector=True)
    source = to_sitk(series.source)
    field.CopyInformation(source)
    warped = SimpleITK.Resample(source, source, SimpleITK.DisplacementFieldTransform(field), SimpleITK.sitkBSpline)
    warped = SimpleITK.GetArrayFromImage(warped).transpose(2, 1, 0)
    inner = (slice(8, -8),) * 3
    same = (series.labels[2].array != LUNGS)[inner]
    low, high = series.source.array.min(), series.source.array.max()
    difference = np.abs(warped.clip(low, high) - series.volumes[2].array)[inner][same]
    assert difference.max() < 5 and np.mean(difference > 1) < 0.001


@pytest.mark.parametrize("grid", GRIDS)
def test_the_dome_travels_by_the_amplitude(grid):
    """Found in the images: where lung becomes liver."""
    series = breathe(chest(*GRIDS[grid])[0], phases=4, amplitude=15, chest=0)
    (x, y, _), heights = series._mover.dome, []
    order = Reorientation.to(series.source.geometry, "RAS")
    step = order.axes(series.source.spacing)[2]
    for volume in (series.volumes[0], series.volumes[2]):
        column = order.apply(volume.array)[x, y].astype(float)
        edge = np.flatnonzero((column[:-1] > -400) & (column[1:] <= -400))[0]
        part = column[edge - 3 : edge + 4]
        heights.append(step * (edge - 3 + np.sum((part - part[-1]) / (part[0] - part[-1]))))
    assert heights[1] - heights[0] == pytest.approx(15, abs=0.5)


def test_the_lesion_moves_with_its_label(series):
    lesion = series.labels[2].array == LESION
    assert np.mean(series.volumes[2].array[lesion] > -400) > 0.8
    index = np.mean(np.nonzero(lesion), axis=1)
    center = series.source.affine[:3, :3] @ index + series.source.origin
    path = series.tracks["lesion"]
    assert np.linalg.norm(path[2] - center) < 1.5  # half a voxel
    assert 4 < np.linalg.norm(path[2] - path[0]) < 15


def test_what_does_not_move_stays_bit_by_bit(scene):
    image, _ = scene
    series = breathe(image, phases=2, amplitude=15, chest=0)
    bones = image.array >= 200
    assert np.array_equal(series.volumes[1].array[bones], image.array[bones])
    assert np.array_equal(series.volumes[1].array[..., -6:], image.array[..., -6:])
    # The lung slides: beside the wall it moves, too.
    wall = np.abs(series.displacement(1)[..., 2])
    beside = (series.lungs.array > 0) & ~np.roll(series.lungs.array > 0, -1, axis=0)
    low = beside & (np.arange(image.shape[2]) < image.shape[2] // 2)
    assert np.median(wall[low]) > 3


@pytest.mark.parametrize("start", ["inhale", "exhale"])
def test_the_tidal_volume_is_as_asked(scene, start):
    series = breathe(scene[0], phases=4, tidal_volume=300, start=start)
    volumes = [np.count_nonzero(labels.array) * 0.027 for labels in series.labels]
    assert np.ptp(volumes) == pytest.approx(300, rel=0.02)
    assert (volumes[0] == max(volumes)) == (start == "inhale")


def test_the_order_of_the_voxels_does_not_matter(scene):
    image, _ = scene
    plain = breathe(image, phases=2).volumes[1]
    turned = np.diag([1.0, 1.0, 1.0, 1.0])
    turned[:3, :3] = image.affine[:3, [2, 0, 1]] * (-1, 1, -1)
    last = np.array(image.shape)[[2, 0, 1]] - 1
    turned[:3, 3] = image.origin - turned[:3, :3] @ (last * (1, 0, 1))
    stored = np.flip(image.array.transpose(2, 0, 1), (0, 2))
    other = breathe(Volume(stored, turned, "CT", "HU"), phases=2).volumes[1]
    assert np.array_equal(other.affine, turned)
    assert np.array_equal(np.flip(other.array, (0, 2)).transpose(1, 2, 0), plain.array)


def test_points_move_along_loops(scene):
    """Up and down on different ways, because the chest follows the diaphragm."""
    place = {"base": (180, 140, 500)}
    looped = breathe(scene[0], phases=8, lag=0.1, points=place).tracks["base"]
    direct = breathe(scene[0], phases=8, lag=0, points=place).tracks["base"]
    assert abs(looped[2, 1] - looped[6, 1]) > 0.5 > 0.01 > abs(direct[2, 1] - direct[6, 1])
    assert looped[4, 2] - looped[0, 2] > 5


def trace(path, seconds, breaths=4.0):
    time = np.linspace(0, seconds, 400)
    position = np.sin(2 * np.pi * breaths * time / seconds) ** 3
    path.write_text("time,position\n" + "\n".join(f"{a:.4f},{b:.5f}" for a, b in zip(time, position, strict=True)))
    return path


def test_a_trace_sets_the_phases(scene, tmp_path):
    cycle = Cycle.measured(trace(tmp_path / "t.csv", 16), "inhale")
    series = breathe(scene[0], phases=4, amplitude=12, trace=tmp_path / "t.csv")
    rises = [phase.rise for phase in series.phases]
    assert rises == pytest.approx([0, 6, 12, 6], abs=0.4)
    assert cycle.level.argmax() == 0 and np.ptp(cycle.level) == pytest.approx(1)


def damaged(scene, kind, folder):
    image, labels = scene
    options = {"phases": 2}
    if kind == "mr":
        image = Volume(np.abs(image.array) / 3, image.affine, "T1w")
    elif kind == "offset":
        image = image.with_array(image.array + 1024)
    elif kind == "no lungs":
        image = image.with_array(np.where(labels.array > 0, 40, image.array).astype(np.int16))
    elif kind == "cut":
        image = crop(image, (0, 0, 30), image.shape)
    elif kind == "folds":
        image, _ = chest(height=200)
        options["amplitude"] = 59
    elif kind == "flat trace":
        options["trace"] = trace(folder / "t.csv", 4, breaths=0.4)
    elif kind == "no trace":
        options["trace"] = folder / "missing.csv"
    elif kind == "text":
        (folder / "t.csv").write_text("1,2\n2,deep\n")
        options["trace"] = folder / "t.csv"
    elif kind == "grid":
        options["labels"] = LabelMap(labels.array[:-1], labels.affine)
    elif kind == "outside":
        options["points"] = {"tumor": (0, 0, 0)}
    elif kind == "deep":
        image, _ = chest(height=200)
        options["tidal_volume"] = 2000
    elif kind == "little":
        options |= {"tidal_volume": 20, "chest": 10}
    return image, options


@pytest.mark.parametrize(
    "kind, sentence",
    [
        ("mr", "is T1w, but a breathing series is made from a CT"),
        ("offset", "look like HU \\+ 1024"),
        ("no lungs", "shows 0 ml of lung"),
        ("cut", "the diaphragm is cut"),
        ("folds", "59 mm folds the tissue of this CT; choose at most [1-5]?[0-9] mm"),
        ("flat trace", "shows no whole cycle"),
        ("no trace", "cannot be read"),
        ("text", "Line 2 of the trace"),
        ("grid", "on another grid"),
        ("outside", "The point tumor lies outside"),
        ("deep", "2000 ml folds the tissue of this CT; choose at most [1-9][0-9]+ ml"),
        ("little", "The chest alone breathes"),
    ],
)
def test_bad_input(scene, kind, sentence, tmp_path):
    image, options = damaged(scene, kind, tmp_path)
    with pytest.raises(InputError, match=sentence) as raised:
        breathe(image, **options)
    assert str(raised.value).count(". ") == 0


def test_the_named_amplitude_does_not_fold():
    image, _ = chest(height=200)
    with pytest.raises(InputError) as raised:
        breathe(image, phases=2, amplitude=59)
    most = float(str(raised.value).split()[-2])
    assert most > 20 and breathe(image, phases=2, amplitude=most).phases[1].least_jacobian > 0


def test_a_nodule_is_no_lung(scene):
    image, labels = scene
    nodule = LabelMap((labels.array == LESION).astype(np.uint8), labels.affine, {1: "Lung nodule"})
    named, found = (breathe(image, labels=mask, phases=2) for mask in (nodule, None))
    assert np.array_equal(named.volumes[1].array, found.volumes[1].array)
    assert set(named.tracks) == {"Lung nodule"}


def test_lungs_that_are_cut_above_are_said(scene):
    image, _ = scene
    cut = crop(image, (0, 0, 0), (*image.shape[:2], 65))
    assert "highest slice of the CT cuts the lungs" in breathe(cut, phases=2, amplitude=8).sentences[-1]
    assert breathe(image, phases=2, amplitude=8).notes == []


def test_a_stopped_run_ends_at_once(scene):
    seen = []

    def stop(progress):
        seen.append(progress.step)
        if progress.stage == "breathing" and progress.step == 2:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        breathe(scene[0], phases=50, progress=stop)
    assert seen[-1] == 2
