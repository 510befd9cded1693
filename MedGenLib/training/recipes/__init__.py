"""Training recipes; each module registers its own class with `recipe`.

A recipe is constructed from the configuration and the output folder and implements `MedGenLib.training.loop.Recipe`.
"""

from __future__ import annotations

from typing import Any

from MedGenLib.registry import Registry

RECIPES: Registry[Any] = Registry("recipe", "recipe", __name__)
recipe = RECIPES.register
