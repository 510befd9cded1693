"""A lesion into an image: real or generated, everything but the place of the lesion untouched.

image -> tissues -> place and shape, kept inside its host -> regenerated there -> contrast
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib import devices
from MedGenLib.checks.lesion import check_inserted
from MedGenLib.editing.lesions.change import brighten, paint
from MedGenLib.editing.lesions.inputs import names_of, read_image, read_painted, read_tissues, vocabulary
from MedGenLib.editing.lesions.library import shape as shape_of
from MedGenLib.editing.lesions.place import Host, Place, voxel_at
from MedGenLib.editing.lesions.shapes import MaskShape, rasterise
from MedGenLib.errors import InputError
from MedGenLib.findings import notes
from MedGenLib.generate import LARGEST_SEED
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.working_grid import working_geometry
from MedGenLib.progress import ProgressCallback, Stage
from MedGenLib.report import Report
from MedGenLib.result import Result

USUAL_SIZE_MM = 10.0


@dataclass(frozen=True)
class Insertion:
    """An image with its new lesion.

    Attributes
    ----------
    volume: the image with the lesion, on the grid of the input.
    lesion: where the lesion is, 1 there.
    source: the image as it was.
    report: what was done and found.
    halo_voxels, halo_mm: how far from the lesion voxels may differ from the input's, along each
        axis and in any direction; all others are the same, bit by bit.
    """

    volume: Volume
    lesion: LabelMap
    source: Volume
    report: Report
    halo_voxels: tuple[int, int, int]
    halo_mm: float

    @property
    def result(self) -> Result:
        """The same as `generate` gives it, for all that writes or tells results."""
        return Result([self.volume], self.report, self.source)


def insert_lesion(
    image: str | Path | Volume,
    *,
    at: Sequence[float] | None = None,
    lesion: str | Path | LabelMap | None = None,
    shape: str = "sphere",
    size_mm: float | None = None,
    label: int | str | None = None,
    contrast: float | None = None,
    organ: int | str | None = None,
    labels: str | Path | LabelMap | None = None,
    mapping: dict[int | str, int | str] | str | None = None,
    fill: int | str | None = None,
    model: str = "ct-tissue",
    seed: int | None = None,
    preset: str = "normal",
    device: str = "auto",
    memory: str = "auto",
    accept_license: bool = False,
    progress: ProgressCallback | None = None,
) -> Insertion:
    """Put a lesion into an image.

    Parameters
    ----------
    image: path (also of a DICOM folder) or Volume, any grid.
    at: its centre, RAS mm.
    lesion: instead of place and shape: a painted mask on the image's grid, above 0 in the lesion.
    shape: one of `lesions.names()`, or the path of a mask file whose shape is taken.
    size_mm: greatest diameter; None is 10 mm, or the own size of a shape that comes from a mask.
    label: label of the model that the place gets; it is generated anew there. None keeps the
        tissue and its texture. The label of the surroundings removes a lesion.
    contrast: how much brighter (or darker, below 0) than that it shall be, in HU or in the
        image's unit. Needed where `label` is None.
    organ: label of `labels` (number or name), or name of a label of the model, that the lesion
        stays inside of; without `at` and `lesion` the seed chooses a place in it.
    labels: tissues or organs on the image's grid; None finds the model's labels in the image, as
        the model's own thresholds or segmenter do.
    mapping, fill: how `labels` become the model's, as in `generate`.
    model: package of task "generate" for images like this one.
    seed: of the shape, the place and the texture; None draws one.
    preset, device, memory, accept_license, progress: as in `generate`.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: one sentence, nothing was done.
    """
    _check_request(at, lesion, organ, label, contrast, size_mm, seed)
    seconds = _Laps()
    stage = Stage("finding the place", 3, progress)
    manifest = _model(model, accept_license)
    painted = _target(label, manifest)
    devices.require_memory_plan(memory)
    seed = secrets.randbelow(2**31) if seed is None else seed
    volume = read_image(image, manifest)
    drawn = None if lesion is None else read_painted(lesion, volume)
    if at is not None:
        voxel_at(volume.geometry, at)  # before anybody waits for a segmenter
    stage.advance()
    tissues, origin = read_tissues(labels, volume, manifest, device)
    stage.advance()

    from MedGenLib.editing.session import Canvas

    with Canvas.of_image(
        volume,
        tissues,
        model,
        seed=seed,
        device=device,
        mapping=mapping,
        fill=fill,
        accept_license=accept_license,
        memory=memory,
    ) as canvas:
        host = _host(organ, tissues, mapping, canvas.labels, manifest)
        place = _place(at, drawn, shape, size_mm, host, seed)
        stage.advance()
        seconds.lap("preparing")
        findings = [*notes(volume), *canvas.findings, *place.findings]
        halo, halo_mm = (0, 0, 0), 0.0
        if painted is not None:
            step = _working_step(volume, manifest)
            told, halo, halo_mm = paint(canvas, volume, step, place.lesion, painted, contrast, preset, progress)
            findings += told
        if contrast:
            reach, reach_mm = brighten(canvas, place.lesion, contrast)
            halo, halo_mm = tuple(map(max, halo, reach)), max(halo_mm, reach_mm)
        made = canvas.volume
    seconds.lap("inserting")
    check = check_inserted(volume, made, place.lesion, host.array, halo)
    seconds.lap("checking")
    parameters = {
        **place.told(volume),
        "label": None if painted is None else _name(painted, manifest),
        "contrast": contrast,
        "host": host.name,
        "tissues": origin,
        "halo_voxels": list(halo),
        "halo_mm": round(halo_mm, 3),
        "memory": memory,
    }
    report = _report(manifest, seed, None if painted is None else preset, parameters, device)
    report.input_findings, report.output_checks = findings, [check]
    report.timings = seconds.stages
    mask = LabelMap(place.lesion.astype(np.uint8), volume.affine, {1: "lesion"})
    return Insertion(made, mask, volume, report, halo, halo_mm)


def _check_request(
    at: Sequence[float] | None,
    lesion: Any,
    organ: int | str | None,
    label: int | str | None,
    contrast: float | None,
    size_mm: float | None,
    seed: int | None,
) -> None:
    if at is None and lesion is None and organ is None:
        raise InputError(
            "It is not said where the lesion goes; give a place, a painted mask, or an organ in "
            "which the seed chooses one."
        )
    if at is not None and lesion is not None:
        raise InputError("The painted mask says where the lesion is; leave out the place.")
    if at is not None and (len(at) != 3 or not np.isfinite(at).all()):
        raise InputError("The place of the lesion is not three numbers; give RAS in mm.")
    if label is None and not contrast:
        raise InputError("It is not said what the lesion is; give a label of the model, a contrast, or both.")
    if contrast is not None and not np.isfinite(contrast):
        raise InputError(f"The contrast is {contrast}; give a number.")
    if size_mm is not None and not 0 < size_mm < np.inf:
        raise InputError(f"The size of the lesion is {size_mm:g} mm; give more than 0.")
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"The seed is {seed}; choose 0 to {LARGEST_SEED}.")


def _model(name: str, accept_license: bool) -> Manifest:
    from MedGenLib.editing.opening import require_editable

    manifest = find(name)
    manifest.require_task("generate")
    require_editable(manifest)
    require_acceptance(manifest, accept_license)
    return manifest


def _working_step(volume: Volume, manifest: Manifest) -> float:
    """The largest voxel size in mm at which the model works on this image."""
    grid = working_geometry(volume.geometry, manifest)
    return max(s for s, n in zip(grid.spacing, grid.shape, strict=True) if n > 1)


def _target(label: int | str | None, manifest: Manifest) -> int | None:
    """The model's label that the place gets."""
    if label is None:
        return None
    known = vocabulary(manifest)
    value = known.value_of(label)
    if value is None:
        raise InputError(f"The model '{manifest.name}' has no label '{label}'; choose from {known}, or 0 background.")
    return value


def _name(value: int, manifest: Manifest) -> str:
    return vocabulary(manifest).names.get(value, "background")


def _host(
    organ: int | str | None,
    tissues: LabelMap,
    mapping: dict[int | str, int | str] | str | None,
    labels: LabelMap,
    manifest: Manifest,
) -> Host:
    """What the lesion stays inside of; ``labels`` are the tissues in the model's labels."""
    if organ is not None:
        known = vocabulary(manifest)
        try:
            return Host.organ(tissues, organ, {**known.names, **names_of(tissues, mapping)})
        except InputError:
            value = None if str(organ).strip().isdigit() else known.value_of(organ)
            if not value or not (labels.array == value).any():
                raise
        return Host(f"'{known.names[value]}'", labels.array == value, labels.geometry)
    if manifest.settings.outside == "background":
        return Host("the body", labels.array > 0, labels.geometry)
    return Host("the image", np.ones(labels.shape, bool), labels.geometry)


def _place(
    at: Sequence[float] | None,
    drawn: NDArray[np.bool_] | None,
    shape: str,
    size_mm: float | None,
    host: Host,
    seed: int,
) -> Place:
    """Where the lesion is, inside its host."""
    if drawn is not None:
        own = MaskShape.of(LabelMap(drawn, host.geometry.affine))
        return Place.inside(host, drawn, "painted", own.size_mm)
    solid = shape_of(shape, seed)
    size = size_mm or solid.size_mm or USUAL_SIZE_MM
    if at is None:
        at = host.random_place(size, np.random.default_rng([seed, 1]))
    else:
        host.index_of(at)
    centre = np.asarray(at, np.float64)
    return Place.inside(host, rasterise(solid, host.geometry, centre, size), shape, size, centre)


def _report(manifest: Manifest, seed: int, preset: str | None, parameters: dict[str, Any], device: str) -> Report:
    generated = preset is not None
    return Report(
        model=manifest.name,
        version=manifest.version,
        task="insert-lesion",
        seed=seed,
        preset=preset,
        sampler=manifest.sampler.name if generated else None,
        steps=manifest.preset(preset).steps if generated else None,
        parameters=parameters,
        software=devices.software_versions(),
        device=devices.describe_device(devices.pick_device(device)),
        peak_memory_mib=round(devices.peak_memory_mib(), 1),
    )


class _Laps:
    """Seconds of each stage, one after the other."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = round(now - self._last, 3)
        self._last = now
