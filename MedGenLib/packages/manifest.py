"""The manifest of a model package: a typed, read-only view of `configs/metadata.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from MedGenLib.errors import InputError, PackageError
from MedGenLib.labels.vocabulary import Label, Vocabulary
from MedGenLib.packages import rules
from MedGenLib.packages.sections import Preset, SamplerSpec, Statistics
from MedGenLib.packages.settings import PackageSettings, Settings, read_settings

ALLOWED_NETWORKS = (
    "Autoencoder",
    "FeatureEncoder",
    "FlowUNet",
    "ImageClassifier",
    "LatentClassifier",
    "LevelNet",
    "MaisiAutoencoder",
    "MaisiControlNet",
    "MaisiUNet",
    "MeshNet",
    "ResidualTranslator",
    "Restorer",
    "Segmenter",
    "SequenceNet",
    "SliceTranslator",
    "StyleGenerator",
    "VolumeGenerator",
    "VoxelLevelNet",
)
"""The only networks that a package can name; anything else is refused."""

PURPOSES = {
    "generate": "needs a mask; use `medgen generate` for it",
    "translate": "translates images; use `medgen translate` for it",
    "segment": "finds labels in images; use `medgen evaluate --segmenter` for it",
    "features": "compares cohorts; use `medgen evaluate distribution --features` for it",
    "enhance": "restores images; use `medgen enhance` for it",
    "classify": "finds the class of an image; use `medgen classify` for it",
    "sequence": "makes a series over time of an image; use `medgen translate` with --model for it",
    "detect": "finds candidates of lesions; use `medgen detect` for it",
}
"""Purpose of a model, by task."""

SCHEMA = Path(__file__).with_name("schema.json")


@dataclass(frozen=True)
class InputSpec:
    """Input of the model: `labels` for kind "labels", `modality` for kind "image".

    Kind "none" is for models that need only a size and a spacing. `left_out` lists structures of a mask that the model
    does not generate.
    """

    kind: Literal["labels", "image", "none"]
    labels: Mapping[int, Label]
    modality: str | None
    left_out: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> Vocabulary:
        """The labels, with those left out."""
        return Vocabulary(tuple(self.labels.values()), self.left_out)

    def __str__(self) -> str:
        if self.kind == "none":
            return "a size"
        return self.modality or f"{len(self.labels)} labels"


@dataclass(frozen=True)
class OutputSpec:
    """Output of the model: an image (range and background in `unit`), labels, or features.

    Only an image has a modality; `labels` are those of tasks "segment" and "detect" and the classes of task "classify",
    `features` is the length of the feature vector of task "features".
    """

    modality: str | None = None
    unit: str = ""
    range: tuple[float, float] = (0.0, 0.0)
    background: float = 0.0
    labels: Mapping[int, Label] = field(default_factory=dict)
    features: int = 0

    @property
    def vocabulary(self) -> Vocabulary:
        """The labels that a model of task "segment" finds."""
        return Vocabulary(tuple(self.labels.values()))

    def __str__(self) -> str:
        if self.features:
            return f"{self.features} features"
        return self.modality or f"{len(self.labels)} labels"


@dataclass(frozen=True)
class SpacingRange:
    """Voxel spacing in mm: accepted range and native spacing."""

    min: float
    max: float
    native: float


@dataclass(frozen=True)
class FieldOfView:
    """Smallest and largest extent per axis in mm of the model."""

    min: tuple[float, float, float]
    max: tuple[float, float, float]


@dataclass(frozen=True)
class NetworkSpec:
    """One network: its role in the package, its name on the allow-list, its weights file.

    `base` is the role of the network that weights in 4 bits are added to.
    """

    role: str
    network: str
    arguments: Mapping[str, Any]
    weights: str
    base: str | None = None


@dataclass(frozen=True)
class Performance:
    """One measured run: voxels per axis, preset, wall seconds, peak memory."""

    size: tuple[int, int, int]
    preset: str
    seconds: float
    peak_mib: float
    device: str


@dataclass(frozen=True)
class TrainingData:
    """One data set that the weights were trained on."""

    name: str
    license: str
    url: str
    subjects: int


@dataclass(frozen=True)
class Training:
    """Training of the weights; `held_out` are the subjects not used for training."""

    data: tuple[TrainingData, ...]
    commands: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class LicenseSpec:
    """SPDX identifier and its consequences for the user."""

    spdx: str
    commercial_use: bool
    acceptance_required: bool


# Compared and hashed by identity: it has dictionaries, and callers cache by manifest.
@dataclass(frozen=True, eq=False)
class Manifest:
    """A validated model package.

    `name` identifies it; `title` is its name for people. `metadata` is the whole JSON as read; treat it, like every
    mapping here, as read-only.
    """

    folder: Path
    name: str
    version: str
    description: str
    authors: str
    copyright: str
    task: Literal["generate", "translate", "segment", "features", "enhance", "classify", "detect", "sequence"]
    input: InputSpec
    output: OutputSpec
    spacing: SpacingRange
    field_of_view: FieldOfView
    networks: Mapping[str, NetworkSpec]
    pipeline: str
    settings: Settings
    sampler: SamplerSpec | None
    performance: tuple[Performance, ...]
    statistics: Statistics
    training: Training
    license: LicenseSpec
    checksums: Mapping[str, str]
    citation: str
    metadata: Mapping[str, Any]

    @property
    def needs_head(self) -> bool:
        """Whether the model refuses images of other parts of the body."""
        return self.settings.name == "head-slices"

    def preset(self, name: str) -> Preset:
        """The preset with this name; InputError lists the available ones."""
        presets = self.sampler.presets if self.sampler else {}
        if name not in presets:
            known = ", ".join(presets) or "none"
            raise InputError(f"The model '{self.name}' has no preset '{name}'; its presets are: {known}.")
        return presets[name]

    def require_task(self, task: str) -> None:
        """Raise InputError, with the purpose of the model, unless it is for this task."""
        if self.task != task:
            raise InputError(f"The model '{self.name}' {PURPOSES[self.task]}, or choose another model with --model.")

    def weights_path(self, role: str) -> Path:
        """Weights file of a role; PackageError lists the available roles."""
        if role not in self.networks:
            raise PackageError(f"The model '{self.name}' has no network '{role}'; it has: {', '.join(self.networks)}.")
        return self.folder / self.networks[role].weights

    @property
    def title(self) -> str:
        """Name for people."""
        return self.metadata["medgen"].get("title", self.name)

    @property
    def card(self) -> str:
        """The model card (Markdown), empty if the file is missing."""
        return _text(self.folder / rules.CARD)

    @property
    def license_place(self) -> str:
        """Path of the license."""
        return str(self.folder / rules.LICENSE)

    @property
    def license_text(self) -> str:
        """The full license, empty if the file is missing."""
        return _text(self.folder / rules.LICENSE)


def load_manifest(folder: str | Path, validate: bool = True) -> Manifest:
    """Read and validate the manifest of a package folder, without its weights.

    Parameters
    ----------
    validate: validate against the schema, which needs jsonschema. Without it, unreadable entries are still refused, but
        a value of a wrong type may pass.

    Raises
    ------
    PackageError: not a package, a wrong setting or a contradiction between settings, a violation of the schema (with
        the JSON path), a network that is not allowed, or an expression.
    """
    folder = Path(folder).absolute()
    path = folder / rules.METADATA
    data = rules.read_json(path, rules.METADATA)
    try:
        typed = _typed_sections(data)
        problem = (_schema_problem(data) if validate else None) or _network_problem(data) or _contradiction(data)
        if not problem:
            typed.require_consistent(data["medgen"])
            return _manifest(folder, data, typed)
    except PackageError as error:
        raise PackageError(f"{path} is wrong: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if validate:  # a bug: the file is valid by the schema
            raise
        problem = f"an entry that is missing or of another kind ({type(error).__name__}: {error})"
    raise PackageError(f"{path} is wrong at {problem}.")


def _typed_sections(data: Any) -> PackageSettings | None:
    """None if the file lacks the structure of the settings, which the schema reports."""
    try:
        return read_settings(data["medgen"])
    except (LookupError, TypeError, AttributeError):
        return None


def _schema_problem(data: Any) -> str | None:
    import jsonschema

    error = jsonschema.exceptions.best_match(_validator().iter_errors(data))
    if error is None:
        return None
    message = error.message if len(error.message) <= 200 else f"{error.message[:200]} ..."
    return f"{error.json_path}: {message}"


@lru_cache(maxsize=1)
def _validator() -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _network_problem(data: dict) -> str | None:
    for role, network in data["medgen"]["networks"].items():
        if network["network"] not in ALLOWED_NETWORKS:
            return (
                f"$.medgen.networks.{role}.network: '{network['network']}' is not one of the "
                f"networks that a package may use ({', '.join(ALLOWED_NETWORKS)})"
            )
    return None


def _contradiction(data: dict) -> str | None:
    """Errors beyond the schema: order of values, weights without checksum, duplicate names."""
    medgen = data["medgen"]
    spacing, view = medgen["spacing_mm"], medgen["field_of_view_mm"]
    if not spacing["min"] <= spacing["native"] <= spacing["max"]:
        return "$.medgen.spacing_mm: min <= native <= max does not hold"
    if any(low > high for low, high in zip(view["min"], view["max"], strict=True)):
        return "$.medgen.field_of_view_mm: min is larger than max"
    low, high = medgen["output"].get("range", (0, 1))
    if low >= high:
        return "$.medgen.output.range: the first value must be below the second"
    for role, network in medgen["networks"].items():
        if network["weights"] not in medgen["checksums"]:
            return f"$.medgen.networks.{role}.weights: '{network['weights']}' has no checksum"
        base = network.get("base")
        if base is not None and (base == role or "base" in medgen["networks"].get(base, {"base": ""})):
            return (
                f"$.medgen.networks.{role}.base: '{base}' is not another network of the package with complete weights"
            )
    for side in ("input", "output"):
        names = [label["name"].casefold() for label in medgen[side].get("labels", {}).values()]
        if len(set(names)) < len(names):
            return f"$.medgen.{side}.labels: two labels have the same name"
    return None


def _manifest(folder: Path, data: dict, typed: PackageSettings) -> Manifest:
    medgen = data["medgen"]
    return Manifest(
        folder=folder,
        name=data["name"],
        version=data["version"],
        description=data["description"],
        authors=data["authors"],
        copyright=data["copyright"],
        task=medgen["task"],
        input=_input(medgen["input"]),
        output=_output(medgen["output"], medgen["task"]),
        spacing=SpacingRange(**medgen["spacing_mm"]),
        field_of_view=FieldOfView(**{k: tuple(v) for k, v in medgen["field_of_view_mm"].items()}),
        networks={role: NetworkSpec(role, **spec) for role, spec in medgen["networks"].items()},
        pipeline=typed.pipeline,
        settings=typed.settings,
        sampler=typed.sampler,
        performance=tuple(Performance(**{**run, "size": tuple(run["size"])}) for run in medgen["performance"]),
        statistics=typed.statistics,
        training=_training(medgen["training"]),
        license=LicenseSpec(**medgen["license"]),
        checksums=medgen["checksums"],
        citation=medgen["citation"],
        metadata=data,
    )


def _input(section: dict) -> InputSpec:
    left_out = tuple(section.get("left_out", ()))
    return InputSpec(section["kind"], _labels(section), section.get("modality"), left_out)


def _output(section: dict, task: str) -> OutputSpec:
    if task in ("segment", "classify", "detect"):
        return OutputSpec(labels=_labels(section))
    if task == "features":
        return OutputSpec(features=int(section["features"]))
    low, high = section["range"]
    return OutputSpec(section["modality"], section["unit"], (low, high), section["background"])


def _labels(section: dict) -> dict[int, Label]:
    labels = {
        int(value): Label(int(value), label["name"], tuple(label.get("aliases", ())))
        for value, label in section.get("labels", {}).items()
    }
    return dict(sorted(labels.items()))


def _training(section: dict) -> Training:
    data = tuple(TrainingData(**item) for item in section["data"])
    return Training(data, tuple(section["commands"]), tuple(section["held_out"]))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
