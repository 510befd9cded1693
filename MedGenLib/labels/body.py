"""Filling of a segmentation up to the outline of the body, from an image of the patient or closed from the mask.

Models that take unlabeled voxels for air need it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.body import body_envelope_from_image, close_body
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import LabelMap, Volume

_APART, _DOUBTFUL = 0.9, 0.1
"""Share of the labeled voxels outside of the body in the image above which it is another patient, or doubtful; a lung
that the border of the image cuts is outside of the body, too."""
_CLOSED = 0.02
"""Smaller gaps are closed without a warning."""


def fill_rest(labels: LabelMap, value: int, image: Volume | None = None) -> tuple[LabelMap, list[Finding]]:
    """Give unlabeled voxels of the body the label `value`.

    Parameters
    ----------
    labels: in the labels of the model.
    image: of the same patient, on any grid, for the outline of the body; None closes it from the mask.

    Raises
    ------
    InputError: the mask is empty, the image shows no body, or the two do not lie over each other.
    """
    if not labels.array.any() and image is None:
        raise InputError("The mask is empty, so there is no body to close; label some voxels.")
    if image is None:
        return _closed(labels, value)
    body, findings = _outline(labels, image)
    return fill_body(labels, body, value), findings


def _closed(labels: LabelMap, value: int) -> tuple[LabelMap, list[Finding]]:
    filled = fill_body(labels, close_body(labels), value)
    added = np.count_nonzero(filled.array) - np.count_nonzero(labels.array)
    share = added / np.count_nonzero(filled.array)
    if share < _CLOSED:
        return filled, []
    name = labels.names.get(value, str(value))
    return filled, [
        Finding(
            "warning",
            "body-closed",
            f"The mask leaves gaps, so {share:.0%} of the body became '{name}', inside an outline "
            "drawn closely around the labels: skin and fat outside of them are missing; name an image "
            "of the patient for the true outline (command line: --body-from CT.nii.gz).",
        )
    ]


def _outline(labels: LabelMap, image: Volume) -> tuple[LabelMap, list[Finding]]:
    """The body in the image, on the grid of the mask, with every labeled voxel inside."""
    seen = resample_to(LabelMap(np.ones(image.shape, np.uint8), image.affine), labels.geometry).array
    if not seen.any():
        raise InputError(
            "The mask lies outside of the image that its body is to be taken from; give two of "
            "one patient and one frame of reference."
        )
    image = replace(image, modality=modality_of(image))
    body = resample_to(body_envelope_from_image(image), labels.geometry)
    labeled = labels.array > 0
    findings = []
    if labeled.any():
        outside = np.count_nonzero(labeled & (body.array == 0)) / np.count_nonzero(labeled)
        if outside > _APART:
            raise InputError(
                f"{outside:.0%} of the labeled voxels lie outside of the body in the image, so "
                "the two do not belong together; give a mask and an image of one patient and one "
                "frame of reference."
            )
        if outside > _DOUBTFUL:
            findings.append(
                Finding(
                    "warning",
                    "body-apart",
                    f"{outside:.0%} of the labeled voxels lie outside of the body in the image; see "
                    "whether mask and image lie over each other.",
                )
            )
    if not (labeled.any() or body.array.any()):
        raise InputError("The body in the image lies outside of the mask's grid; nothing to make.")
    return body.with_array((labeled | (body.array > 0)).astype(np.uint8)), findings


def fill_body(label_map: LabelMap, body: LabelMap, value: int) -> LabelMap:
    """Give unlabeled voxels inside the body the label `value`, and clear those outside of it."""
    filled = np.where(label_map.array == 0, np.min_scalar_type(value).type(value), label_map.array)
    return label_map.with_array(np.where(body.array > 0, filled, filled.dtype.type(0)))
