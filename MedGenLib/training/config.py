"""Training configurations: JSON files whose paths may contain environment variables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration. Raises InputError with the position of the error."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"The training configuration {path} cannot be read ({error.strerror}); give the path of a JSON file."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"The training configuration {path} is no UTF-8 text; save it as UTF-8.") from error
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The training configuration {path} is not JSON: {error.msg} in line {error.lineno}; correct it there."
        ) from error
    if not isinstance(config, dict):
        raise InputError(f"The training configuration {path} is no JSON object; write its sections between braces.")
    config["folder"], config["file"] = str(path.resolve().parent), str(path)
    return config


def resolve(config: dict[str, Any], value: str) -> Path:
    """A path of the configuration: environment variables expanded, relative to its file.

    Raises InputError if a variable is not set or the path does not exist.
    """
    expanded = os.path.expandvars(value)
    if "$" in expanded:
        raise InputError(
            f"The path {value} in the training configuration needs an environment variable that "
            "is not set; set it to the folder of the data."
        )
    path = Path(config["folder"], expanded)
    if not path.exists():
        raise InputError(f"The training data {path} do not exist; correct the path in the configuration.")
    return path
