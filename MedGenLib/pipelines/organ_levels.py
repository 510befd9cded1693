"""Organs of a mask for a model that makes only their tissue: their parts, and their HU after sampling. No torch.

The network makes one soft tissue. Each organ is then shifted by the difference between its HU in the table and the
median of its interior, which keeps noise and edges. The marrow of a bone is soft tissue for the network; the compact
bone around it, which is thinner than the network's, gets the HU and the spread of a thin cortex.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box, wider
from MedGenLib.imaging.volume import LabelMap, Volume, whole_numbers
from MedGenLib.labels.body import Tissues
from MedGenLib.labels.organs import Organ, given_hu, organ_of, parse_hu

if TYPE_CHECKING:
    from MedGenLib.labels.mapping import MappingReport
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.pipelines.base import PreparedRun
    from MedGenLib.progress import ProgressCallback

BLUR = 0.8
"""Standard deviation of the transition at the border of an organ, in voxels of the working grid."""
BLUR_REACH = 2.5
"""Radius of the transition in standard deviations."""
FEWEST_VOXELS = 30
"""Interior voxels below which the middle of the tissue stands for the median."""
CORTEX_SPREAD = 0.4
"""Standard deviation of a thin cortex relative to its HU, at most."""
CORTEX_RANGE = 0.35, 2.2
"""Least and largest value in a thin cortex relative to its HU: it has no holes."""
LEAST_MARROW_MM3 = 200.0
"""Smaller pieces of marrow stay compact bone."""
REST = {-1: "muscle", -2: "fat"}
"""Labels of what fills the rest of the body."""
SLAB = 32
MOST_SAMPLES = 200_000


@dataclass(frozen=True)
class Part:
    """A part of the mask with a HU of its own: an organ, or the shell or the interior of one.

    Attributes
    ----------
    label: number in the mask, or of `REST`.
    name: name of the label.
    tissue: label of the model.
    """

    label: int
    name: str
    organ: Organ
    tissue: int
    shell: bool = False

    @property
    def cortex(self) -> bool:
        """Whether the part is a thin cortex."""
        return self.shell and self.organ.tissue == "bone"


@dataclass
class OrganLevels:
    """The parts of a mask and how their HU are chosen.

    Attributes
    ----------
    numbers: (i, j, k) number of the part, from 1 on; 0 where the intensities of the model stay.
    given: HU given by the user, by label of the mask.
    centers, limits: middle and range of HU of the model's labels.
    steps: voxels of the mask in one of the working grid, along each axis; 0 along an axis of one voxel.
    voxel_mm: voxel size of the working grid.
    bone: label of bone, of which marrow is a part.
    """

    parts: list[Part]
    numbers: NDArray[np.unsignedinteger]
    phase: str
    given: Mapping[int, float]
    centers: tuple[float, ...]
    limits: tuple[tuple[float, ...], tuple[float, ...]]
    steps: tuple[float, float, float]
    voxel_mm: float
    bone: int

    def of_seed(self, seed: int) -> PersonLevels:
        """The HU in the person of a seed."""
        wanted = [self._wanted(part, seed) for part in self.parts]
        return PersonLevels(self, np.array([0.0, *wanted], np.float32))

    def _wanted(self, part: Part, seed: int) -> float:
        interior, shell = part.organ.drawn(self.phase, seed)
        given = self.given.get(part.label)
        if part.cortex:
            return part.organ.compact(interior if given is None else given, self.voxel_mm)
        if part.shell:  # a wall stays, a cortex follows its organ
            return shell if given is None or part.organ.hu[0] != part.organ.shell[0] else given
        return interior if given is None else given

    def without_organs(self, labels: LabelMap) -> LabelMap:
        """The labels where the intensities of the model stay."""
        return labels.with_array(np.where(self.numbers > 0, labels.array.dtype.type(0), labels.array))

    def tissues(self, labels: NDArray) -> NDArray:
        """The labels of the model with the marrow of bones as bone, as the checks of tissues need it."""
        known = [self.bone if part.organ.tissue == "bone" else part.tissue for part in self.parts]
        return np.where(self.numbers > 0, np.array([0, *known], labels.dtype)[self.numbers], labels)

    @property
    def part_centers(self) -> NDArray[np.float32]:
        """Middle of the tissue of each part in the checks, by number."""
        known = (self.bone if part.organ.tissue == "bone" else part.tissue for part in self.parts)
        return np.array([0.0, *(self.centers[tissue] for tissue in known)], np.float32)

    def medians(self, image: NDArray) -> dict[int, float]:
        """Label -> median of its interior, where it has one."""
        found = {}
        radius = [max(1, round(step)) if step else 0 for step in self.steps]
        for label, box, inside in self._regions(max(radius)):
            interior = _eroded(inside, radius)
            if np.count_nonzero(interior) >= FEWEST_VOXELS:
                values = image[box][interior]
                found[label] = float(np.median(values[:: 1 + len(values) // MOST_SAMPLES]))
        return found

    def _regions(self, margin: int) -> Iterator[tuple[int, Box, NDArray[np.bool_]]]:
        """Label, box and voxels of each label with parts."""
        from scipy import ndimage

        labels = list(dict.fromkeys(part.label for part in self.parts))
        group = [0 if part.cortex else 1 + labels.index(part.label) for part in self.parts]
        group = np.array([0, *group], np.uint16)[self.numbers]
        for number, place in enumerate(ndimage.find_objects(group), 1):
            if place is not None:
                box = wider(place, margin, group.shape)
                yield labels[number - 1], box, group[box] == number

    def field(self, values: NDArray[np.float32], box: Box | None = None) -> NDArray[np.float32]:
        """Values of the parts (by number) on the grid or in a box of it, blurred at the borders, 0 outside of parts."""
        from scipy import ndimage

        box = box or tuple(slice(0, n) for n in self.numbers.shape)
        sigma = [BLUR * step for step in self.steps]
        reach = [math.ceil(BLUR_REACH * s) for s in sigma]
        outer = tuple(
            slice(max(0, part.start - r), min(n, part.stop + r))
            for part, r, n in zip(box, reach, self.numbers.shape, strict=True)
        )
        numbers = self.numbers[outer]
        soft = ndimage.gaussian_filter(values[numbers], sigma, mode="nearest", radius=reach)
        soft[numbers == 0] = 0
        return soft[tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))]


@dataclass
class PersonLevels:
    """HU of the parts in one person.

    Attributes
    ----------
    wanted: HU of the interior by number of the part; entry 0 stands for no part.
    shifts: HU that are added to the model's intensities, by number; known after `applied`.
    cortices: gain and offset of the intensities of a thin cortex, by number.
    """

    levels: OrganLevels
    wanted: NDArray[np.float32]
    shifts: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    cortices: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def named(self) -> dict[str, float]:
        """HU by name, for the report."""
        found = {}
        for part, hu in zip(self.levels.parts, self.wanted[1:], strict=True):
            name = part.name if part.label in self.levels.given else part.organ.name
            found[f"{name}, shell" if part.shell else name] = round(float(hu), 1)
        return found

    def applied(self, volume: Volume, limits: tuple[float, float]) -> Volume:
        """The generated volume with the HU of the organs, within the limits of the model."""
        self.shifts = self._shifts(volume.array)
        self.cortices = {
            number: _as_cortex(volume.array[self.levels.numbers == number], float(self.wanted[number]))
            for number, part in enumerate(self.levels.parts, 1)
            if part.cortex
        }
        array = np.empty(volume.shape, np.float32)
        for slab in _slabs(volume.shape):
            array[slab] = self.added(volume.array[slab], slab)
        return volume.with_array(whole_numbers(np.clip(array, *limits)))

    def added(self, values: NDArray, box: Box) -> NDArray[np.float32]:
        """Values of the model in a box -> values with the HU of the organs."""
        found, numbers = values + self.levels.field(self.shifts, box), self.levels.numbers[box]
        for number, (gain, offset) in self.cortices.items():
            place = numbers == number
            least, most = (float(self.wanted[number]) * factor for factor in CORTEX_RANGE)
            found[place] = np.clip(gain * values[place] + offset, least, most)
        return found

    def removed(self, values: NDArray, box: Box) -> NDArray[np.float32]:
        """The inverse of `added`."""
        return self._without(values, self.levels.field(self.shifts, box), self.levels.numbers[box])

    def plain(self, values: NDArray, numbers: NDArray) -> NDArray[np.float32]:
        """The same by the numbers of the parts of voxels, without the blur at borders."""
        return self._without(values, self.shifts[numbers], numbers)

    def _without(self, values: NDArray, shifts: NDArray, numbers: NDArray) -> NDArray[np.float32]:
        found = values - shifts
        for number, (gain, offset) in self.cortices.items():
            place = numbers == number
            found[place] = (values[place] - offset) / gain
        return found

    @classmethod
    def of_image(cls, levels: OrganLevels, image: NDArray) -> PersonLevels:
        """The HU that the organs have in an image, and those of the table for organs without an interior there."""
        person, medians = levels.of_seed(0), levels.medians(image)
        known = (medians.get(part.label, 0.0 if part.cortex else levels.centers[part.tissue]) for part in levels.parts)
        person.wanted = np.array([0.0, *known], np.float32)
        middles = (0.0 if part.cortex else levels.centers[part.tissue] for part in levels.parts)
        person.shifts = person.wanted - np.array([0.0, *middles], np.float32)
        return person

    def _shifts(self, image: NDArray) -> NDArray[np.float32]:
        levels, medians = self.levels, self.levels.medians(image)
        low, high = levels.limits
        shifts = [0.0]
        for part, hu in zip(levels.parts, self.wanted[1:], strict=True):
            base = medians.get(part.label, levels.centers[part.tissue])
            base = min(max(base, low[part.tissue]), high[part.tissue])
            shifts.append(0.0 if part.cortex else float(hu) - base)
        return np.array(shifts, np.float32)

    def neutral(self, image: NDArray) -> NDArray[np.float32]:
        """The image as if every organ had the usual HU of its tissue, as the checks of tissues need it."""
        extra = self.wanted - self.levels.part_centers
        array = np.empty(image.shape, np.float32)
        for slab in _slabs(image.shape):
            array[slab] = image[slab] - self.levels.field(extra, slab)
        return array

    def measured(self, image: NDArray) -> dict[str, tuple[float, float]]:
        """Median of the interior and wanted HU of each label without a shell, by name."""
        levels, medians = self.levels, self.levels.medians(image)
        single = {part.label: number for number, part in enumerate(levels.parts, 1) if not part.cortex}
        shells = {part.label for part in levels.parts if part.shell and not part.cortex}
        return {
            levels.parts[number - 1].name: (round(medians[label], 1), round(float(self.wanted[number]), 1))
            for label, number in single.items()
            if label in medians and label not in shells
        }


class OrganRun:
    """A run of a pipeline whose volumes get the HU of organs; all else is that of the pipeline's run."""

    def __init__(self, run: PreparedRun, levels: OrganLevels, manifest: Manifest) -> None:
        self._run, self._levels, self._range = run, levels, manifest.output.range
        self._persons: dict[int, PersonLevels] = {}
        self._seed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters for the report, with the phase."""
        return {**self._run.parameters, "phase": self._levels.phase}

    def person(self, seed: int) -> PersonLevels:
        """The levels of the sample of a seed."""
        return self._persons.setdefault(seed, self._levels.of_seed(seed))

    def drawn(self, seed: int) -> dict[str, float]:
        """Conditions drawn for the sample of a seed, by name: HU of organs."""
        return {**self._run.drawn(seed), **self.person(seed).named}

    def sample(self, seed: int, progress: ProgressCallback | None = None) -> Any:
        """Run the networks."""
        self._seed = seed
        return self._run.sample(seed, progress)

    def finish(self, values: NDArray) -> Volume:
        """The image of the last sample with the HU of its organs, on the grid of the input."""
        return self.person(self._seed).applied(self._run.finish(values), self._range)


def organ_levels(
    mask: LabelMap, labels: LabelMap, report: MappingReport, manifest: Manifest, options: Mapping[str, Any]
) -> tuple[LabelMap, OrganLevels | None]:
    """The labels of the model with the marrow of bones as soft tissue, and the levels of the organs.

    Parameters
    ----------
    mask: as given; labels: in the labels of the model, on the same grid.
    options: `phase` and `hu` of `MedGenLib.generate`.

    Raises
    ------
    InputError: a phase or HU for a model or a mask without organs, and what `given_hu` raises.
    """
    if not has_organs(manifest):
        require_no_organs(manifest, options)
        return labels, None
    phase, hu = options["phase"], options["hu"] or {}
    hu = parse_hu(hu) if isinstance(hu, str) else hu
    found = organs_of(report, manifest)
    given = given_hu(hu, {label: report.names[label] for label in found})
    own = manifest.input.vocabulary
    found = {v: organ for v, organ in found.items() if v in given or own.label_of(report.names[v]) is None}
    if not found:
        if phase != "none":
            raise InputError(
                f"The mask names no organ, so it cannot have the phase '{phase}'; name its labels (liver, aorta), name "
                "their table as in --map totalsegmentator, or leave the phase out."
            )
        return labels, None
    array, parts, numbers = _divided(mask, labels, report, found, given, manifest)
    settings, spacing = manifest.settings, manifest.spacing
    steps = tuple(
        min(max(mm, spacing.min), spacing.max) / mm if n > 1 else 0.0
        for mm, n in zip(mask.spacing, mask.shape, strict=True)
    )
    limits = (settings.tissue_range.low, settings.tissue_range.high)
    voxel_mm = float(np.mean([mm * step for mm, step in zip(mask.spacing, steps, strict=True) if step]))
    bone = tissues_of(manifest).bone
    levels = OrganLevels(parts, numbers, phase, given, settings.centers, limits, steps, voxel_mm, bone)
    return replace(labels, array=array), levels


def has_organs(manifest: Manifest | None) -> bool:
    """Whether the model, if there is one, has HU of organs and contrast phases."""
    return manifest is not None and getattr(manifest.settings, "organs", False)


def tissues_of(manifest: Manifest) -> Tissues:
    """The labels of a model with organs."""
    values = {label.name: value for value, label in manifest.input.labels.items()}
    return Tissues(values["fat"], values["soft tissue"], values["bone"], values.get("lung or gas"))


def require_no_organs(manifest: Manifest, options: Mapping[str, Any]) -> None:
    """Raise InputError for a phase or HU of organs."""
    if options["phase"] != "none" or options["hu"]:
        raise InputError(
            f"The model '{manifest.name}' has neither contrast phases nor HU of organs; leave phase and hu out."
        )


def organs_of(report: MappingReport, manifest: Manifest) -> dict[int, Organ]:
    """The organs of a mask whose label became the tissue of their row."""
    tissues = tissues_of(manifest)
    found = {}
    for value, name in report.names.items():
        organ = organ_of(name)
        if organ is not None and report.mapped.get(value) == tissues.of(organ.tissue):
            found[value] = organ
    return found


def _divided(
    mask: LabelMap,
    labels: LabelMap,
    report: MappingReport,
    found: Mapping[int, Organ],
    given: Mapping[int, float],
    manifest: Manifest,
) -> tuple[NDArray, list[Part], NDArray]:
    """Labels of the model with marrow, the parts, and the number of the part of each voxel."""
    from scipy import ndimage

    tissues = tissues_of(manifest)
    array, parts = labels.array.copy(), []
    numbers = np.zeros(mask.shape, np.uint16)
    rows = np.array([0, *mask.values()])
    order = np.empty(mask.shape, np.uint16)
    for plane, place in zip(mask.array, order, strict=True):  # indices of all voxels would take 8 bytes each
        place[:] = np.searchsorted(rows, plane) + 1
    for value, place in zip(rows, ndimage.find_objects(order), strict=True):
        if int(value) not in found:
            continue
        organ, box = found[int(value)], wider(place, 1, mask.shape)
        inside, name = mask.array[box] == value, report.names[int(value)]
        core = _core(inside, mask.spacing, organ)
        soft = tissues.soft if organ.tissue == "bone" else tissues.of(organ.tissue)
        if organ.tissue == "bone":
            array[box][core] = soft
        if organ.gas and tissues.gas is not None and int(value) not in given:
            gas = _gas(core, box, mask, organ.gas)
            array[box][gas] = tissues.gas
            core &= ~gas
            inside &= ~gas
        for region, shell in ((core, False), (inside & ~core, True)):
            if region.any() and not (shell and organ.shell is None and not organ.cortex_mm):
                parts.append(Part(int(value), name, organ, int(report.mapped[value]) if shell else soft, shell))
                numbers[box][region] = len(parts)
    for value, name in REST.items():
        organ = organ_of(name)
        rest = (mask.array == 0) & (array == tissues.of(organ.tissue))
        if rest.any():
            parts.append(Part(value, name, organ, tissues.of(organ.tissue)))
            numbers[rest] = len(parts)
    return array, parts, numbers


def _core(inside: NDArray[np.bool_], spacing: tuple[float, ...], organ: Organ) -> NDArray[np.bool_]:
    """The interior of an organ with a shell, else all of it; only pieces of marrow that are large enough."""
    from scipy import ndimage

    if not organ.shell_mm:
        return inside
    depth = ndimage.distance_transform_edt(inside, spacing) - 0.5 * min(spacing)
    core = depth >= organ.shell_mm
    if organ.tissue == "bone":
        pieces, count = ndimage.label(core)
        size = np.bincount(pieces.ravel(), minlength=count + 1) * math.prod(spacing)
        core &= (size >= LEAST_MARROW_MM3)[pieces]
    return core


def _as_cortex(values: NDArray, wanted: float) -> tuple[float, float]:
    """Gain and offset that give compact bone another median, and no more spread than a thin cortex has."""
    median = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - median)))
    gain = min(1.0, CORTEX_SPREAD * wanted / max(spread, 1.0))
    return gain, wanted - gain * median


def _gas(core: NDArray[np.bool_], box: Box, mask: LabelMap, share: float) -> NDArray[np.bool_]:
    """The foremost part of a hollow organ: gas rises in a patient who lies on the back."""
    if not core.any():
        return core
    forward = mask.affine[1, :3]
    height = sum(
        forward[axis] * np.arange(part.start, part.stop).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, part in enumerate(box)
    )
    return core & (height > np.quantile(np.broadcast_to(height, core.shape)[core], 1 - share))


def _eroded(inside: NDArray[np.bool_], radius: list[int]) -> NDArray[np.bool_]:
    """The voxels without another label within the radius; the organ continues beyond the grid."""
    from scipy import ndimage

    return ndimage.minimum_filter(inside, [2 * r + 1 for r in radius], mode="nearest")


def _slabs(shape: tuple[int, ...]) -> Iterator[Box]:
    for start in range(0, shape[0], SLAB):
        yield slice(start, min(start + SLAB, shape[0])), slice(0, shape[1]), slice(0, shape[2])
