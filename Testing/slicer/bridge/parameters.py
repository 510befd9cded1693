"""slicer.parameterNodeWrapper: typed parameters in a vtkMRMLScriptedModuleNode, bound to widgets.

The types and widgets that MedGen uses: str, int, float, bool, MRML nodes and unions of them with
None. Values are stored as the application stores them, so a scene can go from one to the other.
"""

import types
import typing
from dataclasses import dataclass

import ctk
import qt
import slicer
import vtk

from .record import guarded


class Default:
    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


@dataclass(eq=False)
class Decimals:
    value: int


@dataclass(eq=False)
class SingleStep:
    value: float


@dataclass(eq=False)
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


@dataclass(eq=False)
class Minimum:
    minimum: float

    def validate(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is below {self.minimum}")


@dataclass(eq=False)
class Maximum:
    maximum: float

    def validate(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is above {self.maximum}")


@dataclass(eq=False)
class Choice:
    choices: typing.Sequence

    def validate(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


_NUMBERS = {int: (int, 0), float: ((int, float), 0.0), str: (str, ""), bool: (bool, False)}


class Parameter:
    """One typed entry: its name, its annotations, and how it is stored."""

    def __init__(self, name, annotated, default=None):
        self.name, self.annotated = name, annotated
        self.type, *self.notes = typing.get_args(typing.Annotated[annotated, None])[:-1]
        union = isinstance(self.type, types.UnionType) or typing.get_origin(self.type) is typing.Union
        members = typing.get_args(self.type) if union else (self.type,)
        self.nodeClasses = tuple(m for m in members if isinstance(m, type) and issubclass(m, slicer.vtkMRMLNode))
        if self.nodeClasses and union and type(None) not in members:
            raise TypeError(f"parameter {name}: a union of node classes needs None")
        # A union keeps one entry a member: "input.0" for its first class.
        self.entries = (
            {f"{name}.{index}": member for index, member in enumerate(members)}
            if union
            else {name: (*self.nodeClasses, type(None))}
        )
        if not self.nodeClasses and self.type not in _NUMBERS:
            raise TypeError(f"parameter {name}: no serializer for {self.type}")
        self.default = default or self.note(Default) or Default(None if self.nodeClasses else _NUMBERS[self.type][1])

    def note(self, kind):
        return next((note for note in self.notes if isinstance(note, kind)), None)

    def check(self, value):
        allowed = (*self.nodeClasses, type(None)) if self.nodeClasses else _NUMBERS[self.type][0]
        if value is None and not self.nodeClasses:
            raise ValueError(f"parameter {self.name} must not be None")
        if not isinstance(value, allowed):
            raise TypeError(f"parameter {self.name} is of type {self.type}, not {value!r}")
        for note in self.notes:
            if hasattr(note, "validate"):
                note.validate(value)

    def isIn(self, node):
        return any(node.HasParameter(entry) for entry in self.entries)

    def write(self, node, value):
        self.check(value)
        if not self.nodeClasses:
            node.SetParameter(self.name, str(value))
            return
        wasModifying = node.StartModify()
        for entry in self.entries:
            node.UnsetParameter(entry)
            node.RemoveNodeReferenceIDs(entry)
        entry = next(entry for entry, member in self.entries.items() if isinstance(value, member))
        node.SetParameter(entry, "")
        if value is not None:
            node.SetNodeReferenceID(entry, value.GetID())
        node.EndModify(wasModifying)

    def read(self, node):
        if self.nodeClasses:
            return next((node.GetNodeReference(entry) for entry in self.entries if node.HasParameter(entry)), None)
        text = node.GetParameter(self.name)
        return text == "True" if self.type is bool else self.type(text)


# Widgets. The application compares exact types, so a subclass finds no connector here either.


@dataclass
class _Connector:
    """How the value of a widget is read, written and listened to."""

    signal: str
    read: typing.Callable
    write: typing.Callable
    prepare: typing.Callable = lambda widget, parameter: None


def _attribute(signal: str, name: str, prepare=lambda widget, parameter: None) -> _Connector:
    return _Connector(signal, lambda w: getattr(w, name), lambda w, v: setattr(w, name, v), prepare)


def _limits(widget, parameter):
    whole = parameter.note(WithinRange)
    bounds = whole or parameter.note(Minimum), whole or parameter.note(Maximum)
    if type(widget) in (qt.QSlider, ctk.ctkSliderWidget) and None in bounds:
        raise RuntimeError(f"parameter {parameter.name}: a slider needs WithinRange, or Minimum and Maximum")
    lowest, largest = (-(2**31), 2**31 - 1) if parameter.type is int else (float("-inf"), float("inf"))
    widget.minimum = bounds[0].minimum if bounds[0] else lowest
    widget.maximum = bounds[1].maximum if bounds[1] else largest
    if parameter.note(Decimals):
        widget.decimals = parameter.note(Decimals).value
    if parameter.note(SingleStep):
        widget.singleStep = parameter.note(SingleStep).value


def _items(widget, parameter):
    choice = parameter.note(Choice)
    if choice is None:
        raise RuntimeError(f"parameter {parameter.name}: a combo box needs the Choice annotation")
    widget.clear()
    widget.addItems([str(item) for item in choice.choices])


def _nodeTypes(widget, parameter):
    widget.nodeTypes = [cls().GetClassName() for cls in parameter.nodeClasses]


def _writeText(widget, value):
    if widget.text != value:  # or the cursor would jump to the end while one types
        widget.text = value


def _connector(widget, parameter: Parameter) -> _Connector:
    cls, kind = type(widget), parameter.type
    if parameter.nodeClasses and cls is slicer.qMRMLNodeComboBox:
        return _Connector("currentNodeChanged", lambda w: w.currentNode(), lambda w, v: w.setCurrentNode(v), _nodeTypes)
    if cls is qt.QComboBox and kind in _NUMBERS:
        _items_ = parameter.note(Choice)
        return _Connector(
            "currentIndexChanged",
            lambda w: _items_.choices[w.currentIndex],
            lambda w, v: setattr(w, "currentIndex", list(_items_.choices).index(v)),
            _items,
        )
    table = {
        (bool, qt.QCheckBox): _attribute("stateChanged", "checked"),
        (bool, qt.QPushButton): _attribute("toggled", "checked", lambda w, p: setattr(w, "checkable", True)),
        (int, qt.QSpinBox): _attribute("valueChanged", "value", _limits),
        (int, qt.QSlider): _attribute("valueChanged", "value", _limits),
        (float, qt.QDoubleSpinBox): _attribute("valueChanged", "value", _limits),
        (float, ctk.ctkSliderWidget): _attribute("valueChanged", "value", _limits),
        (str, qt.QLineEdit): _Connector("textChanged", lambda w: w.text, _writeText),
        (str, qt.QTextEdit): _Connector("textChanged", lambda w: w.toPlainText(), lambda w, v: w.setPlainText(v)),
    }
    if (kind, cls) not in table:
        raise RuntimeError(f"Unable to create GUI connector from {kind} to {cls.__name__} (parameter {parameter.name})")
    return table[kind, cls]


class _Binding:
    """One parameter and one widget."""

    def __init__(self, wrapper, parameter, widget):
        self.wrapper, self.parameter, self.widget = wrapper, parameter, widget
        self.connector = _connector(widget, parameter)
        self.connector.prepare(widget, parameter)
        self.show()
        getattr(widget, self.connector.signal).connect(self.changed)

    def show(self):
        self.connector.write(self.widget, self.wrapper.getValue(self.parameter.name))

    def changed(self):
        if not self.wrapper._showing:
            self.wrapper.setValue(self.parameter.name, self.connector.read(self.widget))

    def release(self):
        getattr(self.widget, self.connector.signal).disconnect(self.changed)


class _Wrapper:
    """The methods that the decorator adds to a class."""

    def __init__(self, parameterNode):
        vars(self).update(parameterNode=parameterNode, _bindings={}, _showing=False)
        for parameter in self.allParameters.values():
            if not parameter.isIn(parameterNode):
                parameter.write(parameterNode, parameter.default.value)

    def __setattr__(self, name, value):
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}")
        object.__setattr__(self, name, value)

    def _parameter(self, name):
        if name not in self.allParameters:
            raise ValueError(f"no parameter {name!r}; there are {sorted(self.allParameters)}")
        return self.allParameters[name]

    def getValue(self, name):
        return self._parameter(name).read(self.parameterNode)

    def setValue(self, name, value):
        self._parameter(name).write(self.parameterNode, value)

    def default(self, name):
        return self._parameter(name).default

    def isCached(self, name):
        return bool(self._parameter(name))

    @classmethod
    def dataType(cls, name):
        return cls.allParameters[name].annotated

    def connectGui(self, gui):
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        return self.connectParametersToGui(
            {w.property("SlicerParameterName"): w for w in widgets if w.property("SlicerParameterName")}
        )

    def connectParametersToGui(self, mapping):
        parameters = [self._parameter(name) for name in mapping]
        tag = max(self._bindings, default=-1) + 1
        self._bindings[tag] = [_Binding(self, p, w) for p, w in zip(parameters, mapping.values(), strict=True)]
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show)
        return tag

    def disconnectGui(self, tag):
        """As in Slicer 5.10, the observer stays; 5.12 removes it."""
        for binding in self._bindings.pop(tag, ()):
            binding.release()

    def _show(self, _caller, _event):
        if self._showing:
            return
        self._showing = True
        for binding in [b for group in self._bindings.values() for b in group]:
            guarded(binding.show)
        self._showing = False

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModifying):
        return self.parameterNode.EndModify(wasModifying)

    def AddObserver(self, event, callback, priority=0.0):
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):
        self.parameterNode.Modified()


def _wrap(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    given = {name: Default(getattr(cls, name)) for name in hints if hasattr(cls, name)}
    parameters = {name: Parameter(name, hint, given.get(name)) for name, hint in hints.items()}
    members = {k: v for k, v in vars(_Wrapper).items() if callable(v) or isinstance(v, classmethod)}
    taken = [n for n in (*members, "allParameters") if n in hints or n in vars(cls) and n != "__init__"]
    if taken:
        raise ValueError(f"{cls.__name__} cannot use the reserved names {taken}")
    for name, member in members.items():
        setattr(cls, name, member)
    cls.allParameters = parameters
    for name in parameters:
        setattr(cls, name, property(lambda s, n=name: s.getValue(n), lambda s, v, n=name: s.setValue(n, v)))
    return cls


def parameterNodeWrapper(cls=None):
    return _wrap if cls is None else _wrap(cls)


PUBLIC = (parameterNodeWrapper, Default, Decimals, SingleStep, WithinRange, Minimum, Maximum, Choice)
