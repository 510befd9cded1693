"""Signals and slots the way PythonQt offers them: by signature, by attribute, trimmed arguments."""

import inspect

import shiboken6
from PySide6 import QtCore

from . import record

rawGet = QtCore.QObject.__getattribute__
_connect, _disconnect = QtCore.QObject.connect, QtCore.QObject.disconnect

#: C++ address of the sender -> [(signature, function, adapter)]. Not kept in the Python wrapper,
#: which may go and be replaced while the C++ object lives on.
_connections: dict[int, list] = {}


class Signal:
    """``sender.name`` for a signal: connect(), disconnect(), emit() and a call."""

    def __init__(self, sender, name: str):
        self._sender, self._name = sender, name

    def connect(self, *receiver):
        return connect(self._sender, self._name, *receiver)

    def disconnect(self, *receiver):
        return disconnect(self._sender, self._name, *receiver)

    def emit(self, *arguments):
        rawGet(self._sender, self._name).emit(*arguments)

    __call__ = emit


def _normal(text: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(text).data()).decode()


def _declared(sender) -> list[str]:
    meta = rawGet(sender, "metaObject")()
    methods = [meta.method(index) for index in range(meta.methodCount())]
    return [m.methodSignature().data().decode() for m in methods if m.methodType() == QtCore.QMetaMethod.Signal]


def signature(sender, text: str) -> str:
    """The declared signature that ``text`` names; without arguments the first overload.

    A stand-in says by ``signatures`` which C++ signature (with a VTK type) stands for which of
    its own.
    """
    wanted = _normal(text)
    declared = _declared(sender)
    if "(" not in wanted:
        found = next((s for s in declared if s.split("(")[0] == wanted), None)
    else:
        wanted = _normal(getattr(type(sender), "signatures", {}).get(wanted, wanted))
        found = wanted if wanted in declared else None
    if found is None:
        raise record.BridgeError(f"{type(sender).__name__} has no signal {text!r}; it has {sorted(set(declared))}")
    return found


def _capacity(function) -> int | None:
    """How many positional arguments PythonQt hands over; None: all."""
    bound = inspect.ismethod(function)
    plain = function.__func__ if bound else function
    if not inspect.isfunction(plain) or plain.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return plain.__code__.co_argcount - bound


def adapted(function):
    """A slot that drops surplus arguments and never lets an exception out."""
    if not callable(function):
        raise record.BridgeError(f"connect() to something that cannot be called: {function!r}")
    count = _capacity(function)

    def slot(*arguments):
        return record.guarded(function, *arguments[:count])

    return slot


def _target(receiver, slot=None):
    return receiver if slot is None else getattr(receiver, slot.split("(")[0])


def connect(sender, text, *receiver) -> bool:
    found, function = signature(sender, text), _target(*receiver)
    slot = adapted(function)
    _connect(sender, QtCore.SIGNAL(found), slot)
    address = shiboken6.getCppPointer(sender)[0]
    if address not in _connections:
        _connections[address] = []
        _connect(sender, QtCore.SIGNAL("destroyed()"), lambda: _connections.pop(address, None))
    _connections[address].append((found, function, slot))
    return True


def disconnect(sender, text=None, *receiver) -> bool:
    """Undo connect(); without a receiver all connections made from Python to this signal."""
    found = None if text is None else signature(sender, text)
    function = _target(*receiver) if receiver else None
    entries = _connections.get(shiboken6.getCppPointer(sender)[0], [])
    gone = [e for e in entries if found in (None, e[0]) and (function is None or e[1] == function)]
    for entry in gone:
        _disconnect(sender, QtCore.SIGNAL(entry[0]), entry[2])
        entries.remove(entry)
    return bool(gone)
