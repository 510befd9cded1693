"""A mask on the working grid of a flow, and the inverse mapping. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from MedGenLib.devices import MIB, free_memory
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.boxes import Box, slabs
from MedGenLib.imaging.normalization import CODECS, Affine, TissueRange, TissueStandard
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample_to
from MedGenLib.imaging.shading import Shading
from MedGenLib.imaging.texture import texture
from MedGenLib.imaging.volume import LabelMap, Volume, crop, occupied, whole_numbers
from MedGenLib.labels.tissues import soft_tissue
from MedGenLib.options import LEAST_NOISE_HU, MOST_NOISE_HU
from MedGenLib.packages.manifest import Manifest
from MedGenLib.packages.settings import TEXTURE
from MedGenLib.pipelines.conditioning import coordinate_channels, label_channels, noise_scalar, spacing_scalar
from MedGenLib.pipelines.contrast import (
    SOFT_REACH,
    ShadedLevels,
    adapted,
    contrast_of,
    drawn,
    named,
    shading_of,
    softened_shift,
    standard_scores,
)
from MedGenLib.pipelines.memory_plan import BASE_MIB, LAYOUTS, MemoryDemand, network_stride, too_little
from MedGenLib.pipelines.scanner_noise import ScannerNoise, scanner_noise
from MedGenLib.pipelines.tissue_levels import ImageLevels, TextureLevels, cell_counts, texture_levels, tissue_shares
from MedGenLib.pipelines.working_grid import working_geometry

MARGIN = 8
"""Voxels kept around the labels; voxels further outside are background."""
VIEW_TOLERANCE = 0.1
"""Part by which a grid may be smaller than the trained fields of view, and still has their mean and SD."""
SLAB = 32
"""Number of planes whose intensities are computed at once."""
THIN_SLAB = 16
"""Repetitions of an axis of one voxel, of which the middle is kept."""


@dataclass
class Scene:
    """A mask on the working grid of the networks.

    Attributes
    ----------
    original: the mask as given, in the model's labels.
    region: the generated part of `original`; elsewhere the output is background.
    grid: `region` at the working spacing, in its stored orientation.
    labels: (i, j, k) array of `grid`, reoriented to RAS and padded to whole network strides.
    before: padding before each axis.
    given_noise: the user has chosen the noise.
    cell_levels: (tissues, cells) of a `LevelNet` in the cells of `shares`; None for a model without one.
    voxel_levels: (3, i, j, k) of a `VoxelLevelNet` for the label of each voxel, on the grid without padding, or None.
    shading: of the sample, on the input's grid; None for a model without one.
    """

    manifest: Manifest
    original: LabelMap
    region: LabelMap
    grid: LabelMap
    reorientation: Reorientation
    labels: np.ndarray
    before: tuple[int, int, int]
    inner: tuple[int, int, int]
    spacing: tuple[float, float, float]
    codec: TissueStandard | Affine
    scalars: list[float]
    conditions: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)
    given_noise: bool = False
    cell_levels: np.ndarray | None = None
    voxel_levels: np.ndarray | None = None
    shading: Shading | None = None

    @property
    def shares(self) -> np.ndarray:
        """Share of each tissue in the cells of the grid without its padding, (tissues + 1, cells)."""
        labels = self.inner_labels
        return tissue_shares(labels, cell_counts(labels.shape, self.spacing), max(self.manifest.input.labels))

    @property
    def inner_labels(self) -> np.ndarray:
        """Labels of the grid without its padding."""
        return self.labels[self._inside]

    def image_levels(self, x: np.ndarray | None) -> ImageLevels:
        """What gives an image the usual levels of its tissues and its shading.

        The former need the image, ``x``, as network values on the padded grid.
        """
        texture = () if self.voxel_levels is None or x is None else (self._texture_levels(x),)
        return ImageLevels(texture + self._shaded)

    @property
    def _shaded(self) -> tuple[ShadedLevels, ...]:
        if self.shading is None:
            return ()
        return (ShadedLevels(self.shading, self.codec.centers, self.original.geometry),)

    def _texture_levels(self, x: np.ndarray) -> TextureLevels:
        working, grid = self.inner_labels, self.grid.geometry
        levels, soft = (self.cell_levels, self.voxel_levels), soft_tissue(self.manifest.input.labels)
        if self.given_noise and (contrast := self.manifest.settings.contrast) is not None:
            soft = contrast.reference  # the network of levels hardly knows unusual noise
        found = texture_levels(x[self._inside], working, *levels, self.codec, soft)
        place = None
        if self.own_grid:
            start = np.rint(np.linalg.inv(self.original.affine) @ [*self.region.origin, 1])[:3].astype(int)
            place = tuple(slice(first, first + n) for first, n in zip(start.tolist(), self.region.shape, strict=True))
        return TextureLevels.of(found, working, self.codec.centers, grid, self.reorientation, self.original, place)

    def of_seed(self, seed: int) -> Scene:
        """The scene with the contrast, noise and texture drawn for the sample of a seed, if the model has them."""
        settings = self.manifest.settings
        if settings.texture is not None:
            return self._textured(drawn(settings.texture, seed))
        return self if settings.contrast is None else self._with(drawn(settings.contrast, seed))

    def of_image(self, values: np.ndarray, labels: np.ndarray) -> Scene:
        """The scene with the contrast or texture of an image in any unit with labels, on the input's grid."""
        settings = self.manifest.settings
        if settings.texture is not None:
            return self._textured(texture(self._on_grid(values)))
        if settings.contrast is None:
            return self
        return self._with(contrast_of(settings.contrast, values, self.original.with_array(labels)))

    def _on_grid(self, values: np.ndarray) -> np.ndarray:
        """An image on the input's grid, on the working grid without padding."""
        output = self.manifest.output
        image = Volume(values.astype(np.float32), self.original.affine, output.modality, output.unit)
        return self.reorientation.apply(resample_to(image, self.grid.geometry).array)

    def _textured(self, measures: np.ndarray) -> Scene:
        settings = self.manifest.settings
        codec = Affine(settings.mean, settings.mean * float(measures[TEXTURE.index("contrast")]))
        return replace(self, scalars=standard_scores(settings.texture, measures).tolist(), codec=codec)

    def standardized(self, x: np.ndarray) -> Scene:
        """The scene with a codec that gives network values on the padded grid its mean and standard deviation.

        Those of the training images hold for the whole field of view, so a smaller grid keeps its codec.
        """
        low = np.array(self.manifest.field_of_view.min) * (1 - VIEW_TOLERANCE)
        if self.manifest.settings.texture is None or (np.array(self.inner) * self.spacing < low).any():
            return self
        known = x[self._inside].astype(np.float64)
        factor = self.codec.sd / max(float(known.std()), 1e-6)
        return replace(self, codec=Affine(self.codec.mean - factor * float(known.mean()), factor))

    def _with(self, contrast: np.ndarray) -> Scene:
        settings = self.manifest.settings
        scalars = [self.scalars[0], noise_scalar(self._noise(contrast))]
        codec = adapted(CODECS[settings.name](**settings.codec), settings.contrast, contrast)
        shading = shading_of(settings.contrast, contrast, self.original)
        return replace(self, scalars=scalars, codec=codec, shading=shading)

    def drawn(self, seed: int) -> dict[str, float]:
        """The contrast and noise, or the texture, of the sample of a seed by name; empty for a model without them."""
        settings = self.manifest.settings.contrast
        if (found := self.manifest.settings.texture) is not None:
            return {name: round(float(value), 3) for name, value in zip(TEXTURE, drawn(found, seed), strict=True)}
        if settings is None:
            return {}
        contrast = drawn(settings, seed)
        found = {**named(settings, contrast, self.manifest.input.labels), "noise": round(self._noise(contrast), 2)}
        shading = shading_of(settings, contrast, self.original)
        return found if shading is None else {**found, "shading": round(shading.ratio(self.original), 2)}

    def _noise(self, contrast: np.ndarray) -> float:
        """The noise of the user, or that of the spacing with the factor of the contrast."""
        noise, change = self.conditions["noise_hu"], contrast[len(self.manifest.settings.contrast.labels)]
        return noise if self.given_noise else float(np.clip(noise * 2**change, LEAST_NOISE_HU, MOST_NOISE_HU))

    def maps(self, box: Box | None = None) -> np.ndarray:
        """Conditioning maps (channels, ...) of the whole working grid or of a box of it."""
        box = box or (slice(None),) * 3
        maps = label_channels(self.labels[box], max(self.manifest.input.labels))
        if self.manifest.settings.coordinates:
            coordinates = coordinate_channels(self.labels, self.spacing)
            maps = np.concatenate([maps, coordinates[(slice(None), *box)]])
        if self.manifest.settings.outside == "anatomy":
            # In training, padding beyond the crop has no label, not even background.
            known = np.zeros(self.labels.shape, np.float32)
            known[self._inside] = 1
            maps = maps * known[box]
        return maps

    @property
    def output_voxels(self) -> int:
        """Number of voxels of the result's grid."""
        return self.original.array.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the padded working grid."""
        return self.labels.shape

    @property
    def _inside(self) -> Box:
        """The grid without its padding."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.inner, strict=True))

    def finish(self, x: np.ndarray) -> Volume:
        """Network values on the padded working grid -> volume on the input's grid.

        The standardized values are resampled instead of the intensities, and converted with the labels of the input, so
        that tissue borders are those of the mask on any working grid.
        """
        values = _middle(self.reorientation.undo(x[self._inside]), self.grid.shape)
        output = self.manifest.output
        volume = Volume(values.astype(np.float32), self.grid.affine, output.modality, output.unit)
        volume = resample_to(volume, self.original.geometry, order=1, fill=0.0)
        scene, covered, levels = self.standardized(x), self._covered(), self.image_levels(x)
        array = np.empty(volume.shape, np.float32)
        for inner, outer, cut in slabs(len(array), SLAB, self._reach):
            labels = self.original.array[outer]
            place = (outer, *(slice(0, n) for n in volume.shape[1:]))
            values = scene._intensities(volume.array[outer], labels, levels, place)[cut]
            values = np.clip(values, *output.range)
            array[inner] = np.where(covered[inner], values, output.background)
        return volume.with_array(whole_numbers(array))

    def _intensities(self, x: np.ndarray, labels: np.ndarray, levels: ImageLevels, box: Box) -> np.ndarray:
        """Standardized values of a box of the image -> intensities, with levels and in the range of their tissues."""
        array = levels.applied(self.codec.decode(x, labels), labels, box)
        if self.manifest.settings.contrast is not None:
            known = CODECS[self.manifest.settings.name](**self.manifest.settings.codec)
            shown = ImageLevels(self._shaded).applied(np.array(self.codec.centers)[labels], labels, box)
            array = array + softened_shift(known, shown, labels)
        limits = self._limits
        return array if limits is None else limits.enforce(array, labels)

    @property
    def _limits(self) -> TissueRange | None:
        limits = self.manifest.settings.tissue_range
        return None if limits is None else TissueRange(**vars(limits))

    @property
    def _reach(self) -> int:
        """Range in voxels of the dependence between intensities: that of the contrast, and one per pass of a median."""
        passes = self._limits.passes if self._limits else 0
        return passes + (SOFT_REACH if self.manifest.settings.contrast is not None else 0)

    def _covered(self) -> np.ndarray:
        """Voxels of the input's grid that are not background."""
        if self.manifest.settings.outside == "background":
            return self.original.array > 0
        ones = self.region.with_array(np.ones(self.region.shape, np.uint8))
        return resample_to(ones, self.original.geometry).array > 0

    @property
    def own_grid(self) -> bool:
        """Whether the networks use the input's voxels, without resampling."""
        return self.grid is self.region

    def seams(self, borders: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Window borders of the working grid as planes of the input's grid, where they coincide."""
        if not self.own_grid:
            return []
        offset = np.rint(
            np.linalg.solve(self.original.affine[:3, :3], self.region.origin - self.original.origin)
        ).astype(int)
        planes = []
        for axis, latent_index in borders:
            index = self.manifest.settings.latent_stride * latent_index - self.before[axis]
            if axis in self.reorientation.flips:
                index = self.inner[axis] - index
            stored = self.reorientation.order[axis]
            if 0 < index < self.region.shape[stored]:
                planes.append((stored, int(index + offset[stored])))
        return planes


def grid_stride(manifest: Manifest) -> int:
    """The sides of a working grid are multiples of this number of voxels."""
    return manifest.settings.latent_stride * network_stride(manifest)


def prepare(labels: LabelMap, manifest: Manifest, noise_hu: float | None = None, gpu: bool = False) -> Scene:
    """Crop, resample, reorient and pad a mask as the package requires; gpu: the networks run on one.

    Raises
    ------
    InputError: a mask of one voxel, or labels that reach beyond the field of view.
    MemoryPlanError: the working grid does not fit into free memory.
    """
    settings = manifest.settings
    findings: list[Finding] = []
    if settings.outside == "background":
        region = _around_labels(labels, MARGIN)
    else:
        region = _field_of_view(labels, manifest, findings)
    grid = _working_grid(region, manifest, labels.array.size, gpu)
    reorientation = Reorientation.to(grid.geometry, "RAS")
    array = reorientation.apply(grid.array)
    spacing = _known_spacing(reorientation.axes(grid.spacing), array.shape)
    inner = tuple(THIN_SLAB if n == 1 else n for n in array.shape)
    for axis, n in enumerate(array.shape):
        if n == 1:
            array = np.repeat(array, THIN_SLAB, axis)
    before, after = _padding(inner, grid_stride(manifest), settings.latent_stride)
    array = np.pad(array, list(zip(before, after, strict=True)))
    noise = scanner_noise(manifest, spacing, grid is not region, noise_hu)
    codec = CODECS[settings.name](**settings.codec)
    return Scene(
        manifest,
        labels,
        region,
        grid,
        reorientation,
        array.astype(np.uint8, copy=False),
        before,
        inner,
        spacing,
        codec,
        [] if noise is None else [spacing_scalar(noise.spacing), noise_scalar(noise.condition)],
        {} if noise is None else _reported(noise),
        findings,
        noise_hu is not None,
    )


def _around_labels(labels: LabelMap, margin: int) -> LabelMap:
    box = occupied(labels.array)
    low = [max(0, start - margin) for start, _ in box]
    high = [min(n, stop + margin) for (_, stop), n in zip(box, labels.shape, strict=True)]
    return crop(labels, low, high)


def _field_of_view(labels: LabelMap, manifest: Manifest, findings: list[Finding]) -> LabelMap:
    """The whole mask, or a box of the trained field of view around the labels' center."""
    order = Reorientation.to(labels.geometry, "RAS").order
    longest = [manifest.field_of_view.max[order.index(axis)] for axis in range(3)]
    box = occupied(labels.array)
    low, high = [], []
    for (start, stop), n, s, limit in zip(box, labels.shape, labels.spacing, longest, strict=True):
        size = min(n, max(1, round(limit / s)))
        first = round((start + stop - size) / 2)
        first = min(max(0, first), n - size)
        low.append(first)
        high.append(first + size)
    region = crop(labels, low, high)
    if region.shape != labels.shape:
        size = " x ".join(f"{n:.0f}" for n in region.field_of_view)
        findings.append(
            Finding(
                "warning",
                "field-of-view",
                f"The mask is larger than the model's field of view, so only {size} mm around "
                f"the labels are generated; the rest is {manifest.output.background:g}.",
            )
        )
    missed = int(np.count_nonzero(labels.array) - np.count_nonzero(region.array))
    if missed:
        raise InputError(
            f"The labels extend over more than the {' x '.join(f'{n:g}' for n in longest)} mm that "
            f"the model '{manifest.name}' generates at once; crop the mask to one structure."
        )
    return region


def _working_grid(region: LabelMap, manifest: Manifest, original_voxels: int, gpu: bool) -> LabelMap:
    """The region if its spacing suits the model, otherwise resampled to isotropic voxels."""
    target = working_geometry(region.geometry, manifest)
    suits = target.is_close(region.geometry)
    _require_memory(manifest, target.shape, original_voxels, gpu, grids=1 if suits else 2)
    return region if suits else resample_to(region, target)


def _known_spacing(spacing: tuple[float, ...], shape: tuple[int, ...]) -> tuple[float, ...]:
    """Spacing of the repeated slab, independent of the thickness of a single slice."""
    thick = [s for s, n in zip(spacing, shape, strict=True) if n > 1]
    mean = float(np.mean(thick))
    return tuple(s if n > 1 else mean for s, n in zip(spacing, shape, strict=True))


def _padding(shape: tuple[int, ...], stride: int, latent_stride: int) -> tuple[tuple, tuple]:
    """Padding before and after each axis, before it in whole latent voxels."""
    missing = [-n % stride for n in shape]
    before = tuple(m // (2 * latent_stride) * latent_stride for m in missing)
    return before, tuple(m - b for m, b in zip(missing, before, strict=True))


def _middle(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle slice of a slab, along axes of one voxel in `shape`."""
    index = tuple(
        slice(v // 2, v // 2 + 1) if n == 1 and v > 1 else slice(None) for v, n in zip(values.shape, shape, strict=True)
    )
    return values[index]


def _reported(noise: ScannerNoise) -> dict[str, Any]:
    """The noise for the report, with the reason of a usual one."""
    return {"noise_hu": round(noise.level, 2), **({"noise": noise.reason} if noise.reason else {})}


def _require_memory(manifest: Manifest, shape: tuple[int, ...], original_voxels: int, gpu: bool, grids: int) -> None:
    """Raise MemoryPlanError before allocation where no plan will fit beside the scene, which has `grids` bytes a
    voxel."""
    latent = tuple(-(-n // manifest.settings.latent_stride) for n in shape)
    job = MemoryDemand(manifest, original_voxels, latent, bfloat16=True, gpu=gpu)
    needed = job.need(LAYOUTS["small"], keep=False).process - BASE_MIB
    free = max(0.0, free_memory() - grids * math.prod(shape)) / MIB
    if needed > 0.9 * free:
        raise too_little(math.prod(shape), needed, free, smallest=True)
