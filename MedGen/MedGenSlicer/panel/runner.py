"""From the buttons *Generate* and *Translate* to the result or the failure."""

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import Cancelled, MedGenError
from MedGenSlicer.models import useOf
from MedGenSlicer.panel.dialogs import overwriteQuestion
from MedGenSlicer.panel.sections.failure import suggestion


class Runner:
    """Starts the runs of the panel, one at a time, and shows how they end.

    Parameters
    ----------
    panel: whose choices count.
    """

    def __init__(self, panel) -> None:
        self._panel, self._context, self._sections = panel, panel.context, panel.sections
        self._run = panel.sections["run"]
        self.currentRun = None
        self._last: tuple[str, object, dict] | None = None
        connect, ui = self._context.connect, self._context.ui
        connect(ui.generateButton.clicked, lambda: self.run("generate"))
        connect(ui.translateButton.clicked, lambda: self.run("translate"))
        connect(ui.cancelButton.clicked, self.cancel)
        connect(ui.sameAgainButton.clicked, self.sameAgain)

    def run(self, task: str) -> None:
        """Start the task with the choices of the panel."""
        parameters = self._context.parameters
        if parameters is not None and parameters.task != task:
            parameters.task = task
        self._panel.check()
        tab = self._context.tab
        if self._panel.blocked or not self._mayOverwrite(tab.outputNode):
            return
        arguments = {
            **tab.arguments(),
            "preset": parameters.preset,
            "device": parameters.device,
            "outputNode": tab.outputNode,
        }
        if task == "generate":
            arguments["seed"] = self._sections["options"].nextSeed()
        self._context.withPackages(useOf(tab.manifest), lambda: self._start(task, tab.inputNode, arguments))

    def sameAgain(self) -> None:
        """Repeat the last run: same input, same settings, same seed, into a new volume."""
        if self._last is None or self._run.isRunning:
            return
        task, nodeID, arguments = self._last
        self._start(task, slicer.mrmlScene.GetNodeByID(nodeID), {**arguments, "outputNode": None})

    def cancel(self) -> None:
        """Stop the current run."""
        if self.currentRun is not None and self._run.isRunning:
            self._run.showCancelling()
            self.currentRun.cancel()

    def showFailure(self, error: MedGenError) -> None:
        """Show an error with what the user can do about it."""
        logic, parameters = self._context.logic, self._context.parameters
        device = parameters.device if parameters is not None else "auto"
        if device == "auto":
            onlyCPU = all(entry["name"] == "cpu" for entry in logic.engine.info.get("devices", []))
            device = "cpu" if onlyCPU else "gpu"
        readiness = self._sections["readiness"]
        readiness.refresh()
        label, action = self._actions()[suggestion(error, device, not readiness.isInstalled)]
        self._sections["failure"].show(error, label, action)

    def _start(self, task: str, node, arguments: dict) -> None:
        for name in ("failure", "result"):
            self._sections[name].hide()
        self._last = (task, node.GetID() if node is not None else "", arguments)
        self._run.start()
        self._panel.showButtons()
        guarded = self._context.guarded
        try:
            self.currentRun = getattr(self._context.logic, task)(
                node,
                wait=False,
                onProgress=lambda progress: guarded(self._run.showProgress, progress),
                onDone=lambda run: guarded(self._done, run),
                **arguments,
            )
        except BaseException:
            self._ended("")
            raise

    def _done(self, run) -> None:
        """The run has ended: done, failed or cancelled."""
        self.currentRun = None
        # The user's own doing is no failure, and its sentence has to outlive the scene.
        isWanted = isinstance(run.error, Cancelled) or run.error is not None and slicer.mrmlScene.IsClosing()
        self._ended(str(run.error) if isWanted else "")
        if run.error is None:
            for section in self._sections.values():
                section.made(run)
        elif not isWanted:
            self.showFailure(run.error)

    def _ended(self, status: str) -> None:
        self._run.finish(status)
        self._sections["result"].comeBack()
        self._panel.showButtons()
        self._panel.scheduleCheck()
        self._sections["readiness"].askDevices()

    def _actions(self) -> dict:
        return {
            "again": (_("Try again"), lambda: self.run(self._context.task)),
            "install": (_("Install…"), self._sections["readiness"].install),
            "cpu": (_("Use the CPU"), self._runOnCpu),
            "crop": (_("Crop the input…"), lambda: slicer.util.selectModule("CropVolume")),
            "license": (_("Show the license"), self._sections["card"].showLicense),
            "models": (_("Show the models"), self._showModels),
        }

    def _runOnCpu(self) -> None:
        self._context.parameters.device = "cpu"
        self.run(self._context.task)

    def _showModels(self) -> None:
        self._context.pages.open(self._context.ui.modelsPage)

    def _mayOverwrite(self, node) -> bool:
        if node is None or node.GetImageData() is None:
            return True
        return self._context.dialogs.confirm(overwriteQuestion(node.GetName()), _("Overwrite volume"))
