"""Typed settings of model packages: one class for each pipeline.

A pipeline declares the class of its section `preprocessing` with `@settings("name")`. A package names its pipeline;
`pipeline_name` derives the name for older packages without the key. `read_settings` reads the typed sections when a
package is loaded. No torch, no NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from MedGenLib.errors import PackageError
from MedGenLib.packages.sections import FlowSampler, MaisiSampler, PixelSampler, SamplerSpec, SliceSampler, Statistics
from MedGenLib.packages.typed import joined, nearest, read, setting, shown
from MedGenLib.registry import Registry

OF_TASK = {
    "translate": "slice-translation",
    "segment": "segmentation",
    "features": "features",
    "enhance": "restoration",
    "classify": "classification",
    "detect": "detection",
    "sequence": "sequence",
}
"""Pipeline of older packages without the key, by task."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class of the section `preprocessing` of a package.

    Attributes
    ----------
    task: task of the pipeline's packages.
    roles: required networks.
    sampler: type of the section `sampler`.
    outline, paired: see `SliceTranslationSettings`.
    name: name of the preprocessing.
    """

    task: ClassVar[str] = "generate"
    roles: ClassVar[tuple[str, ...]] = ()
    sampler: ClassVar[type[SamplerSpec]] = SamplerSpec
    outline: ClassVar[bool] = True
    paired: ClassVar[bool] = True

    name: str

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        """Sentences on settings that contradict each other or the rest of the section `medgen`."""
        if missing := [role for role in self.roles if role not in medgen["networks"]]:
            yield (
                f"networks has no '{missing[0]}'; a package of the pipeline '{pipeline_name(medgen)}' needs "
                f"{joined(self.roles, 'and')}"
            )


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(Settings):
    """Settings of packages that generate an image from labels or from a grid.

    Attributes
    ----------
    outside: content outside the labels: background, more anatomy, or the rest of the body.
    partial: trained on masks with missing labels.
    fill: name of the label that is most suitable to fill gaps of a segmentation.
    body: label of the rest of the body, which fills gaps automatically.
    latent_channels, latent_stride: channels of the latent, and image voxels per latent voxel along each axis.
    grid: voxels of the only grid of a model without a mask; None for models that take the grid of an input.
    """

    grid: ClassVar[tuple[int, int, int] | None] = None

    outside: Literal["background", "anatomy", "body"] = "background"
    partial: bool = False
    fill: str | None = None
    body: int | None = setting(None, low=1)
    latent_channels: int = setting(8, low=1)
    latent_stride: int = setting(2, low=1)

    @property
    def takes_noise(self) -> bool:
        """Whether the networks are conditioned on the noise level."""
        return False

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        labels = medgen["input"].get("labels", {})
        if self.body is not None and str(self.body) not in labels:
            yield f"preprocessing.body is {self.body}, which is not a label of the model; {_of(labels)}"
        names = [name for label in labels.values() for name in (label["name"], *label.get("aliases", ()))]
        if self.fill is not None and self.fill.casefold() not in map(str.casefold, names):
            yield f"preprocessing.fill is {shown(self.fill)}, which is not a label of the model; {_of(labels)}"


def _of(labels: Mapping[str, Any]) -> str:
    return f"choose one of its {len(labels)} labels" if labels else "leave it out, as the model has no mask"


SETTINGS: Registry[type[Settings]] = Registry("pipeline", "settings", "MedGenLib.packages")
"""Settings class of each pipeline."""
settings = SETTINGS.register


@dataclass(frozen=True, kw_only=True)
class TissueLimits:
    """Lowest and highest local median by label, in the unit of the image, enforced in `passes` passes."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    passes: int = setting(low=1)


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Normal distribution of measures over the training images.

    Attributes
    ----------
    means, sds: mean and standard deviation of each entry.
    factor: rows of the lower triangular factor of the correlation of the entries.
    """

    means: tuple[float, ...]
    sds: tuple[float, ...] = setting(above=0)
    factor: tuple[tuple[float, ...], ...]

    def of_entries(self, count: int, where: str) -> Iterator[str]:
        """Sentences on lists that do not have ``count`` entries."""
        for key, values in {"means": self.means, "sds": self.sds, "factor": self.factor}.items():
            if len(values) != count:
                yield f"preprocessing.{where}.{key} has {len(values)} entries; give {count}"
        if any(len(row) != number for number, row in enumerate(self.factor, 1)):
            yield f"preprocessing.{where}.factor is not triangular; give rows of 1, 2, 3 ... entries"


SHADING = 10
"""Coefficients of a shading, see `imaging.shading`."""


@dataclass(frozen=True, kw_only=True)
class ContrastSettings(Distribution):
    """Distribution of the contrast of the training scans.

    A contrast has a level for each label, relative to that of the reference label, and the logarithm (base 2) of the
    noise relative to `noise_hu`.

    Attributes
    ----------
    labels, reference: labels with a level, and the label whose level is 1.
    shading: a contrast ends with the coefficients of a shading, see `imaging.shading`.
    """

    labels: tuple[int, ...] = setting(low=1)
    reference: int = setting(low=1)
    shading: bool = False

    @property
    def entries(self) -> int:
        """Number of entries of a contrast."""
        return len(self.labels) + 1 + self.shading * SHADING


@dataclass(frozen=True, kw_only=True)
class ResampledNoise:
    """Noise of masks that are resampled for the network, because their voxels are no cubes or out of its range.

    Attributes
    ----------
    noise_hu: usual noise of real scans with such voxels, on their own grid.
    kept: share of the noise of a generated image that is left after its resampling to the grid of the mask.
    """

    noise_hu: float = setting(above=0)
    kept: float = setting(above=0, high=1)


TEXTURE = (
    "fine detail",
    "smoothness right-left",
    "smoothness posterior-anterior",
    "smoothness inferior-superior",
    "skewness",
    "contrast",
)
"""Entries of a texture, see `imaging.texture`."""
CODECS = {"tissue-standard": ("centers", "scales", "limit"), "affine": ("mean", "sd")}
"""Intensity codec -> its parameters, of which the last is optional."""


@settings("latent-flow")
@dataclass(frozen=True, kw_only=True)
class LatentFlowSettings(GenerationSettings):
    """A flow in the latent of an autoencoder.

    Attributes
    ----------
    name: name of the intensity codec.
    coordinates: the networks get the position relative to the center of the labels.
    centers, scales, limit: parameters of the codec "tissue-standard", by label, the first one for the background.
    mean, sd: parameters of the codec "affine".
    noise_hu: (spacing in mm, usual noise) of real images, by spacing; None for models without a noise setting.
    resampled_noise: noise of masks that are resampled; None where it is the same.
    contrast: contrast of the training images; None for models without it.
    texture: `imaging.texture` of the training images, a condition of the network; None for models without it. An output
        that covers the field of view has mean and SD of the codec, as the training images do.
    coarse_texture: share of the usual strength of coarse texture that the network of levels gives.
    organs: organs have the HU of `labels/organs.py` after sampling; the labels are tissues in HU with a tissue_range.
    """

    roles: ClassVar[tuple[str, ...]] = ("autoencoder", "flow")
    sampler: ClassVar[type[SamplerSpec]] = FlowSampler

    name: Literal["tissue-standard", "affine"]
    outside: Literal["background", "anatomy"] = setting()
    coordinates: bool = False
    centers: tuple[float, ...] | None = None
    scales: tuple[float, ...] | None = setting(None, above=0)
    limit: float | None = setting(None, above=0)
    mean: float | None = None
    sd: float | None = setting(None, above=0)
    noise_hu: tuple[tuple[float, float], ...] | None = setting(None, above=0)
    resampled_noise: ResampledNoise | None = None
    contrast: ContrastSettings | None = None
    texture: Distribution | None = None
    tissue_range: TissueLimits | None = None
    coarse_texture: float = setting(1.0, low=0)
    organs: bool = False

    @property
    def takes_noise(self) -> bool:
        return self.noise_hu is not None

    @property
    def codec(self) -> dict[str, Any]:
        """Parameters of the intensity codec in the package."""
        found = {key: getattr(self, key) for key in CODECS[self.name]}
        return {key: value for key, value in found.items() if value is not None}

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        yield from self._of_codec()
        highest = max(map(int, medgen["input"].get("labels", {})), default=0)
        lists = {"centers": self.centers, "scales": self.scales}
        if self.tissue_range is not None:
            lists |= {"tissue_range.low": self.tissue_range.low, "tissue_range.high": self.tissue_range.high}
        for key, values in lists.items():
            if values is not None and len(values) != highest + 1:
                yield (
                    f"preprocessing.{key} has {len(values)} values, but the labels of the model go up to {highest}; "
                    f"give {highest + 1}, the first one for the background"
                )
        if self.tissue_range is not None and any(
            low > high for low, high in zip(self.tissue_range.low, self.tissue_range.high, strict=False)
        ):
            yield "preprocessing.tissue_range.low is above its high for a label; exchange them"
        spacings = [spacing for spacing, _ in self.noise_hu or ()]
        if spacings != sorted(set(spacings)):
            yield f"preprocessing.noise_hu has the spacings {shown(spacings)}; give them in rising order"
        if self.contrast is not None:
            yield from self.contrast.of_entries(self.contrast.entries, "contrast")
            if not self.takes_noise:
                yield "preprocessing has a contrast without noise_hu; add noise_hu"
            if self.centers is None or max(self.contrast.labels) > highest:
                yield "preprocessing.contrast has a label without a center; give labels of the model with centers"
        if self.texture is not None:
            yield from self.texture.of_entries(len(TEXTURE), "texture")
            if self.name != "affine" or self.takes_noise:
                yield "preprocessing has a texture, which needs the codec 'affine' without noise_hu; leave it out"
        names = {label["name"] for label in medgen["input"].get("labels", {}).values()}
        if self.organs and (self.tissue_range is None or not names >= {"fat", "soft tissue", "bone"}):
            yield "preprocessing.organs needs a tissue_range and the labels fat, soft tissue and bone; leave it out"
        yield from self._of_network(medgen, highest + 1)
        if self.resampled_noise is not None and (not self.takes_noise or self.contrast is not None):
            yield "preprocessing.resampled_noise needs noise_hu and no contrast; leave it out"

    def _of_codec(self) -> Iterator[str]:
        own = CODECS[self.name]
        for key in own:
            if getattr(self, key) is None and key != "limit":
                yield f"preprocessing has no '{key}', which the codec '{self.name}' needs; add it"
        for key in {key for keys in CODECS.values() for key in keys}.difference(own):
            if getattr(self, key) is not None:
                yield f"preprocessing.{key} does not belong to the codec '{self.name}'; leave it out"

    def _of_network(self, medgen: Mapping[str, Any], labels: int) -> Iterator[str]:
        """Check the arguments of the network 'flow'; `labels` includes the background."""
        arguments = medgen["networks"].get("flow", {}).get("arguments", {})
        scalars = (2, "spacing and noise") if self.takes_noise else (0, "a model without noise_hu")
        if self.texture is not None:
            scalars = len(TEXTURE), "a model with texture"
        expected = {
            "maps": (labels + 3 * self.coordinates, f"{labels} labels{' and 3 coordinates' * self.coordinates}"),
            "scalars": scalars,
            "latent": (self.latent_channels, "preprocessing.latent_channels"),
        }
        if not arguments.get("widths", True):
            yield "networks.flow.arguments.widths is []; give at least one level"
        for key, (value, source) in expected.items():
            if arguments.get(key, value) != value:
                yield (
                    f"networks.flow.arguments.{key} is {shown(arguments[key])}, but must be {value} for {source}; "
                    "change one of them"
                )


@settings("pixel-diffusion")
@dataclass(frozen=True, kw_only=True)
class PixelDiffusionSettings(LatentFlowSettings):
    """A diffusion of voxels, with the Haar transform in place of a trained autoencoder."""

    sampler: ClassVar[type[SamplerSpec]] = PixelSampler


REGION_INPUT = "include_top_region_index_input"
"""Argument of a network with the body region as input."""


@settings("maisi")
@dataclass(frozen=True, kw_only=True)
class MaisiSettings(GenerationSettings):
    """NV-Generate's networks.

    Attributes
    ----------
    grids: sizes in voxels that the networks were trained on, along the axes of RAS.
    spacing_min_mm, spacing_max_mm: range of voxel sizes in training, along the same axes.
    equal_in_plane: both sides of a slice have the same voxel size.
    least_view_mm: smallest field of view within a slice.
    stride: the sides of a grid are multiples of this number of image voxels.
    intensity: intensities of the networks' values 0 and 1.
    classes: number of each modality in the networks; default_class is the package's default.
    guidance: weight of the guidance to the class.
    regions: the networks get the topmost and the lowest body region.
    scale_factor: scale factor of the latents.
    """

    sampler: ClassVar[type[SamplerSpec]] = MaisiSampler
    roles: ClassVar[tuple[str, ...]] = ("autoencoder", "flow")

    name: Literal["maisi"]
    outside: Literal["body"] = setting()
    grids: tuple[tuple[int, int, int], ...] = setting(low=1)
    spacing_min_mm: tuple[float, float, float] = setting(above=0)
    spacing_max_mm: tuple[float, float, float] = setting(above=0)
    equal_in_plane: bool = False
    least_view_mm: float = setting(0.0, low=0)
    stride: int = setting(low=1)
    intensity: tuple[float, float]
    classes: Mapping[str, int] = field(default_factory=dict, metadata={"low": 0})
    default_class: str | None = setting(None, key="class")
    guidance: float = setting(1.0, low=0)
    regions: bool = False
    scale_factor: float = setting(above=0)
    latent_channels: int = setting(4, low=1)
    latent_stride: int = setting(4, low=1)

    @property
    def network_stride(self) -> int:
        """Latent voxels per coarsest cell of the U-Net."""
        return self.stride // self.latent_stride

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        if odd := [grid for grid in self.grids if any(n % self.stride for n in grid)]:
            yield f"preprocessing.grids has {list(odd[0])}, but the stride is {self.stride}; give multiples of it"
        if self.stride % self.latent_stride:
            yield (
                f"preprocessing.stride is {self.stride}, which is not a multiple of the latent_stride "
                f"{self.latent_stride}; give a multiple"
            )
        if any(low > high for low, high in zip(self.spacing_min_mm, self.spacing_max_mm, strict=True)):
            yield "preprocessing.spacing_min_mm is above spacing_max_mm along an axis; exchange them"
        if self.intensity[0] >= self.intensity[1]:
            yield f"preprocessing.intensity is {list(self.intensity)}; give the lower value first"
        if self.default_class is not None and self.default_class not in self.classes:
            yield (
                f"preprocessing.class is {shown(self.default_class)}, which is not one of preprocessing.classes; "
                f"{nearest(self.default_class, self.classes) if self.classes else 'leave it out'}"
            )
        yield from self._of_networks(medgen)

    def _of_networks(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        networks = medgen["networks"]
        if (medgen["input"]["kind"] == "labels") != ("controlnet" in networks):
            number = "one" if "controlnet" in networks else "no"
            yield f"input.kind is '{medgen['input']['kind']}', but there is {number} 'controlnet'; change one"
        flow, autoencoder = (networks.get(role, {}).get("arguments", {}) for role in ("flow", "autoencoder"))
        channels, stride = self.latent_channels, self.latent_stride
        levels = autoencoder.get("num_channels")
        for where, found, key, value in (
            ("flow.arguments.in_channels", flow.get("in_channels"), "latent_channels", channels),
            ("autoencoder.arguments.latent_channels", autoencoder.get("latent_channels"), "latent_channels", channels),
            ("autoencoder.arguments.num_channels", levels and 2 ** (len(levels) - 1), "latent_stride", stride),
            (f"flow.arguments.{REGION_INPUT}", flow.get(REGION_INPUT), "regions", self.regions),
        ):
            if found is not None and found != value:
                yield f"networks.{where} means {found}, but preprocessing.{key} is {value}; give the same"
        count = flow.get("num_class_embeds") or 0
        if high := [name for name, number in self.classes.items() if number >= count]:
            yield (
                f"preprocessing.classes.{high[0]} is {self.classes[high[0]]}, but the network 'flow' has {count} "
                "classes; give a number below that"
            )


@settings("volume-gan")
@dataclass(frozen=True, kw_only=True)
class VolumeGanSettings(GenerationSettings):
    """Whole volumes of one grid from noise.

    Attributes
    ----------
    grid: voxels along the axes of RAS.
    center, scale: a network value is (intensity - center) / scale.
    classes: names of the classes, in the order of their numbers; None without classes.
    """

    roles: ClassVar[tuple[str, ...]] = ("generator",)

    name: Literal["fixed-grid"]
    grid: tuple[int, int, int] = setting(low=1)
    center: float
    scale: float = setting(above=0)
    classes: tuple[str, ...] | None = None

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        if (kind := medgen["input"]["kind"]) != "none":
            yield f"input.kind is {shown(kind)}, but the pipeline 'volume-gan' takes no input; give 'none'"
        arguments = medgen["networks"].get("generator", {}).get("arguments", {})
        expected = {"grid": list(self.grid), "classes": len(self.classes or ())}
        for key, value in expected.items():
            if arguments.get(key, value) != value:
                yield (
                    f"networks.generator.arguments.{key} is {shown(arguments[key])}, but must be {shown(value)} for "
                    f"preprocessing.{key}; change one of them"
                )


HEAD_MODALITIES = ("CT", "T1w")
"""Modalities with a normalization for slices of the head."""


@settings("slice-translation")
@dataclass(frozen=True, kw_only=True)
class SliceTranslationSettings(Settings):
    """Slices translated in up to three planes: of the head ("head-slices"), or of whole images of any part ("slices").

    Attributes
    ----------
    planes: planes of the training slices: 0 axial, 1 coronal, 2 sagittal.
    outline: the body has the same outline in source and target, so that the outline of an output can be checked.
    paired: trained on pairs.
    """

    task: ClassVar[str] = "translate"
    roles: ClassVar[tuple[str, ...]] = ("translator",)
    sampler: ClassVar[type[SamplerSpec]] = SliceSampler

    name: Literal["head-slices", "slices"]
    planes: tuple[int, ...] = setting((0, 1, 2), low=0, high=2)
    outline: bool = True
    paired: bool = True

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        for side in ("input", "output") if self.name == "head-slices" else ():
            if (modality := medgen[side]["modality"]) not in HEAD_MODALITIES:
                yield f"{side}.modality is {shown(modality)}, but {self.name} knows {joined(HEAD_MODALITIES)}; give one"


@settings("segmentation")
@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(Settings):
    """Standardization of each image, clipped to `low` and `high`.

    Attributes
    ----------
    name: "z-score" with its mean and standard deviation, or "brain" for T1w without skull, with white matter at 0.5.
    """

    task: ClassVar[str] = "segment"
    roles: ClassVar[tuple[str, ...]] = ("segmenter",)

    name: Literal["z-score", "brain"]
    low: float
    high: float

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        if self.low >= self.high:
            yield f"preprocessing.low is {self.low:g}, not below preprocessing.high, {self.high:g}; exchange them"
        count = medgen["networks"].get("segmenter", {}).get("arguments", {}).get("labels")
        labels = len(medgen["output"]["labels"])
        if count not in (None, labels):
            yield f"networks.segmenter.arguments.labels is {count}, but output.labels has {labels}; give as many"


@settings("detection")
@dataclass(frozen=True, kw_only=True)
class DetectionSettings(SegmentationSettings):
    """As of a segmenter of lesions, whose probabilities are the scores of candidates.

    Attributes
    ----------
    name: "z-score", or "window" for CT, which maps HU from `low` to `high` to 0..2.
    threshold: score from which a candidate is reported.
    """

    task: ClassVar[str] = "detect"

    name: Literal["z-score", "window"]
    threshold: float = setting(0.5, above=0, high=1)


@settings("restoration")
@dataclass(frozen=True, kw_only=True)
class RestorationSettings(Settings):
    """Images whose detail and noise are restored.

    Attributes
    ----------
    name: "hounsfield" for CT; "relative" for images whose unit has no meaning, see `enhancement.restoring`.
    scale: of the values, in HU, or relative to the median of the foreground.
    thickest: largest thickness of a slice in training, in voxels of the output.
    noisiest: largest standard deviation of the noise in training, in the scale.
    """

    task: ClassVar[str] = "enhance"
    roles: ClassVar[tuple[str, ...]] = ("restorer",)

    name: Literal["hounsfield", "relative"]
    scale: float = setting(above=0)
    thickest: float = setting(above=1)
    noisiest: float = setting(above=0)


@settings("classification")
@dataclass(frozen=True, kw_only=True)
class ClassificationSettings(Settings):
    """Images sampled on one grid, for a network that finds their class.

    Attributes
    ----------
    name: "hounsfield" for CT; "relative" for images whose unit has no meaning, see `classification.grid`.
    shape: voxels of the grid along the RAS axes; slices and pictures have one along the third axis.
    whole: the image is scaled to fill the grid; otherwise voxels have the package's native size.
    several: several classes may apply to one image, or none.
    temperature: what the scores are divided by, so that shares of right answers are as the probabilities say.
    """

    task: ClassVar[str] = "classify"
    roles: ClassVar[tuple[str, ...]] = ("classifier",)

    name: Literal["hounsfield", "relative"]
    shape: tuple[int, int, int] = setting(low=1)
    whole: bool = False
    several: bool = False
    temperature: float = setting(1.0, above=0)

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        arguments = medgen["networks"].get("classifier", {}).get("arguments", {})
        wanted = {"classes": len(medgen["output"]["labels"]), "dims": sum(n > 1 for n in self.shape)}
        for key, count in wanted.items():
            if arguments.get(key) != count:
                yield f"networks.classifier.arguments.{key} is {shown(arguments.get(key))}, not {count}; give that"


@settings("sequence")
@dataclass(frozen=True, kw_only=True)
class SequenceSettings(Settings):
    """Series over time from their first image, see `pipelines.sequence`.

    Attributes
    ----------
    frames: of a series, with the first one.
    center, scale: a network value is (intensity - center) / scale.
    """

    task: ClassVar[str] = "sequence"
    roles: ClassVar[tuple[str, ...]] = ("sequence",)

    name: Literal["fixed-grid"]
    frames: int = setting(low=2)
    center: float
    scale: float = setting(above=0)

    def contradictions(self, medgen: Mapping[str, Any]) -> Iterator[str]:
        yield from super().contradictions(medgen)
        count = medgen["networks"].get("sequence", {}).get("arguments", {}).get("frames")
        if count not in (None, self.frames):
            yield f"networks.sequence.arguments.frames is {count}, but preprocessing.frames is {self.frames}; give one"


@dataclass(frozen=True, kw_only=True)
class HounsfieldScale:
    """asinh((HU - center) / scale) of HU from low to high."""

    center_hu: float
    scale_hu: float = setting(above=0)
    low_hu: float
    high_hu: float


@dataclass(frozen=True, kw_only=True)
class RelativeScale:
    """4 v / p - 2 within low and high, where p is a percentile of the image."""

    percentile: float = setting(above=0, high=100)
    low: float
    high: float


@settings("features")
@dataclass(frozen=True, kw_only=True)
class FeatureSettings(Settings):
    """Slices with one scale for CT and one for other images."""

    task: ClassVar[str] = "features"
    roles: ClassVar[tuple[str, ...]] = ("encoder",)

    name: Literal["slices"]
    ct: HounsfieldScale | None = None
    other: RelativeScale | None = None


# The settings of a package


@dataclass(frozen=True)
class PackageSettings:
    """The typed sections of a package."""

    pipeline: str
    settings: Settings
    sampler: SamplerSpec | None
    statistics: Statistics

    def require_consistent(self, medgen: Mapping[str, Any]) -> None:
        """Raise PackageError for the first contradiction between the typed sections and the section `medgen`."""
        for part in (self.settings, self.sampler, self.statistics):
            for sentence in part.contradictions(medgen) if part is not None else ():
                raise PackageError(f"{sentence}.")


def pipeline_name(medgen: Mapping[str, Any]) -> str:
    """The pipeline of a package: the key `pipeline`, or derived from other keys of an older package."""
    if "pipeline" in medgen:
        return medgen["pipeline"]
    if medgen["task"] != "generate":
        return OF_TASK[medgen["task"]]
    if medgen["preprocessing"].get("name") == "maisi":
        return "maisi"
    return "pixel-diffusion" if medgen["sampler"].get("prediction") == "v" else "latent-flow"


def read_settings(medgen: Mapping[str, Any]) -> PackageSettings:
    """The typed sections of the section `medgen` of a package's metadata.

    Raises PackageError if a setting is wrong, or the pipeline is unknown or for another task.
    """
    name = pipeline_name(medgen)
    if name not in SETTINGS:
        raise PackageError(f"pipeline is {shown(name)}, which is not registered; {nearest(str(name), SETTINGS)}.")
    kind = SETTINGS[name]
    if kind.task != medgen["task"]:
        raise PackageError(
            f"pipeline is '{name}', which is for the task '{kind.task}', but task is {shown(medgen['task'])}; change "
            "one of them."
        )
    sampler = read(kind.sampler, medgen["sampler"], "sampler") if "sampler" in medgen else None
    return PackageSettings(
        name,
        read(kind, medgen["preprocessing"], "preprocessing"),
        sampler,
        read(Statistics, medgen["statistics"], "statistics"),
    )
