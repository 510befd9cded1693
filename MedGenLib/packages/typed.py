"""Reading of JSON into frozen dataclasses; their fields define keys, types, ranges and choices.

Each error is a PackageError of one sentence with the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from MedGenLib.errors import PackageError

T = TypeVar("T")
_hints_of = cache(get_type_hints)

ALIASES = {"centres": "centers", "centre_hu": "center_hu"}
"""British spellings of keys in packages of schema version 1 -> present keys."""
SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text of one line"}


def setting(
    default: Any = MISSING,
    *,
    key: str | None = None,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field with its key in the file and the range of its numbers.

    `low` and `high` are inclusive, `above` is exclusive.
    """
    return field(default=default, metadata={"key": key, "low": low, "above": above, "high": high})


def keys_of(kind: type) -> dict[str, Any]:
    """Key in the file -> dataclass field."""
    return {item.metadata.get("key") or item.name: item for item in fields(kind)}


def read(kind: type[T], section: Any, where: str) -> T:
    """Read a settings dataclass from a JSON object; `where` is the key of the object in error messages.

    Raises PackageError for an unknown or missing key, or a value of another type or out of range.
    """
    known, hints, values = keys_of(kind), _hints_of(kind), {}
    if not isinstance(section, Mapping):
        raise _fault(where, section, f"an object with the keys {joined(known, 'and')}")
    for given, value in section.items():
        key = ALIASES.get(given, given)
        if key not in known:
            raise PackageError(f"{where}.{given} is not a setting; {nearest(given, known)}.")
        item = known[key]
        if item.name in values:
            both = " and ".join(f"'{name}'" for name in sorted(section, reverse=True) if ALIASES.get(name, name) == key)
            raise PackageError(f"{where} has {both}, which are the same setting; leave one out.")
        values[item.name] = _parsed(hints[item.name], value, f"{where}.{given}", item.metadata)
    for key, item in known.items():
        if item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise PackageError(f"{where} has no '{key}'; give {_described(hints[item.name], item.metadata)}.")
    return kind(**values)


def _parsed(hint: Any, value: Any, where: str, limits: Mapping[str, Any]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is UnionType:  # X | None: a missing key means None
        return _parsed(args[0], value, where, limits)
    if is_dataclass(hint):
        return read(hint, value, where)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _fault(where, value, "an object")
        return {_key(args[0], key, where): _parsed(args[1], v, f"{where}.{key}", limits) for key, v in value.items()}
    if origin is tuple:
        open_ended = args[-1] is Ellipsis
        if not isinstance(value, list) or (not value if open_ended else len(value) != len(args)):
            raise _fault(where, value, _described(hint, limits))
        kinds = args[:1] * len(value) if open_ended else args
        return tuple(
            _parsed(part, v, f"{where}[{n}]", limits) for n, (part, v) in enumerate(zip(kinds, value, strict=True))
        )
    if not _fits(hint, value, limits):
        remedy = nearest(str(value), args) if origin is Literal else f"give {_described(hint, limits)}"
        raise PackageError(f"{where} is {shown(value)}; {remedy}.")
    return value if origin is Literal else hint(value)


def _key(hint: Any, key: str, where: str) -> Any:
    if hint is int:
        if not key.isdecimal():
            raise PackageError(f"{where} has the key '{key}'; give the value of a label.")
        return int(key)
    return _parsed(hint, key, f"a key of {where}", {})


def _fits(hint: Any, value: Any, limits: Mapping[str, Any]) -> bool:
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if not isinstance(value, (int, float) if hint is float else hint) or isinstance(value, bool) != (hint is bool):
        return False
    if hint is str:
        return bool(value) and value.isprintable()
    low, above, high = (limits.get(name) for name in ("low", "above", "high"))
    return (low is None or value >= low) and (above is None or value > above) and (high is None or value <= high)


def _described(hint: Any, limits: Mapping[str, Any]) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _described(args[0], limits)
    if origin is Literal:
        return joined(args)
    if origin is tuple and args[-1] is Ellipsis:
        return f"a list of at least one entry, each {_described(args[0], limits)}"
    if origin is tuple:
        return f"a list of {len(args)} entries, each {_described(args[0], limits)}"
    if is_dataclass(hint) or origin is Mapping:
        return "an object"
    low, above, high = (limits.get(name) for name in ("low", "above", "high"))
    if above is not None:
        return f"{SCALARS[hint]} above {above:g}" + (f" up to {high:g}" if high is not None else "")
    span = f" from {low:g} to {high:g}" if high is not None else f" of {low:g} or more" if low is not None else ""
    return SCALARS[hint] + span


def _fault(where: str, value: Any, allowed: str) -> PackageError:
    return PackageError(f"{where} is {shown(value)}; give {allowed}.")


def shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(given: str, known: Iterable[str]) -> str:
    names = [str(name) for name in known]
    near = get_close_matches(given, names, 1)
    return f"did you mean '{near[0]}'" if near else f"choose {joined(names)}"


def joined(names: Iterable[str], link: str = "or") -> str:
    *first, last = names
    return f"{', '.join(first)} {link} {last}" if first else last
