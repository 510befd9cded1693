"""Point lists of 3D Slicer, as its module Markups reads them (.mrk.json, schema 1.0.3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedGenLib.io.atomic import write_json

SUFFIX = ".mrk.json"
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def write_points(points: Sequence[tuple[str, Sequence[float]]], path: Path) -> None:
    """Write points: label, and position in LPS mm."""
    controls = [
        {"id": str(n), "label": label, "position": list(at), "positionStatus": "defined"}
        for n, (label, at) in enumerate(points, 1)
    ]
    space = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm"}
    write_json(path, {"@schema": SCHEMA, "markups": [{**space, "locked": True, "controlPoints": controls}]})
