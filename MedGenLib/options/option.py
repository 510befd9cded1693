"""One option: its description for help and documentation, and the validation of values."""

import inspect
import math
import os
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

from MedGenLib.errors import InputError

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "required"})()
"""Default of a required option."""
IMAGES = {"LabelMap": "labels", "Volume": "volume"}
"""Type of an image -> its kind in the worker's protocol."""
WANTED = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a dictionary",
}
COUNTS = {2: "two", 3: "three"}
MOST_SHOWN = 2**31
"""A limit of this size is omitted in the help."""


@dataclass(frozen=True, eq=False)
class Option:
    """One option, as metadata of the annotation that declares it.

    Attributes
    ----------
    default: None if the model, the image or the seed determines the value.
    low, high, above: the range; ``above`` is exclusive.
    count: length of a sequence.
    phrase: name in error messages.
    term: name in the literature.
    flag: flag on the command line, if not ``--name``; without a dash it is positional.
    metavar: metavar of the value. A tuple stands for several words, "X,Y,Z" for one word with commas; a Boolean option
        with a metavar takes the path of the file to write; a dictionary ends with ",..." as one word, else repeats.
    name, hint, help: from the declaring class.
    cli_only: whether it is a file that other surfaces leave to the caller.
    """

    default: Any
    _: KW_ONLY
    low: float | None = None
    high: float | None = None
    above: float | None = None
    count: int | None = None
    unit: str = ""
    phrase: str = ""
    term: str = ""
    flag: str | tuple[str, ...] = ""
    metavar: str | tuple[str, ...] | None = None
    name: str = ""
    hint: Any = None
    help: str = ""
    cli_only: bool = False

    @property
    def members(self) -> tuple[Any, ...]:
        """The types of a value besides None; empty for images and others checked on use."""
        if isinstance(self.hint, ForwardRef):
            return ()
        united = get_origin(self.hint) in (Union, types.UnionType)
        return tuple(kind for kind in (get_args(self.hint) if united else (self.hint,)) if kind is not types.NoneType)

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types without parameters."""
        return tuple(get_origin(kind) or kind for kind in self.members)

    @property
    def choices(self) -> tuple[str, ...]:
        """All allowed values; empty if there are others."""
        return get_args(self.members[0]) if self.kinds == (Literal,) else ()

    @property
    def number(self) -> type | None:
        """int or float for numbers and sequences of numbers; otherwise None."""
        kinds = get_args(self.members[0]) if self.kinds == (Sequence,) else self.kinds
        return kinds[0] if kinds in ((int,), (float,)) else None

    @property
    def image(self) -> str:
        """The kind of an image, passed to other processes as a file and in Slicer as a node; otherwise ""."""
        return next((kind for name, kind in IMAGES.items() if name in self.type_text), "")

    @property
    def writes_file(self) -> bool:
        """Whether the command line takes an output path instead of True or False."""
        return self.kinds == (bool,) and self.metavar is not None

    @property
    def flags(self) -> tuple[str, ...]:
        """Its flags on the command line."""
        flags = self.flag or f"--{self.name.replace('_', '-')}"
        return (flags,) if isinstance(flags, str) else flags

    @property
    def positional(self) -> bool:
        """Whether it is positional on the command line."""
        return not self.flags[0].startswith("-")

    @property
    def type_text(self) -> str:
        """The type in Python syntax."""
        if isinstance(self.hint, ForwardRef):
            return self.hint.__forward_arg__
        text = re.sub(r"\b[a-z_]+\.", "", inspect.formatannotation(self.hint))
        return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)

    @property
    def range_text(self) -> str:
        """The range in words, such as "1 to 100 mm"; "" where there is none."""
        text = ""
        if self.above is not None:
            text = f"more than {self.above:g}" + (f" and at most {self.high:g}" if self.high else "")
        elif self.high is not None:
            text = f"{self.low} to {self.high}"
        elif self.low is not None:
            text = f"at least {self.low}" if self.low else "0 or more"
        return f"{text} {self.unit}".strip() if text else ""

    @property
    def full_help(self) -> str:
        """Help, name in the literature, range and default in one line."""
        known = self.range_text or (f"in {self.unit}" if self.unit else "")
        if self.high is not None and self.high > MOST_SHOWN:
            known = ""
        default = "" if self.default in (None, False, REQUIRED) else f"default: {self.default}"
        notes = "; ".join(filter(None, (self.term, known, default)))
        return f"{self.help} ({notes})" if notes else self.help

    def check(self, value: Any) -> None:
        """Raise InputError for a value of another type, beyond the range, or not among the choices."""
        phrase = self.phrase or self.name.replace("_", " ")
        if self.choices:
            if value not in self.choices:
                raise InputError(f"There is no {phrase} '{value}'; choose {one_of(self.choices)}.")
        elif self.number is not None:
            self._check_numbers(phrase, value)
        elif self.kinds and not any(_fits(value, kind) for kind in self.kinds):
            wanted = one_of([WANTED[kind] for kind in self.kinds])
            raise InputError(f"The {phrase} is {value!r}; give {wanted}.")

    def _check_numbers(self, phrase: str, value: Any) -> None:
        several = self.count is not None and hasattr(value, "__iter__") and not isinstance(value, str)
        values = list(value) if several else [value]
        shown = " x ".join(map(_shown, values))
        numbers = all(_is_number(n, self.number) and -math.inf < n < math.inf for n in values)
        if self.count is not None and (len(values) != self.count or not numbers):
            wanted = f"{COUNTS[self.count]} {'whole ' * (self.number is int)}numbers"
            raise InputError(f"The {phrase} is {shown}, not {wanted}; give {wanted}.")
        if not numbers:
            raise InputError(f"The {phrase} is {shown}; give {WANTED[self.number]}.")
        if not all(self._allows(n) for n in values):
            raise InputError(f"The {phrase} is {f'{shown} {self.unit}'.strip()}; choose {self.range_text}.")

    def _allows(self, value: float) -> bool:
        low = self.low is None or value >= self.low
        return low and (self.high is None or value <= self.high) and (self.above is None or value > self.above)


Declaration = TypeVar("Declaration", bound=type)


def helped(declaration: Declaration) -> Declaration:
    """Give the options of a class their name, their type and the line "name: help" of its docstring."""
    doc = inspect.cleandoc(declaration.__doc__ or "")
    lines = dict(re.findall(r"^(\w+): (.*(?:\n +.*)*)", doc, re.MULTILINE))
    for name, annotation in declaration.__annotations__.items():
        hint, option = annotation.__origin__, annotation.__metadata__[0]
        if not option.name:  # otherwise it is inherited
            complete = replace(option, name=name, hint=hint, help=" ".join(lines.get(name, "").split()))
            declaration.__annotations__[name] = Annotated[hint, complete]
    return declaration


def one_of(names: Sequence[str]) -> str:
    """The names in words: "a, b or c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if not _is_number(value, float):
        return repr(value)
    return str(int(value)) if isinstance(value, Integral) else f"{value:g}"


def _fits(value: Any, kind: Any) -> bool:
    if kind in (int, float):
        return _is_number(value, kind)
    wanted = {Path: str | os.PathLike, dict: Mapping}.get(kind, kind)
    return isinstance(value, wanted)
