"""Locales with a decimal comma, which Qt sets where the user's language has one."""

from __future__ import annotations

import locale
import os
import subprocess
from pathlib import Path

VARIABLE = "MEDGEN_TEST_LOCALE"
"""Environment variable with a locale, such as de_DE, in which all tests run."""


def make_locale(folder: Path, name: str = "de_DE") -> dict[str, str]:
    """Write the locale into the folder; the environment variables of processes that use it.

    Raises
    ------
    OSError, subprocess.CalledProcessError: it cannot be made here.
    """
    full = f"{name}.UTF-8"
    subprocess.run(["localedef", "-i", name, "-f", "UTF-8", folder / full], check=True, capture_output=True)
    return {"LOCPATH": str(folder), "LC_ALL": full}


def use_chosen_locale(folder: Path) -> None:
    """Set the locale that VARIABLE names, for this process and those that it starts."""
    if name := os.environ.get(VARIABLE):
        os.environ.update(make_locale(folder, name))
        locale.setlocale(locale.LC_ALL, "")
