"""Plain technical English with American spelling: a list of words that have crept in before."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from allowance import require
from imports import REPOSITORY, shown

FOLDERS = {
    "MedGenLib": ("py", "md", "html"),
    "MedGen": ("py", "md", "html"),
    "Resources": ("md", "ui", "html", "json"),
    "Testing": ("py", "md", "html"),
    "docs": ("py", "md", "html"),
}
"""Folder of the repository -> the kinds of its files that people read; JSON is model cards."""
OWN = Path(__file__)
GENERATED = [REPOSITORY / "docs" / "reference" / name for name in ("commands", "options", "models", "sentences")]
"""Pages that `make docs` writes from texts of the code and the packages."""

WORDS = (
    "anew",
    "shall",
    "told",
    "whoever",
    "lest",
    "whilst",
    "learnt",
    "amongst",
    "henceforth",
    "of nothing but",
    "a run is on",
    "mask's say",
    "an ear for",
    "as it shall be",
    "handing it on",
    r"licenc\w*",
    r"colour\w*",
    r"grey\w*",
    r"centr(?:e[sd]?|ing)",
    r"neighbour\w*",
    r"behaviour\w*",
    r"favour\w*",
    r"labell(?:ed|ing)",
    r"unlabelled",
    r"modell(?:ed|ing)",
    r"\w*metres?",
    r"fibres?",
    r"artefact\w*",
    r"tumours?",
    r"programmes?",
    r"analys(?:ed|ing)",
    r"defence",
    r"\w*(?:character|emphas|final|general|homogen|initial|maxim|memor|minim|normal|optim|organ|parametr|random|"
    r"raster|real|recogn|regular|serial|special|standard|summar|synchron|util|visual)"
    r"is(?:e[sdr]?|ers|ing|ations?)",
)  # one family of spellings after the other
"""Words, also as a part of a name with underscores."""
FILE_KEYS = re.compile(r"""(["'])(?:centres|centre_hu|labelled-crops|optimisation|optimisers|grey matter)\1""")
"""Kept, in quotes: keys of packages of schema 1, training configurations, checkpoints and reports."""

FOUND = re.compile(rf"(?<![A-Za-z])(?:{'|'.join(WORDS)})(?![A-Za-z])", re.IGNORECASE)


def count(text: str) -> int:
    return len(FOUND.findall(FILE_KEYS.sub("", text)))


def read_files() -> list[Path]:
    """What is read by people."""
    files = {*REPOSITORY.glob("*.md"), REPOSITORY / "MedGen.json"}
    for folder, kinds in FOLDERS.items():
        for kind in kinds:
            files.update((REPOSITORY / folder).rglob(f"*.{kind}"))
    return sorted(path for path in files - {OWN} if path.parent not in GENERATED)


def words() -> Counter[str]:
    """File -> number of relapses."""
    return Counter({shown(path): n for path in read_files() if (n := count(path.read_text(encoding="utf-8")))})


RULES = {"voice": words}


def test_relapses_only_become_fewer():
    require("voice", words())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The image is made anew; whoever asks is TOLD.", 3),
        ("centre_hu, colours, normalised, Neighbourhood", 4),
        ("center, gray, license, percentile, parameters, diameter, promise, centrifugal, toldfoo", 0),
        ('settings["centres"] and "optimisation": 1, but optimisation', 1),
        ("a latent of nothing but noise", 1),
    ],
)
def test_words_are_found(text, expected):
    assert count(text) == expected
