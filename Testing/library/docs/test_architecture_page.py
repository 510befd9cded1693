"""The architecture page names every room of the code, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reference" / "architecture.md"


def test_the_page_names_every_folder_of_the_code():
    named = re.findall(r"^\| `([\w/]+)/` \|", PAGE.read_text(encoding="utf-8"), re.M)
    sides = (ROOT / "MedGenLib", ROOT / "MedGen" / "MedGenSlicer")
    rooms = {path.parent.relative_to(ROOT).as_posix() for side in sides for path in side.rglob("*.py")}
    assert sorted(named) == sorted(rooms)
