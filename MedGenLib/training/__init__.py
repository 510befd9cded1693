"""Training: `medgen train DATASET --out DIR`, and one recipe of a configuration at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import InputError
from MedGenLib.progress import ProgressCallback
from MedGenLib.training.recipes import RECIPES

if TYPE_CHECKING:
    from MedGenLib.training.loop import Trainer
    from MedGenLib.training.ranks import Ranks


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

    In the first of several processes (see `training.ranks`) the others, which `follow`, train with it.

    Raises
    ------
    InputError: an unknown recipe, an invalid configuration or missing data, or more processes than parts of a batch.
    """
    from MedGenLib.training.config import read_config
    from MedGenLib.training.loop import Draw
    from MedGenLib.training.ranks import Ranks

    RECIPES.require(recipe)
    config = configuration if isinstance(configuration, dict) else read_config(configuration)
    ranks, order = Ranks.joined(), (recipe, config, Path(out_dir), steps)
    with thread_count(threads):
        trainer = _trainer(*order, device, ranks)
        if ranks.size > 1:
            _require_parts(trainer, recipe, ranks)
            part = trainer.settings.batch // trainer.settings.parts
            trainer.recipe.batch(Draw.of(0, 0), part)  # prepares the data, which the others only read
        ranks.share(order)
        trainer.progress, trainer.on_validation = progress, on_validation
        return trainer.run()


def follow(device: str = "auto", threads: int | None = None) -> None:
    """Train what the first process orders, until it has done everything."""
    from MedGenLib.training.ranks import Ranks, SharedError, TrainingMemoryError

    ranks = Ranks.joined()
    with thread_count(threads):
        while (order := ranks.share()) is not None:
            with contextlib.suppress(TrainingMemoryError, SharedError):  # the first process says it, or goes on
                _trainer(*order, device, ranks).run()


def _trainer(recipe: str, config: dict[str, Any], out: Path, steps: int | None, device: str, ranks: Ranks) -> Trainer:
    import torch

    from MedGenLib.devices import pick_device
    from MedGenLib.pipelines.loading import bfloat16_pays
    from MedGenLib.training.loop import OptimizationSettings, Trainer

    torch.manual_seed(config.get("seed", 0))
    chosen = pick_device(device)
    try:
        settings = OptimizationSettings(**config["optimisation"][recipe])
        if steps is not None:
            settings = replace(settings, steps=steps)
        made = RECIPES[recipe](config, out)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The configuration {config.get('file', 'of the plan')} does not fit the recipe {recipe}: {error}; "
            "compare it with the configurations shipped with MedGen."
        ) from error
    fast = settings.precision == "bf16" or (settings.precision == "auto" and bfloat16_pays(chosen))
    return Trainer(made, settings, out, chosen, fast, ranks=ranks)


def _require_parts(trainer: Trainer, recipe: str, ranks: Ranks) -> None:
    """Raise InputError for more processes than can share out a batch."""
    if getattr(trainer.recipe, "alone", False):
        raise InputError(f"The recipe {recipe} keeps earlier images in its process; train it with one process.")
    if trainer.settings.parts < ranks.size:
        raise InputError(
            f"A batch of this run can be divided among {trainer.settings.parts}, but there are {ranks.size} processes; "
            f"use fewer processes, or start another run with parts={ranks.size}."
        )


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
