"""PySide6 with PythonQt's manners, so that code written for Slicer runs unchanged.

Properties are attributes, misspelt attributes are refused, lists come back as tuples, signals are
connected by signature, enumerations are integers. The two hooks on QObject do most of it.
"""

import os

# PythonQt's enumerations are integers; PySide6 reads this once, when it is imported.
os.environ.setdefault("PYSIDE6_OPTION_PYTHON_ENUM", "3")
# ruff: noqa: E402

import functools
import types

from PySide6 import QtCore, QtGui, QtWidgets

from . import record, signals

_rawGet = QtCore.QObject.__getattribute__
_SignalInstance = QtCore.SignalInstance

#: True while Qt's form loader runs, which stores all children as attributes of the form.
loadingForm = False


class StandIn:
    """Mixed into the bridge's replacements of C++ classes: they are as closed as those."""


def virtual(self, *names: str) -> None:
    """Let C++ find these overrides. PySide6 looks for them as attributes, and those of a property's name are its value
    here."""
    for name in names:
        override = next(base.__dict__[name] for base in type(self).__mro__ if name in base.__dict__)
        self.__dict__[name] = types.MethodType(override, self)


@functools.cache
def properties(cls) -> dict[str, QtCore.QMetaProperty]:
    """The Q_PROPERTYs of a class by name."""
    meta = cls.staticMetaObject
    found = (meta.property(index) for index in range(meta.propertyCount()))
    return {p.name(): p for p in found}


@functools.cache
def _getter(cls, name: str):
    """The C++ method that reads a property. Called through the class it is not virtual: a read
    from inside a C++ call of the same virtual method (sizeHint) would never end."""
    for base in cls.__mro__:
        found = base.__dict__.get(name)
        if type(found).__name__ == "method_descriptor":
            return found
        if isinstance(found, QtCore.Property):
            return found.fget
    return None


def _read(self, name: str):
    getter = _getter(type(self), name)
    if getter is None:
        value = _rawGet(self, "property")(name)
    else:
        try:
            value = getter(self)
        except TypeError:  # an overload that wants arguments
            value = _rawGet(self, "property")(name)
    return tuple(value) if isinstance(value, list) else value


def _converted(value, kind: str, name: str, owner: str):
    """PythonQt's conversions on writing a property."""
    if kind == "QString":
        if value is None:
            raise AttributeError(f"Property {name!r} of {owner} is a string and does not take None")
        return str(value)
    if kind in ("int", "uint", "qlonglong", "qulonglong"):
        return int(value)
    if kind in ("double", "float"):
        return float(value)
    if kind == "bool":
        return bool(value)
    if kind == "QStringList":
        if isinstance(value, str) or value is None:
            raise AttributeError(f"Property {name!r} of {owner} is a list of strings, not {value!r}")
        return [str(item) for item in value]
    return value


def _write(self, name: str, value) -> None:
    owner, found = type(self).__name__, properties(type(self))[name]
    if not found.isWritable():
        raise AttributeError(f"Property {name!r} of {owner} cannot be written")
    declared = next((b.__dict__[name] for b in type(self).__mro__ if name in b.__dict__), None)
    value = _converted(value, getattr(declared, "kind", found.typeName()), name, owner)
    if isinstance(declared, Property):
        declared.fset(self, value)  # directly: an exception must reach the caller
    elif not _rawGet(self, "setProperty")(name, value):
        raise AttributeError(f"Property {name!r} of {owner} does not take {value!r}")


class Property(QtCore.Property):
    """A Q_PROPERTY of a stand-in, with the C++ name of its type."""

    _TYPES = {"QString": str, "int": int, "double": float, "bool": bool}

    def __init__(self, kind: str, fget, fset=None):
        super().__init__(self._TYPES.get(kind, kind), fget, fset)
        self.kind = kind


def stored(kind: str, name: str, default):
    """A plain property: what was written is read. ``_changed(name)`` is called afterwards."""

    def write(self, value):
        self.__dict__["=" + name] = value
        changed = getattr(type(self), "_changed", None)
        if changed:
            changed(self, name)

    return Property(kind, lambda self: self.__dict__.get("=" + name, default), write)


#: PySide6's own lookups. Beside QObject a few classes have one, where a method is static and not.
_lookups: dict[type, object] = {}


@functools.cache
def _lookup(cls):
    return next(_lookups[base] for base in cls.__mro__ if base in _lookups)


def _get(self, name: str):
    if name == "name":
        name = "objectName"
    cls = type(self)
    if name in properties(cls):
        return _read(self, name)
    if name in ("connect", "disconnect"):
        return functools.partial(_connected, self, name)
    value = _lookup(cls)(self, name)
    if type(value) is types.BuiltinMethodType and not loadingForm:
        return _Slot(value)
    return signals.Signal(self, name) if type(value) is _SignalInstance else value


class _Slot:
    """A method of a C++ object, which takes no keywords."""

    __slots__ = ("_method",)

    def __init__(self, method):
        self._method = method

    def __call__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{self._method.__name__}() takes no keyword arguments: {', '.join(keywords)}")
        return self._method(*arguments)

    def __eq__(self, other):
        return self._method == getattr(other, "_method", other)

    def __hash__(self):
        return hash(self._method)

    def __getattr__(self, name):
        return getattr(self._method, name)


def _connected(self, name: str, *arguments):
    if arguments and isinstance(arguments[0], QtCore.QObject):  # Qt's static form, used by PySide6 itself
        return getattr(signals, "_" + name)(*arguments)
    return getattr(signals, name)(self, *arguments)


def _missing(self, name: str):
    """Dynamic properties and direct children are attributes too."""
    if not name.startswith("__"):
        value = _rawGet(self, "property")(name)
        if value is not None:
            return value
        for child in _rawGet(self, "children")():
            if child.objectName == name:
                return child
    raise AttributeError(f"{type(self).__name__} has no attribute named {name!r}")


def _closed(cls) -> bool:
    """Whether objects of the class refuse new attributes: C++ classes do, Python's do not."""
    return cls.__module__.startswith("PySide6") or StandIn in cls.__bases__


def _set(self, name: str, value) -> None:
    cls = type(self)
    if name == "name":
        name = "objectName"
    if name in properties(cls):
        return _write(self, name, value)
    if type(value) is _SignalInstance or isinstance(self, StandIn) and name.startswith("_"):
        self.__dict__[name] = value
        return None
    if loadingForm:
        return None
    if _closed(cls):
        if _rawGet(self, "property")(name) is not None:
            _rawGet(self, "setProperty")(name, value)
            return None
        known = any(name in base.__dict__ for base in cls.__mro__)
        raise AttributeError(
            f"{cls.__name__}.{name} "
            + (
                "is a method or signal and cannot be overwritten"
                if known
                else "does not exist, and a C++ object takes no new attributes"
            )
        )
    descriptor = next((b.__dict__[name] for b in cls.__mro__ if name in b.__dict__), None)
    if isinstance(descriptor, property):
        descriptor.__set__(self, value)
    else:
        self.__dict__[name] = value
    return None


def _asTuple(method):
    @functools.wraps(method)
    def call(self, *arguments, **keywords):
        return tuple(method(self, *arguments, **keywords))

    return call


def _singleShot(milliseconds, receiver, slot=None):
    function = receiver if slot is None else getattr(receiver, slot.split("(")[0])
    _rawSingleShot(int(milliseconds), signals.adapted(function))


_rawSingleShot = QtCore.QTimer.singleShot


def _exec(self, *_position):
    text = self.text if isinstance(self, QtWidgets.QMessageBox) else self.windowTitle
    return record.answerDialog(self, text)


def _static(owner: str, method: str):
    def ask(*arguments):
        texts = [a for a in arguments if isinstance(a, str)]
        return record.answerDialog(f"{owner}.{method}", " | ".join(texts))

    return staticmethod(ask)


def _patchDialogs() -> None:
    QtWidgets.QDialog.exec = QtWidgets.QDialog.exec_ = _exec
    QtWidgets.QMenu.exec = QtWidgets.QMenu.exec_ = _exec
    QtWidgets.QMessageBox.exec = QtWidgets.QMessageBox.exec_ = _exec
    statics = {
        QtWidgets.QFileDialog: ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"),
        QtWidgets.QInputDialog: ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"),
        QtWidgets.QMessageBox: ("information", "warning", "critical", "question", "about"),
    }
    for cls, names in statics.items():
        for name in names:
            setattr(cls, name, _static(cls.__name__, name))
    QtGui.QDesktopServices.openUrl = _static("QDesktopServices", "openUrl")


#: Of Qt 5 only, or named otherwise in Qt 6: a module that uses them breaks on one of the two.
ABSENT = ("QTextCodec", "QRegExp", "QRegExpValidator", "QDesktopWidget", "QStringRef", "Signal", "Slot", "Property")


def qtModule() -> types.ModuleType:
    """Patch PySide6, once for the process, and return the module ``qt``."""
    base = QtCore.QObject
    children, findChildren = base.children, base.findChildren
    for cls in _objectClasses():
        cls.__setattr__ = _set
        if "__getattribute__" in cls.__dict__:
            _lookups[cls] = cls.__getattribute__
            cls.__getattribute__ = _get
    base.__getattr__ = _missing
    base.children, base.findChildren = _asTuple(children), _asTuple(findChildren)
    base.className = lambda self: _rawGet(self, "metaObject")().className()
    base.delete = lambda self: self.deleteLater()
    QtCore.QTimer.singleShot = staticmethod(_singleShot)
    _patchDialogs()
    module = types.ModuleType("qt", "PythonQt's qt module, played by PySide6.")
    for source in _sources():
        vars(module).update({k: v for k, v in _public(source) if k not in ABSENT})
    return module


def _sources():
    from PySide6 import QtNetwork

    return QtCore, QtGui, QtWidgets, QtNetwork


def _public(source):
    """The names of a PySide6 module. Its classes are made on first access: vars() is not enough."""
    return [(name, getattr(source, name)) for name in dir(source) if not name.startswith("_")]


def _objectClasses():
    found = {v for source in _sources() for _, v in _public(source) if isinstance(v, type)}
    return [cls for cls in found if issubclass(cls, QtCore.QObject)]
