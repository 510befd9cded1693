"""Published data sets, made as published: IXI, SynthRAD 2023 and 2025, LIDC-IDRI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicoms import patient_series

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.trainer.image_sets import read_images
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.layouts import read_dataset
from MedGenLib.trainer.pair_inspection import inspect_pairs
from MedGenLib.trainer.pairs import read_data
from MedGenLib.training.data.volumes import Volumes

SHAPE = (14, 16, 12)
SAGITTAL = np.array([[0.0, 0.0, 1.2, -8.0], [-0.94, 0.0, 0.0, 6.0], [0.0, -0.94, 0.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
"""Posterior, inferior, right: as the T1 of IXI are stored."""


def image(path: Path, seed: int, affine=None, ct: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(300, 60, SHAPE).clip(1)
    if ct:
        values = np.where(np.indices(SHAPE).sum(0) % 5 < 3, values - 260, -1000)
    write_volume(Volume(values.astype(np.float32), np.diag([1.0, 1, 1, 1]) if affine is None else affine), path)


def ixi(root: Path, flat: bool) -> Path:
    for seed, case in enumerate(("IXI012-HH-1211", "IXI013-HH-1212", "IXI002-Guys-0828", "IXI035-IOP-0873")):
        for what in ("T1", "T2", "PD", "MRA"):
            folder = root if flat else root / f"IXI-{what}"
            if (case, what) != ("IXI035-IOP-0873", "T2"):
                image(folder / f"{case}-{what}.nii.gz", seed, SAGITTAL if what == "T1" else None)
        image(root / f"{case}-DTI-00.nii.gz", seed)
    return root


@pytest.mark.parametrize("flat", [True, False])
def test_ixi(tmp_path, flat):
    found = read_data(ixi(tmp_path, flat), source="T1", target="T2")
    assert (found.layout, found.source_modality, found.modality, found.license) == ("IXI", "T1w", "T2w", "CC-BY-SA-3.0")
    assert [case.subject for case in found.cases] == ["IXI002", "IXI012", "IXI013"]
    assert [problem.case for problem in found.problems] == ["IXI035-IOP-0873"]
    with pytest.raises(InputError, match="has .*T1.* of IXI; name two of them with --source and --target"):
        read_data(tmp_path)
    with pytest.raises(InputError, match="no images 'FLAIR' of IXI"):
        read_images(tmp_path, "FLAIR")
    alone = read_images(tmp_path)
    assert (len(alone.cases), alone.modality, read_images(tmp_path, "PD").modality) == (4, "T1w", "PDw")
    # An image stored in sagittal slices has its extent along the axes of the body.
    facts = inspect(alone).facts[0]
    assert facts.shape == (SHAPE[2], SHAPE[0], SHAPE[1]) and facts.spacing == pytest.approx((1.2, 0.94, 0.94))


def synthrad(root: Path, year: int) -> Path:
    cases = {2023: (("brain", "1BA001"), ("pelvis", "1PC012")), 2025: (("AB", "1ABA005"), ("HN", "1HND003"))}
    suffix = {2023: "nii.gz", 2025: "mha"}[year]
    for seed, (region, case) in enumerate(cases[year]):
        for task, source in ((1, "mr"), (2, "cbct")):
            folder = root / f"Task{task}/{region}/{task}{case[1:]}"
            image(folder / f"{source}.{suffix}", seed + 10 * task, ct=source == "cbct")
            image(folder / f"ct.{suffix}", seed + 50 * task, ct=True)
            write_volume(LabelMap(np.ones(SHAPE, np.uint8), np.eye(4)), folder / f"mask.{suffix}")
        image(root / f"Task1/{region}/overview/{case}.nii.gz", 0)
    return root


@pytest.mark.parametrize("year", [2023, 2025])
def test_synthrad(tmp_path, year):
    region = {2023: "brain", 2025: "AB"}[year]
    for path, names, modalities, count in (
        (synthrad(tmp_path, year), ("mr", "ct"), ("MR", "CT"), 2),
        (tmp_path, ("cbct", "ct"), ("CT", "CT"), 2),
        (tmp_path / f"Task1/{region}", (None, None), ("MR", "CT"), 1),
        (tmp_path / "Task2", (None, None), ("CT", "CT"), 2),
    ):
        found = read_data(path, source=names[0], target=names[1])
        assert (found.layout, found.source_modality, found.modality) == ("SynthRAD", *modalities)
        assert found.paired and len(found.cases) == count and not found.problems
    assert [case.subject for case in found.cases] == [case.name for case in found.cases]
    assert len(inspect_pairs(found).facts) == 2
    with pytest.raises(InputError, match="has .*cbct.* of SynthRAD; name two"):
        read_data(tmp_path)
    (found.cases[0].target).unlink()
    assert [problem.case for problem in read_data(tmp_path / "Task2", source="cbct", target="ct").problems] == [
        found.cases[0].name
    ]


POSITIONS = [-40.0 + 2.5 * n for n in range(8)]
SQUARE = [(x, y) for x in range(10, 17) for y in range(8, 15) if x in (10, 16) or y in (8, 14)]
"""Outline of 7 x 7 pixels about a nodule of 5 x 5."""


def in_order(points):
    middle = np.mean(points, axis=0)
    return sorted(points, key=lambda p: np.arctan2(p[1] - middle[1], p[0] - middle[0]))


def roi(points, plane: int, inclusion: str = "TRUE") -> str:
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    place = f"<imageZposition>{POSITIONS[plane]}</imageZposition><imageSOP_UID>1.2.{plane}</imageSOP_UID>"
    return f"<roi>{place}<inclusion>{inclusion}</inclusion>{edges}</roi>"


def readings(path: Path, series: str, readers: list[list[str]], root: str = "LidcReadMessage") -> None:
    """An XML file as published; a reader has the regions of its nodules."""
    found = "".join(
        "<readingSession><servicingRadiologistID>anonymous</servicingRadiologistID>"
        + "".join(
            f"<unblindedReadNodule><noduleID>{n}</noduleID>{rois}</unblindedReadNodule>" for n, rois in enumerate(r)
        )
        + "<nonNodule><nonNoduleID>9</nonNoduleID><imageZposition>-40</imageZposition></nonNodule></readingSession>"
        for r in readers
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} uid="x" xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{found}</{root}>"
    )


def scan(folder: Path, number: int, modality: str = "CT") -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(number)
    pixels = np.where(np.indices((8, 24, 32)).sum(0) % 7 < 4, 40, -900) + generator.integers(-20, 20, (8, 24, 32))
    order = {"size": (32, 24), "pixels": pixels.astype(np.int16), "origin": (0.0, 0.0, 0.0)}
    patient_series(folder, POSITIONS, modality=modality, series=f"1.3.{number}", **order)


def lidc(root: Path) -> Path:
    square = in_order(SQUARE)
    agreed = [roi(square, n) for n in (2, 3, 4)]
    smaller = roi(in_order([p for p in SQUARE if p[0] <= 16 and p[1] <= 14]), 3)
    lonely = roi(in_order([(x + 12, y) for x, y in SQUARE]), 6)
    hole = roi(in_order([(x, y) for x in (12, 13, 14) for y in (10, 11, 12) if (x, y) != (13, 11)]), 3, "FALSE")
    point = roi([(5, 5)], 5)
    readers = [["".join(agreed), lonely], ["".join(agreed) + hole], [smaller, point], [point]]
    for number, (person, where) in enumerate((("0001", "x"), ("0002", "y"), ("0002", "z")), start=1):
        scan(root / f"LIDC-IDRI/LIDC-IDRI-{person}/01-01-2000-{where}/3000566.{number}-NA-0", number)
    readings(root / "LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-x/3000566.1-NA-0/069.xml", "1.3.1", readers)
    readings(root / "tcia-lidc-xml/157/158.xml", "1.3.2", readers)
    readings(root / "tcia-lidc-xml/157/159.xml", "1.3.3", readers, "IdriReadMessage")
    scan(root / "LIDC-IDRI/LIDC-IDRI-0001/01-01-2000-w/1-NA-1", 9, "MR")
    return root


def test_lidc_has_the_nodules_on_which_the_readers_agree(tmp_path):
    found = read_dataset(lidc(tmp_path))
    assert (found.layout, found.modality, found.labels) == ("LIDC-IDRI", "CT", {1: "lung nodule"})
    assert [(case.name, case.subject) for case in found.cases] == [
        ("LIDC-IDRI-0001-2", "LIDC-IDRI-0001"),
        ("LIDC-IDRI-0002-1", "LIDC-IDRI-0002"),
    ]
    assert [problem.case for problem in found.problems] == ["LIDC-IDRI-0002-2"]
    case = found.cases[0]
    mask, ct = read_label_map(case.labels, case.image), read_volume(case.image)
    assert mask.geometry.is_close(ct.geometry)
    expected = np.zeros(mask.shape, np.uint8)
    expected[11:16, 9:14, 2:5] = 1  # columns, rows, slices: the outline itself is not of the nodule
    # Three of four outlined it, and two of the three do not see the hole of the second one.
    assert np.array_equal(mask.array, expected)
    inspected = inspect(found)
    assert inspected.facts[0].labels[1].count == 75 and [p.case for p in inspected.problems] == ["LIDC-IDRI-0002-2"]


def test_an_outline_beside_the_slices_is_refused(tmp_path):
    scan(tmp_path / "ct", 1)
    readings(tmp_path / "ct/1.xml", "1.3.1", [[roi(in_order(SQUARE), 3).replace("-32.5", "-31.4")]])
    with pytest.raises(InputError, match="at z = -31.4 mm lies in no slice of the CT"):
        read_label_map(tmp_path / "ct/1.xml")
    readings(tmp_path / "ct/1.xml", "1.3.1", [])
    with pytest.raises(InputError, match="no readings of a CT"):
        read_label_map(tmp_path / "ct/1.xml")


def test_outlines_train(tmp_path):
    found = read_dataset(lidc(tmp_path))
    case = found.cases[0]
    spacing = float(np.prod(read_volume(case.image).spacing) ** (1 / 3))
    codec = {"name": "tissue-standard", "centers": [0.0, 0.0], "scales": [100.0, 100.0]}
    data = {
        "cases": [[case.name, str(case.image), str(case.labels)]],
        "labels": {"1": "lung nodule"},
        "outside": "anatomy",
    }
    data |= {"numbers": {"1": 1}, "spacing_mm": spacing, "codec": codec, "modality": "CT", "held_out": []}
    (prepared,) = Volumes({"data": {**data, "cache": str(tmp_path / "cache")}}, 16).cases
    volume = 75 * float(np.prod(read_volume(case.image).spacing))
    assert np.count_nonzero(prepared.labels) * spacing**3 == pytest.approx(volume, rel=0.3)
