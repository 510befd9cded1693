"""Pairs of a degraded patch and the patch itself, for the recipe `restorer`."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedGenLib.degradation.noise import ct_noise, rician
from MedGenLib.degradation.slices import slice_weights
from MedGenLib.enhancement.fusion import AxisFit, StackFit, fuse
from MedGenLib.enhancement.restoring import conditions, unit_of
from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.io.files import read_volume
from MedGenLib.packages.settings import RestorationSettings
from MedGenLib.packages.typed import read
from MedGenLib.training.data.patches import moved_window, random_window

STACKS = ((), (0,), (0, 1), (0, 1, 2))
"""Axes along which the slices of a sample are thick, before they are exchanged at random: noise alone, or stacks."""
SHARES = (0.25, 0.5, 0.1, 0.15)
NOISY = 0.4
"""Share of the samples of thick slices with added noise."""
THINNEST, QUIETEST = 1.4, 0.02
PEAKS = (0.1, 0.35)
"""Frequencies of the maximum of the noise's power in a CT, per voxel."""


@dataclass(frozen=True)
class Sharp:
    """An image (i, j, k) in RAS and network units, whose least value is background."""

    name: str
    values: NDArray[np.float16]
    filled: NDArray[np.int64]


class DegradedPatches:
    """Images of the globs of ``data.images``, every fifth of each one held out.

    All images of a glob are sorted by name, and those with the numbers 5, 10, ... are held out. Degraded are slices
    along one to three axes, of random thickness and profile with random gaps, and noise: in a CT with the spectrum of
    filtered back-projection, in MR Rician.
    """

    def __init__(self, config: dict[str, Any], patch: int) -> None:
        self.patch = patch
        medgen = config["package"]["medgen"]
        self.settings = read(RestorationSettings, medgen["preprocessing"], "preprocessing")
        self.is_ct = medgen["output"]["modality"] == "CT"
        self.images: list[Sharp] = []
        self.held: list[Sharp] = []
        for pattern in config["data"]["images"]:
            paths = sorted(glob.glob(os.path.expandvars(pattern)))
            if not paths:
                raise InputError(f"No image fits {pattern} in the training configuration; correct the path.")
            for number, path in enumerate(map(Path, paths), 1):
                (self.images if number % 5 else self.held).append(self._read(path))
        sizes = np.array([len(image.filled) for image in self.images], np.float64)
        self.weights = np.sqrt(sizes) / np.sqrt(sizes).sum()

    @property
    def held_out(self) -> list[str]:
        return [image.name for image in self.held]

    def _read(self, path: Path) -> Sharp:
        volume = read_volume(path, modality="CT" if self.is_ct else None)
        values = Reorientation.to(volume.geometry, "RAS").apply(volume.array).astype(np.float32)
        values /= unit_of(values, self.settings)
        filled = np.flatnonzero(values > values.min() + 1e-3)
        return Sharp(f"{path.parent.name}/{path.name}", values.astype(np.float16), filled)

    def sample(self, draw: np.random.Generator, count: int, held: bool = False) -> dict[str, Tensor]:
        """``image``, ``target`` (count, 1, i, j, k) and ``conditions`` (count, conditions)."""
        items = [self._one(draw, held) for _ in range(count)]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def _one(self, draw: np.random.Generator, held: bool) -> dict[str, NDArray]:
        images = self.held if held else self.images
        image = images[draw.integers(len(images)) if held else draw.choice(len(images), p=self.weights)]
        target = self._cut(image, draw)
        axes = np.array(STACKS[draw.choice(len(STACKS), p=SHARES)], int)
        axes = draw.permutation(3)[axes]
        noise = 0.0
        if not len(axes) or draw.random() < NOISY:
            noise = float(np.exp(draw.uniform(np.log(QUIETEST), np.log(self.settings.noisiest))))
        thick = np.ones(3)
        stacks, fits = [], []
        for axis in axes:
            thick[axis], fit = self._stack(axis, draw)
            fits.append(fit)
            stacks.append(self._noisy(fit.slices(target), noise, axis, draw))
        degraded = fuse(stacks, fits) if fits else self._noisy(target, noise, int(draw.integers(3)), draw)
        return {
            "image": degraded[None].astype(np.float32),
            "target": target[None],
            "conditions": conditions(thick, noise, len(stacks)),
        }

    def _cut(self, image: Sharp, draw: np.random.Generator) -> NDArray[np.float32]:
        """A patch about a random voxel of the foreground, mirrored and with its axes exchanged at random."""
        shape = image.values.shape
        place = np.unravel_index(image.filled[draw.integers(len(image.filled))], shape)
        box, margins = random_window(shape, (self.patch,) * 3, draw)
        box = moved_window(box, np.subtract(place, self.patch // 2), shape, (self.patch,) * 3)
        values = np.pad(image.values[box].astype(np.float32), margins, mode="edge")
        values = np.flip(values, np.flatnonzero(draw.random(3) < 0.5)).transpose(draw.permutation(3))
        return np.ascontiguousarray(values)

    def _stack(self, axis: int, draw: np.random.Generator) -> tuple[float, StackFit]:
        """Distance of the slices in voxels, and the operator of a stack along an axis."""
        step = float(np.exp(draw.uniform(np.log(THINNEST), np.log(self.settings.thickest))))
        offset = draw.uniform(-0.5, step - 0.5) * 0.999
        number = int((self.patch - 1 - offset) / step) + 1
        profile = ("box", "gaussian")[draw.integers(2)]
        weights = slice_weights(self.patch, number, 1.0, step, step * draw.uniform(0.7, 1.1), offset, profile)
        same = AxisFit.of(np.eye(self.patch))
        return step, StackFit(tuple(AxisFit.of(weights.toarray()) if n == axis else same for n in range(3)))

    def _noisy(self, values: NDArray, noise: float, axis: int, draw: np.random.Generator) -> NDArray[np.float32]:
        """Values with noise of this SD, whose slices lie along an axis."""
        if not noise:
            return values
        if not self.is_ct:
            return rician(np.maximum(values, 0), noise, draw)
        turned = np.moveaxis(values, axis, 2)
        made = ct_noise(
            turned,
            (1.0, 1.0, 1.0),
            draw,
            sd_hu=noise,
            peak_per_mm=draw.uniform(*PEAKS),
            slice_fwhm_mm=draw.uniform(0, 1.5),
            local=np.float32(1),
        )
        return np.ascontiguousarray(np.moveaxis(made, 2, axis))
