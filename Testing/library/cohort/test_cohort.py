"""Cohorts: manifests that are refused, cases that are done once, deaths of workers and drivers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from cohorts import contents, disturbed, generation, records, small_disk, start, workers_of, write_images, write_masks
from dicoms import patient_series
from workers import eventually, gone, trunk

from MedGenLib.cli import main
from MedGenLib.cluster.plan import plan_workers
from MedGenLib.cohort.case import run_case
from MedGenLib.cohort.dataset import write_dataset
from MedGenLib.cohort.making import CaseRecipe, make_manifest
from MedGenLib.cohort.manifest import CohortCase, CohortManifest, read_cohort, write_cohort
from MedGenLib.cohort.output import locked, open_output
from MedGenLib.cohort.records import CASES, DONE, FAILED, QUARANTINED, Record, done_record
from MedGenLib.cohort.run import of_part
from MedGenLib.errors import Cancelled, InputError, MemoryPlanError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.trainer.layouts import read_dataset

SHARED = "cohort: x\nverb: generate\ncases:\n"


def direct(attempt, memory, device, what):
    """No second attempt."""
    return attempt(memory)


def own_case(folder: Path, **changes) -> CohortCase:
    """An evaluation of a small image against itself."""
    image = str(folder / "images" / "i000.nii.gz")
    given = {"id": "a", "verb": "evaluate", "inputs": {"image": image, "reference": image}} | changes
    return CohortCase(**given)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", 3)


# Manifests


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "line 2 is not valid YAML; correct it."),
        ("cases: []", "has no cases; list them"),
        ("shade: 1\ncases: [1]", "unknown entry 'shade'; use cases, cohort"),
        (SHARED + "- {inputs: {}}", "Case 1 of the manifest has no id; give it one."),
        (SHARED + "- {id: ../a}", "The id '../a' cannot be a folder; use"),
        (SHARED + "- {id: a, inputs: {mask: m.nii}}\n- {id: A, inputs: {mask: m.nii}}", "Two cases of .* the id 'A'"),
        (SHARED + "- {id: a, inputs: {mask: gone.nii}}", "Case 'a': There is no file or folder .*gone.nii; check"),
        (SHARED + "- {id: a, verb: grow}", "Case 'a': There is no verb 'grow'; choose generate, translate,"),
        (SHARED + "- {id: a, inputs: {image: m.nii}}", "Case 'a': The input 'image' of generate is unknown; use mask"),
        (SHARED + "- {id: a, parameters: {prest: best}}", "Case 'a': The option 'prest' .* use preset."),
        (SHARED + "- {id: a, parameters: {preset: fine}}", "Case 'a': There is no preset 'fine'; choose"),
        (SHARED + "- {id: a, parameters: {samples: 2}}", "Case 'a': The parameter 'samples' .* is not one of a"),
        (SHARED + "- {id: a, parameters: {uncertainty: true}}", "Case 'a': The parameter 'uncertainty' .* is not one"),
        (SHARED + "- {id: a, parameters: {model: none}}", "Case 'a': There is no model named 'none'; the installed"),
        (SHARED + "- {id: a, verb: translate, inputs: {image: m.nii}}", "Case 'a': It is not stated what to make"),
        ("dataset: true\ncases: [{id: a, verb: evaluate, inputs: {image: m.nii, reference: m.nii}}]", "no labels for"),
        (
            "cases: [{id: a, verb: evaluate, inputs: {image: m.nii}}]",
            "Case 'a': There is nothing to compare the image with; give",
        ),
        (
            "cases: [{id: a, verb: translate, inputs: {image: m.nii}, parameters: {to: CT}}]",
            "Case 'a': The license of the model 'head-mr-to-ct' is .* add --accept-license",
        ),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, text, sentence):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))  # no license was accepted there
    (tmp_path / "m.nii").touch()
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        read_cohort(tmp_path / "c.yaml")
    assert main(["cohort", "run", str(tmp_path / "c.yaml")]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 1 and printed[0].startswith("medgen: ")
    assert not (tmp_path / "c-results").exists()


def test_cases_inherit_and_paths_are_relative_to_the_manifest(tmp_path, monkeypatch):
    masks = write_masks(tmp_path / "masks", 1)
    (tmp_path / "c.yaml").write_text(
        "verb: generate\nparameters: {preset: draft, steps: 3}\ncases:\n"
        "- {id: a, inputs: {mask: masks/m000.nii.gz}, parameters: {steps: 4}, seed: 7}\n"
        "- {id: b, inputs: {mask: masks/m000.nii.gz}}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir("/")
    cohort = read_cohort(tmp_path / "c.yaml")
    a, b = cohort.cases
    assert (cohort.name, a.seed, dict(a.parameters)) == ("c", 7, {"preset": "draft", "steps": 4})
    assert b.seed == read_cohort(tmp_path / "c.yaml").cases[1].seed != 7
    assert a.inputs == {"mask": str(masks / "m000.nii.gz")} and len(a.package) == 64


def test_random_lesions_are_drawn_in_the_manifest(tmp_path, images):
    parameters = {"organ": "soft tissue", "size_mm": "5:20", "contrast": "-80:-40", "shape": "sphere,lobulated"}
    recipe = CaseRecipe("insert-lesion", parameters=parameters, samples=4, seed=3)
    data = make_manifest(images, recipe, tmp_path)
    assert data == make_manifest(images, recipe, tmp_path)
    drawn = [case["parameters"] for case in data["cases"]]
    assert len(drawn) == 12 and data["parameters"] == {"organ": "soft tissue"}
    assert all(5 <= values["size_mm"] <= 20 and -80 <= values["contrast"] <= -40 for values in drawn)
    assert {values["shape"] for values in drawn} == {"sphere", "lobulated"}
    assert len({values["size_mm"] for values in drawn}) == 12
    assert len({case["seed"] for case in data["cases"]}) == 12
    assert data["cases"][0]["inputs"] == {"image": "images/i000.nii.gz"}
    other = make_manifest(images, CaseRecipe("insert-lesion", parameters=parameters, samples=4, seed=4), tmp_path)
    assert other["cases"][0]["parameters"] != drawn[0]


def test_each_series_of_a_folder_of_dicom_files_is_a_case(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGEN_HOME", str(tmp_path / "home"))  # the license is accepted there
    study = tmp_path / "study"
    study.mkdir()
    for number in (1, 2):
        series = patient_series(
            tmp_path / f"series{number}", (0, 3, 6), series=f"1.2.3.{number}", SeriesDescription="T1 3D"
        )
        for path in series.iterdir():
            path.rename(study / f"{number}{path.name}")
    data = make_manifest(study, CaseRecipe("translate", parameters={"to": "CT"}), tmp_path)
    assert [case["id"] for case in data["cases"]] == ["1-T1-3D", "2-T1-3D"]
    assert data["cases"][1]["inputs"] == {"image": "study"}
    assert data["cases"][1]["parameters"] == {"series": "1.2.3.2"}
    write_cohort(tmp_path / "c.yaml", data)
    assert read_cohort(tmp_path / "c.yaml", True).cases[1].parameters == {"to": "CT", "series": "1.2.3.2"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--set", "prest=best"], "The parameter 'prest' of generate is unknown; use"),
        (["--set", "steps=few"], "The parameter steps is 'few'; give a number"),
        (["--set", "steps"], "--set steps has no value; write --set NAME=VALUE."),
        (["--input", "image=x"], "The input 'image' of generate is unknown; use mask"),
        (["--set", "preset=fine"], "There is no preset 'fine'"),
    ],
)
def test_make_refuses_what_run_would_refuse(tmp_path, capsys, words, sentence):
    write_masks(tmp_path / "masks", 1)
    path = tmp_path / "c.yaml"
    assert main(["cohort", "make", str(tmp_path / "masks"), "--verb", "generate", "-o", str(path), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["masks"]


# The output folder


def test_the_folder_of_another_cohort_or_run_is_refused(tmp_path):
    open_output(tmp_path / "out", "first")
    open_output(tmp_path / "out", "first")
    with pytest.raises(InputError, match="holds the results of the cohort 'first'; choose another one."):
        open_output(tmp_path / "out", "second")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(InputError, match="is not empty and holds no cohort"):
        open_output(tmp_path / "full", "first")
    with pytest.raises(InputError, match="cannot be written"):
        open_output(tmp_path / "full" / "notes.txt" / "out", "first")


def test_only_one_run_works_on_a_part(tmp_path, monkeypatch):
    code = (
        "import time; from pathlib import Path; from MedGenLib.cohort import output; output.BEAT = 0.2\n"
        f"with output.locked(Path({str(tmp_path)!r}), 1, 2): print('here', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "here\n"
        for part, parts in ((1, 2), (1, 1), (2, 3)):
            with pytest.raises(InputError, match="Another run works in"), locked(tmp_path, part, parts):
                pass
        with locked(tmp_path, 2, 2):
            pass
    finally:
        other.kill()
    with locked(tmp_path, 1, 1):  # a killed process that nobody has waited for
        assert other.returncode is None
    other.communicate()
    monkeypatch.setattr("MedGenLib.cohort.output.SILENT", 1.0)
    (tmp_path / ".run-1-of-1.lock").write_text(f"{os.getpid()} elsewhere")
    with locked(tmp_path, 1, 1):  # of a computer that gives no sign
        pass
    assert list(tmp_path.iterdir()) == []


def test_every_case_is_in_one_part(tmp_path):
    cases = [CohortCase(f"c{n}", "evaluate") for n in range(100)]
    parts = [of_part(cases, part, 4) for part in range(1, 5)]
    assert sorted(case.id for part in parts for case in part) == sorted(case.id for case in cases)
    assert all(10 < len(part) < 40 for part in parts)


# One case


def test_a_case_is_done_until_what_it_was_made_of_changes(tmp_path, images):
    case = own_case(tmp_path)
    record = run_case(case, tmp_path, None, direct)
    folder = tmp_path / CASES / "a"
    assert (record.status, record.sentence) == (DONE, "")
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "metrics.csv", "thumbnail.png", "record.json", "log.txt"}
    assert "MAE" in (folder / "metrics.csv").read_text()
    assert done_record(case, tmp_path) == record == Record.read(folder)
    assert done_record(own_case(tmp_path, parameters={"resample": True}), tmp_path) is None
    assert done_record(own_case(tmp_path, package="other"), tmp_path) is None
    image = Path(case.inputs["image"])
    os.utime(image)  # another time, the same content
    assert done_record(case, tmp_path) == record
    shutil.copy(images / "i001.nii.gz", image)
    assert done_record(case, tmp_path) is None
    assert run_case(case, tmp_path, None, direct).key != record.key
    (folder / "metrics.csv").write_text("cut")
    assert done_record(case, tmp_path) is None


def test_a_bad_input_fails_with_its_sentence_and_nothing_half_written(tmp_path, images):
    assert run_case(own_case(tmp_path), tmp_path, None, direct).status == DONE
    (images / "i000.nii.gz").write_bytes(b"no image")
    record = run_case(own_case(tmp_path), tmp_path, None, direct)
    assert record.status == FAILED and "i000.nii.gz" in record.sentence and record.sentence.endswith(".")
    assert [path.name for path in (tmp_path / CASES).iterdir()] == ["a"]
    assert {path.name for path in (tmp_path / CASES / "a").iterdir()} == {"record.json", "log.txt"}
    assert record.sentence in (tmp_path / CASES / "a" / "log.txt").read_text()


@pytest.mark.parametrize("limit", ["file system", "file size"])
def test_a_full_disk_is_one_sentence_and_with_room_the_same_case_is_made(tmp_path, images, limit):
    """On a file system of two pages, where one may be mounted, and with a small limit of this process for its files."""
    resource = pytest.importorskip("resource")
    case, disk = own_case(tmp_path), tmp_path / "disk"
    undisturbed = run_case(case, tmp_path / "large", None, direct)
    with ExitStack() as stack:
        if limit == "file system":
            try:
                enlarge = stack.enter_context(small_disk(disk, 8))
            except (PermissionError, FileNotFoundError) as error:
                pytest.skip(str(error))
            full = run_case(case, disk, None, direct)
            enlarge(800)
        else:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
            try:
                full = run_case(case, disk, None, direct)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        left = {path.name for path in (disk / CASES).rglob("*") if path.is_file()}
        assert full.status == FAILED and not full.outputs and left <= {"log.txt", "record.json"}
        assert re.search(r"cannot be read or written: the disk .*is full; [a-z ]+\.$", full.sentence), full.sentence
        again = run_case(case, disk, None, direct)
        assert again.status == DONE and again.outputs == undisturbed.outputs


def test_a_stopped_case_leaves_the_earlier_result(tmp_path, images):
    def stop(progress):
        raise Cancelled("Stopped.")

    record = run_case(own_case(tmp_path), tmp_path, None, direct)
    with pytest.raises(Cancelled):
        run_case(own_case(tmp_path, parameters={"resample": True}), tmp_path, stop, direct)
    assert Record.read(tmp_path / CASES / "a") == record
    assert [path.name for path in (tmp_path / CASES).iterdir()] == ["a"]


def test_memory_that_is_short_reaches_the_small_plan(tmp_path):
    masks = write_masks(tmp_path / "masks", 1)
    (case,) = read_cohort(generation(tmp_path / "c.yaml", masks)).cases
    asked = []

    def guard(attempt, memory, device, what):
        asked.append((memory, device, what))
        return attempt("small")

    record = run_case(case, tmp_path, None, guard)
    report = json.loads((tmp_path / CASES / "m000" / "report.json").read_text())
    assert asked == [("auto", "cpu", "mask")] and report["parameters"]["memory"] == "small"
    assert record.status == DONE

    def refuse(attempt, memory, device, what):
        (hidden,) = (tmp_path / CASES).glob(".*")
        (hidden / "image.nii.gz").write_bytes(b"the first half")
        raise MemoryPlanError("The memory is full; crop the mask.")

    assert run_case(case, tmp_path, None, refuse).sentence == "The memory is full; crop the mask."
    assert sorted(path.name for path in (tmp_path / CASES / "m000").iterdir()) == ["log.txt", "record.json"]


def test_workers_fit_into_the_memory_and_the_cores(tmp_path, monkeypatch):
    masks = write_masks(tmp_path / "masks", 6)
    cases = read_cohort(generation(tmp_path / "c.yaml", masks)).cases
    monkeypatch.setattr("MedGenLib.cluster.plan.usable_cores", lambda: 4)
    for gib, expected in ((64, (4, 1)), (2, (2, 2)), (0.1, (1, 4))):
        monkeypatch.setattr("MedGenLib.devices.free_memory", lambda gib=gib: gib * 2**30)
        plan = plan_workers(cases)
        assert (plan.workers, plan.threads) == expected
    assert plan_workers(cases, workers=3).workers == 3
    assert 500 < plan.memory_mib < 2000


def test_lesions_become_a_data_set_whose_labels_are_the_lesions(tmp_path):
    mask = trunk((24, 24, 16))
    values = np.choose(mask.array, (-1000.0, -100.0, 40.0, 300.0, -800.0)).astype(np.float32)
    image = write_volume(Volume(values, mask.affine, "CT", "HU"), tmp_path / "ct.nii.gz")
    parameters = {"organ": "soft tissue", "size_mm": 10, "contrast": -60, "preset": "draft", "device": "cpu"}
    cases = [CohortCase(f"c{n}", "insert-lesion", {"image": str(image)}, parameters, n) for n in (1, 2)]
    made = [run_case(case, tmp_path, None, direct) for case in cases]
    assert [record.sentence for record in made] == ["", ""]
    folder = write_dataset(CohortManifest("lesions", tuple(cases), True), made, tmp_path)
    found = read_dataset(folder)
    assert found.labels == {1: "lesion"} and [case.name for case in found.cases] == ["c1", "c2"]
    lesions = [read_label_map(case.labels).array > 0 for case in found.cases]
    for case, lesion in zip(found.cases, lesions, strict=True):
        change = np.abs(read_volume(case.image).array - values)
        assert lesion.any() and change[lesion].mean() > 20 and (change == 0).mean() > 0.5
    assert (lesions[0] != lesions[1]).any()
    sheet = (folder / "DATASHEET.md").read_text(encoding="utf-8")
    assert "one synthetic lesion" in sheet and "made from 1 files" in sheet
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    assert write_dataset(CohortManifest("lesions", tuple(cases), True), made, tmp_path) == folder
    assert (folder / "dataset.json").stat().st_mtime_ns == stamp


# Runs


def test_a_run_goes_on_where_it_is_needed_and_its_exit_code_counts_failures(tmp_path, capsys, images):
    manifest, out = tmp_path / "c.yaml", tmp_path / "c-results"
    words = ["cohort", "make", str(images), "--verb", "evaluate", "--input", f"reference={images}", "-o", str(manifest)]
    assert main(words) == 0
    good = (images / "i001.nii.gz").read_bytes()
    (images / "i001.nii.gz").write_bytes(b"no image")
    run = ["cohort", "run", str(manifest), "--workers", "2"]
    assert main(run) == 1
    printed = capsys.readouterr()
    assert "2 of 3 cases done (2 now), 1 failed." in printed.out
    assert "medgen: failed: i001: " in printed.err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert (
        page.index("1 of 3 cases failed")
        < page.index("i001.nii.gz")
        < page.index("data:image/png")
        < page.index("i002")
    )
    first, *others = (out / "cases.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert first.startswith("i001,evaluate,failed,") and len(others) == 2

    before = {name: record.finished for name, record in records(out).items()}
    time.sleep(1.1)
    (images / "i001.nii.gz").write_bytes(good)
    text = manifest.read_text(encoding="utf-8").replace("id: i002,", "id: i002, parameters: {resample: true},")
    manifest.write_text(text, encoding="utf-8")
    assert main(run) == 0
    after = records(out)
    assert [name for name in after if after[name].finished != before[name]] == ["i001", "i002"]
    assert after["i002"].parameters == {"resample": True}

    stamps = {path: path.stat().st_mtime_ns for path in (out / CASES).rglob("*")}
    assert main(run) == 0
    assert "3 of 3 cases done (0 now), 0 failed." in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in (out / CASES).rglob("*")}
    assert sorted(path.name for path in out.iterdir()) == ["cases", "cases.csv", "cohort.json", "report.html"]

    capsys.readouterr()
    assert main([*run, "--json"]) == 0
    files = [str(out / "report.html"), str(out / "cases.csv")]
    kept = {"kept": ["i000", "i001", "i002"]}
    assert printed_json(capsys) == [kept, {"done": 3, "failed": 0, "files": files}]

    for path in images.iterdir():
        path.write_bytes(b"no image")
    assert main([*run, "--part", "1/1", "--json"]) == 2
    first, *changes, last = printed_json(capsys)
    assert first == {"kept": []} and last["failed"] == 3
    assert [change["status"] for change in changes if change["case"] == "i001"] == ["running", "failed"]
    assert changes[-1]["seconds_left"] == 0 and ".nii.gz" in changes[-1]["sentence"]


def printed_json(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_run_for_a_program_stops_when_nothing_reads_it(tmp_path, images):
    manifest, out = tmp_path / "c.yaml", tmp_path / "out"
    reference = f"reference={images}"
    assert main(["cohort", "make", str(images), "--verb", "evaluate", "--input", reference, "-o", str(manifest)]) == 0
    driver = start(manifest, out, "--json", "--workers", "1")
    assert json.loads(driver.stdout.readline()) == {"kept": []}
    driver.stdout.close()
    driver.wait()
    driver.stderr.close()
    assert len(records(out)) <= 1
    assert sorted(path.name for path in out.iterdir()) == ["cases", "cohort.json"]


def test_chaos_leaves_every_case_once_and_the_same_images(tmp_path):
    """Kills of workers and of the driver, against a run in peace; the data set is that of the finished cohort."""
    masks = write_masks(tmp_path / "masks", 12)
    manifest = generation(tmp_path / "c.yaml", masks)
    assert start(manifest, tmp_path / "peace").wait() == 0
    happened = disturbed(manifest, tmp_path / "chaos", ["worker", "driver", "worker"], seed=1, pause=0.1)
    assert happened == ["worker", "driver", "worker"]
    expected = contents(tmp_path / "peace")
    assert len(set(expected.values())) == 12
    assert contents(tmp_path / "chaos") == expected
    assert [path for path in (tmp_path / "chaos").rglob(".*")] == []
    dataset = read_dataset(tmp_path / "chaos" / "dataset")
    assert len(dataset.cases) == 12 and list(dataset.labels) == [1, 2, 3] and dataset.labels[2] == "soft tissue"
    labels, mask = read_label_map(dataset.cases[0].labels), read_label_map(masks / "m000.nii.gz")
    assert (labels.array == np.where(mask.array == 4, 3, mask.array)).all()  # nnU-Net wants consecutive numbers
    assert "Every voxel of every image is synthetic" in (tmp_path / "chaos/dataset/DATASHEET.md").read_text()


def test_a_case_that_ends_two_workers_is_set_aside_and_ctrl_c_stops(tmp_path):
    masks = write_masks(tmp_path / "masks", 1)
    manifest, out = generation(tmp_path / "c.yaml", masks, steps=1000), tmp_path / "out"

    def at_work(driver, seen):
        while driver.poll() is None:
            if (found := workers_of(driver.pid)) and found[0] not in seen and any((out / CASES).glob(".*.part.*")):
                return found[0]
            time.sleep(0.02)
        raise AssertionError("the run ended by itself")

    driver, seen = start(manifest, out, "--workers", "1"), []
    for _ in range(2):
        seen.append(at_work(driver, seen))
        os.kill(seen[-1], signal.SIGKILL)
    printed, errors = driver.communicate(timeout=60)
    (record,) = records(out).values()
    assert list(out.rglob(".*")) == []
    assert driver.returncode == 2 and "0 of 1 cases done (0 now), 1 failed." in printed
    assert errors.count("the worker of m000 ended; the case is tried again") == 1
    assert record.status == QUARANTINED and "2 workers ended during this case; see its log" in record.sentence
    assert "The worker ended unexpectedly (exit code -9" in (out / CASES / "m000" / "log.txt").read_text()

    driver = start(manifest, out)
    worker = at_work(driver, [])
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert driver.returncode == 130 and "Stopped; what is done stays in" in errors
    assert eventually(gone(worker), 5)
    assert list(records(out).values()) == [record] and list(out.rglob(".*")) == []
