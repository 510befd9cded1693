"""Every surface has each declared option under its declared name, with the same default and help, or says why not.

The surfaces are read as their users meet them: signatures and docstrings of functions, the parser of the command line,
and the source of the Slicer side, which imports Slicer. Its process tests the same by import, with `RunParameters` and
the line for the console (Testing/slicer/jobs/test_console.py).
"""

from __future__ import annotations

import argparse
import ast
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping

import pytest
from imports import REPOSITORY

from MedGenLib.classification import classify
from MedGenLib.cli.arguments import from_namespace
from MedGenLib.cli.commands import build_parser
from MedGenLib.detection import detect
from MedGenLib.editing.lesions import insert_lesion
from MedGenLib.editing.session import Canvas, edit_image
from MedGenLib.enhancement import enhance
from MedGenLib.errors import InputError
from MedGenLib.evaluation.pair import evaluate
from MedGenLib.generate import generate
from MedGenLib.motion import breathe
from MedGenLib.options import COMMANDS, REQUIRED, SURFACES, Option, camel, missing, of, table, validate
from MedGenLib.options.surfaces import DEFAULTS
from MedGenLib.translate import translate
from MedGenLib.worker.client import Worker
from MedGenLib.worker.methods import METHODS

LOGIC = REPOSITORY / "MedGen" / "MedGenSlicer" / "logic.py"
FUNCTIONS: Mapping[tuple[str, str], Callable] = {
    ("generate", "python"): generate,
    ("translate", "python"): translate,
    ("edit", "python"): edit_image,
    ("insert_lesion", "python"): insert_lesion,
    ("breathe", "python"): breathe,
    ("enhance", "python"): enhance,
    ("classify", "python"): classify,
    ("detect", "python"): detect,
    ("evaluate", "python"): evaluate,
    ("generate", "worker"): METHODS["generate"],
    ("translate", "worker"): METHODS["translate"],
    ("edit", "worker"): METHODS["edit/open"],
    ("redraw", "worker"): METHODS["edit"],
    ("insert_lesion", "worker"): METHODS["insert_lesion"],
    ("breathe", "worker"): METHODS["breathe"],
    ("enhance", "worker"): METHODS["enhance"],
    ("classify", "worker"): METHODS["classify"],
    ("detect", "worker"): METHODS["detect"],
    ("evaluate", "worker"): METHODS["evaluate"],
    ("generate", "client"): Worker.generate,
    ("translate", "client"): Worker.translate,
    ("enhance", "client"): Worker.enhance,
    ("evaluate", "client"): Worker.evaluate,
    ("generate", "canvas"): Canvas.generate,
    ("edit", "canvas"): Canvas.of_image,
    ("redraw", "canvas"): Canvas.edit,
}
"""The function of every surface that is one."""
BESIDE = {
    "python": {"progress", "on_sample", "origin", "keep_steps"},
    "worker": {"job", "folder", "names", "displacements", "canvas", "mask", "offset"},
    "client": {"self", "progress"},
    "canvas": {"self", "progress", "mask", "box", "watch"},
}
"""Parameters that are no options: what connects a call with its caller."""
PASSED_ON = {("edit", "worker"): {"generate": Canvas.generate, "edit": Canvas.of_image}}
"""Functions that hand ``**options`` to those of other commands, which check and document them."""

CALLS = pytest.mark.parametrize(("command", "surface"), FUNCTIONS, ids=map("-".join, FUNCTIONS))
LINES = pytest.mark.parametrize("command", [command for command in COMMANDS if of(command, "cli")])


def parameters_of(command: str, surface: str) -> dict[str, object]:
    """Name -> default, REQUIRED where there is none, of all that a caller can give."""
    found, function = {}, FUNCTIONS[command, surface]
    for name, item in inspect.signature(function).parameters.items():
        if item.kind is item.VAR_KEYWORD:
            names = typing.get_args(typing.get_type_hints(function)[name])[0].__annotations__
            assert (command, surface) in PASSED_ON, f"{function.__qualname__} does not show its options"
            found |= {other: of("generate", "canvas")[other].default for other in names}
        else:
            found[name] = REQUIRED if item.default is item.empty else item.default
    return found


def flat(text: str | None) -> str:
    return " ".join((text or "").split())


def line_of(option: Option, name: str) -> str:
    """The option in a docstring."""
    return f"{name}: {option.full_help}."


# Functions


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_surface_is_compared(command, surface):
    """A surface with options is a function of the table, a command, or a method in Slicer."""
    looked_at = (command, surface) in FUNCTIONS or surface in ("cli", "slicer")
    assert looked_at == bool(of(command, surface)) or surface in ("cli", "slicer")
    assert set(missing(command, surface)) | {option.name for option in of(command, surface).values()} == set(
        COMMANDS[command]
    )


@CALLS
def test_a_function_has_each_option_with_its_default_and_no_other(command, surface):
    found, declared = parameters_of(command, surface), of(command, surface)
    optional = {"image"} if (command, surface) in PASSED_ON else set()  # without one it is generated
    for name, option in declared.items():
        assert name in found, name
        assert found[name] == option.default or name in optional, name
    others = {name for other in PASSED_ON.get((command, surface), ()) for name in of(other, "canvas")}
    assert set(found) - set(declared) <= BESIDE[surface] | others


@CALLS
def test_a_function_describes_each_option(command, surface):
    doc = flat(PASSED_ON.get((command, surface), {}).get(command, FUNCTIONS[command, surface]).__doc__)
    for name, option in of(command, surface).items():
        shown = option.name if (command, surface) in PASSED_ON else name
        assert flat(line_of(option, shown)) in doc, name


@CALLS
def test_a_function_refuses_an_option_that_it_does_not_have(command, surface):
    for name, function in PASSED_ON.get((command, surface), {command: FUNCTIONS[command, surface]}).items():
        parameters = inspect.signature(function).parameters
        needed = dict.fromkeys(name for name, item in parameters.items() if item.default is item.empty)
        with pytest.raises(InputError, match=f"'sede' of {name} is unknown; use "):
            function(**needed, sede=1)


# The command line


def parser_of(command: str) -> argparse.ArgumentParser:
    (commands,) = (item for item in build_parser()._actions if isinstance(item, argparse._SubParsersAction))
    return commands.choices[command.replace("_", "-")].filled()


def words_of(command: str) -> list[str]:
    """The shortest line."""
    needed = (option for option in of(command, "cli").values() if option.default is REQUIRED)
    return [word for option in needed for word in ([] if option.positional else [option.flags[-1]]) + ["x"]]


@LINES
def test_the_command_line_has_each_option_and_no_other(command):
    actions = {action.dest: action for action in parser_of(command)._actions}
    assert set(actions) == {*of(command, "cli"), "help", "quiet", "verbose"}
    for name, option in of(command, "cli").items():
        action, text = actions[name], (actions[name].help or "").replace("%%", "%")
        assert text.removesuffix("; repeatable") == option.full_help
        assert tuple(action.option_strings) == (() if option.positional else tuple(option.flags))
        assert action.choices is None or tuple(action.choices) == option.choices
        assert action.required == (option.default is REQUIRED)


@LINES
def test_the_command_line_has_the_defaults_of_python(command):
    words = words_of(command)
    given = from_namespace(command, parser_of(command).parse_args(words), mapping=None)
    given = {name: value for name, value in given.items() if name in of(command)}
    needed = {name: "x" for name, option in of(command).items() if option.default is REQUIRED}
    assert {**validate(command, given), **needed} == {**validate(command, needed), **needed}


# Slicer


def methods_of_logic() -> dict[str, ast.FunctionDef]:
    """Command -> the method that is documented with it."""
    (logic,) = (node for node in ast.parse(LOGIC.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    found = {}
    for method in (node for node in logic.body if isinstance(node, ast.FunctionDef)):
        for decorator in method.decorator_list:
            match decorator:
                case ast.Call(func=ast.Name("documented"), args=[ast.Constant(command), ast.Constant("slicer")]):
                    found[command] = method
    return found


def defaults_of(method: ast.FunctionDef) -> Iterator[tuple[str, object]]:
    """The parameters of a method with their defaults; only literals are options'."""
    arguments = method.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    without = [None] * (len(ordered) - len(arguments.defaults))
    pairs = [*zip(ordered, [*without, *arguments.defaults], strict=True)]
    for argument, default in [*pairs, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]:
        yield argument.arg, REQUIRED if default is None else ast.literal_eval(default)


@pytest.mark.parametrize("command", [command for command in COMMANDS if of(command, "slicer")])
def test_slicer_has_a_method_for_each_command_that_completes_its_options(command):
    method, declared = methods_of_logic()[command], of(command, "slicer")
    assert method.name == camel(command)
    assert method.args.kwarg is not None and "{options}" in ast.get_docstring(method)
    for name, default in defaults_of(method):
        assert name not in declared or default == declared[name].default, name


def test_slicer_documents_no_other_command():
    assert set(methods_of_logic()) == {command for command in COMMANDS if of(command, "slicer")}


# Documentation


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_has_each_option_or_why_not(command):
    lines = table(command).splitlines()
    names = {surface: {option.name: name for name, option in of(command, surface).items()} for surface in SURFACES}
    for row, (name, option) in zip(lines[2:], COMMANDS[command].items(), strict=False):
        cells = row.replace(r"\|", "/").removeprefix("| ").removesuffix(" |").split(" | ")
        python, flags, slicer, kind, default, _, description = cells
        assert python == (f"`{name}`" if name in names["python"] else "")
        shown = of(command, "cli")[name].flags if name in names["cli"] else ()
        assert flags == ", ".join(f"`{flag}`" for flag in shown)
        assert slicer == (f"`{names['slicer'][name]}`" if name in names["slicer"] else "")
        assert kind == f"`{option.type_text.replace('|', '/')}`"
        assert default == {None: "", REQUIRED: "required"}.get(option.default, f"`{option.default!r}`")
        assert description.startswith(option.help)
    rest = lines[2 + len(COMMANDS[command]) :]
    for surface in SURFACES:
        for name, reason in missing(command, surface).items():
            assert any(f"Not in {surface}: " in line and f"`{name}`" in line and reason in line for line in rest)
        for name, (default, reason) in DEFAULTS.get((command, surface), {}).items():
            assert f"- In {surface}, `{name}` is {default!r} by default ({reason})." in rest
