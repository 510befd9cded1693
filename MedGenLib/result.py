"""What `generate` and `translate` return."""

from __future__ import annotations

from dataclasses import dataclass

from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.report import Report


@dataclass(frozen=True)
class Result:
    """Synthetic volumes on the input's grid, and the report that tells how they were made.

    Attributes
    ----------
    volumes: one per sample.
    report: model, seeds, timings, checks.
    source: the input as it was read (the mask in the model's labels, or the image).
    uncertainty: voxel-wise standard deviation in the volumes' unit, where it was asked for: over
        the samples of `generate`, over the views of `translate`.
    """

    volumes: list[Volume]
    report: Report
    source: LabelMap | Volume
    uncertainty: Volume | None = None

    @property
    def volume(self) -> Volume:
        """The first sample."""
        return self.volumes[0]
