"""Choice of the averaged weights by their images: the weights whose samples are nearest to people they never saw.

A recipe with the method `samples` is looked at in each validation of the second half of the training. The distance is
the Frechet distance between the features of slices, see `MedGenLib.metrics.distribution`. Other people measure the
model afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from MedGenLib.errors import InputError
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.atomic import replacing
from MedGenLib.metrics.distribution import fid
from MedGenLib.metrics.features import describe
from MedGenLib.metrics.slices import Standard
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.loading import network as trained_network

SELECTED = "selected.pt"


class Selection:
    """The best weights so far, in a file of the run's folder."""

    def __init__(self, recipe: Any, steps: int, out: Path) -> None:
        self.samples = getattr(recipe, "samples", lambda networks: None)
        self.first, self.file = steps // 2, out / SELECTED

    def look(self, networks: dict[str, nn.Module], step: int) -> dict[str, float]:
        """Measure the weights, and keep them if they are the best; the figures for the log."""
        pair = self.samples(networks) if step >= self.first else None
        if pair is None:
            return {}
        distance, best = feature_distance(*pair), self._best()
        if distance < best.get("distance", np.inf):
            best = {"step": step, "distance": distance} | {k: n.state_dict() for k, n in networks.items()}
            with replacing(self.file) as temporary:
                torch.save(best, temporary)
        found = {"feature_distance": distance} if np.isfinite(distance) else {}
        return {**found, "nearest_step": best.get("step", 0)}

    def restore(self, networks: dict[str, nn.Module]) -> None:
        """Load the best weights, if there are some."""
        if best := self._best():
            for name, network in networks.items():
                network.load_state_dict(best[name])

    def _best(self) -> dict[str, Any]:
        return torch.load(self.file, map_location="cpu", weights_only=True) if self.file.is_file() else {}


def feature_distance(made: Sequence[NDArray[Any]], real: Sequence[NDArray[Any]]) -> float:
    """Frechet distance between the slices of volumes in network values; infinite where some show nothing."""
    standard = Standard(False, (1.0, 1.0, 1.0), "the real images")
    low, high = np.percentile(np.concatenate([np.ravel(values) for values in real]), (0.5, 99.5))
    try:
        cohorts = [
            [describe(_image(v, low, high), "a sample", standard, _features, cache=False).planes for v in side]
            for side in (real, made)
        ]
    except InputError:
        return float("inf")
    planes = [n for n in range(3) if all(len(volume[n]) for cohort in cohorts for volume in cohort)]
    if not planes:
        return float("inf")
    return fid(*([np.concatenate([volume[n] for volume in cohort]) for n in planes] for cohort in cohorts))


@torch.inference_mode()
def _features(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Slices (n, h, w) -> features (n, f)."""
    encoder = trained_network(find("medgen-features"), "encoder", torch.device("cpu"))
    return encoder(torch.from_numpy(np.ascontiguousarray(images))[:, None]).float().numpy()


def _image(values: NDArray[Any], low: float, high: float) -> Volume:
    """Network values as an MR, of which ``low`` and ``high`` become 0 and 1000."""
    array = 1000 * (np.asarray(values, np.float32) - low) / max(high - low, 1e-6)
    return Volume(np.clip(array, 0, None), np.eye(4), "MR", "a.u.")
