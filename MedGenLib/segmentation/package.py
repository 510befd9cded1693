"""Segmentation by the network of a package of task "segment"."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.head import BRAIN_LITERS
from MedGenLib.imaging.modality import same_modality
from MedGenLib.imaging.normalization import BrainLevel, HounsfieldWindow, ZScore
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, by_axis, check_finite
from MedGenLib.labels.vocabulary import Vocabulary
from MedGenLib.pipelines.working_grid import SAME_SPACING
from MedGenLib.progress import ProgressCallback

if TYPE_CHECKING:
    from torch import nn

    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.packages.settings import SegmentationSettings

WHOLE = 96
"""Voxels along an axis up to which an image is segmented in one piece."""


@dataclass(frozen=True)
class PackageSegmenter:
    """The network of a package of task "segment"."""

    manifest: Manifest
    device: str = "auto"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def kind(self) -> str:
        return "detector" if self.manifest.task == "detect" else "segmenter"

    @property
    def labels(self) -> Vocabulary:
        return self.manifest.output.vocabulary

    def shares(self, volume: Volume) -> tuple[Volume, Reorientation, NDArray[np.float32]]:
        """The volume at the voxel size of the package, its way to RAS, and `probabilities` along the RAS axes."""
        from MedGenLib.devices import pick_device
        from MedGenLib.pipelines.loading import network

        check_finite(volume)
        self._require_fitting(volume)
        net = network(self.manifest, "segmenter", pick_device(self.device))
        working = self._working(volume)
        reorientation = Reorientation.to(working.geometry, "RAS")
        image = codec_of(self.manifest.settings).encode(reorientation.apply(working.array))
        return working, reorientation, probabilities(net, image)

    def __call__(self, volume: Volume, progress: ProgressCallback | None = None) -> LabelMap:
        working, reorientation, shares = self.shares(volume)
        found = np.zeros(volume.shape, np.uint8)
        highest = np.full(volume.shape, -np.inf, np.float32)
        for value, share in zip((0, *self.manifest.output.labels), shares, strict=True):
            placed = working.with_array(reorientation.undo(share))
            placed = resample_to(placed, volume, order=1, fill=float(value == 0)).array
            found[placed > highest] = value
            highest = np.maximum(highest, placed)
        return LabelMap(found, volume.affine, dict(self.labels.names))

    def covers(self, volume: Volume) -> bool:
        """Whether the volume is as large, and its voxels are as small, as the package needs."""
        large = all(a <= s for a, s in zip(self.manifest.field_of_view.min, _sides(volume), strict=True))
        return large and max(volume.spacing) <= self.manifest.spacing.max

    def _working(self, volume: Volume) -> Volume:
        """The volume at the voxel size of the package; the volume itself where its voxel size is close to that."""
        native = self.manifest.spacing.native
        if all(abs(s / native - 1) <= SAME_SPACING for s in volume.spacing):
            return volume
        floating = replace(volume, array=volume.array.astype(np.float32))
        return resample(floating, (native,) * 3)

    def _require_fitting(self, volume: Volume) -> None:
        wanted = self.manifest.input.modality
        if wanted != "any" and volume.modality and not same_modality(volume.modality, wanted):
            raise InputError(
                f"The {self.kind} '{self.name}' reads {wanted} images, but this one is "
                f"{volume.modality}; choose another {self.kind}."
            )
        spacing, view = self.manifest.spacing, self.manifest.field_of_view
        sides = _sides(volume)
        if not spacing.min <= max(volume.spacing) <= spacing.max:
            raise InputError(
                f"The {self.kind} '{self.name}' reads voxels of {spacing.min:g} to {spacing.max:g} "
                f"mm, but the image has {by_axis(volume.spacing)} mm; choose another {self.kind}."
            )
        small = any(s < a for a, s in zip(view.min, sides, strict=True))
        remedy = "give a larger one" if small or self.kind == "detector" else "crop it to the structure"
        if any(not a <= s <= b for a, s, b in zip(view.min, sides, view.max, strict=True)):
            raise InputError(
                f"The {self.kind} '{self.name}' reads images of {by_axis(view.min)} to "
                f"{by_axis(view.max)} mm (right-left, back-front, down-up), but this one has "
                f"{by_axis(sides)} mm; {remedy}."
            )
        liters = np.count_nonzero(volume.array > 0) * np.prod(volume.spacing) / 1e6
        if self.manifest.settings.name == "brain" and liters > BRAIN_LITERS:
            raise InputError(
                f"The {self.kind} '{self.name}' reads a brain without skull, with 0 around it, but this image has "
                f"{liters:.1f} liters above 0; remove the skull first."
            )


def _sides(volume: Volume) -> tuple[float, ...]:
    """Size in mm: right-left, back-front, down-up."""
    return Reorientation.to(volume.geometry, "RAS").axes(volume.field_of_view)


CODECS = {"z-score": ZScore, "window": HounsfieldWindow, "brain": BrainLevel}


def codec_of(settings: SegmentationSettings) -> ZScore | HounsfieldWindow | BrainLevel:
    """What makes the input of the network of an image."""
    return CODECS[settings.name](settings.low, settings.high)


def probabilities(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Standardized image (i, j, k) -> share of background and each label (n + 1, i, j, k).

    An axis longer than `WHOLE` voxels, or `whole` of the network, is segmented in overlapping windows.
    """
    import torch

    from MedGenLib.pipelines.loading import bfloat16_pays, precision

    stride, whole = network.stride, getattr(network, "whole", WHOLE)
    device = next(network.parameters()).device
    padded = np.pad(image, [(0, -n % stride) for n in image.shape])
    x = torch.from_numpy(padded)[None, None].to(device)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), precision(device, bfloat16_pays(device)):
        if max(padded.shape) <= whole:
            scores = network(x)
        else:
            from monai.inferers import sliding_window_inference

            scores = sliding_window_inference(x, whole, 1, network, 0.25, mode="gaussian")
        shares = torch.softmax(scores.float(), 1)[0].cpu().numpy()
    return shares[(slice(None), *(slice(0, n) for n in image.shape))]


def label_array(network: nn.Module, image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Standardized image (i, j, k) -> the most probable label of each voxel, 0 is background."""
    return probabilities(network, image).argmax(0).astype(np.uint8)
