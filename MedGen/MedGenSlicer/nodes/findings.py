"""What the library finds in an input node, before anything is computed; without torch."""

from __future__ import annotations

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
    findings = [*notes(labels), *check_mask(labels, manifest)]
    if unknown:
        findings.insert(0, Finding("error", "unknown-labels", unmappedSentence(unknown, manifest)))
    return findings


def errorFinding(error: Exception) -> list[Finding]:
    """Of an input that cannot be used."""
    from MedGenLib.findings import Finding

    return [Finding("error", "input", str(error))]
