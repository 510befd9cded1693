"""The field of view of a model of one structure, placed around the labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from MedGenLib.errors import InputError
from MedGenLib.imaging.boxes import Box, contains, moved
from MedGenLib.imaging.volume import by_axis

if TYPE_CHECKING:
    from MedGenLib.packages.manifest import Manifest


@dataclass(frozen=True)
class PlacedFieldOfView:
    """The field of view at one place of the working grid.

    Attributes
    ----------
    box: working voxels that the model sees.
    window: the same voxels with padding to whole strides.
    """

    box: Box
    window: Box

    def about(self, box: Box, unit: int, shape: tuple[int, ...], manifest: Manifest) -> PlacedFieldOfView:
        """The field of view moved around a box of the working grid, by multiples of ``unit``.

        Raises
        ------
        InputError: the box is larger than the field of view.
        """
        steps = []
        for part, seen, window, n in zip(box, self.box, self.window, shape, strict=True):
            middle = (part.start + part.stop - seen.start - seen.stop) / 2
            low, high = -(window.start // unit), (n - window.stop) // unit
            steps.append(max(low, min(round(middle / unit), high)) * unit)
        found = PlacedFieldOfView(moved(self.box, tuple(steps)), moved(self.window, tuple(steps)))
        if not contains(found.box, box):
            raise InputError(
                f"The labels reach over more than the {by_axis(manifest.field_of_view.max)} mm that the model "
                f"'{manifest.name}' sees at once; paint nearer to the others, or erase those first."
            )
        return found
