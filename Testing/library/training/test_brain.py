"""The embedded model mr-brain: complete and partial FreeSurfer labels -> T1w brain."""

from __future__ import annotations

import numpy as np
import pytest
from texture import highpass_sd

from MedGenLib import cli, generate
from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, crop
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.samples import sample
from MedGenLib.labels.mapping import map_labels
from MedGenLib.labels.vocabulary import Vocabulary, table
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.contrast import drawn

FAST = {"model": "mr-brain", "seed": 1, "steps": 3, "retries": 0, "device": "cpu"}
WHITE, CORTEX, VENTRICLE, HIPPOCAMPUS, FLUID, BRAIN = 1, 2, 3, 11, 15, 18


def vocabulary() -> Vocabulary:
    given = find("mr-brain").metadata["medgen"]["input"]
    return Vocabulary.from_dict(given["labels"], given["left_out"])


@pytest.fixture(scope="module")
def freesurfer() -> LabelMap:
    """A block of 48^3 around the left hippocampus of the sample, with FreeSurfer labels."""
    mask = read_label_map(sample("brain_labels.seg.nrrd"))
    center = np.argwhere(mask.array == 17).mean(0).astype(int)
    low = np.clip(center - 24, 0, np.array(mask.shape) - 48)
    return crop(mask, low, low + 48)


@pytest.fixture(scope="module")
def labels(freesurfer) -> LabelMap:
    return map_labels(freesurfer, vocabulary())[0]


@pytest.fixture(scope="module")
def made(freesurfer):
    return generate(freesurfer, **FAST)


def test_names_of_freesurfer_need_no_mapping(made, labels):
    assert (made.source.array == labels.array).all()
    assert {WHITE, CORTEX, VENTRICLE, HIPPOCAMPUS, FLUID} <= set(np.unique(labels.array))
    mapped = made.report.parameters["mapping"]
    assert mapped[17] == HIPPOCAMPUS and mapped[3] == CORTEX and mapped[136] == 16


def test_gray_values_are_typical_of_t1(made, labels):
    image = made.volume.array
    assert made.volume.unit == "a.u." and made.volume.modality == "T1w"
    mean = {value: image[labels.array == value].mean() for value in range(1, 19) if (labels.array == value).sum() > 100}
    assert mean[FLUID] < mean[HIPPOCAMPUS] < mean[WHITE]
    assert mean[VENTRICLE] < mean[CORTEX] - 15 < mean[WHITE] - 30
    assert mean[WHITE] == pytest.approx(107, abs=8)
    assert (image[labels.array == 0] == 0).all(), "outside of the brain is background"
    assert image[labels.array == WHITE].std() > 3, "tissue has texture"
    # With the package's limit of 2, cortex voxels are at most 12 sinh(2) from the level of the seed, and beside other
    # tissues by what these have gained.
    level = find("mr-brain").settings.centers[WHITE] * made.report.parameters["contrast"]["1"]["cortex"]
    assert image[labels.array == CORTEX].max() <= level + 44 + 15


def test_seeds_differ_in_contrast_as_people_do(labels):
    """And the images have the contrast that the report states."""
    small = crop(labels, (8, 8, 8), (40, 40, 40))
    result = generate(small, samples=3, **FAST)
    stated = [entry["cortex"] for entry in result.report.parameters["contrast"].values()]
    made = [
        float(np.median(v.array[small.array == CORTEX]) / np.median(v.array[small.array == WHITE]))
        for v in result.volumes
    ]
    assert made == pytest.approx(stated, abs=0.06) and len(set(stated)) == 3
    settings = find("mr-brain").settings.contrast
    thalamus = settings.labels.index(6)
    levels = np.array([drawn(settings, seed) for seed in range(200)])[:, thalamus]
    assert 0.86 < levels.mean() < 0.90 and 0.01 < levels.std() < 0.03, "without the shading"


def test_the_output_is_checked_by_tissue(made):
    assert made.report.passed, [f.sentence for f in made.report.output_checks[0].findings]
    figures = made.report.output_checks[0].figures
    assert set(figures["dice"]) == {"CSF", "cortex", "white matter"}
    assert figures["dice"]["white matter"] > 0.75


def test_geometry_equals_that_of_the_mask(made, freesurfer):
    assert made.volume.geometry.is_close(freesurfer.geometry)


def test_aparc_numbers_and_raw_numbers_need_the_table(freesurfer):
    numbers = LabelMap(freesurfer.array.astype(np.uint16), freesurfer.affine)
    numbers.array[numbers.array == 3] = 1024  # ctx-lh-precentral
    mapped, report = map_labels(numbers, vocabulary(), "freesurfer")
    assert report.mapped[1024] == CORTEX
    with pytest.raises(InputError, match="--map freesurfer|freesurfer"):
        generate(numbers, **FAST)


def test_labels_outside_the_brain_are_left_out_with_one_sentence(freesurfer):
    small = crop(freesurfer, (12, 12, 12), (36, 36, 36))
    head = small.with_array(small.array.astype(np.uint16))
    head.array[:4] = np.array([511, 515, 502, 512])[:, None, None]
    result = generate(head, mapping="freesurfer", **FAST)
    sentences = [f.sentence for f in result.report.input_findings if f.code == "left-out"]
    assert len(sentences) == 1
    assert all(name in sentences[0] for name in ("Skin", "Bone-Cortical", "Artery", "Spinal-Cord"))
    assert (result.volume.array[:4] == 0).all()


def test_left_out_labels_are_not_unknown():
    known = Vocabulary.from_dict({"1": {"name": "brain"}}, ["soft tissue"])
    mask = LabelMap(np.array([511, 17, 5000]).reshape(3, 1, 1), np.eye(4))
    mapped, report = map_labels(mask, known, "freesurfer", strict=False)
    assert mapped.array.ravel().tolist() == [0, 1, 0]
    assert report.left_out == [511] and report.unmapped == [5000]
    # Labels dropped by the user are not reported.
    _, report = map_labels(mask, known, {"table": "freesurfer", 511: 0}, strict=False)
    assert report.mapped[511] == 0 and report.left_out == []


@pytest.mark.parametrize("value", [136, 137, 163, 164])
def test_synthseg_values_are_choroid_plexus(value):
    assert "choroid-plexus" in table("freesurfer").names[value]
    mask = LabelMap(np.full((2, 2, 2), value), np.eye(4))
    assert map_labels(mask, vocabulary(), "freesurfer")[0].array.max() == 16


def test_a_partial_mask_gives_a_brain_with_the_structure_in_it(labels):
    """Hippocampus and "brain" only: the rest is generated, with fluid, cortex and white matter."""
    given = np.where(np.isin(labels.array, [0, HIPPOCAMPUS]), labels.array, BRAIN)
    result = generate(labels.with_array(given.astype(np.uint8)), **FAST)
    codes = {finding.code for finding in result.report.input_findings}
    assert "absent-labels" not in codes, "partial masks are what the model was trained on"
    inside = result.volume.array[given == BRAIN]
    low, high = np.percentile(inside, [10, 90])
    assert low < 65 and high > 85, "not one gray"
    level = result.volume.array[given == HIPPOCAMPUS].mean()
    assert level == pytest.approx(107 * result.report.parameters["contrast"]["1"]["hippocampus"], abs=10)


def test_one_label_is_enough():
    mask = LabelMap(np.ones((20, 24, 22), np.uint8), np.diag([1.0, 1, 1, 1]), {1: "brain"})
    assert generate(mask, **FAST).volume.array.min() >= 0


def test_noise_is_given_in_gray_values(labels):
    small = crop(labels, (8, 8, 8), (40, 40, 40))
    calm, noisy = (
        highpass_sd(generate(small, noise_hu=noise, **FAST).volume.array, small.array == WHITE) for noise in (1.5, 8.0)
    )
    assert noisy > 2 * calm
    with pytest.raises(InputError, match=r"choose 1 to 50 HU \(CT\) or a\.u\. \(MR\)"):
        generate(small, noise_hu=80.0, **FAST)


def test_gaps_are_filled_with_fluid(freesurfer):
    """FreeSurfer leaves the sulci without a label."""
    small = crop(freesurfer, (0, 0, 0), (36, 36, 36))
    bare = small.with_array(np.where(small.array == 24, 0, small.array))
    bare.array[::3] = 0
    sentences = [f.sentence for f in generate(bare, **FAST).report.input_findings if f.code == "gaps"]
    assert sentences and "becomes background; fill it with CSF" in sentences[0]
    filled = generate(bare, fill="CSF", **FAST)
    assert (filled.source.array[bare.array > 0] != FLUID).all()
    assert (filled.source.array[3] == FLUID).sum() > 1000


def test_command_line(labels, tmp_path):
    small = crop(labels, (12, 12, 12), (36, 36, 36))
    write_volume(small, tmp_path / "mask.nii.gz")
    argv = [
        "generate",
        str(tmp_path / "mask.nii.gz"),
        "-o",
        str(tmp_path / "t1.nii.gz"),
        "--model",
        "mr-brain",
        "--map",
        "model",
        "--seed",
        "1",
        "--preset",
        "draft",
    ]
    assert cli.main(argv) == 0
    image = read_volume(tmp_path / "t1.nii.gz")
    assert image.geometry.is_close(small.geometry)
    assert (image.array[small.array == 0] == 0).all()
