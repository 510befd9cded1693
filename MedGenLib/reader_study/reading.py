"""One reader's progress through a study, and the answers.

reading = Reading("study", "reader-A")
while (item := reading.next()) is not None:
    show(item.image())
    reading.answer(item, synthetic=True, confidence=4, seconds=12.5)
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import math
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.reader_study.study import ANSWERS, LIST, Item, Study, hash_of

CONFIDENCES = (1, 2, 3, 4, 5)
"""From guessing to certain."""
FIELDS = ("item", "answer", "confidence", "seconds", "list")
_WORDS = {"real": False, "synthetic": True}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Answer:
    """A reader's answer for an item; `seconds` is the time taken."""

    item: str
    synthetic: bool
    confidence: int
    seconds: float


class Reading:
    """The items of a study in one reader's order, and the answers so far.

    The order is random but constant for a reader, so that learning and fatigue affect different images for each reader.
    Every answer is on the disk when `answer` returns; an interruption loses only the current image.

    Parameters
    ----------
    study: the folder.
    reader: code name: letters, digits, "-" and "_", at most 40.

    Raises
    ------
    InputError: no such study, an invalid name, answers to another reading list, or an image of the list that is missing
        or was changed.
    """

    def __init__(self, study: str | Path, reader: str) -> None:
        if not is_reader(reader):
            raise InputError(
                f'The reader\'s name "{reader}" cannot be used; give a code name of at most 40 '
                "letters, digits, - and _."
            )
        self.study = Study.open(study)
        _require_one_list(self.study)
        self.reader = reader
        self.path = self.study.folder / ANSWERS / f"{reader}.csv"
        items = list(self.study.items)
        random.Random(f"{self.study.identity} {reader}").shuffle(items)
        self.items: tuple[Item, ...] = tuple(items)
        for item in items:
            item.check()
        self._size = _drop_torn_line(self.path)
        self._answers = {answer.item: answer for answer in read_answers(self.path, self.study)}

    @property
    def answers(self) -> dict[str, Answer]:
        """Item name -> answer."""
        return dict(self._answers)

    @property
    def progress(self) -> tuple[int, int]:
        """Items answered, and all items."""
        return len(self._answers), len(self.items)

    def next(self) -> Item | None:
        """The first item without an answer; None if all have one."""
        return next((item for item in self.items if item.name not in self._answers), None)

    def answer(self, item: Item | str, synthetic: bool, confidence: int, seconds: float) -> None:
        """Save an answer permanently.

        Parameters
        ----------
        confidence: 1 (guessed) to 5 (certain).
        seconds: viewing time.

        Raises
        ------
        InputError: a value out of range, an item that is not in the list or was answered, a list or answers changed in
            the meantime, or a write error.
        """
        name = item if isinstance(item, str) else item.name
        self._check(name, confidence, seconds)
        answer = Answer(name, bool(synthetic), int(confidence), round(float(seconds), 2))
        self._append(_line(answer, self.study.digest))
        self._answers[name] = answer

    def _check(self, name: str, confidence: int, seconds: float) -> None:
        if name not in {item.name for item in self.items}:
            raise InputError(f"There is no image {name} in the study {self.study.folder}.")
        if name in self._answers:
            raise InputError(f"The image {name} has an answer already; continue with the next one.")
        if confidence not in CONFIDENCES:
            raise InputError(f"The confidence is {confidence}, but it must be 1 to 5.")
        if not (math.isfinite(seconds) and seconds >= 0):
            raise InputError(f"The time is {seconds} s, but it must be 0 or more.")
        path = self.study.folder / LIST
        if not path.is_file() or hash_of(path) != self.study.digest:
            raise _changed(path)

    def _append(self, line: str) -> None:
        try:
            self.path.parent.mkdir(exist_ok=True)
            with open(self.path, "ab", buffering=0) as stream:
                if stream.tell() != self._size:
                    raise InputError(
                        f"The answers {self.path} were changed by another program in the meantime; end the "
                        "other reading under this name, then start again."
                    )
                header = "" if self._size else f"{','.join(FIELDS)}\n"
                self._size = _write_whole(stream, (header + line).encode())
        except OSError as error:
            raise InputError(
                f"The answer cannot be written to {self.path}: {error.strerror}; this answer is "
                "not saved, all before it are."
            ) from None


def _write_whole(stream: io.FileIO, data: bytes) -> int:
    """Append to a file and sync it, or leave the file as it was; returns the new size."""
    before = stream.tell()
    try:
        if stream.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(stream.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            stream.truncate(before)
        raise
    return stream.tell()


def is_reader(name: str) -> bool:
    """Whether it is a valid reader name; excludes hidden and temporary files of other programs."""
    return _NAME.fullmatch(name) is not None


def read_answers(path: Path, study: Study) -> list[Answer]:
    """The answers in a file, in the order given; none if it does not exist.

    An incomplete last line, being written or left by a crash, is ignored. Raises InputError if a line is invalid, or
    belongs to another reading list.
    """
    if not path.is_file():
        return []
    names = {item.name for item in study.items}
    answers: dict[str, Answer] = {}
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The answers {path} cannot be read; check the file.") from None
    for number, row in enumerate(_rows(text), 2):
        if row.get("list") != study.digest[:16]:
            raise _changed(study.folder / LIST)
        answer = _parsed(row)
        if answer is None or answer.item not in names or answer.item in answers:
            raise InputError(
                f"Line {number} of the answers {path} is not an answer to an image of the study; "
                "restore the file from a copy, or remove the line."
            )
        answers[answer.item] = answer
    return list(answers.values())


def _rows(text: str) -> csv.DictReader:
    """The complete lines."""
    return csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))


def _require_one_list(study: Study) -> None:
    """Raise InputError if another reader's readable answers belong to another list."""
    for path in (study.folder / ANSWERS).glob("*.csv"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for row in _rows(path.read_text("utf-8")):
                if _parsed(row) and row.get("list") != study.digest[:16]:
                    raise _changed(study.folder / LIST)


def _parsed(row: dict[str, str | None]) -> Answer | None:
    try:
        answer = Answer(row["item"], _WORDS[row["answer"]], int(row["confidence"]), float(row["seconds"]))
    except (KeyError, TypeError, ValueError):
        return None
    usable = answer.confidence in CONFIDENCES and math.isfinite(answer.seconds)
    return answer if usable and answer.seconds >= 0 else None


def _line(answer: Answer, digest: str) -> str:
    word = "synthetic" if answer.synthetic else "real"
    return f"{answer.item},{word},{answer.confidence},{answer.seconds:.2f},{digest[:16]}\n"


def _drop_torn_line(path: Path) -> int:
    """Remove an incomplete last line left by a crash; returns the file's size in bytes."""
    if not path.is_file():
        return 0
    try:
        with open(path, "r+b") as stream:
            whole = stream.read().rfind(b"\n") + 1
            stream.truncate(whole)
            return whole
    except OSError as error:
        raise InputError(
            f"The answers {path} cannot be written: {error.strerror}; change its permissions, or "
            "copy the study to another folder."
        ) from None


def _changed(path: Path) -> InputError:
    return InputError(
        f"The reading list {path} is not the one of the answers so far; put the original study "
        "back, or use a separate folder for the new one, without answers to the old one."
    )
