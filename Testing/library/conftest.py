"""Fixtures that tests of several folders share, and the surroundings of all tests."""

from __future__ import annotations

import gc
import os
import random
import secrets
import tempfile
from pathlib import Path

import pytest
from hippocampi import small_config, write_crops
from locales import use_chosen_locale

from MedGenLib.training import train


def pytest_configure(config: pytest.Config) -> None:
    """No test sees or changes the user's folders; the locale is that of the user's choice."""
    folder = tempfile.TemporaryDirectory(prefix="medgen-test-")
    config.add_cleanup(folder.cleanup)
    os.environ["MEDGEN_HOME"] = str(Path(folder.name) / "home")
    use_chosen_locale(Path(folder.name))


@pytest.fixture(scope="module", autouse=True)
def frozen_libraries():
    """As in the worker, so that the collection after each run takes 1 ms instead of 100."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_draws(request, monkeypatch):
    """A seed that a test leaves open follows from the name of the test, so that every run draws the same."""
    monkeypatch.setattr(secrets, "randbelow", random.Random(request.node.nodeid).randrange)


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
