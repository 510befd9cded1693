"""Installed models: those embedded in MedGen and those added by the user."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from MedGenLib import user_folders
from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.modality import same_modality
from MedGenLib.packages import rules
from MedGenLib.packages.manifest import Manifest, load_manifest

_DOCUMENTS = ("docs/", "LICENSE")
"""Files of a package without effect on images."""


@dataclass(frozen=True)
class BrokenPackage:
    """An unusable package folder, and one sentence why."""

    folder: Path
    reason: str


def embedded_dir() -> Path:
    """Folder of the packages shipped with MedGen, in the wheel or in the source tree."""
    library = Path(__file__).resolve().parents[1]
    inside = library / "Resources" / "Models"
    return inside if inside.is_dir() else library.parent / "Resources" / "Models"


def is_embedded(manifest: Manifest) -> bool:
    """Whether the package is shipped with MedGen."""
    return manifest.folder.resolve().parent == embedded_dir().resolve()


def catalogue() -> list[Manifest]:
    """All usable packages: embedded ones first, each group sorted by name."""
    return _scan()[0]


def light_catalogue() -> list[Manifest]:
    """All packages as in `catalogue`, read without schema validation.

    Needs no third-party library and a few milliseconds, for a panel that opens at once. Packages are validated on use.
    """
    return _scan(validate=False)[0]


def broken() -> list[BrokenPackage]:
    """Unusable package folders."""
    return _scan()[1]


def find(name: str) -> Manifest:
    """The package with this name.

    Raises PackageError if it is unknown (lists the known names), broken (says why), or published but not installed
    (says how to install it).
    """
    manifests, damaged = _scan()
    for manifest in manifests:
        if manifest.name == name:
            return manifest
    for package in damaged:
        if package.folder.name == name:
            raise PackageError(package.reason)
    from MedGenLib.packages.hub.nv_generate import PUBLISHED  # which imports manifests too

    if name in PUBLISHED:
        raise PackageError(f"The model '{name}' is not installed; get it with `medgen models install {name}`.")
    raise PackageError(f"There is no model named '{name}'; {_known(manifests)}.")


def for_generation() -> list[Manifest]:
    """Packages that generate images."""
    return [manifest for manifest in catalogue() if manifest.task == "generate"]


def translators(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Packages that translate images, those of the head first, because they refuse other parts of the body."""
    found = [manifest for manifest in manifests if manifest.task == "translate"]
    return sorted(found, key=lambda manifest: not manifest.needs_head)


def for_translation(source: str | None, target: str | None) -> Manifest:
    """The first package that turns modality `source` into `target`, see `translators`.

    "MR" stands for any MR contrast; a source of None (unknown) matches any package. Raises PackageError, with the
    available translations, if there is none, and InputError without a target.
    """
    if target is None:
        raise InputError("It is not stated what to make of the image; give a modality such as CT (--to), or a model.")
    known_ones = translators(catalogue())
    for manifest in known_ones:
        fits = same_modality(source, manifest.input.modality)
        if fits and same_modality(target, manifest.output.modality):
            return manifest
    known = ", ".join(f"{m.input} to {m.output.modality} ({m.name})" for m in known_ones)
    raise PackageError(
        f"No model translates {source or 'this image'} to {target}; the translations are: {known or 'none'}."
    )


def package_hash(manifest: Manifest) -> str:
    """SHA-256 over names and checksums of the files that determine a package's images.

    Independent of the card, the license and the metadata.
    """
    listing = "".join(
        f"{name} {sha}\n" for name, sha in sorted(manifest.checksums.items()) if not name.startswith(_DOCUMENTS)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def _known(manifests: list[Manifest]) -> str:
    names = ", ".join(manifest.name for manifest in manifests)
    return f"the installed models are: {names}" if names else "no model is installed"


def _scan(validate: bool = True) -> tuple[list[Manifest], list[BrokenPackage]]:
    manifests: dict[str, Manifest] = {}
    damaged: list[BrokenPackage] = []
    for folder in _folders(embedded_dir()) + _folders(user_folders.models_dir()):
        try:
            manifest = _manifest(folder, validate, _stamp(folder))
        except PackageError as error:
            damaged.append(BrokenPackage(folder, str(error)))
            continue
        if manifest.name in manifests:
            reason = f"{folder} is hidden by another model named '{manifest.name}'."
            damaged.append(BrokenPackage(folder, reason))
        else:
            manifests[manifest.name] = manifest
    return list(manifests.values()), damaged


@cache
def _manifest(folder: Path, validate: bool, stamp: tuple[int, int]) -> Manifest:
    return load_manifest(folder, validate)


def _stamp(folder: Path) -> tuple[int, int]:
    """Changes with the manifest of a folder."""
    try:
        found = (folder / rules.METADATA).stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _folders(parent: Path) -> list[Path]:
    """Package folders, sorted by name; hidden ones are incomplete."""
    try:
        entries = sorted(parent.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # the home of another user, or none
        return []
    except OSError as error:
        raise PackageError(f"The models in {parent} cannot be listed: {error.strerror}.") from error
    return [
        entry
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".") and not rules.is_litter(entry.name)
    ]
