"""Checks of an input against the model that reads it.

A finding of level "error" means that the model cannot run on the input, a "warning" that the
result may be worse than the model card states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import listed
from MedGenLib.findings import Finding
from MedGenLib.imaging.body import close_body
from MedGenLib.imaging.head import head_problem
from MedGenLib.imaging.modality import (
    contrast_doubt,
    guess_modality,
    has_offset,
    hu_problem,
    looks_like_labels,
    modality_doubt,
    modality_family,
)
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.volume import LabelMap, Volume, by_axis
from MedGenLib.pipelines.model_labels import check_unit

if TYPE_CHECKING:
    from MedGenLib.labels.mapping import MappingReport
    from MedGenLib.packages.manifest import Manifest

INVENTS = (
    "The model was trained without pairs, so it may add or remove lesions: nothing showed it what is true; do not read "
    "or measure lesions in its images."
)
_LARGEST_GAP = 0.1
_NAMED = 6  # labels that a sentence names


def check_mask(label_map: LabelMap, manifest: Manifest) -> list[Finding]:
    """Check a mask in the labels of the model.

    Errors: the mask is empty, or has labels that the model does not know. Warnings: labels of the
    model that are absent (unless it was trained on partial masks), spacing or field of view
    outside of the range of the model.
    """
    found = [int(value) for value in label_map.values()]
    if not found:
        return [_error("empty-mask", "The mask is empty: all voxels are 0; draw or load labels.")]
    known = manifest.input.labels
    findings = []
    if unknown := [value for value in found if value not in known]:
        names = [f"{value}{_in_brackets(label_map.names.get(value))}" for value in unknown]
        findings.append(
            _error(
                "unknown-labels",
                f"The mask has labels that the model '{manifest.name}' does not know: "
                f"{listed(names, _NAMED)}; map each to one of its labels, as in --map {unknown[0]}="
                f"{next(iter(known), 1)}.",
            )
        )
    absent = [f"{label.name} ({value})" for value, label in known.items() if value not in found]
    if absent and not manifest.settings.partial:
        findings.append(
            _warning(
                "absent-labels",
                f"The mask has no voxels of {listed(absent, _NAMED)}; "
                "where the body should show them, add them to the mask.",
            )
        )
    return findings + _check_geometry(label_map, manifest)


def check_left_out(mapped: MappingReport, manifest: Manifest) -> list[Finding]:
    """A warning that names the labels that became background because the model does not make them."""
    if not mapped.left_out:
        return []
    names = listed([mapped.names[value] for value in mapped.left_out], _NAMED)
    return [
        _warning(
            "left-out", f"The model '{manifest.name}' does not make {names}: what has these labels becomes background."
        )
    ]


def check_gaps(label_map: LabelMap, manifest: Manifest) -> list[Finding]:
    """A warning where much of the body around a segmentation of organs has no label.

    Only for models that take unlabeled voxels for air. The setting "fill" of a package names the
    label for such gaps.
    """
    if manifest.settings.outside != "background":
        return []
    labeled = int(np.count_nonzero(label_map.array))
    share = 1 - labeled / max(1, int(np.count_nonzero(close_body(label_map).array)))
    if share < _LARGEST_GAP:
        return []
    label = manifest.settings.fill or next(iter(manifest.input.labels.values())).name
    left = "air" if manifest.output.unit == "HU" else "background"
    return [
        _warning(
            "gaps",
            f"{share:.0%} of the body that the mask outlines has no label and becomes {left}; fill "
            f"it with {label} or another label (command line: --fill '{label}').",
        )
    ]


def check_image(volume: Volume, manifest: Manifest) -> list[Finding]:
    """Check the source of a translation.

    The modality is that of the volume, else it is guessed from the values. Errors: another
    modality or contrast than the model reads, no whole head for a model of the head, or a
    constant image. Warnings: a modality that the values contradict, an unknown modality, spacing
    or field of view outside of the range of the model.
    """
    if np.ptp(volume.array) == 0:
        value = float(volume.array.flat[0])
        return [_error("constant-image", f"Every voxel of the image is {value:g}; load another.")]
    if volume.modality is None and looks_like_labels(volume):
        return [_error("mask", "The image has so few values that it looks like a mask; give a CT or an MR image.")]
    findings = [
        *_check_modality(volume, manifest),
        *check_named(volume, manifest.input.modality),
        *([] if manifest.settings.paired else [_warning("unpaired-model", INVENTS)]),
        *_check_geometry(volume, manifest),
    ]
    if any(finding.level == "error" for finding in findings) or not manifest.needs_head:
        return findings
    problem = head_problem(volume)
    return findings + (
        [_error("no-head", f"{problem}; {_needs(manifest)} of a whole head.{_other(manifest)}")] if problem else []
    )


def _other(manifest: Manifest) -> str:
    """A sentence on the first model of the same modalities that takes other parts of the body."""
    from MedGenLib.packages.catalogue import light_catalogue, translators

    ends = (manifest.input.modality, manifest.output.modality)
    names = [
        m.name
        for m in translators(light_catalogue())
        if (m.input.modality, m.output.modality) == ends and not m.needs_head
    ]
    return f" For limbs use the model '{names[0]}'." if names else ""


def check_stated(volume: Volume) -> list[Finding]:
    """A warning if the values of an image contradict the modality that it states."""
    doubt = modality_doubt(volume)
    return [_warning("doubtful-modality", doubt)] if doubt else []


def check_named(volume: Volume, needed: str) -> list[Finding]:
    """A warning if only the name of the file states the contrast, and it is another than the needed one."""
    doubt = contrast_doubt(volume, needed)
    return [_warning("doubtful-contrast", doubt)] if doubt else []


def _check_modality(volume: Volume, manifest: Manifest) -> list[Finding]:
    needed, stated, guess = manifest.input.modality, volume.modality, guess_modality(volume)
    could_be_ct = stated == "CT" or stated is None and guess != "MR"
    if modality_family(needed) == "CT" and could_be_ct and (problem := hu_problem(volume)):
        return [_error("hu-offset" if has_offset(volume) else "not-hu", problem)]
    model = _needs(manifest)
    if stated is not None and modality_family(stated) != modality_family(needed):
        return [_error("wrong-modality", f"The image is {stated}, but {model}; choose another.")]
    if stated is None and guess is not None and guess != modality_family(needed):
        return [
            _error(
                "wrong-modality",
                f"The image looks like {guess} by its values, but {model}; give such an image, or another model.",
            )
        ]
    if guess is None and stated is None:
        return [
            _warning(
                "unknown-modality",
                f"The values do not show whether this is CT in HU or MR, and {model}; make sure that it is.",
            )
        ]
    if guess not in (None, modality_family(needed)):
        return [
            _warning(
                "doubtful-modality",
                f"The image is stated to be {stated} but looks like {guess} by its values, and "
                f"{model}; make sure that it is.",
            )
        ]
    if needed != "MR" and stated not in (None, "MR", needed):
        return [
            _error(
                "other-contrast",
                f"The image is stated to be {stated}, but {model}; give that, or correct the contrast if its header is "
                "wrong (command line: --modality MR).",
            )
        ]
    return []


def _needs(manifest: Manifest) -> str:
    modality = manifest.input.modality
    kind = {"CT": "CT in HU", "MR": "MR"}.get(modality, f"{modality} MR")
    return f"the model '{manifest.name}' needs {kind}"


def _check_geometry(image: Volume | LabelMap, manifest: Manifest) -> list[Finding]:
    return check_unit(image, manifest) or _check_spacing(image, manifest) + _check_field_of_view(image, manifest)


def _check_spacing(image: Volume | LabelMap, manifest: Manifest) -> list[Finding]:
    limits = manifest.spacing
    # The thickness of a single slice is not sampled, so it cannot be too coarse.
    used = [mm for mm, n in zip(image.spacing, image.shape, strict=True) if n > 1] or image.spacing
    # A header in single precision loses a millionth.
    coarse, fine = max(used) > limits.max * (1 + 1e-6), min(used) < limits.min * (1 - 1e-6)
    if not coarse and not fine:
        return []
    effect = (
        "fine structures may be missing or jagged"
        if coarse
        else f"details finer than {limits.native:g} mm will not be made"
    )
    return [
        _warning(
            "spacing",
            f"The voxels measure {by_axis(image.spacing, '.3g')} mm, but the model '{manifest.name}' was made "
            f"for {limits.min:g} to {limits.max:g} mm; {effect}.",
        )
    ]


def _check_field_of_view(image: Volume | LabelMap, manifest: Manifest) -> list[Finding]:
    limits = manifest.field_of_view
    reorientation = Reorientation.to(image.geometry, "RAS")
    view, count = reorientation.axes(image.field_of_view), reorientation.axes(image.shape)
    small, large = [], []
    for mm, voxels, low, high, name in zip(
        view, count, limits.min, limits.max, ("left-right", "front-back", "head-foot"), strict=True
    ):
        if voxels == 1:
            continue
        if mm < low * (1 - 1e-6):
            small.append(f"{name} {mm:.0f} mm (at least {low:g})")
        if mm > high * (1 + 1e-6):
            large.append(f"{name} {mm:.0f} mm (at most {high:g})")
    findings = []
    if small:
        findings.append(
            _warning(
                "small-field-of-view",
                f"The field of view is smaller than the model '{manifest.name}' was made for: "
                f"{', '.join(small)}; it may not recognize the anatomy.",
            )
        )
    if large:
        findings.append(
            _warning(
                "large-field-of-view",
                f"The field of view is larger than the model '{manifest.name}' was made for: "
                f"{', '.join(large)}; parts that it never saw may be wrong.",
            )
        )
    return findings


def _in_brackets(name: str | None) -> str:
    return f" ({name})" if name else ""


def _error(code: str, sentence: str) -> Finding:
    return Finding("error", code, sentence)


def _warning(code: str, sentence: str) -> Finding:
    return Finding("warning", code, sentence)
