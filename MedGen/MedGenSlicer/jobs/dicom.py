"""DICOM out: a node becomes a series that the worker writes, in the study of the node that it came from.

Slicer's own export is left alone: it knows neither derived images nor how a synthetic one was made.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import guess_modality
from MedGenLib.worker.protocol.transfer import put
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.nodes import provenance
from MedGenSlicer.nodes.geometry import worldTransform
from MedGenSlicer.nodes.hierarchy import volumesOfStudy
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.kinds import isSegmentation
from MedGenSlicer.nodes.segmentations import referenceVolume

INSTANCES = "DICOM.instanceUIDs"
"""Attribute in which Slicer keeps the instances that a volume was loaded from."""


def database():
    """Slicer's DICOM database, None where there is none or it is not open."""
    found = getattr(slicer, "dicomDatabase", None)
    return found if found is not None and found.isOpen else None


def sourceFiles(node) -> list[str]:
    """The DICOM files that a volume was loaded from, as far as the database still knows them."""
    uids = (node.GetAttribute(INSTANCES) or "").split() if node is not None else []
    known = database()
    files = [known.fileForInstance(uid) for uid in uids] if known is not None else []
    return [file for file in files if file and os.path.isfile(file)]


def findSource(node):
    """The volume from DICOM in whose study a node belongs: itself, the reference volume of a segmentation, or a
    neighbor in the same study of the subject hierarchy; None where there is none."""
    candidates = [node, referenceVolume(node) if isSegmentation(node) else None, *volumesOfStudy(node)]
    return next((found for found in candidates if found is not None and sourceFiles(found)), None)


def newFolder(parent: str, name: str) -> str:
    """A folder inside `parent` that does not exist yet, named after a node; it is not made."""
    plain = re.sub(r"[^\w-]+", "_", name).strip("_")[:60] or "series"
    path, number = os.path.join(parent, plain), 1
    while os.path.exists(path):
        number += 1
        path = os.path.join(parent, f"{plain}_{number}")
    return path


def addToDatabase(folder: str, series: str) -> bool:
    """List the files of a folder in Slicer's DICOM module.

    series: Series Instance UID of what must be listed afterwards.

    Returns
    -------
    Whether it is; Slicer's import itself reports only exceptions of Python.
    """
    if database() is None:
        return False
    from DICOMLib import DICOMUtils

    return DICOMUtils.importDicom(folder, slicer.dicomDatabase) and bool(slicer.dicomDatabase.filesForSeries(series))


class DicomRun(Run):
    """Writes one series; its result is the list of the files.

    Parameters
    ----------
    snapshot: image or labels.
    folder: of the new series; must not exist or be empty.
    source: volume from DICOM whose study the series joins, None for a new synthetic patient.
    deidentify: remove what names the patient.

    Attributes
    ----------
    files: paths of what was written; series: its Series Instance UID.
    """

    def __init__(
        self, engine: Engine, snapshot: InputSnapshot, folder: str, source=None, deidentify: bool = False
    ) -> None:
        super().__init__(engine)
        self.snapshot, self.folder, self.deidentify = snapshot, folder, deidentify
        self.files: list[str] = []
        self.series = ""
        node = snapshot.node
        self._made = provenance.read(node)
        if self._made is not None and self._made.content != "image":
            raise InputError(
                _("'{name}' is no image of a body but was computed from some; export the image itself.").format(
                    name=snapshot.name
                )
            )
        self._source = sourceFiles(source)
        if source is not None and not self._source:
            sentence = _(
                "The DICOM files of '{name}' are no longer in Slicer's DICOM database; import them "
                "again, or export without them as a new synthetic patient."
            )
            raise InputError(sentence.format(name=source.GetName()))
        if source is not None:
            # The study's frame of reference is that of the source without its transforms.
            snapshot.affine = np.linalg.inv(worldTransform(source)) @ snapshot.affine
        self._watch(node, _("image"))

    def result(self) -> list[str]:
        """Wait, then the files; raises the run's error."""
        super().result()
        return self.files

    def _request(self, folder: str) -> tuple[str, dict[str, Any]]:
        snapshot, key = self.snapshot, "image"
        item = put(snapshot.image, folder, "input")
        if snapshot.kind == "labels":
            key = "labels"
        elif snapshot.modality is None:
            item["modality"] = guess_modality(snapshot.image)
            item["unit"] = "HU" if item["modality"] == "CT" else item["unit"]
            self.sentences = [
                _("Its values look like {modality}, so it was written as that.").format(modality=item["modality"])
            ]
        facts = provenance.libraryFacts(self._made) if self._made is not None else None
        return "dicom", {
            key: item,
            "source": self._source or None,
            "folder": self.folder,
            "provenance": facts,
            "deidentify": self.deidentify,
            "description": snapshot.name,
        }

    def _add(self, answer: dict[str, Any]) -> list:
        self.files, self.series = list(answer["files"]), answer.get("series") or ""
        self.sentences += answer.get("sentences") or []
        return []
