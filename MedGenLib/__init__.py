"""MedGen: synthetic CT and MR volumes from label masks, and MR <-> CT translation.

>>> import MedGenLib
>>> result = MedGenLib.generate("mask.nii.gz", model="ct-tissue", seed=1)   # doctest: +SKIP
>>> result.volume.shape, result.report.passed                               # doctest: +SKIP

Importing this module is quick and imports neither torch nor numpy: each public name is loaded on first use.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__version__ = "0.1.0"

_HOMES = {
    "Canvas": "editing.session",
    "generate": "generate",
    "breathe": "motion",
    "classify": "classification",
    "detect": "detection",
    "enhance": "enhancement",
    "insert_lesion": "editing.lesions",
    "translate": "translate",
    "Volume": "imaging.volume",
    "LabelMap": "imaging.volume",
    "Result": "result",
}
"""Public name -> the submodule that defines it."""

__all__ = [
    "Canvas",
    "LabelMap",
    "Result",
    "Volume",
    "__version__",
    "breathe",
    "classify",
    "detect",
    "enhance",
    "errors",
    "generate",
    "insert_lesion",
    "translate",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


class _Package(ModuleType):
    """Keeps `MedGenLib.generate` the function: importing a submodule of the same name binds it to its parent."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOMES and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
