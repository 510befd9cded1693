"""The files of one run: reading its images, and what is recorded in the volumes that it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedGenLib.imaging.volume import LabelMap, Volume, as_stored
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.io.provenance import Provenance
from MedGenLib.options import changed, of

ROLES = {
    "image": "image",
    "volume": "image",
    "mask": "mask",
    "new_mask": "new mask",
    "style": "style",
    "body_from": "body",
    "lesion": "lesion",
    "labels": "labels",
    "second": "second stack",
    "third": "third stack",
}
"""Option -> role of the image in the provenance."""
UNRECORDED = {*ROLES, "model", "seed", "samples", "retries", "uncertainty", "series", "accept_license"}
"""Options that the provenance holds elsewhere, or that do not change one volume."""


def read_input(
    command: str, name: str, path: Path, stated: Mapping[str, Any], stored: bool = False
) -> Volume | LabelMap:
    """Read the image of an option.

    Parameters
    ----------
    stated: may hold series, modality and hu_offset of a scan.
    stored: integers in the format stored in files.
    """
    kinds = {option.name: option.image for option in of(command, "cli").values()}
    if kinds[name] == "labels":
        return read_label_map(path)
    given = [stated.get(key) for key in ("series", "modality", "hu_offset")] if ROLES.get(name) == "image" else []
    if command == "enhance":
        from MedGenLib.enhancement.inputs import read_any

        return read_any(path, *given)
    image = read_volume(path, *given)
    return as_stored(image) if stored else image


def recorded_options(command: str, options: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make the same volume again, for its provenance; ``stated`` as of `read_input`."""
    read = {name: stated.get(name) for name in ("modality", "hu_offset")}
    values = {**read, **changed(command, options, "python")}
    return {name: value for name, value in values.items() if value is not None and name not in UNRECORDED}


def with_forms(volume: Volume, images: Iterable[Volume | LabelMap]) -> Volume:
    """The volume with both positions of the input in whose grid it lies, for NIfTI headers."""
    all_forms = [image.forms for image in images if image.forms is not None]
    return replace(volume, forms=next((forms for forms in all_forms if forms.is_of(volume.affine)), None))


def write_with_facts(volume: Volume, path: Path, facts: Provenance, beside: Path | None = None) -> None:
    """Write the volume with its provenance in the header and in a JSON file, by default `sidecar(path)`."""
    write_volume(volume, path, facts)
    facts.write_beside(path, beside)
