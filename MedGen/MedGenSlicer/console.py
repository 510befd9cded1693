"""The options of a run, and the line for Slicer's Python console that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import slicer

from MedGenLib.options import REQUIRED, changed, of, snake
from MedGenLib.worker.protocol.transfer import put
from MedGenSlicer.nodes.inputs import InputSnapshot


@dataclass(frozen=True)
class RunParameters:
    """The options of a run; each is also an attribute in Slicer's spelling, such as `noiseHU`.

    Attributes
    ----------
    command: of `MedGenLib.options`.
    options: Python name -> value; an image is an `InputSnapshot`.
    """

    command: str
    options: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        options = self.__dict__.get("options", {})
        if snake(name) not in options:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return options[snake(name)]

    def replaced(self, **options: Any) -> RunParameters:
        """The same with other values, by their Python names."""
        return RunParameters(self.command, {**self.options, **options})

    def completedFrom(self, earlier: RunParameters, *names: str) -> RunParameters:
        """The same with the values of an earlier run for those of the options that are None."""
        missing = (name for name in names if self.options.get(name) is None)
        return self.replaced(**{name: earlier.options.get(name) for name in missing})

    def forWorker(self, folder: str, command: str = "") -> dict[str, Any]:
        """The parameters of the worker's method; images are written into the folder.

        command: whose options the method takes; by default that of the run.
        """
        params: dict[str, Any] = {"folder": folder}
        for name, option in of(command or self.command, "worker").items():
            value = self.options.get(option.name)
            params[name] = put(value.image, folder, option.name) if isinstance(value, InputSnapshot) else value
        return params


def pythonLine(parameters: RunParameters) -> str:
    """One line that makes the same voxels again from the same input.

    >>> pythonLine(run.parameters)   # doctest: +SKIP
    'slicer.util.getModuleLogic("MedGen").generate(slicer.util.getNode("Segmentation"), model="ct-tissue", seed=7)'
    """
    command, options = parameters.command, parameters.options
    known = of(command, "slicer").values()
    leading = [option.name for option in takewhile(lambda option: option.image or option.default is REQUIRED, known)]
    arguments = [_expression(options.get(name)) for name in leading]
    # Model and seed always: another version may have another default.
    keywords = {name: options[name] for name in ("model", "seed") if options.get(name) is not None}
    keywords |= changed(command, {name: value for name, value in options.items() if name not in leading})
    arguments += [f"{name}={_expression(value)}" for name, value in keywords.items()]
    return f'slicer.util.getModuleLogic("MedGen").{command}({", ".join(arguments)})'


def nodeExpression(nodeID: str, name: str) -> str:
    """How the console finds a node: by name where only one node has it, else by its ID."""
    # getNode takes a pattern, in which these characters have a meaning.
    isPattern = any(letter in name for letter in "*?[]")
    nodes = slicer.mrmlScene.GetNodesByName(name)
    if isPattern or nodes.GetNumberOfItems() != 1 or slicer.mrmlScene.GetNodeByID(name) is not None:
        return f"slicer.util.getNode({_expression(nodeID)})"
    return f"slicer.util.getNode({_expression(name)})"


def _expression(value: object) -> str:
    """Python source of a value, with double quotes around text."""
    if isinstance(value, InputSnapshot):
        return nodeExpression(value.nodeID, value.name)
    if isinstance(value, str):
        # Without a double quote inside, what repr puts between its quotes fits between double quotes too.
        return repr(value) if '"' in value else f'"{repr(value)[1:-1]}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_expression(key)}: {_expression(item)}" for key, item in value.items()) + "}"
    return repr(value)
