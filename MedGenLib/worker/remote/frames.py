"""What both sides agree on: methods, sizes, and images in messages."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WITH_FOLDER = frozenset(
    ("generate", "translate", "enhance", "insert_lesion", "edit/open", "edit", "edit/undo", "edit/redo")
)
FORWARDED = WITH_FOLDER | {"edit/close", "initialize", "devices", "self_test", "models/list"}
"""Methods that the other computer runs: those that need a network, and those about that computer."""
DEFAULT_PORT = 7450
CHUNK = 256 * 2**10
"""Bytes of a binary frame."""
LONGEST_TEXT = 2**20
"""Bytes of a request."""
FILE = "file:"
"""In front of the name of a file in place of its path."""


def with_files(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy of parameters or of an answer in which whatever has a "path", as images do, is changed."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):
            return change(value)
        return {key: with_files(inner, change) for key, inner in value.items()}
    return [with_files(inner, change) for inner in value] if isinstance(value, list) else value


def chunks(path: Path) -> Iterator[bytes]:
    """The content of a file in pieces of `CHUNK`."""
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK):
            yield piece


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this computer only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
