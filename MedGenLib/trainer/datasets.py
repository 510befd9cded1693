"""Data sets as people have them: files of images and labels in a known layout, read without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from MedGenLib.errors import InputError

TRANSLATIONS = ("regression", "pix2pix", "pix2pixhd", "cyclegan", "cut")
"""Recipes that learn to translate images."""
ALIGNMENT = "alignment"
"""Recipe before a translation that warps the targets of loosely registered pairs onto their sources."""
CLASSIFIER = "image-classifier"
"""Recipe that learns the classes of images."""

SEQUENCE = "sequence"
"""Recipe that learns a series over time from its first image."""

UNCONDITIONAL = ("gan", "wgan-gp", "style-gan", "vae")
"""Recipes that learn to make images without a mask."""


@dataclass(frozen=True)
class LabeledImage:
    """One case of a data set; cases of one person have the same subject.

    Attributes
    ----------
    labels: None in a data set of images alone.
    kind: class of the image; None in a data set without classes.
    """

    name: str
    subject: str
    image: Path
    labels: Path | None = None
    kind: str | None = None


@dataclass(frozen=True)
class ImagePair:
    """One case of a data set for translation; an unpaired case has only one of both images."""

    name: str
    subject: str
    source: Path | None
    target: Path | None


@dataclass(frozen=True)
class ClassifiedImage:
    """One case of a data set of images with classes.

    Attributes
    ----------
    image: a file, or a folder with a DICOM series.
    targets: for each class of the data set 1 (it applies), 0 (it does not) or None (unknown).
    split: "train", "validation" or "test" where the data set states it.
    """

    name: str
    subject: str
    image: Path
    targets: tuple[int | None, ...]
    split: str | None = None


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
    series: the cases are series over time.
    strict: the layout states all labels, so that other numbers are faults.
    modality: of the generated images, "CT" or an MR contrast; None if the layout does not state it.
    source_modality: of the sources of a translation.
    classes: names of the classes of classified images.
    several: several classes may apply to one image, or none.
    license: as the data set states it, or "not stated".
    problems: cases that lack a file.
    """

    path: Path
    layout: str
    title: str
    cases: tuple[LabeledImage, ...] | tuple[ImagePair, ...] | tuple[ClassifiedImage, ...]
    labels: Mapping[int, str] = field(default_factory=dict)
    strict: bool = False
    modality: str | None = None
    source_modality: str | None = None
    classes: tuple[str, ...] = ()
    several: bool = False
    series: bool = False
    license: str = "not stated"
    problems: tuple[Problem, ...] = ()

    @property
    def translates(self) -> bool:
        """Whether the cases are images to translate, not images with labels."""
        return isinstance(self.cases[0], ImagePair)

    @property
    def unlabeled(self) -> bool:
        """Whether the cases are images alone, for a generator without a mask."""
        return isinstance(self.cases[0], LabeledImage) and self.cases[0].labels is None

    @property
    def classifies(self) -> bool:
        """Whether the cases are images with classes."""
        return isinstance(self.cases[0], ClassifiedImage)

    @property
    def paired(self) -> bool:
        """Whether each case has both images."""
        return all(case.source and case.target for case in self.cases)

    def without(self, images: str, path: Path) -> InputError:
        """The error of a data set, read from ``path``, that has no such images, with its first problem."""
        why = f": {self.problems[0].sentence}" if self.problems else "; add some."
        return InputError(f"The data set {path} ({self.layout}) has no {images}{why}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise InputError for a data set that is missing, or whose files cannot be read."""
    if not path.exists():
        raise InputError(f"There is no data set {path}; check the path.")
    try:
        yield
    except OSError as error:
        raise InputError(f"The data set {path} cannot be read: {error.strerror or error}.") from None
