"""slicer.app, the module manager and the modules, over the real scene and logics."""

import importlib.util
import os
import sys
import tempfile

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets

from . import eventloop, hierarchy
from .files import CoreIOManager
from .mrmlwidgets import qSlicerScriptedLoadableModuleWidget
from .pythonqt import StandIn
from .record import BridgeError, answerDialog
from .views import LayoutManager

#: Loadable modules: name -> class of the logic. Terminologies wants its JSON files, which the
#: wheel leaves out, and is absent therefore.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}

#: Presets of the volume rendering: name -> values that are invisible and almost opaque.
PRESETS = {
    "CT-Bone": (150, 500),
    "CT-Chest-Contrast-Enhanced": (-100, 300),
    "MR-Default": (20, 300),
    "US-Fetal": (20, 200),
}


class LoadableModule:
    """A C++ module: a name and a logic."""

    def __init__(self, name, logic):
        self.name = self.title = name
        self._logic = logic

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return None


class qSlicerScriptedLoadableModule:
    """What a scripted module gets as ``parent``. It takes only the attributes that exist."""

    __slots__ = (
        "path",
        "name",
        "title",
        "categories",
        "dependencies",
        "contributors",
        "helpText",
        "acknowledgementText",
        "icon",
        "hidden",
        "index",
        "associatedNodeTypes",
        "widgetRepresentationCreationEnabled",
        "_widget",
    )

    def __init__(self, path):
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.title = self.helpText = self.acknowledgementText = ""
        self.categories, self.dependencies, self.contributors, self.associatedNodeTypes = [], [], [], []
        self.icon, self.hidden, self.index = None, False, -1
        self.widgetRepresentationCreationEnabled, self._widget = True, None

    def logic(self):
        return None

    def widgetRepresentation(self):
        if self._widget is None:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self):
        host = qSlicerScriptedLoadableModuleWidget(self._make)
        host.setMRMLScene(slicer.mrmlScene)
        host.setup()
        return host

    def _make(self, host):
        """The Python widget; looked up by name each time, so that a reload makes the new class."""
        widget = getattr(sys.modules[self.name], self.name + "Widget")(host)
        setattr(slicer.modules, self.name + "Widget", widget)
        return widget


class FactoryManager(QtCore.QObject, StandIn):
    def loadedModuleNames(self):
        return slicer.app.moduleManager().modulesNames()

    def isLoaded(self, name):
        return name in self.loadedModuleNames()


class ModuleManager(QtCore.QObject, StandIn):
    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def __init__(self):
        super().__init__()
        self._modules, self._factory = {}, FactoryManager()

    def factoryManager(self):
        return self._factory

    def module(self, name):
        return self._modules.get(name)

    def modulesNames(self):
        return tuple(self._modules)

    def _add(self, module):
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        self.moduleLoaded.emit(module.name)

    def _unload(self, name):
        self.moduleAboutToBeUnloaded.emit(name)
        del self._modules[name]
        delattr(slicer.modules, name.lower())


class Application(QtWidgets.QApplication, StandIn):
    """slicer.app in testing mode without a main window."""

    startupCompleted = QtCore.Signal()
    mrmlSceneChanged = QtCore.Signal(object)
    signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged(PyObject)"}

    majorVersion, minorVersion = 5, 12
    revision = repositoryRevision = "bridge"
    os, arch, platform = "linux", "amd64", "linux-amd64"
    isInstalled = False
    documentationBaseUrl = "https://slicer.readthedocs.io/en/5.12/"

    def __init__(self):
        super().__init__(["Slicer"])
        self._folder = tempfile.mkdtemp(prefix="slicer-bridge-")
        self.applicationName, self.organizationName = "Slicer", "Bridge"
        self.applicationVersion = f"{self.majorVersion}.{self.minorVersion}.0"
        self._settings = QtCore.QSettings()
        self._testing, self._scene = True, None

    @property
    def temporaryPath(self):
        return self._folder

    slicerHome = defaultScenePath = extensionsInstallPath = temporaryPath

    @property
    def cachePath(self):
        return os.path.join(self._folder, "cache")

    def _build(self):
        """The scene and all that works on it, in the order of the application."""
        os.makedirs(self.cachePath)
        self._scene = slicer.mrmlScene = slicer.vtkMRMLScene()
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(self._scene)
        self._logic.SetTemporaryPath(self._folder)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self._scene, True)
        self._attachStorage()
        self._attachColors()
        self._moduleManager = ModuleManager()
        self._logics = {name: self._load(name, cls) for name, cls in LOGICS.items()}
        self._attachPresets()
        self._io = CoreIOManager(self._logics)
        self._layoutManager = LayoutManager(self._scene, self._logic)
        self._kept = hierarchy.watch(self._scene)

    def _attachStorage(self):
        """Without it storage nodes know no file types and bundles cannot be read."""
        self._remoteIO = slicer.vtkMRMLRemoteIOLogic()
        self._remoteIO.GetCacheManager().SetRemoteCacheDirectory(self.cachePath)
        self._dataIO = slicer.vtkDataIOManagerLogic()
        self._dataIO.SetMRMLApplicationLogic(self._logic)
        self._dataIO.SetAndObserveDataIOManager(self._remoteIO.GetDataIOManager())
        self._logic.SetMRMLSceneDataIO(self._scene, self._remoteIO, self._dataIO)
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())

    def _attachColors(self):
        """A color table for label maps under the name of Slicer's, which the wheel leaves out."""
        folder = os.path.join(self._folder, "share", "ColorFiles")
        os.makedirs(folder)
        hues = [QtGui.QColor.fromHsv(index * 47 % 360, 130 + index % 3 * 50, 230) for index in range(64)]
        rows = [f"{n} {n} {c.red()} {c.green()} {c.blue()} 255" for n, c in enumerate(hues, 1)]
        with open(os.path.join(folder, "GenericColors.txt"), "w", encoding="ascii") as file:
            file.write("\n".join(["# Color table file", "0 Background 0 0 0 0", *rows, ""]))
        self._logic.SetHomeDirectory(self._folder)
        self._logic.SetShareDirectory("share")

    def _attachPresets(self):
        """Transfer functions under the names of Slicer's, whose file the wheel leaves out."""
        folder = os.path.join(self._folder, "share", "VolumeRendering")
        os.makedirs(folder)
        nodes = [
            f'<VolumeProperty id="vtkMRMLVolumePropertyNode{number}" name="{name}" scalarOpacity="4 {low} 0 {high} 0.8"'
            f' colorTransfer="8 {low} 0.3 0.3 0.3 {high} 1 1 1" gradientOpacity="4 0 1 255 1" interpolation="1"/>'
            for number, (name, (low, high)) in enumerate(PRESETS.items(), 1)
        ]
        with open(os.path.join(folder, "presets.xml"), "w", encoding="ascii") as file:
            file.write("<MRML>" + "".join(nodes) + "</MRML>")
        self._logics["VolumeRendering"].SetModuleShareDirectory(folder)

    def _load(self, name, className):
        logic = getattr(slicer, className)()
        logic.SetMRMLApplicationLogic(self._logic)
        logic.SetMRMLScene(self._scene)
        self._logic.SetModuleLogic(name, logic)
        self._moduleManager._add(LoadableModule(name, logic))
        return logic

    def mrmlScene(self):
        return self._scene

    def applicationLogic(self):
        return self._logic

    def moduleManager(self):
        return self._moduleManager

    def moduleLogic(self, name):
        return self._logics.get(name)

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def layoutManager(self):
        return self._layoutManager

    def settings(self):
        return self._settings

    userSettings = revisionUserSettings = settings

    def testingEnabled(self):
        return self._testing

    def confirmRestart(self, reason=""):
        """Asks, in testing mode too, and restarts: a test sees the question in ``dialogs``."""
        answerDialog("confirmRestart", reason)

    def restart(self):
        raise BridgeError("the application would end without a question, and with it what is not saved")

    def commandOptions(self):
        return _CommandOptions()

    def translate(self, _context, text):
        return text

    def moduleDocumentationUrl(self, name):
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def processEvents(self, *flags):
        eventloop.processEvents(*flags)

    def pauseRender(self):
        """Nothing is drawn by itself."""

    resumeRender = pauseRender


class _CommandOptions:
    noMainWindow = True

    @property
    def testingEnabled(self):
        return slicer.app.testingEnabled()

    runPythonAndExit = False


def loadModule(path):
    """Load the scripted module at ``path`` as the factory does at startup; returns its C++ side."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise BridgeError(f"no module at {path}")
    if os.path.dirname(path) not in sys.path:
        sys.path.append(os.path.dirname(path))
    module = qSlicerScriptedLoadableModule(path)
    spec = importlib.util.spec_from_file_location(module.name, path)
    source = sys.modules[module.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    instance = getattr(source, module.name)(module)
    setattr(slicer.modules, module.name + "Instance", instance)
    slicer.app.moduleManager()._add(module)
    return module


def unloadModule(name):
    """Take a module away again: its widget is cleaned up, as when the application ends."""
    slicer.app.moduleManager()._unload(name)


def shutDown():
    """End as the application does. Left to the interpreter, Qt, VTK and MRML go in no safe order."""
    app = slicer.app
    for name in list(app.moduleManager().modulesNames()):
        unloadModule(name)
    app.aboutToQuit.emit()
    app.mrmlScene().Clear(1)
    app._layoutManager = None
