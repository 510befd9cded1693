"""Registries of implementations by name, such as samplers, training recipes and data readers.

A decorator registers an implementation and is the only place with its name. The names in a registry's own package are
read from the text of its modules, so that listing them imports nothing; a module is imported when its name is looked
up. Other packages register with the same decorator when they are imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module, util
from pathlib import Path
from typing import Generic, TypeVar

from MedGenLib.errors import InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """Implementations of one kind, by name.

    Parameters
    ----------
    kind: what the entries are, for error messages, such as "data reader".
    decorator: name of the decorator, written as ``@decorator("name"`` in the package; a second string is the summary.
    package: dotted name of the package whose modules are searched.

    Attributes
    ----------
    summaries: name -> summary, for the names of the package and added entries with a summary.
    """

    def __init__(self, kind: str, decorator: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._declaration = re.compile(rf'^@{decorator}\(\s*"([^"]+)"(?:,\s*"([^"]+)")?', re.MULTILINE)
        self._entries: dict[str, T] = {}

    @cached_property
    def _declared(self) -> list[tuple[str, str, str]]:
        """Module, name and summary of each decorator in the package."""
        paths = sorted(Path(*util.find_spec(self.package).submodule_search_locations).glob("*.py"))
        found = {path.stem: self._declaration.findall(path.read_text(encoding="utf-8")) for path in paths}
        return [(f"{self.package}.{stem}", *texts) for stem, decorators in found.items() for texts in decorators]

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Name -> module that registers it."""
        return {name: module for module, name, _ in self._declared}

    @cached_property
    def summaries(self) -> dict[str, str]:
        return {name: summary for _, name, summary in self._declared}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers a class or a function; InputError if another module uses the name."""

        def decorate(entry: T) -> T:
            self.add(name, entry, entry.__module__)
            return entry

        return decorate

    def add(self, name: str, entry: T, module: str, summary: str = "") -> None:
        """Register an entry of a module; InputError if another module uses the name."""
        owner = self._modules.setdefault(name, module)
        if owner != module:
            raise InputError(
                f"The {self.kind} '{name}' of {module} cannot be registered because {owner} uses this name; "
                "choose another name."
            )
        self._entries[name] = entry
        self.summaries.setdefault(name, summary)

    def require(self, name: str) -> None:
        """Raise InputError for a name that is not registered."""
        if name not in self:
            raise InputError(f"There is no {self.kind} '{name}'; choose {', '.join(self)}.")

    def __getitem__(self, name: str) -> T:
        self.require(name)
        if name not in self._entries:
            import_module(self._modules[name])
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)
