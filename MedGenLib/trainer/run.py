"""A model from a data set in one command: inspect, plan, train all stages, measure, export, install.

    manifest = train_own("my_dataset", "runs/mine", budget=7200)

Files of the output folder:

| file               | content                                                                     |
|--------------------|-----------------------------------------------------------------------------|
| plan.json          | the plan, see `MedGenLib.trainer.plan`                                     |
| problems.csv       | cases that cannot be used, and why                                          |
| cache/             | prepared volumes                                                            |
| autoencoder/, flow/| checkpoints, losses, validation and pictures of each stage, and the package |
| translator/        | the same of a translation, in place of both                                 |
| alignment/         | before it, of loosely registered pairs: the warped targets                  |
| classifier/        | the same of images with classes                                             |
| generator/         | the same of images without labels                                           |
| sequence/          | the same of series over time                                                |
| measured.json      | figures and faults of the measurement                                       |
| evaluation/        | volumes made from the masks or images of held-out people, beside real ones  |
| index.html         | all of it as one page, updated as the training goes                         |
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedGenLib.errors import InputError, MemoryPlanError
from MedGenLib.evaluation.html import Section
from MedGenLib.evaluation.tables import csv_text
from MedGenLib.imaging.volume import by_axis
from MedGenLib.io.atomic import remove_unfinished, write_json
from MedGenLib.packages import store
from MedGenLib.packages.catalogue import catalogue, find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest, load_manifest
from MedGenLib.pipelines.estimate import announce_long
from MedGenLib.progress import ProgressCallback, announce
from MedGenLib.trainer.class_inspection import inspect_classes
from MedGenLib.trainer.class_plan import ClassifierPlan, make_classifier_plan
from MedGenLib.trainer.classes import read_classes
from MedGenLib.trainer.datasets import (
    ALIGNMENT,
    CLASSIFIER,
    SEQUENCE,
    TRANSLATIONS,
    UNCONDITIONAL,
    ClassifiedImage,
    DataSet,
    ImagePair,
    LabeledImage,
    Problem,
)
from MedGenLib.trainer.image_plan import ImagePlan, make_image_plan
from MedGenLib.trainer.image_sets import read_images, read_series
from MedGenLib.trainer.inspection import inspect
from MedGenLib.trainer.pair_inspection import inspect_pairs
from MedGenLib.trainer.pair_plan import UNPAIRED, TranslationPlan, make_translation_plan, needs_pairs
from MedGenLib.trainer.pairs import read_data
from MedGenLib.trainer.plan import (
    SHRUNK,
    STAGES,
    TrainingPlan,
    continued,
    make_plan,
    read_json_plan,
    with_budget,
    with_memory,
)
from MedGenLib.trainer.sequence_plan import SequencePlan, make_sequence_plan

if TYPE_CHECKING:
    import torch

    from MedGenLib.training.probe import StepCost

AnyPlan = TrainingPlan | TranslationPlan | ClassifierPlan | ImagePlan | SequencePlan
Case = LabeledImage | ImagePair | ClassifiedImage

PLAN, PROBLEMS, PAGE, MEASURED = "plan.json", "problems.csv", "index.html", "measured.json"
FOLDERS = {"autoencoder": "autoencoder", "latent-flow": "flow", CLASSIFIER: "classifier", SEQUENCE: SEQUENCE}
FOLDERS |= (
    {ALIGNMENT: ALIGNMENT} | dict.fromkeys(TRANSLATIONS, "translator") | dict.fromkeys(UNCONDITIONAL, "generator")
)
"""Stage -> folder of its run."""
PLANS = {"translate": TranslationPlan, "classify": ClassifierPlan, "unconditional": ImagePlan, SEQUENCE: SequencePlan}
"""Task of a plan -> its class; plans of generators from masks state none."""
SHOWN = 10
CHECKPOINTS_MIB = 400
"""Space for checkpoints, pictures and the package."""


@dataclass(frozen=True)
class Choices:
    """What the user may state beside the data set; None is chosen from the data.

    Attributes
    ----------
    budget: seconds for training and measurement.
    task, channel, source, target: which images of the data set are used, see `MedGenLib.trainer.pairs.read_data`.
    source_modality, modality: of the images to translate, and of the images to make.
    recipe: of a translation, one of `TRANSLATIONS`; `CLASSIFIER` for images with classes; one of `UNCONDITIONAL` for
        a generator without a mask; `SEQUENCE` for series over time.
    uncertain: what uncertain findings count as, see `MedGenLib.trainer.classes.read_classes`.
    start: installed package whose training is continued.
    changes: single choices of the plan, as for `TrainingPlan.changed`.
    skip_bad: train without the cases that cannot be used, instead of refusing the data set.
    workers: processes that train.
    """

    budget: float = 7200.0
    name: str | None = None
    task: str | None = None
    channel: str | None = None
    source: str | None = None
    target: str | None = None
    source_modality: str | None = None
    modality: str | None = None
    recipe: str | None = None
    uncertain: str | None = None
    license: str | None = None
    start: str | None = None
    changes: Mapping[str, str] | None = None
    skip_bad: bool = False
    workers: int = 1

    def data(self, path: str | Path) -> DataSet:
        """The data set, as far as these choices name its images."""
        if self.recipe == CLASSIFIER or self.task == "classify":
            return read_classes(path, self.uncertain or "ignore")
        if self.uncertain is not None:
            raise InputError(f"--uncertain belongs to --recipe {CLASSIFIER}; leave it out.")
        if self.recipe == SEQUENCE:
            return read_series(path)
        if self.recipe in UNCONDITIONAL:
            return read_images(path, self.channel)
        return read_data(path, self.task, self.channel, self.source, self.target)


def plan_of(
    dataset: DataSet,
    choices: Choices,
    device: str = "auto",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[AnyPlan, list[Problem]]:
    """Inspect a data set and plan its training; a few steps of the networks are timed on the device, and their memory
    is measured.

    Raises
    ------
    InputError: none of the cases can be used, the budget is too small, or some cases cannot be used and
        ``choices.skip_bad`` is false.
    """
    from MedGenLib.devices import pick_device
    from MedGenLib.training import thread_count

    chosen = pick_device(device)
    if dataset.unlabeled:
        make: Any = _for_images
    else:
        make = _for_translation if dataset.translates else _for_classes if dataset.classifies else _for_generation
    plan, problems = make(dataset, choices, chosen.type, progress)
    changes = dict(choices.changes or {})
    plan = plan.changed({key: value for key, value in changes.items() if not key.startswith("steps.")})
    plan = plan.shared_by(choices.workers, changes)
    fixed = {key: value for key, value in changes.items() if key.startswith("steps.")}
    seconds: dict[str, float] = {}
    if any(f"steps.{stage}" not in fixed for stage in plan.stages):
        one = plan.changed({f"steps.{stage}": "1" for stage in {*STAGES, *plan.stages}})
        with thread_count(threads):
            costs = _cost_of_steps(one, one.config(dataset.cases, Path("cache")), chosen)
        rounds = -(-plan.parts // choices.workers)  # parts that the busiest process computes
        seconds = {stage: rounds * cost.seconds for stage, cost in costs.items()}
        plan = with_budget(plan, seconds, choices.budget)
        plan = with_memory(plan, {stage: cost.memory_mib for stage, cost in costs.items()})
    plan = plan.changed(fixed)
    training = sum(seconds.get(stage, 0.0) * plan.steps[stage] for stage in plan.stages)
    announce_long("the training", training, str(chosen), progress, ", then the measurement of the model")
    return plan, problems


def _for_generation(
    dataset: DataSet, choices: Choices, device: str, progress: ProgressCallback | None
) -> tuple[TrainingPlan, list[Problem]]:
    """The plan of a generator from labels, and the cases that cannot be used."""
    if choices.recipe or choices.source_modality:
        option = "--recipe" if choices.recipe else "--source-modality"
        raise InputError(f"{option} belongs to a translation, but {dataset.path} has images with labels; leave it out.")
    inspection = inspect(dataset, choices.modality, progress)
    _require_usable(inspection.problems, dataset, choices)
    plan = make_plan(dataset, inspection, choices.name, choices.channel, choices.license, device)
    if choices.start is not None:
        package = find(choices.start)
        require_acceptance(package, False)
        plan = continued(plan, package, dataset)
    return plan, list(inspection.problems)


def _for_translation(
    dataset: DataSet, choices: Choices, device: str, progress: ProgressCallback | None
) -> tuple[TranslationPlan, list[Problem]]:
    """The plan of a translator, and the cases that cannot be used."""
    if choices.start is not None or choices.channel is not None:
        option = "--from" if choices.start is not None else "--channel"
        raise InputError(
            f"{option} belongs to images with labels, but {dataset.path} has images to translate; leave it out."
        )
    if choices.recipe not in (None, *UNPAIRED) and not dataset.paired:
        raise InputError(needs_pairs(choices.recipe, dataset.path))
    inspection = inspect_pairs(dataset, choices.source_modality, choices.modality, progress)
    _require_usable(inspection.problems, dataset, choices)
    names = (choices.source, choices.target)
    plan = make_translation_plan(dataset, inspection, choices.name, choices.license, device, choices.recipe, names)
    return plan, list(inspection.problems)


def _for_images(
    dataset: DataSet, choices: Choices, device: str, progress: ProgressCallback | None
) -> tuple[ImagePlan | SequencePlan, list[Problem]]:
    """The plan of a generator without a mask or of a sequence model, and the cases that cannot be used."""
    others = {"--from": choices.start, "--source": choices.source, "--source-modality": choices.source_modality}
    others |= {"--task": choices.task if choices.task != "generate" else None}
    if wrong := next((option for option, value in others.items() if value is not None), None):
        raise InputError(f"{wrong} does not belong to the recipe {choices.recipe}; leave it out.")
    if dataset.series and choices.channel is not None:
        raise InputError(f"--channel does not belong to the recipe {choices.recipe}; leave it out.")
    inspection = inspect(dataset, choices.modality, progress)
    _require_usable(inspection.problems, dataset, choices)
    if dataset.series:
        made = make_sequence_plan(dataset, inspection, choices.name, choices.license, device)
    else:
        rest = (choices.recipe, choices.name, choices.channel, choices.license, device)
        made = make_image_plan(dataset, inspection, *rest)
    return made, list(inspection.problems)


def _for_classes(
    dataset: DataSet, choices: Choices, device: str, progress: ProgressCallback | None
) -> tuple[ClassifierPlan, list[Problem]]:
    """The plan of a classifier, and the cases that cannot be used."""
    others = {"--from": choices.start, "--channel": choices.channel, "--source": choices.source}
    others |= {"--source-modality": choices.source_modality}
    others |= {f"--recipe {choices.recipe}": choices.recipe if choices.recipe != CLASSIFIER else None}
    if wrong := next((option for option, value in others.items() if value is not None), None):
        raise InputError(f"{wrong} does not belong to a classifier; leave it out.")
    inspection = inspect_classes(dataset, choices.modality, progress)
    _require_usable(inspection.problems, dataset, choices)
    plan = make_classifier_plan(dataset, inspection, choices.name, choices.license, device, choices.uncertain)
    return plan, list(inspection.problems)


def _require_usable(problems: Sequence[Problem], dataset: DataSet, choices: Choices) -> None:
    if problems and not choices.skip_bad:
        raise InputError(problem_text(problems, dataset))


def _cost_of_steps(plan: AnyPlan, config: dict[str, Any], device: torch.device) -> dict[str, StepCost]:
    from MedGenLib.training.probe import cost_of_recipe_step, cost_of_steps

    if isinstance(plan, TrainingPlan):
        return cost_of_steps(config, device)
    return {stage: cost_of_recipe_step(stage, config, device)[stage] for stage in plan.stages}


def problem_text(problems: Sequence[Problem], dataset: DataSet) -> str:
    """The cases that cannot be used, one in a line."""
    shown = [f"  {problem.case}: {problem.sentence}" for problem in problems[:SHOWN]]
    more = [f"  ... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    count = f"{len(problems)} case{'' if len(problems) == 1 else 's'}"
    remedy = "correct them, or leave them out with --skip-bad"
    return "\n".join([f"{count} of {dataset.path} cannot be used; {remedy}:", *shown, *more])


def train_own(
    path: str | Path,
    out: str | Path,
    choices: Choices | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: ProgressCallback | None = None,
) -> Manifest:
    """Train a model on a data set, measure it on held-out people and install it.

    A run that was killed goes on when it is called again with the same ``out``, with the same result. Where the memory
    does not suffice, the plan of the folder is made smaller, and the run goes on.

    Raises
    ------
    InputError: the data set, the choices or the folder cannot be used.
    PackageError: a model of this name exists already.
    """
    choices, out = choices or Choices(), Path(out)
    dataset = choices.data(path)
    plan = planned(dataset, out, choices, device, threads, progress)
    if (done := _installed(plan, out)) is not None:
        return done
    store.refuse_taken(plan.name)
    remove_unfinished(out)
    cases = _usable(dataset, out)
    while not _trained(plan, cases, out, device, threads, progress):
        plan = shrunk(out, progress)
    return _measured(_package(plan, out), plan, cases, out, device, progress)


def planned(
    dataset: DataSet, out: Path, choices: Choices, device: str, threads: int | None, progress: ProgressCallback | None
) -> AnyPlan:
    """The plan of the folder, or a new one, which is written there."""
    file = out / PLAN
    if file.is_file():
        plan = plan_from(read_json_plan(file), str(file))
        if plan.dataset != str(dataset.path.resolve()):
            raise InputError(f"The folder {out} holds a run on {plan.dataset}; give another folder.")
        stated = {key: getattr(choices, key) for key in plan.stated}
        if plan.start is not None:
            del stated["license"]  # that of the plan has two parts
        other = [key for key, value in stated.items() if value is not None and value != getattr(plan, key)]
        asked = {k: value for k, value in (choices.changes or {}).items() if plan.reasons.get(k) != SHRUNK}
        changed = {**plan.changed(asked).as_dict(), "reasons": dict(plan.reasons)}
        if other or changed != plan.as_dict():
            raise InputError(f"The folder {out} holds a run with another plan; give another folder for other choices.")
        return plan
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty and holds no run of this command; give another folder.")
    plan, problems = plan_of(dataset, choices, device, threads, progress)
    store.refuse_taken(plan.name)
    _require_room(plan, out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / PROBLEMS).touch()
    except OSError as error:
        raise InputError(f"The folder {out} cannot be written: {error.strerror}; choose another.") from None
    (out / PROBLEMS).write_text(
        csv_text([vars(problem) for problem in problems]) if problems else "case,sentence\n", encoding="utf-8"
    )
    plan.write(file)
    return plan


def plan_from(data: Mapping[str, Any], where: str) -> AnyPlan:
    """A plan of its content, checked; ``where`` names it in errors."""
    return PLANS.get(data.get("task"), TrainingPlan).of(data, where)


def shrunk(out: Path, progress: ProgressCallback | None) -> AnyPlan:
    """Write a plan that needs less memory into the folder of a run; it goes on from its checkpoints.

    Raises MemoryPlanError if the plan cannot be smaller.
    """
    plan = plan_from(read_json_plan(out / PLAN), str(out / PLAN))
    smaller = plan.smaller()
    if smaller is None:
        raise MemoryPlanError(
            "The memory is full, though a step has one image of the smallest useful patch; take a computer with more, "
            "or smaller networks (see `medgen plan`)."
        )
    now = smaller.parts, getattr(smaller, "patch", None)
    changed = f"the batch in {now[0]} parts" if now[0] != plan.parts else f"smaller patches ({by_axis(now[1])})"
    announce([f"The memory was full; the training goes on with {changed}."], progress)
    smaller.write(out / PLAN)
    return smaller


def _require_room(plan: AnyPlan, out: Path) -> None:
    """Raise InputError for a disk that is too full."""
    disk = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    free, needed = shutil.disk_usage(disk).free / 2**20, plan.cache_mib + CHECKPOINTS_MIB
    if free < needed:
        raise InputError(
            f"The run needs {needed / 1024:.3g} GiB in {out}, where {free / 1024:.3g} GiB are free; make room."
        )


def _installed(plan: AnyPlan, out: Path) -> Manifest | None:
    """The installed model of a finished run."""
    package = _package(plan, out)
    known = next((manifest for manifest in catalogue() if manifest.name == plan.name), None)
    if known is None or not package.is_dir() or known.checksums != load_manifest(package).checksums:
        return None
    return known


def _package(plan: AnyPlan, out: Path) -> Path:
    return out / FOLDERS[plan.stages[-1]] / "package" / plan.name


def _usable(dataset: DataSet, out: Path) -> list[Case]:
    with (out / PROBLEMS).open(encoding="utf-8", newline="") as stream:
        bad = {row["case"] for row in csv.DictReader(stream)}
    return [case for case in dataset.cases if case.name not in bad]


def _trained(
    plan: AnyPlan, cases: Sequence[Case], out: Path, device: str, threads: int | None, progress: ProgressCallback | None
) -> bool:
    """Train all stages; false where the memory was full."""
    from MedGenLib.trainer.page import write_page
    from MedGenLib.training import train
    from MedGenLib.training.ranks import TrainingMemoryError
    from MedGenLib.training.recipes.autoencoder import WEIGHTS_FILE
    from MedGenLib.training.warm_start import copy_autoencoder

    config: dict[str, Any] = plan.config(cases, out.resolve() / "cache")
    if plan.start is not None:
        copy_autoencoder(plan.start, out / FOLDERS["autoencoder"])
    exports = dict.fromkeys(plan.stages, _package(plan, out))
    exports |= {"autoencoder": out / FOLDERS["autoencoder"] / WEIGHTS_FILE}
    exports |= {ALIGNMENT: out / FOLDERS[ALIGNMENT] / "targets"}
    try:
        for stage in plan.stages:
            if not exports[stage].exists():  # written when the stage is complete
                train(
                    stage,
                    config,
                    out / FOLDERS[stage],
                    device=device,
                    threads=threads,
                    progress=progress,
                    on_validation=lambda: write_page(plan, out),
                )
    except TrainingMemoryError:
        return False
    return True


def _measured(
    package: Path, plan: AnyPlan, cases: Sequence[Case], out: Path, device: str, progress: ProgressCallback | None
) -> Manifest:
    """Measure the package, write the figures into its card, and install it."""
    from MedGenLib.packages.export import add_statistics, seal
    from MedGenLib.packages.rules import CARD
    from MedGenLib.trainer.class_measurement import measure_classes
    from MedGenLib.trainer.image_measurement import measure_images
    from MedGenLib.trainer.measurement import measure
    from MedGenLib.trainer.page import write_page
    from MedGenLib.trainer.pair_measurement import measure_translations
    from MedGenLib.trainer.sequence_measurement import measure_series
    from MedGenLib.training.package import UNMEASURED

    measures: Mapping[type, Any] = {
        TranslationPlan: measure_translations,
        ClassifierPlan: measure_classes,
        ImagePlan: measure_images,
        SequencePlan: measure_series,
    }
    measured = measures.get(type(plan), measure)
    found = measured(load_manifest(package), plan, cases, out / "evaluation", device, progress)
    memory = _memory(plan, out)
    write_page(plan, out, found.section(), Section("Memory", memory))
    write_json(out / MEASURED, {"rows": [vars(row) for row in found.rows()], "faults": list(found.faults)})
    lines = "\n".join(f"- {line}" for line in (*found.lines(), *memory))
    text = (
        (package / CARD).read_text(encoding="utf-8").replace(UNMEASURED, f"## Measured on held-out people\n\n{lines}")
    )
    (package / CARD).write_text(text, encoding="utf-8", newline="\n")
    if intervals := getattr(found, "intervals", None):
        add_statistics(package, intervals=asdict(intervals))
    seal(package)
    return store.add(package)


def _memory(plan: AnyPlan, out: Path) -> list[str]:
    """The predicted and the measured memory of each stage that was trained here."""
    from MedGenLib.training.memory import MEMORY

    found = []
    for stage in plan.stages:
        file = out / FOLDERS[stage] / MEMORY
        if file.is_file():
            peak = json.loads(file.read_text(encoding="utf-8"))["peak_mib"]
            before = f", {plan.memory_mib[stage]:.0f} MiB predicted" if stage in plan.memory_mib else ""
            found.append(f"Memory of the training ({stage}), of each process: {peak:.0f} MiB{before}")
    return found
