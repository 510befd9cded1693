"""Optional loss terms of the recipe `latent-flow`.

    "flow": {"losses": {
        "region":   {"labels": ["lesion"], "weight": 20},
        "contrast": {"labels": ["lesion"], "into": "liver", "weight": 0.01, "window": 2},
        "anatomy":  {"package": "hippocampus-segmenter", "weight": 0.05, "until": 0.3}}}

region: the error is multiplied by `weight` at these labels, so that small lesions count in the mean over a patch (the
lesion-focused training of LesionFocus; Guo et al. 2024, MAISI, arXiv 2409.11169, uses a weight of 100 for tumors).

contrast: a second pass gets a mask in which these labels are replaced by `into`. Inside them the two velocities must
differ by `window` on average; outside, the second one must be correct too. The position of the lesion is then
determined by the mask alone (the idea of the region contrastive term of NV-Generate-CTMR, "MAISI v2").

anatomy: at times below `until` the data estimate is decoded and segmented by a frozen package, and its cross-entropy
against the mask is added (the anatomical constraint of SynthDiff). The gradient passes through the decoder and the
segmenter, which are not trained.

Labels are given by number or name. Dropped masks count in `region` only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from MedGenLib.errors import InputError
from MedGenLib.imaging.normalization import Affine
from MedGenLib.labels.vocabulary import Vocabulary

LARGEST_GAP = 1
"""Margin in latent voxels around an erased region without a constraint."""


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normal distributions from the standard one, in nats for each entry."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


@dataclass(frozen=True)
class TrainingStep:
    """One batch on its path, and the network's prediction.

    Attributes
    ----------
    maps: (b, m, 2i, 2j, 2k), input of the network: labels first, background at 0.
    valid: (b, 1, 2i, 2j, 2k), weight of each voxel.
    point, target, velocity: (b, c, i, j, k), point on the path, true velocity, and its prediction.
    time: (b,) in 0..1, 1 at the noise.
    scalars: (b, n) or None.
    """

    maps: Tensor
    valid: Tensor
    point: Tensor
    target: Tensor
    velocity: Tensor
    time: Tensor
    scalars: Tensor | None = None


@dataclass(frozen=True)
class Region:
    """Higher weight of some labels."""

    labels: tuple[int, ...]
    weight: float

    def weights(self, maps: Tensor, stride: int = 2) -> Tensor:
        """(b, m, si, sj, sk) -> (b, 1, i, j, k), 1 or `weight` where a cell holds such a voxel."""
        return 1 + (self.weight - 1) * F.max_pool3d(_share(maps, self.labels), stride)


@dataclass(frozen=True)
class Contrast:
    """Contrast to a mask without a region: different velocity inside, correct one outside."""

    labels: tuple[int, ...]
    into: int
    weight: float = 0.01
    window: float = 2.0

    def __call__(self, network: nn.Module, step: TrainingStep) -> tuple[Tensor, dict[str, float]]:
        """The weighted term, and its two parts."""
        region = _share(step.maps, self.labels)
        rows = torch.nonzero(region.flatten(1).amax(1)).flatten()
        if not len(rows):
            return step.velocity.new_zeros(()), {}
        maps = self.erased(step.maps[rows])
        point = step.point[rows].contiguous(memory_format=torch.channels_last_3d)
        scalars = None if step.scalars is None else step.scalars[rows]
        stride = step.maps.shape[-1] // step.point.shape[-1]
        without = network(point, step.time[rows], network.encode_mask(maps), scalars)
        parts = region_contrast(
            step.velocity[rows],
            without,
            step.target[rows],
            F.max_pool3d(region[rows], stride),
            F.avg_pool3d(step.valid[rows], stride),
            self.window,
        )
        names = ("region_alike", "outside_error")
        figures = {n: float(p.detach()) for n, p in zip(names, parts, strict=True)}
        # Few samples with the region in a batch do not count more.
        return self.weight * sum(parts) * len(rows) / len(step.maps), figures

    def erased(self, maps: Tensor) -> Tensor:
        """The maps with the region's labels turned into `into`."""
        maps = maps.clone()
        region = _share(maps, self.labels)
        maps[:, list(self.labels)] = 0
        maps[:, self.into : self.into + 1] += region
        return maps


def region_contrast(
    velocity: Tensor, without: Tensor, target: Tensor, region: Tensor, valid: Tensor, window: float
) -> tuple[Tensor, Tensor]:
    """Excess similarity of two velocities inside a region, and error of the second one outside.

    Parameters
    ----------
    velocity, without, target: (b, c, i, j, k), velocity with the whole mask, without the region, and the true one.
    region, valid: (b, 1, i, j, k), 1 in the region (never empty), weight of each cell.
    window: mean absolute difference that is sufficient.
    """
    apart = (velocity - without).abs().mean(1, keepdim=True)
    alike = F.relu(window - _mean(apart, region)).mean()
    size = 2 * LARGEST_GAP + 1
    outside = valid * (1 - F.max_pool3d(region, size, 1, LARGEST_GAP))
    return alike, _mean((without - target).abs().mean(1, keepdim=True), outside).mean()


@dataclass(frozen=True)
class Anatomy:
    """Cross-entropy of a frozen segmenter on the decoded estimate against the mask.

    Attributes
    ----------
    classes: label of the mask -> class of the segmenter; other labels are ignored.
    limits: range of standardized values of the segmenter.
    """

    segmenter: nn.Module
    decoder: nn.Module
    classes: Mapping[int, int]
    limits: tuple[float, float]
    weight: float = 0.05
    until: float = 0.3

    def __call__(self, network: nn.Module, step: TrainingStep) -> tuple[Tensor, dict[str, float]]:
        """The weighted term, and the cross-entropy."""
        given = _share(step.maps, tuple(self.classes)).flatten(1).amax(1) > 0
        rows = torch.nonzero(given & (step.time < self.until)).flatten()
        if not len(rows):
            return step.velocity.new_zeros(()), {}
        time = step.time[rows].view(-1, 1, 1, 1, 1)
        # A single Euler step to the data: x_t - t v (see diffusion.flow).
        estimate = step.point[rows] - time * step.velocity[rows]
        image = self.decoder.to(estimate.device).decode(estimate)
        image = standardized(image, (step.valid[rows] > 0).to(image), self.limits)
        scores = self.segmenter.to(image.device)(_whole_strides(image, self.segmenter.stride))
        scores = scores[(slice(None), slice(None), *(slice(0, n) for n in image.shape[2:]))]
        value = balanced_cross_entropy(scores.float(), step.maps[rows], self.classes)
        figures = {"anatomy": float(value.detach())}
        return self.weight * value * len(rows) / len(step.maps), figures


def standardized(image: Tensor, inside: Tensor, limits: tuple[float, float]) -> Tensor:
    """Standardize by mean and standard deviation `inside` (b, 1, i, j, k) of each image, as `normalization.ZScore`.

    Outside it becomes 0, the mean, as segmenters pad their patches.
    """
    mean = _mean(image, inside).view(-1, 1, 1, 1, 1)
    spread = _mean((image - mean) ** 2, inside).sqrt().clamp(min=1e-6).view(-1, 1, 1, 1, 1)
    return ((image - mean) / spread).clamp(*limits) * inside


def balanced_cross_entropy(scores: Tensor, maps: Tensor, classes: Mapping[int, int]) -> Tensor:
    """Mean over the present labels of the mean over their voxels of -log p(class).

    ``scores`` (b, classes, i, j, k), ``maps`` (b, m, i, j, k). A small structure counts as much as the background.
    """
    surprise = -F.log_softmax(scores, 1)
    terms = [
        (surprise[:, found] * maps[:, label]).sum() / maps[:, label].sum()
        for label, found in classes.items()
        if bool(maps[:, label].any())
    ]
    return torch.stack(terms).mean()


@dataclass(frozen=True)
class Terms:
    """All configured terms of the flow's loss."""

    region: Region | None = None
    others: Sequence[Contrast | Anatomy] = field(default=())

    @classmethod
    def of(cls, config: dict[str, Any], codec: Any, decoder: nn.Module) -> Terms:
        """Terms in ``flow.losses``; none without that section.

        ``codec`` is the data's (the anatomy term needs one scale for the whole image), ``decoder`` the autoencoder.
        Raises InputError for an unknown term or label, a value out of range, or a package that is not a segmenter or
        has none of the labels.
        """
        requested = dict(config["flow"].get("losses", {}))
        medgen = config["package"]["medgen"]
        region, contrast, anatomy = (requested.pop(k, None) for k in ("region", "contrast", "anatomy"))
        if requested:
            raise InputError(f"There is no loss term '{next(iter(requested))}'; choose region, contrast or anatomy.")
        terms: list[Contrast | Anatomy] = []
        if contrast is not None:
            terms.append(_contrast(dict(contrast), medgen))
        if anatomy is not None:
            terms.append(_anatomy(dict(anatomy), medgen, codec, decoder))
        return cls(None if region is None else _region(dict(region), medgen), tuple(terms))

    def weights(self, maps: Tensor, weight: Tensor) -> Tensor:
        """``weight`` (b, 1, i, j, k) of the error, increased in the region."""
        stride = maps.shape[-1] // weight.shape[-1]
        return weight if self.region is None else weight * self.region.weights(maps, stride)

    def __call__(self, network: nn.Module, step: TrainingStep) -> tuple[Tensor, dict[str, float]]:
        """The sum of all terms, and their values."""
        total, figures = step.velocity.new_zeros(()), {}
        for term in self.others:
            value, parts = term(network, step)
            total = total + value
            figures.update(parts)
        return total, figures


def _region(options: dict[str, Any], medgen: Mapping[str, Any]) -> Region:
    weight = float(options["weight"])
    _require(weight >= 1, "region", f"the weight is {weight:g}", "1 or more")
    return Region(_labels(options["labels"], medgen), weight)


def _contrast(options: dict[str, Any], medgen: Mapping[str, Any]) -> Contrast:
    labels = _labels(options.pop("labels"), medgen)
    (into,) = _labels([options.pop("into", 0)], medgen)
    _require(into not in labels, "contrast", f"the label {into} is erased into itself", "another")
    term = Contrast(labels, into, **options)
    _require(term.weight >= 0, "contrast", f"the weight is {term.weight:g}", "0 or more")
    _require(term.window > 0, "contrast", f"the window is {term.window:g}", "more than 0")
    return term


def _anatomy(options: dict[str, Any], medgen: Mapping[str, Any], codec: Any, decoder: nn.Module) -> Anatomy:
    from MedGenLib.packages.catalogue import find
    from MedGenLib.packages.license import require_acceptance
    from MedGenLib.pipelines.loading import network

    if not isinstance(codec, Affine):
        raise InputError(
            "The loss term anatomy needs images with one scale of intensities, but these have one "
            "for each tissue; leave it out."
        )
    manifest = find(options.pop("package"))
    manifest.require_task("segment")
    require_acceptance(manifest, False)
    known = manifest.output.vocabulary
    class_of = {value: n for n, value in enumerate(manifest.output.labels, start=1)}
    classes = {0: 0} | {
        int(value): class_of[known.value_of(entry["name"])]
        for value, entry in medgen["input"]["labels"].items()
        if known.value_of(entry["name"])
    }
    if len(classes) == 1:
        raise InputError(f"The segmenter '{manifest.name}' has none of the trained labels; choose one that has.")
    limits = (manifest.settings.low, manifest.settings.high)
    net = network(manifest, "segmenter", torch.device("cpu"))
    term = Anatomy(net, decoder, classes, limits, **options)
    _require(term.weight >= 0, "anatomy", f"the weight is {term.weight:g}", "0 or more")
    _require(0 < term.until <= 1, "anatomy", f"until is {term.until:g}", "more than 0, at most 1")
    return term


def _labels(requested: Sequence[int | str], medgen: Mapping[str, Any]) -> tuple[int, ...]:
    vocabulary = Vocabulary.from_dict(medgen["input"]["labels"])
    values = tuple(vocabulary.value_of(label) for label in requested)
    if not values or None in values:
        missing = requested[values.index(None)] if values else "that is empty"
        raise InputError(f"A loss term names the label {missing}, which is not trained; choose from {vocabulary}.")
    return values


def _require(right: bool, term: str, found: str, needed: str) -> None:
    if not right:
        raise InputError(f"In the loss term {term} {found}; give {needed}.")


def _share(maps: Tensor, labels: tuple[int, ...]) -> Tensor:
    """(b, m, ...) -> (b, 1, ...): 1 where one of the labels is."""
    return maps[:, list(labels)].sum(1, keepdim=True)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of each sample: (b, 1, ...) -> (b,)."""
    return (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1e-6)


def _whole_strides(image: Tensor, stride: int) -> Tensor:
    """Pad with the mean, 0, to whole strides of the network."""
    sizes = [part for n in reversed(image.shape[2:]) for part in (0, -n % stride)]
    return F.pad(image, sizes)
