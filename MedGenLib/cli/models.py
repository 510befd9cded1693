"""`medgen models`: list | info NAME | add PATH | remove NAME | verify [NAME]."""

from __future__ import annotations

from argparse import Namespace

from MedGenLib.cli.console import Console
from MedGenLib.cli.table import table
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import broken, catalogue, find, is_embedded
from MedGenLib.packages.license import license_notice
from MedGenLib.packages.manifest import Manifest


def list_models(_: Namespace, console: Console) -> int:
    """One line per model; packages that cannot be used are named on stderr."""
    rows = [
        (m.name, m.version, f"{m.input} -> {m.output.modality}", m.license.spdx, _origin(m))
        for m in catalogue()
    ]
    if rows:
        console.say(table(("name", "version", "makes", "licence", "origin"), rows))
    else:
        console.say("No model is installed.")
    for package in broken():
        console.note(package.reason)
    return 0


def info(arguments: Namespace, console: Console) -> int:
    """The facts of the manifest, then the model card."""
    manifest = find(arguments.name)
    console.say(_facts(manifest))
    if manifest.card:
        console.say(f"\n{manifest.card.strip()}")
    return 0


def add(arguments: Namespace, console: Console) -> int:
    manifest = store.add(arguments.path, sha256=arguments.sha256, progress=console)
    console.say(f"Added the model '{manifest.name}' {manifest.version} in {manifest.folder}.")
    console.say(license_notice(manifest))
    return 0


def remove(arguments: Namespace, console: Console) -> int:
    console.say(f"Removed {store.remove(arguments.name)}.")
    return 0


def verify(arguments: Namespace, console: Console) -> int:
    """Exit code 1 when a package has a problem."""
    manifests = [find(arguments.name)] if arguments.name else catalogue()
    problems = [] if arguments.name else [package.reason for package in broken()]
    for manifest in manifests:
        found = store.verify(manifest)
        problems += found
        if not found:
            files = len(manifest.checksums)
            console.say(f"OK       {manifest.name} {manifest.version}: {files} files as published")
    for problem in problems:
        console.say(f"PROBLEM  {problem}")
    return 1 if problems else 0


def _origin(manifest: Manifest) -> str:
    return "embedded" if is_embedded(manifest) else "added"


def _facts(manifest: Manifest) -> str:
    spacing, view = manifest.spacing, manifest.field_of_view
    output = manifest.output
    facts = [
        ("name", f"{manifest.name} {manifest.version} ({_origin(manifest)})"),
        ("what", manifest.description),
        ("makes", f"{manifest.input} -> {output.modality} in {output.unit}"),
        ("labels", _labels(manifest)),
        ("spacing", f"{spacing.min:g} to {spacing.max:g} mm, works at {spacing.native:g} mm"),
        ("field of view", f"{_extent(view.min)} to {_extent(view.max)} mm"),
        ("presets", _presets(manifest)),
        *(("measured", _measured(run)) for run in manifest.performance),
        ("licence", license_notice(manifest)),
        *(("trained on", _data(data)) for data in manifest.training.data),
        ("cite", manifest.citation),
        ("folder", str(manifest.folder)),
    ]
    return "\n".join(f"{name + ':':<15}{fact}" for name, fact in facts if fact)


def _labels(manifest: Manifest) -> str:
    return ", ".join(f"{value} {label.name}" for value, label in manifest.input.labels.items())


def _extent(millimetres: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:g}" for length in millimetres)


def _presets(manifest: Manifest) -> str:
    if manifest.sampler is None:
        return ""
    presets = manifest.sampler.presets.values()
    steps = ", ".join(f"{p.name} {p.steps} steps" if p.steps else p.name for p in presets)
    return f"{steps} ({manifest.sampler.name})"


def _measured(run) -> str:
    size = " x ".join(map(str, run.size))
    return f"{size}, {run.preset}: {run.seconds:g} s, {run.peak_mib:.0f} MiB ({run.device})"


def _data(data) -> str:
    return f"{data.name}, {data.subjects} subjects, {data.license}, {data.url}"
