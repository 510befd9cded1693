"""Images to translate: pairs, or two sets of images without pairs, in the layouts that people have.

| layout           | files                                                                                       |
|------------------|---------------------------------------------------------------------------------------------|
| CSV              | a table with the columns source and target and, optionally, case and subject                |
| nnU-Net          | dataset.json and imagesTr with two channels, named as source and target                     |
| BIDS             | sub-X/[ses-Y/]anat/*_T1w.nii.gz and others, with suffixes named as source and target        |
| two folders      | source and target, A and B, mr and ct, or named; pairs have the same names                  |
| folders of cases | CASE/mr.nii.gz and CASE/ct.nii.gz, or CASE/CASE-t1n.nii.gz and so on, named                 |
| IXI, SynthRAD    | see `MedGenLib.trainer.published`                                                           |

Each image is a file or a folder with a DICOM series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import looks_like_labels
from MedGenLib.io.files import read_volume
from MedGenLib.trainer.datasets import DataSet, ImagePair, Problem, reading
from MedGenLib.trainer.layouts import (
    FOLDERS,
    TWO_CASES,
    bids_images,
    channel_number,
    columns_of,
    described_data,
    entities,
    person_of,
    read_dataset,
    stem,
    table_rows,
    volumes_in,
)
from MedGenLib.trainer.published import LICENSES, published_images

NAMED = (("source", "target"), ("sources", "targets"), ("A", "B"), ("trainA", "trainB"), ("mr", "ct"), ("MR", "CT"))
"""Names of folders, or of the images of a case, that are known as source and target."""
_WORDS = {"t1": "T1w", "t1w": "T1w", "t1n": "T1w", "t1c": "T1w", "t2": "T2w", "t2w": "T2w", "t2f": "FLAIR"}
_WORDS |= {"flair": "FLAIR", "pd": "PDw", "pdw": "PDw", "ct": "CT", "cbct": "CT", "mr": "MR", "mri": "MR"}


def read_data(
    path: str | Path,
    task: str | None = None,
    channel: str | None = None,
    source: str | None = None,
    target: str | None = None,
) -> DataSet:
    """The cases of a data set for a task; without one, a data set of images without labels is for translation.

    Parameters
    ----------
    task: "generate" images from labels, or "translate" images.
    channel: see `MedGenLib.trainer.layouts.read_dataset`.
    source, target: names of both images where the layout does not tell: folders, channels, suffixes or files.

    Raises
    ------
    InputError: an unknown layout, names that do not exist, or no case.
    """
    path = Path(path).expanduser()
    with reading(path):
        if task is None:
            translates = bool(source or target) or _holds_images_only(path)
            task = "translate" if translates else "generate"
        if task == "generate":
            return read_dataset(path, channel)
        if bool(source) != bool(target):
            raise InputError("A translation needs --source and --target; give both, or neither where the folders tell.")
        for layout in (_csv, _described, _bids, _published, _two_folders, _cases):
            if (found := layout(path, (source, target) if source and target else None)) is not None:
                return _with_cases(found)
    raise InputError(
        f"The layout of {path} is not known; create the folders source and target in it, with images of the same "
        "names, name the images with --source and --target, or give a CSV file with the columns source and target."
    )


def stated_modality(name: str) -> str | None:
    """The modality in the name of a folder, channel or file: "mr_t1" is T1w."""
    found = [_WORDS[part] for part in re.split(r"[^a-z0-9]+", name.casefold()) if part in _WORDS]
    return min(found, key=lambda word: word == "MR", default=None)


def _holds_images_only(path: Path) -> bool:
    """Whether a data set is known for translation by its columns, its folders or its "labels"."""
    if path.is_file():
        return path.suffix.lower() == ".csv" and {"source", "target"} <= set(columns_of(path))
    if any(_both(path, pair) for pair in NAMED) or published_images(path)[1]:
        return True
    pair = next((pair for pair in FOLDERS if _both(path, pair)), None)
    first = next(iter(volumes_in(path / pair[1]).values()), None) if pair else None
    return first is not None and not (path / "dataset.json").is_file() and not looks_like_labels(read_volume(first))


def _both(path: Path, names: tuple[str, str]) -> bool:
    present = {entry.name for entry in path.iterdir() if entry.is_dir()}  # as spelled, also where case does not count
    return present.issuperset(names)


def _with_cases(found: DataSet) -> DataSet:
    sides = [any(getattr(case, side) for case in found.cases) for side in ("source", "target")]
    if not all(sides):
        raise found.without(f"usable {'targets' if sides[0] else 'sources'}", found.path)
    return found


def _csv(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    if path.is_dir():
        return None
    columns = names or ("source", "target")
    cases: dict[str, ImagePair] = {}
    problems = []
    for number, row in table_rows(path, columns):
        files = [path.parent / row[name].strip() if (row[name] or "").strip() else None for name in columns]
        name = row.get("case") or next((stem(f) or f.name for f in files if f), f"line {number}")
        if absent := [file for file in files if file and not file.exists()]:
            problems.append(Problem(name, f"The file {absent[0]} of line {number} does not exist."))
        elif name in cases:
            raise InputError(TWO_CASES.format(path, name))
        elif any(files):
            cases[name] = ImagePair(name, row.get("subject") or name, *files)
    return _dataset(path, "CSV", path.stem, cases.values(), problems, columns)


def _described(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    facts = described_data(path)
    if facts is None:
        return None
    channels, images = facts.channels, volumes_in(path / "imagesTr")
    if len(channels) < 2:
        raise InputError(f"The images of {path} have one channel, but a translation needs two; give pairs of images.")
    if names is None:
        known = ", ".join(f"{number} ({name})" for number, name in channels.items())
        raise InputError(f"{path} has several channels; name two of {known} with --source and --target.")
    sides = []
    for name in names:
        end = f"_{channel_number(channels, name, path):04d}"
        sides.append({found.removesuffix(end): file for found, file in images.items() if found.endswith(end)})
    words = [channels.get(str(channel_number(channels, name, path)), name) for name in names]
    cases, problems = _matched(*sides, words)
    return _dataset(path, "nnU-Net", facts.title, cases, problems, words, facts.license)


def _bids(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    found = bids_images(path)
    if not found or names is None:
        return None
    if missing := [name for name in names if name not in found]:
        raise InputError(f"The BIDS data set {path} has no images *_{missing[0]}; choose two of {', '.join(found)}.")
    sides = [{"_".join(filter(None, entities(file))): file for file in found[name]} for name in names]
    people = {"_".join(filter(None, entities(file))): entities(file)[0] for name in names for file in found[name]}
    cases, problems = _matched(*sides, names, people)
    return _dataset(path, "BIDS", path.name, cases, problems, names)


def _published(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    layout, found = published_images(path)
    if not found:
        return None
    if names is None and set(found) in ({"mr", "ct"}, {"cbct", "ct"}):
        names = (next(name for name in found if name != "ct"), "ct")
    if names is None or not set(names) <= set(found):
        raise InputError(f"{path} has {', '.join(found)} of {layout}; name two of them with --source and --target.")
    # The tasks of SynthRAD have different patients.
    tasks = set.intersection(*({case[0] for case in found[name]} for name in names))
    sides = [{case: file for case, file in found[name].items() if case[0] in tasks} for name in names]
    people = {case: case.split("-")[0] for side in sides for case in side}
    cases, problems = _matched(*sides, names, people)
    return _dataset(path, layout, layout, cases, problems, names, LICENSES[layout])


def _two_folders(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    pairs = ((names,) if names else NAMED) + (() if names else FOLDERS)
    pair = next((pair for pair in pairs if _both(path, pair)), None)
    if pair is None:
        return None
    sides = [{_plain(name, folder): file for name, file in _images_in(path / folder).items()} for folder in pair]
    cases, problems = _matched(*sides, pair)
    return _dataset(path, "two folders", path.name, cases, problems, pair)


def _cases(path: Path, names: tuple[str, str] | None) -> DataSet | None:
    """One folder for each case."""
    folders = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    for pair in (names,) if names else NAMED:
        sides: list[dict[str, Path]] = [{}, {}]
        for folder in folders:
            images = _images_in(folder)
            for side, name in zip(sides, pair, strict=True):
                found = next((k for k in (name, f"{folder.name}-{name}", f"{folder.name}_{name}") if k in images), None)
                if found is not None:
                    side[folder.name] = images[found]
        if all(sides):
            cases, problems = _matched(*sides, pair)
            return _dataset(path, "folders of cases", path.name, cases, problems, pair)
    return None


def _images_in(folder: Path) -> dict[str, Path]:
    """Name -> file, or folder of a DICOM series."""
    series = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    return {**series, **volumes_in(folder)}


def _plain(name: str, folder: str) -> str:
    """The name of a case without the channel of nnU-Net and the name of its folder: "p1_mr" in the folder mr is p1."""
    return re.sub(rf"([_-]{re.escape(folder)}|_\d{{4}})$", "", name, flags=re.IGNORECASE)


def _matched(
    sources: Mapping[str, Path],
    targets: Mapping[str, Path],
    names: Iterable[str],
    people: Mapping[str, str] | None = None,
) -> tuple[list[ImagePair], list[Problem]]:
    """Pairs of the same name; where no name is on both sides, unpaired images. ``people`` is name -> subject."""
    one, two = names
    subject = {name: (people or {}).get(name) or person_of(name) for name in (*sources, *targets)}
    if not set(sources) & set(targets):
        cases = [ImagePair(f"{one}-{name}", subject[name], file, None) for name, file in sources.items()]
        return cases + [ImagePair(f"{two}-{name}", subject[name], None, file) for name, file in targets.items()], []
    cases = [ImagePair(name, subject[name], sources[name], targets[name]) for name in sources if name in targets]
    problems = [Problem(name, f"The image {sources[name]} has no {two}.") for name in sources if name not in targets]
    problems += [Problem(name, f"The image {targets[name]} has no {one}.") for name in targets if name not in sources]
    return cases, problems


def _dataset(
    path: Path,
    layout: str,
    title: str,
    cases: Iterable[ImagePair],
    problems: Iterable[Problem],
    names: Iterable[str],
    license: str = "not stated",
) -> DataSet:
    source, target = (stated_modality(name) for name in names)
    return DataSet(
        path,
        layout,
        title,
        tuple(cases),
        modality=target,
        source_modality=source,
        license=license,
        problems=tuple(problems),
    )
