"""Model packages: manifest, catalogue, download, checksum, license. Nothing in a package is evaluated.

The public names:

>>> from MedGenLib.packages import find
>>> find("ct-tissue").output.unit                                   # doctest: +SKIP
'HU'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedGenLib.packages.catalogue import broken, find, for_generation, for_translation
    from MedGenLib.packages.export import seal, write_package
    from MedGenLib.packages.license import is_accepted, license_notice, require_acceptance
    from MedGenLib.packages.manifest import ALLOWED_NETWORKS, Manifest, load_manifest
    from MedGenLib.packages.store import add, remove, verify, verify_all
    from MedGenLib.packages.weights import load_weights

# Slicer's panel lists the models as it opens: it must not load the code that downloads or writes packages.
_HOMES = {
    "catalogue": ("broken", "find", "for_generation", "for_translation"),
    "export": ("seal", "write_package"),
    "license": ("is_accepted", "license_notice", "require_acceptance"),
    "manifest": ("ALLOWED_NETWORKS", "Manifest", "load_manifest"),
    "store": ("add", "remove", "verify", "verify_all"),
    "weights": ("load_weights",),
}

__all__ = [
    "ALLOWED_NETWORKS",
    "Manifest",
    "add",
    "broken",
    "find",
    "for_generation",
    "for_translation",
    "is_accepted",
    "license_notice",
    "load_manifest",
    "load_weights",
    "remove",
    "require_acceptance",
    "seal",
    "verify",
    "verify_all",
    "write_package",
]


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
