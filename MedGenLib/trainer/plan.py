"""The plan of a training: every choice, made from the figures of a data set, with its reason.

plan = make_plan(dataset, inspection, name="my-hippocampus")
plan = plan.changed({"patch": "[32, 48, 32]"})
config = plan.config(...)                        # for the recipes of `MedGenLib.training.recipes`
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np

from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.modality import modality_family
from MedGenLib.io.atomic import write_json
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.typed import read, setting
from MedGenLib.progress import duration
from MedGenLib.trainer.datasets import (
    ALIGNMENT,
    CLASSIFIER,
    SEQUENCE,
    TRANSLATIONS,
    UNCONDITIONAL,
    DataSet,
    LabeledImage,
)
from MedGenLib.trainer.inspection import Inspection
from MedGenLib.training.splits import hold_out_both

STAGES = ("autoencoder", "latent-flow")
"""Recipes of a plan, in order."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
LARGEST_PATCH = {"cpu": 48, "cuda": 96}
"""Voxels per side: on a CPU one step of a flow at 48 takes about a second."""
LARGEST_OF_AUTOENCODER = 32
"""Voxels per side of its patches: it sees a few voxels around each one only."""
STRIDE = 8
"""Patches are multiples of this: of the latent's stride and of the coarsest level of the flow."""
COMPRESSIONS = (2, 4, 8)
COVERED = 0.05
"""Voxels that show something outside of the labels, relative to the labeled ones, up to which the labels cover the
image."""
FEWEST_TEXTURES = 12
"""Images from which a distribution of their texture is measured."""
TEXTURED_SHARE = 0.8
"""Share of the usual image that a patch shows at least, so that it has the texture of the image."""
LEAST_PATCH = 16
"""Voxels per side to which a patch is made smaller where the memory is full."""
CACHED = 3
"""Bytes of a prepared voxel: its value in half precision, and its label."""
MOST_LABELS, MOST_SHOWN = 254, 12
STEPS = {
    "autoencoder": (100, 1500),
    "latent-flow": (200, 100_000),
    ALIGNMENT: (200, 5000),
    "regression": (200, 50_000),
    "pix2pix": (200, 100_000),
    "pix2pixhd": (200, 100_000),
    "cyclegan": (400, 200_000),
    "cut": (400, 200_000),
    CLASSIFIER: (40, 20_000),
    SEQUENCE: (40, 20_000),
    **dict.fromkeys(UNCONDITIONAL, (200, 200_000)),
}
"""Fewest useful and most useful steps of a stage."""
SHARES = {
    "autoencoder": 0.15,
    "latent-flow": 0.7,
    ALIGNMENT: 0.2,
    **dict.fromkeys((*TRANSLATIONS, CLASSIFIER, SEQUENCE, *UNCONDITIONAL), 0.85),
}
"""Shares of the budget, which shrink together where a plan has more; the rest is for the measurement of the model."""
MOST_SHARES = 0.85
EMA = {"autoencoder": 0.99, "latent-flow": 0.998}
"""Share of the averaged weights that stays in a step."""
SHRUNK = "made smaller in the training, because the memory was full"
"""Reason of a choice."""


KEEP = 0.1
"""Weight of the distance from the weights of a continued package."""
MOST_CHOOSING = 12
"""Images with which samples are compared in a validation."""
CHOOSING = "of 20 people or more in the training, a tenth (4 to 16), whose images choose the weights"


AnyPlan = TypeVar("AnyPlan", bound="BasePlan")
AnyCase = TypeVar("AnyCase", bound=LabeledImage)


@dataclass(frozen=True, kw_only=True)
class BasePlan:
    """What the plans of all tasks have in common.

    Attributes
    ----------
    stated: choices of the user that are fields of the plan.
    stages: recipes to train, in order.
    start: installed package whose training is continued.
    dataset, layout: where the cases are.
    name, title, license: of the package.
    held_out: subjects that the networks never see, for the measurement.
    parts: into which a batch is cut, see `MedGenLib.training.loop`.
    steps: stage -> steps.
    cache_mib: space for the prepared images on the disk.
    memory_mib: stage -> predicted memory of a process.
    reasons: choice -> reason.
    """

    stated: ClassVar[tuple[str, ...]] = ("name", "modality", "license")
    stages: ClassVar[tuple[str, ...]]
    start: ClassVar[str | None] = None

    schema: int = 1
    dataset: str
    layout: str
    name: str
    title: str
    license: str
    modality: str
    held_out: tuple[str, ...]
    batch: int = setting(2, low=1)
    parts: int = setting(1, low=1)
    steps: Mapping[str, int] = field(default_factory=dict, metadata={"low": 1})
    cache_mib: float = setting(0.0, low=0)
    seed: int = 0
    memory_mib: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any], where: str = "plan") -> Self:
        """The plan of its JSON; InputError for a key or a value that does not fit."""
        try:
            plan = read(cls, data, where)
        except PackageError as error:
            raise InputError(str(error)) from None
        plan.check()
        return plan

    def check(self) -> None:
        """Raise InputError for choices that do not fit together."""
        if self.batch % self.parts:
            raise InputError(f"A batch of {self.batch} cannot be cut into {self.parts} equal parts; change either.")

    def shared_by(self, processes: int, fixed: Collection[str] = ()) -> Self:
        """The plan for several processes: each gets a part of the batch, which grows to a multiple of them.

        ``fixed`` are choices of the user.
        """
        if processes == 1 or "parts" in fixed:
            return self
        batch = self.batch if "batch" in fixed else -(-self.batch // processes) * processes
        why = f"one for each of the {processes} processes, which average their gradients"
        return self.with_values(batch=batch, parts=processes, reasons={**self.reasons, "parts": why})

    def smaller(self) -> Self | None:
        """The plan that needs less memory: the batch in more parts or, of one image each, a smaller patch; or None."""
        if more := [n for n in range(self.parts + 1, self.batch + 1) if self.batch % n == 0]:
            changed: dict[str, Any] = {"parts": more[0]}
        elif (patch := self.smaller_patch()) is not None:
            changed = {"patch": patch}
        else:
            return None
        reasons = {**self.reasons, **dict.fromkeys(changed, SHRUNK)}
        reasons.pop("memory_mib", None)
        try:
            return self.with_values(**changed, memory_mib={}, reasons=reasons)
        except InputError:  # networks that need patches of this size
            return None

    def smaller_patch(self) -> Any:
        """Half the patch, or None for networks of one size."""
        return None

    def write(self, path: Path) -> None:
        write_json(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    def with_values(self, **values: Any) -> Self:
        """The plan with other values of fields, in JSON types."""
        return self.of({**json.loads(json.dumps(self.as_dict())), **values})

    def changed(self, choices: Mapping[str, str]) -> Self:
        """The plan with some choices of the user: "key" or "key.part" -> value in JSON, or text.

        Raises InputError for an unknown key or a value that does not fit.
        """
        data = json.loads(json.dumps(self.as_dict()))
        for key, text in choices.items():
            try:
                value = json.loads(text)
            except ValueError:
                value = text
            first, _, part = key.partition(".")
            if part and isinstance(data.get(first), dict):
                data[first][part] = value
            else:
                data[key] = value
            data["reasons"][key] = "chosen by the user"
        return self.of(data)

    def optimization(self, stage: str, rate: float, **others: Any) -> dict[str, Any]:
        """The optimization of a stage in a configuration; ``others`` are added to what stages have in common."""
        steps = self.steps[stage]
        common = {
            "steps": steps,
            "batch": self.batch,
            "parts": self.parts,
            "learning_rate": rate,
            "warmup": min(100, steps // 10),
            "decay": 0.5,
            "seed": self.seed,
            "checkpoint_every": max(1, min(250, steps // 10)),
            "validate_every": max(1, steps // 8),
        }
        return common | others

    def output(self) -> dict[str, Any]:
        """The section of a package on the images of a generator."""
        found = {key: getattr(self, key) for key in ("modality", "unit", "range", "background")}
        return {**found, "range": list(found["range"])}

    def data(self, subjects: int) -> list[dict[str, Any]]:
        """The section of a package on the data of this training; ``subjects`` is the number of people."""
        return [{"name": self.title, "license": self.license, "url": "", "subjects": subjects}]

    def package(
        self,
        task: str,
        description: str,
        ends: tuple[str, str],
        dims: int,
        cases: Sequence[Any],
        options: str,
        medgen: dict[str, Any],
    ) -> dict[str, Any]:
        """The section ``package`` of a configuration.

        ``ends`` is "segmentation" or a modality, of input and output; ``cases`` are those of the training, ``options``
        those of its command.
        """
        formats = {"CT": "hounsfield", "segmentation": "segmentation"}
        sides = [
            {"type": "image", "format": formats.get(end, "magnitude"), "num_channels": 1, "spatial_shape": ["*"] * dims}
            for end in ends
        ]
        return {
            "license_text": f"The license of the training data is: {self.license}.\n",
            "metadata": {
                "version": "1.0.0",
                "changelog": {"1.0.0": "trained with `medgen train`"},
                "required_packages_version": {"safetensors": "0.8.0"},
                "name": self.name,
                "task": task,
                "description": description,
                "network_data_format": {"inputs": {"image": sides[0]}, "outputs": {"pred": sides[1]}},
            },
            "medgen": {
                "schema": 1,
                "title": self.title,
                **medgen,
                "training": {
                    "data": self.data(len({case.subject for case in cases})),
                    "commands": [f"medgen train {Path(self.dataset).name} --out {self.name}{options}"],
                },
                "license": {"spdx": self.license, "commercial_use": False, "acceptance_required": False},
            },
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Choice, value and reason, all as text."""
        shown = {item.name: getattr(self, item.name) for item in fields(self)}
        found = []
        for key, reason in self.reasons.items():
            first, _, part = key.partition(".")
            found.append((key, _shown(shown[first][part] if part else shown[first]), reason))
        return found

    def text(self) -> str:
        """The choices with their reasons, for a terminal."""
        return "\n".join(f"{key}: {value}\n    {reason}" for key, value, reason in self.rows())


def read_json_plan(path: Path) -> dict[str, Any]:
    """The content of plan.json; InputError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"The plan {path} cannot be read ({error}); make it again with `medgen plan`.") from None


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(BasePlan):
    """All choices of a training run, as in plan.json, beside those of `BasePlan`.

    Attributes
    ----------
    channel: which image of each case is used.
    labels: label of the model -> name; numbers: label of the data set -> label of the model.
    outside: content outside the labels, as in packages: "background", or "anatomy" that the labels do not describe.
    codec: name and parameters of the intensity codec.
    texture: noise, smoothness and contrast of each image are a condition, and drawn for each sample.
    ablation: share of the training patches that lose labels, so that incomplete masks work too; 0 is none.
    patch: voxels along the RAS axes.
    compression: image voxels per latent voxel along each axis; quantizer: see `networks.Autoencoder`.
    autoencoder_width: channels of the autoencoder at a compression of 2; more at a higher one.
    validation: subjects who choose the weights.
    field_of_view_mm: smallest and largest extent of the cases.
    range: lowest and highest value of the images.
    keep: see `training.recipes.latent_flow`, 0 is free.
    """

    stated: ClassVar[tuple[str, ...]] = (*BasePlan.stated, "channel", "start")

    channel: str | None = None
    unit: str
    labels: Mapping[int, str]
    numbers: Mapping[int, int]
    spacing_mm: float = setting(above=0)
    outside: Literal["background", "anatomy"] = setting()
    codec: Mapping[str, Any]
    texture: bool = False
    ablation: float = setting(0.0, low=0, high=1)
    patch: tuple[int, int, int] = setting(low=STRIDE)
    compression: int = setting(2, low=2)
    quantizer: Literal["none", "kl", "vq"] = "none"
    autoencoder_width: int = setting(24, low=1)
    widths: tuple[int, ...] = (32, 80, 160)
    blocks: tuple[int, ...] = (1, 2, 2)
    attention: bool = False
    learning_rate: Mapping[str, float] = field(default_factory=lambda: {"autoencoder": 1e-3, "latent-flow": 7e-4})
    validation: tuple[str, ...] | None = None
    field_of_view_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    range: tuple[float, float]
    background: float = 0.0
    start: str | None = None
    keep: float = setting(0.0, low=0)

    @classmethod
    def read(cls, path: Path) -> TrainingPlan:
        """Read plan.json; InputError if it is damaged or of another version of MedGen."""
        return cls.of(read_json_plan(path), str(path))

    def check(self) -> None:
        super().check()
        if self.compression not in COMPRESSIONS:
            raise InputError(f"The compression is {self.compression}; give 2, 4 or 8 voxels along each axis.")
        if uneven := [n for n in self.patch if n % self._stride]:
            raise InputError(f"The patch has a side of {uneven[0]} voxels; give multiples of {self._stride}.")
        if len(self.widths) != len(self.blocks):
            raise InputError(f"There are {len(self.widths)} widths but {len(self.blocks)} blocks; give as many.")

    @property
    def _stride(self) -> int:
        """The sides of a patch are multiples of it."""
        return max(STRIDE, self.compression * 2 ** (len(self.widths) - 1))

    def smaller_patch(self) -> list[int] | None:
        stride, least = self._stride, max(LEAST_PATCH, self._stride)
        halved = [max(least, n // 2 // stride * stride) if n > least else n for n in self.patch]
        return halved if halved != list(self.patch) else None

    def config(self, cases: Sequence[LabeledImage], cache: Path) -> dict[str, Any]:
        """The configuration of the recipes; ``cache`` is the folder of the prepared volumes."""
        kept, chosen = split_of(cases, self.held_out, self.validation)
        continues = (
            {} if self.start is None else {"continues": {"name": self.start, "added": self._added, "keep": self.keep}}
        )
        flow = {"widths": list(self.widths), "blocks": list(self.blocks), "attention": self.attention}
        if self.compression != 2:
            flow["conditioner"] = f"mask-encoder/{self.compression}"
        latent = {"width": self.autoencoder_width * self.compression // 2, "blocks": 1}
        latent |= {"stride": self.compression, "quantizer": self.quantizer}
        return {
            "seed": self.seed,
            "folder": str(cache.parent),
            **continues,
            "data": {
                "adaptor": "volumes",
                "cases": _listed_cases(kept),
                "validation_cases": _listed_cases(chosen),
                "cache": str(cache),
                "held_out": list(self.held_out),
                "modality": self.modality,
                "spacing_mm": self.spacing_mm,
                "numbers": {str(k): v for k, v in self.numbers.items()},
                "labels": {str(k): v for k, v in self.labels.items()},
                "outside": self.outside,
                "codec": dict(self.codec),
                "texture": self.texture,
                **({"ablation": {"share": self.ablation, "into": 0}} if self.ablation else {}),
            },
            "autoencoder": {"patch": [min(n, LARGEST_OF_AUTOENCODER) for n in self.patch], "network": latent},
            "flow": {"patch": list(self.patch), "network": flow},
            "optimisation": {
                stage: self.optimization(
                    stage, self.learning_rate[stage], warmup=min(300, self.steps[stage] // 10), ema=EMA[stage]
                )
                for stage in STAGES
                if stage in self.steps
            },
            "package": self._package(kept),
        }

    @property
    def stages(self) -> tuple[str, ...]:
        """The recipes to train: a continued package keeps its autoencoder."""
        return STAGES if self.start is None else STAGES[1:]

    @property
    def _added(self) -> int:
        """Labels that the continued package lacks."""
        return max(self.labels) - max(find(self.start).input.labels)

    def _package(self, cases: Sequence[LabeledImage]) -> dict[str, Any]:
        """The fixed parts of the manifest."""
        low, high = self.field_of_view_mm
        medgen = {
            "task": "generate",
            "pipeline": "latent-flow",
            "input": {"kind": "labels", "labels": {str(k): {"name": name} for k, name in self.labels.items()}},
            "output": self.output(),
            "spacing_mm": {
                "min": round(0.9 * self.spacing_mm, 4),
                "max": round(1.1 * self.spacing_mm, 4),
                "native": self.spacing_mm,
            },
            "field_of_view_mm": {"min": list(low), "max": list(high)},
            "preprocessing": {
                "name": self.codec["name"],
                "outside": self.outside,
                "coordinates": True,
                "partial": self.ablation > 0,
            },
            "sampler": {
                "name": "euler",
                "presets": {"draft": {"steps": 6}, "normal": {"steps": 12}, "best": {"steps": 30}},
            },
        }
        options = "" if self.start is None else f" --from {self.start}"
        description = f"{self.modality} from a mask of {_listed(self.labels.values())}"
        task = f"Mask-conditioned generation of {self.modality}"
        return self.package(task, description, ("segmentation", self.modality), 3, cases, options, medgen)

    def data(self, subjects: int) -> list[dict[str, Any]]:
        """The data of this training, after those of the continued package."""
        before = () if self.start is None else find(self.start).training.data
        return [*map(asdict, before), *super().data(subjects)]


def split_of(
    cases: Sequence[AnyCase], held_out: Sequence[str], validation: Sequence[str] | None
) -> tuple[list[AnyCase], list[AnyCase]]:
    """The cases that train, and some of those that choose the weights."""
    known = [case for case in cases if case.subject not in held_out]
    kept = [case for case in known if case.subject not in (validation or ())]
    return kept, [case for case in known if case not in kept][:MOST_CHOOSING]


def _listed_cases(cases: Sequence[LabeledImage]) -> list[list[str]]:
    return [[case.name, str(case.image), str(case.labels)] for case in cases]


def make_plan(
    dataset: DataSet,
    inspection: Inspection,
    name: str | None = None,
    channel: str | None = None,
    license: str | None = None,
    device: str = "cpu",
) -> TrainingPlan:
    """The plan for a data set; the numbers of steps are added by `with_budget`.

    Raises
    ------
    InputError: too few people, too many labels, or a name that no package can have.
    """
    subjects = inspection.subjects
    held_out, validation = hold_out_both(subjects, f"cases of {dataset.path}")
    if len(inspection.numbers) > MOST_LABELS:
        raise InputError(f"The data set has {len(inspection.numbers)} labels; a model takes at most {MOST_LABELS}.")
    numbers = {number: index for index, number in enumerate(inspection.numbers, start=1)}  # 1, 2, 3 ... of the model
    labels = {new: _label_name(dataset, old) for old, new in numbers.items()}
    spacing, why_spacing = _spacing(inspection)
    outside, why_outside = _outside(inspection)
    codec, why_codec = _codec(inspection, numbers, outside)
    patch, whole, why_patch = _patch(inspection, spacing, device)
    ct = inspection.modality == "CT"
    ablation, why_ablation = _ablation(len(labels), outside)
    extents = np.array([case.extent for case in inspection.facts])
    texture, why_texture = _texture(codec, outside, extents, np.array(patch) * spacing)
    reasons = {
        "modality": "stated by the data set" if dataset.modality else "from the values of the images",
        "labels": f"{len(labels)} labels occur in the cases",
        "spacing_mm": why_spacing,
        "outside": why_outside,
        "codec": why_codec,
        "texture": why_texture,
        "ablation": why_ablation,
        "patch": why_patch,
        "compression": "voxels along each axis for one of the latent; 4 and 8 cost less memory and time, and detail",
        "attention": "the patch shows the whole image"
        if whole
        else "none, because the network is applied to larger images than the patches",
        "cache_mib": "space on the disk for the prepared volumes, from which the patches are read",
        "held_out": f"a fifth of the {len(subjects)} people, drawn at random, for the measurement",
        **({"validation": CHOOSING} if validation else {}),
    }
    return TrainingPlan(
        **about(dataset, inspection, name, license),
        channel=channel,
        unit="HU" if ct else "a.u.",
        labels=labels,
        numbers=numbers,
        spacing_mm=spacing,
        outside=outside,
        codec=codec,
        texture=texture,
        ablation=ablation,
        patch=patch,
        attention=whole,
        held_out=tuple(held_out),
        validation=validation and tuple(validation),
        field_of_view_mm=_extent(extents, np.array(patch) * spacing),
        range=(-1024.0, 3071.0) if ct else (0.0, float(math.ceil(max(c.high for c in inspection.facts) * 1.5))),
        background=-1000.0 if ct else 0.0,
        cache_mib=round(sum(math.prod(case.extent) for case in inspection.facts) / spacing**3 * CACHED / 2**20, 1),
        reasons=reasons,
    )


def continued(plan: TrainingPlan, package: Manifest, dataset: DataSet) -> TrainingPlan:
    """The plan that continues the training of a package: its spacing, codec and networks, and its labels.

    Labels of the data set are found among those of the package by their names; others are added after them.

    Raises
    ------
    InputError: a package of another kind, or of another modality.
    """
    settings = package.settings
    if package.pipeline != "latent-flow" or settings.takes_noise or not settings.coordinates:
        raise InputError(
            f"The training of '{package.name}' cannot be continued: only latent flows of labels and position without a "
            "noise setting can, such as mr-hippocampus and models made by this command."
        )
    if modality_family(package.output.modality) != modality_family(plan.modality):
        raise InputError(f"'{package.name}' makes {package.output.modality}, but the images are {plan.modality}.")
    labels = {value: label.name for value, label in package.input.labels.items()}
    numbers = {}
    for old in plan.numbers:
        known = package.input.vocabulary.value_of(_label_name(dataset, old))
        numbers[old] = known or max(labels) + 1
        labels.setdefault(numbers[old], _label_name(dataset, old))
    network, autoencoder = (package.networks[role].arguments for role in ("flow", "autoencoder"))
    why = f"as in {package.name}, whose training is continued"
    changed = {
        "start": package.name,
        "keep": KEEP,
        "modality": package.output.modality,
        "labels": {str(k): v for k, v in labels.items()},
        "numbers": {str(k): v for k, v in numbers.items()},
        "spacing_mm": package.spacing.native,
        "outside": settings.outside,
        "codec": {"name": settings.name, **settings.codec},
        "texture": settings.texture is not None,
        "compression": settings.latent_stride,
        "quantizer": autoencoder.get("quantizer", "none"),
        "autoencoder_width": 2 * autoencoder["width"] // settings.latent_stride,
        "widths": list(network["widths"]),
        "blocks": list(network["blocks"]),
        "attention": bool(network.get("attention", False)),
    }
    if "centers" in changed["codec"]:  # a new label has the scale of the background of the package
        for key in ("centers", "scales"):
            values = list(changed["codec"][key])
            changed["codec"][key] = values + values[:1] * (max(labels) + 1 - len(values))
    if package.license.spdx != plan.license:
        changed["license"] = f"{package.license.spdx} AND {plan.license}"
    reasons = {**plan.reasons, **dict.fromkeys(("start", *(key for key in changed if key in plan.reasons)), why)}
    reasons["keep"] = f"draws the weights back to those of {package.name}, so that it forgets less; 0 leaves them free"
    return plan.with_values(**changed, reasons=reasons)


def with_memory(plan: AnyPlan, memory_mib: Mapping[str, float]) -> AnyPlan:
    """The plan with the predicted memory of its stages."""
    why = "of a process that trains, as measured in a few steps on this device with the averaged weights added"
    found = {stage: float(round(memory_mib[stage])) for stage in plan.stages}
    return plan.with_values(memory_mib=found, reasons={**plan.reasons, "memory_mib": why})


def with_budget(plan: AnyPlan, seconds: Mapping[str, float], budget: float) -> AnyPlan:
    """The plan with as many steps as fit into the budget in seconds, at the measured seconds for one step.

    Raises InputError if that is less than a useful training.
    """
    fit = min(1.0, MOST_SHARES / sum(SHARES[stage] for stage in plan.stages))
    shares = {stage: fit * SHARES[stage] for stage in plan.stages}
    steps = {stage: int(budget * share / seconds[stage]) for stage, share in shares.items()}
    if short := [stage for stage in plan.stages if steps[stage] < STEPS[stage][0]]:
        needed = max(STEPS[stage][0] * seconds[stage] / shares[stage] for stage in short)
        raise InputError(
            f"The budget of {duration(budget)} allows {steps[short[0]]} steps of the {short[0]}, too few to be "
            f"useful; give at least {duration(60 * math.ceil(needed / 60))}."
        )
    chosen = {stage: min(steps[stage], STEPS[stage][1]) for stage in plan.stages}
    why = {
        f"steps.{stage}": f"{seconds[stage]:.2g} s for one step on this device, {shares[stage]:.0%} of the budget"
        for stage in plan.stages
    }
    return plan.with_values(steps=chosen, reasons={**plan.reasons, **why})


def _label_name(dataset: DataSet, number: int) -> str:
    return dataset.labels.get(number) or f"label {number}"


def _spacing(inspection: Inspection) -> tuple[float, str]:
    """The median over the cases of the geometric mean of the voxel sides."""
    means = [math.prod(case.spacing) ** (1 / 3) for case in inspection.facts]
    spacing = float(f"{np.median(means):.3g}")
    low, high = (min(min(c.spacing) for c in inspection.facts), max(max(c.spacing) for c in inspection.facts))
    return spacing, f"the cases have voxels of {low:.3g} to {high:.3g} mm; this is their median as a cube"


def _outside(inspection: Inspection) -> tuple[str, str]:
    beyond = float(np.median([case.beyond for case in inspection.facts]))
    if beyond <= COVERED:
        return "background", "the labels cover what the images show"
    return "anatomy", f"the images show more than the labels ({beyond:.2g} times their volume)"


def _codec(inspection: Inspection, numbers: Mapping[int, int], outside: str) -> tuple[dict[str, Any], str]:
    """CT keeps HU: the codec is the same for all images. The scale of MR is arbitrary: each image has its own."""
    facts = inspection.facts
    if modality_family(inspection.modality) == "MR":
        levels = [case.labeled if outside == "background" else (case.mean, case.sd) for case in facts]
        level = dict(zip(("mean", "sd"), np.median(levels, axis=0), strict=True))
        where = " inside the labels" if outside == "background" else ""
        return {"name": "affine", **{k: float(f"{v:.3g}") for k, v in level.items()}}, (
            f"the scale of MR is arbitrary, so each image is standardized by its own mean and standard deviation{where}"
        )
    if outside == "background":
        centers, scales = [-1000.0], [100.0]
        for old in numbers:
            found = [case.labels[old] for case in facts if old in case.labels]
            centers.append(round(float(np.median([f.mean for f in found])), 1))
            scales.append(round(max(10.0, float(np.median([f.sd for f in found]))), 1))
        return {"name": "tissue-standard", "centers": centers, "scales": scales}, (
            "HU, standardized by the mean and the spread of each label, the same for all images"
        )
    count = len(numbers) + 1
    center = round(float(np.median([f.mean for c in facts for f in c.labels.values()])), 1)
    return {"name": "tissue-standard", "centers": [center] * count, "scales": [100.0] * count, "limit": 4.5}, (
        "HU, with one scale for all voxels and images that is fine about the labels and coarse far from them"
    )


def _texture(codec: Mapping[str, Any], outside: str, extents: np.ndarray, patch_mm: np.ndarray) -> tuple[bool, str]:
    if codec["name"] != "affine" or outside != "anatomy":
        return False, "only for images in arbitrary units that are filled by anatomy"
    if (patch_mm < TEXTURED_SHARE * np.median(extents, axis=0)).any():
        return False, "no, because it is measured on whole images, and the patches are much smaller"
    if len(extents) < FEWEST_TEXTURES:
        return False, f"no, because {len(extents)} cases do not show how images differ; {FEWEST_TEXTURES} do"
    return True, "noise, smoothness and contrast of the samples differ as those of the images do"


def _ablation(labels: int, outside: str) -> tuple[float, str]:
    if outside == "background":
        return 0.0, "none, because what has no label is background"
    if labels <= 2:
        return 0.0, "none, because there are at most two labels"
    return 0.3, "a third of the patches lose labels, so that incomplete masks work"


def _patch(inspection: Inspection, spacing: float, device: str) -> tuple[tuple[int, int, int], bool, str]:
    """The patch along the RAS axes, and whether it shows whole images."""
    largest = LARGEST_PATCH["cuda" if device.startswith("cuda") else "cpu"]
    sides = np.array([[e / spacing for e in case.extent] for case in inspection.facts]).max(axis=0)
    needed = [int(-(-round(side) // STRIDE) * STRIDE) for side in sides]
    # Long in one direction and short in others costs no more than a cube.
    if max(needed) <= 1.5 * largest and math.prod(needed) <= 1.25 * largest**3:
        return tuple(needed), True, "the largest image in voxels of this spacing"
    patch = tuple(max(STRIDE, min(n, largest)) for n in needed)
    return patch, False, f"the images are larger; {largest} voxels a side are what this device trains in useful time"


def about(
    dataset: DataSet, inspection: Any, name: str | None, license: str | None, title: str | None = None
) -> dict[str, Any]:
    """The first fields of a plan: data set, package and modality.

    ``name`` and ``license`` are choices of the user; the name is made of the title, by default that of the data set.
    Raises InputError for a name that no package can have.
    """
    name = name or package_name(title or dataset.title)
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' is no name of a model; take small letters, digits and '-', at most 64.")
    return {
        "dataset": str(dataset.path.resolve()),
        "layout": dataset.layout,
        "name": name,
        "title": dataset.title,
        "license": license or dataset.license,
        "modality": inspection.modality,
    }


def _extent(extents: np.ndarray, patch: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Smallest and largest field of view in mm along the RAS axes."""
    low = np.minimum(np.floor(extents.min(axis=0)), np.floor(patch)) * 0.8
    return tuple(float(v) for v in np.floor(low)), tuple(float(v) for v in np.ceil(extents.max(axis=0)))


def package_name(title: str) -> str:
    """A name that a package can have."""
    return re.sub(r"[^a-z0-9]+", "-", title.casefold()).strip("-")[:64] or "model"


def _listed(names: Any, most: int = 6) -> str:
    names = list(names)
    shown = names[:most] + ([f"{len(names) - most} more"] if len(names) > most else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MOST_SHOWN} more" if len(value) > MOST_SHOWN else ""
        return (", ".join(_shown(v) for v in value[:MOST_SHOWN]) or "none") + more
    return f"{value:g}" if isinstance(value, float) else str(value)
