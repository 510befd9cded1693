"""Half-widths of intervals: coverage of unseen people, classes, the package that carries them, and a run."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from tiny_packages import write_generator

from MedGenLib import generate, translate
from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.samples import sample
from MedGenLib.metrics import intervals as metrics
from MedGenLib.metrics.compare import compare
from MedGenLib.metrics.intervals import borders, calibrate, coverage, errors_of, half_widths, sentence
from MedGenLib.metrics.uncertainty import error_correlation
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.export import add_statistics
from MedGenLib.packages.manifest import load_manifest

SHAPE = (24, 24, 12)
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])


def output(number: int) -> Volume:
    """Soft tissue with a cube of bone, whose place and size differ between people."""
    hu = np.random.default_rng(number).normal(50, 6, SHAPE)
    start = 4 + number % 5
    hu[start : start + 9, 6:16, 2:10] = 900
    return Volume(hu.round().astype(np.int16), AFFINE, "CT", "HU")


def real(made: Volume, number: int) -> np.ndarray:
    """Soft tissue is off by 20 HU (SD), bone by 150, and each person a little more or less."""
    generator = np.random.default_rng([number, 1])
    scale = np.where(made.array > 300, 150, 20) * np.exp(generator.normal(0, 0.1))
    return made.array + generator.normal(size=SHAPE) * scale


def errors(numbers: range, inside: np.ndarray | None = None):
    everywhere = np.ones(SHAPE, bool) if inside is None else inside
    return [errors_of(f"p{n}", output(n), real(output(n), n), everywhere, 2.0) for n in numbers]


@pytest.fixture(scope="module")
def intervals():
    return calibrate(errors(range(20)), "CT", 2.0)


def test_unseen_people_are_covered_in_each_tissue(intervals):
    found = [coverage(e, intervals) for e in errors(range(100, 140))]
    for name in ("all", "soft tissue", "bone", "real bone"):
        assert np.mean([entry[name] for entry in found]) == pytest.approx(0.9, abs=0.02), name
    assert intervals.people == 20
    assert intervals.tissues["bone"] == pytest.approx(1.645 * 150, rel=0.1)
    assert "90%" in sentence(intervals, "HU") and "240 HU in bone" in sentence(intervals, "HU").replace("250", "240")


def test_the_sentence_has_plain_numbers(intervals):
    flat = dataclasses.replace(intervals, tissues={"fat": 99.7, "bone": 246.0})
    assert "100 HU in fat, 250 HU in bone" in sentence(flat, "HU")


def test_one_width_for_all_would_not_cover_bone(intervals):
    """The classes matter: the test above fails without them."""
    flat = dataclasses.replace(intervals, values=(), ranges=(), half_widths=((50.0,),))
    entry = errors(range(1))[0]
    with_one_class = dataclasses.replace(entry, classes=np.zeros_like(entry.classes))
    assert coverage(with_one_class, flat)["bone"] < 0.5


def test_people_count_equally():
    """A person with thousands of voxels does not outweigh others."""
    small = np.zeros(SHAPE, bool)
    small[:, 0:3] = True
    many, few = errors(range(10)), errors(range(10, 20), small)
    few = [dataclasses.replace(e, errors=e.errors * 10) for e in few]
    widths = calibrate([*many, *few], "CT", 2.0)
    shares = [[coverage(e, widths)["soft tissue"] for e in group] for group in (many, few)]
    assert np.mean(shares[0]) > 0.98
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)


def test_borders_have_their_own_width(intervals):
    made = output(0)
    widths = half_widths(made, intervals)
    assert widths.geometry.is_close(made.geometry) and widths.unit == "HU"
    assert np.median(widths.array[made.array > 300]) > 4 * np.median(widths.array[made.array < 100])
    assert widths.array.min() > 0
    # A finer grid of the same image has its borders at the same places, in mm.
    fine = Volume(made.array.repeat(2, 0), AFFINE @ np.diag([0.5, 1, 1, 1]), "CT", "HU")
    assert np.mean(half_widths(fine, intervals).array[::2] == widths.array) > 0.99
    flat = Volume(made.array[:, :, 5:6], AFFINE, "CT", "HU")
    assert half_widths(flat, intervals).shape == (24, 24, 1)


def test_the_evaluation_states_the_coverage(intervals):
    made = output(50)
    truth = Volume(real(made, 50), AFFINE, "CT", "HU")
    calibration = error_correlation(half_widths(made, intervals), compare(made, truth))
    assert calibration.value("Coverage") == pytest.approx(
        coverage(errors(range(50, 51))[0], intervals)["all"], abs=1e-3
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "models" / "limb"
    shutil.copytree(find("body-mr-to-ct").folder, folder)
    metadata = (folder / "configs" / "metadata.json").read_text().replace('"name": "body-mr-to-ct"', '"name": "limb"')
    (folder / "configs" / "metadata.json").write_text(metadata)
    return folder


def test_a_translation_gives_the_half_widths_of_its_package(package, intervals):
    add_statistics(package, intervals=dataclasses.asdict(intervals))
    made = translate(sample("thigh_t1.nii.gz"), to="CT", model="limb", uncertainty=True, preset="draft", device="cpu")
    assert np.array_equal(made.uncertainty.array, half_widths(made.volume, intervals).array)
    assert made.report.parameters["uncertainty"] is False  # no second view was translated
    warned = [finding.sentence for finding in made.report.input_findings if finding.code == "interval"]
    assert warned == [sentence(intervals, "HU")]
    plain = translate(sample("thigh_t1.nii.gz"), to="CT", model="limb", preset="draft", device="cpu")
    assert plain.uncertainty is None and np.array_equal(plain.volume.array, made.volume.array)


def test_one_generated_image_has_the_half_widths_of_its_package():
    labels = np.zeros((24, 24, 16), np.uint8)
    labels[4:20, 4:20] = 2
    labels[10:14, 10:14] = 3
    options = {"mapping": "model", "seed": 1, "retries": 0, "device": "cpu"}
    mask = LabelMap(labels, np.diag([-2.0, -2.0, 2.0, 1.0]))
    made = generate(mask, uncertainty=True, **options)
    known = find("ct-tissue").statistics.intervals
    assert known.people >= 5 and made.uncertainty.unit == "HU"
    expected = np.where(labels > 0, half_widths(made.volume, known).array, 0)
    assert np.array_equal(made.uncertainty.array, expected)
    assert made.uncertainty.array[11:13, 11:13].mean() > 2 * made.uncertainty.array[6:8, 6:18].mean()
    warned = [finding.sentence for finding in made.report.input_findings if finding.code.startswith("interval")]
    assert warned == [sentence(known, "HU")]
    assert np.array_equal(generate(mask, **options).volume.array, made.volume.array)
    several = generate(mask, uncertainty=True, samples=2, **options)
    assert not any(finding.code == "interval" for finding in several.report.input_findings)
    assert np.allclose(several.uncertainty.array, np.std([v.array for v in several.volumes], 0, ddof=1), atol=1e-3)


def test_half_widths_were_not_measured_for_organs():
    labels = np.zeros((24, 24, 16), np.uint8)
    labels[4:20, 4:20] = 5
    organ = LabelMap(labels, np.diag([-2.0, -2.0, 2.0, 1.0]), {5: "liver"})
    made = generate(organ, uncertainty=True, phase="portal", seed=1, retries=0, device="cpu")
    assert made.uncertainty is not None
    assert "interval-organs" in {finding.code for finding in made.report.input_findings}


def test_a_model_without_intervals_asks_for_several_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path))
    write_generator(tmp_path / "models")
    mask = LabelMap(np.ones((24, 24, 16), np.uint8), np.diag([2.0, 2.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="of the model 'tiny-ct' is the standard deviation .* at least 2"):
        generate(mask, "tiny-ct", mapping="model", uncertainty=True, device="cpu")


def test_classes_of_an_mr_follow_its_bright_end():
    found = borders("T1w", 200.0)
    assert found == ((10.0, 40.0, 80.0, 120.0, 160.0), (20.0, 60.0)) and borders("CT", 200.0) == borders("CT")


def test_slabs_give_the_half_widths_of_the_whole(intervals, monkeypatch):
    hu = np.random.default_rng(0).normal(0, 200, (70, 12, 10)).astype(np.int16)
    made = Volume(hu, np.diag([0.7, 2.0, 2.0, 1.0]), "CT", "HU")
    slab_wise = half_widths(made, intervals).array
    monkeypatch.setattr(metrics, "SLAB", 100)
    assert np.array_equal(slab_wise, half_widths(made, intervals).array)


def test_a_package_with_wrong_intervals_is_refused(package, intervals):
    good = dataclasses.asdict(intervals)
    for change, words in (
        ({"values": [3.0, 1.0]}, "rising"),
        ({"half_widths": [[1.0]]}, "rows"),
        ({"level": 1.5}, "level"),
    ):
        with pytest.raises(PackageError, match=words):
            add_statistics(package, intervals={**good, **change})
    add_statistics(package, intervals=good)
    assert load_manifest(package).statistics.intervals == intervals
