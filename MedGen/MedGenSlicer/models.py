"""The installed models by name and by task, with sentences for those that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from MedGenLib.errors import InputError, LicenseError, PackageError
from MedGenLib.imaging.modality import same_modality
from MedGenLib.packages.catalogue import light_catalogue, translators
from MedGenLib.packages.license import is_accepted, license_notice

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


def find(name: str) -> Manifest:
    """The model of that name; PackageError with the names there are."""
    manifests = light_catalogue()
    for manifest in manifests:
        if manifest.name == name:
            return manifest
    raise PackageError(
        _("There is no model named '{name}'; the installed models are: {known}.").format(
            name=name, known=", ".join(manifest.name for manifest in manifests) or _("none")
        )
    )


def usable(name: str, task: str, acceptLicense: bool) -> Manifest:
    """The model of that name, for this task and with an accepted license.

    Raises
    ------
    PackageError: there is none. InputError: it has another task. LicenseError: its license is not accepted.
    """
    manifest = find(name)
    if manifest.task != task:
        reasons = {
            "translate": _("The model '{name}' translates images; use translate, or choose a model for masks."),
            "generate": _("The model '{name}' needs a mask; use generate, or choose a model for images."),
            "enhance": _("The model '{name}' restores images; use enhance, or choose another model."),
            "classify": _("The model '{name}' finds classes; use classify, or choose another model."),
            "sequence": _("The model '{name}' makes a series; use `medgen translate` in a terminal, or another model."),
            "detect": _("The model '{name}' finds lesions; use detect, or choose another model."),
        }
        other = _("The model '{name}' makes no images, it serves the evaluation; choose another model.")
        raise InputError(reasons.get(manifest.task, other).format(name=name))
    if not acceptLicense and not is_accepted(manifest):
        raise LicenseError(
            _("{notice} Read {file} and accept it in the panel, or give acceptLicense=True, if you agree.").format(
                notice=license_notice(manifest), file=manifest.folder / "LICENSE"
            )
        )
    return manifest


def translator(source: str | None, to: str) -> Manifest:
    """The first model that translates from one modality to another; PackageError with the translations there are."""
    known = translators(light_catalogue())
    for manifest in known:
        if same_modality(source, manifest.input.modality) and same_modality(to, manifest.output.modality):
            return manifest
    kinds = ", ".join(f"{model.input.modality} to {model.output.modality}" for model in known)
    raise PackageError(
        _("No model translates {source} to {to}; the translations are: {known}.").format(
            source=source or _("this image"), to=to, known=kinds or _("none")
        )
    )


def useOf(manifest: Manifest) -> str:
    """The use in `MedGenLib/requirements.txt` for which a run of a model needs more packages, "" for none."""
    return "models of MONAI" if manifest.pipeline == "maisi" else ""
