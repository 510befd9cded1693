"""The reader study: the blinded list, one reader's answers, and the scores."""

import csv
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from dicoms import MARKS, patient_series

from MedGenLib.cli import main
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import write_volume
from MedGenLib.io.provenance import Provenance
from MedGenLib.metrics.classification import exact_interval
from MedGenLib.reader_study import statistics
from MedGenLib.reader_study.preparation import make
from MedGenLib.reader_study.reading import Answer, Reading, read_answers
from MedGenLib.reader_study.report import FILES, write_report
from MedGenLib.reader_study.scoring import ALL, Answers, rows_of, rows_of_all, score
from MedGenLib.reader_study.study import Study, key_of
from MedGenLib.worker.client import Worker

SHAPE = (40, 36, 12)


def phantom(seed=0, shape=SHAPE, spacing=(2.0, 2.0, 3.0), noise=25.0) -> Volume:
    """A CT in RAS: fat around soft tissue, with a bone at the patient's right anterior side."""
    dice = np.random.default_rng(seed)
    i, j, k = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    x, y = i / shape[0] - 0.5, j / shape[1] - 0.5
    radius = np.hypot(x, y)
    values = np.full(shape, -1000.0)
    values[radius < 0.4] = -90
    values[radius < 0.33] = 45
    values[(x > 0.1) & (x < 0.2) & (y > 0.1) & (y < 0.2)] = 700  # +x is the right, +y the front
    inside = radius < 0.4
    values[inside] += noise * dice.standard_normal(inside.sum())
    return Volume(np.float32(values), np.diag([*spacing, 1.0]), "CT", "HU")


@pytest.fixture
def folders(tmp_path):
    """Three real and four synthetic volumes whose names reveal their kind."""
    return (
        written(tmp_path / "real", [phantom(seed) for seed in range(3)]),
        written(tmp_path / "synthetic", [phantom(seed) for seed in range(10, 14)]),
    )


def written(folder, volumes):
    folder.mkdir()
    for number, volume in enumerate(volumes):
        write_volume(volume, folder / f"{folder.name}-{number}.nrrd")
    return folder


@pytest.fixture
def study(folders, tmp_path):
    made = make([folders[0]], [folders[1]], tmp_path / "study", per_volume=2, seed=1)
    return made.study


def truth_of(study) -> dict[str, bool]:
    rows = json.loads(key_of(study).read_text())["items"]
    return {row["name"]: row["synthetic"] for row in rows}


def read_all(study, reader, accuracy=1.0, count=None, seed=0):
    """A reader who is right for a fraction of the images."""
    reading, truth, dice = Reading(study, reader), truth_of(study), random.Random(seed)
    while (item := reading.next()) is not None and reading.progress[0] != count:
        right = dice.random() < accuracy
        reading.answer(item, truth[item.name] == right, dice.randint(1, 5), dice.uniform(1, 9))
    return reading


# --- preparation ---


def test_half_of_the_items_are_synthetic(folders, tmp_path):
    made = make([folders[0]], [folders[1]], tmp_path / "s", per_volume=2)
    truth = truth_of(made.study)
    assert made.items == len(truth) == 12
    assert sum(truth.values()) == 6
    assert made.warnings == ("2 of the synthetic images were left out, so that half are synthetic.",)
    assert list(truth) == [f"item_{n:03d}" for n in range(1, 13)]


def test_all_volumes_come_before_a_second_slice_of_one(folders, tmp_path):
    made = make([folders[0]], [folders[1]], tmp_path / "s", per_volume=3)
    rows = json.loads(made.key.read_text())["items"]
    assert {row["source"] for row in rows} == {
        *(f"real-{n}.nrrd" for n in range(3)),
        *(f"synthetic-{n}.nrrd" for n in range(4)),
    }
    assert len({(row["source"], row["position"]) for row in rows}) == 18


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_the_study_reveals_nothing(folders, tmp_path, kind):
    made = make([folders[0]], [folders[1]], tmp_path / "s", items=kind)
    files = [path for path in made.study.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes().lower()
        assert not any(word in content for word in (b"real", b"synthetic", b"medgen.")), path
    items = [path for path in files if path.parent.name == "items"]
    assert len(items) == made.items
    assert len({path.stat().st_size for path in items}) == 1
    assert len({path.stat().st_mtime_ns for path in items}) == 1
    assert made.study not in made.key.parents
    assert made.key.name == "s.key.json"


def test_the_order_is_independent_of_the_truth(folders, tmp_path):
    orders = set()
    for seed in range(4):
        made = make([folders[0]], [folders[1]], tmp_path / f"s{seed}", per_volume=1, seed=seed)
        orders.add(tuple(truth_of(made.study).values()))
    assert len(orders) > 1


def test_same_seed_same_study(folders, tmp_path):
    a, b, c = (
        make([folders[0]], [folders[1]], tmp_path / name, seed=seed).study
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    hashes = [[item.sha256 for item in Study.open(s).items] for s in (a, b, c)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert Study.open(a).identity != Study.open(b).identity


def test_slice_is_in_radiological_orientation_with_the_window(folders, tmp_path):
    made = make([folders[0]], [folders[1]], tmp_path / "s", window=(400, 40))
    item = Study.open(made.study).items[0]
    image = item.image()
    assert image.array.dtype == np.uint8
    assert (image.window, image.level, image.spacing) == (255, 127.5, (2, 2, 1))
    np.testing.assert_array_equal(image.array[0], SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(item.path))))
    _, rows, columns = image.array.shape
    quarter = image.array[0, : rows // 2, : columns // 2]
    assert (quarter == 255).sum() > 4  # the bone: patient's right anterior side, upper left of the screen
    assert (image.array == 255).sum() == (quarter == 255).sum()
    middle = image.array[0, rows // 2 - 3 : rows // 2 + 3, columns // 2 - 3 : columns // 2 + 3]
    error = 255 / 400 * 25 / middle.size**0.5  # of the mean of the noise
    assert abs(middle.mean() - 255 * (45 + 160) / 400) < 5 * error


def test_volume_is_left_posterior_superior_with_the_window_in_it(tmp_path):
    volume = phantom(noise=0)
    steps = volume.array.copy()
    steps[15:25, 15:25, 9:] = 140  # brighter towards the head
    turned = replace(volume, array=np.ascontiguousarray(steps[::-1, :, ::-1]), affine=np.diag([-2.0, 2, -3, 1]))
    real = written(tmp_path / "a", [replace(volume, array=steps)])
    made = make([real], [written(tmp_path / "b", [phantom(1)])], tmp_path / "s", items="volumes")
    again = make([written(tmp_path / "c", [turned])], [tmp_path / "b"], tmp_path / "t", items="volumes")
    images = []
    for study in (made.study, again.study):
        name = next(name for name, synthetic in truth_of(study).items() if not synthetic)
        images.append(next(i for i in Study.open(study).items if i.name == name).image())
    array = images[0].array
    np.testing.assert_array_equal(array, images[1].array)
    assert images[0].spacing == (2, 2, 3)
    assert array.dtype == np.int16 and (array.min(), array.max()) == (0, 4095)
    front_right = array[:, : array.shape[1] // 2, : array.shape[2] // 2]
    assert (front_right == 4095).any() and (array == 4095).sum() == (front_right == 4095).sum()
    center = array[:, array.shape[1] // 2, array.shape[2] // 2]
    assert center[-1] > center[0]


def test_everything_outside_the_body_is_black_in_ct(tmp_path):
    table = phantom()
    table.array[2:38, 1, :] = 300
    made = make([written(tmp_path / "a", [table])], [written(tmp_path / "b", [phantom(1)])], tmp_path / "s")
    for item in Study.open(made.study).items:
        assert item.image().array[0, -1].max() == 0


def test_different_grids_are_unified_and_reported(tmp_path):
    real = written(tmp_path / "a", [phantom(n) for n in range(2)])
    coarse = [phantom(n, (24, 22, 12), (3, 3, 3)) for n in range(2)]
    wide = [replace(c, array=np.pad(c.array, ((8, 8), (8, 8), (0, 0)), constant_values=-1000)) for c in coarse]
    made = make([real], [written(tmp_path / "b", wide)], tmp_path / "s")
    assert len({item.image().array.shape for item in Study.open(made.study).items}) == 1
    assert "The real images have voxels of 2 x 2 x 3 mm and the synthetic ones of 3 x 3 x 3 mm" in (made.warnings[0])
    assert "The real images show 80 x 72 x 36 mm of the patient" in made.warnings[1]


def test_a_statistic_that_separates_is_reported(tmp_path):
    real = written(tmp_path / "a", [phantom(n) for n in range(4)])
    smooth = written(tmp_path / "b", [phantom(n + 9, noise=4) for n in range(4)])
    warnings = make([real], [smooth], tmp_path / "s").warnings
    assert any(w.startswith("The fine detail and noise alone distinguishes") for w in warnings)
    like = written(tmp_path / "c", [phantom(n + 9) for n in range(4)])
    assert make([real], [like], tmp_path / "t").warnings == ()


def test_a_synthetic_image_given_as_real_is_reported(tmp_path):
    made = write_volume(phantom(1), tmp_path / "made.nrrd", Provenance(model="ct-tissue"))
    other = write_volume(phantom(2), tmp_path / "other.nrrd")
    (warning,) = make([made], [other], tmp_path / "s").warnings
    assert "given as real" in warning and str(made) in warning
    assert make([other], [made], tmp_path / "t").warnings == ()


def test_dicom_series_are_read_singly_and_in_folders(tmp_path):
    places = range(0, 40, 2)
    real = patient_series(tmp_path / "Muster", places, size=(24, 20))
    (tmp_path / "made").mkdir()
    patient_series(tmp_path / "made" / "one", places, size=(26, 20), series="1.2.826.0.1.9")
    (tmp_path / "made" / "one.medgen.json").write_text("{}")
    made = make([real], [tmp_path / "made"], tmp_path / "s", window=(300, 100))
    assert made.items == 6
    rows = json.loads(made.key.read_text())["items"]
    assert {(row["source"], row["synthetic"]) for row in rows} == {("Muster", 0), ("one", 1)}
    for path in made.study.rglob("*.*"):
        assert not any(mark in path.read_bytes() for mark in MARKS)


def test_mr_needs_no_common_scale(tmp_path):
    def mr(seed, scale):
        values = scale * (phantom(seed, noise=60).array.clip(-150) + 150)
        return Volume(np.float32(values), np.diag([2.0, 2, 3, 1]), "T1w")

    made = make([written(tmp_path / "a", [mr(0, 0.4)])], [written(tmp_path / "b", [mr(1, 3)])], tmp_path / "s")
    means = [item.image().array.mean() for item in Study.open(made.study).items]
    assert max(means) < 1.2 * min(means)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": "films"}, 'A study has no "films"; choose slices or volumes.'),
        ({"per_volume": 0}, "are too few"),
        ({"window": (0, 40)}, "The window's width is 0"),
        ({"real": "nowhere"}, "no file or folder"),
        ({"synthetic": "empty"}, "holds no volume"),
        ({"synthetic": "real"}, "hold the same image; give each image once"),
        ({"synthetic": "copies"}, "hold the same image; give each image once"),
        ({"synthetic": "mr"}, "looks like CT and .* like MR, which every reader distinguishes"),
        ({"synthetic": "tiny"}, "too few to assess"),
        ({"output": "real"}, "exists already, and a study is never replaced"),
    ],
)
def test_invalid_requests_are_reported_in_a_sentence(folders, tmp_path, change, words):
    (tmp_path / "empty").mkdir()
    written(tmp_path / "copies", [phantom(0)])
    mr = phantom(5).array.clip(-200) + 200
    written(tmp_path / "mr", [Volume(mr * 3, np.diag([2.0, 2, 3, 1]), "T1w")])
    written(tmp_path / "tiny", [phantom(6, (12, 12, 12), (2, 2, 3))])
    given = {"real": "real", "synthetic": "synthetic", "output": "s", "seed": 1, **change}
    before = sorted(tmp_path.rglob("*"))
    paths = [tmp_path / given.pop(name) for name in ("real", "synthetic", "output")]
    with pytest.raises(InputError, match=words) as caught:
        make([paths[0]], [paths[1]], paths[2], **given)
    assert str(caught.value).endswith(".")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_preparation_leaves_nothing(folders, tmp_path):
    def stop(progress):
        if progress.stage == "writing" and progress.step == 2:
            raise Cancelled("stop")

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Cancelled):
        make([folders[0]], [folders[1]], tmp_path / "s", progress=stop)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["slices", "volumes"])
def test_a_full_disk_is_reported_before_the_work(folders, tmp_path, monkeypatch, kind):
    usage = type("Usage", (), {"free": 2000})
    monkeypatch.setattr("MedGenLib.io.atomic.shutil.disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="free some space or write elsewhere"):
        make([folders[0]], [folders[1]], tmp_path / "s", items=kind)
    assert not (tmp_path / "s").exists()


# --- reading ---


def test_every_reader_has_a_constant_individual_order(study):
    orders = {name: [i.name for i in Reading(study, name).items] for name in ("a", "b", "c")}
    assert len({tuple(order) for order in orders.values()}) == 3
    assert len({tuple(sorted(order)) for order in orders.values()}) == 1
    assert [i.name for i in Reading(study, "a").items] == orders["a"]


def test_answers_are_saved_at_once_and_the_reading_resumes(study):
    reading = Reading(study, "reader-A")
    first = reading.next()
    reading.answer(first, True, 4, 12.345)
    with open(study / "answers" / "reader-A.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["item"], r["answer"], r["confidence"], r["seconds"]) for r in rows] == [
        (first.name, "synthetic", "4", "12.35")
    ]
    again = Reading(study, "reader-A")
    assert again.progress == (1, 12)
    assert again.next() == reading.next() != first
    assert again.answers == {first.name: Answer(first.name, True, 4, 12.35)}
    assert read_all(study, "reader-A").next() is None


def test_an_incomplete_line_is_asked_again(study):
    reading = read_all(study, "a", count=3)
    torn = reading.path.read_text()
    reading.path.write_text(torn[:-5])
    assert Reading(study, "another").progress[0] == 0
    again = Reading(study, "a")
    assert again.progress == (2, 12)
    again.answer(again.next(), False, 1, 1)
    assert len(read_answers(again.path, again.study)) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (("item_099", True, 3, 1.0), "There is no image item_099"),
        ((None, True, 0, 1.0), "it must be 1 to 5"),
        ((None, True, 3, -1.0), "must be 0 or more"),
        ((None, True, 3, float("nan")), "must be 0 or more"),
    ],
)
def test_wrong_answers_are_refused(study, answer, words):
    reading = Reading(study, "a")
    name, *rest = answer
    with pytest.raises(InputError, match=words):
        reading.answer(name or reading.next(), *rest)
    assert not reading.path.exists()


def test_an_answer_is_final(study):
    reading = Reading(study, "a")
    item = reading.next()
    reading.answer(item, True, 3, 1)
    with pytest.raises(InputError, match="has an answer already"):
        reading.answer(item, False, 3, 1)


@pytest.mark.parametrize("name", ["", "../a", "a b", "a/b", "x" * 41, ".hidden"])
def test_names_of_readers(study, name):
    with pytest.raises(InputError, match="code name"):
        Reading(study, name)


def test_a_list_changed_during_the_reading_is_refused(study):
    reading = read_all(study, "a", count=2)
    path = study / "study.json"
    data = json.loads(path.read_text())
    data["items"] = data["items"][:6]
    path.write_text(json.dumps(data))
    for attempt in (
        lambda: Reading(study, "a"),
        lambda: reading.answer(reading.next(), 1, 1, 1),
        lambda: Reading(study, "b"),
    ):
        with pytest.raises(InputError, match="is not the one of the answers so far"):
            attempt()
    with pytest.raises(InputError, match="was changed after its key"):
        score(study)


def test_a_changed_or_lost_image_is_refused(study):
    reading = Reading(study, "a")
    item = reading.next()
    item.path.write_bytes(item.path.read_bytes()[:-1] + b"x")
    for attempt in (item.image, lambda: Reading(study, "b")):
        with pytest.raises(InputError, match="was changed after the reader study"):
            attempt()
    item.path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        Reading(study, "b")


def test_two_readings_under_one_name_are_detected(study):
    first, second = Reading(study, "a"), Reading(study, "a")
    first.answer(first.next(), True, 3, 1)
    with pytest.raises(InputError, match="changed by another program"):
        second.answer(second.next(), True, 3, 1)


@pytest.mark.parametrize(
    "line",
    [
        "item_001,maybe,3,1.0,{}",
        "item_001,real,9,1.0,{}",
        "item_077,real,3,1.0,{}",
        "item_001,real,3,nan,{}",
        "item_001,real,3,1,{}\nitem_001,real,3,1,{}",
        "item_001",
    ],
)
def test_invalid_answers_are_refused(study, line):
    path = study / "answers" / "a.csv"
    digest = Study.open(study).digest[:16]
    lines = line.replace("{}", digest)
    path.write_text(f"item,answer,confidence,seconds,list\n{lines}\n")
    with pytest.raises(InputError, match=r"is not an answer|is not the one"):
        Reading(study, "a")


def test_answers_that_cannot_be_written(study):
    (study / "answers").rmdir()
    (study / "answers").write_text("a file")
    reading = Reading(study, "a")
    with pytest.raises(InputError, match="The answer cannot be written to"):
        reading.answer(reading.next(), True, 3, 1)
    assert reading.progress == (0, 12)


def test_a_full_disk_keeps_earlier_answers(study, monkeypatch):
    reading = read_all(study, "a", count=1)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MedGenLib.reader_study.reading.os.fsync", full)
    with pytest.raises(InputError, match="this answer is not saved"):
        reading.answer(reading.next(), True, 3, 1)
    monkeypatch.undo()
    assert reading.progress == (1, 12)
    reading.answer(reading.next(), True, 3, 1)
    assert Reading(study, "a").progress == (2, 12)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no reader study"),
        ("[1]", "is not a reader study of MedGen"),
        ("{", "is not a reader study of MedGen"),
        ('{"format": "medgen-reader-study", "version": 9}', "another version"),
        ('{"format": "medgen-reader-study", "version": 1}', "is damaged"),
    ],
)
def test_invalid_studies_are_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=words):
        Reading(tmp_path, "a")


# --- statistics: against published examples ---


def test_binomial_intervals():
    assert exact_interval(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert exact_interval(0, 20) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    # Of no success the mid-P bound solves (1 - p)^n / 2 = 0.025.
    assert statistics.mid_p_interval(0, 20) == pytest.approx((0, 1 - 0.05 ** (1 / 20)))
    assert statistics.mid_p_interval(20, 20)[0] == pytest.approx(0.05 ** (1 / 20))
    for k in range(1, 30):
        exact, middle = exact_interval(k, 30), statistics.mid_p_interval(k, 30)
        assert exact[0] < middle[0] < k / 30 < middle[1] < exact[1]


def test_d_prime_has_the_log_linear_correction():
    assert statistics.d_prime(10, 20, 10, 20) == pytest.approx(0)
    # (20.5 / 21, 0.5 / 21) are mirrored: twice z of 0.97619.
    assert statistics.d_prime(20, 20, 0, 20) == pytest.approx(2 * 1.98075, abs=1e-4)


def test_auc_and_its_interval():
    assert statistics.auc([3, 3, 5], [1, 3, 2]) == pytest.approx((2 * 2.5 + 3) / 9)
    low, high = statistics.auc_interval(1.0, 20, 20)
    assert 0.8 < low < 0.95 and high == pytest.approx(1)
    low, high = statistics.auc_interval(0.7, 30, 25)
    assert (1 - high, 1 - low) == pytest.approx(statistics.auc_interval(0.3, 30, 25))


def test_area_under_the_roc_is_the_auc():
    dice = np.random.default_rng(0)
    signal, noise = dice.integers(1, 6, 40), dice.integers(-2, 4, 30)
    false, true = statistics.roc(signal, noise)
    assert np.trapezoid(true, false) == pytest.approx(statistics.auc(signal, noise))
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_fleiss_kappa_agrees_with_a_published_example():
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert statistics.fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert statistics.fleiss_kappa([[2, 0], [0, 2]]) == 1
    assert statistics.fleiss_kappa([[2, 0], [2, 0]]) is None


def test_bootstrap_over_images_is_wider_where_readers_agree():
    """20 readers with equal answers count as one."""
    right = np.array([1.0] * 12 + [0.0] * 8)
    one = statistics.over_images(np.stack([right, np.ones(20)], 1), [True, False] * 10)
    many = statistics.over_images(np.stack([20 * right, np.full(20, 20)], 1), [True, False] * 10)
    assert one == many
    exact = exact_interval(12 * 20, 20 * 20)
    assert many[1] - many[0] > 2 * (exact[1] - exact[0])


# --- scoring ---


def simulated(right_synthetic, right_real, n=20, sure=3):
    """A reader with these numbers of correct answers among n images of each kind."""
    truth = {f"item_{i}": i < n for i in range(2 * n)}
    said = [i < right_synthetic for i in range(n)] + [i >= right_real for i in range(n)]
    answers = [Answer(name, said[i], sure, 2.0) for i, name in enumerate(truth)]
    return Answers.of("r", answers, truth)


def test_one_readers_rows():
    rows = {row.name: row for row in rows_of(simulated(15, 10))}
    assert rows["Accuracy"].value == 62.5
    assert (rows["Accuracy"].low, rows["Accuracy"].high) == pytest.approx((45.80, 77.27), abs=0.01)
    assert rows["Sensitivity"].value == 75
    assert rows["Specificity"].value == 50
    assert rows["AUC"].value == pytest.approx((0.75 + 0.5) / 2)
    assert rows["d'"].value == pytest.approx(statistics.d_prime(15, 20, 10, 20))
    assert rows["Median time"].value == 2
    assert "not shown to be better than guessing" in rows["Accuracy"].sentence
    assert "includes the 55 % of the literature" in rows["Accuracy"].sentence


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ((195, 190), "better than guessing, and the interval lies above the 55 %"),
        ((100, 98), "not shown to be better than guessing, and the interval lies below the 55 %"),
        ((20, 30), "worse than guessing: the kinds are distinguished, but confused with each other"),
    ],
)
def test_verdicts(right, words):
    answers = simulated(*right, n=200) if right[0] != 100 else simulated(1000, 980, n=2000)
    assert words in rows_of(answers)[0].sentence


def test_a_study_is_scored(study):
    read_all(study, "perfect")
    read_all(study, "guess", 0.5, seed=3)
    read_all(study, "half", 1.0, count=5)
    (study / "answers" / "._half.csv").write_bytes(b"of a file manager")
    scores = score(study)
    assert scores.value("Accuracy", "perfect").value == 100
    assert scores.value("AUC", "perfect").value == 1
    guess = Reading(study, "guess")
    right = sum(a.synthetic == truth_of(study)[a.item] for a in guess.answers.values())
    assert scores.value("Accuracy", "guess").value == pytest.approx(100 * right / 12)
    assert scores.value("Accuracy").value == pytest.approx(100 * (12 + right + 5) / 29)
    rates = [scores.value(name).value for name in ("Sensitivity", "Specificity")]
    synthetic = sum(sum(a.truth) for a in scores.readers)
    assert rates[0] * synthetic + rates[1] * (29 - synthetic) == pytest.approx(29 * scores.value("Accuracy").value)
    assert scores.note == "3 readers, 12 images; not complete: half answered 5."
    assert "on 5 images" in scores.value("Fleiss' kappa").sentence


def test_files_of_the_report(study, tmp_path):
    read_all(study, "perfect")
    read_all(study, "guess", 0.5)
    scores = score(study)
    page = write_report(scores, tmp_path / "out")
    assert sorted(path.name for path in page.parent.iterdir()) == sorted(FILES)
    text = page.read_text()
    assert "perfect" in text and "<script" not in text and "//" not in text.split("base64")[0]
    with open(tmp_path / "out" / "scores.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = {(row["label"], row["name"]): row["value"] for row in rows}
    assert float(kept["perfect", "Accuracy"]) == 100
    assert float(kept[ALL, "Mean AUC"]) == pytest.approx(scores.value("Mean AUC").value)
    data = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert data["readers"] == ["guess", "perfect"]
    for name in ("roc.png", "accuracy.png"):
        picture = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out" / name)))
        assert picture.shape[0] > 200 and picture.std() > 5
    with pytest.raises(InputError, match="exists already"):
        write_report(scores, tmp_path / "out")


def test_scores_of_one_kind_only(study, tmp_path):
    reading, truth = Reading(study, "a"), truth_of(study)
    item = next(item for item in reading.items if truth[item.name])
    reading.answer(item, True, 5, 1)
    scores = score(study)
    assert scores.value("AUC", "a").value is None
    assert "not defined" in scores.value("Specificity", "a").sentence
    assert write_report(scores, tmp_path / "out").is_file()


def test_keys(study, folders, tmp_path):
    with pytest.raises(InputError, match="has no answers yet"):
        score(study)
    read_all(study, "a")
    moved = key_of(study).rename(tmp_path / "safe.json")
    with pytest.raises(InputError, match="There is no key of a reader study"):
        score(study)
    assert score(study, moved).value("Accuracy").value == 100
    other = make([folders[0]], [folders[1]], tmp_path / "other")
    with pytest.raises(InputError, match="does not belong to the study"):
        score(study, other.key)
    with pytest.raises(InputError, match="is not a key of a reader study"):
        score(study, study / "study.json")
    data = json.loads(moved.read_text())
    moved.write_text(json.dumps({**data, "items": data["items"][1:]}))
    with pytest.raises(InputError, match="is damaged"):
        score(study, moved)


def test_readers_who_agree_do_not_narrow_the_interval():
    one = simulated(14, 13)
    many = [replace(one, reader=f"r{n}") for n in range(8)]
    pooled = {row.name: row for row in rows_of_all(many)}
    drawn = pooled["Accuracy, images drawn"]
    assert pooled["Accuracy"].low > 55 > drawn.low  # as if 320 answers were independent
    assert "the interval includes the 55 %" in pooled["Accuracy"].sentence
    assert pooled["Fleiss' kappa"].value == 1


# --- the command ---


def test_commands(folders, tmp_path, capsys):
    study = tmp_path / "s"
    words = ["reader-study", "make", "--real", str(folders[0]), "--synthetic", str(folders[1])]
    assert main([*words, "-o", str(study), "--seed", "2", "--window", "350,40"]) == 0
    printed = capsys.readouterr()
    assert "18 images, half of them synthetic" in printed.out
    assert "6 of the synthetic images were left out" not in printed.err
    read_all(study, "a", 0.6)
    assert main(["reader-study", "run", str(study), "--reader", "a", "--no-browser"]) == 0
    assert "has answered all 18 images already" in capsys.readouterr().out
    assert main(["reader-study", "score", str(study), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Reader       Accuracy %")
    assert f"Wrote {tmp_path / 'out' / 'roc.png'}" in printed
    assert main([*words, "-o", str(study)]) == 2
    assert main([*words, "-o", str(tmp_path / "t"), "--window", "wide"]) == 2
    assert main(["reader-study"]) == 2
    errors = capsys.readouterr().err
    assert "never replaced" in errors and "400,40" in errors and "give make, run or score" in errors


def test_the_worker_makes_and_scores(folders, tmp_path):
    with Worker() as worker:
        made = worker.call(
            "reader_study/make",
            real=[str(folders[0])],
            synthetic=[str(folders[1])],
            output=str(tmp_path / "s"),
            per_volume=1,
            seed=3,
        )
        assert (made["study"], made["items"]) == (str(tmp_path / "s"), 6)
        assert made["key"] == str(key_of(tmp_path / "s"))
        assert "synthetic images were left out" in made["warnings"][0]
        read_all(tmp_path / "s", "a")
        scored = worker.call("reader_study/score", study=made["study"], output=str(tmp_path / "out"))
        with pytest.raises(InputError, match="exists already"):
            worker.call("reader_study/score", study=made["study"], output=str(tmp_path / "out"))
        with pytest.raises(InputError, match="There is no reader study"):
            worker.call("reader_study/score", study=str(tmp_path), output=str(tmp_path / "x"))
    assert scored["report"] == str(tmp_path / "out" / "report.html")
    assert scored["note"] == "1 reader, 6 images, all answered."
    accuracy = next(row for row in scored["rows"] if row["name"] == "Accuracy")
    assert (accuracy["label"], accuracy["value"], accuracy["unit"]) == ("a", 100, "%")
