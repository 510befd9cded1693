"""Who may use the engine: tokens, kept as hashes, and a limit for failed attempts."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import deque

from MedGenLib.errors import InputError
from MedGenLib.io.user_config import read_config, write_config

TOKENS = "engine-tokens.json"
DAY = 86400.0
MOST_FAILURES, WINDOW = 5, 60.0
"""Failures of an address in that many seconds, after which it has to wait."""


class Refused(Exception):
    """Why a client is refused: the status of HTTP or of WebSocket, and one sentence."""

    def __init__(self, sentence: str, status: int = 1008) -> None:
        super().__init__(sentence)
        self.status = status


def create_token(name: str, days: float | None = None) -> str:
    """A new token, in place of one of the same name; only its hash is kept. Raises InputError for an unusable name."""
    if not re.fullmatch(r"[\w.-]{1,40}", name):
        raise InputError(f"The name {name!r} of a token is not usable; give up to 40 letters, digits, dots or dashes.")
    token = secrets.token_urlsafe(32)  # so many random bits need no slow hash
    expires = None if days is None else time.time() + days * DAY
    write_config({**read_config(TOKENS), name: {"sha256": _hash(token), "expires": expires}}, TOKENS, private=True)
    return token


class Door:
    """Checks tokens, and makes addresses wait that failed too often."""

    def __init__(self) -> None:
        self._failures: deque[tuple[float, str]] = deque(maxlen=1000)

    def owner(self, address: str, authorization: str) -> str:
        """The name of the token in a header "Authorization". Raises Refused."""
        now = time.monotonic()
        if sum(other == address and now - when < WINDOW for when, other in self._failures) >= MOST_FAILURES:
            raise Refused("Too many attempts with a wrong token; wait a minute and try again.", 429)
        try:
            return _name(authorization.removeprefix("Bearer ").strip())
        except Refused:
            self._failures.append((now, address))
            raise


def _name(token: str) -> str:
    given, name, expires = _hash(token), None, None
    for other, entry in read_config(TOKENS).items():  # all of them, so that the time says nothing
        if hmac.compare_digest(given, str(entry["sha256"])):
            name, expires = other, entry["expires"]
    if name is None:
        raise Refused("The engine does not know the token; ask its owner for another one.", 401)
    if expires is not None and time.time() >= expires:
        raise Refused("The token has expired; ask the owner of the engine for another one.", 401)
    return name


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
