"""A series over time as synchronized sequences in one browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import slicer
import vtk

from MedGenLib.worker.protocol.transfer import take
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.hierarchy import placeBeside
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.nodes.voxels import imageData


def addBrowser(name: str, beside):
    """A sequence browser, whose sequences `addSequence` adds; it is placed beside a node."""
    scene = slicer.mrmlScene
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", scene.GenerateUniqueName(name))
    browser.SetIndexDisplayMode(browser.IndexDisplayAsIndexValue)
    browser.SetPlaybackRateFps(5)
    placeBeside(browser, beside)
    return browser


def addSequence(browser, name: str, values: Sequence[float], frame: Callable, index: str = "phase", unit: str = "%"):
    """A sequence of nodes, one for each value of the index, synchronized with the others of the browser.

    frame(number): a node outside of the scene; the sequence keeps a copy.
    """
    scene = slicer.mrmlScene
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", scene.GenerateUniqueName(name))
    sequence.SetIndexName(index)
    sequence.SetIndexUnit(unit)
    for number, value in enumerate(values):
        node = frame(number)
        node.SetName(name)
        sequence.SetDataNodeAtValue(node, f"{value:g}")
    browser.AddSynchronizedSequenceNode(sequence)
    return sequence


def frameOf(snapshot: InputSnapshot, voxels: np.ndarray, made: NodeProvenance, labels: bool = False):
    """A volume for a sequence, on the grid of an input; ``voxels`` (k, j, i) are contiguous and owned."""
    node = slicer.vtkMRMLLabelMapVolumeNode() if labels else slicer.vtkMRMLScalarVolumeNode()
    node.SetAndObserveImageData(imageData(voxels))
    snapshot.place.applyTo(node)
    provenance.write(node, made)
    return node


def showLike(snapshot: InputSnapshot, proxy) -> None:
    """The window of the source, and its parent transform."""
    display, source = proxy.GetDisplayNode(), snapshot.node.GetDisplayNode()
    if display is not None and source is not None and not proxy.IsA("vtkMRMLLabelMapVolumeNode"):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(source.GetWindow(), source.GetLevel())
    proxy.SetAndObserveTransformNodeID(snapshot.parentTransformID)


def voxelsOf(item: dict) -> np.ndarray:
    """The voxels (k, j, i) of a volume that the worker sent, contiguous and owned."""
    return np.array(take(item).array.transpose(2, 1, 0), order="C", copy=True)


def showFirst(browser) -> None:
    """Make the node of each sequence in the scene, with the first frame, and give the toolbar the browser."""
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
