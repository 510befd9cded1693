"""The worker's methods for published models: what there is, the licence, the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from MedGenLib.progress import Stage

if TYPE_CHECKING:
    from MedGenLib.worker.server import Request


def list_available(job: Request) -> dict[str, Any]:
    """The published models that are not installed; the size of the download is in MB (10^6)."""
    from MedGenLib.packages.hub.install import DOWNLOAD_MB, available

    return {
        "models": [
            {
                "name": model.name,
                "description": model.description,
                "download_mb": DOWNLOAD_MB[model.name],
                "license": {**vars(model.license), "url": model.license_url},
            }
            for model in available()
        ]
    }


def show_license(job: Request, name: str, source: str | None = None) -> dict[str, Any]:
    """The licence of a published model as its source has it, and how much is to be downloaded.

    Returns
    -------
    text: what the user agrees to; accepted: whether the user has agreed before; bytes: size of all
    files; notice: one sentence.
    """
    from MedGenLib.packages.hub.install import offer
    from MedGenLib.packages.license import is_accepted, license_notice

    stage = Stage("asking the server", 1, job.progress)
    found = offer(name, source)
    stage.advance()
    return {
        "text": found.license_text,
        "notice": license_notice(found),
        "accepted": is_accepted(found),
        "bytes": found.bytes,
    }


def install_model(job: Request, name: str, source: str | None = None, accept_license: bool = False) -> dict[str, Any]:
    """Download, check, convert and add a published model, as `packages.install.install`."""
    from MedGenLib.packages.hub.install import install, offer

    manifest = install(offer(name, source), accept_license=accept_license, progress=job.progress)
    return {"name": manifest.name, "version": manifest.version, "folder": str(manifest.folder)}
