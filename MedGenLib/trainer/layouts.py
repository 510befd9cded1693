"""Recognition of the layout of a data set.

| layout    | files                                                                                      |
|-----------|--------------------------------------------------------------------------------------------|
| CSV       | a table with the columns image, labels and, optionally, case and subject                   |
| nnU-Net   | dataset.json with channel_names, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz            |
| Decathlon | dataset.json with modality, imagesTr/CASE.nii.gz, labelsTr/CASE.nii.gz                      |
| BraTS     | one folder for each case: CASE/CASE-t1n.nii.gz ..., CASE/CASE-seg.nii.gz (BraTS 2023)        |
| BIDS      | sub-X/[ses-Y/]anat/*_T1w.nii.gz, derivatives/**/*_dseg.nii.gz with the same sub and ses      |
| LIDC-IDRI | see `MedGenLib.trainer.published`                                                          |
| folders   | images and labels (or imagesTr and labelsTr, images and masks) with files of the same names |
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.io.dicom.outlines import NODULE
from MedGenLib.io.files import READABLE
from MedGenLib.trainer.datasets import DataSet, LabeledImage, Problem, reading
from MedGenLib.trainer.published import LICENSES, lidc_scans

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"), ("images", "masks"), ("image", "label"))
CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw", "ct")
"""BIDS suffixes, the default first."""
BRATS_CASE = re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d+")
BRATS_IMAGES = {"t1n": "T1w", "t1c": "T1w", "t2w": "T2w", "t2f": "FLAIR"}
BRATS_LABELS = {1: "necrotic tumor core", 2: "peritumoral edema", 3: "enhancing tumor"}
"""Labels of the glioma data of 2023: https://www.synapse.org/Synapse:syn51156910."""
TWO_CASES = "The table {} has two cases '{}'; add a column case with different names."
_CHANNEL = re.compile(r"_\d{4}$")
_WORDS = {"t1": "T1w", "t1w": "T1w", "t2": "T2w", "t2w": "T2w", "flair": "FLAIR", "pd": "PDw", "ct": "CT"}


def read_dataset(path: str | Path, channel: str | None = None) -> DataSet:
    """The cases of a data set.

    Parameters
    ----------
    path: a folder in one of the layouts of this module, or a CSV file.
    channel: name or number of the generated image where a case has several; by default the first one.

    Raises
    ------
    InputError: an unknown layout, an unknown channel, or no case.
    """
    path = Path(path).expanduser()
    with reading(path):
        layouts = (_csv, _described, _brats, _lidc, _bids, _folders)
        found = next((found for layout in layouts if (found := layout(path, channel)) is not None), None)
    if found is not None and not found.cases:
        raise found.without("image with labels", path)
    if found is not None:
        return found
    raise InputError(
        f"The layout of {path} is not known; create the folders images and labels in it, with files of the same names, "
        "or give a CSV file with the columns image and labels."
    )


def stem(path: Path, suffixes: tuple[str, ...] = READABLE) -> str | None:
    """The name without the suffix of a volume; None for other files and hidden ones."""
    name = path.name
    ending = next((e for e in sorted(suffixes, key=len, reverse=True) if name.lower().endswith(e)), None)
    return None if ending is None or name.startswith(".") else name[: -len(ending)]


def volumes_in(folder: Path) -> dict[str, Path]:
    """Name -> file of the volumes of a folder."""
    named = {stem(path): path for path in sorted(folder.iterdir())}
    return {name: path for name, path in named.items() if name is not None}


def _csv(path: Path, channel: str | None) -> DataSet | None:
    return None if path.is_dir() else read_table(path, ("image", "labels"))


def read_table(path: Path, needed: tuple[str, ...]) -> DataSet:
    """The cases of a CSV file with the columns "image" and perhaps "labels"; InputError for another file."""
    cases: dict[str, LabeledImage] = {}
    problems = []
    for number, row in table_rows(path, needed):
        files = [path.parent / (row[name] or "").strip() for name in needed]
        name = row.get("case") or stem(files[0]) or f"line {number}"
        if absent := [file for file in files if not file.is_file()]:
            problems.append(Problem(name, f"The file {absent[0]} of line {number} does not exist."))
        elif name in cases:
            raise InputError(TWO_CASES.format(path, name))
        else:
            cases[name] = LabeledImage(name, row.get("subject") or person_of(name), *files)
    return DataSet(path, "CSV", path.stem, tuple(cases.values()), problems=tuple(problems))


def columns_of(path: Path) -> list[str]:
    """The first line of a CSV file."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return next(csv.reader(stream), [])


def table_rows(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line and values of each case of a CSV file; InputError for another file, or one that lacks a column."""
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path} is no folder and no CSV file; give a folder of images, or such a table.")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        if missing := [name for name in needed if name not in (rows.fieldnames or [])]:
            raise InputError(f"The table {path} has no column '{missing[0]}'; its first line must name it.")
        return list(enumerate(rows, start=2))


@dataclass(frozen=True)
class Described:
    """What dataset.json states; `channels` is number -> name."""

    layout: str
    title: str
    channels: Mapping[str, str]
    labels: Mapping[int, str]
    license: str


def described_data(path: Path) -> Described | None:
    """What dataset.json of a folder of nnU-Net or the Decathlon states; None for other folders."""
    file = path / "dataset.json"
    if not file.is_file() or not (path / "imagesTr").is_dir():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        channels = {str(k): str(v) for k, v in (facts.get("channel_names") or facts.get("modality") or {}).items()}
        names = dict(_label_names(facts.get("labels", {})))
        license = next((str(value) for key, value in facts.items() if key.startswith("licen") and value), "not stated")
    except (ValueError, AttributeError, TypeError):
        raise InputError(f"{file} is not a dataset.json of nnU-Net or the Decathlon; correct or remove it.") from None
    layout = "nnU-Net" if "channel_names" in facts else "Decathlon"
    return Described(layout, str(facts.get("name") or path.name), channels or {"0": ""}, names, license)


def _described(path: Path, channel: str | None) -> DataSet | None:
    """nnU-Net and Medical Segmentation Decathlon: both have dataset.json."""
    facts = described_data(path)
    if facts is None:
        return None
    number = channel_number(facts.channels, channel, path)
    images, ends = volumes_in(path / "imagesTr"), f"_{number:04d}"

    def image_of(name: str) -> Path | None:
        return images.get(name + ends) or (images.get(name) if number == 0 else None)

    cases, problems = _paired(volumes_in(path / "labelsTr"), image_of, path / "imagesTr")
    return DataSet(
        path,
        facts.layout,
        facts.title,
        tuple(cases),
        facts.labels,
        bool(facts.labels),
        _WORDS.get(facts.channels.get(str(number), "").casefold()),
        license=facts.license,
        problems=tuple(problems),
    )


def _label_names(labels: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Number and name of each label: {"liver": 1} of nnU-Net, {"1": "liver"} of the Decathlon; regions have none."""
    for key, value in labels.items():
        if isinstance(value, list):
            continue
        number, name = (int(key), str(value)) if str(key).isdecimal() else (int(value), str(key))
        if number > 0 and name.casefold() != "ignore":
            yield number, name


def channel_number(channels: Mapping[str, str], wanted: str | None, path: Path) -> int:
    """The number of a channel that is given by its number or name; InputError if there is none."""
    if wanted is None:
        return int(min(channels, key=int))
    for number, name in channels.items():
        if wanted.casefold() in (number, name.casefold()):
            return int(number)
    known = ", ".join(f"{number} ({name})" for number, name in channels.items())
    raise InputError(f"The data set {path} has no channel '{wanted}'; choose one of {known}.")


def _paired(labels: Mapping[str, Path], image_of: Any, folder: Path) -> tuple[list[LabeledImage], list[Problem]]:
    cases, problems = [], []
    for name, file in labels.items():
        image = image_of(name)
        if image is None:
            problems.append(Problem(name, f"The labels {file} have no image in {folder}."))
        else:
            subject = BRATS_CASE.fullmatch(name)
            cases.append(LabeledImage(name, subject[1] if subject else name, image, file))
    return cases, problems


def _brats(path: Path, channel: str | None) -> DataSet | None:
    folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and BRATS_CASE.fullmatch(folder.name)]
    if not folders:
        return None
    chosen = (channel or "t1n").casefold()
    if chosen not in BRATS_IMAGES:
        raise InputError(f"BraTS has no image '{channel}'; choose one of {', '.join(BRATS_IMAGES)}.")
    cases, problems = [], []
    for folder in folders:
        files = volumes_in(folder)
        image, labels = (files.get(f"{folder.name}-{what}") for what in (chosen, "seg"))
        if image is None or labels is None:
            what = chosen if image is None else "seg"
            problems.append(Problem(folder.name, f"The folder {folder} has no file {folder.name}-{what}.nii.gz."))
        else:
            cases.append(LabeledImage(folder.name, BRATS_CASE.fullmatch(folder.name)[1], image, labels))
    return DataSet(
        path, "BraTS", path.name, tuple(cases), BRATS_LABELS, True, BRATS_IMAGES[chosen], problems=tuple(problems)
    )


def _lidc(path: Path, channel: str | None) -> DataSet | None:
    found = lidc_scans(path)
    if found is None:
        return None
    cases, problems, name = tuple(found[0]), tuple(found[1]), "LIDC-IDRI"
    return DataSet(path, name, name, cases, {1: NODULE}, True, "CT", license=LICENSES[name], problems=problems)


def _bids(path: Path, channel: str | None) -> DataSet | None:
    found = bids_images(path)
    if found is None:
        return None
    present = [name for name in CONTRASTS if name in found]
    suffix = channel or (present[0] if present else "T1w")
    if suffix not in found:
        others = "its images have other suffixes than T1w, T2w, FLAIR, PDw and ct"
        choose = f"choose {', '.join(present)} as --channel" if present else others
        raise InputError(f"The BIDS data set {path} has no images *_{suffix}; {choose}.")
    labels, names = _segmentations(path)
    cases, problems = [], []
    for image in found[suffix]:
        name, subject, who = stem(image), *entities(image)
        if (subject, who) in labels:
            cases.append(LabeledImage(name, subject, image, labels[subject, who]))
        else:
            problems.append(Problem(name, f"No derivatives/**/*_dseg.nii.gz belongs to the image {image}."))
    modality = "CT" if suffix == "ct" else suffix
    return DataSet(path, "BIDS", path.name, tuple(cases), names, False, modality, problems=tuple(problems))


def bids_images(path: Path) -> dict[str, list[Path]] | None:
    """Suffix -> images of all subjects; None for other folders."""
    subjects = [folder for folder in sorted(path.glob("sub-*")) if folder.is_dir()]
    images = [
        p for folder in subjects for pattern in ("anat", "*/anat", "ct", "*/ct") for p in folder.glob(f"{pattern}/*")
    ]
    found: dict[str, list[Path]] = {}
    for image in images:
        if (name := stem(image)) is not None:
            found.setdefault(name.rpartition("_")[2], []).append(image)
    return found if subjects else None


def entities(path: Path) -> tuple[str, str | None]:
    """Subject and session of a BIDS file."""
    found = dict(part.split("-", 1) for part in path.name.split("_") if "-" in part)
    return found.get("sub", path.name), found.get("ses")


def person_of(name: str) -> str:
    """The person of a case: the subject of BraTS or BIDS, else the name."""
    brats = BRATS_CASE.fullmatch(name)
    return brats[1] if brats else entities(Path(name))[0]


def _segmentations(path: Path) -> tuple[dict[tuple[str, str | None], Path], dict[int, str]]:
    """Subject and session -> label volume, and the names of the labels of dseg.tsv."""
    labels, names = {}, {}
    for file in sorted(path.glob("derivatives/**/*dseg.*")):
        if stem(file) is not None:
            labels.setdefault(entities(file), file)
        elif file.suffix == ".tsv":
            with file.open(encoding="utf-8-sig", newline="") as stream:
                for row in csv.DictReader(stream, delimiter="\t"):
                    if (row.get("index") or "").isdecimal() and int(row["index"]) > 0 and row.get("name"):
                        names[int(row["index"])] = row["name"]
    return labels, names


def _folders(path: Path, channel: str | None) -> DataSet | None:
    pair = next((p for p in FOLDERS if all((path / name).is_dir() for name in p)), None)
    if pair is None:
        return None
    images = {_CHANNEL.sub("", name): file for name, file in volumes_in(path / pair[0]).items()}
    cases, problems = _paired(volumes_in(path / pair[1]), images.get, path / pair[0])
    return DataSet(path, "folders", path.name, tuple(cases), problems=tuple(problems))
