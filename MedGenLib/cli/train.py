"""`medgen train RECIPE --data CONFIG.json --out DIR`."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.console import Console


def train(arguments: Namespace, console: Console) -> int:
    """Trains, or continues a run that was stopped, and exports a package."""
    from MedGenLib import training

    exported = training.train(
        arguments.recipe,
        arguments.data,
        arguments.out,
        steps=arguments.steps,
        device=arguments.device,
        threads=arguments.threads,
        progress=console,
    )
    console.say(f"Exported {exported}.")
    return 0
