"""Findings of input and output checks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume


SEEDLESS = ("range", "background")
"""Codes of failed checks that no other seed can pass: scale and background come from the package."""


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes
    ----------
    level: "warning", or "error" for an unusable input or a failed output.
    code: short and stable identifier, such as "spacing".
    sentence: one sentence for the user.
    """

    level: Literal["warning", "error"]
    code: str
    sentence: str


@dataclass
class OutputCheck:
    """Result of the output check.

    Attributes
    ----------
    findings: one of level "error" for each failed check, and warnings.
    figures: name of the check -> measured values for the report.
    """

    passed: bool = True
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def depends_on_seed(self) -> bool:
        """Whether another seed can pass the failed checks."""
        return not any(finding.level == "error" and finding.code in SEEDLESS for finding in self.findings)

    def fail(self, code: str, sentence: str) -> None:
        self.passed = False
        if (found := Finding("error", code, sentence)) not in self.findings:
            self.findings.append(found)


def require_usable(findings: Iterable[Finding]) -> None:
    """Raise InputError with the sentences of all findings of level "error"."""
    if errors := [finding.sentence for finding in findings if finding.level == "error"]:
        raise InputError(" ".join(errors))


def notes(image: Volume | LabelMap) -> list[Finding]:
    """Corrections made when the image was read (tilt, uneven gaps ...), as warnings."""
    return [Finding("warning", "input-note", note) for note in image.notes]
