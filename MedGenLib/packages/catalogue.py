"""Which models there are: the ones embedded in MedGen and the ones the user added."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from MedGenLib import user_folders
from MedGenLib.errors import PackageError
from MedGenLib.imaging.modality import same_modality
from MedGenLib.packages import rules
from MedGenLib.packages.manifest import Manifest, load_manifest

_DOCUMENTS = ("docs/", "LICENSE")
"""Files of a package that change no image."""


@dataclass(frozen=True)
class BrokenPackage:
    """A folder among the packages that cannot be used, and one sentence why."""

    folder: Path
    reason: str


def embedded_dir() -> Path:
    """Folder of the packages that ship with MedGen: in the wheel or in the source tree."""
    library = Path(__file__).resolve().parents[1]
    inside = library / "Resources" / "Models"
    return inside if inside.is_dir() else library.parent / "Resources" / "Models"


def is_embedded(manifest: Manifest) -> bool:
    """True when the package ships with MedGen."""
    return manifest.folder.resolve().parent == embedded_dir().resolve()


def catalogue() -> list[Manifest]:
    """Every usable package: embedded ones first, each group by name."""
    return _scan()[0]


def light_catalogue() -> list[Manifest]:
    """Every package as `catalogue` lists it, but read without validation by the schema.

    Needs no third-party library and a few milliseconds: for a panel that opens at once. What this
    list holds is validated when it is used.
    """
    return _scan(validate=False)[0]


def broken() -> list[BrokenPackage]:
    """Folders among the packages that cannot be used."""
    return _scan()[1]


def find(name: str) -> Manifest:
    """The package of that name.

    Raises
    ------
    PackageError: unknown (lists the known names), there but broken (tells why), or published but
        not installed (tells how).
    """
    manifests, damaged = _scan()
    for manifest in manifests:
        if manifest.name == name:
            return manifest
    for package in damaged:
        if package.folder.name == name:
            raise PackageError(package.reason)
    if name in _published():
        raise PackageError(f"The model '{name}' is not installed; get it with `medgen models install {name}`.")
    raise PackageError(f"There is no model named '{name}'; {_known(manifests)}.")


def for_generation() -> list[Manifest]:
    """Packages that make an image from labels."""
    return [manifest for manifest in catalogue() if manifest.task == "generate"]


def for_translation(source: str | None, target: str) -> Manifest:
    """The first package that turns modality `source` into `target`.

    "MR" stands for any MR contrast; a source of None, not known, fits any package.

    Raises
    ------
    PackageError: there is none; lists the translations there are.
    """
    translators = [manifest for manifest in catalogue() if manifest.task == "translate"]
    for manifest in translators:
        fits = same_modality(source, manifest.input.modality)
        if fits and same_modality(target, manifest.output.modality):
            return manifest
    known = ", ".join(f"{m.input} to {m.output.modality} ({m.name})" for m in translators)
    raise PackageError(
        f"No model translates {source or 'this image'} to {target}; the translations are: {known or 'none'}."
    )


def package_hash(manifest: Manifest) -> str:
    """SHA-256 over names and checksums of the files of a package that decide on its images.

    The card and the licence may be written anew, and so may the metadata: same weights, same hash.
    """
    listing = "".join(
        f"{name} {sha}\n" for name, sha in sorted(manifest.checksums.items()) if not name.startswith(_DOCUMENTS)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def _published() -> Iterable[str]:
    from MedGenLib.packages.hub.nv_generate import PUBLISHED  # which imports manifests, as this does

    return PUBLISHED


def _known(manifests: list[Manifest]) -> str:
    names = ", ".join(manifest.name for manifest in manifests)
    return f"the installed models are: {names}" if names else "no model is installed"


def _scan(validate: bool = True) -> tuple[list[Manifest], list[BrokenPackage]]:
    manifests: dict[str, Manifest] = {}
    damaged: list[BrokenPackage] = []
    for folder in _folders(embedded_dir()) + _folders(user_folders.models_dir()):
        try:
            manifest = load_manifest(folder, validate)
        except PackageError as error:
            damaged.append(BrokenPackage(folder, str(error)))
            continue
        if manifest.name in manifests:
            reason = f"{folder} is hidden by another model that is named '{manifest.name}'."
            damaged.append(BrokenPackage(folder, reason))
        else:
            manifests[manifest.name] = manifest
    return list(manifests.values()), damaged


def _folders(parent: Path) -> list[Path]:
    """Package folders, by name; hidden ones are packages in the making."""
    try:
        entries = sorted(parent.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PackageError(f"The models in {parent} cannot be listed: {error.strerror}.") from error
    return [
        entry
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".") and not rules.is_litter(entry.name)
    ]
