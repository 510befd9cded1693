"""The page of a training run: the plan, curves and pictures as it learns, and the measurement."""

from __future__ import annotations

import json
from pathlib import Path

from MedGenLib.evaluation.html import Picture, Section, Table, page
from MedGenLib.io.atomic import replacing
from MedGenLib.trainer.plan import BasePlan

SAMPLED = "left a sample from the same seed, right the real patch"
STAGES = {
    "autoencoder": ("Autoencoder", SAMPLED),
    "flow": ("Latent flow", SAMPLED),
    "alignment": ("Alignment", "slices of people kept out: source, first translation and the real target"),
    "classifier": ("Classifier", ""),
    "generator": ("Generator", "above volumes of the averaged generator from the same noise, below real ones kept out"),
    "sequence": (
        "Sequence",
        "planes of people kept out: first frame, the real farthest one, the same of the model, and the difference",
    ),
    "translator": ("Translator", "slices of people kept out: source, translation and, of pairs, the real target"),
}
"""Folder of a stage -> title, and what its pictures show."""
MOST_PICTURES = 6


def write_page(plan: BasePlan, out: Path, *measured: Section) -> Path:
    """Write index.html from the files of the run."""
    sections = list(measured)
    sections += [_stage(out / folder, *texts) for folder, texts in STAGES.items() if (out / folder).is_dir()]
    sections.append(Section("Plan", [Table(("Choice", "Value", "Reason"), plan.rows())]))
    target = out / "index.html"
    with replacing(target) as temporary:
        temporary.write_text(page(f"Training of {plan.name}", sections, plan.dataset), encoding="utf-8")
    return target


def _stage(folder: Path, title: str, shown: str) -> Section:
    """Curves of the losses and of the validation, and pictures from a fixed seed."""
    from MedGenLib.training.loop import LOSSES, PICTURES, VALIDATION

    losses, checks = (_by_step(folder / name) for name in (LOSSES, VALIDATION))
    parts = []
    if losses:
        parts.append(Picture(_curves(losses, "loss"), f"Training losses to step {max(losses):,}."))
    if checks:
        parts.append(Picture(_curves(checks, "validation"), "The same data and noise at every validation."))
    pictures = sorted((folder / PICTURES).glob("*.png"))
    for path in _spread(pictures):
        parts.append(Picture(path.read_bytes(), f"Step {int(path.stem):,}: {shown}."))
    return Section(title, parts)


def _by_step(path: Path) -> dict[int, dict[str, float]]:
    """The last line of each step: a resumed run repeats some."""
    if not path.is_file():
        return {}
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}"))
    return {row.pop("step"): row for row in rows}


def _curves(values: dict[int, dict[str, float]], label: str) -> bytes:
    from MedGenLib.visual.figures import new_figure, png

    figure, axes = new_figure()
    steps = sorted(values)
    for name in sorted({name for row in values.values() for name in row}):
        axes.plot(steps, [values[step].get(name, float("nan")) for step in steps], label=name, linewidth=1.2)
    axes.set(xlabel="step", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    return png(figure)


def _spread(paths: list[Path]) -> list[Path]:
    """A few of the pictures, the last one among them."""
    count = min(MOST_PICTURES, len(paths))
    return [paths[-1 - round(n * (len(paths) - 1) / max(1, count - 1))] for n in reversed(range(count))]
