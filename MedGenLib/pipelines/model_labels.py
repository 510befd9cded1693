"""A mask in the labels of a model, with the rest of the body filled. No torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, require_usable
from MedGenLib.imaging.units import unit_doubt
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.body import fill_layers, fill_rest
from MedGenLib.labels.mapping import MappingReport, map_labels
from MedGenLib.labels.numbers import check_numbers
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.organ_levels import has_organs, organs_of, tissues_of


def model_labels(
    mask: str | Path | LabelMap,
    manifest: Manifest,
    mapping: dict[int | str, int | str] | str | None = None,
    fill: int | str | None = None,
    body_from: str | Path | Volume | None = None,
    outline: Volume | None = None,
    given: LabelMap | None = None,
) -> tuple[LabelMap, MappingReport, list[Finding]]:
    """Map the labels of a mask to those of a model, and fill the body if requested or needed.

    Parameters
    ----------
    mapping, fill, body_from: as in `MedGenLib.generate`.
    outline: image that shows the body where the rest of it is filled by rule.
    given: the mask as it was given, if it was extended since: its border cuts what it shows.

    Raises
    ------
    InputError: a label that cannot be mapped or does not look like what its number means, or no label of the model for
        the filling.
    """
    label_map = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    vocabulary = manifest.input.vocabulary
    labels, report = map_labels(label_map, vocabulary, mapping)
    is_filled = fill is not None or body_from is not None
    shown = labels if given is None else map_labels(given, vocabulary, mapping)[0]
    by_number = check_unit(labels, manifest) or check_numbers(shown, report, vocabulary, is_filled)
    require_usable(by_number)
    own = manifest.settings.body
    value = own if fill is None else vocabulary.value_of(fill)
    if fill is not None and value is None:
        raise InputError(f"The model has no label '{fill}' to fill the body with: {vocabulary}.")
    image = body_from if isinstance(body_from, Volume | None) else read_volume(body_from)
    if value is None and (viscera := _viscera(label_map, report, manifest)) is not None:
        labels, findings = fill_layers(labels, tissues_of(manifest), viscera, image or outline)
        return labels, report, [*by_number, *findings]
    if value is None and body_from is not None:
        raise InputError(
            f"The model '{manifest.name}' has no label for the rest of the body; give one with "
            f"--fill, such as '{vocabulary.labels[0].name}', in addition to --body-from."
        )
    if not value or body_from is None and fill is None and value in labels.values():
        return labels, report, by_number
    labels, findings = fill_rest(labels, value, image)
    # Findings of a filling from the mask are reported unless it was requested.
    return labels, report, [*by_number, *(findings if fill is None or image is not None else [])]


def _viscera(mask: LabelMap, report: MappingReport, manifest: Manifest) -> NDArray[np.bool_] | None:
    """Organs that fat surrounds, in a mask of bones and organs without fat; None for other masks and models."""
    if not has_organs(manifest):
        return None
    found, tissues = organs_of(report, manifest), tissues_of(manifest)
    viscera = [value for value, organ in found.items() if organ.tissue == "soft tissue" and organ.name != "muscle"]
    bones = [value for value, organ in found.items() if organ.tissue == "bone"]
    if not viscera or not bones or tissues.fat in report.mapped.values():
        return None
    return np.isin(mask.array, viscera)


def check_unit(image: Volume | LabelMap, manifest: Manifest) -> list[Finding]:
    """An error if the grid is more likely in another unit than mm."""
    limits, view = manifest.spacing, manifest.field_of_view
    extents = list(zip(view.min, view.max, strict=True))
    doubt = unit_doubt(image.geometry, (limits.min, limits.max), extents) or unit_doubt(image.geometry)
    return [] if doubt is None else [Finding("error", "units", doubt)]
