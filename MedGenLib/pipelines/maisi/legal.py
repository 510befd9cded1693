"""The working grid of a published package for an input's grid, by padding and cropping. No voxels.

The published scripts resample a mask whose size is not one of the few training sizes, which moves borders; here the
voxels are kept, and only a spacing outside the trained range is resampled, with a finding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from MedGenLib.errors import InputError
from MedGenLib.findings import Finding
from MedGenLib.imaging.orientation import Reorientation

if TYPE_CHECKING:
    from MedGenLib.imaging.volume import Geometry
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.packages.settings import MaisiSettings

Three = tuple[int, int, int]
Extents = tuple[tuple[int, int], ...]
"""First and last-plus-one index of each axis."""

MARGIN = 4
"""Voxels kept around the labels when a grid is cropped to them."""
SAME = 0.01
"""Relative difference of spacing that is ignored."""


@dataclass(frozen=True)
class LegalGrid:
    """The part of an input's grid that a package works on, and its voxels.

    Attributes
    ----------
    start, stop: the part, as indices of the input's stored axes.
    region: its grid.
    work: the region with the networks' voxels, in the stored orientation; equal to `region` unless it is resampled.
    reorientation: stored orientation -> RAS.
    inner: shape of `work` in RAS.
    shape: (x, y, z) of the legal grid in RAS, at least as large as `inner`.
    before: padding before each RAS axis.
    spacing: mm along the RAS axes, as input of the networks.
    findings: findings for the user.
    """

    start: Three
    stop: Three
    region: Geometry
    work: Geometry
    reorientation: Reorientation
    inner: Three
    shape: Three
    before: Three
    spacing: tuple[float, float, float]
    findings: tuple[Finding, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the networks work on the input's own voxels."""
        return self.work is self.region

    @property
    def inside(self) -> tuple[slice, slice, slice]:
        """`work` within the legal grid; for a single slice, the middle plane."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.inner, strict=True))


@dataclass
class _Search:
    """One input, in RAS axes."""

    manifest: Manifest
    shape: Three
    spacing: tuple[float, ...]
    used: Extents
    any_grid: bool
    target: list[float] = field(default_factory=list)

    @property
    def spec(self) -> MaisiSettings:
        return self.manifest.settings

    @property
    def resampled(self) -> bool:
        return any(
            n > 1 and not math.isclose(t, s) for n, s, t in zip(self.shape, self.spacing, self.target, strict=True)
        )

    def voxels(self, part: Extents) -> Three:
        """Size of a part at the target spacing."""
        return tuple(
            1 if n == 1 else math.ceil((stop - start) * s / t - 1e-6)
            for (start, stop), n, s, t in zip(part, self.shape, self.spacing, self.target, strict=True)
        )


def find_grid(geometry: Geometry, manifest: Manifest, used: Extents | None = None, any_grid: bool = False) -> LegalGrid:
    """The smallest legal grid that contains the labels and enough of the body.

    Parameters
    ----------
    geometry: grid of the mask, in any orientation; oblique axes are kept.
    used: box of the labels on the stored axes; None for the whole grid.
    any_grid: allow any size in whole strides, cropped closely to the labels, instead of a training size: faster for a
        small mask, possible for a large one, less reliable.

    Raises
    ------
    InputError: a line or a point, or no legal grid is large enough (says which spacing is possible).
    """
    reorientation = Reorientation.to(geometry, "RAS")
    whole = tuple((0, n) for n in geometry.shape)
    search = _Search(
        manifest,
        reorientation.axes(geometry.shape),
        reorientation.axes(geometry.spacing),
        _to_ras(used or whole, geometry.shape, reorientation),
        any_grid,
    )
    if sum(n > 1 for n in search.shape) < 2:
        what = "image" if _of_nothing(manifest) else "mask"
        raise InputError(f"The {what} is a line or a single voxel; give a slice or a volume.")
    search.target = _target_spacing(search)
    part, shape = _part_and_shape(search)
    stored = _to_stored(part, geometry.shape, reorientation)
    start, stop = (tuple(int(edge[i]) for edge in stored) for i in (0, 1))
    region = geometry.moved(start, np.subtract(stop, start))
    back = np.argsort(reorientation.order)
    work = region.with_spacing([search.target[a] for a in back]) if search.resampled else region
    inner = reorientation.axes(work.shape)
    before = tuple((n - i) // 2 for n, i in zip(shape, inner, strict=True))
    return LegalGrid(
        start,
        stop,
        region,
        work,
        reorientation,
        inner,
        shape,
        before,
        tuple(search.target),
        tuple(_findings(search, shape)),
    )


def _to_ras(box: Extents, shape: Three, reorientation: Reorientation) -> Extents:
    parts = []
    for axis, stored in enumerate(reorientation.order):
        start, stop = box[stored]
        n = shape[stored]
        parts.append((n - stop, n - start) if axis in reorientation.flips else (start, stop))
    return tuple(parts)


def _to_stored(box: Extents, shape: Three, reorientation: Reorientation) -> Extents:
    parts: list[tuple[int, int]] = [(0, 0)] * 3
    for axis, stored in enumerate(reorientation.order):
        start, stop = box[axis]
        n = shape[stored]
        parts[stored] = (n - stop, n - start) if axis in reorientation.flips else (start, stop)
    return tuple(parts)


def _target_spacing(search: _Search) -> list[float]:
    """The input's spacing if it is in the trained range, otherwise the nearest in it."""
    low, high = search.spec.spacing_min_mm, search.spec.spacing_max_mm
    thick = [s for s, n in zip(search.spacing, search.shape, strict=True) if n > 1]
    # The thickness of a single slice does not apply to its slab.
    known = [s if n > 1 else float(np.mean(thick)) for s, n in zip(search.spacing, search.shape, strict=True)]
    target = [float(np.clip(s, a, b)) for s, a, b in zip(known, low, high, strict=True)]
    if search.spec.equal_in_plane:
        x, y = target[:2]
        lone = [n == 1 for n in search.shape[:2]]
        if any(lone):
            target[0] = target[1] = target[1] if lone[0] else target[0]
        elif abs(x / y - 1) > SAME:
            target[0] = target[1] = min(x, y)
    return [
        s if n > 1 and abs(s / t - 1) <= SAME else t
        for s, t, n in zip(search.spacing, target, search.shape, strict=True)
    ]


def _part_and_shape(search: _Search) -> tuple[Extents, Three]:
    """The part of the input (RAS) and the legal shape around it."""
    close = tuple(
        (max(0, start - MARGIN), min(n, stop + MARGIN))
        for (start, stop), n in zip(search.used, search.shape, strict=True)
    )
    if search.any_grid:
        stride = search.spec.stride
        return close, tuple(-(-n // stride) * stride for n in search.voxels(close))
    whole = tuple((0, n) for n in search.shape)
    for part in ((whole[0], whole[1], close[2]), close, search.used):
        if shape := _legal_shape(search, part):
            return part, shape
    if search.resampled and (coarser := _fitting_spacing(search)):
        search.target = coarser
        if shape := _legal_shape(search, search.used):
            return search.used, shape
    raise InputError(_no_grid(search))


def _legal_shape(search: _Search, part: Extents) -> Three | None:
    """The smallest legal grid that contains the part and enough of the body, or None."""
    needed = search.voxels(part)
    fitting = [tuple(grid) for grid in search.spec.grids if all(n <= g for n, g in zip(needed, grid, strict=True))]
    least = search.spec.least_view_mm

    def view(grid: Three) -> float:
        return min(n * t for n, t in zip(grid[:2], search.target[:2], strict=True))

    enough = [grid for grid in fitting if view(grid) >= least]
    if enough:
        return min(enough, key=math.prod)
    return min(fitting, key=lambda grid: (-view(grid), math.prod(grid)), default=None)


def _fitting_spacing(search: _Search) -> list[float] | None:
    """The finest spacing in the trained range at which a legal grid contains the labels, or None."""
    extents = _extents(search)
    high = search.spec.spacing_max_mm
    best: list[float] | None = None
    for grid in search.spec.grids:
        needed = [
            t if n == 1 else max(t, mm / g * (1 + 1e-6))
            for mm, g, t, n in zip(extents, grid, search.target, search.shape, strict=True)
        ]
        if search.spec.equal_in_plane:
            needed[0] = needed[1] = max(needed[:2])
        fits = all(t <= h for t, h in zip(needed, high, strict=True))
        if fits and (best is None or math.prod(needed) < math.prod(best)):
            best = needed
    return best


def _extents(search: _Search) -> list[float]:
    return [(stop - start) * s for (start, stop), s in zip(search.used, search.spacing, strict=True)]


def _no_grid(search: _Search) -> str:
    extents = _extents(search)
    largest = [max(grid[axis] for grid in search.spec.grids) for axis in range(3)]
    alone = _of_nothing(search.manifest)
    start = (
        f"The {'image reaches' if alone else 'labels reach'} over "
        f"{_by(search.voxels(search.used))} voxels of "
        f"{_by(search.target)} mm, and no grid of the model '{search.manifest.name}' is that "
        f"large (at most {_by(largest)} voxels)"
    )
    if spacing := _fitting_spacing(search):
        rounded = [math.ceil(s * 100) / 100 for s in spacing]
        return (
            f"{start}; {'request' if alone else 'resample the mask to'} voxels of {_by(rounded)} "
            "mm, or let it take any grid (--any-grid)."
        )
    return (
        f"{start}, whatever their spacing, as {_by([round(mm) for mm in extents])} mm exceed "
        f"its field of view; {'request less' if alone else 'crop the mask'}, or let it take any grid "
        "(--any-grid)."
    )


def _of_nothing(manifest: Manifest) -> bool:
    """Whether the package has no mask."""
    return manifest.input.kind == "none"


def _findings(search: _Search, shape: Sequence[int]) -> list[Finding]:
    name, spec = search.manifest.name, search.spec
    findings = []
    if search.resampled:
        low, high = spec.spacing_min_mm, spec.spacing_max_mm
        equal = ", the same along both sides of the plane" if spec.equal_in_plane else ""
        findings.append(
            Finding(
                "warning",
                "resampled",
                f"The model '{name}' was trained on voxels of {_by(low)} to {_by(high)} mm{equal}, so the "
                f"labels were resampled from {_by(search.spacing)} to {_by(search.target)} mm and the "
                "result back; borders move by up to half a voxel.",
            )
        )
    if search.any_grid and list(shape) not in [list(grid) for grid in spec.grids]:
        findings.append(
            Finding(
                "warning",
                "untrained-grid",
                f"The grid of {_by(shape)} voxels is not one that the model '{name}' was trained on; "
                "compare with a result without --any-grid before use.",
            )
        )
    return findings


def _by(figures: Sequence[float]) -> str:
    return " x ".join(f"{figure:.3g}" if figure < 100 else f"{figure:.0f}" for figure in figures)
