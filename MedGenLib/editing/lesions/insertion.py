"""Insertion of a lesion into an image, real or generated: everything but the place of the lesion stays.

image -> tissues -> place and shape, inside the host -> regenerated there -> contrast
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib import devices
from MedGenLib.checks.lesion import check_inserted
from MedGenLib.editing.lesions.change import add_contrast, add_texture, regenerate
from MedGenLib.editing.lesions.growth import Growth
from MedGenLib.editing.lesions.inputs import names_of, read_image, read_painted, read_tissues
from MedGenLib.editing.lesions.library import shape as shape_of
from MedGenLib.editing.lesions.placement import Host, Placement, voxel_at
from MedGenLib.editing.lesions.push import Push
from MedGenLib.editing.lesions.shapes import MaskShape, rasterize
from MedGenLib.editing.lesions.texture import Texture
from MedGenLib.errors import InputError
from MedGenLib.findings import Finding, notes
from MedGenLib.imaging.boxes import Box
from MedGenLib.imaging.lattice import extended
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.system import plan_memory
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
    tissues: the labels given or found, moved by the mass effect.
    push: the mass effect; None without.
    later: the lesion as it grows, at later times.
    steps: if asked for: up to six steps of the sampler, each with its number, that of all, a box, and the voxels of the
        box as estimated then (float32: four bytes a voxel of the box, which is little larger than the lesion).
    """

    volume: Volume
    lesion: LabelMap
    source: Volume
    report: Report
    halo_voxels: tuple[int, int, int]
    halo_mm: float
    tissues: LabelMap
    push: Push | None = None
    later: tuple[Insertion, ...] = ()
    steps: tuple[tuple[int, int, Box, NDArray], ...] = ()

    @property
    def frames(self) -> list[Insertion]:
        """All times of a lesion that grows; without growth the only one."""
        return [self, *self.later]

    @property
    def result(self) -> Result:
        """The same as a `Result`, such as of `generate`; the times are its samples."""
        if not self.later:
            return Result([self.volume], self.report, self.source)
        reports, names = [frame.report for frame in self.frames], ("day", "size_mm", "voxels", "volume_ml")
        times = [{name: one.parameters[name] for name in names} for one in reports]
        report = replace(self.report, output_checks=[check for one in reports for check in one.output_checks])
        report.parameters = {**self.report.parameters, "frames": times}
        return Result([frame.volume for frame in self.frames], report, self.source)


@documented("insert_lesion")
def insert_lesion(
    image: str | Path | Volume,
    *,
    progress: ProgressCallback | None = None,
    keep_steps: bool = False,
    **options: Unpack[LesionOptions],
) -> Insertion:
    """Put a lesion into an image.

    Parameters
    ----------
    {options}
    progress: called at every step; what it raises stops the insertion.
    keep_steps: also keep what the sampler showed on its way, at the first time of a lesion that grows.

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
    if options["grow"]:
        plan_memory(volume.array.nbytes * options["grow"], "The series")
    texture = None if options["texture"] is None else Texture.read(options["texture"], volume.modality)
    painted = None if options["lesion"] is None else read_painted(options["lesion"], volume)
    if options["at"] is not None:
        voxel_at(volume.geometry, options["at"])  # before a segmenter takes its time
    stage.advance()
    tissues, origin = read_tissues(options["labels"], volume, manifest, options["device"])
    stage.advance()

    from MedGenLib.editing.session import Canvas

    shared = {name: options[name] for name in ("device", "mapping", "fill", "accept_license", "memory")}
    open_canvas = partial(Canvas.of_image, model=manifest.name, seed=seed, **shared)
    with open_canvas(volume, tissues) as canvas:
        tissues = extended(tissues, volume.geometry)
        host = _host(options["organ"], tissues, options["mapping"], canvas.labels, manifest)
        places = _placements(host, painted, seed, options)
        known = [*notes(volume), *canvas.findings, *places[0].findings]
        announce((finding.sentence for finding in known), progress)
        stage.advance()
        timings.lap("preparing")
        steps = [] if keep_steps else None
        maker = _Maker(volume, tissues, origin, host, known, manifest, value, texture, seed, options, steps)
        alone = not options["mass_effect"]
        made = [maker.made(canvas, places[0], None, (volume, tissues), timings, progress)] if alone else []
    for place in places[len(made) :]:
        push, grids = maker.pushed(place)
        with open_canvas(*grids) as canvas:
            made.append(maker.made(canvas, place, push, grids, timings, progress))
    return replace(made[0], later=tuple(made[1:]), steps=tuple(steps or ()))


@dataclass(frozen=True)
class _Maker:
    """Makes the insertion at each time of a lesion.

    Attributes
    ----------
    known: findings on the input and the place.
    value: number of the label that the place gets; None keeps its own.
    steps: collects `Insertion.steps` of the first time and region; None for none.
    """

    volume: Volume
    tissues: LabelMap
    origin: str
    host: Host
    known: list[Finding]
    manifest: Manifest
    value: int | None
    texture: Texture | None
    seed: int
    options: Mapping[str, Any]
    steps: list[tuple[int, int, Box, NDArray]] | None

    def pushed(self, place: Placement) -> tuple[Push | None, tuple[Volume, LabelMap]]:
        """The mass effect, and image and tissues with displaced surroundings."""
        grids, effect = (self.volume, self.tissues), self.options["mass_effect"]
        if not effect:
            return None, grids
        if 1 in self.volume.shape:
            raise InputError("A mass effect needs a volume, and the image has one slice; leave it out.")
        push = Push.of(place.at, float(place.lesion.sum() * np.prod(self.volume.spacing)), effect)
        arrays = (push.warp(grid.array, grid.geometry, grid is self.tissues) for grid in grids)
        return push, tuple(grid.with_array(array) for grid, array in zip(grids, arrays, strict=True))

    def made(
        self,
        canvas: Canvas,
        place: Placement,
        push: Push | None,
        grids: tuple[Volume, LabelMap],
        timings: Timings,
        progress: ProgressCallback | None,
    ) -> Insertion:
        """The lesion put into the canvas of image and tissues with displaced surroundings."""
        before, tissues = grids
        changed, halo, halo_mm = self._change(canvas, before, place, progress)
        if push is not None:
            halo_mm = max(halo_mm, push.reach + place.gap_mm(before.geometry))
            steps = zip(halo, before.spacing, before.shape, strict=True)
            halo = tuple(max(h, ceil(halo_mm / s)) if n > 1 else 0 for h, s, n in steps)
        made, options = canvas.volume, self.options
        timings.lap("inserting")
        check = check_inserted(self.volume, made, place.lesion, self.host.array, halo)
        timings.lap("checking")
        report = _report(self.manifest, self.seed, None if self.value is None else options["preset"], options["device"])
        names = self.manifest.input.vocabulary.names
        report.parameters = {
            **place.to_dict(self.volume),
            "label": None if self.value is None else names.get(self.value, "background"),
            "contrast": options["contrast"],
            "host": self.host.name,
            "tissues": self.origin,
            "halo_voxels": list(halo),
            "halo_mm": round(halo_mm, 3),
            "memory": options["memory"],
            **self._additions(push),
        }
        report.input_findings, report.output_checks = [*self.known, *changed], [check]
        report.timings = timings.seconds
        mask = LabelMap(place.lesion.astype(np.uint8), self.volume.affine, {1: "lesion"})
        return Insertion(made, mask, self.volume, report, halo, halo_mm, tissues, push)

    def _additions(self, push: Push | None) -> dict[str, Any]:
        """Texture and mass effect, for the report."""
        added: dict[str, Any] = {}
        if self.texture is not None:
            added["texture"] = {"name": self.options["texture"].split(",")[0].strip(), **asdict(self.texture)}
        if push is not None:
            radii = {"displaced_mm": push.after - push.before, "reach_mm": push.reach}
            added["mass_effect"] = {name: round(mm, 3) for name, mm in radii.items()}
            added["mass_effect"] |= {"share": self.options["mass_effect"], "least_jacobian": push.least_jacobian}
        return added

    def _keep(self, *step: Any) -> None:
        if not self.steps or step[0] > self.steps[-1][0]:
            self.steps.append(step)

    def _change(
        self, canvas: Canvas, before: Volume, place: Placement, progress: ProgressCallback | None
    ) -> tuple[list[Finding], tuple[int, int, int], float]:
        """Change tissue, level and texture at the place of the lesion.

        Returns findings, and how far from the lesion voxels change: voxels along each axis, and mm in
        any direction.
        """
        findings, halo, halo_mm = [], (0, 0, 0), 0.0
        contrast, lesion = self.options["contrast"], place.lesion
        if self.value is not None:
            step, more = _working_step(before, self.manifest), bool(contrast or self.texture)
            watch = self._keep if self.steps == [] else None
            findings, halo, halo_mm = regenerate(
                canvas, step, lesion, self.value, more, self.options["preset"], progress, watch
            )
        if self.texture is not None:
            reach, reach_mm = add_texture(
                canvas, before, place, self.host.array, self.texture, contrast or 0.0, self.seed
            )
        elif contrast:
            reach, reach_mm = add_contrast(canvas, lesion, contrast)
        else:
            return findings, halo, halo_mm
        return findings, tuple(map(max, halo, reach)), max(halo_mm, reach_mm)


def _require_place_and_change(options: Mapping[str, Any]) -> None:
    if options["at"] is None and options["lesion"] is None and options["organ"] is None:
        raise InputError(
            "It is not said where the lesion goes; give a place, a painted mask, or an organ in "
            "which the seed chooses one."
        )
    if options["at"] is not None and options["lesion"] is not None:
        raise InputError("The painted mask says where the lesion is; leave out the place.")
    if options["label"] is None and not options["contrast"] and options["texture"] is None:
        raise InputError("It is not said what the lesion is; give a label of the model, a contrast, or a texture.")


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


def _placements(
    host: Host, painted: NDArray[np.bool_] | None, seed: int, options: Mapping[str, Any]
) -> list[Placement]:
    """The lesion inside its host, at each time of its growth."""
    growth = Growth.of(options)
    if painted is not None:
        own = MaskShape.of(LabelMap(painted, host.geometry.affine))
        return growth.places(Placement.inside(host, painted, "painted", own.size_mm), host)
    solid = shape_of(options["shape"], seed)
    size = options["size_mm"] or solid.size_mm or USUAL_SIZE_MM
    at = options["at"]
    if at is None:
        at = host.random_place(size * growth.widest, np.random.default_rng([seed, 1]), growth.frames > 1)
    else:
        host.index_of(at)
    center = np.asarray(at, np.float64)
    first = Placement.inside(host, rasterize(solid, host.geometry, center, size), options["shape"], size, center)
    return growth.places(replace(first, solid=solid), host)


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
