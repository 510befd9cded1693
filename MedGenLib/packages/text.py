"""Text output of packages: the table of models and the card."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from MedGenLib.labels.vocabulary import Label
from MedGenLib.packages import rules
from MedGenLib.packages.catalogue import BrokenPackage, is_embedded
from MedGenLib.packages.hub.install import DOWNLOAD_MB
from MedGenLib.packages.hub.nv_generate import Published
from MedGenLib.packages.manifest import Manifest

WIDTH = 100
JUDGES = "For checks, `medgen evaluate`, `medgen classify` and `medgen detect`; they make no images:"


def models_table(manifests: Sequence[Manifest], damaged: Iterable[BrokenPackage] = ()) -> str:
    """One line per model that makes images, then those that judge them, and one line per unusable package."""
    header = ("NAME", "VERSION", "FROM", "TO", "SPACING mm", "SIZE", "LICENSE", "ORIGIN")
    rows = [
        (
            manifest.name,
            manifest.version,
            "noise" if manifest.task == "generate" and manifest.settings.grid else str(manifest.input),
            str(manifest.output),
            f"{manifest.spacing.min:g}-{manifest.spacing.max:g}",
            f"{_size_mib(manifest):.1f} MiB",
            manifest.license.spdx,
            _origin(manifest),
        )
        for manifest in manifests
    ]
    lines = _columns([header, *rows]) if rows else ["No model is installed."]
    makes = [manifest.task in ("generate", "translate", "enhance", "sequence") for manifest in manifests]
    if not all(makes):
        makers = [line for line, kept in zip(lines[1:], makes, strict=True) if kept]
        judges = [line for line, kept in zip(lines[1:], makes, strict=True) if not kept]
        lines = [lines[0], *makers, JUDGES, *judges]
    return "\n".join(lines + [f"Not usable: {package.reason}" for package in damaged])


def available_table(models: Sequence[Published]) -> str:
    """One line per published model that can be installed."""
    if not models:
        return "Every published model is installed."
    header = ("NAME", "TO", "DOWNLOAD", "LICENSE", "WHAT IT IS")
    rows = [
        (
            model.name,
            "CT" if model.has_mask else "MR",
            f"{DOWNLOAD_MB[model.name]:,} MB",
            model.license.spdx,
            model.description,
        )
        for model in models
    ]
    return "\n".join(_columns([header, *rows]))


def model_card(manifest: Manifest) -> str:
    """Facts about a model from its manifest."""
    facts = {
        "Origin": f"{_origin(manifest)}, {manifest.folder}",
        "Task": f"{manifest.task}: {_input(manifest)} -> {_output(manifest)}",
        "Spacing": f"{manifest.spacing.min:g} to {manifest.spacing.max:g} mm, native {manifest.spacing.native:g} mm",
        "Field of view": f"{_lengths(manifest.field_of_view.min)} to {_lengths(manifest.field_of_view.max)} mm",
        "Networks": ", ".join(f"{n.network} ({role})" for role, n in manifest.networks.items()),
        "Presets": _presets(manifest),
        "Size": f"{_size_mib(manifest):.1f} MiB of weights",
        "License": _license(manifest),
        "Authors": manifest.authors,
        "Citation": manifest.citation or "none",
    }
    sections = [
        f"{manifest.name} {manifest.version}",
        textwrap.fill(manifest.description, WIDTH),
        "\n".join(_fact(name, value) for name, value in facts.items()),
        _section("Measured", map(_performance, manifest.performance)),
        _section("Trained on", map(_data, manifest.training.data)),
        _section("Trained by", manifest.training.commands),
        f"The full model card is {manifest.folder / rules.CARD}",
    ]
    return "\n\n".join(section for section in sections if section)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _fact(name: str, value: str) -> str:
    return textwrap.fill(
        f"{name + ':':<15}{value}", WIDTH, subsequent_indent=" " * 15, break_long_words=False, break_on_hyphens=False
    )


def _section(title: str, lines: Iterable[str]) -> str:
    body = [f"  {line}" for line in lines]
    return "\n".join([f"{title}:", *body]) if body else ""


def _origin(manifest: Manifest) -> str:
    return "embedded" if is_embedded(manifest) else "added"


def _size_mib(manifest: Manifest) -> float:
    paths = {manifest.weights_path(role) for role in manifest.networks}
    return sum(path.stat().st_size for path in paths if path.is_file()) / rules.MIB


def _input(manifest: Manifest) -> str:
    if manifest.input.kind == "none":
        classes = manifest.settings.classes if manifest.settings.grid else None
        noise = f"noise and a class ({', '.join(classes)})" if classes else "noise"
        return noise if manifest.settings.grid else "a size and a spacing"
    return manifest.input.modality or _labels(manifest.input.labels)


def _output(manifest: Manifest) -> str:
    output = manifest.output
    if output.labels:
        return _labels(output.labels)
    if output.modality is None:
        return str(output)
    return f"{output} ({output.unit}, {output.range[0]:g} to {output.range[1]:g})"


def _labels(labels: Mapping[int, Label]) -> str:
    return f"labels {', '.join(f'{label.value} {label.name}' for label in labels.values())}"


def _presets(manifest: Manifest) -> str:
    if manifest.sampler is None:
        return "none"
    presets = (
        f"{name} ({preset.steps} steps)" if preset.steps else name for name, preset in manifest.sampler.presets.items()
    )
    return f"{', '.join(presets)}; sampler {manifest.sampler.name}"


def _license(manifest: Manifest) -> str:
    parts = [manifest.license.spdx]
    parts.append("commercial use allowed" if manifest.license.commercial_use else "non-commercial")
    if manifest.license.acceptance_required:
        parts.append("must be accepted once with --accept-license")
    return ", ".join(parts)


def _performance(run) -> str:
    size = " x ".join(map(str, run.size))
    return f"{size}, {run.preset}: {run.seconds:.1f} s, {run.peak_mib:,.0f} MiB ({run.device})"


def _data(data) -> str:
    return f"{data.name}, {data.subjects} subjects, {data.license} {data.url}".rstrip()


def _lengths(lengths: Sequence[float]) -> str:
    return " x ".join(f"{length:g}" for length in lengths)
