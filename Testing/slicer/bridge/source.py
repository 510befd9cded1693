"""Slicer's own Python files instead of the stand-ins, read from a tree of its sources."""

import importlib.util
import os
import sys
from pathlib import Path

from PySide6 import QtWidgets

from .pythonqt import StandIn

VARIABLE = "SLICER_SOURCE"
"""Environment variable with the folder of a checkout of Slicer."""

MODULES = ("slicer.i18n", "slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper")

#: Widgets that those files name and MedGen does not use.
UNUSED = {
    "ctk": (
        "ctkCheckBox",
        "ctkCheckablePushButton",
        "ctkColorPickerButton",
        "ctkComboBox",
        "ctkDirectoryButton",
        "ctkDoubleRangeSlider",
        "ctkDoubleSlider",
        "ctkDoubleSpinBox",
        "ctkRangeWidget",
    ),
    "slicer": ("qMRMLRangeWidget", "qMRMLSliderWidget", "qMRMLSpinBox", "qMRMLSubjectHierarchyTreeView"),
}


def isChosen() -> bool:
    """Whether the variable names a tree that holds the files."""
    return VARIABLE in os.environ and _file(MODULES[0]).is_file()


def load() -> None:
    """Import Slicer's own modules under their names."""
    for module, names in UNUSED.items():
        for name in names:
            setattr(sys.modules[module], name, type(name, (QtWidgets.QWidget, StandIn), {}))
    for name in MODULES:
        spec = importlib.util.spec_from_file_location(name, _file(name))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        setattr(sys.modules["slicer"], name.split(".")[1], module)
        spec.loader.exec_module(module)


def _file(name: str) -> Path:
    path = Path(os.environ[VARIABLE], "Base", "Python", *name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
