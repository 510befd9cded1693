"""One CT -> a breathing series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from MedGenLib.errors import InputError
from MedGenLib.imaging.modality import guess_modality, has_offset, hu_problem
from MedGenLib.imaging.orientation import Reorientation
from MedGenLib.imaging.resampling import resample, resample_to
from MedGenLib.imaging.volume import LabelMap, Volume, as_stored, check_finite, whole_numbers
from MedGenLib.io.files import read_label_map, read_volume
from MedGenLib.io.system import plan_memory
from MedGenLib.motion.anatomy import CUT_MM2, LEAST_LUNG_ML, Chest, cut_area, find_chest, find_lungs
from MedGenLib.motion.field import STEEPEST, Motion, limit_slope, solve
from MedGenLib.motion.trace import Cycle
from MedGenLib.options import BreatheOptions, documented
from MedGenLib.progress import ProgressCallback, Stage, announce

_COARSE_MM = 4.0
_WORKING_BYTES = 48
"""Bytes per voxel beside the phases."""
_PARENCHYMA_HU = (-500.0, -200.0)
"""Below the first, lung changes its density with its volume; above the second, tissue keeps its HU."""
_WALL = ("rib", "vertebra", "sternum", "scapula", "clavicul", "spine", "humerus", "hip", "sacrum", "bone")
"""Parts of the names of labels that do not move along foot-head."""
_IN_LUNGS = ("nodule", "lesion", "tumo", "cancer", "vessel", "metasta")
"""Parts of the names of labels that lie in the lungs."""
_NEAR, _VOLUME_STEPS = 0.003, 8
"""Deviation from the volume asked for at which the search ends, and its largest number of steps."""
_MOST_MM = 60
"""Largest travel of a diaphragm."""
_TRAVEL_MM = 0.1
"""Deviation of the travel from the amplitude asked for."""


@dataclass(frozen=True)
class Phase:
    """One phase of a series.

    Attributes
    ----------
    percent: time in the cycle.
    rise, chest: displacement in mm of the diaphragm towards the head and of the chest to the front since phase 0.
    volume_ml, mass_g: of the lungs.
    least_jacobian: smallest local change of volume, 1 being none.
    blood: factor of the density of lung by which vessels, whose HU stay, keep the mass.
    """

    percent: float
    rise: float
    chest: float
    volume_ml: float
    mass_g: float
    least_jacobian: float
    blood: float


@dataclass(frozen=True)
class Breathing:
    """A breathing series.

    Attributes
    ----------
    source: the CT as read, which is the first phase.
    volumes: one CT for each phase.
    labels: the moved labels of each phase: those given, or 1 for the lungs.
    phases: what was measured in each.
    tracks: name -> (phases, 3) places in RAS mm.
    parameters: the options, and what was found.
    notes: warnings on the input.
    """

    source: Volume
    volumes: list[Volume]
    labels: list[LabelMap]
    phases: list[Phase]
    tracks: dict[str, NDArray[np.float64]]
    parameters: dict[str, Any]
    notes: list[str]
    _mover: _Mover = field(repr=False)

    @property
    def farthest(self) -> int:
        """Number of the phase in which the diaphragm is farthest from its place in the input."""
        return int(np.argmax([abs(phase.rise) for phase in self.phases]))

    @property
    def sentences(self) -> list[str]:
        """What the series shows, for the user."""
        volumes, masses = ([getattr(phase, name) for phase in self.phases] for name in ("volume_ml", "mass_g"))
        rises, chests = ([getattr(phase, name) for phase in self.phases] for name in ("rise", "chest"))
        return [
            f"{len(self.phases)} phases: the diaphragm travels {np.ptp(rises):.1f} mm and the chest "
            f"{np.ptp(chests):.1f} mm; the lungs hold {min(volumes):.0f} to {max(volumes):.0f} ml, a tidal volume of "
            f"{np.ptp(volumes):.0f} ml.",
            f"The mass of the lungs is {masses[0]:.0f} g within {np.abs(np.divide(masses, masses[0]) - 1).max():.2%}; "
            f"the smallest Jacobian is {min(phase.least_jacobian for phase in self.phases):.2f}.",
            *self.notes,
        ]

    @property
    def lungs(self) -> LabelMap:
        """The lungs in the input."""
        return LabelMap(self._mover.order.undo(self._mover.lungs), self.source.affine, {1: "lungs"})

    def displacement(self, phase: int) -> NDArray[np.float32]:
        """(i, j, k, 3) LPS mm from each voxel of a phase to the place in the input that it shows, as ITK warps."""
        return self._mover.displacement(self.phases[phase])

    def moved(self, points: Sequence[Sequence[float]], phase: int) -> NDArray[np.float64]:
        """Places (n, 3) in RAS mm, in a phase, of points of the input in RAS mm."""
        return self._mover.moved(points, self.phases[phase])

    def projections(self) -> tuple[Volume, Volume]:
        """Average and maximum over the phases."""
        total = np.zeros(self.source.shape, np.float32)
        most = self.volumes[0].array.copy()
        for volume in self.volumes:
            total += volume.array
            np.maximum(most, volume.array, out=most)
        return self.source.with_array(whole_numbers(total / len(self.volumes))), self.source.with_array(most)


@documented("breathe")
def breathe(
    image: str | Path | Volume, *, progress: ProgressCallback | None = None, **options: Unpack[BreatheOptions]
) -> Breathing:
    """Make a breathing series of CTs from one CT of the chest.

    The diaphragm rises and falls by the amplitude, the chest moves to the front and back, the lungs slide along the
    wall, the spine stays. Voxels are moved, not generated: lung becomes denser where it shrinks, so that its mass
    stays, and labels move along. The first phase is the input. The same input gives the same series.

    Parameters
    ----------
    {options}
    progress: called at each step; an exception raised in it stops the run.

    Raises
    ------
    InputError, MemoryPlanError: nothing was computed.

    Examples
    --------
    >>> series = breathe("ct.nii.gz", amplitude=15)                      # doctest: +SKIP
    >>> [phase.volume_ml for phase in series.phases]                     # doctest: +SKIP
    """
    stage = Stage("preparing", 3, progress)
    cycle = (
        Cycle.cosine(options["start"], options["dwell"])
        if options["trace"] is None
        else Cycle.measured(options["trace"], options["start"])
    )
    volume = as_stored(image if isinstance(image, Volume) else read_volume(image))
    _require_ct(volume)
    labels = options["labels"]
    labels = read_label_map(labels) if isinstance(labels, (str, Path)) else labels
    frame = volume.array.itemsize + (1 if labels is None else labels.array.itemsize)
    plan_memory(volume.array.size * (frame * options["phases"] + _WORKING_BYTES), "The series")
    if labels is not None and not labels.geometry.is_close(volume.geometry):
        raise InputError("The labels lie on another grid than the CT; resample them to the grid of the CT.")
    for name, place in (options["points"] or {}).items():
        index = np.linalg.solve(volume.affine[:3, :3], np.asarray(place, float) - volume.origin)
        if (index < -0.5).any() or (index > np.array(volume.shape) - 0.5).any():
            raise InputError(f"The point {name} lies outside of the CT; give R, A, S in mm of a place inside.")
    stage.advance()
    mover = _Mover.of(volume, labels, options)
    stage.advance()
    steps = cycle.steps(options["phases"], options["lag"])
    if options["tidal_volume"] is not None:
        mover.fit_volume(options["tidal_volume"], min(steps, key=lambda s: s[0]), max(steps, key=lambda s: s[0]))
    stage.advance()
    announce(mover.notes, progress)
    return _series(volume, labels, mover, steps, options, progress)


def _series(
    volume: Volume,
    labels: LabelMap | None,
    mover: _Mover,
    steps: list[tuple[float, float]],
    options: Mapping[str, Any],
    progress: ProgressCallback | None,
) -> Breathing:
    if labels is None:
        labels = LabelMap(mover.order.undo(mover.lungs).astype(np.uint8), volume.affine, {1: "lungs"})
    moving = mover.order.apply(labels.array)
    volumes, moved_labels, phases = [], [], []
    stage = Stage("breathing", len(steps), progress)
    for number, (rise, chest) in enumerate(steps):
        array, shown, phase = mover.phase(100 * number / len(steps), rise, chest, moving)
        volumes.append(volume.with_array(mover.order.undo(array)) if number else volume)
        moved_labels.append(labels.with_array(mover.order.undo(shown)) if number else labels)
        phases.append(phase)
        stage.advance()
    points = {**_centers(labels), **(options["points"] or {})}
    places = np.array(list(points.values()), float).reshape(-1, 3)
    paths = np.stack([mover.moved(places, phase) for phase in phases], axis=1)
    tracks = dict(zip(points, paths, strict=True))
    return Breathing(volume, volumes, moved_labels, phases, tracks, mover.facts(options), mover.notes, mover)


def _centers(labels: LabelMap) -> dict[str, NDArray]:
    """Center of mass of each label in RAS mm, by its name."""
    from scipy.ndimage import center_of_mass

    values = labels.values()
    centers = np.array(center_of_mass(labels.array > 0, labels.array, values)).reshape(-1, 3)
    places = centers @ labels.affine[:3, :3].T + labels.affine[:3, 3]
    return {labels.names.get(value) or str(value): place for value, place in zip(values, places, strict=True)}


def _require_ct(volume: Volume) -> None:
    check_finite(volume)
    if volume.modality not in (None, "CT"):
        raise InputError(f"The image is {volume.modality}, but a breathing series is made from a CT; give a CT.")
    if problem := hu_problem(volume):
        raise InputError(problem)
    if volume.modality is None and guess_modality(volume) == "MR" or has_offset(volume):
        raise InputError(
            "The image looks like MR by its values, but a breathing series is made from a CT; give a CT, or state that "
            "it is one (command line: --modality CT)."
        )


class _Mover:
    """Moves one CT; its arrays are in the order R, A, S."""

    def __init__(self, volume: Volume, order: Reorientation, lungs: NDArray[np.bool_], chest: Chest) -> None:
        self.volume, self.order, self.lungs, self.chest = volume, order, lungs, chest
        self.spacing = np.array(order.axes(volume.spacing))
        self.hu = order.apply(volume.array).astype(np.float32)

    @classmethod
    def of(cls, volume: Volume, labels: LabelMap | None, options: Mapping[str, Any]) -> _Mover:
        order = Reorientation.to(volume.geometry, "RAS")
        spacing = np.array(order.axes(volume.spacing))
        hu = order.apply(volume.array).astype(np.float32)
        lungs = None if labels is None else order.apply(_named(labels, ("lung",), _IN_LUNGS))
        if lungs is None or np.count_nonzero(lungs) * np.prod(spacing) / 1000 < LEAST_LUNG_ML:
            lungs = find_lungs(hu, spacing)
        wall = np.zeros(lungs.shape, bool) if labels is None else order.apply(_named(labels, _WALL))
        grid = np.diag([*spacing, 1.0])
        size = np.maximum(spacing, _COARSE_MM)
        coarse = resample(Volume(hu, grid), size)
        coarse_lungs, coarse_wall = (
            resample_to(Volume(mask.astype(np.float32), grid), coarse, fill=0.0).array > 0.5 for mask in (lungs, wall)
        )
        chest = find_chest(coarse.array, coarse_lungs, coarse_wall, np.array(coarse.spacing))
        mover = cls(volume, order, lungs, chest)
        mover._prepare(coarse)
        mover.amplitude, mover.chest_mm = float(options["amplitude"]), float(options["chest"])
        mover.set_amplitude(min(mover.amplitude, mover._largest()) if options["tidal_volume"] else mover.amplitude)
        return mover

    def _prepare(self, coarse: Volume) -> None:
        """The displacement of 1 mm at the dome, on the grid of the image, and the profile of the chest."""
        fine = Volume(self.hu, np.diag([*self.spacing, 1.0]))
        unit = solve(self.chest, coarse.array)
        inside = resample_to(coarse.with_array(self.chest.moving.astype(np.float32)), fine, fill=0.0).array
        unit = resample_to(coarse.with_array(unit), fine).array
        unit[(inside < 0.5) & ~self.lungs] = 0
        ratio = np.array(coarse.spacing) / self.spacing
        offset = coarse.origin / self.spacing
        x, y, z = np.rint(np.array(self.chest.dome) * ratio + offset).astype(int).clip(0)
        self.dome = int(x), int(y), (float(self.lungs[x, y].argmax()) if self.lungs[x, y].any() else float(z)) - 0.5
        self.unit = np.minimum(unit / max(self._at_dome(unit[x, y]), 1e-6), 1)
        places = np.arange(self.hu.shape[2])
        spine = np.interp(places, np.arange(len(self.chest.spine)) * ratio[2] + offset[2], self.chest.spine)
        spine, front = (edge * ratio[1] + offset[1] for edge in (spine, self.chest.front))
        rows = np.arange(self.hu.shape[1])[:, None]
        ahead = ((rows - spine) / np.maximum(front - spine, 1.0)).clip(0, 1)
        top = self.chest.levels[1] * ratio[2] + offset[2]
        levels = ((top - places) / max(top - z, 1.0)).clip(0, 1)
        self.ahead = ahead * levels**2 * (3 - 2 * levels)

    def set_amplitude(self, amplitude: float) -> None:
        """Set the travel of the dome in mm.

        Raises
        ------
        InputError: tissue would fold.
        """
        if not self._reaches(amplitude):
            raise InputError(
                f"An amplitude of {amplitude:.3g} mm folds the tissue of this CT; choose at most {self._largest()} mm."
            )
        up = (amplitude * self.unit).astype(np.float32)
        limit_slope(up, np.float32(STEEPEST * self.spacing[2]))
        self.amplitude = amplitude
        self.motion = Motion(up / np.float32(self.spacing[2]), self.chest_mm * self.ahead / self.spacing[1])

    def _reaches(self, amplitude: float) -> bool:
        """Whether the dome travels that far in mm without folding its column."""
        x, y, _ = self.dome
        column = (amplitude * self.unit[x : x + 1, y : y + 1]).astype(np.float32)
        limit_slope(column, np.float32(STEEPEST * self.spacing[2]))
        return self._at_dome(column[0, 0]) >= amplitude - _TRAVEL_MM

    def _largest(self) -> int:
        """The largest travel of the dome in whole mm.

        Raises
        ------
        InputError: there is none.
        """
        most = next((mm for mm in range(_MOST_MM, 0, -1) if self._reaches(mm)), 0)
        if not most:
            raise InputError("The CT shows too little above the diaphragm to breathe; give a CT of the whole chest.")
        return most

    def _at_dome(self, column: NDArray[np.float32]) -> float:
        """Value at the top of the diaphragm, between two voxels of its column."""
        return float(np.interp(self.dome[2], np.arange(column.size), column))

    def fit_volume(self, wanted: float, inhaled: tuple[float, float], exhaled: tuple[float, float]) -> None:
        """Set the amplitude by which the lungs change their volume by ``wanted`` ml between two steps of the cycle.

        Raises
        ------
        InputError: the chest alone changes it by more, or tissue would fold.
        """
        tried = [(0.0, self._tidal(0.0, inhaled, exhaled))]
        if tried[0][1] >= wanted:
            raise InputError(
                f"The chest alone breathes {tried[0][1]:.0f} ml, not {wanted:g} ml; choose a smaller travel of the "
                "chest."
            )
        amplitude, largest = self.amplitude, self._largest()
        for _ in range(_VOLUME_STEPS):
            self.set_amplitude(min(amplitude, largest))
            if amplitude > largest and (most := self._tidal(1.0, inhaled, exhaled)) < wanted:
                raise InputError(
                    f"A tidal volume of {wanted:g} ml folds the tissue of this CT; choose at most {int(most)} ml."
                )
            amplitude = self.amplitude
            tried.append((amplitude, self._tidal(1.0, inhaled, exhaled)))
            (a, one), (b, other) = tried[-2:]
            if abs(other - wanted) < _NEAR * wanted or other == one:
                return
            amplitude = max(b + (wanted - other) * (b - a) / (other - one), 0.1)

    def _tidal(self, share: float, inhaled: tuple[float, float], exhaled: tuple[float, float]) -> float:
        return float(np.subtract(*(self._lung_ml(share * rise, chest) for rise, chest in (inhaled, exhaled))))

    def _lung_ml(self, rise: float, chest: float) -> float:
        count = 0
        for x in np.flatnonzero(self.lungs.any(axis=(1, 2))):
            y, z, _ = self.motion.sources(rise, chest, x)
            count += np.count_nonzero(_nearest(self.lungs[x], y, z))
        return count * self.voxel_ml

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing) / 1000)

    def phase(
        self, percent: float, rise: float, chest: float, labels: NDArray
    ) -> tuple[NDArray[np.float32], NDArray, Phase]:
        """The image and the labels of one phase, and what was measured in it."""
        from scipy.ndimage import map_coordinates

        image, shown = np.empty_like(self.hu), np.empty_like(labels)
        lungs, shares, largest = np.empty_like(self.lungs), [], 1.0
        limits = self.hu.min(), self.hu.max()
        for x, plane in enumerate(self.hu):
            y, z, volume = self.motion.sources(rise, chest, x)
            # Cubic: linear interpolation would blur the noise.
            image[x] = map_coordinates(plane, [y, z], order=3, mode="nearest").clip(*limits)
            shown[x], lungs[x] = _nearest(labels[x], y, z), _nearest(self.lungs[x], y, z)
            shares.append(volume[lungs[x]])
            largest = max(largest, float(volume.max()))
        blood = self._keep_mass(image, lungs, np.concatenate(shares))
        if np.issubdtype(self.volume.array.dtype, np.integer):
            image = image.round().astype(self.volume.array.dtype)
        ml = float(np.count_nonzero(lungs) * self.voxel_ml)
        mass = float((image[lungs] + 1000.0).sum() / 1000) * self.voxel_ml
        millimeters = rise * self.amplitude, chest * self.chest_mm
        return image, shown, Phase(percent, *millimeters, ml, mass, 1 / largest, blood)

    def _keep_mass(self, image: NDArray[np.float32], lungs: NDArray[np.bool_], share: NDArray) -> float:
        """Change the density of lung in place, by its share of the volume it had; the factor for the vessels."""
        density = image[lungs] + 1000.0
        low, high = _PARENCHYMA_HU
        lung = ((high - image[lungs]) / (high - low)).clip(0, 1)
        before = float((self.hu[self.lungs] + 1000.0).sum(dtype=np.float64))
        denser = float((density * lung * share).sum(dtype=np.float64))
        blood = (before - float((density * (1 - lung)).sum(dtype=np.float64))) / denser
        image[lungs] = density * (1 + lung * (blood * share - 1)) - 1000.0
        return blood

    def displacement(self, phase: Phase) -> NDArray[np.float32]:
        """As `Breathing.displacement`."""
        rise, chest = self._shares(phase)
        result = np.zeros((*self.hu.shape, 2), np.float32)
        for x in range(len(result)):
            y, z, _ = self.motion.sources(rise, chest, x)
            result[x] = np.stack([y, z], axis=-1)
        result -= np.stack(np.indices(result.shape[1:3], np.float32), axis=-1)
        vectors = result @ (self._axes()[:, 1:] * self.spacing[1:]).T.astype(np.float32) * np.float32([-1, -1, 1])
        return np.stack([self.order.undo(part) for part in np.moveaxis(vectors, -1, 0)], axis=-1)

    def moved(self, points: Sequence[Sequence[float]] | NDArray, phase: Phase) -> NDArray[np.float64]:
        """As `Breathing.moved`."""
        places = np.asarray(points, float).reshape(-1, 3)
        axes, last = self._axes(), np.array(self.hu.shape) - 1
        start = self.volume.origin + sum(
            (self.volume.affine[:3, self.order.order[a]] * last[a] for a in self.order.flips), np.zeros(3)
        )
        index = (places - start) @ axes / self.spacing
        return start + (self.motion.moved(index, *self._shares(phase)) * self.spacing) @ axes.T

    def _axes(self) -> NDArray[np.float64]:
        """Columns: RAS directions of the axes R, A, S."""
        signs = np.where(np.isin(np.arange(3), self.order.flips), -1.0, 1.0)
        return self.volume.direction[:, list(self.order.order)] * signs

    def _shares(self, phase: Phase) -> tuple[float, float]:
        return phase.rise / self.amplitude, phase.chest / self.chest_mm if self.chest_mm else 0.0

    @property
    def notes(self) -> list[str]:
        """As of `Breathing`."""
        cut = cut_area(self.lungs, self.spacing, -1) > CUT_MM2
        sentence = "The highest slice of the CT cuts the lungs, which do not move there, so that they move too little."
        return [*self.volume.notes, *([sentence] if cut else [])]

    def facts(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What makes the same series again, and what was found."""
        kept = {name: options[name] for name in ("phases", "start", "dwell", "lag", "tidal_volume")}
        return {**kept, "amplitude_mm": self.amplitude, "chest_mm": self.chest_mm}


def _nearest(plane: NDArray, y: NDArray, z: NDArray) -> NDArray:
    rows, columns = ((axis + 0.5).astype(np.intp).clip(0, n - 1) for axis, n in zip((y, z), plane.shape, strict=True))
    return plane[rows, columns]


def _named(labels: LabelMap, words: tuple[str, ...], but: tuple[str, ...] = ()) -> NDArray[np.bool_]:
    """Where the label's name holds one of the words, and none of the others."""
    names = {value: name.lower() for value, name in labels.names.items()}
    values = [v for v, name in names.items() if any(w in name for w in words) and not any(w in name for w in but)]
    return np.isin(labels.array, values)
