"""Segmentation of CT by thresholds in HU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.volume import LabelMap, Volume, check_finite
from MedGenLib.labels.tissues import resegment
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.progress import ProgressCallback

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


@dataclass(frozen=True)
class ThresholdSegmenter:
    """Tissues of a CT by the thresholds in HU that a package's `statistics.resegment` gives.

    Voxels outside of the body's envelope are 0.
    """

    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def labels(self) -> Vocabulary:
        return self.manifest.input.vocabulary

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        check_finite(volume)
        modality = modality_of(volume)
        if modality != "CT":
            raise InputError(
                f"The segmenter '{self.name}' finds tissues by their HU, but the "
                f"image is {modality or 'no CT'}; choose another segmenter."
            )
        body = body_envelope_from_image(volume.with_array(volume.array, "CT", "HU"))
        found = resegment(volume.array, self.manifest.statistics.resegment)
        found = np.where(body.array > 0, found, 0).astype(np.uint8)
        return LabelMap(found, volume.affine, dict(self.labels.names))
