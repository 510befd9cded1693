"""Stand-ins for qMRMLWidget, qMRMLNodeComboBox and the host of a scripted module, over a real scene."""

import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .forms import designable
from .pythonqt import Property, StandIn, stored, virtual
from .record import BridgeError, guarded

#: Observers' callbacks. VTK reports them to Python's cyclic collector, which would otherwise clear
#: one that C++ still calls: a crash at some later event.
_callbacks: list = []


def callback(method, withNode=False):
    """``method`` of a widget as a VTK observer that neither keeps the widget alive nor outlives it."""
    owner, function = weakref.ref(method.__self__), method.__func__

    def call(caller, _event, node=None):
        widget = owner()
        if widget is not None and shiboken6.isValid(widget):
            guarded(function, widget, node if withNode else caller)

    if withNode:
        call.CallDataType = vtk.VTK_OBJECT
    _callbacks.append(call)
    return call


class _SceneHolder:
    signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged(PyObject)"}

    def mrmlScene(self):
        return self.__dict__.get("_scene")

    def setMRMLScene(self, scene):
        if scene is not self.mrmlScene():
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@designable
class qMRMLWidget(_SceneHolder, QtWidgets.QWidget, StandIn):
    mrmlSceneChanged = QtCore.Signal(object)


@designable
class qSlicerWidget(_SceneHolder, QtWidgets.QWidget, StandIn):
    mrmlSceneChanged = QtCore.Signal(object)


class qSlicerScriptedLoadableModuleWidget(_SceneHolder, QtWidgets.QWidget, StandIn):
    """The parent of a module's widget: makes it, and passes enter() and exit() on."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, factory):
        super().__init__()
        QtWidgets.QVBoxLayout(self)
        self._factory, self._python, self._entered = factory, None, False

    def self(self):
        return self._python

    def setup(self):
        self._python = self._factory(self)
        self._python.setup()

    reload = setup

    def enter(self):
        self._entered = True
        self._tell("enter")

    def exit(self):
        self._entered = False
        self._tell("exit")

    def _tell(self, name):
        """The base class has neither method: the module's widget defines them or goes without."""
        if hasattr(self._python, name):
            guarded(getattr(self._python, name))

    isEntered = Property("bool", lambda self: self._entered)


class _WideComboBox(QtWidgets.QComboBox):
    """As a ctkComboBox: as wide as its widest item at least, unless a property of its owner says otherwise."""

    def __init__(self):
        super().__init__()
        virtual(self, "minimumSizeHint")

    def minimumSizeHint(self):
        hint = super().minimumSizeHint()
        if self.parent().sizeAdjustPolicy == int(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon):
            return QtCore.QSize(min(hint.width(), 60), hint.height())
        texts = [self.itemText(row) for row in range(self.count)]
        widest = max((self.fontMetrics().horizontalAdvance(text) for text in texts), default=0)
        return QtCore.QSize(widest + 40, hint.height())


@designable
class qMRMLNodeComboBox(QtWidgets.QWidget, StandIn):
    """Lists the nodes of some classes and follows the scene.

    Disabled without a scene. With ``noneEnabled`` off it takes the first node when the scene is
    set, and none of those that come later. When the current node is deleted or hidden, Qt's combo
    box selects the row before it, whatever that is, and the selector follows.
    """

    currentNodeChanged = QtCore.Signal(object)
    _currentNodeValid = QtCore.Signal(bool)
    currentNodeIDChanged = QtCore.Signal(str)
    currentNodeRenamed = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)
    nodeAboutToBeRemoved = QtCore.Signal(object)
    signatures = {
        "currentNodeChanged(bool)": "_currentNodeValid(bool)",
        **{
            f"{name}(vtkMRMLNode*)": f"{name}(PyObject)"
            for name in ("currentNodeChanged", "nodeActivated", "nodeAdded", "nodeAddedByUser", "nodeAboutToBeRemoved")
        },
    }

    nodeTypes = stored("QStringList", "nodeTypes", [])
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [])
    showChildNodeTypes = stored("bool", "showChildNodeTypes", True)
    showHidden = stored("bool", "showHidden", False)
    noneEnabled = stored("bool", "noneEnabled", False)
    noneDisplay = stored("QString", "noneDisplay", "None")
    addEnabled = stored("bool", "addEnabled", True)
    removeEnabled = stored("bool", "removeEnabled", True)
    editEnabled = stored("bool", "editEnabled", False)
    renameEnabled = stored("bool", "renameEnabled", False)
    selectNodeUponCreation = stored("bool", "selectNodeUponCreation", True)
    interactionNodeSingletonTag = stored("QString", "interactionNodeSingletonTag", "")
    baseName = stored("QString", "baseName", "")
    sizeAdjustPolicy = stored("int", "sizeAdjustPolicy", int(QtWidgets.QComboBox.AdjustToContentsOnFirstShow))

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = _WideComboBox()
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._activated)
        self._scene, self._tags, self._nodes, self._current = None, [], [], None
        self._attributes, self._watched = {}, {}
        self.enabled = False

    def children(self):
        return ()  # the inside of a C++ widget is not its user's business

    # the scene

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        if scene is self._scene:
            return
        self._forget()
        self._scene = scene
        for event, method, withNode in (
            (
                ("NodeAddedEvent", self._nodeAdded, True),
                ("NodeAboutToBeRemovedEvent", self._nodeRemoved, True),
                ("EndBatchProcessEvent", self._settled, False),
                ("EndCloseEvent", self._settled, False),
                ("EndImportEvent", self._settled, False),
            )
            if scene is not None
            else ()
        ):
            number = getattr(slicer.vtkMRMLScene, event)
            self._tags.append(scene.AddObserver(number, callback(method, withNode)))
        self.enabled = scene is not None
        self._list()
        self._settle()

    def _forget(self) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        for node, tag in self._watched.values():
            node.RemoveObserver(tag)
        self._tags, self._watched = [], {}

    def _busy(self) -> bool:
        return bool(self._scene.IsBatchProcessing() or self._scene.IsImporting() or self._scene.IsClosing())

    def _nodeAdded(self, node) -> None:
        if node is not None and any(map(node.IsA, self.nodeTypes)) and not self._busy():
            self._list()
            if node in self._nodes:
                self.nodeAdded.emit(node)

    def _nodeRemoved(self, node) -> None:
        if node in self._nodes:
            self.nodeAboutToBeRemoved.emit(node)
            self._watched.pop(node.GetID(), None)
            row = self._row(node)
            self._nodes.remove(node)
            self._fill()
            if node is self._current:
                self._selectBefore(row)

    def _settled(self, _scene) -> None:
        if not self._busy():
            self._list()
            self._settle()

    def _settle(self) -> None:
        """The selection after the list was filled again."""
        if self._current not in self._nodes:
            self._select(None if self.noneEnabled or not self._nodes else self._nodes[0])

    # the list

    def _takes(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        if any(node.IsA(hidden) for hidden in self.hideChildNodeTypes):
            return False
        for kind in self.nodeTypes:
            if node.GetClassName() == kind or self.showChildNodeTypes and node.IsA(kind):
                wanted = self._attributes.get(kind, {})
                return all(
                    node.GetAttribute(k) is not None and v in (None, node.GetAttribute(k)) for k, v in wanted.items()
                )
        return False

    def _list(self) -> None:
        scene, self._nodes = self._scene, []
        nodes = [] if scene is None else [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        kinds = self.nodeTypes
        for node in nodes:
            if not any(map(node.IsA, kinds)):
                continue
            if self._watched.get(node.GetID(), (None,))[0] is not node:  # an ID is used again after a scene closes
                tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, callback(self._nodeModified))
                self._watched[node.GetID()] = node, tag
            if self._takes(node):
                self._nodes.append(node)
        self._fill()

    def _nodeModified(self, node) -> None:
        if self._takes(node) != (node in self._nodes):
            row = self._row(node) if node is self._current else None
            self._list()
            if row is None:
                self._settle()
            else:
                self._selectBefore(row)
        elif node in self._nodes:
            row = self._row(node)
            if self._combo.itemText(row) != node.GetName():
                self._combo.setItemText(row, node.GetName())
                self._combo.updateGeometry()
                if node is self._current:
                    self.currentNodeRenamed.emit(node.GetName())

    def _changed(self, name) -> None:
        if name in (
            "nodeTypes",
            "hideChildNodeTypes",
            "showChildNodeTypes",
            "showHidden",
            "noneEnabled",
            "noneDisplay",
        ):
            self._list()
            if self._current is not None:
                self._settle()

    def _fill(self) -> None:
        blocked = self._combo.blockSignals(True)
        self._combo.clear()
        self._combo.addItems([self.noneDisplay] if self.noneEnabled else [])
        self._combo.addItems([node.GetName() or "" for node in self._nodes])
        self._combo.blockSignals(blocked)
        self._show()

    def _show(self) -> None:
        self._combo.updateGeometry()
        blocked = self._combo.blockSignals(True)
        found = self._current in self._nodes
        self._combo.currentIndex = (self._nodes.index(self._current) if found else -1) + self.noneEnabled
        self._combo.blockSignals(blocked)

    def _row(self, node) -> int:
        return self._nodes.index(node) + self.noneEnabled

    # the selection

    def _selectBefore(self, row) -> None:
        """What Qt does where the current row is gone."""
        rows = [None] * self.noneEnabled + self._nodes
        self._select(rows[max(0, row - 1)] if rows else None)

    def _activated(self, row) -> None:
        row -= self.noneEnabled
        node = self._nodes[row] if row >= 0 else None
        self._select(node)
        self.nodeActivated.emit(node)

    def _select(self, node) -> None:
        node = node if node in self._nodes else None
        if node is not self._current:
            self._current = node
            self._show()
            self.currentNodeChanged.emit(node)
            self._currentNodeValid.emit(node is not None)
            self.currentNodeIDChanged.emit(self.currentNodeID)
        else:
            self._show()

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node):
        if isinstance(node, str):
            self.setCurrentNodeID(node)
        elif node is None or isinstance(node, slicer.vtkMRMLNode):
            self._select(node)
        else:
            raise BridgeError(f"qMRMLNodeComboBox.setCurrentNode() takes a node or an ID, not {node!r}")

    def setCurrentNodeID(self, nodeID):
        self._select(self._scene.GetNodeByID(nodeID) if self._scene is not None and nodeID else None)

    def setCurrentNodeIndex(self, index):
        self._select(self.nodeFromIndex(index))

    currentNodeID = Property("QString", lambda s: s._current.GetID() if s._current else "", setCurrentNodeID)

    def nodeCount(self):
        return len(self._nodes)

    def nodeFromIndex(self, index):
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.setdefault(nodeType, {})[name] = None if value is None else str(value)
        self._changed("nodeTypes")

    def removeAttribute(self, nodeType, name):
        self._attributes.get(nodeType, {}).pop(name, None)
        self._changed("nodeTypes")

    def addNode(self, nodeType=None):
        kind = nodeType or self.nodeTypes[0]
        name = self.baseName or kind.removeprefix("vtkMRML").removesuffix("Node")
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(name))
        if self.selectNodeUponCreation:
            self._select(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self):
        if self._current is not None:
            self._scene.RemoveNode(self._current)


STAND_INS = (qMRMLWidget, qSlicerWidget, qSlicerScriptedLoadableModuleWidget, qMRMLNodeComboBox)
