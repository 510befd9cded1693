"""Data readers: from files on disk to batches; each module registers its own class with `reader`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from MedGenLib.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class DataReader(Protocol):
    """Images with labels, read on construction from the configuration and the patch size in voxels.

    Attributes
    ----------
    maps: number of label channels.
    scalars: number of scalar conditions.
    held_out: description of the held-out data.
    """

    maps: int
    scalars: int
    held_out: list[str]

    def sample(self, generator: np.random.Generator, batch: int) -> dict[str, Tensor]:
        """``x`` (b, 1, i, j, k), ``maps`` (b, maps, i, j, k), ``scalars`` (b, scalars) if any, and the weight of each
        voxel in the loss, ``valid`` (b, 1, i, j, k)."""

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Statistics of each label in the images, for the section ``statistics.tissues`` of a package."""

    def preprocessing(self) -> dict[str, Any]:
        """Entries of the section ``preprocessing`` of a package that come from the data."""


READERS: Registry[type[DataReader]] = Registry("data reader", "reader", __name__)
reader = READERS.register


def read_data(config: dict[str, Any], patch: int | list[int]) -> DataReader:
    """The data of a configuration, read by the reader that it names as ``data.adaptor``."""
    return READERS[config["data"]["adaptor"]](config, patch)
