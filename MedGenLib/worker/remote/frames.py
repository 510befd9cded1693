"""What both sides agree on: methods, sizes, images in messages, and addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from MedGenLib.errors import InputError

WITH_FOLDER = {"generate", "translate", "enhance", "insert_lesion", "classify", "detect"}
WITH_FOLDER |= {"edit/open", "edit", "edit/undo", "edit/redo"}
FORWARDED = WITH_FOLDER | {"edit/close", "initialize", "devices", "self_test", "models/list"}
"""Methods that the other computer runs: those that need a network, and those about that computer."""
DEFAULT_PORT = 7450
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CHUNK = 2**20
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


def parsed(address: str) -> tuple[str, str, int, bool]:
    """The usual form of an address, its host, its port, and whether it has TLS. Raises InputError."""
    try:
        parts = urlsplit(address.strip())
        host, port = parts.hostname, parts.port or DEFAULT_PORT
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    except ValueError:
        host = None
    if not host or scheme not in ("ws", "wss") or parts.path not in ("", "/"):
        raise InputError(f"'{address}' is no address of an engine; give one such as wss://workstation:{DEFAULT_PORT}.")
    if scheme == "ws" and host not in LOOPBACK:
        raise InputError(f"'{address}' has no encryption, which only the loopback interface may lack; give wss://.")
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}", host, port, scheme == "wss"
