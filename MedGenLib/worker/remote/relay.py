"""The methods of a worker that lets another computer run models.

Its process is a worker like any other (`MedGenLib.worker.server`): it reads the images, sends their voxels, and writes
the volumes that come back into the folder of the request. Neither computer opens a path that the other one names.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import WorkerError
from MedGenLib.io.user_config import config_path
from MedGenLib.progress import Progress
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import METHODS
from MedGenLib.worker.protocol import messages
from MedGenLib.worker.remote.certificate import KNOWN, client_context, fingerprint, recall, remember
from MedGenLib.worker.remote.frames import CHUNK, FILE, FORWARDED, chunks, parsed, with_files

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

TOKEN = "MEDGEN_ENGINE_TOKEN"
"""Environment variable: a token in place of the one that was kept for the address."""
CHECK_SECONDS = 0.1
"""Time between two looks at whether the client canceled."""


def relay_methods(address: str) -> dict[str, Callable[..., dict[str, Any]]]:
    """The worker's methods, of which those that need a network run on the computer at the address."""
    relay = Relay(address)
    remote = FORWARDED | {name for name in METHODS if name.startswith("models/")}
    local = {name: METHODS[name] for name in METHODS if name not in remote}
    return {**local, **dict.fromkeys(remote, relay.forward), "initialize": relay.initialize}


class Relay:
    """The connection to another computer, made when it is needed, and kept alive in a thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._link: ClientConnection | None = None
        self._number = 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="relay", daemon=True).start()

    def initialize(self, job: Request, folder: str | None = None, parent: int | None = None) -> dict[str, Any]:
        """As the method of the worker, with versions and devices of the other computer."""
        job.session.adopt(folder, parent)
        return {**self.forward(job), "pid": os.getpid(), "python": sys.executable, "address": self._address}

    def forward(self, job: Request, folder: str | None = None, **params: Any) -> dict[str, Any]:
        """Let the other computer answer."""
        from websockets.exceptions import ConnectionClosed

        self._number += 1
        try:
            return asyncio.run_coroutine_threadsafe(self._ask(job, job.folder(folder), params), self._loop).result()
        except ConnectionClosed as error:
            reason = (error.rcvd and error.rcvd.reason) or "run again."
            lost = WorkerError(f"The connection to the engine at {self._address} ended: {reason}")
            lost.detail = repr(error)
            raise lost from error

    async def _ask(self, job: Request, target: Path, params: dict[str, Any]) -> dict[str, Any]:
        """Send the images of a request, each content once, then the request; what the other computer answers."""
        uploads: dict[str, Path] = {}
        temporary: list[Path] = []
        received: dict[str, Path] = {}

        def named(item: dict[str, Any]) -> dict[str, Any]:
            path = Path(item["path"])
            if path.suffix.lower() != ".npy":  # other formats are read here
                from MedGenLib.worker.protocol.transfer import put, take

                item = put(take(item), target, f"sent-{self._number}-{len(temporary)}")
                temporary.append(path := Path(item["path"]))
            with path.open("rb") as stream:
                name = hashlib.file_digest(stream, "sha256").hexdigest()
            uploads[name] = path
            return {**item, "path": FILE + name}

        link = await self._connected(job)
        self._link = None  # until the answer is here, half of something may be on its way
        try:
            params = with_files(params, named)
            for name, path in uploads.items():
                await self._upload(link, job, name, path)
            await link.send(_text(messages.request(self._number, job.method, params)))
            message = await self._answer(link, job, target, received)
        except BaseException:
            await link.close()
            raise
        finally:
            for path in temporary:
                path.unlink()
        self._link = link
        if "error" in message:
            raise messages.exception_of(message["error"])
        return with_files(message["result"], lambda item: {**item, "path": str(received[item["path"]])})

    async def _upload(self, link: ClientConnection, job: Request, name: str, path: Path) -> None:
        size, done = path.stat().st_size, 0
        await link.send(_text(messages.request(None, "upload", {"id": self._number, "sha256": name, "bytes": size})))
        for piece in chunks(path):
            await link.send(piece)
            done += len(piece)
            job.progress(Progress("sending the input", done // CHUNK, -(-size // CHUNK)))

    async def _answer(
        self, link: ClientConnection, job: Request, target: Path, received: dict[str, Path]
    ) -> dict[str, Any]:
        """Take what comes until the answer: progress, and files for the folder."""
        path, is_cancelled = target, False
        while True:
            if job.cancelled.is_set() and not is_cancelled:
                is_cancelled = True
                await link.send(_text(messages.request(None, "cancel", {"id": self._number})))
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    data = await link.recv()
            except TimeoutError:
                continue
            if isinstance(data, bytes):
                with path.open("ab") as stream:
                    stream.write(data)
                continue
            message = messages.decode(data.encode())
            method, params = message.get("method"), message.get("params", {})
            if method == "file":
                path = target / f"{job.method.replace('/', '-')}-{job.number}-{len(received)}.npy"
                path.touch(exist_ok=False)
                received[params["name"]] = path
            elif method == "progress":
                job.last = Progress(params["stage"], params["step"], params["total"], params["seconds_left"])
                job.reported = time.monotonic()
                job.report()
            elif message.get("id") == self._number:
                return message

    async def _connected(self, job: Request) -> ClientConnection:
        """The connection, made if there is none. Raises InputError and WorkerError."""
        if self._link is not None and self._link.close_code is None:
            return self._link
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake, InvalidStatus

        self._address, host, port, secure = parsed(self._address)
        try:
            context, new = client_context(self._address, host, port) if secure else (None, "")
            if new:
                shown = fingerprint(new)
                job.log(f"The engine at {self._address} is new; its certificate has the fingerprint {shown}.")
            token = os.environ.get(TOKEN) or recall(self._address).get("token")
            link = await connect(
                self._address,
                ssl=context,
                proxy=None,
                compression=None,
                additional_headers={"Authorization": f"Bearer {token}"} if token else {},
                max_size=messages.LONGEST_LINE,
                write_limit=2**22,
            )
            if new:
                remember(self._address, certificate=new)
            return link
        except ssl.SSLCertVerificationError as error:
            raise WorkerError(
                f"The engine at {self._address} shows another certificate than before, so nothing was sent; if its "
                f"owner confirms the change, remove its entry from {config_path(KNOWN)}."
            ) from error
        except InvalidStatus as error:
            text = (error.response.body or b"").decode(errors="replace").strip()[:300]
            raise WorkerError(f"The engine at {self._address} refuses: {text or error}") from error
        except (OSError, InvalidHandshake) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise WorkerError(
                f"No engine answers at {self._address} ({reason}); check the address and that `medgen serve` runs."
            ) from error


def _text(message: dict[str, Any]) -> str:
    return messages.encode(message).decode()
