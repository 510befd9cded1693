"""JSON schema of packages, with sections generated from the settings classes.

`python Testing/support/package_schema.py` updates `MedGenLib/packages/schema.json` after a change of a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from MedGenLib.packages.manifest import SCHEMA
from MedGenLib.packages.sections import Statistics
from MedGenLib.packages.settings import SETTINGS
from MedGenLib.packages.typed import keys_of

TYPES = {bool: "boolean", int: "integer", float: "number"}
BOUNDS = {"low": "minimum", "above": "exclusiveMinimum", "high": "maximum"}
GENERATED = ("preprocessing of ", "sampler of ", "statistics")
WIDTH = 120


def json_schema(kind: type) -> dict[str, Any]:
    """Schema of the JSON object of a settings class."""
    hints, keys = get_type_hints(kind), keys_of(kind)
    optional = [key for key, item in keys.items() if item.default is not MISSING or item.default_factory is not MISSING]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [key for key in keys if key not in optional],
        "properties": {key: _of(hints[item.name], item.metadata) for key, item in keys.items()},
    }


def _of(hint: Any, limits: Mapping[str, Any]) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return _of(args[0], limits)
    if is_dataclass(hint):
        return json_schema(hint)
    if origin is Literal:
        return {"enum": list(args)}
    if origin is Mapping:
        names = {"pattern": "^[0-9]+$"} if args[0] is int else _of(args[0], {})
        return {"type": "object", "propertyNames": names, "additionalProperties": _of(args[1], limits)}
    if origin is tuple:
        count = {"minItems": 1} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": _of(args[0], limits), **count}
    if hint is str:
        return {"$ref": "#/$defs/text"}
    return {"type": TYPES[hint]} | {BOUNDS[name]: limits[name] for name in BOUNDS if limits.get(name) is not None}


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """Schema with the definitions of the settings classes of all pipelines of MedGenLib."""
    schema = json.loads(json.dumps(schema))
    kinds = {name: SETTINGS[name] for name in SETTINGS}
    kinds = {name: kind for name, kind in kinds.items() if kind.__module__.startswith("MedGenLib.")}
    definitions = {name: part for name, part in schema["$defs"].items() if not name.startswith(GENERATED)}
    definitions["statistics"] = json_schema(Statistics)
    conditions = []
    for name, kind in kinds.items():
        own = {"preprocessing": json_schema(kind), "sampler": json_schema(kind.sampler)}
        definitions |= {f"{section} of {name}": part for section, part in own.items()}
        refs = {section: {"$ref": f"#/$defs/{section} of {name}"} for section in own}
        refs["networks"] = {"required": list(kind.roles)}
        conditions.append(
            {
                "if": {"required": ["pipeline"], "properties": {"pipeline": {"const": name}}},
                "then": {"properties": refs},
            }
        )
    schema["$defs"] = definitions
    medgen = definitions["medgen"]
    medgen["properties"]["statistics"] = {"$ref": "#/$defs/statistics"}
    medgen["allOf"] = [part for part in medgen["allOf"] if "pipeline" not in part["if"]["properties"]] + conditions
    return schema


def text(value: Any, indent: int = 0, start: int = 0) -> str:
    """JSON with short values on one line; `start` is the column of the value."""
    flat = json.dumps(value)
    if start + len(flat) < WIDTH or not isinstance(value, dict | list):
        return flat
    pad, (opened, closed) = " " * (indent + 2), ("{}" if isinstance(value, dict) else "[]")
    if isinstance(value, dict):
        heads = [f"{json.dumps(key)}: " for key in value]
        lines = [
            head + text(v, indent + 2, indent + 2 + len(head)) for head, v in zip(heads, value.values(), strict=True)
        ]
    else:
        lines = [text(v, indent + 2, indent + 2) for v in value]
    return f"{opened}\n" + ",\n".join(pad + line for line in lines) + f"\n{' ' * indent}{closed}"


if __name__ == "__main__":
    SCHEMA.write_text(text(completed(json.loads(SCHEMA.read_text(encoding="utf-8")))) + "\n", encoding="utf-8")
