"""The commands of `medgen`: their registration and the parser.

A command is one file in this folder; `command` decorates the function that does the work. Its options come from their
declaration in `MedGenLib.options`; ``extra_arguments`` adds others. Names and summaries are read from the text of the
files, and a file is imported when its command is used, so that `medgen --help` is instant.

>>> @command("count", "count the voxels of each label")                    # doctest: +SKIP
... def count(arguments: Namespace, console: Console) -> int: ...
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from MedGenLib import __version__
from MedGenLib.cli.arguments import add_arguments
from MedGenLib.cli.console import Console
from MedGenLib.options import COMMANDS as OPTIONS
from MedGenLib.registry import Registry

Work = Callable[[Namespace, Console], int]
"""Runs a command and returns the exit code."""

EXAMPLES = """\
examples:
  medgen generate mask.nii.gz -o ct.nii.gz --seed 7 --preview ct.png
  medgen generate hippocampus.nii.gz -o t1.nii.gz --model mr-hippocampus --samples 3
  medgen translate head_t1.nii.gz -o ct.nii.gz --to CT --accept-license
  medgen models list

exit codes: 0 done, 1 error or problem found, 2 request refused, 3 outputs written but failed their checks

Synthetic images are for research and teaching, never for diagnosis.
"""
NUMBERS = re.compile(r"-[\d.]+,")
"""A list of numbers that starts with a negative one, which argparse takes for an option."""


@dataclass(frozen=True)
class Command:
    """One command, or one action of a command.

    Attributes
    ----------
    details: text after the summary in its help; epilog: the same after the options.
    extra_arguments: adds arguments not declared in `MedGenLib.options`.
    """

    work: Work
    details: str = ""
    extra_arguments: Callable[[Parser], object] | None = None
    epilog: str | None = None


COMMANDS: Registry[Command] = Registry("command", "command", __package__)
"""The first word of a name of two words is a command too; a path equal to the second word is given as ./name."""
ACTIONS: Registry[Command] = Registry("action", "action", __package__)
"""Keyed by command and action, such as "models list"."""


def _decorator(registry: Registry[Command]) -> Callable[..., Callable[[Work], Work]]:
    def register(
        name: str,
        summary: str,
        details: str = "",
        extra_arguments: Callable[[Parser], object] | None = None,
        epilog: str | None = None,
    ) -> Callable[[Work], Work]:
        """Register a function as `Command.work`."""

        def decorate(work: Work) -> Work:
            registry.add(name, Command(work, details, extra_arguments, epilog), work.__module__, summary)
            return work

        return decorate

    return register


command, action = _decorator(COMMANDS), _decorator(ACTIONS)


class Parser(argparse.ArgumentParser):
    """Parses the arguments of a command; an error is one line."""

    complete: Callable[[], None] | None = None
    """Imports the command and adds its arguments, also for the help."""

    def filled(self) -> Parser:
        """This parser with the arguments of its command."""
        complete, self.complete = self.complete, None
        if complete is not None:
            complete()
        return self

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"medgen: {message}; see `{self.prog} --help`.\n")

    def parse_known_args(self, args=None, namespace=None):
        self.filled()
        arguments = _joined(list(sys.argv[1:] if args is None else args))
        namespace, unknown = super().parse_known_args(arguments, namespace)
        for word in unknown:
            if word.startswith("--"):
                name = word.partition("=")[0]
                near = difflib.get_close_matches(name[2:], [known[2:] for known in self._option_string_actions], 1)
                self.error(f"the option {name} is unknown{f', use --{near[0]}' if near else ''}")
        return namespace, unknown


def build_parser() -> Parser:
    """The parser of `medgen`; the attribute `work` of its result is the function of the command."""
    parser = Parser(
        prog="medgen",
        description="Synthetic CT and MR volumes from label masks, and MR <-> CT translation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medgen {__version__}")
    _add_loudness(parser, default=False)
    parser.set_defaults(work=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in sorted(COMMANDS):
        _add(commands, COMMANDS, name, name)
    return parser


def _add(commands, registry: Registry[Command], name: str, word: str) -> None:
    parser = commands.add_parser(
        word, help=registry.summaries[name], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.complete = lambda: _complete(parser, registry, name)


def _complete(parser: Parser, registry: Registry[Command], name: str) -> None:
    found, summary = registry[name], registry.summaries[name]
    parser.description = textwrap.fill(f"{summary[0].upper()}{summary[1:]}. {found.details}".strip(), 79)
    parser.epilog = found.epilog
    parser.set_defaults(work=found.work)
    # Defaults of the command must not override flags given before it.
    _add_loudness(parser, default=argparse.SUPPRESS)
    declared = name.replace("-", "_")
    if declared in OPTIONS:
        add_arguments(parser, declared)
    if found.extra_arguments is not None:
        found.extra_arguments(parser)
    actions = [other for other in ACTIONS if registry is COMMANDS and other.startswith(f"{name} ")]
    if actions:
        below = parser.add_subparsers(title="actions", metavar="ACTION")
        for other in actions:
            _add(below, ACTIONS, other, other.removeprefix(f"{name} "))


def _add_loudness(parser: Parser, default: object) -> None:
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", default=default, help="print only errors")
    loudness.add_argument("-v", "--verbose", action="store_true", default=default, help="print more details")


def _joined(arguments: list[str]) -> list[str]:
    """Join the arguments of a command, and lists of numbers that begin with a minus to their option."""
    joined: list[str] = []
    for word in arguments:
        before = joined[-1] if joined else ""
        if f"{before} {word}" in COMMANDS:
            joined[-1] = f"{before} {word}"
        elif before.startswith("--") and NUMBERS.match(word):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined
