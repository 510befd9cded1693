"""Configuration of the user: JSON objects in the folder of `MedGenLib.user_folders`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from MedGenLib import user_folders
from MedGenLib.errors import InputError
from MedGenLib.io.atomic import write_json

CONFIG = "config.json"


def config_path(name: str = CONFIG) -> Path:
    """Path of the configuration file, which may not exist."""
    return user_folders.config_dir() / name


def read_config(name: str = CONFIG) -> dict[str, Any]:
    """Read the configuration; empty if the file does not exist.

    Raises
    ------
    InputError: the file cannot be read or is not a JSON object.
    """
    path = config_path(name)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # the home of another user, or none
        return {}
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"The configuration {path} is not valid JSON; correct it or delete it.") from error
    if not isinstance(config, dict):
        raise InputError(f"The configuration {path} is not a JSON object; correct or delete it.")
    return config


def write_config(config: dict[str, Any], name: str = CONFIG, private: bool = False) -> None:
    """Replace the configuration atomically; private: only the user may read it.

    Raises
    ------
    InputError: the file cannot be written, e.g. without permission or disk space.
    """
    path = config_path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, config, 0o600 if private else 0o666)
    except OSError as error:
        raise InputError(
            f"The configuration {path} cannot be written: {error.strerror}; set MEDGEN_HOME to a folder that can be."
        ) from error
