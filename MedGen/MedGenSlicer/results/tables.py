"""Figures as table nodes, which Slicer saves as CSV."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

TEXTS = {"Figure": "name", "Label": "label", "Unit": "unit", "Meaning": "sentence"}
NUMBERS = {"Value": "value", "Low": "low", "High": "high"}


def addTable(name: str, rows: list[dict[str, Any]], note: str, saveState: bool = True):
    """A table node of figures.

    Parameters
    ----------
    rows: one figure each: name, label (what it was measured in; "" for all of it), value, low and high (its 95 %
        interval, left out or None where there is none), unit, sentence (what it means).
    saveState: make this a step of its own for undo.
    """
    hasInterval = any(row.get("low") is not None for row in rows)
    titles = ("Figure", "Label", "Value", *(("Low", "High") if hasInterval else ()), "Unit", "Meaning")
    scene = slicer.mrmlScene
    node = slicer.vtkMRMLTableNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetDescription(note)
    node.SetUseColumnTitleAsColumnHeader(True)
    for title in titles:
        node.GetTable().AddColumn(_column(title, rows))
    node.SetUndoEnabled(scene.GetUndoFlag())
    if saveState:
        scene.SaveStateForUndo()
    scene.AddNode(node)
    return node


def _column(title: str, rows: list[dict[str, Any]]):
    column = vtk.vtkDoubleArray() if title in NUMBERS else vtk.vtkStringArray()
    column.SetName(title)
    for row in rows:
        if title in NUMBERS:
            value = row.get(NUMBERS[title])
            column.InsertNextValue(np.nan if value is None else float(value))
        else:
            column.InsertNextValue(row.get(TEXTS[title]) or "")
    return column


def anatomyRows(anatomy: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Labels that were found again in an image, as figures for `addTable`.

    anatomy: dictionaries of the library, with name, dice (0 to 1), hd95_mm, wanted_ml, found_ml, difference_ml,
        difference_percent; None where a figure cannot be given, and then a sentence that says why.
    """
    figures = (
        ("dice", _("Dice"), ""),
        ("hd95_mm", _("HD95"), "mm"),
        ("wanted_ml", _("Volume wanted"), "ml"),
        ("found_ml", _("Volume found"), "ml"),
        ("difference_percent", _("Volume difference"), "%"),
    )
    return [
        {
            "name": title,
            "label": label["name"],
            "value": label.get(key),
            "unit": unit,
            "sentence": label.get("sentence") or "",
        }
        for label in anatomy
        for key, title, unit in figures
    ]
