"""Random label ablation: a model that has seen masks with labels missing takes partial masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedGenLib.errors import InputError


@dataclass(frozen=True)
class Ablation:
    """Replaces random labels of a patch by one label, as SegGuidedDiff drops them.

    Konz et al., MICCAI 2024 (arXiv 2402.05210) clear every class with probability 1/2. Here only a
    ``share`` of the patches is changed, and the probability is drawn for each of them, so that
    masks with one label missing and masks with one label left are both seen often.

    Parameters
    ----------
    share: of the patches that lose labels, 0 to 1.
    into: what a lost label becomes: a label such as "brain, unspecified", or 0.
    keep: labels that are never lost.
    """

    share: float
    into: int
    keep: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Mapping[str, Any], labels: int) -> Ablation | None:
        """The configuration's ``data.ablation`` for a model of so many labels, None without it.

        Raises
        ------
        InputError: a share that is none, or a label that the model does not have.
        """
        section = config["data"].get("ablation")
        if section is None:
            return None
        made = cls(**{**section, "keep": tuple(section.get("keep", ()))})
        if not 0 <= made.share <= 1:
            raise InputError(f"data.ablation.share is {made.share}; give a number from 0 to 1.")
        if not 0 <= made.into <= labels:
            raise InputError(f"data.ablation.into is {made.into}, but the labels go from 0 to {labels}.")
        return made

    def apply(self, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Integer labels of any shape -> the same with random labels replaced."""
        if generator.random() >= self.share:
            return labels
        present = np.array(sorted(set(np.unique(labels)) - {0, self.into, *self.keep}), int)
        lost = present[generator.random(present.size) < generator.random()]
        return np.where(np.isin(labels, lost), labels.dtype.type(self.into), labels)
