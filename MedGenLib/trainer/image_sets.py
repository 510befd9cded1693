"""Images without labels, as one set or in classes, and series over time.

| layout     | files                                                                     |
|------------|---------------------------------------------------------------------------|
| CSV        | a table with the column image and, optionally, class, case and subject    |
| one folder | images of any names                                                       |
| BIDS       | sub-X/[ses-Y/]anat/*_T1w.nii.gz, or another suffix as the channel         |
| published  | IXI and SynthRAD, see `MedGenLib.trainer.published`; T1 or ct by default  |
| labeled    | those of `MedGenLib.trainer.layouts`, of which the labels are left out    |
| classes    | those of `MedGenLib.trainer.classes`, such as one folder for each class   |
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.trainer.classes import read_classes
from MedGenLib.trainer.datasets import DataSet, LabeledImage, Problem, reading
from MedGenLib.trainer.layouts import (
    CONTRASTS,
    bids_images,
    columns_of,
    entities,
    person_of,
    read_dataset,
    read_table,
    stem,
    volumes_in,
)
from MedGenLib.trainer.pairs import stated_modality
from MedGenLib.trainer.published import LICENSES, published_images


def read_images(path: str | Path, channel: str | None = None) -> DataSet:
    """The images of a data set, each with its class where the data set has classes.

    Parameters
    ----------
    channel: see `MedGenLib.trainer.layouts.read_dataset`.

    Raises
    ------
    InputError: an unknown layout, or no image.
    """
    path = Path(path).expanduser()
    with reading(path):
        found = _table(path) if path.is_file() else _published(path, channel) or _folder(path) or _bids(path, channel)
        found = found or _labeled(path, channel) or _classes(path)
    found = replace(found, classes=tuple(sorted({case.kind for case in found.cases if case.kind})))
    if not found.cases:
        raise found.without("image that can be read", path)
    return found


def read_series(path: str | Path) -> DataSet:
    """The series over time of a folder, or of a CSV file with the columns image and, optionally, case and subject.

    A series is a 4-D file, or a folder with a file for each frame.

    Raises
    ------
    InputError: no series.
    """
    path = Path(path).expanduser()
    with reading(path):
        if path.is_file():
            return replace(read_table(path, ("image",)), series=True)
        folders = {p.name: p for p in sorted(path.iterdir()) if p.is_dir() and not p.name.startswith(".")}
        found = {name.removesuffix(".seq"): file for name, file in (volumes_in(path) | folders).items()}
    if not found:
        raise InputError(
            f"{path} has no series over time; put a 4-D file (.seq.nrrd, .nii.gz) of each person, or a folder with the "
            "frames of each, into it."
        )
    cases = tuple(LabeledImage(name, person_of(name), file) for name, file in found.items())
    return DataSet(path, "series", path.name, cases, series=True)


def _table(path: Path) -> DataSet:
    has_classes = path.suffix.lower() == ".csv" and "class" in columns_of(path)
    return _classes(path) if has_classes else read_table(path, ("image",))


def _published(path: Path, channel: str | None) -> DataSet | None:
    layout, found = published_images(path)
    if not found:
        return None
    name = channel or next((name for name in ("T1", "ct") if name in found), next(iter(found)))
    if name not in found:
        raise InputError(f"{path} has no images '{name}' of {layout}; choose {' or '.join(found)} as --channel.")
    cases = tuple(LabeledImage(case, case.split("-")[0], file) for case, file in found[name].items())
    return DataSet(path, layout, layout, cases, modality=stated_modality(name), license=LICENSES[layout])


def _folder(path: Path) -> DataSet | None:
    cases = tuple(LabeledImage(name, person_of(name), file) for name, file in volumes_in(path).items())
    return DataSet(path, "one folder", path.name, cases) if cases else None


def _bids(path: Path, channel: str | None) -> DataSet | None:
    found = bids_images(path)
    if not found:
        return None
    suffix = channel or next((name for name in CONTRASTS if name in found), next(iter(found)))
    if suffix not in found:
        raise InputError(
            f"The BIDS data set {path} has no images *_{suffix}; choose {' or '.join(found)} as --channel."
        )
    cases = tuple(LabeledImage(stem(file) or file.name, entities(file)[0], file) for file in found[suffix])
    return DataSet(path, "BIDS", path.name, cases, modality="CT" if suffix == "ct" else suffix)


def _labeled(path: Path, channel: str | None) -> DataSet | None:
    try:
        found = read_dataset(path, channel)
    except InputError:
        if channel is not None:
            raise
        return None
    return replace(found, cases=tuple(replace(case, labels=None) for case in found.cases), labels={}, strict=False)


def _classes(path: Path) -> DataSet:
    """The images that have exactly one class."""
    found = read_classes(path)
    cases, problems = [], list(found.problems)
    for case in found.cases:
        kinds = [name for name, target in zip(found.classes, case.targets, strict=True) if target]
        if len(kinds) == 1:
            cases.append(LabeledImage(case.name, case.subject, case.image, kind=kinds[0]))
        else:
            problems.append(Problem(case.name, f"The image has {len(kinds) or 'no'} classes, but needs exactly one."))
    for kind in found.classes:
        if len({case.subject for case in cases if case.kind == kind}) == 1:
            raise InputError(
                f"The class '{kind}' of {path} has images of one person only; add some of others, or put all images "
                "into one folder if they have no classes."
            )
    return replace(found, cases=tuple(cases), problems=tuple(problems))
