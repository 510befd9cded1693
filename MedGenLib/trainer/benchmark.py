"""Several recipes on one data set, with the same budget and the same people kept out, in one table.

    rows = benchmark("pairs", "runs/compared", ["pix2pix", "cyclegan"], Choices(budget=1200))

Files of the output folder:

| file                                      | content                                                              |
|-------------------------------------------|----------------------------------------------------------------------|
| benchmark.json                            | data set and budget                                                  |
| benchmark.md, benchmark.csv, index.html   | the table; the page has pictures of the recipes side by side         |
| RECIPE/                                   | the run of a recipe, see `MedGenLib.trainer.run`                     |
| RECIPE/cost.json                          | time and memory of one volume, in a process of its own               |
| RECIPE/utility.json                       | with masks: Dice of segmenters that learned from synthetic images    |
| RECIPE/log.txt                            | of trials that run at once: what each did when                       |
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedGenLib.cohort.manifest import CohortCase
from MedGenLib.cohort.records import DONE, Record
from MedGenLib.cohort.scheduler import Pool
from MedGenLib.errors import Cancelled, InputError
from MedGenLib.evaluation.html import Notice, Part, Picture, Section, Table, number, page
from MedGenLib.evaluation.tables import csv_text
from MedGenLib.evaluation.utility import utility
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.volume import Volume
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.io.files import read_volume, write_volume
from MedGenLib.packages.manifest import Manifest
from MedGenLib.progress import ProgressCallback, announce, announce_time, duration
from MedGenLib.trainer.datasets import TRANSLATIONS, DataSet, ImagePair
from MedGenLib.trainer.measurement import Row, generated, mask_of
from MedGenLib.trainer.plan import STAGES, TrainingPlan, package_name
from MedGenLib.trainer.run import MEASURED, PAGE, AnyPlan, Case, Choices, planned
from MedGenLib.trainer.trials import run_trials, sentence_of, trained, trial
from MedGenLib.training.recipes import RECIPES

STATED, COST, UTILITY = "benchmark.json", "cost.json", "utility.json"
MOST, STEPS = 16, 200
"""Training cases, and steps of each segmenter, of a utility."""
PICTURES = 3
SHORT = (
    "A budget shows what the recipes reach in this time on this computer; those that learn slowly, such as those with "
    "discriminators, may overtake others with a longer one."
)
TOGETHER = (
    " At once ran up to {}. Their steps were timed alone; as they share memory and caches of a computer, they may have "
    "taken longer than the budget. One volume was timed at the end, alone."
)


@dataclass(frozen=True)
class BenchmarkRow:
    """One recipe: its figures, what its model misses, or why its training failed."""

    recipe: str
    figures: tuple[Row, ...] = ()
    faults: tuple[str, ...] = ()
    error: str | None = None

    @property
    def cells(self) -> dict[str, str]:
        """Column -> value with its interval, as text."""
        found = {"Recipe": self.recipe, "Training": "failed" if self.error else "done"}
        for figure in self.figures:
            between = "" if figure.low is None else f" ({number(figure.low)} to {number(figure.high)})"
            found[_column(figure)] = f"{number(figure.value)}{between}"
        return found

    @property
    def values(self) -> dict[str, Any]:
        """The row of the CSV: each measure and its interval in full precision."""
        found: dict[str, Any] = {"recipe": self.recipe, "error": self.error, "faults": " ".join(self.faults)}
        for figure in self.figures:
            name = _column(figure)
            found[name] = figure.value
            if figure.low is not None:
                found |= {f"{name}, 95 % from": figure.low, f"{name}, 95 % to": figure.high}
        return found


@dataclass(frozen=True)
class Entry:
    """A recipe of a benchmark: its choices, its data and its plan; it runs in ``folder``."""

    recipe: str
    folder: Path
    choices: Choices
    dataset: DataSet
    plan: AnyPlan

    @property
    def cases(self) -> list[Case]:
        """The cases of the people kept out that a model can start from."""
        kept_out = [case for case in self.dataset.cases if case.subject in self.plan.held_out]
        return [case for case in kept_out if not isinstance(case, ImagePair) or case.source]


def benchmark(
    path: str | Path,
    out: str | Path,
    recipes: Sequence[str],
    choices: Choices | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
    pool: Pool | None = None,
) -> list[BenchmarkRow]:
    """Train the recipes, measure each, and write the table to ``out``.

    Parameters
    ----------
    choices: for all recipes; its name is the start of the models' names, and "RECIPE.KEY" in its changes is for one.
    pool: workers that train at once, such as `MedGenLib.cluster.workers.ProcessPool`, with the benchmark's folder and
        the threads of each; it is closed. Without it, recipes are trained one after the other.

    A call that was stopped goes on when it is repeated; a finished recipe is not trained again. The row of a recipe
    whose training failed says why.

    Raises
    ------
    InputError: the folder, the choices or one of the recipes cannot be used; nothing is trained then.
    """
    choices, out, rows, ended = choices or Choices(), Path(out), [], {}
    with contextlib.closing(pool) if pool else contextlib.nullcontext():
        threads = pool.threads if pool else threads  # the steps are timed with as many
        at_once = f"{pool.size} trial{'s'[: pool.size > 1]} (threads of each: {threads})" if pool else None
        entries = _planned_entries(path, out, list(dict.fromkeys(recipes)), choices, device, threads, progress, at_once)
        trials = [trial(entry.recipe, path, entry.choices, device, threads) for entry in entries]
        ended = run_trials(trials, out, pool, progress) if pool else {}
    for entry, case in zip(entries, trials, strict=True):
        steps = ", ".join(f"{entry.plan.steps[stage]:,} steps of {stage}" for stage in entry.plan.stages)
        announce_time(f"the recipe {entry.recipe}: {steps}", None if pool else progress)
        rows.append(_row(entry, case, ended.get(case.id), device, progress))
        _write(rows, entries, out, at_once)
    return rows


def _planned_entries(
    path: str | Path,
    out: Path,
    recipes: Sequence[str],
    choices: Choices,
    device: str,
    threads: int | None,
    progress: ProgressCallback | None,
    at_once: str | None,
) -> list[Entry]:
    """The plans of all recipes; the folder is left as it was if one of them is refused."""
    for recipe in recipes:
        RECIPES.require(recipe)
    stated = {"dataset": str(Path(path).expanduser().resolve()), "budget": choices.budget}
    stated |= {"at_once": at_once} if at_once else {}
    is_new = not out.exists()
    known, before = out / STATED, set(out.iterdir()) if out.is_dir() else set()
    if known in before:
        if json.loads(known.read_text(encoding="utf-8")) != stated:
            raise InputError(f"{out} holds a benchmark of other data, another budget or other workers; take another.")
    elif before or out.exists() and not out.is_dir():
        raise InputError(f"{out} is not empty and holds no benchmark; give another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(known, stated)
        entries = [_entry(path, out / recipe, choices, device, threads, progress) for recipe in recipes]
        if len({entry.plan.held_out for entry in entries}) > 1:
            raise InputError(
                "The recipes keep out different people; name them for all with --set 'held_out=[\"NAME\", ...]'."
            )
    except BaseException:
        for new in {known, *(out / recipe for recipe in recipes)} - before:
            new.unlink() if new.is_file() else shutil.rmtree(new, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise
    return entries


def _entry(
    path: str | Path,
    folder: Path,
    choices: Choices,
    device: str,
    threads: int | None,
    progress: ProgressCallback | None,
) -> Entry:
    """The plan of the recipe that the folder is named after, which is written there."""
    recipe = folder.name
    own = _for_recipe(choices, recipe)
    dataset = own.data(path)
    if dataset.translates != (recipe in TRANSLATIONS):
        has, others = ("images", TRANSLATIONS) if dataset.translates else ("no images", STAGES[-1:])
        raise InputError(
            f"The recipe {recipe} cannot use {path}, which has {has} to translate; take {' or '.join(others)}."
        )
    own = replace(own, name=f"{choices.name or package_name(dataset.title)}-{recipe}")
    return Entry(recipe, folder, own, dataset, planned(dataset, folder, own, device, threads, progress))


def _for_recipe(choices: Choices, recipe: str) -> Choices:
    """The choices for one recipe; generation from masks is what is trained without one."""
    changes = {}
    for key, value in (choices.changes or {}).items():
        first, _, rest = key.partition(".")
        if first == recipe or first not in RECIPES:
            changes[rest if first == recipe else key] = value
    return replace(choices, recipe=None if recipe == STAGES[-1] else recipe, changes=changes)


def _row(
    entry: Entry, case: CohortCase, ended: Record | None, device: str, progress: ProgressCallback | None
) -> BenchmarkRow:
    """Train a recipe if that is not done, and read its figures; ``ended`` is the record of a trial in a worker."""
    if ended is not None and ended.status != DONE:
        return BenchmarkRow(entry.recipe, error=ended.sentence)
    try:
        made = trained(case, entry.folder.parent, progress)
        if not (entry.folder / COST).is_file():
            write_json(entry.folder / COST, [vars(row) for row in _cost(made, entry, device)])
        utility_file = entry.folder / UTILITY
        if not utility_file.is_file() and (found := _utility(made, entry, device, progress)) is not None:
            write_json(utility_file, [vars(row) for row in found])
        measured, cost = (json.loads((entry.folder / name).read_text(encoding="utf-8")) for name in (MEASURED, COST))
        useful = json.loads(utility_file.read_text(encoding="utf-8")) if utility_file.is_file() else []
    except Cancelled:
        raise
    except Exception as error:  # the other recipes go on
        announce([f"{entry.recipe} failed: {sentence_of(error)}"], progress)
        return BenchmarkRow(entry.recipe, error=sentence_of(error))
    steps = Row("Steps", "", sum(entry.plan.steps[stage] for stage in entry.plan.stages))
    figures = (Row(**row) for row in (*measured["rows"], *useful, *cost))
    return BenchmarkRow(entry.recipe, (*figures, steps), tuple(measured["faults"]))


def _cost(made: Manifest, entry: Entry, device: str) -> list[Row]:
    """Parameters, and seconds and memory of one volume in a process of its own."""
    from MedGenLib.packages.weights import load_weights

    count = sum(tensor.numel() for role in made.networks for tensor in load_weights(made, role).values())
    found = [Row("Parameters", "million", count / 1e6)]
    with tempfile.TemporaryDirectory() as temporary:
        folder, case = Path(temporary), entry.cases[0]
        if made.task == "translate":
            words = ["translate", case.source, "--to", made.output.modality]
        elif made.task == "generate":
            words = ["generate", "--seed", "0"]
            if made.input.kind == "none" and made.settings.classes:
                words += ["--label", made.settings.classes[0]]
        else:
            return found
        if isinstance(entry.plan, TrainingPlan):
            words.append(write_volume(mask_of(case, entry.plan), folder / "mask.nii.gz"))
        words += ["-o", folder / "made.nii.gz", "--report", folder / "report.json"]
        words += ["--model", made.name, "--device", device]
        subprocess.run([sys.executable, "-m", "MedGenLib", *map(str, words)], capture_output=True, check=False)
        if (folder / "report.json").is_file():  # also where the checks failed
            facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            found.append(Row("One volume", "s", sum(facts["timings"].values())))
            found.append(Row("Memory for it", "MiB", facts["peak_memory_mib"]))
    return found


def _utility(made: Manifest, entry: Entry, device: str, progress: ProgressCallback | None) -> list[Row] | None:
    """Dice, on people kept out, of segmenters that learned from real images, or from those made from their masks.

    Empty for a recipe without masks; None where it could not be measured.
    """
    if not isinstance(entry.plan, TrainingPlan) or len(entry.cases) < 2:
        return []
    known = [case for case in entry.dataset.cases if case.subject not in entry.plan.held_out][:MOST]
    with tempfile.TemporaryDirectory() as temporary:
        sets = {name: Path(temporary, name) for name in ("real", "synthetic", "test")}
        for name, folder in sets.items():
            for part in ("images", "labels"):
                (folder / part).mkdir(parents=True)
            for seed, case in enumerate(entry.cases if name == "test" else known):
                mask, synthetic = mask_of(case, entry.plan), name == "synthetic"
                image = generated(made, mask, seed, device)[0] if synthetic else read_volume(case.image)
                write_volume(image, folder / "images" / f"{case.name}.nii.gz")
                write_volume(mask, folder / "labels" / f"{case.name}.nii.gz")
        try:
            found = utility(**sets, steps=STEPS, repeats=1, device=device, progress=progress)
        except InputError as error:
            announce([f"The utility of {entry.recipe} was not measured: {error}"], progress)
            return None
    named = {"real": "real images", "synthetic": "synthetic ones", "both": "both"}
    means = [row for row in found.rows if row.label == 0]
    return [Row(f"Dice after learning from {named[r.training]}", "", r.dice, r.low, r.high) for r in means]


def _write(rows: Sequence[BenchmarkRow], entries: Sequence[Entry], out: Path, at_once: str | None) -> None:
    """The table as Markdown, CSV and a page."""
    heads = list(dict.fromkeys(name for row in rows for name in row.cells))
    cells = [[row.cells.get(name, "–") for name in heads] for row in rows]
    first = entries[0]
    people, changes = len(first.plan.held_out), [key for entry in entries for key in entry.choices.changes or {}]
    fixed = any(key.startswith("steps.") for key in changes)
    spent = "Steps chosen by the user" if fixed else f"{duration(first.choices.budget)} for each recipe"
    said = f"{spent}; measured on {people} {'person' if people == 1 else 'people'} kept out of all trainings. {SHORT}"
    said += TOGETHER.format(at_once) if at_once else ""
    faults = [f"{row.recipe}: {sentence}" for row in rows for sentence in (row.error, *row.faults) if sentence]
    lines = [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *cells)]
    parts: list[Part] = [said, *map(Notice, faults), Table(heads, cells)]
    pictures = _pictures([e for e, row in zip(entries, rows, strict=False) if row.error is None])
    sections = [Section("Comparison", parts), Section("One seed, side by side", pictures)]
    contents = {
        "benchmark.md": "\n".join([*lines, "", said, *(f"- {fault}" for fault in faults)]) + "\n",
        "benchmark.csv": csv_text([row.values for row in rows]),
        PAGE: page("Benchmark of recipes", sections, str(first.dataset.path)),
    }
    for name, text in contents.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")


def _column(figure: Row) -> str:
    return f"{figure.name} in {figure.unit}" if figure.unit else figure.name


def _pictures(done: Sequence[Entry]) -> list[Picture]:
    """The same people made by each recipe, in planes through the middle; what lies on a grid of its own is apart."""
    from MedGenLib.visual.planes import translation_planes

    found = []
    for case in done[0].cases[:PICTURES] if done else ():
        images: dict[str, Volume] = {}
        if isinstance(case, ImagePair):
            images["Source"] = read_volume(case.source, modality=done[0].plan.source_modality)
        for entry in done:
            for kind, name in (("synthetic", entry.recipe), ("real", "Real image")):
                file = entry.folder / "evaluation" / kind / f"{case.name}.nii.gz"
                if file.is_file() and (kind == "synthetic" or entry is done[-1]):
                    images[name] = read_volume(file, modality=entry.plan.modality)
        first = next(iter(images.values()), None)
        if first is not None and "Real image" in images:
            images["Real image"] = resample_to(images["Real image"], first)
        together = {name: image for name, image in images.items() if image.geometry.is_close(first.geometry)}
        for group in (together, *({name: images[name]} for name in images if name not in together)):
            if group:
                found.append(Picture(translation_planes(group), f"{case.name}: {', '.join(group)}.", wide=True))
    return found
