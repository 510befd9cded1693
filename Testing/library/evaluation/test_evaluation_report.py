"""Reports: the page, its pictures and plots, the tables beside it, and the command."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from trunks import BONE, ct, stored_as

import MedGenLib
from MedGenLib.cli import main
from MedGenLib.evaluation import report
from MedGenLib.evaluation.cases import Cohort, Failure
from MedGenLib.evaluation.folders import report_folder
from MedGenLib.evaluation.html import Notice, Picture, Section, Table, Values, number, page
from MedGenLib.evaluation.pair import CaseOrigin, evaluate
from MedGenLib.evaluation.tables import csv_text, json_text
from MedGenLib.io.dicom import write_series
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.io.provenance import content_hash
from MedGenLib.io.recorded import read
from MedGenLib.metrics.compare import compare
from MedGenLib.visual import figures, planes

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Parsed page; fails if tags are not nested properly."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "title"} & set(self.open):
            self.text += data + "\n"

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


def require_self_contained(text: str) -> Page:
    """The page has no external resources and no scripts."""
    parsed = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert all(value.startswith("data:image/png;base64,") for value in parsed.values("src"))
    assert all(value.startswith("#") for value in parsed.values("href"))
    assert not [key for key, _ in parsed.attributes if key.startswith("on")]
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in "".join(filter(None, parsed.values("content")))
    return parsed


# The page


def test_a_page_is_self_contained():
    text = page("Title", [Section("One", ["Words.", Picture(PNG, "Dot"), Notice("Look!")])])
    parsed = require_self_contained(text)
    assert text.startswith("<!DOCTYPE html>") and parsed.tags.count("h1") == 1
    assert base64.b64encode(PNG).decode() in text
    assert "Dot" in parsed.values("alt")
    assert "Synthetic - not for diagnosis." in parsed.text


def test_all_text_is_escaped():
    evil = "<script>alert('x')</script> & \"{{sections}}\" \\1"
    parts = [evil, Table((evil,), [(evil,)], evil), Values([(evil, evil, evil)]), Notice(evil), Picture(PNG, evil)]
    parsed = require_self_contained(page(evil, [Section(evil, parts)], evil))
    assert parsed.text.count(evil) == 12
    assert parsed.tags.count("section") == 1


def test_numbers_are_right_aligned_and_missing_ones_are_dashes():
    rows = [("a", 12.3456, None), ("b", None, None)]
    table = Table(("Case", "MAE", "PSNR"), rows, strong=frozenset({1}))
    text = page("T", [Section("S", [table])])
    assert "<td>a</td><td class='number'>12.35</td>" in text
    assert "<tr class=strong><td>b</td><td class='number'>–</td>" in text
    assert "<th scope='col'>Case</th><th scope='col' class='number'>MAE</th>" in text
    assert "<th scope='col' class='number'>PSNR</th>" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (12345.6, "12346"),
        (7, "7"),
        (None, "–"),
        ("x", "x"),
        (-0.5, "-0.5"),
        (float("inf"), "inf"),
        (-0.0, "0"),
    ],
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_long_pages_have_contents_and_empty_sections_are_left_out():
    sections = [Section(name, ["Words."]) for name in "ABCD"] + [Section("Empty", [])]
    parsed = Page(page("T", sections))
    assert parsed.values("href") == [f"#section-{n}" for n in range(1, 5)]
    assert [v for v in parsed.values("id")] == [f"section-{n}" for n in range(1, 5)]
    assert "Empty" not in parsed.text
    assert "nav" not in Page(page("T", sections[:3])).tags


def test_small_pictures_are_side_by_side():
    small, wide = Picture(PNG, "small"), Picture(PNG, "wide", wide=True)
    text = page("T", [Section("S", [small, small, wide, "Words.", small])])
    assert [block.count("<img") for block in re.findall(r"<div class='gallery'>.*?</div>", text)] == [2, 1]


def test_csv_and_json_keep_all_values():
    rows = [{"case": 'a, "b"\nc', "value": 0.1}, {"case": "d", "value": None, "error": "no"}]
    read_back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert read_back == [{"case": 'a, "b"\nc', "value": "0.1", "error": ""}, {"case": "d", "value": "", "error": "no"}]
    text = json_text({"a": [float("nan"), 1.5], "b": (float("inf"),), "ü": None})
    assert json.loads(text) == {"a": [None, 1.5], "b": [None], "ü": None}


# Plots


@pytest.fixture
def drawn(monkeypatch):
    """Makes the plots return their figure instead of a PNG."""
    monkeypatch.setattr(figures, "png", lambda figure: figure)


def test_a_plot_is_a_png(synthetic, real):
    from PIL import Image

    picture = Image.open(io.BytesIO(figures.histogram(compare(synthetic, real))))
    assert picture.format == "PNG" and picture.width > 600
    assert len(np.unique(np.asarray(picture))) > 10


def test_bland_altman_marks_bias_and_limits(drawn, real, tissue):
    noise = np.random.default_rng(3).normal(20, 50, real.shape)
    comparison = compare(real.with_array((real.array + noise).astype(np.float32)), real, tissue)
    axes = figures.bland_altman(comparison).axes[0]
    heights = [line.get_ydata()[0] for line in axes.lines]
    assert heights == pytest.approx([20, 20 + 1.96 * 50, 20 - 1.96 * 50], abs=4)
    assert axes.get_xlabel().endswith("HU")


def test_label_bars_are_the_errors(drawn, synthetic, real, tissue):
    brighter = synthetic.with_array(synthetic.array + 100 * (tissue.array == BONE))
    labels = replace(tissue, names={1: "fat", 2: "soft tissue", 3: "bone"})
    comparison = compare(brighter, real, labels=labels)
    axes = figures.label_errors(comparison.rows).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names[-1] == "bone", "the largest error is on top"
    lengths = [bar.get_width() for bar in axes.patches]
    assert lengths == [comparison.value("MAE", name) for name in names]
    assert lengths[-1] == pytest.approx(100, abs=2)


def test_without_labels_there_are_no_bars(synthetic, real):
    assert figures.label_errors(compare(synthetic, real).rows) is None


def test_histograms_are_shares_of_the_voxels(drawn, synthetic, real, tissue):
    axes = figures.histogram(compare(synthetic, real, tissue)).axes[0]
    shares = [patch.get_data().values.sum() for patch in axes.patches]
    assert shares == pytest.approx([100] * len(shares), abs=0.2)


def test_plots_of_equal_or_constant_images_can_be_drawn(real, tissue):
    constant = real.with_array(np.full(real.shape, 40, np.float32))
    for image, reference in ((real, real), (constant, constant)):
        comparison = compare(image, reference, tissue)
        for plot in (figures.bland_altman, figures.histogram):
            assert plot(comparison).startswith(b"\x89PNG")
        assert planes.difference_planes(image, comparison).startswith(b"\x89PNG")


def test_many_cases_and_strange_names_can_be_drawn():
    bars = [(f"case_{n}_$x^2$_" + "long" * 20, n / 7) for n in range(100)]
    assert figures.case_bars(bars, "MAE in HU", 7.0).startswith(b"\x89PNG")
    assert figures.case_boxes({"a": [1.0, 2.0], "$b": [1.0]}, "Dice").startswith(b"\x89PNG")


# Planes


def test_the_difference_is_symmetric_in_color_and_masked(drawn, synthetic, real, tissue):
    brighter = synthetic.with_array(synthetic.array + 100 * (tissue.array == BONE))
    comparison = compare(brighter, real, tissue)
    figure = planes.difference_planes(brighter, comparison)
    panels = [axes for axes in figure.axes if axes.images]
    assert len(panels) == 9
    for axes in panels[6:]:
        low, high = axes.images[0].get_clim()
        assert low == -high
    shown = panels[6].images[0].get_array()
    assert shown.mask.any() and not shown.mask.all()
    assert shown.max() > 60, "the middle of the region lies in the bone"
    windows = {axes.images[0].get_clim() for axes in panels[:6]}
    assert windows == {(-160, 240)}, "image and reference in one soft-tissue window"
    assert figure.axes[-1].get_ylabel() == "image - reference in HU"


@pytest.mark.parametrize(
    ("error", "limit"), [(1.9, 2), (2.1, 5), (49, 50), (51, 100), (130, 200), (0.03, 0.05), (0, 1)]
)
def test_the_color_scale_ends_at_a_round_number_above_the_errors(real, error, limit):
    comparison = compare(real.with_array(real.array + np.float32(error)), real)
    assert planes.difference_limit(comparison) == pytest.approx(limit)


def lesion(axes) -> tuple[float, float]:
    """Position of the brightest voxels of a panel, relative to width and height from the top left."""
    shown = np.ma.filled(axes.images[0].get_array(), -np.inf)
    rows, columns = np.nonzero(shown > 200)
    return columns.mean() / shown.shape[1], rows.mean() / shown.shape[0]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR"])
def test_errors_are_in_radiological_orientation(drawn, real, tissue, orientation):
    image = real.array.copy()
    image[4:8, 17:21, 12:16] += 400  # to the patient's left, in front, and high
    wrong = real.with_array(image)
    stored = [stored_as(volume, orientation) for volume in (wrong, real)]
    mask = stored_as(tissue, orientation)
    comparison = compare(*stored, mask)
    figure = planes.difference_planes(stored[0], comparison, worst=True)
    axial, coronal, sagittal = [axes for axes in figure.axes if axes.images][6:9]
    x, y = lesion(axial)
    assert x > 0.5 and y < 0.5, "patient's right is on the viewer's left: small i is right"
    x, y = lesion(coronal)
    assert x > 0.5 and y < 0.5
    x, y = lesion(sagittal)
    assert x < 0.5 and y < 0.5


def test_a_single_slice_is_shown_in_its_plane(drawn, synthetic, real, tissue):
    flat = [replace(image, array=image.array[:, :, 10:11]) for image in (synthetic, real, tissue)]
    figure = planes.difference_planes(flat[0], compare(*flat))
    assert len([axes for axes in figure.axes if axes.images]) == 3


def test_expected_and_found_labels_have_the_same_color_and_a_name(drawn, synthetic, tissue):
    found = evaluate(synthetic, labels=tissue, segmenter="ct-tissue")
    figure = planes.label_planes(found.image, found.wanted, found.found)
    assert [text.get_text() for text in figure.texts][-3:] == ["fat", "soft tissue", "bone"]
    tints = [{tuple(c) for c in axes.images[1].get_array().reshape(-1, 4) if c[3]} for axes in figure.axes[3:]]
    assert tints[0] == tints[3] and len(tints[0]) == 3


# The files


def written(evaluated, folder):
    single = not isinstance(evaluated, Cohort)
    with report_folder(folder, report.file_names(single, single and bool(evaluated.comparison))) as outputs:
        report.write(evaluated, outputs, folder)
        outputs.commit()
    return {path.name for path in folder.iterdir()}


def test_the_files_of_one_image(tmp_path, synthetic, real, tissue):
    names = {"image": "ct.nii.gz", "reference": "real.nii.gz"}
    found = evaluate(synthetic, real, labels=tissue, segmenter="ct-tissue", origin=CaseOrigin("ct", names))
    assert written(found, tmp_path / "r") == {"report.html", "metrics.json", "metrics.csv", "error_map.nii.gz"}
    parsed = require_self_contained((tmp_path / "r" / "report.html").read_text("utf-8"))
    assert len(parsed.values("src")) == 7
    assert "real.nii.gz" in parsed.text and "Bland-Altman" in parsed.text
    data = json.loads((tmp_path / "r" / "metrics.json").read_text("utf-8"))
    case = data["cases"][0]
    mae = next(row["value"] for row in case["rows"] if row["name"] == "MAE")
    assert mae == found.badness
    assert case["inputs"][0] == {"role": "image", "name": "ct.nii.gz", "sha256": content_hash(synthetic)}
    table = list(csv.DictReader((tmp_path / "r" / "metrics.csv").open(encoding="utf-8")))
    values = {(row["label"], row["name"], row["unit"]): row["value"] for row in table}
    assert float(values["", "MAE", "HU"]) == mae
    assert float(values["bone", "Dice", ""]) == found.anatomy[2].dice
    error = read_volume(tmp_path / "r" / "error_map.nii.gz")
    assert error.geometry.is_close(real.geometry)
    assert np.allclose(error.array, found.comparison.difference.array)
    facts = read(tmp_path / "r" / "error_map.nii.gz")
    assert facts.content == "error map" and facts.inputs == found.inputs
    assert facts.software == {"medgen": MedGenLib.__version__} and facts.created.endswith("+00:00")


def test_a_missing_label_is_highlighted(tmp_path, synthetic, tissue):
    lost = synthetic.with_array(np.where(tissue.array == BONE, np.float32(45), synthetic.array))
    written(evaluate(lost, labels=tissue, segmenter="ct-tissue", origin=CaseOrigin("x")), tmp_path / "r")
    text = (tmp_path / "r" / "report.html").read_text("utf-8")
    assert re.search(r"class='notice' role='note'>bone: [^<]*but not found", text)


def test_a_cohort_lists_the_worst_first_and_what_failed(tmp_path, real, tissue):
    cases = [
        evaluate(ct(tissue, seed, sigma), real, labels=tissue, segmenter="ct-tissue", origin=CaseOrigin(name))
        for name, seed, sigma in (("worst", 1, 60.0), ("best", 2, 5.0))
    ]
    cases[1] = cases[1].without_voxels()
    cohort = Cohort(tuple(cases), (Failure("lost", "It is damaged."),), ("One is unmatched.",))
    assert written(cohort, tmp_path / "r") == {"report.html", "metrics.json", "metrics.csv"}
    parsed = require_self_contained((tmp_path / "r" / "report.html").read_text("utf-8"))
    assert "1 of 3 cases could not be evaluated" in parsed.text
    assert "It is damaged." in parsed.text and "One is unmatched." in parsed.text
    assert parsed.text.index("\nworst\n") < parsed.text.index("\nbest\n")
    data = json.loads((tmp_path / "r" / "metrics.json").read_text("utf-8"))
    assert data["failures"] == [{"name": "lost", "sentence": "It is damaged."}]
    mae = next(row for row in data["summary"] if (row["label"], row["name"]) == ("", "MAE"))
    assert mae["mean"] == pytest.approx(np.mean([case.badness for case in cases]))
    assert mae["count"] == 2


def test_a_cohort_with_only_failures_has_a_page(tmp_path):
    written(Cohort((), (Failure("lost", "It is damaged."),)), tmp_path / "r")
    text = (tmp_path / "r" / "report.html").read_text("utf-8")
    assert "0 images evaluated, 1 failed." in text and "It is damaged." in text


# The command


@pytest.fixture
def case(tmp_path, synthetic, real, tissue):
    """Folders image, reference and labels, with the cases a and b."""
    for name, image in (("image", synthetic), ("reference", real), ("labels", tissue)):
        (tmp_path / name).mkdir()
        for stem in "ab":
            write_volume(image, tmp_path / name / f"{stem}.nii.gz")
    return tmp_path


def run(*words) -> int:
    return main(["evaluate", *map(str, words), "--device", "cpu"])


def test_the_command_prints_and_writes(case, capsys):
    words = [case / "image/a.nii.gz", "--reference", case / "reference/a.nii.gz"]
    words += ["--report", case / "r"]
    assert run(*words, "--labels", case / "labels/a.nii.gz", "--segmenter", "ct-tissue") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^MAE +\d+\.\d+ +HU$", printed, re.M)
    assert re.search(r"^bone +\d+ ", printed, re.M) and "bone: Dice" in printed
    assert f"Wrote {case / 'r' / 'report.html'}" in printed
    before = (case / "r" / "metrics.json").read_bytes()
    assert run(*words) == 2
    assert "exists already" in capsys.readouterr().err
    assert (case / "r" / "metrics.json").read_bytes() == before
    assert run(*words, "--overwrite") == 0


def test_a_series_can_be_evaluated(case, synthetic, capsys):
    write_series(synthetic, case / "series", facts=None)
    assert run(case / "series", "--reference", case / "image/a.nii.gz") == 0
    mae = float(re.search(r"^MAE +(\S+)", capsys.readouterr().out, re.M)[1])
    assert mae <= 0.5, "what rounding to whole HU leaves, though the axes are stored otherwise"


def test_the_modality_can_be_given(case, synthetic, tissue, capsys):
    """A crop within fat and muscle has no air to detect a CT by."""
    middle = [slice(n // 2 - 4, n // 2 + 4) for n in synthetic.shape]
    for name, image in (("crop", synthetic), ("mask", tissue)):
        part = replace(image, array=np.clip(image.array, -50, 100)[tuple(middle)])
        write_volume(part, case / f"{name}.nrrd")
    words = [case / "crop.nrrd", "--labels", case / "mask.nrrd", "--segmenter", "ct-tissue"]
    assert run(*words) == 2
    assert "finds tissues by their HU" in capsys.readouterr().err
    assert run(*words, "--modality", "CT") == 0
    assert "Dice" in capsys.readouterr().out


def test_what_is_found_in_a_cohort_is_printed_before_the_work(case, capsys):
    write_volume(read_volume(case / "reference" / "a.nii.gz"), case / "reference" / "z.nii.gz")
    (case / "image" / "c.nii.gz").write_bytes((case / "image" / "a.nii.gz").read_bytes())
    meters = read_volume(case / "image" / "b.nii.gz", modality="CT")
    for role in ("image", "reference"):
        write_volume(replace(meters, affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ meters.affine), case / role / "b.nii.gz")
    assert run(case / "image", "--reference", case / "reference") == 1
    shown = capsys.readouterr().err
    work = shown.index("evaluating: ")
    for sentence in (
        "warning: The reference 'z' has no image of that name.",
        "warning: There is no reference named 'c'",
        "warning: b: The voxels measure 0.00",
    ):
        assert shown.index(sentence) < work
    assert shown.count("warning: b: ") == 1


def test_labels_read_by_number_are_stated_before_the_work_and_once(case, tissue, capsys):
    write_volume(tissue.with_array(tissue.array, {}), case / "plain.nii.gz")
    words = ["--reference", case / "reference/a.nii.gz", "--labels", case / "plain.nii.gz", "--segmenter", "ct-tissue"]
    assert run(case / "image/a.nii.gz", *words) == 0
    shown = capsys.readouterr().err
    said = shown.index("medgen: warning: The labels without names were read by number: 1 = fat")
    assert said < shown.index("comparing: ") and shown.count("read by number") == 1
    assert "Measured inside the body" in shown
    assert run(case / "image", "--reference", case / "reference", *words[2:]) == 0
    shown = capsys.readouterr().err
    assert re.search(r"warning: a: The labels .*\nmedgen: warning: b: The labels .*\nevaluating: ", shown)


def test_two_series_in_one_folder_are_refused(case, synthetic, capsys):
    both = case / "both"
    both.mkdir()
    for name in "12":
        for path in write_series(synthetic, case / name, facts=None):
            path.rename(both / f"{name}{path.name}")
    assert run(both, "--reference", case / "image/a.nii.gz") == 2
    assert "both holds 2 DICOM series; give a folder" in capsys.readouterr().err


def test_folders_give_a_table_and_report_failures(case, capsys):
    folders = [case / "image", "--reference", case / "reference", "--report", case / "r"]
    assert run(*folders) == 0
    assert "2 of 2 images evaluated." in capsys.readouterr().out
    (case / "image" / "b.nii.gz").write_bytes(b"broken")
    (case / "image" / "c.nii.gz").write_bytes((case / "image" / "a.nii.gz").read_bytes())
    assert run(*folders, "--overwrite") == 1
    printed = capsys.readouterr()
    assert "1 of 3 images evaluated." in printed.out
    assert "failed: b: " in printed.err and "failed: c: There is no reference named 'c'" in printed.err
    assert run(*folders, "--overwrite", "-q") == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "failed: b: " in printed.err
    (case / "image" / "a.nii.gz").write_bytes(b"broken")
    assert run(*folders, "--overwrite") == 2
    assert "0 of 3 images evaluated." in capsys.readouterr().out


@pytest.mark.parametrize("place", ["image/r", "image", "reference"])
def test_a_report_among_the_images_is_refused(case, capsys, place):
    folders = [case / "image", "--reference", case / "reference"]
    assert run(*folders, "--report", case / place) == 2
    assert "among the images" in capsys.readouterr().err
    assert {path.name for path in (case / "image").iterdir()} == {"a.nii.gz", "b.nii.gz"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["image/a.nii.gz"], "There is nothing to compare the image with"),
        (["image/none.nii.gz", "--reference", "reference/a.nii.gz"], "There is no file or folder"),
        (["image/a.nii.gz", "--reference", "reference"], "is one volume, but the reference"),
        (["image", "--reference", "reference/a.nii.gz"], "is a folder of volumes, but the ref"),
        (["image/a.nii.gz", "--labels", "labels/a.nii.gz", "--segmenter", "magic"], "magic"),
    ],
)
def test_requests_that_cannot_be_met_get_one_sentence(case, capsys, monkeypatch, words, sentence):
    monkeypatch.chdir(case)
    assert run(*words, "--report", "r") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and sentence in lines[0]
    assert not (case / "r").exists(), "no file is left"
