"""What the library finds in an input node, before anything is computed; without torch."""

from __future__ import annotations

from typing import Any

from MedGenLib.checks.input import check_image, check_mask
from MedGenLib.findings import Finding, notes
from MedGenSlicer.nodes.inputs import InputSnapshot
from MedGenSlicer.nodes.labels import mapLabels, unmappedSentence


def imageFindings(snapshot: InputSnapshot, manifest) -> list[Finding]:
    """Of an image for a model that translates it."""
    return [*notes(snapshot.image), *check_image(snapshot.image, manifest)]


def maskFindings(snapshot: InputSnapshot, manifest, mapping: Any = None) -> list[Finding]:
    """Of a mask for a model that generates from it."""
    labels, unknown = mapLabels(snapshot.image, manifest, snapshot.mappingByValue(mapping))
    findings = [*notes(labels), *check_mask(labels, manifest)]
    if unknown:
        findings.insert(0, Finding("error", "unknown-labels", unmappedSentence(unknown, manifest)))
    return findings


def errorFinding(error: Exception) -> list[Finding]:
    """Of an input that cannot be used."""
    return [Finding("error", "input", str(error))]
