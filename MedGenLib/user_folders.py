"""Where MedGen keeps the user's configuration, cache and added models.

The environment variable `MEDGEN_HOME` moves all three into one folder; without it they lie where
the operating system wants them. Nothing here creates a folder before something is written to it.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError

APPLICATION = "medgen"


def config_dir() -> Path:
    """Folder of `config.json`."""
    return _home() or _system_folder("config")


def cache_dir() -> Path:
    """Folder for what can be deleted at any time, such as running downloads."""
    home = _home()
    return home / "cache" if home else _system_folder("cache")


def models_dir() -> Path:
    """Folder of the model packages that the user added."""
    base = _home() or _system_folder("data")
    return base / "models"


def config_path() -> Path:
    """The configuration file, which need not exist."""
    return config_dir() / "config.json"


def read_config() -> dict[str, Any]:
    """The user's configuration, empty when there is none yet.

    Raises
    ------
    InputError: the file cannot be read or is not a JSON object.
    """
    path = config_path()
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"The configuration {path} is not valid JSON; correct it or delete it.") from error
    if not isinstance(config, dict):
        raise InputError(f"The configuration {path} is not a JSON object; correct or delete it.")
    return config


def write_config(config: dict[str, Any]) -> None:
    """Replace the user's configuration in one step.

    Raises
    ------
    InputError: the folder cannot be written, for instance without permission or disk space.
    """
    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, config)
    except OSError as error:
        raise InputError(
            f"The configuration {path} cannot be written: {error.strerror}; set MEDGEN_HOME to a folder that can be."
        ) from error


def write_json(path: Path, data: Any) -> None:
    """Write JSON under a temporary name beside `path`, then rename: all of it or nothing.

    NumPy scalars, arrays and tensors become plain numbers and lists. NaN and infinity, which JSON
    does not know, raise ValueError.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=lambda value: value.tolist())
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.write_text(text + "\n", encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _system_folder(kind: str) -> Path:
    """The folder of that kind ("config", "cache", "data") by the rules of the operating system.

    A fresh Slicer lacks platformdirs; the panel opens without it and must not look elsewhere.
    """
    try:
        import platformdirs
    except ModuleNotFoundError:
        return _standard_folder(kind, sys.platform, os.environ)
    return Path(getattr(platformdirs, f"user_{kind}_dir")(APPLICATION, appauthor=False))


def _standard_folder(kind: str, system: str, environment: Mapping[str, str]) -> Path:
    """What platformdirs answers, written down once more."""
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
    return Path(value).expanduser().absolute() if value else None
