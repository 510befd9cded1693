"""Fixtures that tests of several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hippocampi import small_config, write_crops

from MedGenLib.training import train


@pytest.fixture(scope="session")
def crops(tmp_path_factory) -> Path:
    """Six tiny cases in the layout of the hippocampus data."""
    return write_crops(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="session")
def trained(crops, tmp_path_factory) -> Path:
    """Autoencoder and flow trained for six steps; the folder of the run."""
    folder = tmp_path_factory.mktemp("run")
    path = small_config(folder, crops)
    train("autoencoder", path, folder / "autoencoder", device="cpu")
    train("latent-flow", path, folder / "flow", device="cpu")
    return folder
