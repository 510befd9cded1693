"""Preparation of a blinded, balanced and randomized reading list from real and synthetic volumes."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedGenLib.errors import InputError, listed
from MedGenLib.evaluation.folders import volumes_in
from MedGenLib.io.atomic import Outputs
from MedGenLib.io.files import READABLE
from MedGenLib.io.recorded import read
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.reader_study.cues import Figures, figures_of, warnings_on
from MedGenLib.reader_study.frames import WHITE, Frame, SourceImage, frame_of, survey
from MedGenLib.reader_study.study import (
    ANSWERS,
    FORMAT,
    ITEMS,
    KEY_FORMAT,
    LIST,
    VERSION,
    hash_of,
    key_of,
    write_item,
    write_json,
)
from MedGenLib.visual.views import Window

KINDS = {"slices": ".png", "volumes": ".nrrd"}


@dataclass(frozen=True)
class PreparedStudy:
    """A prepared study.

    Attributes
    ----------
    study: its folder; key: the file that lists the synthetic items.
    items: number of images, half of them synthetic.
    warnings: sentences on possible cues, and on images left out.
    """

    study: Path
    key: Path
    items: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Pick:
    """One image of the list: a slice of a source, or the whole volume (position 0)."""

    source: SourceImage
    position: int


def make(
    real: Sequence[str | Path],
    synthetic: Sequence[str | Path],
    output: str | Path,
    *,
    items: str = "slices",
    per_volume: int = 3,
    window: Sequence[float] | None = None,
    seed: int | None = None,
    progress: ProgressCallback | None = None,
) -> PreparedStudy:
    """Prepare a study; its folder and key appear together when complete, or not at all.

    Parameters
    ----------
    real, synthetic: volume files, DICOM folders, or folders of these. The same number of images of each is used.
    output: folder of the study, which must not exist. The key is OUTPUT.key.json beside it.
    items: "slices", or "volumes" for scrolling.
    per_volume: slices of each volume, spread over the body.
    window: width and level for all images, in HU for CT. By default the soft-tissue window for CT and percentiles of
        each image for MR.
    seed: seed of selection and order; random if None, recorded in the key.

    Raises
    ------
    InputError: no volumes, an unusable volume, CT and MR mixed, duplicate images, an existing study, or a full disk.
    """
    study = Path(output)
    key = key_of(study)
    _check(study, key, items, per_volume)
    chosen = _window(window)
    seed = secrets.randbelow(2**31) if seed is None else seed
    with Outputs([study, key]) as outputs:
        sources = _survey(_paths(real), _paths(synthetic), progress)
        frame = frame_of(sources, items, chosen)
        picks, warnings = _balanced(sources, frame, per_volume, random.Random(seed))
        outputs.require_space(len(picks) * frame.item_bytes)
        folder = outputs.staged(study)
        (folder / ITEMS).mkdir(parents=True)
        (folder / ANSWERS).mkdir()
        digits = max(3, len(str(len(picks))))
        names = [f"item_{number:0{digits}d}" for number in range(1, len(picks) + 1)]
        figures = _write_items(folder / ITEMS, frame, picks, names, progress)
        identity = secrets.token_hex(8)
        rows = _write_list(folder, frame, identity, names)
        _write_key(outputs.staged(key), folder, identity, seed, rows, picks)
        _hide_times(folder)
        outputs.commit()
    warnings += _made_but_called_real(sources)
    warnings += warnings_on(sources, frame, figures, [pick.source.synthetic for pick in picks])
    return PreparedStudy(study, key, len(picks), tuple(warnings))


def _check(study: Path, key: Path, items: str, per_volume: int) -> None:
    if items not in KINDS:
        raise InputError(f'A study has no "{items}"; choose {" or ".join(KINDS)}.')
    if per_volume < 1:
        raise InputError(f"{per_volume} slices of each volume are too few; give 1 or more.")
    for path in (study, key):
        if path.exists():
            raise InputError(
                f"{path} exists already, and a study is never replaced, as answers may refer to "
                "it; choose another name."
            )


def _window(window: Sequence[float] | None) -> Window | None:
    if window is None:
        return None
    width, level = window
    if not width > 0:
        raise InputError(f"The window's width is {width:g}, but it must be above 0.")
    return Window("window", float(width), float(level))


def _paths(given: Sequence[str | Path]) -> list[Path]:
    """The volumes: files, DICOM folders, and those within folders."""
    found = []
    for path in map(Path, given):
        found += [path] if not path.is_dir() or _is_series(path) else volumes_in(path).values()
    return found


def _is_series(folder: Path) -> bool:
    """Whether it contains files but no folders or volumes, as a DICOM series does."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    volumes = any(path.is_dir() or path.name.lower().endswith(READABLE) for path in inside)
    return bool(inside) and not volumes


def _survey(real: list[Path], synthetic: list[Path], progress: ProgressCallback | None) -> list[SourceImage]:
    stage = Stage("reading", len(real) + len(synthetic), progress)
    sources: dict[str, SourceImage] = {}
    for number, path in enumerate([*real, *synthetic]):
        source = survey(path, synthetic=number >= len(real))
        other = sources.setdefault(source.digest, source)
        if other is not source:
            raise InputError(f"{other.path} and {path} hold the same image; give each image once.")
        stage.advance()
    return list(sources.values())


def _made_but_called_real(sources: list[SourceImage]) -> list[str]:
    """Warnings on real images whose file records that a model made them."""
    made = []
    for source in sources:
        with contextlib.suppress(InputError):  # a damaged record says nothing
            if not source.synthetic and read(source.path) is not None:
                made.append(str(source.path))
    if not made:
        return []
    return [
        f"These images were given as real, but their files record that they are synthetic: "
        f"{listed(made, 3)}; check which are which."
    ]


def _balanced(
    sources: list[SourceImage], frame: Frame, per_volume: int, dice: random.Random
) -> tuple[list[_Pick], list[str]]:
    """The same number of images of each kind in random order, and a sentence if some were left out."""
    sides = [_picks([s for s in sources if s.synthetic == kind], frame, per_volume, dice) for kind in (False, True)]
    count = min(map(len, sides))
    if count == 0:
        kind = "synthetic" if sides[0] else "real"
        raise InputError(f"There is no {kind} image to show; give at least one volume.")
    picks = [pick for side in sides for pick in side[:count]]
    dice.shuffle(picks)
    if len(sides[0]) == len(sides[1]):
        return picks, []
    more = "synthetic" if len(sides[1]) > count else "real"
    left = abs(len(sides[0]) - len(sides[1]))
    return picks, [f"{left} of the {more} images were left out, so that half are synthetic."]


def _picks(sources: list[SourceImage], frame: Frame, per_volume: int, dice: random.Random) -> list[_Pick]:
    """Images of one kind in random order: first one of each volume, then a second of each, and so on"""
    dice.shuffle(sources)
    rounds: dict[int, list[_Pick]] = {}
    for source in sources:
        positions = [0]
        if frame.kind == "slices":
            positions = _spread(list(source.slices(frame.plane)), per_volume, dice)
        for number, position in enumerate(positions):
            rounds.setdefault(number, []).append(_Pick(source, int(position)))
    return [pick for number in sorted(rounds) for pick in rounds[number]]


def _spread(candidates: list[int], count: int, dice: random.Random) -> list[int]:
    """One candidate from each of `count` equal parts, in random order."""
    count = min(count, len(candidates))
    edges = [len(candidates) * n // count for n in range(count + 1)]
    chosen = [dice.choice(candidates[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    dice.shuffle(chosen)
    return chosen


def _write_items(
    folder: Path, frame: Frame, picks: list[_Pick], names: Sequence[str], progress: ProgressCallback | None
) -> list[Figures]:
    """Write the images volume by volume; returns their statistics in the order of the list."""
    places: dict[Path, list[int]] = {}
    for number, pick in enumerate(picks):
        places.setdefault(pick.source.path, []).append(number)
    stage = Stage("writing", len(places), progress)
    figures: dict[int, Figures] = {}
    for numbers in places.values():
        source = picks[numbers[0]].source
        arrays = frame.images(source, [picks[number].position for number in numbers])
        for number, array in zip(numbers, arrays, strict=True):
            write_item(folder / (names[number] + KINDS[frame.kind]), array, frame.item_spacing)
            figures[number] = figures_of(array, WHITE[frame.kind])
        stage.advance()
    return [figures[number] for number in range(len(picks))]


def _write_list(folder: Path, frame: Frame, identity: str, names: Sequence[str]) -> list[dict[str, str]]:
    """Write the reading list; returns its rows."""
    files = {name: name + KINDS[frame.kind] for name in names}
    rows = [{"name": name, "file": file, "sha256": hash_of(folder / ITEMS / file)} for name, file in files.items()]
    white = WHITE[frame.kind]
    shown = {
        "title": frame.title,
        "spacing_mm": [round(s, 6) for s in frame.item_spacing],
        "window_level": [white, white / 2],
    }
    head = {"format": FORMAT, "version": VERSION, "study": identity, "kind": frame.kind}
    write_json(folder / LIST, {**head, "shown": shown, "items": rows})
    return rows


def _write_key(
    path: Path, folder: Path, identity: str, seed: int, rows: list[dict[str, str]], picks: list[_Pick]
) -> None:
    truth = [
        {
            "name": row["name"],
            "synthetic": pick.source.synthetic,
            "source": pick.source.name,
            "position": pick.position,
            "sha256": row["sha256"],
        }
        for row, pick in zip(rows, picks, strict=True)
    ]
    head = {"format": KEY_FORMAT, "version": VERSION, "study": identity, "seed": seed}
    write_json(path, {**head, "list": hash_of(folder / LIST), "items": truth})
    path.chmod(0o600)


def _hide_times(folder: Path) -> None:
    """Set the same time for all files, as the order of writing could reveal the source."""
    paths = list((folder / ITEMS).iterdir())
    time = max(path.stat().st_mtime for path in paths)
    for path in paths:
        os.utime(path, (time, time))
