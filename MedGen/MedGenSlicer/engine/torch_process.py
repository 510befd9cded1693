"""Runs installTorch of Slicer's PyTorch extension in a process of its own.

    PythonSlicer torch_process.py <PyTorchUtils.py> <version specifier>

The extension waits for pip and imports PyTorch; here neither holds up Slicer's window, and the process can be ended.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from typing import Any

CANNOT_RUN = 64
"""Exit code where the extension cannot be loaded outside of Slicer; nothing was installed."""


class NoQt(types.ModuleType):
    """Stands for `qt` or `ctk`, which exist only inside of Slicer: the extension uses them for its panel alone."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def main(path: str, specifier: str) -> int:
    """Install PyTorch; the exit code."""
    sys.modules.update({name: NoQt(name) for name in ("qt", "ctk")})
    try:
        spec = importlib.util.spec_from_file_location("PyTorchUtils", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        logic = module.PyTorchUtilsLogic()
    except BaseException:
        traceback.print_exc()
        return CANNOT_RUN
    callSupported(logic.installTorch, askConfirmation=False, torchVersionRequirement=specifier)
    return 0


def callSupported(function: Callable, *arguments: Any, **keywords: Any) -> Any:
    """Call with those of the keywords that the function knows: other extensions change theirs between releases."""
    try:
        known = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C++
        return function(*arguments)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
        return function(*arguments, **keywords)
    return function(*arguments, **{name: value for name, value in keywords.items() if name in known})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
