"""Training: `medgen train RECIPE --data CONFIG.json --out DIR`."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..progress import ProgressCallback

RECIPES = ("autoencoder", "latent-flow", "translator")


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

    ``steps`` overrides the configuration's. Returns the path of what was exported.
    Raises InputError for an unknown recipe, a bad configuration or missing data.
    """
    import torch

    from ..runtime import pick_device, probe_bfloat16
    from .config import read_config
    from .loop import Settings, Trainer

    if recipe not in RECIPES:
        raise InputError(f"There is no recipe {recipe}; choose one of {', '.join(RECIPES)}.")
    config = read_config(config_path)
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(config.get("seed", 0))
    settings = dict(config["optimisation"][recipe])
    if steps is not None:
        settings["steps"] = steps
    settings = Settings(**settings)
    place = pick_device(device)
    fast = settings.precision == "bf16" or (
        settings.precision == "auto" and probe_bfloat16(place)
    )
    out = Path(out_dir)
    return Trainer(
        _recipe(recipe)(config, out), settings, out, place, fast, progress
    ).run()


def _recipe(name: str) -> type:
    if name == "autoencoder":
        from .recipes.autoencoder import AutoencoderRecipe

        return AutoencoderRecipe
    if name == "latent-flow":
        from .recipes.latent_flow import LatentFlowRecipe

        return LatentFlowRecipe
    from .recipes.translator import TranslatorRecipe

    return TranslatorRecipe
