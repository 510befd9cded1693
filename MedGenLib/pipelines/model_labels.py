"""A mask in the labels of a model, with the rest of the body filled. No torch."""

from __future__ import annotations

from pathlib import Path

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, require_usable
from MedGenLib.imaging.units import unit_doubt
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.body import fill_rest
from MedGenLib.labels.mapping import MappingReport, map_labels
from MedGenLib.labels.numbers import check_numbers
from MedGenLib.packages.manifest import Manifest


def model_labels(
    mask: str | Path | LabelMap,
    manifest: Manifest,
    mapping: dict[int | str, int | str] | str | None = None,
    fill: int | str | None = None,
    body_from: str | Path | Volume | None = None,
) -> tuple[LabelMap, MappingReport, list[Finding]]:
    """Map the labels of a mask to those of a model, and fill the body if requested or needed.

    Parameters
    ----------
    mapping, fill, body_from: as in `MedGenLib.generate`.

    Raises
    ------
    InputError: a label that cannot be mapped or does not look like what its number means, or no label of the model for
        the filling.
    """
    label_map = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    vocabulary = manifest.input.vocabulary
    labels, report = map_labels(label_map, vocabulary, mapping)
    is_filled = fill is not None or body_from is not None
    by_number = check_unit(labels, manifest) or check_numbers(labels, report, vocabulary, is_filled)
    require_usable(by_number)
    own = manifest.settings.body
    value = own if fill is None else vocabulary.value_of(fill)
    if fill is not None and not value:
        raise InputError(f"The model has no label '{fill}' to fill the body with: {vocabulary}.")
    if value is None and body_from is not None:
        raise InputError(
            f"The model '{manifest.name}' has no label for the rest of the body; give one with "
            f"--fill, such as '{vocabulary.labels[0].name}', in addition to --body-from."
        )
    if body_from is None and (value is None or fill is None and value in labels.values()):
        return labels, report, by_number
    image = body_from if isinstance(body_from, Volume | None) else read_volume(body_from)
    labels, findings = fill_rest(labels, value, image)
    # Findings of a filling from the mask are reported unless it was requested.
    return labels, report, [*by_number, *(findings if fill is None or image is not None else [])]


def check_unit(image: Volume | LabelMap, manifest: Manifest) -> list[Finding]:
    """An error if the grid is more likely in another unit than mm."""
    limits, view = manifest.spacing, manifest.field_of_view
    extents = list(zip(view.min, view.max, strict=True))
    doubt = unit_doubt(image.geometry, (limits.min, limits.max), extents) or unit_doubt(image.geometry)
    return [] if doubt is None else [Finding("error", "units", doubt)]
