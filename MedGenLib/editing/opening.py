"""Opening of a canvas on a generated volume or on an image."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from MedGenLib import devices
from MedGenLib.checks.input import check_mask, check_named, check_stated
from MedGenLib.editing.field_of_view import PlacedFieldOfView
from MedGenLib.editing.grid_map import GridMap
from MedGenLib.editing.latent_cache import LatentCache
from MedGenLib.editing.mask_blocks import MaskReader
from MedGenLib.editing.noise import NoiseField
from MedGenLib.editing.organs import OrganEdits
from MedGenLib.editing.region import RegionEditor
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes, require_usable
from MedGenLib.imaging.boxes import shrunk
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.modality import hu_problem, looks_like_labels, modality_family, modality_of
from MedGenLib.imaging.noise import noise_level
from MedGenLib.imaging.normalization import Affine, TissueRange, TissueStandard
from MedGenLib.imaging.resampling import resample
from MedGenLib.imaging.volume import LabelMap, Volume, as_stored, check_finite, crop
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.labels.mapping import OWN_NUMBERS
from MedGenLib.labels.tissues import soft_tissue
from MedGenLib.labels.vocabulary import table
from MedGenLib.options import LEAST_NOISE_HU, MOST_NOISE_HU
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.base import is_editable
from MedGenLib.pipelines.model_labels import model_labels
from MedGenLib.pipelines.organ_levels import OrganRun, PersonLevels, has_organs, organ_levels, tissues_of
from MedGenLib.pipelines.scene import Scene, grid_stride, prepare
from MedGenLib.progress import ProgressCallback, Stage, announce
from MedGenLib.result import Result

SAME_SCALE = 0.1
"""Relative difference between the gray values of image and model up to which they have one scale."""
MOST_SAMPLES = 1_000_000
NOISE_SIDE = 96
"""Voxels along a side of the middle of an image, where its noise is measured."""


@dataclass
class Opened:
    """A region editor and what it was made from."""

    editor: RegionEditor
    reader: MaskReader
    mask: LabelMap
    volume: Volume
    seed: int
    result: Result | None = None
    findings: list[Finding] = field(default_factory=list)


def generated(
    mask: str | Path | LabelMap, model: str, options: Mapping[str, Any], progress: ProgressCallback | None
) -> Opened:
    """Generate a volume and keep its latent; ``options`` are those of `Canvas.generate`."""
    from MedGenLib.generate import generate

    require_editable(find(model))
    mask = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    kept: list[Any] = []

    def keep(*of_sample: Any) -> None:
        kept[:] = of_sample

    result = generate(mask, model, progress=progress, on_sample=keep, **options)
    run, latent, chosen = kept
    scene, volume, labels = run.of_seed(chosen), result.volume, result.source
    levels = scene.image_levels(None)
    if scene.manifest.settings.texture is not None or scene.voxel_levels is not None:
        decoded = run.decode(latent)
        scene, levels = scene.standardized(decoded), scene.image_levels(decoded)
    grid_map, place = GridMap.over(scene, grid_stride(scene.manifest))
    cells = shrunk(place, grid_map.cell)
    noise = NoiseField(
        chosen, latent.shape[1], run.noise(torch.Generator().manual_seed(chosen)), tuple(part.start for part in cells)
    )
    view = _view(scene, place)
    cache = LatentCache(grid_map, scene.codec, noise, view and view.box, levels=levels)
    cache.store(place, latent)
    editor = _editor(
        scene, cache, view, volume, labels, mask, run.device, options["memory"], scene.manifest.output.range
    )
    if isinstance(run, OrganRun):
        editor.organs = _organs(run.person(chosen), scene.manifest, options["mapping"], chosen)
    reader = _reader(scene.manifest, options, mask, labels)
    return Opened(editor, reader, mask, volume, chosen, result, [*result.report.input_findings])


def of_image(
    volume: str | Path | Volume,
    mask: str | Path | LabelMap,
    model: str,
    options: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> Opened:
    """Take an image as it is; its latent is encoded window by window, when it is needed."""
    stage = Stage("preparing", 2, progress)
    manifest = find(model)
    manifest.require_task("generate")
    require_editable(manifest)
    require_acceptance(manifest, options["accept_license"])
    seed = secrets.randbelow(2**31) if options["seed"] is None else options["seed"]
    volume = volume if isinstance(volume, Volume) else as_stored(read_volume(volume))
    given = mask if isinstance(mask, LabelMap) else read_label_map(mask)
    mask = extended(given, volume.geometry)
    _check(volume, mask, manifest)
    named = check_named(volume, manifest.output.modality)
    if volume.modality is None:  # its values fit
        volume = volume.with_array(volume.array, manifest.output.modality, manifest.output.unit)
    labels, mapped, found = model_labels(mask, manifest, options["mapping"], options["fill"], None, volume, given)
    labels, levels = organ_levels(mask, labels, mapped, manifest, {"phase": "none", "hu": None})
    findings = [*found, *notes(volume), *notes(mask), *named, *check_stated(volume), *check_mask(labels, manifest)]
    require_usable(findings)
    stage.advance()
    device = devices.pick_device(options["device"])
    noise_hu = options["noise_hu"]
    if noise_hu is None and manifest.settings.takes_noise:
        noise_hu = _noise_of(volume, labels, manifest)
    scene = prepare(labels, manifest, noise_hu).of_image(volume.array, labels.array)
    grid_map, where = GridMap.over(scene, grid_stride(manifest))
    view = _view(scene, where)
    codec, allowed, scale = scene.codec, manifest.output.range, 1.0
    if isinstance(codec, Affine):
        codec = _own_contrast(volume, grid_map.voxels_in(view.box if view else where))
    elif manifest.output.unit != "HU":
        scale = _own_scale(volume, labels, codec)
    if manifest.output.unit != "HU":
        values = volume.array
        allowed = min(0.0, float(values.min())), max(allowed[1] * scale, float(values.max()))
    content = grid_map.extent if view else None
    field = NoiseField(seed, manifest.settings.latent_channels)
    cache = LatentCache(grid_map, codec, field, content, scale, scene.image_levels(None))
    editor = _editor(scene, cache, view, volume, labels, mask, device, options["memory"], allowed)
    if levels is not None:
        editor.organs = _organs(PersonLevels.of_image(levels, volume.array), manifest, options["mapping"], seed)
    reader = _reader(manifest, options, mask, labels)
    stage.advance()
    announce((finding.sentence for finding in findings + scene.findings), progress)
    return Opened(editor, reader, mask, volume, seed, None, findings + scene.findings)


def require_editable(manifest: Manifest) -> None:
    """Raise InputError for a model that cannot regenerate a region."""
    if not is_editable(manifest):
        raise InputError(
            f"The model '{manifest.name}' cannot redraw a part of an image; choose one that can, "
            "such as ct-tissue, or generate the whole volume again."
        )


def _editor(
    scene: Scene,
    cache: LatentCache,
    view: PlacedFieldOfView | None,
    volume: Volume,
    labels: LabelMap,
    mask: LabelMap,
    device: Any,
    memory: str,
    allowed: tuple[float, float],
) -> RegionEditor:
    limits = scene.manifest.settings.tissue_range
    return RegionEditor(
        scene.manifest,
        device,
        memory,
        cache.grid_map,
        cache,
        scene.spacing,
        scene.scalars,
        TissueRange(**vars(limits)) if limits else None,
        tuple(allowed),
        view,
        _own(volume.array),
        labels.array.astype(np.uint8),
        _own(mask.array),
        scene.conditions,
    )


def _own(array: np.ndarray) -> np.ndarray:
    """A writable copy in C order."""
    return np.array(array, order="C", subok=False)


def _view(scene: Scene, place: Any) -> PlacedFieldOfView | None:
    """The field of view of a model that fills it with anatomy; None for other models."""
    if scene.manifest.settings.outside == "background":
        return None
    box = tuple(
        slice(part.start + before, part.start + before + inner)
        for part, before, inner in zip(place, scene.before, scene.inner, strict=True)
    )
    return PlacedFieldOfView(box, place)


def _organs(person: PersonLevels, manifest: Manifest, mapping: Any, seed: int) -> OrganEdits:
    numbers = mapping if isinstance(mapping, str) else (mapping or {}).get("table", OWN_NUMBERS)
    names = {} if numbers == OWN_NUMBERS else table(numbers).names
    return OrganEdits(person, manifest.input.vocabulary, tissues_of(manifest), names, seed)


def _reader(manifest: Manifest, options: Mapping[str, Any], mask: LabelMap, labels: LabelMap) -> MaskReader:
    vocabulary, fill = manifest.input.vocabulary, options["fill"]
    layered = has_organs(manifest) and fill is None and labels.array[mask.array == 0].any()
    rest = None
    if layered:
        rest = np.where((mask.array > 0) & (labels.array > 0), tissues_of(manifest).fat, labels.array).astype(np.uint8)
    elif fill is not None:
        rest = np.where(labels.array > 0, np.uint8(vocabulary.value_of(fill)), np.uint8(0))
    reader = MaskReader(manifest, options["mapping"], mask.names, rest)
    reader.learn(mask.values())
    return reader


def _check(volume: Volume, mask: LabelMap, manifest: Manifest) -> None:
    """Raise InputError for a mask on another grid or an image of another modality than the model makes."""
    if not volume.geometry.is_close(mask.geometry):
        raise InputError(
            f"The mask ({mask.geometry}) does not lie on the image's grid ({volume.geometry})"
            f"{volume.geometry.apart(mask.geometry)}; "
            "resample it onto the image first."
        )
    check_finite(volume)
    made = modality_family(manifest.output.modality)
    if made == "CT" and looks_like_labels(volume):  # air alone has -1000 HU
        raise InputError("The image holds only a few whole numbers, as masks do; give the image, not its mask.")
    stated = modality_of(volume)
    if stated is not None and modality_family(stated) != made:
        looks = "is" if volume.modality else "looks like"
        raise InputError(
            f"The image {looks} {stated}, but the model '{manifest.name}' makes "
            f"{manifest.output.modality}; choose another model or image."
        )
    if made == "CT" and (problem := hu_problem(volume)):
        raise InputError(problem)


def _noise_of(volume: Volume, labels: LabelMap, manifest: Manifest) -> float | None:
    """Noise in HU of the soft tissue at the spacing of the model; None where the middle of the image shows too little
    soft tissue."""
    value = soft_tissue(manifest.input.labels)
    if value is None:
        return None
    low = [max(0, (n - NOISE_SIDE) // 2) for n in volume.shape]
    high = [min(n, start + NOISE_SIDE) for n, start in zip(volume.shape, low, strict=True)]
    limits = manifest.spacing
    spacing = [min(max(s, limits.min), limits.max) for s in volume.spacing]
    image, mask = (resample(crop(item, low, high), spacing) for item in (volume, labels))
    level = noise_level(image.array, mask.array == value)
    return None if level is None else min(max(level, float(LEAST_NOISE_HU)), float(MOST_NOISE_HU))


def _own_contrast(volume: Volume, box: Any) -> Affine:
    """The codec of an image in arbitrary units, from the mean and standard deviation of a box."""
    values = volume.array[box].astype(np.float32)
    return Affine(float(values.mean()), max(float(values.std()), 1e-6))


def _own_scale(volume: Volume, labels: LabelMap, codec: TissueStandard) -> float:
    """Units of the image in one unit of the model: the median ratio of the voxels of bright labels to the center of
    their label."""
    step = max(1, round((volume.array.size / MOST_SAMPLES) ** (1 / 3)))
    thin = (slice(None, None, step),) * 3
    centers = np.asarray(codec.centers, np.float32)
    bright = (centers > centers.max() / 2) & (np.arange(len(centers)) > 0)
    values, expected = volume.array[thin], labels.array[thin]
    inside = bright[expected]
    if not inside.any():
        return 1.0
    scale = float(np.median(values[inside] / centers[expected[inside]]))
    if scale <= 0 or abs(scale - 1) < SAME_SCALE:
        return 1.0
    return scale
