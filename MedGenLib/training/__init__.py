"""Training: `medgen train RECIPE --data CONFIG.json --out DIR`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.progress import ProgressCallback

RECIPES = (
    "autoencoder",
    "latent-flow",
    "few-step",
    "translator",
    "segmenter",
    "features",
    "classifier",
    "pixel-diffusion",
)


def train(
    recipe: str,
    config_path: str | Path,
    out_dir: str | Path,
    steps: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Path:
    """Run a recipe, resuming from the checkpoint in ``out_dir`` where there is one.

    ``steps`` overrides the configuration's, ``threads`` are those of the CPU that this run uses.
    Returns the path of what was exported.
    Raises InputError for an unknown recipe, a bad configuration or missing data.
    """
    import torch

    from MedGenLib.devices import pick_device
    from MedGenLib.pipelines.loading import bfloat16_pays
    from MedGenLib.training.config import read_config
    from MedGenLib.training.loop import OptimizationSettings, Trainer

    if recipe not in RECIPES:
        raise InputError(f"There is no recipe {recipe}; choose one of {', '.join(RECIPES)}.")
    config = read_config(config_path)
    torch.manual_seed(config.get("seed", 0))
    place, out = pick_device(device), Path(out_dir)
    try:
        settings = OptimizationSettings(**config["optimisation"][recipe])
        if steps is not None:
            settings = replace(settings, steps=steps)
        made = _recipe(recipe)(config, out)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"The configuration {config_path} does not fit the recipe {recipe}: {error}; "
            "compare it with the configurations that come with MedGen."
        ) from error
    fast = settings.precision == "bf16" or (settings.precision == "auto" and bfloat16_pays(place))
    with _threads(threads):
        return Trainer(made, settings, out, place, fast, progress).run()


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many CPU threads inside; afterwards as many as the process had before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _recipe(name: str) -> type:
    if name == "autoencoder":
        from MedGenLib.training.recipes.autoencoder import AutoencoderRecipe

        return AutoencoderRecipe
    if name == "latent-flow":
        from MedGenLib.training.recipes.latent_flow import LatentFlowRecipe

        return LatentFlowRecipe
    if name == "few-step":
        from MedGenLib.training.recipes.few_step import FewStepRecipe

        return FewStepRecipe
    if name == "classifier":
        from MedGenLib.training.recipes.classifier import ClassifierRecipe

        return ClassifierRecipe
    if name == "pixel-diffusion":
        from MedGenLib.training.recipes.pixel_diffusion import PixelDiffusionRecipe

        return PixelDiffusionRecipe
    if name == "segmenter":
        from MedGenLib.training.recipes.segmenter import SegmenterRecipe

        return SegmenterRecipe
    if name == "features":
        from MedGenLib.training.recipes.features import FeaturesRecipe

        return FeaturesRecipe
    from MedGenLib.training.recipes.translator import TranslatorRecipe

    return TranslatorRecipe
