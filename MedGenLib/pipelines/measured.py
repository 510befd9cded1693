"""Measurements on this computer, in the cache folder, and in the model card. No torch."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from MedGenLib import user_folders

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest, Performance

TIMINGS, PROBES = "timings.json", "formats.json"
"""Files in the cache folder: durations of runs, and devices on which bfloat16 is faster."""
STEPS_BESIDE = 5.0
"""Time of a generation outside its sampling steps (mask encoder, decoder, checks), in units of one step."""
IDLE_MIB = 330.0
"""Memory of the process that does not grow with the size of an image."""


def computes_in_bfloat16(device: str) -> bool:
    """Whether bfloat16 was measured to be faster on this computer; False without a measurement."""
    prefix = "bfloat16 on CUDA" if device.startswith("cuda") else "bfloat16 on CPU"
    return any(pays is True for key, pays in record(PROBES).items() if key.startswith(prefix))


def record(name: str) -> dict[str, float]:
    """Content of a file in the cache folder; empty if it is missing or damaged."""
    with suppress(OSError, ValueError):
        known = json.loads((user_folders.cache_dir() / name).read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    return {}


def card_runs(manifest: Manifest) -> list[Performance]:
    """Measurements of the model card in float32."""
    runs = [r for r in manifest.performance if r.device.startswith("CPU")]
    return [r for r in runs if "float32" in r.device] or runs
