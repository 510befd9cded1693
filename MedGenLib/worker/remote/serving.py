"""The engine's connections: who is let in, what is uploaded, and what goes back.

No path that a client names is opened: images are uploads into the folder of their run, named by their content.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import socket
import ssl
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.editing.lesions.library import names
from MedGenLib.errors import InputError
from MedGenLib.progress import Progress
from MedGenLib.worker.protocol import messages
from MedGenLib.worker.protocol.messages import ProtocolError
from MedGenLib.worker.remote.access import Door, Refused
from MedGenLib.worker.remote.engine import Limits, RemoteRun, SharedWorker
from MedGenLib.worker.remote.frames import FILE, FORWARDED, LONGEST_TEXT, WITH_FOLDER, chunks, with_files

if TYPE_CHECKING:
    from websockets.asyncio.server import Request, Response, ServerConnection

HANDSHAKE_SECONDS = 5.0
"""For TLS, and then for the headers: who sends them slower is disconnected."""
STALL_SECONDS = 30.0
"""Without a piece of an upload that has begun."""
MOST_SOCKETS = 256
"""Connections of any kind, also those that have not said who they are; more are closed at once."""


@dataclass
class Upload:
    """A file on its way."""

    run: RemoteRun
    path: Path
    missing: int
    digest: Any


class Client:
    """One connection; owner: its name for turns and for the log."""

    def __init__(self, service: Service, link: ServerConnection, owner: str) -> None:
        self._service, self._link, self._owner = service, link, owner
        self._runs: dict[int | None, RemoteRun] = {}
        self._canvases: set[str] = set()
        self._upload: Upload | None = None
        self._outbox: asyncio.Queue[str | Path | RemoteRun] = asyncio.Queue()

    async def talk(self) -> None:
        """Until the connection ends."""
        from websockets.exceptions import ConnectionClosed

        sender = asyncio.create_task(self._send())
        try:
            while True:
                async with asyncio.timeout(STALL_SECONDS if self._upload else None):
                    message = await self._link.recv()
                if isinstance(message, bytes):
                    self._receive(message)
                else:
                    self._take(message)
        except ConnectionClosed:
            pass
        except TimeoutError:
            await self._link.close(1008, "An upload was begun and not continued.")
        except Refused as error:
            self._service.engine.counts["refused", 'reason="protocol"'] += 1
            await self._link.close(error.status, str(error))
        finally:
            sender.cancel()
            self._leave()

    async def _send(self) -> None:
        while True:
            item = await self._outbox.get()
            if isinstance(item, str):
                await self._link.send(item)
            elif isinstance(item, Path):
                for piece in chunks(item):
                    await self._link.send(piece)
                    self._service.engine.counts["bytes", 'direction="sent"'] += len(piece)
            else:
                self._remove(item)

    def _remove(self, run: RemoteRun) -> None:
        """Remove the images of a finished run, unless they are kept."""
        if not self._service.keeps:
            run.remove()

    def _post(self, message: dict[str, Any]) -> None:
        self._outbox.put_nowait(messages.encode(message).decode())

    def _progress(self, run: RemoteRun, progress: Progress) -> None:
        self._post(messages.request(None, "progress", {"id": run.number, **vars(progress)}))

    def _finish(self, run: RemoteRun, message: dict[str, Any]) -> None:
        """Send the files of a run and its answer, then remove its folder."""
        if self._runs.pop(run.number, None) is None:  # the client has left
            self._remove(run)
            return
        files: dict[str, Path] = {}

        def sent(item: dict[str, Any]) -> dict[str, Any]:
            path = Path(item["path"])
            files[path.name] = path
            return {**item, "path": path.name}

        if run.method == "edit/open" and "result" in message:
            self._canvases.add(message["result"]["canvas"])
        message = with_files(message, sent)
        for name, path in files.items():
            self._post(messages.request(None, "file", {"name": name}))
            self._outbox.put_nowait(path)
        self._post(message)
        self._outbox.put_nowait(run)

    def _leave(self) -> None:
        for run in self._runs.values():
            run.stop()
            if not run.method:  # only uploads so far
                run.remove()
        self._runs.clear()
        while not self._outbox.empty():
            if isinstance(item := self._outbox.get_nowait(), RemoteRun):
                self._remove(item)
        for canvas in self._canvases if self._service.engine.worker.runs else ():
            self._service.engine.queue.put(self._new_run(None, None, "edit/close", {"canvas": canvas}))

    def _new_run(self, number: int | None, *rest: Any) -> RemoteRun:
        return RemoteRun(self._owner, number, self._progress, self._finish, *rest)

    # Messages

    def _take(self, text: str) -> None:
        number = None
        try:
            message = messages.decode(text.encode())
            method, params = message.get("method"), message.get("params", {})
            number = message["id"] if isinstance(message.get("id"), int) else None
            if not isinstance(params, dict) or message.get("id") != number:
                raise ProtocolError(messages.INVALID_REQUEST, "A message is not a request.")
            if method == "upload":
                self._begin_upload(params)
            elif method == "cancel":
                if isinstance(params.get("id"), int) and (run := self._runs.get(params["id"])) is not None:
                    run.stop()
                    if run in (waiting := self._service.engine.queue.waiting):
                        waiting.remove(run)
                        self._finish(run, messages.refusal(run.number, run.stopped))
            elif number is not None:
                self._request(self._run(number), str(method), params)
        except (ProtocolError, InputError) as error:
            self._post(messages.refusal(number, error))

    def _run(self, number: Any) -> RemoteRun:
        """The run of that number, made with its folder where it is new."""
        if not isinstance(number, int):
            raise Refused("An upload belongs to no run.")
        if number not in self._runs:
            if len(self._runs) >= self._service.engine.limits.waiting:
                raise Refused("Too many runs of this client wait already.")
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=self._service.folder))
            self._runs[number] = self._new_run(number, folder)
        if self._runs[number].method:
            raise Refused("A number was used twice.")
        return self._runs[number]

    def _request(self, run: RemoteRun, method: str, params: dict[str, Any]) -> None:
        engine = self._service.engine
        try:
            if method not in FORWARDED:
                raise InputError(f"The engine does not run '{method[:40]}' for its clients; ask its owner.")
            if method == "insert_lesion" and params.get("shape", "sphere") not in [name for name, _ in names()]:
                raise InputError("The engine takes shapes of lesions by their names only; give a mask of the lesion.")
            if not isinstance(params.get("canvas", ""), str):
                raise InputError("The name of a canvas is not a text.")
            run.params = with_files(params, lambda item: _uploaded(item, run))
        except InputError:
            self._runs.pop(run.number).remove()
            raise
        run.method = method
        if method in WITH_FOLDER:
            run.params["folder"] = str(run.folder)
        if "canvas" in params and params["canvas"] not in self._canvases:
            self._finish(run, messages.answer(run.number, {"closed": True}))
            return
        if method == "initialize" and engine.facts:  # also while others run
            self._finish(run, messages.answer(run.number, engine.facts))
            return
        if ahead := len(engine.queue.waiting) + (engine.current is not None):
            self._progress(run, Progress("waiting for the engine", 0, ahead))
        engine.queue.put(run)

    # Uploads

    def _begin_upload(self, params: dict[str, Any]) -> None:
        run, size, name = self._run(params.get("id")), params.get("bytes"), str(params.get("sha256"))
        if self._upload is not None or not isinstance(size, int) or size < 1 or not re.fullmatch("[0-9a-f]{64}", name):
            raise Refused("An upload is not announced as it has to be.")
        run.bytes += size
        most = self._service.engine.limits.upload
        if run.bytes > most:
            raise Refused(
                f"The images of a run have more than {most / 2**20:g} MiB, the limit of the engine; crop them."
            )
        self._upload = Upload(run, run.folder / f"{name}.npy", size, hashlib.sha256())

    def _receive(self, piece: bytes) -> None:
        upload = self._upload
        if upload is None or len(piece) > upload.missing:
            raise Refused("More data came than was announced.")
        try:
            with upload.path.open("ab") as stream:
                stream.write(piece)
        except OSError as error:
            raise Refused("The engine's disk is full; ask its owner to free some space.") from error
        upload.digest.update(piece)
        upload.missing -= len(piece)
        self._service.engine.counts["bytes", 'direction="received"'] += len(piece)
        if upload.missing == 0:
            self._upload = None
            if upload.digest.hexdigest() != upload.path.stem:
                raise Refused("An upload was damaged on its way.")
            upload.run.uploads.add(upload.path.stem)


def _uploaded(item: dict[str, Any], run: RemoteRun) -> dict[str, Any]:
    """The image of an upload. Raises InputError for a path, of whatever kind."""
    name = item["path"].removeprefix(FILE)
    if name not in run.uploads:
        raise InputError("The engine opens no path of a client; upload the image.")
    return {**item, "path": str(run.folder / f"{name}.npy")}


class Service:
    """Accepts connections for an engine; with TLS they need a token. `keep`: a folder in which the images stay."""

    def __init__(
        self, limits: Limits, context: ssl.SSLContext | None, keep: Path | None, note: Callable[[str], None]
    ) -> None:
        self.engine, self.keeps = SharedWorker(limits, note), keep is not None
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
        self.folder = keep or Path(tempfile.mkdtemp(prefix="medgen-engine-"))
        self._context, self._note, self._door = context, note, Door()
        self._clients = self._arrivals = 0

    async def run(self, host: str, port: int, on_ready: Callable[[int], None]) -> None:
        """Serve until the task is canceled. Raises InputError if the address cannot be used."""
        from websockets.asyncio.server import serve

        tls = {} if self._context is None else {"ssl": self._context, "ssl_handshake_timeout": HANDSHAKE_SECONDS}
        try:
            async with serve(
                self._welcome,
                sock=(listener := _listener(host, port)),
                process_request=self._admit,
                compression=None,
                max_size=LONGEST_TEXT,
                open_timeout=HANDSHAKE_SECONDS,
                server_header=None,
                write_limit=2**22,
                max_queue=4,
                **tls,
            ):
                on_ready(listener.getsockname()[1])
                await self.engine.work()
        finally:
            self.engine.worker.close()
            if not self.keeps:
                shutil.rmtree(self.folder, ignore_errors=True)

    async def _welcome(self, link: ServerConnection) -> None:
        self._clients += 1
        try:
            await Client(self, link, link.username).talk()
        finally:
            self._clients -= 1

    def _admit(self, link: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP, and refuse who may not use the engine."""
        try:
            if "Origin" in request.headers:
                raise Refused("The engine does not talk to web pages.", 403)
            if request.path == "/health":
                return link.respond(200, "ok\n")
            self._arrivals += 1
            link.username = f"client {self._arrivals}"
            if self._context is not None:
                link.username = self._door.owner(link.remote_address[0], request.headers.get("Authorization", ""))
            if request.path == "/metrics":
                return link.respond(200, self._metrics())
            if request.path != "/":
                raise Refused("There is no such page.", 404)
            if self._clients >= self.engine.limits.clients:
                raise Refused("The engine has as many clients as it accepts; try again later.", 503)
        except Refused as error:
            self.engine.counts["refused", f'reason="{error.status}"'] += 1
            self._note(f"A connection was refused ({error.status}).")
            return link.respond(error.status, f"{error}\n")
        return None

    def _metrics(self) -> str:
        """The counts in the text format of Prometheus."""
        queue, running = self.engine.queue, self.engine.current is not None
        now = {
            "clients": self._clients,
            "waiting": len(queue.waiting),
            "running": running,
            "worker_up": self.engine.worker.runs,
        }
        lines = [f"medgen_{name} {int(value)}" for name, value in now.items()]
        for (name, label), value in sorted(self.engine.counts.items()):
            lines.append(f"medgen_{name}_total{f'{{{label}}}' if label else ''} {value:g}")
        return "\n".join(lines) + "\n"


class Listener(socket.socket):
    """A listening socket that closes connections beyond MOST_SOCKETS at once."""

    accepted: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        while True:
            connection, address = super().accept()
            if sum(other.fileno() != -1 for other in self.accepted) < MOST_SOCKETS:
                self.accepted.add(connection)
                return connection, address
            connection.close()


def _listener(host: str, port: int) -> Listener:
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        return Listener(fileno=socket.create_server((host, port), family=family).detach())
    except (OSError, OverflowError) as error:
        raise InputError(
            f"The engine cannot listen at {host}:{port} ({error}); choose another host or port."
        ) from error
