"""Options on their way into a function: checked, completed with defaults, and shown by `help`."""

import difflib
import functools
import inspect
import textwrap
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from MedGenLib.errors import InputError
from MedGenLib.options.option import REQUIRED, Option, one_of
from MedGenLib.options.surfaces import RENAMED, camel, missing, of, snake

Function = TypeVar("Function", bound=Callable)


def validate(command: str, values: Mapping[str, Any], surface: str = "python") -> dict[str, Any]:
    """All options of a command by their Python names, with defaults for what is not given or None.

    Parameters
    ----------
    values: by the names of the surface.

    Raises
    ------
    InputError: an option that the surface does not have, or a value that is not allowed.
    """
    known, complete = of(command, surface), {}
    values = _renamed(values, known, surface)
    for name in values:
        if name not in known:
            raise InputError(_unknown(command, name, surface))
    for name, option in known.items():
        value = values.get(name)
        if value is not None:
            option.check(value)
        elif option.default is REQUIRED:
            raise InputError(f"The option '{name}' of {_shown(command, surface)} is missing; give it: {option.help}.")
        complete[option.name] = option.default if value is None else value
    return complete


def changed(command: str, values: Mapping[str, Any], surface: str = "slicer") -> dict[str, Any]:
    """Those of the values, by Python names, that differ from the surface's defaults, under its own names."""
    known = {option.name: (name, option.default) for name, option in of(command, surface).items()}
    return {known[name][0]: value for name, value in values.items() if name in known and value != known[name][1]}


def deprecated(old: str, new: str, depth: int = 2) -> None:
    """Warn that a name has changed; ``depth`` counts the stack as `warnings.warn` does, 1 being the caller."""
    warnings.warn(f"'{old}' is now '{new}'; the next version accepts only that.", DeprecationWarning, depth + 1)


def _renamed(values: Mapping[str, Any], known: Mapping[str, Option], surface: str) -> dict[str, Any]:
    values = dict(values)
    for old, new in RENAMED.get(surface, {}).items():
        if old in values and new in known:
            deprecated(old, new, depth=4)  # the caller of a function that is `documented`
            values[new] = values.pop(old)
    return values


def _unknown(command: str, name: str, surface: str) -> str:
    shown = _shown(command, surface)
    if reason := missing(command, surface).get(snake(name)):
        return f"The option '{name}' of {shown} is not available here; leave it out: {reason}."
    names = list(of(command, surface))
    near = difflib.get_close_matches(name, names, 1) or difflib.get_close_matches(snake(name), names, 1)
    return f"The option '{name}' of {shown} is unknown; use {near[0] if near else one_of(names)}."


def _shown(command: str, surface: str) -> str:
    return camel(command) if surface == "slicer" else command


def documented(command: str, surface: str = "python") -> Callable[[Function], Function]:
    """Give a function with ``**options`` the options of a command: checked, completed, and shown by `help`.

    Its ``**options`` hold every option that is no parameter of its own, under its Python name; parameters of its own
    that are options are checked, too. ``{options}`` in its docstring is replaced by a line for each option.
    """
    known = of(command, surface)

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        star = next(name for name, item in own.parameters.items() if item.kind is item.VAR_KEYWORD)
        rest = {name: option for name, option in known.items() if name not in own.parameters}

        @functools.wraps(function)
        def checked(*positional: Any, **keywords: Any) -> Any:
            given = own.bind(*positional, **keywords)
            explicit = {name: value for name, value in given.arguments.items() if name in known}
            complete = validate(command, {**given.arguments.get(star, {}), **explicit}, surface)
            given.arguments |= {name: complete[known[name].name] for name in explicit}
            given.arguments[star] = {option.name: complete[option.name] for option in rest.values()}
            return function(*given.args, **given.kwargs)

        checked.__signature__ = _signature(own, rest, surface)
        if checked.__doc__:
            lines = (f"{name}: {option.full_help}." for name, option in known.items())
            filled = (textwrap.fill(line, 100, subsequent_indent="    ", break_on_hyphens=False) for line in lines)
            checked.__doc__ = inspect.cleandoc(checked.__doc__).replace("{options}", "\n".join(filled))
        return checked

    return decorate


def _signature(own: inspect.Signature, rest: Mapping[str, Option], surface: str) -> inspect.Signature:
    """A function's own parameters, and the options in the place of ``**options``."""
    positional = [item for item in own.parameters.values() if item.kind < inspect.Parameter.KEYWORD_ONLY]
    keywords = [item for item in own.parameters.values() if item.kind is inspect.Parameter.KEYWORD_ONLY]
    added = (
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if option.default is REQUIRED else option.default,
            annotation=_annotation(option, surface),
        )
        for name, option in rest.items()
    )
    return own.replace(parameters=[*positional, *added, *keywords])


def _annotation(option: Option, surface: str) -> Any:
    if option.image and surface == "slicer":
        return "vtkMRMLNode" if option.default is REQUIRED else "vtkMRMLNode | None"
    return option.hint if option.members else option.type_text
