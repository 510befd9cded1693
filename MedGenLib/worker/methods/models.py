"""The worker's methods for model packages: those installed, and those published to install."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from MedGenLib.progress import Stage
from MedGenLib.worker.job import Request
from MedGenLib.worker.methods import method

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


@method("models/list")
def list_models(job: Request) -> dict[str, Any]:
    """The packages, and the unusable ones."""
    from MedGenLib.packages.catalogue import broken, catalogue

    return {
        "models": [_summary(manifest) for manifest in catalogue()],
        "broken": [{"folder": str(p.folder), "reason": p.reason} for p in broken()],
    }


@method("models/add")
def add_model(job: Request, source: str, sha256: str | None = None) -> dict[str, Any]:
    """Install a package from a folder, a .zip file or its URL."""
    from MedGenLib.packages import store

    return _summary(store.add(source, sha256=sha256, progress=job.progress))


@method("models/remove")
def remove_model(job: Request, name: str) -> dict[str, Any]:
    """Delete a package that the user added."""
    from MedGenLib.packages import store

    return {"folder": str(store.remove(name))}


@method("models/available")
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


@method("models/license")
def show_license(job: Request, name: str, source: str | None = None) -> dict[str, Any]:
    """The license of a published model at its source, and the size of the download.

    Returns
    -------
    text: license text; accepted: whether the user accepted it before; bytes: size of all
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


@method("models/install")
def install_model(job: Request, name: str, source: str | None = None, accept_license: bool = False) -> dict[str, Any]:
    """Download, check, convert and add a published model, as `packages.install.install`."""
    from MedGenLib.packages.hub.install import install, offer

    manifest = install(offer(name, source), accept_license=accept_license, progress=job.progress)
    return {"name": manifest.name, "version": manifest.version, "folder": str(manifest.folder)}


def _summary(manifest: Manifest) -> dict[str, Any]:
    from MedGenLib.packages.catalogue import is_embedded
    from MedGenLib.packages.license import is_accepted

    labels = {str(value): label.name for value, label in manifest.input.labels.items()}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "task": manifest.task,
        "input": {"kind": manifest.input.kind, "modality": manifest.input.modality, "labels": labels},
        "output": {"modality": manifest.output.modality, "unit": manifest.output.unit},
        "presets": list(manifest.sampler.presets) if manifest.sampler else [],
        "license": {
            "spdx": manifest.license.spdx,
            "commercial_use": manifest.license.commercial_use,
            "acceptance_required": manifest.license.acceptance_required,
            "accepted": is_accepted(manifest),
        },
        "embedded": is_embedded(manifest),
        "folder": str(manifest.folder),
    }
