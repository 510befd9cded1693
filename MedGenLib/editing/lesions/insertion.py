"""Insertion of a lesion into an image, real or generated: everything but the place of the lesion stays.

image -> tissues -> place and shape, inside the host -> regenerated there -> contrast
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib import devices
from MedGenLib.checks.lesion import check_inserted
from MedGenLib.editing.lesions.change import add_contrast, regenerate
from MedGenLib.editing.lesions.inputs import names_of, read_image, read_painted, read_tissues
from MedGenLib.editing.lesions.library import shape as shape_of
from MedGenLib.editing.lesions.placement import Host, Placement, voxel_at
from MedGenLib.editing.lesions.shapes import MaskShape, rasterize
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.options import LesionOptions, documented
from MedGenLib.packages.catalogue import find
from MedGenLib.packages.license import require_acceptance
from MedGenLib.packages.manifest import Manifest
from MedGenLib.pipelines.working_grid import working_geometry
from MedGenLib.progress import ProgressCallback, Stage, Timings, announce
from MedGenLib.report import Report
from MedGenLib.result import Result

if TYPE_CHECKING:
    from MedGenLib.editing.session import Canvas

USUAL_SIZE_MM = 10.0


@dataclass(frozen=True)
class Insertion:
    """An image with its new lesion.

    Attributes
    ----------
    volume: the image with the lesion, on the grid of the input.
    lesion: mask of the lesion, 1 inside.
    source: the image as it was.
    report: what was done and found.
    halo_voxels, halo_mm: how far from the lesion voxels may differ from those of the input, along
        each axis and in any direction; all others are the same, bit for bit.
    """

    volume: Volume
    lesion: LabelMap
    source: Volume
    report: Report
    halo_voxels: tuple[int, int, int]
    halo_mm: float

    @property
    def result(self) -> Result:
        """The same as a `Result`, such as of `generate`."""
        return Result([self.volume], self.report, self.source)


@documented("insert_lesion")
def insert_lesion(
    image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[LesionOptions]
) -> Insertion:
    """Put a lesion into an image.

    Parameters
    ----------
    {options}
    progress: called at every step; what it raises stops the insertion.

    Raises
    ------
    InputError, PackageError, LicenseError, MemoryPlanError: one sentence, nothing was done.
    """
    _require_place_and_change(options)
    timings = Timings()
    stage = Stage("finding the place", 3, progress)
    manifest = _model(options["model"], options["accept_license"])
    value = _value_of(options["label"], manifest)
    seed = secrets.randbelow(2**31) if options["seed"] is None else options["seed"]
    volume = read_image(image, manifest)
    painted = None if options["lesion"] is None else read_painted(options["lesion"], volume)
    if options["at"] is not None:
        voxel_at(volume.geometry, options["at"])  # before a segmenter takes its time
    stage.advance()
    tissues, origin = read_tissues(options["labels"], volume, manifest, options["device"])
    stage.advance()

    from MedGenLib.editing.session import Canvas

    shared = {name: options[name] for name in ("device", "mapping", "fill", "accept_license", "memory")}
    with Canvas.of_image(volume, tissues, manifest.name, seed=seed, **shared) as canvas:
        tissues = extended(tissues, volume.geometry)
        host = _host(options["organ"], tissues, options["mapping"], canvas.labels, manifest)
        place = _placement(host, painted, seed, options)
        known = [*notes(volume), *canvas.findings, *place.findings]
        announce((finding.sentence for finding in known), progress)
        stage.advance()
        timings.lap("preparing")
        changed, halo, halo_mm = _change(canvas, volume, place.lesion, value, manifest, options, progress)
        findings = [*known, *changed]
        made = canvas.volume
    timings.lap("inserting")
    check = check_inserted(volume, made, place.lesion, host.array, halo)
    timings.lap("checking")
    report = _report(manifest, seed, None if value is None else options["preset"], options["device"])
    report.parameters = {
        **place.to_dict(volume),
        "label": None if value is None else manifest.input.vocabulary.names.get(value, "background"),
        "contrast": options["contrast"],
        "host": host.name,
        "tissues": origin,
        "halo_voxels": list(halo),
        "halo_mm": round(halo_mm, 3),
        "memory": options["memory"],
    }
    report.input_findings, report.output_checks, report.timings = findings, [check], timings.seconds
    mask = LabelMap(place.lesion.astype(np.uint8), volume.affine, {1: "lesion"})
    return Insertion(made, mask, volume, report, halo, halo_mm)


def _change(
    canvas: Canvas,
    volume: Volume,
    lesion: NDArray[np.bool_],
    value: int | None,
    manifest: Manifest,
    options: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> tuple[list[Finding], tuple[int, int, int], float]:
    """Change tissue and level at the place of the lesion.

    Returns findings, and how far from the lesion voxels change: voxels along each axis, and mm in
    any direction.
    """
    findings, halo, halo_mm = [], (0, 0, 0), 0.0
    contrast = options["contrast"]
    if value is not None:
        step = _working_step(volume, manifest)
        findings, halo, halo_mm = regenerate(canvas, step, lesion, value, bool(contrast), options["preset"], progress)
    if contrast:
        reach, reach_mm = add_contrast(canvas, lesion, contrast)
        halo, halo_mm = tuple(map(max, halo, reach)), max(halo_mm, reach_mm)
    return findings, halo, halo_mm


def _require_place_and_change(options: Mapping[str, Any]) -> None:
    if options["at"] is None and options["lesion"] is None and options["organ"] is None:
        raise InputError(
            "It is not said where the lesion goes; give a place, a painted mask, or an organ in "
            "which the seed chooses one."
        )
    if options["at"] is not None and options["lesion"] is not None:
        raise InputError("The painted mask says where the lesion is; leave out the place.")
    if options["label"] is None and not options["contrast"]:
        raise InputError("It is not said what the lesion is; give a label of the model, a contrast, or both.")


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


def _value_of(label: int | str | None, manifest: Manifest) -> int | None:
    """The number of a label in the model; None for None."""
    if label is None:
        return None
    known = manifest.input.vocabulary
    value = known.value_of(label)
    if value is None:
        raise InputError(f"The model '{manifest.name}' has no label '{label}'; choose from {known}, or 0 background.")
    return value


def _host(
    organ: int | str | None,
    tissues: LabelMap,
    mapping: dict[int | str, int | str] | str | None,
    labels: LabelMap,
    manifest: Manifest,
) -> Host:
    """What the lesion stays inside of; ``labels`` are the tissues in the labels of the model."""
    if organ is not None:
        known = manifest.input.vocabulary
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


def _placement(host: Host, painted: NDArray[np.bool_] | None, seed: int, options: Mapping[str, Any]) -> Placement:
    """The lesion inside its host."""
    if painted is not None:
        own = MaskShape.of(LabelMap(painted, host.geometry.affine))
        return Placement.inside(host, painted, "painted", own.size_mm)
    solid = shape_of(options["shape"], seed)
    size = options["size_mm"] or solid.size_mm or USUAL_SIZE_MM
    at = options["at"]
    if at is None:
        at = host.random_place(size, np.random.default_rng([seed, 1]))
    else:
        host.index_of(at)
    center = np.asarray(at, np.float64)
    return Placement.inside(host, rasterize(solid, host.geometry, center, size), options["shape"], size, center)


def _report(manifest: Manifest, seed: int, preset: str | None, device: str) -> Report:
    generated = preset is not None
    return Report(
        model=manifest.name,
        version=manifest.version,
        task="insert-lesion",
        seed=seed,
        preset=preset,
        sampler=manifest.sampler.name if generated else None,
        steps=manifest.preset(preset).steps if generated else None,
        software=devices.software_versions(),
        device=devices.describe_device(devices.pick_device(device)),
        peak_memory_mib=round(devices.peak_memory_mib(), 1),
    )
