"""Published models: list, license, download and installation.

>>> from MedGenLib.packages.hub import install
>>> offer = install.offer("nv-generate-ct")                       # doctest: +SKIP
>>> print(offer.license_text)                                     # doctest: +SKIP
>>> install.install(offer, accept_license=True)                   # doctest: +SKIP
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib import user_folders
from MedGenLib.errors import PackageError
from MedGenLib.packages import archive
from MedGenLib.packages.catalogue import catalogue
from MedGenLib.packages.export import write_package
from MedGenLib.packages.hub import convert
from MedGenLib.packages.hub import files as hub
from MedGenLib.packages.hub import texts as published_text
from MedGenLib.packages.hub.download import is_url
from MedGenLib.packages.hub.nv_generate import PUBLISHED, Published
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import LicenseSpec, Manifest
from MedGenLib.packages.rules import LICENSE
from MedGenLib.packages.store import refuse_taken
from MedGenLib.packages.weights import sha256
from MedGenLib.progress import ProgressCallback, Stage

if TYPE_CHECKING:
    import torch

DOWNLOAD_MB = {"nv-generate-ct": 1094, "nv-generate-ct-ddpm": 1036, "nv-generate-mr": 806, "nv-generate-mr-brain": 806}
"""Size of the published weights in MB (10^6 bytes): four bytes per parameter."""

LICENSE_FILES = (LICENSE, "LICENSE.weights")
"""File names of the license beside published weights; the first that exists is used."""


@dataclass(frozen=True)
class Offer:
    """A published model at one source, before the download of weights.

    Attributes
    ----------
    model: MedGen's description of it.
    files: role -> local file, or description of the server.
    license_text: text that the user accepts.
    mirror: URL of a mirror of the hub; None for the hub and for a folder.
    """

    model: Published
    files: Mapping[str, Path | hub.RemoteFile]
    license_text: str
    mirror: str | None = None

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def license(self) -> LicenseSpec:
        return self.model.license

    @property
    def license_place(self) -> str:
        return self.model.license_url

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(_size(file) for file in self.files.values())


def available(installed: Collection[str] | None = None) -> list[Published]:
    """The published models that are not installed.

    Parameters
    ----------
    installed: names of the installed models, if known.
    """
    if installed is None:
        installed = {manifest.name for manifest in catalogue()}
    return [model for name, model in PUBLISHED.items() if name not in installed]


def offer(name: str, source: str | Path | None = None) -> Offer:
    """Find the files of a published model without reading weights.

    Parameters
    ----------
    source: a folder with the published files, or the URL of a mirror of the hub; None for the hub, or the server in the
        environment variable HF_ENDPOINT.

    Raises
    ------
    PackageError: unknown name, already installed, a missing file, or no answer of the server.
    """
    if name not in PUBLISHED:
        raise PackageError(
            f"There is no published model named '{name}'; the published models are: {', '.join(PUBLISHED)}."
        )
    refuse_taken(name)
    model = PUBLISHED[name]
    if source is None or (isinstance(source, str) and is_url(source)):
        return _offer_of_server(model, source)
    return _offer_of_folder(model, Path(source).expanduser())


def install(offer: Offer, *, accept_license: bool = False, progress: ProgressCallback | None = None) -> Manifest:
    """Download, check, convert and add a published model to the user's models.

    An interrupted download is resumed by the next call. The package appears when it is complete; its license is then
    accepted for all runs.

    Parameters
    ----------
    progress: called while downloading (in MiB) and converting.

    Raises
    ------
    LicenseError: the license was not accepted.
    PackageError: not enough space, an interrupted download, a wrong checksum, or a file that is not the published one.
    """
    require_acceptance(offer, accept_license)
    folder = user_folders.cache_dir() / "downloads"
    target = user_folders.models_dir() / offer.name
    with downloading_alone(offer.name, folder):
        refuse_taken(offer.name)
        _remove_remains(target)
        _require_space(offer, folder)
        smallest_first = sorted(offer.files.items(), key=lambda item: _size(item[1]))  # faults are found early
        paths = {
            role: file if isinstance(file, Path) else hub.fetch(file, folder, offer.mirror, progress)
            for role, file in smallest_first
        }
        stage = Stage("converting", len(paths) + 1, progress)
        try:
            weights, scale = _weights(offer, paths, stage)
        except PackageError:  # a retry would fail the same way
            _forget_downloads(offer, folder)
            raise
        manifest = _written(offer, paths, weights, scale, target)
        _forget_downloads(offer, folder)
        stage.advance()
    return manifest


def _offer_of_server(model: Published, mirror: str | None) -> Offer:
    files = {}
    for role, published in model.files.items():
        found = hub.look_up(published.repo, published.path, mirror)
        if found is None:
            raise PackageError(
                f"The repository {published.repo} on {hub.endpoint_of(mirror)} has no file "
                f"{published.path}; use another source."
            )
        files[role] = found
    repo = model.files["flow"].repo
    licenses = (hub.look_up(repo, name, mirror) for name in LICENSE_FILES)
    there = next((remote for remote in licenses if remote is not None), None)
    text = hub.read_text(there, user_folders.cache_dir() / "downloads", mirror) if there else ""
    return Offer(model, files, published_text.license_text(model, text), mirror)


def _offer_of_folder(model: Published, folder: Path) -> Offer:
    if not folder.is_dir():
        raise PackageError(f"There is no folder '{folder}' with the published files.")
    files = {}
    for role, published in model.files.items():
        candidates = (folder / published.path, folder / Path(published.path).name)
        found = next((place for place in candidates if place.is_file()), None)
        if found is None:
            names = ", ".join(Path(file.path).name for file in model.files.values())
            raise PackageError(f"The folder {folder} lacks {Path(published.path).name}; {model.name} needs {names}.")
        files[role] = found
    texts = (folder / name for name in LICENSE_FILES)
    there = next((path for path in texts if path.is_file()), None)
    text = there.read_text(encoding="utf-8-sig", errors="replace") if there else ""
    return Offer(model, files, published_text.license_text(model, text))


def _size(file: Path | hub.RemoteFile) -> int:
    return file.size if isinstance(file, hub.RemoteFile) else file.stat().st_size


def _require_space(offer: Offer, folder: Path) -> None:
    """Require space for the remaining download and for the package, which is as large as all files."""
    models = user_folders.models_dir()
    models.mkdir(parents=True, exist_ok=True)
    remote = [file for file in offer.files.values() if isinstance(file, hub.RemoteFile)]
    downloads = sum(hub.missing_bytes(file, folder) for file in remote)
    if folder.stat().st_dev == models.stat().st_dev:
        archive.require_space(downloads + offer.bytes, models)
        return
    archive.require_space(downloads, folder)
    archive.require_space(offer.bytes, models)


def _weights(offer: Offer, paths: Mapping[str, Path], stage: Stage) -> tuple[dict[str, dict[str, torch.Tensor]], float]:
    """The tensors of each role, compared with its network, and the scale factor of the latents."""
    weights: dict[str, dict[str, torch.Tensor]] = {}
    scale = None
    for role in ("autoencoder", "flow", "controlnet"):
        if role not in paths:
            continue
        checkpoint = convert.read_checkpoint(paths[role], offer.model.files[role].state)
        network = offer.model.networks[role]
        # Upstream starts a ControlNet as a copy of the U-Net and then loads its file.
        fallback = weights["flow"] if role == "controlnet" else None
        weights[role] = convert.fitted(checkpoint, network["network"], network["arguments"], fallback)
        if role == "flow":
            scale = checkpoint.scale_factor
        stage.advance()
    if scale is None:
        raise PackageError(
            f"{paths['flow']} has no scale factor of the latents, so it is not the published "
            "file; use the file of this model."
        )
    return weights, scale


def _written(
    offer: Offer,
    paths: Mapping[str, Path],
    weights: Mapping[str, Mapping[str, torch.Tensor]],
    scale: float,
    target: Path,
) -> Manifest:
    metadata = offer.model.metadata()
    metadata["medgen"]["preprocessing"]["scale_factor"] = scale
    sources = _sources(offer, paths)
    metadata |= published_text.version_of(sources) | {"sources": sources}
    card = published_text.card(offer.model, sources)
    return write_package(target, metadata, weights, card, offer.license_text)


def _sources(offer: Offer, paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Origin of each file, for the package's metadata and card."""
    found = []
    for role, path in paths.items():
        published, file = offer.model.files[role], offer.files[role]
        remote = isinstance(file, hub.RemoteFile)
        found.append(
            {
                "role": role,
                "repository": published.repo,
                "file": published.path,
                "commit": file.commit if remote else "",
                "from": hub.endpoint_of(offer.mirror) if remote else "a folder",
                "sha256": sha256(path),
            }
        )
    return found


@contextmanager
def downloading_alone(name: str, folder: Path) -> Iterator[None]:
    """Allow one installation of a model at a time, across processes."""
    from huggingface_hub.utils import WeakFileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackageError(
            f"{folder} cannot be created: {error.strerror}; set MEDGEN_HOME to a writable folder."
        ) from error
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(folder / f"{name}.lock", timeout=0.5))
        except TimeoutError as error:
            raise PackageError(f"The model '{name}' is being installed by another process; wait for it.") from error
        yield


def _remove_remains(target: Path) -> None:
    """Delete the files of an installation that was killed while writing."""
    for remains in target.parent.glob(f".*.part.{target.name}"):
        shutil.rmtree(remains, ignore_errors=True)


def _forget_downloads(offer: Offer, folder: Path) -> None:
    for file in offer.files.values():
        if isinstance(file, hub.RemoteFile):
            with suppress(OSError):  # Windows does not delete memory-mapped files
                hub.place_of(file, folder).unlink(missing_ok=True)
