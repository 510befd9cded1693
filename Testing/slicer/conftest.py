"""Boots the bridge before any test module is imported, unless Slicer itself runs the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import support  # noqa: F401
