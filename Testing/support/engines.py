"""Real engines for tests: `medgen serve` in a process of its own, and raw clients of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

MEDGEN = [sys.executable, "-c", "import sys; from MedGenLib.cli import main; sys.exit(main())"]


@dataclass
class ServedEngine:
    """An engine that runs; folder: its temporary folder, with nothing else in it; log: its lines so far."""

    process: subprocess.Popen
    address: str
    folder: Path
    first_lines: list[str] = field(default_factory=list)
    token: str = ""

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> list[str]:
        return (self.folder.parent / "log").read_text().splitlines()

    @property
    def files(self) -> list[Path]:
        """What it holds of runs."""
        return [path for folder in self.folder.glob("medgen-engine-*") for path in folder.iterdir()]

    def page(self, name: str) -> str:
        """A page over HTTP(S)."""
        request = urllib.request.Request(self.address.replace("ws", "http", 1) + name, headers=self.headers)
        with urllib.request.urlopen(request, context=untrusting()) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """The value of a metric, 0 while it is not counted."""
        found = [line for line in self.page("/metrics").splitlines() if line.rpartition(" ")[0] == name]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @contextlib.contextmanager
    def raw(self, headers: dict[str, str] | None = None) -> Iterator[RawLink]:
        """A connection without MedGen's client."""
        context = untrusting() if self.address.startswith("wss") else None
        link = RawLink(self.address, context, self.headers if headers is None else headers)
        try:
            yield link
        finally:
            link.close()


class RawLink:
    """A WebSocket whose calls block. (The blocking client of websockets reads and writes TLS in two threads.)"""

    def __init__(self, address: str, context: ssl.SSLContext | None, headers: dict[str, str]) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

        async def opened() -> Any:
            return await connect(address, ssl=context, additional_headers=headers, proxy=None, max_size=2**26)

        self._link = self._wait(opened())

    def send(self, message: str | bytes) -> None:
        self._wait(self._link.send(message))

    def recv(self) -> str | bytes:
        return self._wait(self._link.recv())

    def close(self) -> None:
        self._wait(self._link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextlib.contextmanager
def served(folder: Path, *options: str, token: str = "") -> Iterator[ServedEngine]:
    """`medgen serve` with these options, ended with the block by SIGTERM."""
    temporary = folder / "temporary"
    temporary.mkdir()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*MEDGEN, "serve", "--port", "0", *options],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        lines = [process.stdout.readline().strip()]
        while not lines[-1].startswith("The engine listens at "):
            assert process.poll() is None, (folder / "log").read_text()
            lines.append(process.stdout.readline().strip())
        yield ServedEngine(process, lines.pop().rpartition(" ")[2], temporary, lines, token)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()
    assert list(temporary.iterdir()) == [], "no file of the engine stays behind"


def untrusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ask(link: RawLink, number: int, method: str, **params: Any) -> None:
    link.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))


def upload(link: RawLink, number: int, content: bytes) -> str:
    """Upload a file for a request; returns its name."""
    name = hashlib.sha256(content).hexdigest()
    facts = {"id": number, "sha256": name, "bytes": len(content)}
    link.send(json.dumps({"jsonrpc": "2.0", "method": "upload", "params": facts}))
    link.send(content)
    return name


def answer(link: RawLink, number: int | None) -> dict[str, Any]:
    """The answer with this number; what comes before it is dropped."""
    while True:
        data = link.recv()
        if isinstance(data, str) and "method" not in (message := json.loads(data)) and message["id"] == number:
            return message
