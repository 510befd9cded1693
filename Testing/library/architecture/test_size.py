"""The tracked tree stays small enough for the Extensions Index, pictures included."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest
from allowance import require
from imports import REPOSITORY, shown

MIB = 2**20
TREE_MIB = 48
"""The index allows 100 MiB for a clone, which holds every file twice: as itself and in .git."""
WEIGHTS_MIB = 16


def tracked() -> list[Path]:
    """The files of the tree; empty where this is no git checkout, such as in a source archive."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def excess() -> dict[str, int]:
    """MiB above the limit."""
    size = sum(path.stat().st_size for path in tracked()) / MIB
    return {"tracked tree, MiB above the limit": math.ceil(size - TREE_MIB)} if size > TREE_MIB else {}


RULES = {"size": excess}


@pytest.fixture(autouse=True)
def checkout():
    if not tracked():
        pytest.skip("not a git checkout: which files are tracked is not known")


def test_the_tracked_tree_is_small():
    require("size", excess())


def test_every_weight_file_is_small():
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    assert weights
    assert [shown(path) for path in weights if path.stat().st_size > WEIGHTS_MIB * MIB] == []
