"""Images with classes, in the layouts that people have.

| layout      | files                                                                                          |
|-------------|------------------------------------------------------------------------------------------------|
| CSV         | a table with the columns image and class and, optionally, case, subject and split; an image     |
|             | with several classes joins them with a vertical bar                                             |
| CheXpert    | train.csv and valid.csv with Path, Sex, Age, views and findings: 1, 0, -1 (uncertain) or blank  |
| ChestX-ray8 | Data_Entry_2017.csv, images*/**/*.png and, optionally, test_list.txt                            |
| COVID-CT    | CT_COVID and CT_NonCOVID with slices, also in Images-processed                                  |
| folders     | CLASS/IMAGE or CLASS/PERSON/IMAGE, also in the folders train, val and test                      |

An image is a volume, a folder with a DICOM series, a picture (PNG, JPEG, BMP, TIFF) or a single DICOM image.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.io.pictures import IMAGES
from MedGenLib.trainer.datasets import ClassifiedImage, DataSet, Problem, reading
from MedGenLib.trainer.layouts import FOLDERS, person_of, stem

UNCERTAIN = {"ignore": None, "ones": 1, "zeros": 0}
"""What an uncertain finding becomes."""
SEVERAL = "|"
"""Joins the classes of one image."""
NONE = "No Finding"
"""States in tables of radiographs that no finding applies; it is no class of its own."""
SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
_PATIENT = re.compile(r"patient\d+")
_PAPER = re.compile(r"(.+?)(-p\d+|%\d+)")
"""Slices of COVID-CT are named by their paper: 2020.01.24.919183-p27-132.png, 12%1.png."""
_COVID = {"CT_COVID": "COVID", "CT_NonCOVID": "no COVID"}
_CHEXPERT_FACTS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")


@dataclass
class _Found:
    """Cases as they are found: name -> person, image, class -> target, split."""

    cases: dict[str, tuple[str, Path, Mapping[str, int | None], str | None]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(
        self, name: str, subject: str, image: Path | None, targets: Mapping[str, int | None], split: str | None = None
    ) -> None:
        if image is None or not image.exists():
            self.problems.append(Problem(name, f"The image {image or name} does not exist."))
        elif name in self.cases:
            self.problems.append(Problem(name, f"The image {image} has the name of another case; rename one."))
        else:
            self.cases[name] = (subject, image, targets, split)

    def dataset(self, path: Path, layout: str, several: bool, classes: Iterable[str] = ()) -> DataSet:
        names = tuple(classes) or tuple(sorted({name for case in self.cases.values() for name in case[2]}))
        cases = tuple(
            ClassifiedImage(name, subject, image, tuple(targets.get(c, 0) for c in names), split)
            for name, (subject, image, targets, split) in self.cases.items()
        )
        title = path.stem if path.is_file() else path.name
        return DataSet(path, layout, title, cases, classes=names, several=several, problems=tuple(self.problems))


def read_classes(path: str | Path, uncertain: str = "ignore") -> DataSet:
    """The classified images of a data set.

    Parameters
    ----------
    path: a folder in one of the layouts of this module, or a CSV file.
    uncertain: key of `UNCERTAIN` for the findings that CheXpert states as uncertain.

    Raises
    ------
    InputError: an unknown layout, no image, or too few classes.
    """
    path = Path(path).expanduser()
    with reading(path):
        if path.is_file() and path.suffix.lower() != ".csv":
            raise InputError(
                f"{path} is no folder and no CSV file; give a folder with a folder for each class, or a table."
            )
        found = (
            _chexpert(path, UNCERTAIN[uncertain]) or _chestxray(path) or _csv(path) or _covid(path) or _folders(path)
        )
    if found is None:
        raise InputError(
            f"The layout of {path} is not known; create a folder for each class in it, or give a CSV file with the "
            "columns image and class."
        )
    if not found.cases:
        raise found.without("image with a class", path)
    if len(found.classes) < (1 if found.several else 2):
        only = found.classes[0] if found.classes else NONE
        raise InputError(f"All images of {path} have the class '{only}'; add images of another class.")
    return found


def _rows(table: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table, without spaces around the values."""
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    return [name for name in reader.fieldnames or [] if name], rows


def _split(text: str) -> str | None:
    return next((split for split, words in SPLITS.items() if text.casefold() in words), None)


def _targets(text: str) -> dict[str, int | None]:
    """The classes that apply, of "Effusion|Mass"."""
    return {name: 1 for part in text.split(SEVERAL) if (name := part.strip()) and name != NONE}


def _csv(path: Path) -> DataSet | None:
    if path.is_dir():
        return None
    columns, rows = _rows(path)
    if missing := [name for name in ("image", "class") if name not in columns]:
        raise InputError(f"The table {path} has no column '{missing[0]}'; its first line must name it.")
    found = _Found()
    several = any(SEVERAL in row["class"] or row["class"] == NONE for row in rows)
    for number, row in enumerate(rows, start=2):
        image, stated = path.parent / row["image"], row.get("split", "")
        name = row.get("case") or stem(image, IMAGES) or image.name
        if not row["image"] or not row["class"]:
            empty = "image" if not row["image"] else "class"
            found.problems.append(Problem(name, f"Line {number} of {path} has no {empty}."))
        elif stated and _split(stated) is None:
            raise InputError(f"Line {number} of {path} has the split '{stated}'; give train, validation or test.")
        else:
            found.add(name, row.get("subject") or person_of(name), image, _targets(row["class"]), _split(stated))
    return found.dataset(path, "CSV", several)


def _chexpert(path: Path, uncertain: int | None) -> DataSet | None:
    """Tables whose paths start with the name of the data set: CheXpert-v1.0-small/train/patient00001/study1/..."""
    folder = path.parent if path.is_file() else path
    tables = [file for name in ("train.csv", "valid.csv", "test.csv") if (file := folder / name).is_file()]
    columns = _rows(tables[0])[0] if tables else []
    if not set(_CHEXPERT_FACTS) <= set(columns):
        return None
    classes = [name for name in columns if name not in (*_CHEXPERT_FACTS, NONE)]
    values = {"1": 1, "0": 0, "-1": uncertain, "": 0}
    found = _Found()
    for table in tables:
        for row in _rows(table)[1]:
            parts = Path(row["Path"]).parts
            below = parts[parts.index(table.stem) :] if table.stem in parts else parts
            person = next((part for part in below if _PATIENT.fullmatch(part)), below[0])
            name = "-".join((*below[1:-1], Path(below[-1]).stem))
            stated = {c: row.get(c, "").removesuffix(".0") for c in classes}
            if wrong := next((text for text in stated.values() if text not in values), None):
                found.problems.append(Problem(name, f"A finding is '{wrong}', but 1, 0, -1 and blank are known."))
            else:
                targets = {c: values[text] for c, text in stated.items()}
                found.add(name, person, folder.joinpath(*below), targets, _split(table.stem))
    return found.dataset(folder, "CheXpert", True, classes)


def _chestxray(path: Path) -> DataSet | None:
    """NIH's radiographs; the official list of tests counts where it is there."""
    folder = path.parent if path.is_file() else path
    table = next(iter(sorted(folder.glob("Data_Entry_2017*.csv"))), None)
    if table is None or path.is_file() and path != table:
        return None
    columns, rows = _rows(table)
    needed = ("Image Index", "Finding Labels", "Patient ID")
    if missing := [name for name in needed if name not in columns]:
        raise InputError(f"The table {table} has no column '{missing[0]}'; use the one of the publication.")
    images = {file.name: file for pattern in ("*.png", "images*/**/*.png") for file in folder.glob(pattern)}
    listed = folder / "test_list.txt"
    tests = set(listed.read_text(encoding="utf-8").split()) if listed.is_file() else set()
    found = _Found()
    for row in rows:
        index = row["Image Index"]
        split = ("test" if index in tests else "train") if tests else None
        found.add(Path(index).stem, row["Patient ID"], images.get(index), _targets(row["Finding Labels"]), split)
    return found.dataset(folder, "ChestX-ray8", True)


def _covid(path: Path) -> DataSet | None:
    """Slices from papers: those of one paper belong together, because they may show one person."""
    folder = path / "Images-processed" if (path / "Images-processed").is_dir() else path
    if path.is_file() or not all((folder / name).is_dir() for name in _COVID):
        return None
    found = _Found()
    for name, title in _COVID.items():
        for image, slice_ in _images(folder / name):
            paper = _PAPER.match(slice_)
            found.add(f"{name}-{slice_}", f"{name}-{paper[1] if paper else slice_}", image, {title: 1})
    return found.dataset(path, "COVID-CT", False, _COVID.values())


def _folders(path: Path) -> DataSet | None:
    splits = [(folder, split) for folder in _within(path) if (split := _split(folder.name))]
    found, classes = _Found(), set()
    if any((path / images).is_dir() and (path / labels).is_dir() for images, labels in FOLDERS):
        raise InputError(
            f"{path} has images and their labels, not a folder for each class; give a CSV file with classes."
        )
    for root, split in splits or [(path, None)]:
        for folder in _within(root):
            start = f"{split}-{folder.name}" if split else folder.name
            for image, person, name in _in_class(folder):
                classes.add(folder.name)
                found.add(f"{start}-{name}", person, image, {folder.name: 1}, split)
    return found.dataset(path, "folders", False, sorted(classes)) if classes else None


def _within(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _images(folder: Path) -> Iterator[tuple[Path, str]]:
    """Image files of a folder, and their names; the suffix is kept where two files differ in nothing else."""
    files = [(file, name) for file in sorted(folder.iterdir()) if file.is_file() and (name := stem(file, IMAGES))]
    names = [name for _, name in files]
    yield from ((file, name if names.count(name) == 1 else file.name) for file, name in files)


def _in_class(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Image, person and name: files, series in folders, and folders of persons with files or series."""
    for image, name in _images(folder):
        yield image, person_of(name), name
    for inner in _within(folder):
        files = list(_images(inner))
        if _is_series([file for file, _ in files], inner):
            yield inner, person_of(inner.name), inner.name
            continue
        for image, name in (*files, *((series, series.name) for series in _within(inner))):
            yield image, inner.name, f"{inner.name}-{name}"


def _is_series(images: Sequence[Path], folder: Path) -> bool:
    """Whether a folder holds one DICOM series: files with the suffix of DICOM, or with none that is known."""
    others = [image for image in images if image.suffix.lower() != ".dcm"]
    return not others and any(p.is_file() and not p.name.startswith(".") for p in folder.iterdir())
