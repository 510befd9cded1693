"""Filling of a segmentation up to the outline of the body, from an image of the patient or closed from the mask.

Models that take unlabeled voxels for air need it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.body import LayerDistances, body_envelope_from_image, close_body
from MedGenLib.imaging.modality import modality_of
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import LabelMap, Volume

_APART, _DOUBTFUL = 0.9, 0.1
"""Share of the labeled voxels outside of the body in the image above which it is another patient, or doubtful; a lung
that the border of the image cuts is outside of the body, too."""
OUTER_MM, WALL_MM, SKIN_MM = 18.0, 7.0, 2.0
"""Body outside of the labels, muscle on both sides of their outline, and skin, without an image."""
NEAR_BONE_MM, VISCERA_MM = 8.0, 40.0
"""Up to this distance from bone is muscle, and up to that from viscera fat."""
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
    if image is None:
        return _closed(labels, value)
    body, findings = _outline(labels, image)
    return fill_body(labels, body, value), findings


@dataclass(frozen=True)
class Tissues:
    """Labels of a model of tissues."""

    fat: int
    soft: int
    bone: int
    gas: int | None = None

    def of(self, name: str) -> int:
        """The label of "fat", "soft tissue" or "bone"."""
        return {"fat": self.fat, "soft tissue": self.soft, "bone": self.bone}[name]


def fill_layers(
    labels: LabelMap, tissues: Tissues, viscera: np.ndarray, image: Volume | None = None
) -> tuple[LabelMap, list[Finding]]:
    """Give unlabeled voxels of the body fat or soft tissue, by rule.

    Muscle lies near bones, in the wall around the labels, and where no viscera are near; the rest is fat, below skin.
    Without an image, wall, fat and skin are added outside of the labels, as far as the grid reaches.

    Parameters
    ----------
    labels: in the labels of the model, with bones and organs.
    viscera: bool, organs that fat surrounds.
    image: as in `fill_rest`.
    """
    closed = close_body(labels).array > 0
    codes = closed.astype(np.uint8)
    codes[viscera], codes[labels.array == tissues.bone] = 2, 3
    near = LayerDistances.of(codes, labels.affine)
    if image is None:
        body, findings = closed | (near.on(labels, near.outward) <= OUTER_MM), [_layered()]
    else:
        outline, findings = _outline(labels, image)
        body = outline.array > 0
    muscle = (near.bone <= NEAR_BONE_MM) | (np.fmax(near.inward, near.outward) <= WALL_MM)
    muscle |= (near.inward > 0) & (near.viscera > VISCERA_MM)
    soft = (near.on(labels, muscle) >= 0.5) | body & ~_without_skin(body, labels.spacing)
    rest = np.where(soft, tissues.soft, tissues.fat).astype(labels.array.dtype)
    return labels.with_array(np.where((labels.array == 0) & body, rest, labels.array)), findings


def _without_skin(body: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The body below the skin; it continues beyond the grid, and coarse voxels show no skin."""
    from scipy.ndimage import minimum_filter

    size = [1 + 2 * int(SKIN_MM / mm) if n > 1 else 1 for mm, n in zip(spacing, body.shape, strict=True)]
    return minimum_filter(body, size, mode="nearest")


def _layered() -> Finding:
    return Finding(
        "warning",
        "body-layered",
        "The mask labels organs only, so the rest of the body was filled with muscle, fat and skin by rule, around the "
        "labels; name an image of the patient for the true outline (command line: --body-from CT.nii.gz), or leave the "
        "rest empty (--fill background).",
    )


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
