"""Appearance of a real volume for generated ones: noise and tissue levels of a CT, contrast of an MR image.

CT has absolute units: the network is conditioned on the noise of the reference, and the mean of each tissue is shifted
to that of the reference. For MR, gray levels are mapped by a monotone curve that takes the deciles of the generated
image to those of the reference (Nyul and Udupa, Magnetic Resonance in Medicine 42, 1072, 1999).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.imaging.body import body_envelope_from_image
from MedGenLib.imaging.modality import modality_of, same_modality
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, check_finite, whole_numbers
from MedGenLib.io.files import read_volume
from MedGenLib.labels.tissues import resegment, soft_tissue

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest

PERCENTILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
FEWEST_VOXELS = 200
"""Voxels of a tissue or an image below which a level is not reliable."""
FEWEST_LEVELS = 32
"""Minimum number of different values of an image; masks have fewer."""


@dataclass(frozen=True)
class Appearance:
    """Properties of the reference.

    Attributes
    ----------
    noise_hu: noise of a CT's soft tissue at the model's own spacing, HU; None for MR, and for models without a noise
        setting.
    levels: mean of each tissue of a CT in HU, by the model's label.
    landmarks: `PERCENTILES` of an MR image's gray levels, in its own unit.
    """

    noise_hu: float | None = None
    levels: dict[int, float] = field(default_factory=dict)
    landmarks: tuple[float, ...] = ()

    @classmethod
    def of(cls, reference: str | Path | Volume, manifest: Manifest) -> Appearance:
        """Measure a reference of the model's output modality.

        Raises InputError if the reference is unreadable, of another modality, constant or empty, or a CT without soft
        tissue; or the model has no mask.
        """
        if manifest.input.kind == "none":
            raise InputError(f"The model '{manifest.name}' has no style option; leave it out.")
        target = manifest.output.modality
        read = not isinstance(reference, Volume)
        volume = read_volume(reference) if read else reference
        check_finite(volume, "The style reference")
        modality = modality_of(volume)
        is_ct = target == "CT"
        if modality is not None and (modality == "CT") != is_ct:
            raise InputError(
                f"The style reference is {modality}, but the model '{manifest.name}' makes "
                f"{target}; give a reference of that modality."
            )
        if not is_ct and not same_modality(target, modality) and modality not in (None, "MR"):
            raise InputError(
                f"The style reference is {modality}, but the model '{manifest.name}' makes "
                f"{target}; give a reference of that contrast."
            )
        return cls._of_ct(volume, manifest) if is_ct else cls._of_mr(volume, manifest)

    @classmethod
    def _of_ct(cls, volume: Volume, manifest: Manifest) -> Appearance:
        spec = manifest.statistics.resegment
        if spec is None:
            raise InputError(
                f"The model '{manifest.name}' has no thresholds for its tissues, so it has no style option."
            )
        ct = volume.with_array(volume.array.astype(np.float32), "CT", "HU")
        coarse = resample(ct, (manifest.spacing.native,) * 3)
        body = body_envelope_from_image(coarse).array > 0
        labels = np.where(body, resegment(coarse.array, spec), 0)
        soft = soft_tissue(manifest.input.labels)
        noise = None
        if manifest.settings.takes_noise:
            noise = noise_level(coarse.array, labels == soft)
            if noise is None:
                raise InputError(
                    "The style reference has too little soft tissue to measure its noise; "
                    "give a larger part of the body."
                )
            noise = round(float(np.clip(noise, 1, 50)), 2)
        levels = {
            value: round(float(coarse.array[labels == value].mean()), 1)
            for value in manifest.input.labels
            if np.count_nonzero(labels == value) >= FEWEST_VOXELS
        }
        return cls(noise, levels)

    @classmethod
    def _of_mr(cls, volume: Volume, manifest: Manifest) -> Appearance:
        array = volume.array.astype(np.float32)
        whole = manifest.settings.outside == "anatomy"
        values = array if whole else array[body_envelope_from_image(volume).array > 0]
        landmarks = _landmarks(values)
        if landmarks is None:
            raise InputError("The style reference has the same value nearly everywhere; give an image with anatomy.")
        if len(np.unique(values)) < FEWEST_LEVELS:
            raise InputError(
                "The style reference has only a few different values, as masks have; give an image with gray levels."
            )
        return cls(landmarks=landmarks)

    def apply(self, volume: Volume, labels: LabelMap, manifest: Manifest) -> Volume:
        """The generated volume with this appearance, on the same grid.

        A tissue's mean stays within the range in the model card.
        """
        if self.landmarks:
            return self._recontrasted(volume, labels, manifest)
        array = volume.array.astype(np.float32)
        tissues = manifest.statistics.tissues
        for value, level in self.levels.items():
            inside = labels.array == value
            if np.count_nonzero(inside) < FEWEST_VOXELS:
                continue
            target = np.clip(level, tissues[value].low, tissues[value].high) if value in tissues else level
            array[inside] += float(target) - float(array[inside].mean())
        return volume.with_array(whole_numbers(np.clip(array, *manifest.output.range)))

    def _recontrasted(self, volume: Volume, labels: LabelMap, manifest: Manifest) -> Volume:
        whole = manifest.settings.outside == "anatomy"
        inside = np.ones(volume.shape, bool) if whole else labels.array > 0
        own = _landmarks(volume.array[inside].astype(np.float32))
        if own is None:
            return volume
        array = volume.array.astype(np.float32)
        array[inside] = _mapped(array[inside], own, self.landmarks)
        rounds = self.landmarks[-1] - self.landmarks[0] >= 50
        return volume.with_array(whole_numbers(array) if rounds else array)


def _landmarks(values: np.ndarray) -> tuple[float, ...] | None:
    """Distinct percentiles, or None if the values hardly differ."""
    if values.size < FEWEST_VOXELS:
        return None
    found = np.percentile(values, PERCENTILES)
    if not found[-1] > found[0]:
        return None
    # Ties (a constant background) would leave the curve undefined.
    step = 1e-6 * (found[-1] - found[0])
    rising = np.maximum.accumulate(found + step * np.arange(len(found)))
    return tuple(float(v) for v in rising)


def _mapped(values: np.ndarray, own: tuple[float, ...], target: tuple[float, ...]) -> np.ndarray:
    """Piecewise linear through the landmarks, extrapolated with the overall slope."""
    slope = (target[-1] - target[0]) / (own[-1] - own[0])
    mapped = np.interp(values, own, target)
    mapped += slope * (np.minimum(values - own[0], 0) + np.maximum(values - own[-1], 0))
    return np.maximum(mapped, 0) if target[0] >= 0 else mapped
