"""Random label ablation, which trains a model for partial masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedGenLib.errors import InputError


@dataclass(frozen=True)
class Ablation:
    """Replaces random labels of a patch by one label, as in SegGuidedDiff.

    Konz et al., MICCAI 2024 (arXiv 2402.05210) remove every class with probability 1/2. Here only a ``share`` of the
    patches is changed, each with a random probability, so that masks with one missing label and masks with one
    remaining label are both frequent.

    Parameters
    ----------
    share: share of patches that lose labels, 0 to 1.
    into: replacement of lost labels, such as "brain, unspecified", or 0.
    keep: labels that are never lost.
    """

    share: float
    into: int
    keep: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], labels: int) -> Ablation | None:
        """The configuration's ``data.ablation`` for a model with this number of labels, None without it.

        Raises InputError for a share out of range, or a label that the model lacks.
        """
        section = config["data"].get("ablation")
        if section is None:
            return None
        made = cls(**{**section, "keep": tuple(section.get("keep", ()))})
        if not 0 <= made.share <= 1:
            raise InputError(f"data.ablation.share is {made.share}; give a number from 0 to 1.")
        if not 0 <= made.into <= labels:
            raise InputError(f"data.ablation.into is {made.into}, but the labels are 0 to {labels}; give one of them.")
        return made

    def apply(self, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Integer labels of any shape -> copy with random labels replaced."""
        if generator.random() >= self.share:
            return labels
        present = np.array(sorted(set(np.unique(labels)) - {0, self.into, *self.keep}), int)
        lost = present[generator.random(present.size) < generator.random()]
        return np.where(np.isin(labels, lost), labels.dtype.type(self.into), labels)
