"""Packages that MedGen needs beyond Slicer: what is there, what is missing, how large it is."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

PROTECTED = ("SimpleITK", "numpy", "pydicom", "requests", "torch", "torchvision")
MIB = 2**20

SIZES = {  # MiB to download and on disk, with what each brings along; rounded up from Linux wheels
    "torch": (220, 850),
    "torch-cuda": (2900, 6600),
    "jsonschema": (1, 3),
    "platformdirs": (1, 1),
    "psutil": (1, 1),
    "safetensors": (1, 2),
    "scikit-image": (25, 75),
    "matplotlib": (25, 80),
    "dicom-anonymizer": (1, 2),
    "einops": (1, 1),
    "huggingface_hub": (10, 30),
    "monai": (3, 17),
    "pyyaml": (1, 3),
    "websockets": (1, 2),
}
DEFAULT_SIZE = (5, 15)


@dataclass(frozen=True)
class Requirement:
    """A package that is needed: name, version specifier (">=4.20", may be empty), installed version or None."""

    name: str
    specifier: str = ""
    installed: str | None = None
    downloadMiB: float = 0.0
    diskMiB: float = 0.0

    @classmethod
    def of(cls, name: str, specifier: str, installed: str | None) -> Requirement:
        """With the sizes of its download and of what it takes on the disk, as far as they are known."""
        isCuda = name == "torch" and shutil.which("nvidia-smi") is not None
        return cls(name, specifier, installed, *SIZES.get("torch-cuda" if isCuda else name, DEFAULT_SIZE))

    @property
    def isMissing(self) -> bool:
        """Whether it is not installed, or too old."""
        return self.installed is None or not self._fits()

    def _fits(self) -> bool:
        if not self.specifier:
            return True
        try:
            from packaging.specifiers import SpecifierSet
        except ImportError:  # Slicer 5.10; pip has it inside
            from pip._vendor.packaging.specifiers import SpecifierSet
        return SpecifierSet(self.specifier).contains(self.installed, prereleases=True)

    def __str__(self) -> str:
        return f"{self.name}{self.specifier}"


@dataclass(frozen=True)
class InstallPlan:
    """What an installation would do; `sentence` describes it."""

    packages: list[Requirement]
    downloadMiB: float
    diskMiB: float
    freeMiB: float
    sentence: str

    @property
    def fits(self) -> bool:
        return self.diskMiB < self.freeMiB


@dataclass(frozen=True)
class Outcome:
    """How an installation ended.

    success: everything is installed and the self-test passed; sentence: for the user, with what to do; detail: the
    log; needsExtension: the PyTorch extension has to be installed first (`installExtension` offers it);
    needsRestart: Slicer has to be restarted.
    """

    success: bool
    sentence: str
    detail: str = ""
    needsExtension: bool = False
    needsRestart: bool = False


def freeMiB(folder: str) -> float:
    """Free space on the disk of a folder, which need not exist."""
    path = Path(folder).absolute()
    existing = next((place for place in (path, *path.parents) if place.exists()), Path(path.anchor))
    return shutil.disk_usage(existing).free / MIB


def plainName(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def sizeText(mib: float) -> str:
    return f"{mib / 1024:.1f} GB" if mib >= 1024 else f"{max(1, round(mib))} MB"
