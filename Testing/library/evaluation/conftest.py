"""Images of the evaluation tests."""

from __future__ import annotations

import pytest
from trunks import ct, trunk_of_tissues

from MedGenLib.imaging.volume import LabelMap, Volume


@pytest.fixture(scope="session")
def tissue() -> LabelMap:
    """A trunk of fat around muscle around a bone, 3 mm voxels."""
    return trunk_of_tissues()


@pytest.fixture(scope="session")
def real(tissue) -> Volume:
    return ct(tissue, seed=0)


@pytest.fixture(scope="session")
def synthetic(tissue) -> Volume:
    return ct(tissue, seed=1)
