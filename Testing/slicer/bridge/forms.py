"""QUiLoader that knows the stand-ins and refuses what Qt's own loader silently bends."""

import os
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from . import pythonqt, signals
from .record import BridgeError

#: C++ class name -> stand-in
classes: dict[str, type] = {}

#: What forms set although it is no property of the class: the loader itself knows it.
FORM_ONLY = {("QLabel", "buddy")}

#: The Python objects of loaded widgets: a new one would have lost its state.
_alive: list = []


def designable(cls):
    """Class decorator: forms may name this stand-in."""
    classes[cls.__name__] = cls
    return cls


def _classNamed(name: str):
    return classes.get(name) or getattr(QtWidgets, name, None)


def _checkWidget(path: str, element, known: set) -> None:
    name = element.get("class")
    if name not in known:
        raise BridgeError(f"{path}: widget {element.get('name')!r} has the unknown class {name}")
    cls = _classNamed(name)
    for prop in element.findall("property") if cls else ():
        if (name, prop.get("name")) in FORM_ONLY:
            continue
        if prop.get("stdset") != "0" and prop.get("name") not in pythonqt.properties(cls):
            raise BridgeError(f"{path}: {name} {element.get('name')!r} has no property {prop.get('name')!r}")


def _takeEnumerations(root) -> list:
    """Enumerations of stand-ins, which Qt's loader cannot look up: (widget, property, value)."""
    found = []
    for element in root.iter("widget"):
        cls = classes.get(element.get("class"))
        for prop in list(element.findall("property")) if cls else ():
            value = prop[0] if prop[0].tag in ("enum", "set") and hasattr(cls, prop[0].text.split("::")[-1]) else None
            if value is not None:
                numbers = [int(getattr(cls, part.split("::")[-1])) for part in value.text.split("|")]
                found.append((element.get("name"), prop.get("name"), sum(numbers)))
                element.remove(prop)
    return found


def _takeVTKConnections(root) -> list:
    """Connections with a VTK type in the signature; PySide6 only warns about them."""
    found = []
    for group in root.findall("connections"):
        for connection in list(group):
            if "vtk" in connection.findtext("signal", ""):
                found.append([connection.findtext(tag) for tag in ("sender", "signal", "receiver", "slot")])
                group.remove(connection)
    return found


class UiLoader(QtUiTools.QUiLoader):
    def createWidget(self, className, parent=None, name=""):
        cls = classes.get(className)
        if cls is None:
            return super().createWidget(className, parent, name)
        widget = cls(parent) if parent is not None else cls()
        widget.objectName = name
        return widget

    def load(self, device, parent=None):
        path = device if isinstance(device, str) else device.fileName()
        root = ElementTree.parse(path).getroot()
        known = set(self.availableWidgets()) | set(classes) | {"Line"}
        for element in root.iter("widget"):
            _checkWidget(path, element, known)
        enumerations, connections = _takeEnumerations(root), _takeVTKConnections(root)
        form = self._build(root, os.path.dirname(os.path.abspath(path)), parent)
        for name, prop, value in enumerations:
            setattr(_named(form, name, path), prop, value)
        for sender, signal, receiver, slot in connections:
            signals.connect(_named(form, sender, path), signal, _named(form, receiver, path), slot)
        return form

    def _build(self, root, folder, parent):
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root, encoding="utf-8"))
        buffer.open(QtCore.QIODevice.ReadOnly)
        self.setWorkingDirectory(QtCore.QDir(folder))
        pythonqt.loadingForm = True
        try:
            form = super().load(buffer, parent)
        finally:
            pythonqt.loadingForm = False
        _alive.extend([form, *form.findChildren(QtCore.QObject)])
        return form


def _named(form, name: str, path: str):
    found = form if form.objectName == name else form.findChild(QtCore.QObject, name)
    if found is None:
        raise BridgeError(f"{path}: a connection names {name!r}, which is not in the file")
    return found
