"""Training: `medgen train DATASET --out DIR`, and one recipe of a configuration at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.progress import ProgressCallback
from MedGenLib.training.recipes import RECIPES


def train(
    recipe: str,
    configuration: str | Path | dict[str, Any],
    out_dir: str | Path,
    steps: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
    on_validation: Callable[[], None] | None = None,
) -> Path:
    """Run a recipe, resuming from the checkpoint in ``out_dir`` if there is one.

    ``configuration`` is a JSON file or its content. ``steps`` overrides it; ``threads`` is the number of CPU threads of
    this run; ``on_validation`` is called when new figures are in ``out_dir``.
    Returns the path of the export.
    Raises InputError for an unknown recipe, an invalid configuration or missing data.
    """
    import torch

    from MedGenLib.devices import pick_device
    from MedGenLib.pipelines.loading import bfloat16_pays
    from MedGenLib.training.config import read_config
    from MedGenLib.training.loop import OptimizationSettings, Trainer

    RECIPES.require(recipe)
    config = configuration if isinstance(configuration, dict) else read_config(configuration)
    torch.manual_seed(config.get("seed", 0))
    chosen, out = pick_device(device), Path(out_dir)
    try:
        settings = OptimizationSettings(**config["optimisation"][recipe])
        if steps is not None:
            settings = replace(settings, steps=steps)
        made = RECIPES[recipe](config, out)
    except (KeyError, TypeError) as error:
        source = "of the plan" if isinstance(configuration, dict) else configuration
        raise InputError(
            f"The configuration {source} does not fit the recipe {recipe}: {error}; "
            "compare it with the configurations shipped with MedGen."
        ) from error
    fast = settings.precision == "bf16" or (settings.precision == "auto" and bfloat16_pays(chosen))
    with thread_count(threads):
        return Trainer(made, settings, out, chosen, fast, progress, on_validation).run()


@contextlib.contextmanager
def thread_count(count: int | None) -> Iterator[None]:
    """Set the number of CPU threads, and restore it afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
