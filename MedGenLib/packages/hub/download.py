"""Downloads over HTTP."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from MedGenLib.errors import PackageError
from MedGenLib.packages import rules
from MedGenLib.progress import Progress, ProgressCallback

BLOCK = 1 << 18
TIMEOUT_SECONDS = 30
SECRET = "authorization"
"""Header sent only to the requested server and not after a redirect."""


class Interrupted(PackageError):
    """The connection failed; another attempt may succeed."""


def is_url(text: str) -> bool:
    """Whether the text starts with a scheme, such as https://."""
    return "://" in text


def download(url: str, path: Path, sha256: str | None = None, progress: ProgressCallback | None = None) -> None:
    """Download an http(s) URL to `path`, a new file.

    Parameters
    ----------
    sha256: expected checksum in hexadecimal, compared before the function returns.
    progress: called with steps in KiB; the total is 0 if the server does not state it.

    Raises
    ------
    PackageError: not http(s), no answer, a server error, too large, interrupted, or the wrong checksum.
    OSError: `path` cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise PackageError(f"'{url}' is not an http or https address.")
    with path.open("x+b") as stream:
        transfer(url, stream, progress=progress)
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.strip().lower():
        raise PackageError(f"The checksum of {url} is {digest} and not {sha256}, so it is not the expected file.")


def transfer(
    url: str,
    stream: BinaryIO,
    start: int = 0,
    headers: Mapping[str, str] | None = None,
    limit: int | None = None,
    progress: ProgressCallback | None = None,
    stage: str = "downloading",
    unit: int = 1 << 10,
) -> None:
    """Write the content of a URL from byte `start` on, or all of it if the server supports no ranges.

    Parameters
    ----------
    stream: positioned at `start`.
    limit: largest size in bytes; None for that of packages.
    progress: called with steps of `unit` bytes; the total is 0 if the server does not state it.

    Raises
    ------
    Interrupted: no answer, or a broken connection; the received bytes are in the stream.
    PackageError: a server error, an unsafe redirect, or more bytes than the limit.
    OSError: the stream cannot be written.
    """
    limit = rules.MAX_PACKAGE_BYTES if limit is None else limit
    with _open(url, start, headers or {}) as response:
        if start and response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = stream.seek(0)
            stream.truncate()
        length = int(response.headers.get("Content-Length") or 0)
        done, total = start, start + length if length else 0
        began = time.monotonic()
        _report(progress, stage, unit, done, total, None)
        while block := _read(url, response):
            done += len(block)
            if max(done, total) > limit:
                raise PackageError(f"{url} is larger than the limit of {limit / rules.MIB:,.1f} MiB.")
            stream.write(block)
            left = (time.monotonic() - began) / (done - start) * (total - done) if total else None
            _report(progress, stage, unit, done, total, left)
    if done < total:
        sentence = f"The download of {url} was interrupted after {done:,} of {total:,} bytes."
        raise Interrupted(sentence) from EOFError(f"{done:,} of {total:,} bytes came")


def _open(url: str, start: int, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url)
    for name, value in headers.items():
        (request.add_unredirected_header if name.lower() == SECRET else request.add_header)(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            raise PackageError(
                f"The server answered '{error.code} {error.reason}' to {url}; check the address, or try again later."
            ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Interrupted(f"{url} cannot be reached: {reason}.") from error
    # A redirect must not lead from https to http, or to another protocol.
    scheme = urlsplit(response.geturl()).scheme
    if scheme not in ("https", urlsplit(url).scheme):
        response.close()
        raise PackageError(f"{url} redirects to {response.geturl()}, which is not safe.")
    return response


def _read(url: str, response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"The download of {url} was interrupted: {error}.") from error


def _report(
    progress: ProgressCallback | None, stage: str, unit: int, done: int, total: int, seconds_left: float | None
) -> None:
    if progress is not None:
        last = -(-total // unit)
        progress(Progress(stage, last if done >= total > 0 else done // unit, last, seconds_left))
