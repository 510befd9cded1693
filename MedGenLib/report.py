"""The report of a run: everything that is needed to judge the result and to make it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.io.atomic import write_json
from MedGenLib.io.provenance import NOTE, plain


@dataclass
class Attempt:
    """One try at one sample. A try that failed its checks stays in the report."""

    sample: int
    seed: int | None
    check: OutputCheck


@dataclass
class Report:
    """What was run, on what, with which result.

    Attributes
    ----------
    model, version: name and version of the package.
    task: "generate" or "translate".
    seed: of the first sample; None where nothing is random.
    preset, sampler, steps: None where the task has none.
    parameters: every other choice that changes the voxels.
    software: package -> version.
    device: the device in words.
    timings: stage -> seconds, in the order in which the stages ran.
    peak_memory_mib: largest memory in use, MiB.
    input_findings: what the input check said.
    output_checks: the check of each sample that was kept.
    attempts: all tries, including those that were given up for another seed.
    """

    model: str
    version: str
    task: str
    seed: int | None = None
    preset: str | None = None
    sampler: str | None = None
    steps: int | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    device: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: float | None = None
    input_findings: list[Finding] = field(default_factory=list)
    output_checks: list[OutputCheck] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    note: str = NOTE

    @property
    def passed(self) -> bool:
        """Whether the input was accepted and every sample passed its checks."""
        return all(check.passed for check in self.output_checks) and not any(
            finding.level == "error" for finding in self.input_findings
        )

    @property
    def sentences(self) -> list[str]:
        """What the user should read: all findings about the input and the samples kept."""
        findings = list(self.input_findings)
        for check in self.output_checks:
            findings += check.findings
        return list(dict.fromkeys(finding.sentence for finding in findings))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; figures that are not finite become None."""
        return {"passed": self.passed, **plain(self)}

    def write(self, path: str | Path) -> None:
        """Write JSON. The file appears complete or not at all; InputError if it cannot."""
        path = Path(path)
        try:
            write_json(path, self.to_dict())
        except OSError as error:
            raise InputError(
                f"The report '{path}' cannot be written: {error.strerror}; choose another place."
            ) from error
