"""A breathing series as synchronized sequences in one browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import slicer
import vtk
from slicer.i18n import tr as _

from MedGenSlicer.nodes.hierarchy import placeBeside


def addBrowser(name: str, beside):
    """A sequence browser, whose sequences `addSequence` adds; it is placed beside a node."""
    scene = slicer.mrmlScene
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", scene.GenerateUniqueName(name))
    browser.SetIndexDisplayMode(browser.IndexDisplayAsIndexValue)
    browser.SetPlaybackRateFps(5)
    placeBeside(browser, beside)
    return browser


def addSequence(browser, name: str, values: Sequence[float], frame: Callable):
    """A sequence of nodes, one for each percent of the cycle, synchronized with the others of the browser.

    frame(index): a node outside of the scene; the sequence keeps a copy.
    """
    scene = slicer.mrmlScene
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    sequence.SetIndexName(_("phase"))
    sequence.SetIndexUnit("%")
    for index, value in enumerate(values):
        node = frame(index)
        node.SetName(name)
        sequence.SetDataNodeAtValue(node, f"{value:g}")
    browser.AddSynchronizedSequenceNode(sequence)
    return sequence


def showFirst(browser) -> None:
    """Make the node of each sequence in the scene, with the first phase, and give the toolbar the browser."""
    logic = slicer.modules.sequences.logic()
    browser.SetSelectedItemNumber(0)
    logic.UpdateProxyNodesFromSequences(browser)
    setActive = getattr(slicer.modules.sequences, "setToolBarActiveBrowserNode", None)
    if setActive is not None:
        setActive(browser)


def sequencesOf(browser) -> list:
    """The sequences of a browser, in the order in which they were added."""
    found = vtk.vtkCollection()
    browser.GetSynchronizedSequenceNodes(found, True)
    return [found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())]


def removeBrowser(browser) -> None:
    """Take a browser, its sequences and their nodes out of the scene."""
    sequences = sequencesOf(browser)
    proxies = [browser.GetProxyNode(sequence) for sequence in sequences]
    for node in (browser, *proxies, *sequences):
        if node is not None and node.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(node)
