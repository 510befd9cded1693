"""Segmentation of an image: by thresholds, by a package, or by tools that the user has installed.

    find = segmenter("hippocampus-segmenter")
    labels = find(volume)            # on the grid of the volume, values as in find.labels

Names: a package of task "segment"; a generator whose package says how its labels are segmented
(ct-tissue: `statistics.resegment`, mr-hippocampus: `statistics.segmenter`); "totalsegmentator";
"nnunet:FOLDER" with the folder of a trained nnU-Net model. The last two run an installed command in
a separate process.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.packages.catalogue import broken, catalogue, find, light_catalogue
from MedGenLib.packages.license import require_acceptance
from MedGenLib.progress import ProgressCallback
from MedGenLib.segmentation.external import TOTALSEGMENTATOR, NnUnet, TotalSegmentator
from MedGenLib.segmentation.package import PackageSegmenter
from MedGenLib.segmentation.thresholds import ThresholdSegmenter

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


class Segmenter(Protocol):
    """Segments a volume.

    Attributes
    ----------
    name: as of `segmenter`.
    labels: vocabulary of its labels.
    """

    name: str
    labels: Vocabulary

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        """Labels on the grid of the volume.

        Raises
        ------
        InputError: the segmenter does not read such volumes, or an external tool failed.
        """
        ...


def segmenter(name: str, device: str = "auto") -> Segmenter:
    """The segmenter of a name (see the module).

    Raises
    ------
    InputError: an unknown name, or a tool that is not installed.
    PackageError, LicenseError: the package is damaged, or its license has to be accepted first.
    """
    kind, _, folder = name.partition(":")
    if kind.casefold() == "nnunet":
        return NnUnet(Path(folder), device)
    if name.casefold() == "totalsegmentator":
        return TotalSegmentator(device)
    manifest = _package(name)
    if manifest.task == "generate" and manifest.statistics.segmenter:
        manifest = _package(manifest.statistics.segmenter.package)
    if manifest.task == "segment":
        return PackageSegmenter(manifest, device)
    return ThresholdSegmenter(manifest)


def names() -> list[tuple[str, str]]:
    """The segmenters that are available, each with a sentence.

    nnU-Net is left out, as it needs the folder of a model. Reads no weights and imports neither torch nor the schema.
    """
    known = []
    for manifest in light_catalogue():
        if manifest.task == "segment":
            known.append((manifest.name, f"{manifest.description.rstrip('.')}."))
        elif manifest.statistics.resegment and manifest.task == "generate" and not manifest.statistics.segmenter:
            tissues = ", ".join(label.name for label in manifest.input.labels.values())
            known.append((manifest.name, f"Thresholds in HU: {tissues}."))
    if shutil.which(TOTALSEGMENTATOR):
        known.append(("totalsegmentator", "TotalSegmentator on this computer: 117 CT structures."))
    return known


def _package(name: str) -> Manifest:
    """A package that can segment images."""
    manifest = next((known for known in catalogue() if known.name == name), None)
    if manifest is None and any(package.folder.name == name for package in broken()):
        find(name)  # raises the error of the package
    if manifest is None or not _finds_labels(manifest):
        known = ", ".join(usable for usable, _ in names())
        raise InputError(f"There is no segmenter '{name}'; choose one of {known}, totalsegmentator or nnunet:FOLDER.")
    require_acceptance(manifest, accept=False)
    return manifest


def _finds_labels(manifest: Manifest) -> bool:
    if manifest.task == "generate":
        return bool(manifest.statistics.resegment or manifest.statistics.segmenter)
    return manifest.task == "segment"
