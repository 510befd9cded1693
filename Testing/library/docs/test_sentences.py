"""The generated list of sentences holds whatever the code can say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from workers import trunk

import MedGenLib
from MedGenLib.checks.input import check_image, check_mask
from MedGenLib.checks.output import check_generated
from MedGenLib.cli import main
from MedGenLib.errors import MedGenError
from MedGenLib.imaging.volume import LabelMap, Volume, crop
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.packages.archive import unpack
from MedGenLib.packages.catalogue import find

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

from user_sentences import MEANINGS, SOURCES, is_sentence, sentences  # noqa: E402

LISTED = sentences()
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
MASK = trunk((28, 24, 20))


def listed(message: str) -> bool:
    return any(sentence.matches(message) for sentence in LISTED)


def error_classes() -> set[str]:
    """Names of all errors of the library that have a sentence."""
    found, new = set(), [MedGenError]
    while new:
        found.update(cls.__name__ for cls in new)
        new = [child for cls in new for child in cls.__subclasses__()]
    return found


def test_every_error_and_finding_that_is_written_out_is_listed():
    """A search by text, not by syntax tree: what stands behind the name of an error begins a listed sentence."""
    makers = "|".join(sorted(error_classes() | {"_error", "_warning", "fail", r'Finding\(\s*"\w+",\s*"[\w-]+",\s*_*'}))
    begin = re.compile(rf'(?:{makers})\(?\s*(?:"[\w-]+",\s*)?(?:_\()?f?"([A-Z][^"{{}}\\]{{7,}})')
    texts = [sentence.text for sentence in LISTED]
    found = 0
    for source in SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            for start in begin.findall(path.read_text(encoding="utf-8")):
                found += 1
                assert any(start in text for text in texts), f"{path}: {start}"
    assert found > 250


def test_every_sentence_has_a_kind_and_nothing_is_listed_that_is_none():
    assert {sentence.kind for sentence in LISTED} == set(MEANINGS)
    assert all(is_sentence(sentence.text, sentence.kind) for sentence in LISTED)
    advice = [bool(sentence.advice) for sentence in LISTED if sentence.kind == "refused"]
    assert np.mean(advice) > 0.85, "what is refused says what to do"


def failing(tmp_path):
    """Calls that fail, of many rooms."""
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    write_volume(MASK, tmp_path / "mask.nii.gz")
    ct = Volume(np.zeros((4, 4, 4), np.float32), AFFINE, "CT", "HU")
    return [
        lambda: read_volume(tmp_path / "nothing.nii.gz"),
        lambda: read_volume(tmp_path / "broken.nii.gz"),
        lambda: find("nothing"),
        lambda: MedGenLib.generate(MASK, "head-mr-to-ct"),
        lambda: MedGenLib.generate(MASK, seed=-1),
        lambda: MedGenLib.generate(MASK, steps=0),
        lambda: MedGenLib.generate(MASK, speed=3),
        lambda: MedGenLib.generate(LabelMap(np.zeros((9, 9, 9), np.uint8), AFFINE)),
        lambda: MedGenLib.generate(MASK.with_array(MASK.array * 20)),
        lambda: MedGenLib.generate(MASK, mapping={2: "plastic"}),
        lambda: MedGenLib.Canvas.of_image(ct, MASK),
        lambda: MedGenLib.insert_lesion(ct),
        lambda: MedGenLib.insert_lesion(ct, at=(900, 0, 0), label="bone"),
        lambda: MedGenLib.translate(ct, "CT"),
        lambda: crop(ct, (0, 0, 0), (9, 9, 9)),
        lambda: unpack(tmp_path / "broken.zip", tmp_path / "unpacked", "broken.zip"),
        lambda: write_volume(ct, tmp_path / "v.xyz"),
    ]


@pytest.mark.parametrize("number", range(17))
def test_errors_that_happen_are_listed(tmp_path, number):
    with pytest.raises((MedGenError, ValueError)) as caught:
        failing(tmp_path)[number]()
    assert listed(str(caught.value)), caught.value


def test_findings_and_failed_checks_that_happen_are_listed():
    tissue, head = find("ct-tissue"), find("head-mr-to-ct")
    image = Volume(np.random.default_rng(0).normal(500, 300, MASK.shape).astype(np.float32), MASK.affine, "CT", "HU")
    empty = MASK.with_array(np.zeros_like(MASK.array))
    coarse = LabelMap(np.where(MASK.array == 2, 2, 0).astype(np.uint8), np.diag([9.0, 9.0, 9.0, 1.0]))
    findings = [*check_mask(empty, tissue), *check_mask(coarse, tissue), *check_image(image, head)]
    findings += check_generated(image, MASK, tissue).findings
    assert len(findings) > 6
    for finding in findings:
        assert listed(finding.sentence), finding.sentence


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "nothing.nii.gz", "-o", "out.nii.gz"],
        ["models", "info", "nothing"],
        ["models", "remove", "ct-tissue"],
        ["info", "mask.nii.gz"],
        ["evaluate", "mask.nii.gz"],
        ["dicom", "mask.nii.gz", "-o", "mask.nii.gz"],
        ["train", "nothing.json", "-o", "here"],
        ["reader-study", "run", "nothing"],
    ],
    ids=" ".join,
)
def test_what_the_commands_refuse_is_listed(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    write_volume(MASK, "mask.nii.gz")
    try:
        assert main(words) > 0
    except SystemExit:  # argparse's own sentence
        pytest.skip("not a sentence of MedGen")
    message = capsys.readouterr().err.strip().splitlines()[-1].removeprefix("error: ")
    assert listed(message.partition(": ")[2]) or listed(message), message
