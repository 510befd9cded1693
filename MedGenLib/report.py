"""The report of a run: everything needed to assess the result and to reproduce it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, OutputCheck
from MedGenLib.io.atomic import write_json
from MedGenLib.io.provenance import NOTE, plain


@dataclass
class Attempt:
    """One try at one sample; tries that failed their checks are kept."""

    sample: int
    seed: int | None
    check: OutputCheck


@dataclass
class Report:
    """Inputs, settings and results of a run.

    Attributes
    ----------
    model, version: name and version of the package.
    task: "generate" or "translate".
    seed: seed of the first sample; None without randomness.
    preset, sampler, steps: None if not applicable.
    parameters: all other options that change the voxels.
    software: package -> version.
    device: description of the device.
    timings: stage -> seconds, in order of execution.
    peak_memory_mib: peak memory in MiB.
    input_findings: findings of the input check.
    output_checks: the check of each returned sample.
    attempts: all tries, including those replaced by another seed.
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

    def kept(self, sample: int) -> Attempt | None:
        """The attempt whose volume was kept: the one that passed, the first if none did; None without attempts."""
        tries = [attempt for attempt in self.attempts if attempt.sample == sample]
        return next((attempt for attempt in tries if attempt.check.passed), tries[0] if tries else None)

    @property
    def sentences(self) -> list[str]:
        """Sentences for the user: all findings on the input and the returned samples."""
        findings = list(self.input_findings)
        for check in self.output_checks:
            findings += check.findings
        return list(dict.fromkeys(finding.sentence for finding in findings))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; numbers that are not finite become None."""
        return {"passed": self.passed, **plain(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        """The report that `to_dict` was made from; without `passed`, which follows from the checks."""

        def check(stored: Mapping[str, Any]) -> OutputCheck:
            return OutputCheck(**{**stored, "findings": [Finding(**finding) for finding in stored["findings"]]})

        read = {
            "input_findings": [Finding(**finding) for finding in values["input_findings"]],
            "output_checks": [check(stored) for stored in values["output_checks"]],
            "attempts": [Attempt(**{**tried, "check": check(tried["check"])}) for tried in values["attempts"]],
        }
        return cls(**{name: value for name, value in values.items() if name != "passed"} | read)

    def write(self, path: str | Path) -> None:
        """Write JSON, completely or not at all; InputError if that fails."""
        path = Path(path)
        try:
            write_json(path, self.to_dict())
        except OSError as error:
            raise InputError(
                f"The report '{path}' cannot be written: {error.strerror}; choose another path."
            ) from error
