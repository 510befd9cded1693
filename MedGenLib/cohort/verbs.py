"""What a case can be: the verbs, with their inputs and parameters from the declarations of the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.options import Option, of, validate

OWN = ("seed", "samples", "grow", "report", "overwrite")
"""Options that a case states elsewhere, or of which it has its own; a case makes one image."""
STATED = ("series", "modality", "hu_offset")
"""Options on how an image is read, which only the command line has."""


@dataclass(frozen=True)
class Verb:
    """One verb of a manifest.

    Attributes
    ----------
    command: its name in the declarations.
    first: the input that a folder of files gives.
    labels: input or output that holds the labels of the image that is made; None without.
    """

    name: str
    command: str
    first: str
    labels: str | None = None

    @cached_property
    def inputs(self) -> list[str]:
        """Names of the images that it reads."""
        return [name for name, option in of(self.command).items() if option.image]

    @cached_property
    def parameters(self) -> dict[str, Option]:
        """The other options of a case, by name."""
        line = of(self.command, "cli")
        known = {name: option for name, option in of(self.command).items() if not option.image}
        known |= {name: line[name] for name in STATED if name in line}
        return {name: option for name, option in known.items() if name not in OWN and not line[name].writes_file}

    @property
    def has_seed(self) -> bool:
        return "seed" in of(self.command)

    def checked(self, parameters: Mapping[str, Any], inputs: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
        """All options of the function, complete; the parameters that it lacks are for reading the images.

        Raises
        ------
        InputError: an unknown input or parameter, or a value that is not allowed.
        """
        for name in inputs:
            if name not in self.inputs:
                raise InputError(f"The input '{name}' of {self.name} is unknown; use {', '.join(self.inputs)}.")
        python, stated = of(self.command), {}
        for name in parameters:
            if name in python and name not in self.parameters:
                raise InputError(
                    f"The parameter '{name}' of {self.name} is not one of a case; state inputs and seed beside the "
                    "parameters, and several images as several cases."
                )
        for name, value in parameters.items():
            if name in STATED and name not in python and name in self.parameters:
                self.parameters[name].check(value)
                stated[name] = value
        own = {name: value for name, value in parameters.items() if name not in stated}
        return validate(self.command, {**own, **inputs, **({"seed": seed} if self.has_seed else {})})


VERBS = {
    verb.name: verb
    for verb in (
        Verb("generate", "generate", "mask", "mask"),
        Verb("translate", "translate", "image"),
        Verb("evaluate", "evaluate", "image"),
        Verb("insert-lesion", "insert_lesion", "image", "lesion"),
    )
}
