"""What was measured: by this computer, in files of the cache folder, and by the model card. No torch."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from MedGenLib import user_folders

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest, Performance

TIMINGS, PROBES = "timings.json", "formats.json"
"""Files in the cache folder: how long runs took, and on which devices bfloat16 is faster."""
STEPS_BESIDE = 5.0
"""Time of a generation outside of its sampling steps (mask encoder, decoder, checks), in units of one step."""
IDLE_MIB = 330.0
"""Memory of the process that does not grow with the size of an image."""


def computes_in_bfloat16(device: str) -> bool:
    """Whether runs on this computer were found to be faster in it; False where nothing was measured yet."""
    place = "bfloat16 on CUDA" if device.startswith("cuda") else "bfloat16 on CPU"
    return any(pays is True for key, pays in record(PROBES).items() if key.startswith(place))


def record(name: str) -> dict[str, float]:
    """What a file of the cache folder holds; nothing where it is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads((user_folders.cache_dir() / name).read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}


def card_runs(manifest: Manifest) -> list[Performance]:
    """Figures of the model card in the number format that every computer has."""
    runs = [r for r in manifest.performance if r.device.startswith("CPU")]
    return [r for r in runs if "float32" in r.device] or runs
