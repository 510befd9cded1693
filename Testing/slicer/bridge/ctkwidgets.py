"""Stand-ins for the CTK widgets that MedGen uses.

Only properties, slots and signals are public, as in Slicer: PythonQt does not see the plain C++
setters (``setCollapsed``, ``setMinimum``). They draw plainly; the look is Slicer's own business.
"""

import os
import types

from PySide6 import QtCore, QtWidgets

from .forms import designable
from .pythonqt import Property, StandIn, stored, virtual
from .record import answerDialog


class _Folding:
    """Hides and shows the children of a widget; those that come later too."""

    def _fold(self, folded: bool) -> None:
        if folded:
            self._folded = [c for c in self._content() if not c.isHidden()]
        for child in self._folded:
            child.setVisible(not folded)
        if not folded:
            self._folded = []

    def _content(self):
        return [c for c in self.children() if isinstance(c, QtWidgets.QWidget)]

    def _adopt(self, event) -> None:
        if event.type() == QtCore.QEvent.ChildPolished and self.collapsed:
            child = event.child()
            if isinstance(child, QtWidgets.QWidget) and not child.isHidden():
                self._folded.append(child)
                child.setVisible(False)


@designable
class ctkCollapsibleButton(QtWidgets.QAbstractButton, _Folding, StandIn):
    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, *arguments):
        super().__init__(next((a for a in arguments if isinstance(a, QtWidgets.QWidget)), None))
        virtual(self, "sizeHint", "minimumSizeHint")
        self._folded = []
        self.checkable = True
        self.checked = True
        self.text = next((a for a in arguments if isinstance(a, str)), "")
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._bar(), 0, 0)
        self.toggled.connect(self._toggled)

    def _bar(self) -> int:
        return self.fontMetrics().height() + 8

    def _foldedHeight(self) -> int:
        """A folded section still shows the beginning of its contents."""
        return self._bar() + self.collapsedHeight

    def _toggled(self, opened: bool) -> None:
        self._fold(not opened)
        self.setMaximumHeight(16777215 if opened else self._foldedHeight())
        self.contentsCollapsed.emit(not opened)

    def event(self, event):
        self._adopt(event)
        return super().event(event)

    def hitButton(self, position):
        return position.y() < self._bar()

    def sizeHint(self):
        return self._around(self.layout().totalSizeHint() if self.layout() and self.checked else QtCore.QSize(0, 0))

    def minimumSizeHint(self):
        return self._around(self.layout().totalMinimumSize() if self.layout() and self.checked else QtCore.QSize(0, 0))

    def _around(self, inside):
        title = self.fontMetrics().horizontalAdvance(self.text) + 40
        return QtCore.QSize(max(inside.width(), title), max(inside.height(), self._foldedHeight()))

    def paintEvent(self, _event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, self._bar())
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, self._bar() // 2 - 5, 10, 10)
        style = QtWidgets.QStyle
        painter.drawPrimitive(style.PE_IndicatorArrowDown if self.checked else style.PE_IndicatorArrowRight, arrow)
        painter.drawText(24, self._bar() // 2 + self.fontMetrics().ascent() // 2 - 1, self.text)

    collapsed = Property("bool", lambda self: not self.checked, lambda self, v: setattr(self, "checked", not v))
    collapsedHeight = stored("int", "collapsedHeight", 14)
    contentsFrameShape = stored("int", "contentsFrameShape", 0)
    contentsFrameShadow = stored("int", "contentsFrameShadow", 16)
    contentsLineWidth = stored("int", "contentsLineWidth", 1)
    contentsMidLineWidth = stored("int", "contentsMidLineWidth", 0)
    flat = stored("bool", "flat", False)
    buttonTextAlignment = stored("int", "buttonTextAlignment", 0x84)
    indicatorAlignment = stored("int", "indicatorAlignment", 0x84)


@designable
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox, _Folding, StandIn):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._folded = []
        self.checkable = True
        self.checked = True
        self.toggled.connect(lambda opened: self._fold(not opened))

    def event(self, event):
        self._adopt(event)
        return super().event(event)

    collapsed = Property("bool", lambda self: not self.checked, lambda self, v: setattr(self, "checked", not v))
    collapsedHeight = stored("int", "collapsedHeight", 14)


@designable
class ctkSliderWidget(QtWidgets.QWidget, StandIn):
    """A slider and a spin box that share one value."""

    _STEPS = 1000

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.maximum = self._STEPS
        self._spin = QtWidgets.QDoubleSpinBox()
        self._spin.maximum = 100.0
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(self._slid)
        self._spin.valueChanged.connect(self._spun)

    def _slid(self, position) -> None:
        span = self._spin.maximum - self._spin.minimum
        self._spin.value = self._spin.minimum + span * position / self._STEPS

    def _spun(self, value) -> None:
        self._place()
        self.valueChanged.emit(value)

    def _place(self) -> None:
        span = self._spin.maximum - self._spin.minimum
        blocked = self._slider.blockSignals(True)
        self._slider.value = round(self._STEPS * (self._spin.value - self._spin.minimum) / span) if span > 0 else 0
        self._slider.blockSignals(blocked)

    def setValue(self, value):
        self._spin.value = value

    def _range(self, name, value) -> None:
        setattr(self._spin, name, value)
        self._place()

    def _changed(self, name) -> None:
        if name == "spinBoxVisible":
            self._spin.visible = self.spinBoxVisible

    value = Property("double", lambda self: self._spin.value, setValue)
    minimum = Property("double", lambda self: self._spin.minimum, lambda self, v: self._range("minimum", v))
    maximum = Property("double", lambda self: self._spin.maximum, lambda self, v: self._range("maximum", v))
    singleStep = Property("double", lambda s: s._spin.singleStep, lambda s, v: setattr(s._spin, "singleStep", v))
    decimals = Property("int", lambda self: self._spin.decimals, lambda self, v: setattr(self._spin, "decimals", v))
    suffix = Property("QString", lambda self: self._spin.suffix, lambda self, v: setattr(self._spin, "suffix", v))
    prefix = Property("QString", lambda self: self._spin.prefix, lambda self, v: setattr(self._spin, "prefix", v))
    pageStep = stored("double", "pageStep", 10.0)
    tickInterval = stored("double", "tickInterval", 0.0)
    tracking = stored("bool", "tracking", True)
    spinBoxVisible = stored("bool", "spinBoxVisible", True)


@designable
class ctkPathLineEdit(QtWidgets.QWidget, StandIn):
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable, Hidden = 1, 2, 4, 8, 16, 32, 64, 256

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit = QtWidgets.QLineEdit()
        self._button = QtWidgets.QToolButton()
        self._button.text = "..."
        layout.addWidget(self._edit)
        layout.addWidget(self._button)
        self._isValid = False
        self._edit.textChanged.connect(self._typed)
        self._button.clicked.connect(lambda: self.browse())

    def _typed(self, text) -> None:
        """Only what can be accepted is a new path; that it no longer can be is another signal."""
        was, self._isValid = self._isValid, os.path.exists(text)
        if self._isValid:
            self.currentPathChanged.emit(text)
        if self._isValid != was:
            self.validInputChanged.emit(self._isValid)

    def browse(self):
        self.currentPath = answerDialog("ctkPathLineEdit.browse", self.currentPath)

    def addCurrentPathToHistory(self):
        """Keeps nothing: the history is the application's."""

    currentPath = Property("QString", lambda self: self._edit.text, lambda self, v: setattr(self._edit, "text", v))
    filters = stored("int", "filters", 0x403)
    nameFilters = stored("QStringList", "nameFilters", [])
    settingKey = stored("QString", "settingKey", "")
    label = stored("QString", "label", "")
    showBrowseButton = stored("bool", "showBrowseButton", True)
    showHistoryButton = stored("bool", "showHistoryButton", True)


@designable
class ctkMessageBox(QtWidgets.QMessageBox, StandIn):
    dontShowAgain = stored("bool", "dontShowAgain", False)
    dontShowAgainVisible = stored("bool", "dontShowAgainVisible", False)
    dontShowAgainSettingsKey = stored("QString", "dontShowAgainSettingsKey", "")


class ctkFlowLayout(QtWidgets.QVBoxLayout, StandIn):
    """Stacks instead of flowing; Slicer's Sample Data module makes one."""

    preferredExpandingDirections = stored("int", "preferredExpandingDirections", 0)


def ctkModule() -> types.ModuleType:
    module = types.ModuleType("ctk", "The CTK widgets that MedGen uses, played by the bridge.")
    vars(module).update({k: v for k, v in globals().items() if k.startswith("ctk") and isinstance(v, type)})
    return module
