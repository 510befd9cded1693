"""The methods of the worker: each takes the request and its parameters by name, and returns the answer.

Each file holds a group of them; `method` registers a function under the name that requests use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from MedGenLib.registry import Registry

METHODS: Registry[Callable[..., dict[str, Any]]] = Registry("method", "method", __name__)
method = METHODS.register
