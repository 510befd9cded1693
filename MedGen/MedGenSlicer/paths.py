"""Where the module finds its library and its resources, installed or in a source checkout.

Installed by Slicer's build, everything lies beside ``MedGen.py``; in a source checkout
``MedGenLib`` and ``Resources`` lie one folder up.
"""

import importlib.util
import sys
from pathlib import Path

_MODULE_FOLDER = Path(__file__).resolve().parents[1]


def libraryFolder() -> Path:
    """Folder that holds the package ``MedGenLib``."""
    return _beside("MedGenLib/__init__.py").parents[1]


def resource(name: str) -> Path:
    """A file or folder of ``Resources``, such as ``UI/MedGen.ui``; it need not exist."""
    return _beside(f"Resources/{name}")


def testsFolder() -> Path | None:
    """``Testing/slicer`` of a source checkout; None where the extension was installed."""
    folder = _MODULE_FOLDER.parent / "Testing" / "slicer"
    return folder if folder.is_dir() else None


def ensureLibrary() -> None:
    """Make ``import MedGenLib`` find the library that belongs to this module."""
    found = importlib.util.find_spec("MedGenLib")
    if found is None or not found.origin or Path(found.origin).resolve().parents[1] != libraryFolder():
        # First: another release may be installed in the same Python, and Slicer puts modules' folders last.
        sys.path.insert(0, str(libraryFolder()))


def _beside(relative: str) -> Path:
    """The file beside ``MedGen.py`` when it is there, else the one of the source checkout."""
    installed = _MODULE_FOLDER / relative
    return installed if installed.exists() else _MODULE_FOLDER.parent / relative
