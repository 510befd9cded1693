"""Data adaptors: from files on disk to batches."""

from __future__ import annotations

from typing import Any

from MedGenLib.errors import InputError


def adaptor(config: dict[str, Any], patch: int | list[int]) -> Any:
    """The volume adaptor that the configuration names, as `adaptors` below lists them."""
    from MedGenLib.training.data.brain import BrainScans
    from MedGenLib.training.data.crops import LabelledCrops
    from MedGenLib.training.data.tissue import TissueScans

    adaptors = {"tissue-scans": TissueScans, "labelled-crops": LabelledCrops, "brain-scans": BrainScans}
    name = config["data"]["adaptor"]
    if name not in adaptors:
        raise InputError(f"There is no data adaptor {name}; choose one of {', '.join(adaptors)}.")
    return adaptors[name](config, patch)
