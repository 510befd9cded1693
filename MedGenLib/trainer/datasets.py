"""Data sets as people have them: files of images and labels in a known layout, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class LabeledImage:
    """One case of a data set; cases of one person have the same subject."""

    name: str
    subject: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used for training."""

    case: str
    sentence: str


@dataclass(frozen=True)
class DataSet:
    """A data set in a known layout.

    Attributes
    ----------
    layout: name of the layout, such as "nnU-Net".
    labels: number -> name, as far as the layout states them.
    strict: the layout states all labels, so that other numbers are faults.
    modality: "CT" or an MR contrast; None if the layout does not state it.
    license: as the data set states it, or "not stated".
    problems: cases that lack a file.
    """

    path: Path
    layout: str
    title: str
    cases: tuple[LabeledImage, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    strict: bool = False
    modality: str | None = None
    license: str = "not stated"
    problems: tuple[Problem, ...] = ()
