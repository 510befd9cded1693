"""Files of the Hugging Face hub or of a mirror with its API: resumable downloads, checked."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from MedGenLib.errors import PackageError
from MedGenLib.packages import rules
from MedGenLib.packages.hub.download import Interrupted, transfer
from MedGenLib.progress import ProgressCallback

HUB = "https://huggingface.co"
ATTEMPTS, PAUSE_SECONDS = 5, 1.0
"""Consecutive attempts without a byte after which a download fails, and the seconds between them."""
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """One file as described by the server.

    Attributes
    ----------
    repo, path: repository ("owner/name") and path in it.
    url: URL of the content at the commit found.
    size: size in bytes.
    checksum: SHA-256 of a large file, or Git's SHA-1 of a small one, in hexadecimal.
    commit: the repository's commit, "" if a mirror does not state it.
    """

    repo: str
    path: str
    url: str
    size: int
    checksum: str
    commit: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rsplit("/", 1)[-1]


def endpoint_of(mirror: str | None) -> str:
    """URL of the server: the mirror, HF_ENDPOINT, or the hub."""
    return (mirror or os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def look_up(repo: str, path: str, mirror: str | None = None) -> RemoteFile | None:
    """Look up a file on the server; None if the repository has no such file.

    Raises PackageError for a missing repository, no access, no answer, or an answer without size or checksum.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    endpoint = endpoint_of(mirror)
    url = hf_hub_url(repo, path, endpoint=endpoint)
    try:
        found = get_hf_file_metadata(url, token=_token(mirror))
    except EntryNotFoundError:
        return None
    except Exception as error:  # exceptions of the HTTP library differ between versions
        reason = _reason(error)
        unreachable = (
            f"{endpoint} cannot be reached ({reason}); check the network connection, or install "
            "from a folder with --from FOLDER."
        )
        raise PackageError(_refusal(error, repo, url) or unreachable) from error
    checksum = (found.etag or "").lower()
    known = SHA256.fullmatch(checksum) or GIT_SHA1.fullmatch(checksum)
    if found.size is None or not known:
        raise PackageError(
            f"The server {endpoint} does not state the size and the checksum of {path}, so a "
            "download cannot be checked; use another mirror or a folder with the files."
        )
    pinned = hf_hub_url(repo, path, revision=found.commit_hash, endpoint=endpoint)
    return RemoteFile(repo, path, pinned, found.size, checksum, found.commit_hash or "")


def fetch(
    remote: RemoteFile, folder: Path, mirror: str | None = None, progress: ProgressCallback | None = None
) -> Path:
    """Download a file into `folder` (see `place_of`), unless it exists.

    An interrupted download is resumed by the next call.

    Parameters
    ----------
    progress: called in MiB.

    Raises
    ------
    PackageError: no answer, too many interruptions, a wrong checksum (the file is then deleted), or a full disk.
    """
    whole, part = place_of(remote, folder), part_of(remote, folder)
    if not whole.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.touch()
            with part.open("r+b") as stream:
                _download(remote, stream, mirror, progress)
            _check(remote, part)
            os.replace(part, whole)
        except OSError as error:
            raise PackageError(_disk_sentence(error, remote, folder)) from error
    return whole


def place_of(remote: RemoteFile, folder: Path) -> Path:
    """Path of a file downloaded by `fetch`: its name with a part of its checksum."""
    return folder / f"{remote.checksum[:12]}-{remote.name}"


def part_of(remote: RemoteFile, folder: Path) -> Path:
    """Path of a partial download of `fetch`."""
    whole = place_of(remote, folder)
    return whole.with_name(f"{whole.name}.part")


def missing_bytes(remote: RemoteFile, folder: Path) -> int:
    """Bytes still to be downloaded into `folder`."""
    for path in (place_of(remote, folder), part_of(remote, folder)):
        if path.is_file():
            return max(0, remote.size - path.stat().st_size)
    return remote.size


def read_text(remote: RemoteFile, folder: Path, mirror: str | None = None) -> str:
    """Content of a small text file, downloaded into `folder` temporarily."""
    if remote.size > rules.MIB:
        raise PackageError(f"{remote.path} of {remote.repo} is too large for a text file.")
    path = fetch(remote, folder, mirror)
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    finally:
        path.unlink()


def _token(mirror: str | None) -> bool | None:
    """The user's token is sent only to the server configured by the user."""
    return False if mirror else None


def _download(remote: RemoteFile, stream: BinaryIO, mirror: str | None, progress: ProgressCallback | None) -> None:
    """Append the missing bytes, retrying until several consecutive attempts receive none.

    `huggingface_hub.hf_hub_download` deletes a partial download when it is stopped.
    """
    from huggingface_hub.utils import build_hf_headers

    headers, stage = build_hf_headers(token=_token(mirror)), f"downloading {remote.name} (MiB)"
    attempts, done = ATTEMPTS, _usable(stream, remote)
    while done < remote.size:
        fault: Exception = EOFError("the server closed the connection")
        try:
            transfer(remote.url, stream, done, headers, remote.size, progress, stage, rules.MIB)
        except Interrupted as error:
            fault = error.__cause__ or error
        before, done = done, _usable(stream, remote)
        if done < remote.size:
            attempts = ATTEMPTS if done > before else attempts - 1
            if not attempts:
                raise PackageError(
                    f"The download of {remote.name} was interrupted ({_reason(fault)}); try again, and it "
                    "resumes where it stopped."
                ) from fault
            time.sleep(PAUSE_SECONDS)


def _usable(stream: BinaryIO, remote: RemoteFile) -> int:
    """Number of usable bytes; 0 for a file that is too long."""
    done = stream.seek(0, os.SEEK_END)
    if done > remote.size:
        stream.truncate(0)
        done = stream.seek(0)
    return done


def _check(remote: RemoteFile, path: Path) -> None:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, _new_hash(remote)).hexdigest()
    if digest != remote.checksum:
        path.unlink()
        raise PackageError(
            f"The checksum of {remote.name} from {remote.repo} is wrong, so it was damaged on the "
            "way or replaced; it was deleted, try again or use another mirror."
        )


def _new_hash(remote: RemoteFile) -> Callable[[], Any]:
    if SHA256.fullmatch(remote.checksum):
        return hashlib.sha256

    def blob() -> Any:  # Git's hash of a file: SHA-1 of a header and the content
        return hashlib.sha1(f"blob {remote.size}\0".encode(), usedforsecurity=False)

    return blob


def _refusal(error: Exception, repo: str, url: str) -> str | None:
    """Sentence on why the server rejected a request; None for connection errors."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            f"The hub asks you to accept the terms of {repo} first; do so on {HUB}/{repo} and set "
            "HF_TOKEN to an access token of your account."
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"There is no repository {repo} at {url}; check the address."
    if isinstance(error, OfflineModeIsEnabled):
        return (
            "The hub cannot be used because HF_HUB_OFFLINE is set; unset it, or install from a "
            "folder with --from FOLDER."
        )
    if isinstance(error, HfHubHTTPError):
        status = getattr(error.response, "status_code", "an error")
        return f"The server answered {status} to {url}; try again later."
    return None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def _disk_sentence(error: OSError, remote: RemoteFile, folder: Path) -> str:
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    reason = "the disk is full" if full else str(error.strerror or error).lower()
    return (
        f"{remote.name} cannot be saved in {folder}: {reason}; free some space or set MEDGEN_HOME to "
        "another disk, and the download resumes where it stopped."
    )
