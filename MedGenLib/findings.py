"""What a check has to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from MedGenLib.errors import InputError

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import LabelMap, Volume


@dataclass(frozen=True)
class Finding:
    """One thing that a check noticed.

    Attributes
    ----------
    level: "warning" for what the user should know, "error" for an input that cannot run or an
        output that failed.
    code: short and stable, for programs, such as "spacing".
    sentence: one plain sentence for the user.
    """

    level: Literal["warning", "error"]
    code: str
    sentence: str


@dataclass
class OutputCheck:
    """What the output check found.

    Attributes
    ----------
    findings: one of level "error" for each check that failed, and warnings.
    figures: name of the check -> what was measured, plain numbers for the report.
    """

    passed: bool = True
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def fail(self, code: str, sentence: str) -> None:
        self.passed = False
        self.findings.append(Finding("error", code, sentence))


def require_usable(findings: Iterable[Finding]) -> None:
    """Raise InputError with the sentences of the findings of level "error", if there are any."""
    if errors := [finding.sentence for finding in findings if finding.level == "error"]:
        raise InputError(" ".join(errors))


def notes(image: Volume | LabelMap) -> list[Finding]:
    """What the reader had to do to the image (tilt, uneven gaps ...), as warnings."""
    return [Finding("warning", "input-note", note) for note in image.notes]
