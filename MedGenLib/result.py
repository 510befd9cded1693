"""What `generate` and `translate` return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from MedGenLib.errors import PackageError
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.provenance import Provenance, Source, content_hash
from MedGenLib.packages.catalogue import find, package_hash
from MedGenLib.report import Report


@dataclass(frozen=True)
class Result:
    """Synthetic volumes on the input's grid, and the report.

    Attributes
    ----------
    volumes: one per sample.
    report: model, seeds, timings, checks.
    source: the input as read (the mask in the model's labels, or the image).
    uncertainty: in the volumes' unit, if requested: the half-width of an interval at each voxel, or the standard
        deviation over several samples, or over the views of a translation without such intervals.
    """

    volumes: list[Volume]
    report: Report
    source: LabelMap | Volume
    uncertainty: Volume | None = None

    @property
    def volume(self) -> Volume:
        """The first sample."""
        return self.volumes[0]

    def provenance(self, inputs: Sequence[Source] = (), sample: int = 0) -> Provenance:
        """Provenance of one sample, counted from 0."""
        report, volume = self.report, self.volumes[sample]
        kept = report.kept(sample)
        check = report.output_checks[sample] if sample < len(report.output_checks) else None
        findings = [*report.input_findings, *(check.findings if check else ())]
        return Provenance(
            modality=volume.modality,
            unit=volume.unit,
            model=report.model,
            version=report.version,
            package_sha256=_hash_of(report.model, report.version),
            task=report.task,
            seed=report.seed if kept is None else kept.seed,
            preset=report.preset,
            sampler=report.sampler,
            steps=report.steps,
            passed=check.passed if check is not None else None,
            checks=tuple(dict.fromkeys(finding.sentence for finding in findings)),
            inputs=tuple(inputs),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            output_sha256=content_hash(volume),
            parameters=report.parameters,
            software=report.software,
            device=report.device,
        )


def _hash_of(model: str, version: str) -> str:
    """Hash of a package; empty if this computer does not have it, or not in this version, as after a run elsewhere."""
    try:
        manifest = find(model)
    except PackageError:
        return ""
    return package_hash(manifest) if manifest.version == version else ""
