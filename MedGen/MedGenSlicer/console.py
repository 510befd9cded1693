"""The line for Slicer's Python console that repeats a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from MedGenSlicer.jobs.synthesis import RunParameters

_DEFAULTS = {
    "preset": "normal",
    "device": "auto",
    "samples": 1,
    "mapping": None,
    "fill": None,
    "noiseHU": None,
    "guidance": None,
    "classifierGuidance": 0.0,
    "spread": False,
    "acceptLicense": False,
}


def pythonLine(parameters: RunParameters) -> str:
    """One line that makes the same voxels again from the same input.

    >>> pythonLine(run.parameters)   # doctest: +SKIP
    'slicer.util.getModuleLogic("MedGen").generate(slicer.util.getNode("Segmentation"), model="ct-tissue", seed=7)'
    """
    arguments = [nodeExpression(parameters.inputID, parameters.inputName)]
    if parameters.task == "translate":
        arguments.append(_quoted(parameters.to))
    for name in ("model", "seed"):
        if (value := getattr(parameters, name)) is not None:
            arguments.append(f"{name}={_quoted(value)}")
    if parameters.styleID is not None:
        arguments.append(f"style={nodeExpression(parameters.styleID, parameters.styleName)}")
    for name, default in _DEFAULTS.items():
        if (value := getattr(parameters, name)) != default:
            arguments.append(f"{name}={_quoted(value)}")
    return f'slicer.util.getModuleLogic("MedGen").{parameters.task}({", ".join(arguments)})'


def nodeExpression(nodeID: str, name: str) -> str:
    """How the console finds a node: by name where only one node has it, else by its ID."""
    # getNode takes a pattern, in which these characters have a meaning.
    isPattern = any(letter in name for letter in "*?[]")
    nodes = slicer.mrmlScene.GetNodesByName(name)
    if isPattern or nodes.GetNumberOfItems() != 1 or slicer.mrmlScene.GetNodeByID(name) is not None:
        return f"slicer.util.getNode({_quoted(nodeID)})"
    return f"slicer.util.getNode({_quoted(name)})"


def _quoted(value: object) -> str:
    """Python source of a value, with double quotes around text."""
    if isinstance(value, str):
        # Without a double quote inside, what repr puts between its quotes fits between double quotes too.
        return repr(value) if '"' in value else f'"{repr(value)[1:-1]}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(key)}: {_quoted(item)}" for key, item in value.items()) + "}"
    return repr(value)
