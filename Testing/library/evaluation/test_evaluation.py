"""Evaluation of single images and folders: measures, matching, memory."""

from dataclasses import replace

import numpy as np
import pytest
from trunks import BONE, stored_as

from MedGenLib.errors import Cancelled, InputError
from MedGenLib.evaluation.cases import SHOWN, Case, evaluate_cases, holds_cases, match
from MedGenLib.evaluation.folders import report_folder, volumes_in, write_files
from MedGenLib.evaluation.pair import CaseOrigin, Evaluation, evaluate
from MedGenLib.evaluation.report import csv_rows, file_names, short_list, summaries
from MedGenLib.evaluation.tables import summary
from MedGenLib.imaging.volume import Volume, crop
from MedGenLib.io.files import write_volume
from MedGenLib.metrics.compare import ImageMeasure
from MedGenLib.metrics.labels import LabelRow


def moved(image, shift: float):
    affine = image.affine.copy()
    affine[0, 3] += shift
    return replace(image, affine=affine)


def test_a_reference_gives_the_errors(synthetic, real):
    found = evaluate(synthetic, real, origin=CaseOrigin("a", {"image": "a.nii.gz"}))
    values = {row.name: row.value for row in found.rows}
    assert values["RMSE"] == pytest.approx(10 * np.sqrt(2), rel=0.03)
    assert found.badness == values["MAE"]
    assert found.anatomy == () and found.calibration is None
    assert [(s.role, s.name) for s in found.inputs] == [("image", "a.nii.gz"), ("reference", "")]
    assert len({source.sha256 for source in found.inputs}) == 2


def test_labels_and_a_segmenter_need_no_reference(synthetic, tissue):
    found = evaluate(synthetic, labels=tissue, segmenter="ct-tissue")
    assert found.rows == () and found.comparison is None
    assert [row.name for row in found.anatomy] == ["fat", "soft tissue", "bone"]
    assert all(row.dice > 0.9 for row in found.anatomy)
    assert "ct-tissue" in found.note
    mean = np.mean([row.dice for row in found.anatomy])
    assert found.badness == pytest.approx(1 - mean)


def test_a_wrong_image_is_distinguished_from_its_mask(synthetic, tissue):
    without_bone = np.where(tissue.array == BONE, np.float32(45), synthetic.array)
    found = evaluate(synthetic.with_array(without_bone), labels=tissue, segmenter="ct-tissue")
    bone = next(row for row in found.anatomy if row.name == "bone")
    assert bone.dice == 0 and bone.hd95_mm is None and bone.found_ml == 0
    assert "but not found in the image" in bone.sentence


def test_labels_without_a_name_get_that_of_the_segmenter(synthetic, real, tissue):
    found = evaluate(synthetic, real, labels=tissue, segmenter="ct-tissue")
    assert {row.label for row in found.rows} == {"", "fat", "soft tissue", "bone"}
    own = replace(tissue, names={BONE: "cortex"})
    found = evaluate(synthetic, real, labels=own, segmenter="ct-tissue")
    assert {"cortex", "fat"} <= {row.label for row in found.rows}
    assert "cortex" in [row.name for row in found.anatomy]


def test_named_labels_with_other_numbers_are_compared_by_name(synthetic, tissue):
    other = tissue.with_array(np.where(tissue.array > 0, 4 - tissue.array, 0).astype(np.uint8))
    other.array[14:17, 12:15, :3] = 9
    other = replace(other, names={1: "Bone", 2: "soft_tissue", 3: "adipose", 9: "lesion"})
    found = evaluate(synthetic, labels=other, segmenter="ct-tissue")
    assert [row.name for row in found.anatomy] == ["fat", "soft tissue", "bone"]
    assert all(row.dice > 0.85 for row in found.anatomy)
    assert "It does not segment lesion." in found.note


def test_a_label_that_the_segmenter_does_not_know_is_named(synthetic, tissue):
    array = tissue.array.copy()
    array[14:17, 12:15, :3] = 9
    found = evaluate(synthetic, labels=tissue.with_array(array), segmenter="ct-tissue")
    assert "It does not segment label 9." in found.note
    assert 9 not in [row.label for row in found.anatomy]


def test_uncertainty_is_compared_with_the_error(real, tissue):
    noise = np.random.default_rng(2).normal(0, 1, real.shape)
    spread = np.where(tissue.array == BONE, 80.0, 5.0)
    image = real.with_array((real.array + noise * spread).astype(np.float32))
    found = evaluate(image, real, uncertainty=real.with_array(spread.astype(np.float32)))
    rows = {row.name: row.value for row in found.uncertainty}
    assert rows["Uncertainty: Ratio"] == pytest.approx(1, abs=0.05)
    assert rows["Uncertainty: Pearson"] > 0.5
    assert [row for row in found.figures if row.name.startswith("Uncertainty")]


def test_other_grids_are_resampled_on_request(synthetic, real, tissue):
    shifted, labels = moved(real, 1.0), moved(tissue, 1.0)
    with pytest.raises(InputError, match=r"The image has .* and the reference .*--resample"):
        evaluate(synthetic, shifted)
    with pytest.raises(InputError, match=r"The image has .* and the label volume .*--resample"):
        evaluate(synthetic, labels=labels, segmenter="ct-tissue")
    found = evaluate(synthetic, shifted, labels=labels, segmenter="ct-tissue", resample=True)
    assert found.note.count("label volume was resampled") == 1
    assert found.wanted.geometry.is_close(synthetic.geometry)


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "PIR"])
def test_another_order_of_the_same_voxels_is_the_same_grid(synthetic, real, tissue, orientation):
    plain = evaluate(synthetic, real, tissue, tissue, "ct-tissue", uncertainty=_spread(real))
    others = [stored_as(grid, orientation) for grid in (real, tissue, _spread(real))]
    assert others[0].orientation == orientation
    turned = evaluate(synthetic, *others[:2], others[1], "ct-tissue", others[2])
    assert turned.rows == plain.rows and turned.anatomy == plain.anatomy
    assert turned.calibration == plain.calibration and "resampled" not in turned.note


def _spread(image):
    noise = np.random.default_rng(5).uniform(1, 9, image.shape)
    return image.with_array(noise.astype(np.float32))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "nothing to compare"),
        (["labels"], "together with a segmenter"),
        (["reference", "segmenter"], "without labels"),
        (["labels", "segmenter", "mask"], "The mask needs a reference"),
        (["labels", "segmenter", "uncertainty"], "The uncertainty needs a reference"),
    ],
)
def test_inputs_without_any_measure_are_refused(synthetic, real, tissue, given, sentence):
    every = {"reference": real, "mask": tissue, "labels": tissue, "segmenter": "ct-tissue", "uncertainty": real}
    with pytest.raises(InputError, match=sentence):
        evaluate(synthetic, **{name: every[name] for name in given})


def test_bad_voxels_and_units_get_a_sentence(synthetic, real, tissue):
    holed = synthetic.array.copy()
    holed[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="The image"):
        evaluate(synthetic.with_array(holed), real)
    with pytest.raises(InputError, match="HU and the arbitrary units"):
        evaluate(synthetic, replace(real, modality="T1w", unit="a.u."))
    with pytest.raises(InputError, match="label volume is empty"):
        evaluate(synthetic, real, labels=tissue.with_array(np.zeros_like(tissue.array)))
    with pytest.raises(InputError, match="mask is empty"):
        evaluate(synthetic, real, tissue.with_array(np.zeros_like(tissue.array)))


def test_a_constant_image_gets_sentences_for_undefined_measures(real):
    constant = real.with_array(np.full(real.shape, 40, np.float32))
    found = evaluate(constant, real)
    undefined = [row for row in found.rows if row.value is None]
    assert "NCC" in [row.name for row in undefined]
    assert all("not defined" in row.sentence or "cannot" in row.sentence for row in undefined)
    assert "constant" in found.note


def test_results_without_voxels_are_small(synthetic, real, tissue):
    found = evaluate(synthetic, real, labels=tissue, segmenter="ct-tissue")
    light = found.without_voxels()
    assert light.to_dict() == found.to_dict()
    assert light.image is light.comparison is light.wanted is light.found is None


# Cohorts


def judged(name: str, error: float, label_error: float | None = None) -> Evaluation:
    rows = [ImageMeasure("MAE", error, "HU", "")]
    if label_error is not None:
        rows.append(ImageMeasure("MAE", label_error, "HU", "", "bone"))
    volume = Volume(np.zeros((2, 2, 2), np.float32), np.eye(4))
    return Evaluation(name, tuple(rows), (), None, (), volume, None, None, None)


def files(folder, *names):
    folder.mkdir()
    volume = Volume(np.zeros((4, 4, 4), np.float32), np.eye(4))
    for name in names:
        write_volume(volume, folder / name)
    return folder


def test_cases_are_matched_by_name_without_suffix(tmp_path):
    images = files(tmp_path / "images", "a.nii.gz", "b.nrrd", "c_synthetic.mha")
    reference = files(tmp_path / "real", "a.mha", "b.nii", "c.nii.gz")
    mask = tmp_path / "mask.nii.gz"
    write_volume(Volume(np.zeros((4, 4, 4), np.float32), np.eye(4)), mask)
    cases, failures, unmatched = match(images, {"reference": reference, "mask": mask})
    assert [case.name for case in cases] == ["a", "b"]
    assert cases[0].paths == {"image": images / "a.nii.gz", "reference": reference / "a.mha", "mask": mask}
    assert [failure.name for failure in failures] == ["c_synthetic"], "suffixes are not guessed"
    assert "There is no reference named 'c_synthetic'" in failures[0].sentence
    assert unmatched == ["The reference 'c' has no image of that name."]


def test_folders_that_do_not_match_at_all_are_refused(tmp_path):
    images = files(tmp_path / "images", "a.nii.gz")
    with pytest.raises(InputError, match="No volume of .* has a counterpart"):
        match(images, {"reference": files(tmp_path / "real", "b.nii.gz")})
    with pytest.raises(InputError, match="the reference .* is not; give"):
        match(images, {"reference": images / "a.nii.gz"})


def test_a_folder_of_volumes_is_distinguished_from_a_series(tmp_path):
    assert holds_cases(files(tmp_path / "volumes", "a.nii.gz"))
    patients = tmp_path / "patients"
    (patients / "p1").mkdir(parents=True)
    assert holds_cases(patients)
    (patients / "p1" / "IM0001").touch()
    assert not holds_cases(patients / "p1"), "files without a known suffix are a DICOM series"
    assert not holds_cases(tmp_path / "volumes" / "a.nii.gz")
    assert not holds_cases(tmp_path / "absent")


def test_the_worst_come_first_and_only_they_keep_voxels():
    errors = {"a": 3.0, "b": 9.0, "c": 1.0, "d": 5.0, "e": 7.0}
    cases = [Case(name, {}) for name in errors]
    seen = []
    done, failures = evaluate_cases(cases, lambda case: judged(case.name, errors[case.name]), seen.append)
    assert [case.name for case in done] == ["b", "e", "d", "a", "c"]
    assert [case.image is not None for case in done] == [True] * SHOWN + [False] * 2
    assert failures == [] and seen[-1].step == seen[-1].total == 5


def test_one_failure_does_not_stop_the_others_but_a_cancel_does():
    def judge(case):
        if case.name == "bad":
            raise InputError("It is damaged.")
        return judged(case.name, 1.0)

    done, failures = evaluate_cases([Case("bad", {}), Case("good", {})], judge)
    assert [case.name for case in done] == ["good"]
    assert [(f.name, f.sentence) for f in failures] == [("bad", "It is damaged.")]

    def stop(case):
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        evaluate_cases([Case("a", {})], stop)


def test_summaries_describe_each_measure_over_the_cases():
    from MedGenLib.evaluation.cases import Cohort, Failure

    cohort = Cohort((judged("a", 2.0, 20.0), judged("b", 4.0), judged("c", 6.0)), (Failure("d", "Gone."),))
    found = {(row.label, row.name): figures for row, figures in summaries(cohort)}
    assert found["", "MAE"].count == 3 and found["", "MAE"].mean == 4
    assert found["bone", "MAE"].count == 1 and found["bone", "MAE"].sd is None
    assert len(short_list(summaries(cohort))) == 2
    rows = csv_rows(cohort)
    assert [row["case"] for row in rows] == ["a", "a", "b", "c", "d"]
    assert rows[-1] == {"case": "d", "name": "failed", "sentence": "Gone."}


def test_the_interval_of_the_mean_is_students():
    found = summary([1, 2, 3, 4, 5])
    assert (found.count, found.mean, found.median) == (5, 3, 3)
    assert found.sd == pytest.approx(1.5811388)
    # t(0.975, 4 degrees of freedom) = 2.7764451, of a printed table
    assert (found.low, found.high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    single = summary([2.5])
    assert (single.mean, single.sd, single.low, single.high) == (2.5, None, None, None)


def test_missing_measures_are_ignored_in_the_order():
    lost = LabelRow(1, "a", None, None, 0, 0, 0, None, "")
    case = replace(judged("a", 0.0), rows=(), anatomy=(lost,))
    assert case.badness == 0


# Folders


def test_volumes_are_found_by_their_suffix(tmp_path):
    folder = files(tmp_path / "f", "b.nii.gz", "a.nrrd")
    (folder / "notes.txt").touch()
    (folder / ".hidden.nii.gz").touch()
    (folder / "patient 3").mkdir()
    found = volumes_in(folder)
    assert list(found) == ["a", "b", "patient 3"]
    (folder / "a.nii").touch()
    with pytest.raises(InputError, match="a.nii and a.nrrd, which have the same name"):
        volumes_in(folder)


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_volumes_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"{name}"):
        volumes_in(tmp_path / name)


def test_a_report_appears_with_its_folder_or_not_at_all(tmp_path):
    folder = tmp_path / "report"
    with pytest.raises(KeyError), report_folder(folder, ["a.txt"]) as outputs:
        outputs.staged(folder / "a.txt").write_text("half")
        raise KeyError
    assert not folder.exists()
    with report_folder(folder, ["a.txt"]) as outputs:
        outputs.staged(folder / "a.txt").write_text("whole")
        outputs.commit()
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    with pytest.raises(InputError, match="exists already"), report_folder(folder, ["a.txt"]):
        pass
    assert (folder / "a.txt").read_text() == "whole"


def test_an_existing_folder_is_kept(tmp_path):
    with report_folder(tmp_path, ["a.txt"]):
        pass
    assert tmp_path.is_dir()


def test_a_report_folder_that_cannot_be_created_gets_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; give a folder"), report_folder(tmp_path / "file", ["a"]):
        pass
    with pytest.raises(InputError, match="Nothing can be written"), report_folder(tmp_path / "file" / "r", ["a"]):
        pass


def test_a_report_folder_is_created_with_its_parents_and_goes_without_a_report(tmp_path):
    folder = tmp_path / "new" / "report"
    with pytest.raises(ZeroDivisionError), report_folder(folder, ["a"]):
        assert folder.is_dir() and 1 / 0
    assert list(tmp_path.iterdir()) == []
    with report_folder(folder, ["a"]) as outputs:
        write_files(outputs, folder, {"a": "text"})
        outputs.commit()
    assert (folder / "a").read_text() == "text"


def test_an_error_map_is_written_for_a_single_reference_only():
    assert "error_map.nii.gz" in file_names(single=True, reference=True)
    assert "error_map.nii.gz" not in file_names(single=True, reference=False)
    assert "error_map.nii.gz" not in file_names(single=False, reference=True)


@pytest.mark.parametrize("modality", [None, "CT"])
def test_values_that_look_like_hu_with_an_offset_are_refused(real, modality):
    stored = Volume(real.array + 1024, real.affine, modality)
    with pytest.raises(InputError, match=r"look like HU \+ 1024; .*--hu-offset -1024"):
        evaluate(stored, stored)
    assert evaluate(replace(stored, modality="MR"), replace(stored, modality="MR")).rows


@pytest.mark.parametrize("resample", [False, True])
def test_labels_cropped_to_their_segments_are_judged_where_they_are_known(synthetic, real, tissue, resample):
    low, high = (0, 0, 4), (*tissue.shape[:2], tissue.shape[2] - 4)
    part = crop(tissue, low, high)
    whole = evaluate(crop(synthetic, low, high), labels=part, segmenter="ct-tissue")
    found = evaluate(synthetic, labels=part, segmenter="ct-tissue", resample=resample)
    for row, expected in zip(found.anatomy, whole.anatomy, strict=True):
        assert row.dice == pytest.approx(expected.dice, abs=0.02) and row.found_ml <= row.wanted_ml * 1.1
    assert "what lies beyond was left out" in found.note and "resampled" not in found.note
    assert "resampled" not in evaluate(synthetic, real, mask=part, labels=part, resample=resample).note
