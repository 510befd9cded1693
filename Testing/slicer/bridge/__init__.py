"""Runs a Slicer scripted module without Slicer: real MRML and VTK (slicer-core), real Qt (PySide6).

    import bridge
    bridge.boot()
    module = bridge.loadModule("MedGen/MedGen.py")
    widget = module.widgetRepresentation().self()

``slicer.util`` is Slicer's own file, from the wheel. What the wheel lacks is played by this
package, as strictly as PythonQt would: a property that does not exist is refused, an exception in
a slot is kept in ``bridge.errors``, a dialog without an answer in ``bridge.answers`` is an error.
It covers what MedGen uses and no more. One boot per process.
"""

import atexit
import contextlib
import ctypes
import os
import sys
import tempfile
import types

from .record import BridgeError, answers, dialogs, errors

__all__ = [
    "BridgeError",
    "answers",
    "boot",
    "dialogs",
    "errors",
    "idle",
    "loadModule",
    "unloadModule",
    "withoutTestingMode",
]


def boot():
    """Make ``qt``, ``ctk`` and ``slicer`` importable and create slicer.app; returns it."""
    if "slicer" in sys.modules and hasattr(sys.modules["slicer"], "app"):
        return sys.modules["slicer"].app
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    _keepConstants()
    from . import pythonqt, record

    record.watchUnraisable()
    qt = sys.modules["qt"] = pythonqt.qtModule()
    settings = tempfile.mkdtemp(prefix="slicer-bridge-settings-")
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, settings)
    from . import ctkwidgets, forms

    sys.modules["ctk"] = ctkwidgets.ctkModule()
    qt.QUiLoader = forms.UiLoader
    _bootSlicer()
    return sys.modules["slicer"].app


def _keepConstants() -> None:
    """Before Python 3.12 made them immortal, PySide6 6.12 takes one reference of None with every call that
    returns nothing, and of True with every signal that a class made in Python emits; some ten thousand calls
    later the interpreter aborts. Give them more than it can take."""
    if sys.version_info < (3, 12):
        for constant in (None, True):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def _bootSlicer() -> None:
    import slicer
    import slicer.util

    slicer.modules = types.ModuleType("slicer.modules")
    from . import application, mrmlwidgets

    for cls in (*mrmlwidgets.STAND_INS, application.qSlicerScriptedLoadableModule):
        setattr(slicer, cls.__name__, cls)
    app = slicer.app = application.Application()
    app._build()
    from . import source

    if source.isChosen():
        source.load()
    else:
        from . import parameters, scripted

        _module("slicer.i18n", scripted.tr, scripted.translate)
        _module("slicer.ScriptedLoadableModule", *scripted.MODULE_NAMES)
        _module("slicer.parameterNodeWrapper", *parameters.PUBLIC)
    slicer.util.VTKObservationMixin  # noqa: B018 - fails here, not in a test, where the wheel changed
    atexit.register(application.shutDown)
    app.startupCompleted.emit()


def _module(name: str, *members) -> None:
    module = types.ModuleType(name)
    vars(module).update({member.__name__: member for member in members}, __all__=[m.__name__ for m in members])
    sys.modules[name] = module
    setattr(sys.modules["slicer"], name.split(".")[1], module)


def loadModule(path):
    from .application import loadModule as load

    return load(path)


def unloadModule(name):
    from .application import unloadModule as unload

    return unload(name)


@contextlib.contextmanager
def withoutTestingMode():
    """Slicer as a user has it: dialogs are shown, and each needs an answer in ``answers``."""
    app = sys.modules["slicer"].app
    app._testing = False
    try:
        yield
    finally:
        app._testing = True


def idle(seconds):
    from .eventloop import idle as let

    let(seconds)
