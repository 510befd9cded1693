"""A lesion put into a volume: a new volume, and the lesion as a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap
from MedGenLib.worker.protocol.transfer import put, take
from MedGenSlicer.console import RunParameters
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes.geometry import worldTransform
from MedGenSlicer.nodes.inputs import InputSnapshot, captureOn
from MedGenSlicer.nodes.provenance import NodeProvenance
from MedGenSlicer.results.edited_copy import editedCopy
from MedGenSlicer.results.segmentations import addSegmentation
from MedGenSlicer.results.sequences import (
    addBrowser,
    addSequence,
    frameOf,
    removeBrowser,
    sequencesOf,
    showFirst,
    showLike,
    voxelsOf,
)
from MedGenSlicer.results.volumes import removeResult


class LesionRun(Run):
    """Puts a lesion into a volume; its node is the new volume, or the sequence browser of a lesion that grows.

    Parameters
    ----------
    place: (x, y, z) in world RAS mm, a node with control points, a segmentation or label map that was painted, or None.
    segment: name or ID of the painted segment; needed where the segmentation has several.

    Attributes
    ----------
    volumeNode, lesionNode: the volume and the segmentation with the lesion, or those that a browser shows; None unless
        the run is done.
    at: center of the lesion in world RAS mm, None unless the run is done.
    haloMm: how far from the lesion the volume may differ.
    """

    def __init__(self, engine: Engine, parameters: RunParameters, manifest, place, segment: str | None = None) -> None:
        super().__init__(engine, parameters)
        self.manifest = manifest
        self.snapshot: InputSnapshot = parameters.options["image"]
        volumeNode = self.snapshot.node
        isPainted = hasattr(place, "IsA") and not place.IsA("vtkMRMLMarkupsNode")
        self._toFrame = _toFrame(volumeNode, self.snapshot)
        self._at = None if isPainted or place is None else _moved(self._toFrame, pointOf(place))
        self._painted = captureOn(place, volumeNode) if isPainted else None
        self._value = _valueOf(self._painted, segment) if isPainted else 0
        self.volumeNode = self.lesionNode = None
        self.haloMm: float | None = None
        self.at: list[float] | None = None
        self._watch(volumeNode, _("volume"))

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        chosen = self.parameters.replaced(model=self.manifest.name, at=self._at)
        labels = chosen.options["labels"]
        mapping = labels.mappingByValue(chosen.mapping) if labels is not None else None
        lesion = put(self._drawn(), folder, "lesion") if self._painted is not None else None
        return "insert_lesion", chosen.replaced(mapping=mapping, lesion=lesion).forWorker(folder)

    def _drawn(self) -> LabelMap:
        """The painted segment alone."""
        painted = self._painted.image
        array = (painted.array == self._value) if self._value else painted.array > 0
        if not array.any():
            raise InputError(
                _("The painted lesion '{name}' is empty inside of the volume; paint it there.").format(
                    name=self._painted.name
                )
            )
        return LabelMap(array.astype(np.uint8), painted.affine, {1: _("lesion")})

    def _receive(self, answer: dict[str, Any]) -> tuple:
        if answer["later"]:
            frames = [(voxelsOf(frame["volume"]), voxelsOf(frame["lesion"])) for frame in (answer, *answer["later"])]
            return answer, frames, None
        return answer, take(answer["volume"]), voxelsOf(answer["lesion"])

    def _add(self, received: tuple) -> list:
        answer, volume, lesion = received
        report = answer.get("report") or {}
        self.sentences, self.haloMm = list(answer.get("sentences") or []), answer.get("halo_mm")
        self.at = _moved(np.linalg.inv(self._toFrame), answer["at"])
        if lesion is None:
            return [self._addSeries(report, volume)]
        node = editedCopy(
            self.snapshot.node,
            self.snapshot,
            volume,
            self.manifest,
            _("{name} with lesion"),
            task="insert-lesion",
            seed=report.get("seed"),
            preset=self.parameters.preset,
            device=report.get("device") or "",
            parameters=dict(report.get("parameters") or {}),
            checks=self.sentences,
            software=dict(report.get("software") or {}),
            passed=answer.get("passed"),
        )
        try:
            title = _("{name} segmentation").format(name=node.GetName())
            self.lesionNode = addSegmentation(node, self.snapshot.node, title, [(_("lesion"), lesion)])
        except BaseException:
            removeResult(node)
            raise
        self.volumeNode = node
        return [node]

    def _addSeries(self, report: dict[str, Any], frames: list[tuple[np.ndarray, np.ndarray]]):
        """Volume and lesion at each day, as two sequences of one browser."""
        made, snapshot = replace(NodeProvenance.ofReport(report), input=self.snapshot.name), self.snapshot
        made = replace(
            made, modality=self.manifest.output.modality, unit=self.manifest.output.unit, checks=self.sentences
        )
        days = [frame["day"] for frame in report["parameters"]["frames"]]
        browser = addBrowser(_("{name} with growing lesion").format(name=snapshot.name), snapshot.node)
        try:
            for kind, name in enumerate((_("{name} with lesion"), _("{name} lesion"))):
                sequence = addSequence(
                    browser,
                    name.format(name=snapshot.name),
                    days,
                    lambda number, kind=kind: frameOf(snapshot, frames[number][kind], made, labels=kind == 1),
                    _("day"),
                    "d",
                )
                showFirst(browser)
                showLike(snapshot, browser.GetProxyNode(sequence))
            self.volumeNode, self.lesionNode = map(browser.GetProxyNode, sequencesOf(browser))
        except BaseException:
            removeBrowser(browser)
            raise
        return browser


def pointOf(place) -> list[float]:
    """World RAS mm of a place: three numbers, or the last control point of a node.

    Raises
    ------
    InputError: it is no place, or no point was set yet.
    """
    if hasattr(place, "GetNumberOfControlPoints"):
        placed = [
            index
            for index in range(place.GetNumberOfControlPoints())
            if place.GetNthControlPointPositionStatus(index) == place.PositionDefined
        ]
        if not placed:
            raise InputError(_("'{name}' has no point yet; place one in a slice view.").format(name=place.GetName()))
        position = [0.0, 0.0, 0.0]
        place.GetNthControlPointPositionWorld(placed[-1], position)
        return position
    try:
        position = [float(number) for number in place]
    except (TypeError, ValueError):
        position = []
    if len(position) != 3:
        raise InputError(
            _("The place has to be three numbers in mm, a point list or a painted segment; '{place}' is none.").format(
                place=place
            )
        )
    return position


def _toFrame(volumeNode, snapshot: InputSnapshot) -> np.ndarray:
    """(4, 4) world RAS -> the frame that the worker sees: another one only under a transform that shears."""
    return snapshot.affine @ np.linalg.inv(worldTransform(volumeNode) @ snapshot.ijkToParent)


def _moved(matrix: np.ndarray, point: Sequence[float]) -> list[float]:
    return [float(number) for number in (matrix @ [*point, 1.0])[:3]]


def _valueOf(painted: InputSnapshot, segment: str | None) -> int:
    """The value of a segment by name or ID; 0 takes all that is painted, where there is only one."""
    if segment is None and len(painted.segments) <= 1:
        return 0
    for info in painted.segments:
        if segment in (info.segmentID, info.name):
            return info.value
    names = ", ".join(f"'{info.name}'" for info in painted.segments)
    raise InputError(
        _("Choose which segment of '{node}' is the lesion: {names}.").format(node=painted.name, names=names)
    )
