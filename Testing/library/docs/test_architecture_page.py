"""The architecture page names every room of the code and no other, and files that exist."""

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


def test_the_files_that_the_page_names_exist():
    named = re.findall(r"`([\w/]+\.py)`", PAGE.read_text(encoding="utf-8"))
    sides = (ROOT / "MedGenLib", ROOT / "MedGen" / "MedGenSlicer")
    assert named and [name for name in named if not any((side / name).is_file() for side in sides)] == []
