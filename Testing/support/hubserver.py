"""Local server with the part of the Hugging Face hub's API that MedGen uses.

Repositories are folders below its root. Like the hub, it answers HEAD and GET of
`/<repository>/resolve/<revision>/<path>` with the commit in a header, and redirects large files
(`.pt`) to another host, with their size and SHA-256 in separate headers; small files have Git's
SHA-1 as ETag. Faults can be configured.

    python hubserver.py FOLDER

runs it as a separate process, which prints its address and ends with its standard input. Large
files are delayed while the file FOLDER/wait exists.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """Content and faults of the server; tests change them while it runs.

    Attributes
    ----------
    cuts: number of bytes after which the next responses with a body stop, one entry per response.
    checksums: path -> SHA-256 sent instead of the true one.
    ranges: whether Range requests are answered with the rest of a file.
    closed, missing: repositories that require acceptance, or that do not exist.
    bare: send no size and no checksum, like a proxy that removes headers.
    gate: event that bodies of large files wait for.
    seen: (method, path, Range header, whether a token was sent) of every request.
    """

    root: Path
    address: str = ""
    cuts: list[int] = field(default_factory=list)
    checksums: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    closed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    bare: bool = False
    gate: threading.Event | None = None
    seen: list[tuple[str, str, str | None, bool]] = field(default_factory=list)

    def requests(self, method: str, name: str) -> list[str | None]:
        """Range headers of all requests with this method for files with this name."""
        return [r for m, path, r, _ in self.seen if m == method and path.endswith(name)]


@contextlib.contextmanager
def running(root: Path) -> Iterator[HubServer]:
    """Run the server until the block ends."""
    hub = HubServer(root)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        token = "Authorization" in self.headers
        self.hub.seen.append((self.command, self.path, self.headers.get("Range"), token))
        if self.path.startswith("/store/"):
            self._send(self.hub.root / self.path.removeprefix("/store/"), with_body)
            return
        repo, _, rest = self.path.removeprefix("/").partition("/resolve/")
        path = rest.partition("/")[2]
        file = self.hub.root / repo / path
        if repo in self.hub.missing:
            self._refuse(404, "RepoNotFound")
        elif repo in self.hub.closed:
            self._refuse(403, "GatedRepo")
        elif not file.is_file():
            self._refuse(404, "EntryNotFound")
        elif file.suffix == ".pt":
            self._redirect(file, path)
        else:
            self._send(file, with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _redirect(self, file: Path, path: str) -> None:
        """Redirect to another host, as the hub does for large files."""
        self.send_response(302)
        place = file.relative_to(self.hub.root).as_posix()
        elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
        self.send_header("Location", f"{elsewhere}/store/{place}")
        self.send_header("X-Repo-Commit", COMMIT)
        if not self.hub.bare:
            checksum = self.hub.checksums.get(path) or _sha256(file, file.stat().st_mtime_ns)
            self.send_header("X-Linked-Etag", f'"{checksum}"')
            self.send_header("X-Linked-Size", str(file.stat().st_size))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, file: Path, with_body: bool) -> None:
        size, start = file.stat().st_size, 0
        asked = self.headers.get("Range")
        if asked and self.hub.ranges:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{_git_sha1(file)}"')
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if with_body:
            self._send_body(file, start)

    def _send_body(self, file: Path, start: int) -> None:
        if self.hub.gate is not None and file.suffix == ".pt":
            self.hub.gate.wait(60)
        while file.suffix == ".pt" and (self.hub.root / "wait").exists():
            time.sleep(0.05)
        end = self.hub.cuts.pop(0) if self.hub.cuts else None
        with file.open("rb") as stream, contextlib.suppress(ConnectionError):
            stream.seek(start)
            left = file.stat().st_size - start if end is None else end
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                self.wfile.write(block)
                left -= len(block)
        self.close_connection = True


@lru_cache(maxsize=64)
def _sha256(file: Path, modified_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _git_sha1(file: Path) -> str:
    if file.suffix == ".pt":
        return "not-a-checksum"
    contents = file.read_bytes()
    return hashlib.sha1(f"blob {len(contents)}\0".encode() + contents).hexdigest()


if __name__ == "__main__":
    with running(Path(sys.argv[1])) as server:
        print(server.address, flush=True)
        sys.stdin.read()
