"""Classifier guidance (Dhariwal and Nichol 2021, arXiv 2105.05233, section 4) for any sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_FACTOR = 4.0
"""``sigma^2 / alpha`` grows without bound towards pure noise, where the classifier is not reliable."""


class ClassifierGuidance:
    """A denoiser whose estimates follow the gradient of a classifier.

    Tweedie's formula with the score of ``p(x) p(labels | x)^weight`` adds ``weight * sigma^2 / alpha * grad log
    p(labels | x)`` to the estimate.

    Parameters
    ----------
    denoise: ``denoise(x, alpha, sigma)``, see `MedGenLib.diffusion`.
    classifier: ``classifier(x, t)`` returns logits (b, labels, i, j, k) on the flow's path.
    labels: target share of each label, (b, labels, i, j, k).
    weight: 0 changes nothing.
    """

    def __init__(
        self,
        denoise: Callable[..., Tensor],
        classifier: Callable[[Tensor, float], Tensor],
        labels: Tensor,
        weight: float,
    ) -> None:
        self.denoise, self.classifier = denoise, classifier
        self.labels, self.weight = labels, weight

    def __call__(self, x: Tensor, alpha: float, sigma: float, *args, **kwargs) -> Tensor:
        data = self.denoise(x, alpha, sigma, *args, **kwargs)
        factor = min(sigma**2 / max(alpha, 1e-6), LARGEST_FACTOR)
        return data + self.weight * factor * self._gradient(x, alpha + sigma, sigma)

    def _gradient(self, x: Tensor, total: float, sigma: float) -> Tensor:
        """Gradient of the labels' log likelihood by x; the flow point is x / total at sigma / total."""
        with torch.inference_mode(False), torch.enable_grad():
            point = (x / total).clone().requires_grad_()
            chances = self.classifier(point, sigma / total).log_softmax(dim=1)
            (gradient,) = torch.autograd.grad((self.labels.clone() * chances).sum(), point)
        return gradient / total
