"""Folders of the user's configuration, cache and added models.

The environment variable `MEDGEN_HOME` moves all three into one folder; by default they follow the conventions of the
operating system. A folder is created when something is written to it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

APPLICATION = "medgen"
NOWHERE = Path("/nonexistent")
"""The home of a user without one: nothing is found there and nothing can be written."""


def config_dir() -> Path:
    """Folder of `config.json`."""
    return _home() or _system_folder("config")


def cache_dir() -> Path:
    """Folder for files that can be deleted at any time, such as partial downloads."""
    home = _home()
    return home / "cache" if home else _system_folder("cache")


def models_dir() -> Path:
    """Folder of the model packages that the user added."""
    base = _home() or _system_folder("data")
    return base / "models"


def _system_folder(kind: str) -> Path:
    """The folder of a kind ("config", "cache", "data") by the conventions of the operating system.

    platformdirs may be missing in a new Slicer; the panel must find the same folders without it.
    """
    try:
        import platformdirs
    except ModuleNotFoundError:
        platformdirs = None
    try:
        if platformdirs is None:
            return standard_folder(kind, sys.platform, os.environ)
        return Path(getattr(platformdirs, f"user_{kind}_dir")(APPLICATION, appauthor=False))
    except (RuntimeError, KeyError):  # no HOME, and a user whom the system does not know
        return NOWHERE / APPLICATION


def standard_folder(kind: str, system: str, environment: Mapping[str, str]) -> Path:
    """Same result as platformdirs, without it."""
    home = Path.home()
    if system == "win32":
        base = Path(environment.get("LOCALAPPDATA", "").strip() or home / "AppData" / "Local")
        return base / APPLICATION / "Cache" if kind == "cache" else base / APPLICATION
    chosen = environment.get(f"XDG_{kind.upper()}_HOME", "")
    if chosen.startswith("/"):
        return Path(chosen) / APPLICATION
    if system == "darwin":
        folder = "Library/Caches" if kind == "cache" else "Library/Application Support"
    else:
        folder = {"config": ".config", "cache": ".cache", "data": ".local/share"}[kind]
    return home / folder / APPLICATION


def _home() -> Path | None:
    value = os.environ.get("MEDGEN_HOME", "").strip()
    try:
        return Path(value).expanduser().absolute() if value else None
    except RuntimeError:  # a "~" without a home
        return NOWHERE / APPLICATION
