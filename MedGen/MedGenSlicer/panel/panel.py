"""The panel: puts the sections together and leads from the input to the run."""

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from MedGenLib.errors import MedGenError
from MedGenSlicer import samples
from MedGenSlicer.nodes.copies import hardenedCopy
from MedGenSlicer.nodes.geometry import isWarped
from MedGenSlicer.panel import sections, widgets
from MedGenSlicer.panel.check import InputCheck
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.dialogs import Dialogs
from MedGenSlicer.panel.hounsfield import HounsfieldQuestion
from MedGenSlicer.panel.pages import fit
from MedGenSlicer.panel.proposals import Proposals
from MedGenSlicer.panel.runner import Runner
from MedGenSlicer.panel.selections import Selections
from MedGenSlicer.panel.watch import InputWatcher

CHECK_DELAY_MS = 150
WORKER_DELAY_MS = 1000
STATUS_MS = 10_000
"""How long Slicer's status bar shows a sentence."""


class Panel(VTKObservationMixin):
    """Connects widgets, parameter node and logic.

    Parameters
    ----------
    ui: the widgets of MedGen.ui as attributes.
    logic: a MedGenLogic.
    dialogs: asks the user; tests give one that answers.

    Attributes
    ----------
    sections: each section by its name in `MedGenSlicer.panel.sections.SECTIONS`.
    """

    def __init__(self, ui, logic, dialogs: Dialogs | None = None) -> None:
        VTKObservationMixin.__init__(self)
        self.ui, self.logic = ui, logic
        self.context = Context(ui, logic, dialogs or Dialogs())
        self.sections = sections.made(self.context)
        self.readiness = self.sections["readiness"]
        self.proposals = Proposals(self.context)
        self.inputCheck = InputCheck(self.context, self._showCheck)
        self.hounsfield = HounsfieldQuestion(self.context)
        self.watcher = InputWatcher(self._inputChanged, self._painted)
        self.selections = Selections(self._deselected, lambda parameter: widgets.titleOf(ui, parameter))
        self.runner = Runner(self)
        self.context.changed, self.context.failed = self.scheduleCheck, self.runner.showFailure
        self.context.withPackages, self.context.addForm = self.readiness.withPackages, self._addForm
        self._guiTag = None
        self._isEntered = True
        self.blocked = ""
        guarded = self.context.guarded
        self._checkTimer = widgets.singleShot(CHECK_DELAY_MS, lambda: guarded(self.check))
        self._guessTimer = widgets.singleShot(CHECK_DELAY_MS, lambda: guarded(self.guess))
        self._workerTimer = widgets.singleShot(WORKER_DELAY_MS, lambda: guarded(self.readiness.startWorker))
        self.readiness.onDevices(self.sections["options"].setDevices)
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
        """Another module was opened; a run continues, but nothing is proposed and no worker is started or kept."""
        self._isEntered = False
        self._each("pause")
        self._guessTimer.stop()
        self._workerTimer.stop()
        self.logic.engine.endIfIdle()

    def close(self) -> None:
        """The widget goes: let go of the scene and stop all timers."""
        for timer in (self._checkTimer, self._guessTimer, self._workerTimer):
            timer.stop()
        self.logic.engine.removeObserver(self._engineChanged)
        self._each("close")
        self.setParameterNode(None)
        self.selections.removeObservers()
        self.removeObservers()

    def setParameterNode(self, parameters) -> None:
        """Show another parameter node, or none while a scene is closed."""
        old = self.context.parameters
        if old is not None:
            old.disconnectGui(self._guiTag)
            self.removeObserver(old.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parametersChanged)
        self.context.parameters = parameters
        self.selections.follow(parameters)
        self._watch(None)
        if parameters is None:
            self._each("pause")
            self._each("forget")
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
    def isBusy(self) -> bool:
        """Whether a check or a proposal is due; for scripts that set choices and then read the panel."""
        return self._checkTimer.active or self._guessTimer.active or self.inputCheck.isPending

    @property
    def tab(self):
        """The tab that is open."""
        return self.context.tab

    def guess(self) -> None:
        """Propose task and inputs; nothing that was chosen changes."""
        self.proposals.propose()

    def update(self) -> None:
        """Show the parameter node; quick."""
        if self.context.parameters is None:
            return
        with widgets.quiet(self.ui.taskTabWidget):
            self.ui.taskTabWidget.setCurrentIndex(list(self.context.tabs).index(self.context.task))
        fit(self.ui.taskTabWidget)
        self._each("update")
        self._watch(self.tab.inputNode)
        self.showButtons()

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
        self.context.tabs["translate"].guessTarget()
        self.update()
        tab = self.tab
        self.inputCheck.update(tab.inputNode, tab.manifest, tab.checkArguments())
        self._showCheck()
        # "ready" can be left from a worker that has ended; where one is there, this starts no other.
        if tab.inputNode is not None and self.readiness.state in ("idle", "ready"):
            self._workerTimer.start()

    def showButtons(self) -> None:
        """Enable the button of each task that can run."""
        if self.context.parameters is None:
            return
        reasons = {task: self._problem(task) for task in self.context.tabs}
        reasons[self.context.task] = reasons[self.context.task] or self.blocked
        self.sections["run"].showButtons(self.context.task, reasons)

    def _showCheck(self) -> None:
        """What is known of the input, the plan, and whether the button can be pressed."""
        if self.context.parameters is None:
            return
        node, manifest, findings = self.tab.inputNode, self.tab.manifest, self.inputCheck.findings
        problem, plan = self._problem(self.context.task), self.tab.note()
        if node is not None and manifest is not None:
            try:
                plan = self._planSentence(node, manifest)
            except MedGenError as error:
                problem = problem or str(error)
        errors = " ".join(finding.sentence for finding in findings if finding.level == "error")
        self.blocked = problem or errors
        run = self.sections["run"]
        run.showCheck(problem, findings, plan, self.inputCheck.isPending, canHarden=isWarped(node))
        hasSample = manifest is not None and samples.forModel(manifest.name) is not None
        self.ui.sampleButton.setVisible(node is None and hasSample and not run.isRunning)
        self.ui.cardSampleButton.setVisible(hasSample)
        self.showButtons()
        self.hounsfield.ask(self.tab, findings)

    def _problem(self, task: str) -> str:
        """Why a task cannot run yet, "" if it can as far as the choices show."""
        if not self.readiness.isInstalled:
            return _("Install the packages first; see the top of the panel.")
        problem = self.context.tabs[task].problem()
        return problem or (self.sections["card"].problem() if task == self.context.task else "")

    def _planSentence(self, node, manifest) -> str:
        from MedGenLib.pipelines.estimate import looks

        parameters = self.context.parameters
        isGeneration = self.context.task == "generate"
        count = parameters.samples if isGeneration else looks(manifest, parameters.spread)
        plan = self.logic.planFor(node, manifest.name, parameters.preset, parameters.device, count)
        noise = _("Noise {noise}").format(noise=plan.noise) if plan.noise else _("No particular scan")
        self.ui.styleSelector.noneDisplay = noise
        return plan.sentence

    # Small steps

    def _each(self, moment: str, *arguments) -> None:
        """Tell every section of a moment (see `PanelSection`)."""
        for section in self.sections.values():
            getattr(section, moment)(*arguments)

    def _connect(self) -> None:
        connect, ui = self.context.connect, self.ui
        connect(ui.taskTabWidget.currentChanged, self._tabChosen)
        connect(ui.hardenButton.clicked, self._hardenInput)
        for button in (ui.sampleButton, ui.cardSampleButton):
            connect(button.clicked, self._loadSample)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeRemovedEvent, self._nodeRemoved)

    def _addForm(self, form) -> None:
        """Bind the widgets of a form to the parameter node, as those of the panel."""
        form.setMRMLScene(slicer.mrmlScene)
        vars(self.ui).update(vars(slicer.util.childWidgetVariables(form)))
        self.context.parameters.disconnectGui(self._guiTag)
        self._guiTag = self.context.parameters.connectGui(self.ui)

    def _parametersChanged(self, caller=None, event=None) -> None:
        run = self.sections["run"]
        if not run.isRunning:
            run.showStatus("")  # the sentence about the last run is old now
        self.selections.follow(self.context.parameters)
        self.context.guarded(self.update)
        self.scheduleCheck()

    def _deselected(self, sentence: str) -> None:
        """A node that was selected is gone; its selectors may lie in a folded section."""
        if not self.sections["run"].isRunning:
            self.sections["run"].showStatus(sentence)
        slicer.util.showStatusMessage(sentence, STATUS_MS)

    def _tabChosen(self) -> None:
        parameters = self.context.parameters
        if parameters is None:
            return
        parameters.task = list(self.context.tabs)[self.ui.taskTabWidget.currentIndex]
        parameters.guessed = True
        self.proposals.fillOpenTab()

    def _hardenInput(self) -> None:
        self.tab.inputNode = hardenedCopy(self.tab.inputNode)

    def _loadSample(self) -> None:
        tab = self.tab
        if tab.manifest is None:
            return
        node = samples.loadFor(tab.manifest.name)
        self.context.parameters.guessed = True
        tab.inputNode = node

    def _engineChanged(self) -> None:
        self.context.guarded(self.readiness.refresh)

    def _nodeRemoved(self, caller=None, event=None) -> None:
        self.context.guarded(self._each, "nodeRemoved")

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
        if self.blocked:
            self._inputChanged()
