"""The error of an image as a colored volume over it: blue below the reference, red above, none where it is small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results import volumes as results
from MedGenSlicer.results.fit import emptyViews, fitWhereUnseen
from MedGenSlicer.results.kept_views import Layers, sliceViews
from MedGenSlicer.results.outline import Outline, outlineAll
from MedGenSlicer.results.volumes import PreparedImage

COLORS_ATTRIBUTE = "MedGen.Colors"
COLORS = 256
SMALL = 0.12
"""Share of the window about zero that is drawn as nothing, so that the image below is seen."""
PERCENTILE = 99.0
STEPS = (1.0, 2.0, 5.0, 10.0)
OPACITY = 0.7
BLUE, PALE, RED = (0.13, 0.40, 0.78), (0.93, 0.93, 0.93), (0.79, 0.13, 0.16)
"""Ends and middle of the colors; blue and red differ for any color vision."""


def prepareErrorMap(volume) -> PreparedImage:
    """The voxels of an error map (image - reference), with a window that is symmetric about zero; may run in any
    thread."""
    image = results.prepareImage(replace(volume, modality=None), spread=True)
    return replace(image, window=2 * largestShown(image.array), level=0.0)


def largestShown(error: np.ndarray) -> float:
    """The error at the ends of the colors: almost all of the errors, as 1, 2 or 5 times a power of ten."""
    sample = np.abs(error.reshape(-1)[:: max(1, error.size // 500_000)].astype(np.float32))
    sample = sample[sample > 0]
    wanted = float(np.percentile(sample, PERCENTILE)) if sample.size else 1.0
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(next(step for step in STEPS if step * power >= wanted * (1 - 1e-6)) * power)


def addErrorMap(snapshot: InputSnapshot, image: PreparedImage, reference: str, saveState: bool = True):
    """Put an error map into the scene, beside the image that it belongs to.

    Parameters
    ----------
    snapshot: the image that was judged; the map gets its grid, parent transform and place.
    reference: name of the node it was compared with.
    """
    made = NodeProvenance(
        content="error", task="evaluate", unit=image.unit, input=snapshot.name, parameters={"reference": reference}
    )
    node = results.addResult(snapshot, image, made, saveState=saveState)
    try:
        node.GetDisplayNode().SetAndObserveColorNodeID(errorColors().GetID())
        _addLegend(node, image.unit)
    except BaseException:
        results.removeResult(node)
        raise
    return node


class ErrorMapView:
    """An error map over its image in the slice views, with masks as outlines; `hide` gives back what was there. Views
    that show something of the image stay where they are."""

    def __init__(self) -> None:
        self._before: list[tuple[object, Layers]] = []
        self._outlines: list[Outline] = []
        self._errorID = ""

    def show(self, imageNode, errorNode) -> None:
        """Show an error map, behind it its image."""
        self.hide()
        self._errorID = errorNode.GetID()
        self._before = [(view, Layers.of(view)) for view in sliceViews()]
        self._outlines, empty = outlineAll(), emptyViews()
        for view in sliceViews():
            Layers(imageNode.GetID(), self._errorID, foregroundOpacity=OPACITY).show(view)
        fitWhereUnseen(imageNode, empty)

    def hide(self) -> None:
        """Show again what was there, in the views that still show the map or lost it because it was deleted."""
        for view, layers in self._before:
            if Layers.of(view).foreground in (None, self._errorID):
                layers.show(view)
        for outline in self._outlines:
            outline.restore()
        self._before, self._outlines = [], []


def errorColors():
    """The color table of all error maps of the scene; made when it is first needed."""
    for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode"):
        if node.GetAttribute(COLORS_ATTRIBUTE) == "error":
            return node
    table = slicer.vtkMRMLColorTableNode()
    table.SetTypeToUser()
    table.SetName(_("MedGen error, blue below and red above"))
    table.SetAttribute(COLORS_ATTRIBUTE, "error")
    table.SetNumberOfColors(COLORS)
    for index in range(COLORS):
        position = 2 * index / (COLORS - 1) - 1
        # Slicer's slice views know only opaque and transparent colors.
        table.SetColor(index, f"{position:+.2f}", *_mixed(position), 0.0 if abs(position) < SMALL else 1.0)
    return slicer.mrmlScene.AddNode(table)


def _mixed(position: float) -> tuple[float, ...]:
    """Color at -1 (blue) to 1 (red), by way of almost white."""
    share = abs(position) ** 0.7  # moderate errors are colored too, not only the largest
    end = RED if position > 0 else BLUE
    return tuple(share * strong + (1 - share) * pale for strong, pale in zip(end, PALE, strict=True))


def _addLegend(node, unit: str) -> None:
    """A bar of the colors with its numbers; Slicer draws it where the volume is shown."""
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(_("Error ({unit})").format(unit=unit))
    legend.SetMaxNumberOfColors(COLORS)
