"""Downloading one file over HTTP."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from MedGenLib.errors import PackageError
from MedGenLib.packages import rules
from MedGenLib.progress import Progress, ProgressCallback

BLOCK = 1 << 18
TIMEOUT_SECONDS = 30


def is_url(text: str) -> bool:
    """True when the text names something by a scheme, such as https://..."""
    return "://" in text


def download(url: str, path: Path, sha256: str | None = None, progress: ProgressCallback | None = None) -> None:
    """Save what an http(s) address holds to `path`, a new file.

    Parameters
    ----------
    sha256: expected checksum in hexadecimal, compared before the function returns.
    progress: called with steps in KiB; the total is 0 when the server does not tell it.

    Raises
    ------
    PackageError: another kind of address, no answer, an error of the server, too large, cut off,
        or the wrong checksum.
    OSError: `path` cannot be written.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise PackageError(f"'{url}' is not an http or https address.")
    with _open(url) as response, path.open("xb") as stream:
        digest = _copy(url, response, stream, progress)
    if sha256 is not None and digest != sha256.strip().lower():
        raise PackageError(f"The checksum of {url} is {digest} and not {sha256}, so it is not the file you want.")


def _open(url: str) -> http.client.HTTPResponse:
    try:
        response = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            raise PackageError(
                f"The server answered '{error.code} {error.reason}' to {url}; check the address."
            ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise PackageError(f"{url} cannot be reached: {reason}.") from error
    # A redirect must not lead from a protected connection to an open one, or to another protocol.
    scheme = urlsplit(response.geturl()).scheme
    if scheme not in ("https", urlsplit(url).scheme):
        response.close()
        raise PackageError(f"{url} redirects to {response.geturl()}, which is not safe to follow.")
    return response


def _copy(url: str, response, stream, progress: ProgressCallback | None) -> str:
    """Copies and returns the SHA-256."""
    total = int(response.headers.get("Content-Length") or 0)
    digest = hashlib.sha256()
    start, done = time.monotonic(), 0
    _report(progress, done, total, start)
    while block := _read(url, response):
        done += len(block)
        if max(done, total) > rules.MAX_PACKAGE_BYTES:
            limit = rules.MAX_PACKAGE_BYTES / rules.MIB
            raise PackageError(f"{url} is larger than the limit of {limit:,.1f} MiB.")
        digest.update(block)
        stream.write(block)
        _report(progress, done, total, start)
    if done < total:
        raise PackageError(f"The download of {url} was cut off after {done:,} of {total:,} bytes.")
    return digest.hexdigest()


def _read(url: str, response) -> bytes:
    try:
        return response.read(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise PackageError(f"The download of {url} was cut off: {error}.") from error


def _report(progress: ProgressCallback | None, done: int, total: int, start: float) -> None:
    if progress is None:
        return
    known = done > 0 and total > 0
    seconds_left = (time.monotonic() - start) / done * (total - done) if known else None
    progress(Progress("downloading", done >> 10, total >> 10, seconds_left))
