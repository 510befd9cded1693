"""What the library finds in an input node, before anything is computed; without torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.labels import mapLabels, unmappedSentence

if TYPE_CHECKING:
    from MedGenLib.findings import Finding


def imageFindings(snapshot: InputSnapshot, manifest) -> list[Finding]:
    """Of an image for a model that translates it."""
    from MedGenLib.checks.input import check_image
    from MedGenLib.findings import notes

    return [*notes(snapshot.image), *check_image(snapshot.image, manifest)]


def maskFindings(snapshot: InputSnapshot, manifest, mapping: Any = None) -> list[Finding]:
    """Of a mask for a model that generates from it."""
    from MedGenLib.checks.input import check_mask
    from MedGenLib.findings import Finding, notes

    labels, unknown = mapLabels(snapshot.image, manifest, snapshot.mappingByValue(mapping))
    findings = [*notes(labels), *_ofNumbers(snapshot.image, labels, manifest), *check_mask(labels, manifest)]
    if unknown:
        findings.insert(0, Finding("error", "unknown-labels", unmappedSentence(unknown, manifest)))
    return findings


def _ofNumbers(mask, labels, manifest) -> list[Finding]:
    """Doubts about segments that only their number matched; a warning, because the label table shows what they became.

    labels: the mask in the labels of the model, which the mapping of the panel made.
    """
    from MedGenLib.labels.mapping import map_labels
    from MedGenLib.labels.numbers import check_numbers

    vocabulary = manifest.input.vocabulary
    report = map_labels(mask, vocabulary, strict=False)[1]
    found = check_numbers(labels, report, vocabulary)
    return [replace(finding, level="warning") for finding in found if finding.level == "error"]


def errorFinding(error: Exception) -> list[Finding]:
    """Of an input that cannot be used."""
    from MedGenLib.findings import Finding

    return [Finding("error", "input", str(error))]
