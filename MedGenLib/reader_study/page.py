"""The reading as a web page on this computer: nothing leaves it, and nobody else can open it.

    with ReadingPage(reading) as page:
        print(page.address)
        page.serve()                     # returns when the list is done

| request                    | answer                                                        |
|----------------------------|---------------------------------------------------------------|
| GET  /TOKEN/               | page.html, which needs nothing else                           |
| GET  /TOKEN/state          | what comes next, as JSON; no item at the end or on an error   |
| GET  /TOKEN/image/NAME     | the grays of that next image, one byte each, (k, j, i)        |
| POST /TOKEN/answer         | item, synthetic, confidence, seconds -> the next state        |

A fault is sent as {"error": sentence}; the page shows it.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.reader_study.reading import Reading
from MedGenLib.reader_study.study import DisplayedImage, Item

HOST = "127.0.0.1"
_LARGEST_ANSWER = 4096
_IDLE_SECONDS = 30
_FIELDS = {"item": str, "synthetic": bool, "confidence": int, "seconds": float}
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class ReadingPage:
    """Serves one reading on 127.0.0.1 under an address that cannot be guessed.

    Parameters
    ----------
    port: 0 for any free one.
    tell: called with a sentence when an answer could not be taken.

    Raises
    ------
    InputError: the port is in use.
    """

    def __init__(self, reading: Reading, port: int = 0, tell: Callable[[str], None] | None = None) -> None:
        self.reading, self._tell = reading, tell
        self._lock = threading.Lock()
        self._shown: tuple[str, DisplayedImage] | None = None
        self.token = secrets.token_urlsafe(24)
        try:
            self._server = _Server((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            raise InputError(f"The reading page cannot use port {port}: {reason}; give another --port.") from None
        self._server.page = self

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def __enter__(self) -> ReadingPage:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def serve(self) -> None:
        """Answers the browser until every image has an answer."""
        self._server.serve_forever(poll_interval=0.1)

    def state(self) -> dict[str, Any]:
        """What the page has to show now."""
        with self._lock:
            done, total = self.reading.progress
            state = {
                "done": done,
                "total": total,
                "title": self.reading.study.title,
                "reader": self.reading.reader,
                "item": None,
            }
            item = self.reading.next()
            try:
                image = None if item is None else self._image(item)
            except InputError as error:  # not of the answer before, which was taken
                return {**state, "error": str(error)}
            if image is not None:
                shape, spacing = image.array.shape, image.spacing
                state["item"] = {"name": item.name, "shape": shape, "spacing_mm": spacing}
            return state

    def grays(self, name: str) -> bytes:
        """The next image as one byte a voxel; any other is refused: readers see one at a time."""
        with self._lock:
            item = self.reading.next()
            if item is None or item.name != name:
                raise InputError("This image is not the next one; reload the page.")
            image = self._image(item)
        low = image.level - image.window / 2
        grays = (image.array.astype(np.float32) - low) * (255 / image.window)
        return np.clip(np.round(grays), 0, 255).astype(np.uint8).tobytes()

    def answer(self, item: str, synthetic: bool, confidence: int, seconds: float) -> None:
        """Writes an answer down; an InputError is printed in the terminal as well."""
        try:
            with self._lock:
                self.reading.answer(item, synthetic, confidence, seconds)
        except InputError as error:
            if self._tell is not None:
                self._tell(str(error))
            raise

    def finish(self) -> None:
        """Ends `serve`; to be called by another thread than that."""
        self._server.shutdown()

    def _image(self, item: Item) -> DisplayedImage:
        """Read once for state and grays."""
        if self._shown is None or self._shown[0] != item.name:
            self._shown = item.name, item.image()
        return self._shown[1]


class _Server(ThreadingHTTPServer):
    """A thread a connection: browsers open some that they do not use."""

    daemon_threads = True
    allow_reuse_address = False
    page: ReadingPage


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        page, path = self.server.page, self._path()
        if path == "":
            self._send(Path(__file__).with_suffix(".html").read_bytes(), "text/html; charset=utf-8")
        elif path == "state":
            self._reply(page.state)
        elif path is not None and path.startswith("image/"):
            self._reply(lambda: page.grays(path.removeprefix("image/")))
        else:
            self._fail(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        page = self.server.page
        if self._path() != "answer":
            self._fail(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return
        answer = self._answer()
        if answer is None:
            self._fail(HTTPStatus.BAD_REQUEST, "This is no answer to an image.")
            return

        def take() -> dict[str, Any]:
            page.answer(**answer)
            return page.state()

        if self._reply(take) and page.reading.next() is None:
            page.finish()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal belongs to the user."""

    def _path(self) -> str | None:
        """What is asked for below the token; None for a request that is not from our page.

        The name of the host is checked as well, so that a page of the internet whose name was made to
        resolve to this computer cannot read the study.
        """
        hosts = {f"{name}:{self.server.page.port}" for name in (HOST, "localhost")}
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host not in hosts or (origin and origin.removeprefix("http://") not in hosts):
            return None
        prefix = f"/{self.server.page.token}/"
        ours = hmac.compare_digest(self.path[: len(prefix)].encode(), prefix.encode())
        return self.path[len(prefix) :].split("?")[0] if ours else None

    def _answer(self) -> dict[str, Any] | None:
        """The fields of an answer, each of its type."""
        try:
            size = int(self.headers.get("Content-Length", ""))
            if not 0 < size <= _LARGEST_ANSWER:
                return None
            data = json.loads(self.rfile.read(size))
            if type(data["seconds"]) is int:
                data["seconds"] = float(data["seconds"])
            fields = {name: data[name] for name in _FIELDS}
        except (ValueError, KeyError, TypeError):
            return None
        right = all(type(fields[name]) is kind for name, kind in _FIELDS.items())
        return fields if right else None

    def _reply(self, work: Callable[[], dict[str, Any] | bytes]) -> bool:
        """Sends what `work` gives, or the sentence why it does not; whether it succeeded."""
        try:
            data = work()
        except InputError as error:
            self._fail(HTTPStatus.CONFLICT, str(error))
            return False
        if isinstance(data, bytes):
            self._send(data, "application/octet-stream")
        else:
            self._send(json.dumps(data).encode(), "application/json")
        return True

    def _fail(self, status: HTTPStatus, sentence: str) -> None:
        self._send(json.dumps({"error": sentence}).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
