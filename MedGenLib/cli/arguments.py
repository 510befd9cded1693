"""Flags of a command from the declaration of its options, and options from the parsed flags."""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from MedGenLib.options import REQUIRED, Option, of


def add_arguments(parser: ArgumentParser, command: str, *names: str) -> None:
    """Add the options of a command, or only some of them; in the parsed namespace they have their Python names."""
    declared = of(command, "cli")
    for option in (declared[name] for name in names or declared):
        keywords = {"help": option.full_help.replace("%", "%%")} | _keywords(option)
        if option.positional:
            parser.add_argument(option.name, metavar=option.flag, **keywords)
        else:
            required = option.default is REQUIRED
            parser.add_argument(*option.flags, dest=option.name, required=required, **keywords)


def from_namespace(command: str, namespace: Namespace, **read: Any) -> dict[str, Any]:
    """The keyword arguments of the Python function; ``read`` are those already read by the command."""
    line = of(command, "cli")
    found = {name: getattr(namespace, name) for name in of(command) if name in line}
    found |= {name: value is not None for name, value in found.items() if line[name].writes_file}
    found |= {name: None for name, value in found.items() if value == []}  # a repeatable option that is not given
    return found | read


def _keywords(option: Option) -> dict[str, Any]:
    """The keywords of `add_argument` that depend on the type."""
    default = None if option.default is REQUIRED or option.writes_file else option.default
    if option.kinds == (bool,) and not option.writes_file:
        return {"action": "store_true"}
    if option.positional:
        return {"type": _reader(option)} | ({} if option.default is REQUIRED else {"nargs": "?", "default": default})
    if dict in option.kinds and not str(option.metavar).endswith(",..."):
        keywords = {"action": "append", "default": [], "metavar": option.metavar}
        return keywords | {"help": f"{option.full_help}; repeatable"}
    if option.choices:
        return {"choices": option.choices, "default": default, "metavar": option.metavar}
    several = {"nargs": option.count} if isinstance(option.metavar, tuple) else {}
    return {"type": _reader(option), "default": default, "metavar": option.metavar, **several}


def _reader(option: Option) -> Callable[[str], Any]:
    """Converter of one argument; argparse uses its name in error messages."""
    if option.image or option.writes_file or Path in option.kinds:
        return Path
    if option.count is not None and isinstance(option.metavar, str):
        return _with_commas(option)
    if option.number is int and option.count is None:
        return {0: natural, 1: positive}.get(option.low, int)
    return option.number or str


def natural(text: str) -> int:
    """A number of at least 0."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def positive(text: str) -> int:
    """A number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def above_zero(text: str) -> float:
    """A number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


natural.__name__, positive.__name__, above_zero.__name__ = "natural number", "positive number", "number above 0"


def _with_commas(option: Option) -> Callable[[str], tuple[float, ...]]:
    def read(text: str) -> tuple[float, ...]:
        numbers = tuple(float(part) for part in text.split(","))
        if len(numbers) != option.count:
            raise ValueError
        return numbers

    read.__name__ = f"{option.phrase} ({option.metavar})"
    return read
