"""The panel: puts the sections together and leads from the input to the result."""

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MedGenLib.errors import Cancelled, MedGenError
from MedGenSlicer.nodes import reading as nodes
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.catalogue import Models
from MedGenSlicer.panel.check import InputCheck
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.dialogs import Dialogs, overwriteQuestion
from MedGenSlicer.panel.proposals import Proposals
from MedGenSlicer.panel.sections.card import Card
from MedGenSlicer.panel.sections.dicom import DicomSection
from MedGenSlicer.panel.sections.edit import EditSection
from MedGenSlicer.panel.sections.evaluation import Evaluation
from MedGenSlicer.panel.sections.failure import FailureBox, suggestion
from MedGenSlicer.panel.sections.generate import GenerateTab
from MedGenSlicer.panel.sections.lesion import LesionSection
from MedGenSlicer.panel.sections.models import ModelsSection
from MedGenSlicer.panel.sections.options import Options
from MedGenSlicer.panel.sections.readiness import Readiness
from MedGenSlicer.panel.sections.result import ResultBox
from MedGenSlicer.panel.sections.run import RunSection
from MedGenSlicer.panel.sections.study import StudySection
from MedGenSlicer.panel.sections.translate import TranslateTab
from MedGenSlicer.panel.watch import InputWatcher

CHECK_DELAY_MS = 150
WORKER_DELAY_MS = 1000
TASKS = ("generate", "translate")
"""In the order of the tabs."""


class Panel(VTKObservationMixin):
    """Connects widgets, parameter node and logic.

    Parameters
    ----------
    ui: the widgets of MedGen.ui as attributes.
    logic: a MedGenLogic.
    dialogs: who asks the user; tests give one that answers.
    """

    def __init__(self, ui, logic, dialogs: Dialogs | None = None) -> None:
        VTKObservationMixin.__init__(self)
        self.ui, self.logic = ui, logic
        self.context = Context(ui, logic, dialogs or Dialogs())
        self.context.changed = self.scheduleCheck
        self.context.failed = self._showFailure
        self.models = Models()
        self.readiness = Readiness(self.context)
        self.tabs = {
            "generate": GenerateTab(self.context, self.models),
            "translate": TranslateTab(self.context, self.models),
        }
        self.proposals = Proposals(self.context)
        self.options = Options(self.context)
        self.card = Card(self.context)
        self.inputCheck = InputCheck(self.context, self._showCheck)
        self.watcher = InputWatcher(self._inputChanged, self._painted)
        self.runSection = RunSection(self.context)
        self.failure = FailureBox(self.context)
        self.dicom = DicomSection(self.context)
        self.result = ResultBox(self.context, self.dicom.show)
        self.edit = EditSection(self.context, self.models)
        self.lesion = LesionSection(self.context)
        self.evaluation = Evaluation(self.context)
        self.study = StudySection(self.context)
        self.modelsSection = ModelsSection(self.context, self.models)
        self.currentRun = None
        self._last: tuple[str, object, dict] | None = None
        self._guiTag = None
        self._isEntered = True
        self._blocked = ""
        self._checkTimer = widgets.singleShot(CHECK_DELAY_MS, lambda: self.context.guarded(self.check))
        self._guessTimer = widgets.singleShot(CHECK_DELAY_MS, lambda: self.context.guarded(self.guess))
        self._workerTimer = widgets.singleShot(
            WORKER_DELAY_MS, lambda: self.context.guarded(self.readiness.startWorker)
        )
        self.readiness.onDevices(self.options.setDevices)
        logic.engine.addObserver(self._engineChanged)
        self._connect()
        self._engineChanged()

    # Life

    def enter(self) -> None:
        """The module was opened."""
        self._isEntered = True
        self.context.guarded(self.guess)
        self.scheduleCheck()

    def exit(self) -> None:
        """Another module was opened; a run goes on, but nothing is proposed and no worker is started."""
        self._isEntered = False
        self.study.pause()
        self._guessTimer.stop()
        self._workerTimer.stop()

    def close(self) -> None:
        """The widget goes: let go of the scene and stop all timers."""
        for timer in (self._checkTimer, self._guessTimer, self._workerTimer):
            timer.stop()
        self.logic.engine.removeObserver(self._engineChanged)
        self.edit.close()
        self.setParameterNode(None)
        self.removeObservers()

    def setParameterNode(self, parameters) -> None:
        """Show another parameter node, or none while a scene is closed."""
        old = self.context.parameters
        if old is not None:
            old.disconnectGui(self._guiTag)
            self.removeObserver(old.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parametersChanged)
        self.context.parameters = parameters
        self._watch(None)
        if parameters is None:
            self.study.pause()
            self.edit.forget()
            self.lesion.forget()
            self.evaluation.forget()
            self.dicom.forget()
            self.result.hide()
            self.failure.hide()
            return
        self._guiTag = parameters.connectGui(self.ui)
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parametersChanged)
        self.context.guarded(self.update)
        self.scheduleCheck()

    def takes(self, node) -> bool:
        """Whether a node that was added may be an input."""
        return node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLSegmentationNode")

    def nodesArrived(self) -> None:
        """Nodes were added or loaded: propose one, if nothing was chosen yet. Otherwise `enter` will."""
        if self._isEntered:
            self._guessTimer.start()

    # Choices

    @property
    def task(self) -> str:
        """ "generate" or "translate", the tab that is open."""
        parameters = self.context.parameters
        return parameters.task if parameters is not None and parameters.task in TASKS else TASKS[0]

    @property
    def isBusy(self) -> bool:
        """Whether a check or a proposal is due; for scripts that set choices and then read the panel."""
        return self._checkTimer.active or self._guessTimer.active or self.inputCheck.isPending

    @property
    def tab(self):
        """The tab that is open."""
        return self.tabs[self.task]

    def guess(self) -> None:
        """Propose task and inputs; nothing that was chosen changes."""
        self.proposals.propose()

    def update(self) -> None:
        """Show what the parameter node says; quick."""
        if self.context.parameters is None:
            return
        with widgets.quiet(self.ui.taskTabWidget):
            self.ui.taskTabWidget.setCurrentIndex(TASKS.index(self.task))
        for tab in self.tabs.values():
            tab.update()
        manifest = self.tab.manifest
        self.card.update(manifest)
        self.options.update(self.task, manifest)
        self.edit.update()
        self.lesion.update()
        self.evaluation.update()
        self.dicom.update()
        self._watch(self.tab.inputNode)
        self._showButtons()

    # Before the run

    def scheduleCheck(self) -> None:
        """Check the input soon; many changes in a row are one check."""
        if self.context.parameters is not None:
            self._checkTimer.start()

    def check(self) -> None:
        """Show what is selected, compare it with the model, plan the run."""
        self._checkTimer.stop()
        if self.context.parameters is None:
            return
        self.tabs["translate"].guessTarget()
        self.update()
        tab = self.tab
        self.inputCheck.update(tab.inputNode, tab.manifest, tab.checkArguments())
        self._showCheck()
        if tab.inputNode is not None and self.readiness.state == "idle":
            self._workerTimer.start()

    def _showCheck(self) -> None:
        """What is known of the input, the plan, and whether the button can be pressed."""
        if self.context.parameters is None:
            return
        node, manifest, findings = self.tab.inputNode, self.tab.manifest, self.inputCheck.findings
        problem, plan = self._problem(self.task), ""
        if node is not None and manifest is not None:
            try:
                plan = self._planSentence(node, manifest)
            except MedGenError as error:
                problem = problem or str(error)
        errors = " ".join(finding.sentence for finding in findings if finding.level == "error")
        self._blocked = problem or errors
        self.runSection.showCheck(problem, findings, plan, self.inputCheck.isPending, canHarden=_isWarped(node))
        hasSample = self._hasSample()
        self.ui.sampleButton.setVisible(node is None and hasSample and not self.runSection.isRunning)
        self.ui.cardSampleButton.setVisible(hasSample)
        self._showButtons()

    # The run

    def run(self, task: str, seed: int | None = None) -> None:
        """Start the task with the choices of the panel."""
        self._chooseTask(task)
        self.check()
        if self._blocked:
            return
        tab = self.tab
        if not self._mayOverwrite(tab.outputNode):
            return
        arguments = tab.arguments()
        arguments.update(
            preset=self.context.parameters.preset, device=self.context.parameters.device, outputNode=tab.outputNode
        )
        if task == "generate":
            arguments["seed"] = self.options.nextSeed() if seed is None else seed
        self._start(task, tab.inputNode, arguments)

    def sameAgain(self) -> None:
        """Repeat the last run: same input, same settings, same seed, into a new volume."""
        if self._last is None or self.runSection.isRunning:
            return
        task, nodeID, arguments = self._last
        self._start(task, slicer.mrmlScene.GetNodeByID(nodeID), {**arguments, "outputNode": None})

    def cancel(self) -> None:
        """Stop the run that is on."""
        if self.currentRun is not None and self.runSection.isRunning:
            self.runSection.showCancelling()
            self.currentRun.cancel()

    def _start(self, task: str, node, arguments: dict) -> None:
        self.failure.hide()
        self.result.hide()
        function = self.logic.generate if task == "generate" else self.logic.translate
        self._last = (task, node.GetID() if node is not None else "", arguments)
        self.runSection.start()
        self._showButtons()
        try:
            self.currentRun = function(
                node,
                wait=False,
                onProgress=lambda progress: self.context.guarded(self.runSection.showProgress, progress),
                onDone=lambda run: self.context.guarded(self._done, run),
                **arguments,
            )
        except MedGenError as error:
            self._ended("")
            self._showFailure(error)

    def _done(self, run) -> None:
        """The run has ended, in whichever way."""
        self.currentRun = None
        if run.error is None:
            self._ended("")
            self.result.show(run)
            self.edit.propose(run)
            self.evaluation.propose(run)
        elif isinstance(run.error, Cancelled) or slicer.mrmlScene.IsClosing():
            # The user's own doing is no failure, and the sentence has to outlive the scene.
            self._ended(str(run.error))
        else:
            self._ended("")
            self._showFailure(run.error)

    def _ended(self, status: str) -> None:
        self.runSection.finish(status)
        self._showButtons()
        self.scheduleCheck()
        self.readiness.askDevices()

    def _showFailure(self, error: MedGenError) -> None:
        device = self.context.parameters.device if self.context.parameters is not None else "auto"
        if device == "auto":
            device = "cpu" if all(entry["name"] == "cpu" for entry in self._devices()) else "gpu"
        self.readiness.refresh()
        label, action = self._actions()[suggestion(error, device, not self.readiness.isInstalled)]
        self.failure.show(error, label, action)

    def _actions(self) -> dict:
        return {
            "again": (_("Try again"), lambda: self.run(self.task)),
            "install": (_("Install…"), self.readiness.install),
            "cpu": (_("Use the CPU"), self._runOnCpu),
            "crop": (_("Crop the input…"), lambda: slicer.util.selectModule("CropVolume")),
            "license": (_("Show the license"), self.card.showLicense),
            "models": (_("Show the models"), self._showModels),
        }

    # Small steps

    def _connect(self) -> None:
        connect, ui = self.context.connect, self.ui
        connect(ui.taskTabWidget.currentChanged, self._tabChosen)
        connect(ui.generateButton.clicked, lambda: self.run("generate"))
        connect(ui.translateButton.clicked, lambda: self.run("translate"))
        connect(ui.cancelButton.clicked, self.cancel)
        connect(ui.sameAgainButton.clicked, self.sameAgain)
        connect(ui.hardenButton.clicked, self._hardenInput)
        for button in (ui.sampleButton, ui.cardSampleButton):
            connect(button.clicked, self._loadSample)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeRemovedEvent, self._nodeRemoved)

    def _parametersChanged(self, caller=None, event=None) -> None:
        if not self.runSection.isRunning:
            self.runSection.showStatus("")  # what was said of the last run is old now
        self.context.guarded(self.update)
        self.scheduleCheck()

    def _tabChosen(self) -> None:
        parameters = self.context.parameters
        if parameters is None:
            return
        parameters.task = TASKS[self.ui.taskTabWidget.currentIndex]
        parameters.guessed = True
        self.proposals.fillOpenTab()

    def _chooseTask(self, task: str) -> None:
        parameters = self.context.parameters
        if parameters is not None and parameters.task != task:
            parameters.task = task

    def _problem(self, task: str) -> str:
        """Why a task cannot run yet, "" if it can as far as the choices tell."""
        if not self.readiness.isInstalled:
            return _("Install the packages first; see the top of the panel.")
        problem = self.tabs[task].problem()
        return problem or (self.card.problem() if task == self.task else "")

    def _planSentence(self, node, manifest) -> str:
        parameters = self.context.parameters
        # The uncertainty of a translation takes a second look at every plane.
        samples = parameters.samples if self.task == "generate" else 1 + parameters.spread
        plan = self.logic.planFor(node, manifest.name, parameters.preset, parameters.device, samples)
        return plan.sentence if plan is not None else ""

    def _showButtons(self) -> None:
        if self.context.parameters is None:
            return
        reasons = {task: self._problem(task) for task in TASKS}
        reasons[self.task] = reasons[self.task] or self._blocked
        self.runSection.showButtons(self.task, reasons)

    def _mayOverwrite(self, node) -> bool:
        if node is None or node.GetImageData() is None:
            return True
        return self.context.dialogs.confirm(overwriteQuestion(node.GetName()), _("Overwrite volume"))

    def _devices(self) -> list[dict]:
        return self.logic.engine.info.get("devices", [])

    def _runOnCpu(self) -> None:
        self.context.parameters.device = "cpu"
        self.run(self.task)

    def _showModels(self) -> None:
        self.ui.modelsSection.collapsed = False

    def _hardenInput(self) -> None:
        copy = nodes.hardenedCopy(self.tab.inputNode)
        if self.task == "generate":
            self.context.parameters.generateInput = copy
        else:
            self.context.parameters.translateInput = copy

    def _hasSample(self) -> bool:
        from MedGenSlicer import samples

        manifest = self.tab.manifest
        return manifest is not None and samples.forModel(manifest.name) is not None

    def _loadSample(self) -> None:
        from MedGenSlicer import samples

        manifest = self.tab.manifest
        if manifest is None:
            return
        node = samples.loadFor(manifest.name)
        parameters = self.context.parameters
        parameters.guessed = True
        if self.task == "generate":
            parameters.generateInput = node
        else:
            parameters.translateInput = node

    def _engineChanged(self) -> None:
        self.context.guarded(self.readiness.refresh)

    def _nodeRemoved(self, caller=None, event=None) -> None:
        self.context.guarded(self.result.nodeRemoved)

    def _watch(self, node) -> None:
        """Check again when the input changes."""
        if self.watcher.watch(node):
            self.inputCheck.invalidate()

    def _inputChanged(self) -> None:
        self.inputCheck.invalidate()
        if self._isEntered:
            self.scheduleCheck()

    def _painted(self) -> None:
        """A brush stroke changes voxels; that only matters while the mask was still empty."""
        if self._blocked:
            self._inputChanged()


def _isWarped(node) -> bool:
    """Whether a node lies under a transform that is not linear."""
    transform = node.GetParentTransformNode() if node is not None else None
    return transform is not None and not transform.IsTransformToWorldLinear()
