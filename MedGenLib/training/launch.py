"""How a process knows that a launcher started it as one of several that train together."""

from __future__ import annotations

import os

GUARDED = "MEDGEN_TRAINING_ENDS_WITH_STDIN"
"""Set by a launcher that holds the standard input of its processes open as long as it lives."""


def was_started() -> bool:
    """Whether a launcher started this process, by the environment variables of torchrun."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
