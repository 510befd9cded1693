"""Classes of images: calibrated probabilities by a model of the recipe `image-classifier`, and what they rest on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from MedGenLib.classification.grid import network_input, notes_on, on_grid
from MedGenLib.errors import InputError
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Volume
from MedGenLib.options import ClassifyOptions, documented
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import ProgressCallback, Stage, announce

if TYPE_CHECKING:
    from torch import nn

NO_DIAGNOSIS = "This is no diagnosis: the probabilities hold for images like those of the model's training only."
PARTS = 8
"""The saliency map hides parts of this share of the longest side of the grid, which overlap by half."""
AT_ONCE = 16
"""Images with a hidden part that pass the network at once."""


@dataclass(frozen=True)
class Classification:
    """What a model finds in an image.

    Attributes
    ----------
    probabilities: class -> calibrated probability; they add up to 1 unless several classes may apply (`several`).
    target: class that the saliency map is for.
    saliency: on the grid of the image, how far the log odds of that class fall when the part of the image is
        hidden; None if it was not asked for.
    notes: what is doubtful, and that this is no diagnosis.
    """

    model: str
    version: str
    probabilities: Mapping[str, float]
    several: bool
    target: str
    saliency: Volume | None
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All but the map, for a JSON file."""
        return {key: value for key, value in vars(self).items() if key != "saliency"}


@documented("classify")
def classify(
    image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[ClassifyOptions]
) -> Classification:
    """Find the class of an image.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.

    Raises
    ------
    InputError, PackageError, LicenseError: nothing was computed.

    Examples
    --------
    >>> found = classify("hand.png", model="my-hands")   # doctest: +SKIP
    >>> found.probabilities                              # doctest: +SKIP
    {'left': 0.97, 'right': 0.03}
    """
    from MedGenLib.devices import pick_device
    from MedGenLib.io.pictures import read_image
    from MedGenLib.pipelines.loading import network

    manifest = find(options["model"])
    manifest.require_task("classify")
    require_acceptance(manifest, options["accept_license"])
    names = [label.name for label in manifest.output.labels.values()]
    target = options["target"]
    if target is not None and target not in names:
        raise InputError(f"The model '{manifest.name}' has no class '{target}'; choose one of {', '.join(names)}.")
    volume = image if isinstance(image, Volume) else read_image(image)
    notes = notes_on(volume, manifest)
    announce(notes, progress)
    stage = Stage("classifying", 1 + bool(options["saliency"]), progress)
    net = network(manifest, "classifier", pick_device(options["device"]))
    (placed, array), several = prepared(volume, manifest), manifest.settings.several
    found = shares(scores_of(net, array[None]), manifest.settings.temperature, several)[0]
    stage.advance()
    target = target or names[int(found.argmax())]
    saliency = None
    if options["saliency"]:
        saliency = _saliency(net, array, names.index(target), several, placed, volume)
        stage.advance()
    probabilities = {name: round(float(share), 6) for name, share in zip(names, found, strict=True)}
    facts = (manifest.name, manifest.version, probabilities, several, target)
    return Classification(*facts, saliency, (*notes, NO_DIAGNOSIS))


def prepared(image: Volume, manifest: Manifest) -> tuple[Volume, np.ndarray]:
    """The image on the grid of the model, and the input of its network."""
    settings = manifest.settings
    placed = on_grid(image, settings.shape, manifest.spacing.native, settings.whole)
    return placed, network_input(image, placed, settings.name)


def scores_of(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """Images (n, channels, ...) -> scores (n, classes)."""
    import torch

    device = next(net.parameters()).device
    with torch.inference_mode():
        return net(torch.from_numpy(images.astype(np.float32)).to(device)).cpu().numpy()


def shares(scores: np.ndarray, temperature: float, several: bool) -> np.ndarray:
    """Probabilities (n, classes) of scores; each class by itself if several may apply."""
    from scipy.special import expit, softmax

    return (expit if several else lambda x: softmax(x, axis=1))(scores.astype(np.float64) / temperature)


def log_odds(scores: np.ndarray, target: int, several: bool) -> np.ndarray:
    """Logarithm of p / (1 - p) of a class, before the temperature."""
    from scipy.special import logsumexp

    return scores[:, target] - (0 if several else logsumexp(np.delete(scores, target, axis=1), axis=1))


def _saliency(net: nn.Module, array: np.ndarray, target: int, several: bool, placed: Volume, image: Volume) -> Volume:
    """How far the log odds fall by hiding parts of the image (Zeiler and Fergus 2014), on the grid of the image.

    MONAI's OcclusionSensitivity indexes tensors by lists, which PyTorch deprecates.
    """
    side = max(2, max(array.shape[1:]) // PARTS)
    starts = [sorted({*range(0, n - side, side // 2), max(0, n - side)}) for n in array.shape[1:]]
    parts = [(slice(None), *(slice(a, a + side) for a in corner)) for corner in itertools.product(*starts)]
    blank = array.mean(axis=tuple(range(1, array.ndim)), keepdims=True)
    whole = log_odds(scores_of(net, array[None]), target, several)[0]
    fall, times = np.zeros(array.shape[1:], np.float32), np.zeros(array.shape[1:], np.float32)
    for first in range(0, len(parts), AT_ONCE):
        chosen = parts[first : first + AT_ONCE]
        hidden = np.repeat(array[None], len(chosen), axis=0)
        for one, part in zip(hidden, chosen, strict=True):
            one[part] = blank
        for part, odds in zip(chosen, log_odds(scores_of(net, hidden), target, several), strict=True):
            fall[part[1:]] += whole - odds
            times[part[1:]] += 1
    order = Reorientation.to(placed.geometry, "RAS")
    fall = order.undo((fall / times).reshape(order.axes(placed.shape)))
    return resample_to(Volume(fall, placed.affine), image, fill=0.0)
