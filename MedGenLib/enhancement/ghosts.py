"""Ghosts of MR images, from the magnitudes alone: periodic errors of the lines of k-space are found and undone.

Lines that are measured in turns (shots, gates, odd and even lines) may differ in strength: every n-th line has another
weight, and weak copies of the image appear along the phase direction. The weight is the one whose correction has the
least entropy of gradients (Atkinson et al. 1997, doi:10.1109/42.650886; Loktyushin et al. 2013, doi:10.1002/mrm.24615)
among those whose images, spoiled again, are the input. Errors of the phase of lines add copies to the air, but in the
body hardly change magnitudes; what is found must therefore show in the body too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from MedGenLib.degradation.kspace import along, ifft, spectrum
from MedGenLib.imaging.volume import Volume
from MedGenLib.progress import ProgressCallback, Stage

PERIODS = range(2, 7)
"""Lines after which the error repeats."""
TRIED = (0.12, 0.4)
"""Strengths of the first search."""
STRONGEST = 0.7
ROUNDS = {"search": 3, "fit": 12, "result": 16}
"""Rounds of `Ghosts.removed`."""
DISAGREEMENT = 10.0
"""Weight of the share of the input that the corrected image, spoiled again, does not explain."""
REFINED = 6
"""Candidates whose strength is fitted."""
SLICES = 3
BESIDE = (*range(-8, -2), *range(3, 9))
"""Offsets in voxels of copies that no ghost makes."""
BODY = 0.25
"""Values above this share of the 99th percentile are the body."""
LEAST_GAIN = 0.01
"""Gain of a correction below which the image counts as free of ghosts."""
NOT_FOUND = (
    "No periodic ghosts of the whole image were found, so it is unchanged. What movements, pulsation of vessels and "
    "blur do to an image cannot be undone from magnitudes."
)
DOUBTFUL = (
    "With the ghosts that were found the result differs from the input by {share:.1%} of its range; the image may have "
    "other artifacts, so use it as it was."
)


@dataclass(frozen=True)
class Ghosts:
    """Every `period`-th line of k-space, from line `first`, has lost the share `size` of its strength.

    Attributes
    ----------
    axis: phase direction, axis of the array.
    gain: by how much the correction lowers the entropy of gradients, as a share; 0 for none.
    """

    axis: int
    period: int
    first: int
    size: float
    gain: float = 0.0

    def to_dict(self, image: Volume) -> dict[str, float | str]:
        """What a report says; the direction is that of the axis of the image nearest to it."""
        direction = image.direction[:, self.axis]
        letters = ("RL", "AP", "SI")[int(np.abs(direction).argmax())]
        signal = self.size / (self.period - self.size)  # of the strongest copy, relative to the image
        side = image.shape[self.axis] * image.spacing[self.axis]
        facts = {"signal": signal, "shift_mm": side / self.period, "lost": self.size, "gain": self.gain}
        rounded = {name: float(f"{value:.4g}") for name, value in facts.items()}
        return {"direction": "-".join(letters), "every_line": self.period, **rounded}

    def spoiled(self, values: NDArray) -> NDArray[np.float32]:
        """The magnitudes of an image with these ghosts."""
        return np.abs(ifft(spectrum(values, self.axis) * self.weights(values.shape[self.axis]), self.axis))

    def removed(self, values: NDArray, rounds: int) -> NDArray[np.float32]:
        """The image behind magnitudes with these ghosts.

        |x + e| = y is solved for the x that is not negative, in turn with the copies e of x (fixed-point iteration);
        of two such x the smaller one, as in the air.
        """
        made, errors = values, self.weights(values.shape[self.axis]) - np.float32(1)
        for _ in range(rounds):
            copies = ifft(spectrum(made, self.axis) * errors, self.axis)
            root = np.sqrt(np.maximum(values**2 - copies.imag**2, 0))
            low, high = -copies.real - root, -copies.real + root
            made = np.where(low >= 0, low, np.maximum(high, 0))
        return made

    def weights(self, lines: int) -> NDArray[np.float32]:
        """The weights of the lines along the axis, for images."""
        numbers = np.round(np.fft.fftfreq(lines) * lines).astype(int)
        weights = np.where(numbers % self.period == self.first, 1 - self.size, 1).astype(np.float32)
        return along(weights, self.axis)


def found(values: NDArray, progress: ProgressCallback | None = None) -> Ghosts | None:
    """The ghosts of an image (i, j, k), or None where none of them explains it better than no ghost does."""
    from scipy.optimize import minimize_scalar

    costs, axes = {}, [axis for axis in range(3) if values.shape[axis] > 1]
    stage = Stage("looking for ghosts", len(axes) + REFINED, progress)
    slabs = {axis: _slab(values, axis) for axis in axes}
    for axis in axes:
        # Lines n and -n are alike in a spectrum of magnitudes; line 0, the strongest, is the reference.
        for one in (Ghosts(axis, period, n, 0) for period in PERIODS for n in range(1, period // 2 + 1)):
            costs[one] = min(_cost(replace(one, size=size), *slabs[axis], "search") for size in TRIED)
        stage.advance()
    best = Ghosts(0, 2, 1, 0.0)
    for one in sorted(costs, key=costs.get)[:REFINED]:
        fit = minimize_scalar(
            lambda size, one=one: _cost(replace(one, size=size), *slabs[one.axis], "fit"),
            bounds=(0, STRONGEST),
            method="bounded",
            options={"xatol": 1e-3, "maxiter": 10},
        )
        if -fit.fun > best.gain:
            best = replace(one, size=float(fit.x), gain=float(-fit.fun))
        stage.advance()
    if best.gain <= LEAST_GAIN:
        return None
    left, before = (abs(_copies(best, image)) for image in (best.removed(values, ROUNDS["fit"]), values))
    return best if left < 0.5 * before else None


def _slab(values: NDArray, axis: int) -> tuple[NDArray[np.float32], int]:
    """Some slices from the middle of the body that contain the axis, and the axis across."""
    across = max((a for a in range(3) if a != axis), key=lambda a: (values.shape[a] == 1, a))
    content = values.sum(axis=tuple(a for a in range(3) if a != across)).cumsum()
    first, last = np.searchsorted(content, [0.3 * content[-1], 0.7 * content[-1]])
    places = np.unique(np.linspace(first, last, SLICES).astype(int))
    return np.ascontiguousarray(values.take(places, axis=across)), across


def _copies(one: Ghosts, values: NDArray) -> float:
    """How much of the copies the body of an image shows: regression of its edges on theirs.

    Anatomy repeats itself as well; what copies a few voxels beside these would explain is taken off.
    """
    edges = np.diff(values, axis=one.axis, append=0)
    weights = one.weights(values.shape[one.axis])
    copies = ifft(spectrum(edges, one.axis) * (weights - weights.mean()), one.axis).real
    body = values > BODY * np.percentile(values, 99)
    shown = edges * body

    def coefficient(offset: int) -> float:
        moved = np.roll(copies, offset, one.axis)
        return float(np.vdot(shown, moved) / max(np.vdot(moved, moved * body), 1e-6))

    return coefficient(0) - float(np.median([coefficient(offset) for offset in BESIDE]))


def _cost(one: Ghosts, slab: NDArray, across: int, rounds: str) -> float:
    """Change of the entropy of gradients by a correction, and what the corrected image does not explain."""
    made = one.removed(slab, ROUNDS[rounds])
    unexplained = float(np.linalg.norm(one.spoiled(made) - slab) / max(np.linalg.norm(slab), 1e-6))
    return _entropy(made, across) / max(_entropy(slab, across), 1e-6) - 1 + DISAGREEMENT * unexplained


def _entropy(values: NDArray, across: int) -> float:
    """Entropy of the gradients along all axes but one."""
    total = 0.0
    for axis in set(range(3)) - {across}:
        gradient = np.abs(np.diff(values, axis=axis)).ravel()
        share = gradient / max(np.linalg.norm(gradient), 1e-6)
        total -= float(share @ np.log(share + 1e-12))
    return total
