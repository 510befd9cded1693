"""The reading as a web page, served only to this computer.

    with ReadingPage(reading) as page:
        print(page.address)
        page.serve()                     # returns after the last answer

| request                    | answer                                                        |
|----------------------------|---------------------------------------------------------------|
| GET  /TOKEN/               | page.html, self-contained                                     |
| GET  /TOKEN/state          | the next item, as JSON; no item at the end or on an error     |
| GET  /TOKEN/image/NAME     | the grays of the next image, one byte each, (k, j, i)         |
| POST /TOKEN/answer         | item, synthetic, confidence, seconds -> the next state        |

An error is sent as {"error": sentence}; the page shows it.
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
    """Serves one reading on 127.0.0.1 under a secret address.

    Parameters
    ----------
    port: 0 for any free port.
    tell: called with a sentence if an answer could not be saved.

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
        """Serve requests until every image has an answer."""
        self._server.serve_forever(poll_interval=0.1)

    def state(self) -> dict[str, Any]:
        """The current state of the page."""
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
            except InputError as error:  # unrelated to the answer before, which was saved
                return {**state, "error": str(error)}
            if image is not None:
                shape, spacing = image.array.shape, image.spacing
                state["item"] = {"name": item.name, "shape": shape, "spacing_mm": spacing}
            return state

    def grays(self, name: str) -> bytes:
        """The next image, one byte per voxel; InputError for any other image."""
        with self._lock:
            item = self.reading.next()
            if item is None or item.name != name:
                raise InputError("This image is not the next one; reload the page.")
            image = self._image(item)
        low = image.level - image.window / 2
        grays = (image.array.astype(np.float32) - low) * (255 / image.window)
        return np.clip(np.round(grays), 0, 255).astype(np.uint8).tobytes()

    def answer(self, item: str, synthetic: bool, confidence: int, seconds: float) -> None:
        """Save an answer; InputErrors are also printed in the terminal."""
        try:
            with self._lock:
                self.reading.answer(item, synthetic, confidence, seconds)
        except InputError as error:
            if self._tell is not None:
                self._tell(str(error))
            raise

    def finish(self) -> None:
        """End `serve`, from another thread."""
        self._server.shutdown()

    def _image(self, item: Item) -> DisplayedImage:
        """The image, read once for state and grays."""
        if self._shown is None or self._shown[0] != item.name:
            self._shown = item.name, item.image()
        return self._shown[1]


class _Server(ThreadingHTTPServer):
    """One thread per connection, as browsers open some without using them."""

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
            self._fail(HTTPStatus.BAD_REQUEST, "This is not an answer to an image.")
            return

        def take() -> dict[str, Any]:
            page.answer(**answer)
            return page.state()

        if self._reply(take) and page.reading.next() is None:
            page.finish()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing in the user's terminal."""

    def _path(self) -> str | None:
        """The path below the token; None for requests that do not come from our page.

        The host name is checked too, against DNS rebinding: a web page whose name resolves to this computer must not
        read the study.
        """
        hosts = {f"{name}:{self.server.page.port}" for name in (HOST, "localhost")}
        host, origin = self.headers.get("Host"), self.headers.get("Origin")
        if host not in hosts or (origin and origin.removeprefix("http://") not in hosts):
            return None
        prefix = f"/{self.server.page.token}/"
        ours = hmac.compare_digest(self.path[: len(prefix)].encode(), prefix.encode())
        return self.path[len(prefix) :].split("?")[0] if ours else None

    def _answer(self) -> dict[str, Any] | None:
        """The fields of an answer with their types, or None."""
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
        """Send the result of `work`, or the sentence of its error; returns whether it succeeded."""
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
