"""How a synthetic volume was made, kept as attributes of its node, so that it is saved with the scene."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from slicer.i18n import tr as _

PREFIX = "MedGen."
SYNTHETIC = PREFIX + "Synthetic"
MODALITY = PREFIX + "Modality"
NOTE = "synthetic - not for diagnosis"

_TEXTS = {
    "model": "Model",
    "modelVersion": "ModelVersion",
    "task": "Task",
    "preset": "Preset",
    "device": "Device",
    "modality": "Modality",
    "unit": "Unit",
    "input": "Input",
    "python": "Python",
    "note": "Note",
    "content": "Content",
}
_JSON = {"parameters": "Parameters", "software": "Software", "checks": "Checks", "timings": "Timings"}


@dataclass(frozen=True)
class NodeProvenance:
    """What is kept with a synthetic volume.

    Attributes
    ----------
    model, modelVersion, task ("generate" or "translate"), preset, device: of the report.
    seed: of this volume; None where nothing is random.
    parameters, software, timings: of the report.
    checks: sentences of the quality check.
    passed: whether the checks passed; None where nothing was checked.
    input: name of the input node.
    python: the line that makes it again in Slicer's Python console.
    content: "image"; "spread" for how far each voxel may be off; "error" for an error
        map, whose reference is among the parameters; "saliency" for what speaks for a class, the parameter "target".
    """

    model: str = ""
    modelVersion: str = ""
    task: str = ""
    seed: int | None = None
    preset: str = ""
    device: str = ""
    modality: str = ""
    unit: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    software: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    passed: bool | None = None
    input: str = ""
    python: str = ""
    note: str = NOTE
    content: str = "image"

    @classmethod
    def ofReport(cls, report: dict[str, Any], sample: int = 0, **more: Any) -> NodeProvenance:
        """From a report as the worker sends it; `sample` chooses the seed that this volume was made with."""
        return cls(
            model=report.get("model", ""),
            modelVersion=report.get("version", ""),
            task=report.get("task", ""),
            seed=_seedOf(report, sample),
            preset=report.get("preset") or "",
            device=report.get("device", ""),
            parameters=dict(report.get("parameters") or {}),
            software=dict(report.get("software") or {}),
            timings=dict(report.get("timings") or {}),
            note=report.get("note") or NOTE,
            **more,
        )

    @property
    def description(self) -> str:
        """A few lines for the node's description field."""
        if self.content == "error":
            return _(
                "Derived from a synthetic image - not for diagnosis. Error map by MedGen: '{image}' minus "
                "'{reference}'."
            ).format(image=self.input, reference=self.parameters.get("reference", ""))
        model = f"{self.model} {self.modelVersion}".strip()
        if self.content == "saliency":
            return _(
                "No diagnosis. Map by MedGen with the model {model}: how far the log odds of '{target}' fall when this "
                "part of '{image}' is hidden."
            ).format(model=model, target=self.parameters.get("target", ""), image=self.input)
        text = _("SYNTHETIC - not for diagnosis. Made by MedGen with the model {model} from '{input}'.")
        if not self.input:
            text = _("SYNTHETIC - not for diagnosis. Made by MedGen with the model {model}, without an input.")
        lines = [text.format(model=model, input=self.input)]
        if self.content == "spread":
            lines.append(
                _("How far each voxel may be off: half-width of an interval, or deviation over several views.")
                if self.task == "translate" or self.parameters.get("samples") == 1
                else _("Voxel-wise standard deviation over several samples.")
            )
        if self.seed is not None:
            lines.append(
                _("Seed {seed}, preset {preset}, {device}.").format(
                    seed=self.seed, preset=self.preset, device=self.device
                )
            )
        if self.content == "image" and (noise := self.parameters.get("noise")):
            lines.append(_("Noise {noise}.").format(noise=noise))
        if self.passed is not None:
            lines.append(_("Quality checks passed.") if self.passed else _("Quality checks did NOT pass."))
        return "\n".join([*lines, *self.checks])


def write(node, provenance: NodeProvenance) -> None:
    """Set the attributes and the description of a node; what an earlier run left there is replaced."""
    erase(node)
    node.SetAttribute(SYNTHETIC, "1")
    for name, attribute in _TEXTS.items():
        if value := getattr(provenance, name):
            node.SetAttribute(PREFIX + attribute, value)
    for name, attribute in _JSON.items():
        node.SetAttribute(PREFIX + attribute, json.dumps(getattr(provenance, name), ensure_ascii=False))
    if provenance.seed is not None:
        node.SetAttribute(PREFIX + "Seed", str(provenance.seed))
    if provenance.passed is not None:
        node.SetAttribute(PREFIX + "Passed", "1" if provenance.passed else "0")
    node.SetDescription(provenance.description)


def read(node) -> NodeProvenance | None:
    """The provenance of a node, None for one that MedGen did not make."""
    if node is None or node.GetAttribute(SYNTHETIC) != "1":
        return None
    values: dict[str, Any] = {name: node.GetAttribute(PREFIX + attribute) or "" for name, attribute in _TEXTS.items()}
    for name, attribute in _JSON.items():
        values[name] = _parsed(node.GetAttribute(PREFIX + attribute), [] if name == "checks" else {})
    seed, passed = node.GetAttribute(PREFIX + "Seed"), node.GetAttribute(PREFIX + "Passed")
    values["seed"] = int(seed) if seed else None
    values["passed"] = None if passed is None else passed == "1"
    return NodeProvenance(**values)


def libraryFacts(made: NodeProvenance) -> dict[str, Any]:
    """The same in the words of `MedGenLib.io.provenance`, which go into DICOM files."""
    from MedGenLib.io.provenance import Provenance, Source

    role = "mask" if made.task == "generate" else "image"
    return Provenance(
        content=made.content,
        modality=made.modality or None,
        unit=made.unit or "a.u.",
        model=made.model,
        version=made.modelVersion,
        task=made.task,
        seed=made.seed,
        preset=made.preset or None,
        passed=made.passed,
        checks=tuple(made.checks),
        inputs=(Source(role, made.input, ""),) if made.input else (),
        parameters=made.parameters,
        software=made.software,
        device=made.device,
    ).to_dict()


def erase(node) -> None:
    """Remove every attribute of MedGen."""
    for name in list(node.GetAttributeNames() or ()):
        if name.startswith(PREFIX):
            node.RemoveAttribute(name)


def _seedOf(report: dict[str, Any], sample: int) -> int | None:
    """Seed of the attempt that was kept: the one that passed, the first if none did."""
    tries = [attempt for attempt in report.get("attempts") or [] if attempt.get("sample") == sample]
    for attempt in [*(one for one in tries if (one.get("check") or {}).get("passed")), *tries]:
        return attempt.get("seed")
    seed = report.get("seed")
    return None if seed is None else seed + sample


def _parsed(text: str | None, fallback: Any) -> Any:
    try:
        value = json.loads(text) if text else fallback
    except ValueError:  # edited by hand
        return fallback
    return value if isinstance(value, type(fallback)) else fallback
