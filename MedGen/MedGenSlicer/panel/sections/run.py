"""What is known before the run, the buttons, and its progress."""

from slicer.i18n import tr as _

from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection


class RunSection(PanelSection):
    """Input check, plan line, Run or Cancel, progress, log."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self.isRunning = False
        self._cancelling = False
        context.pages.onOpened(self._ui.logPage, self.updateLog)

    def showCheck(
        self, problem: str, findings: list, plan: str, isPending: bool = False, canHarden: bool = False
    ) -> None:
        """What stands in the way, else what the input check found, and the plan.

        Parameters
        ----------
        problem: one sentence that says what is missing; "" when nothing is.
        findings: of the input check.
        plan: "about 9 s on CPU, 1.1 GB"; "" where it is not known.
        isPending: whether the check is still on.
        canHarden: whether a hardened copy of the input would help.
        """
        if problem:
            icon, sentences = "info", [words.inPanel(problem)]
        elif findings:
            icon, sentences = "warning", [words.inPanel(finding.sentence) for finding in findings]
        elif isPending:
            icon, sentences = "wait", [_("Checking the input…")]
        else:
            icon, sentences = "ok", [_("The input suits the model.")]
        widgets.setIcon(self._ui.checkIcon, icon)
        self._ui.checkLabel.text, self._ui.checkLabel.toolTip = words.lines(sentences)
        self._ui.hardenButton.setVisible(canHarden)
        self._ui.planLabel.text = _("Plan: {plan}").format(plan=plan) if plan else ""
        self._ui.planLabel.setVisible(bool(plan) and not self.isRunning)

    def showButtons(self, task: str, reasons: dict[str, str]) -> None:
        """Show the button of the task, or Cancel during a run; `reasons` say why a task cannot run, "" if it can."""
        buttons = {"generate": self._ui.generateButton, "translate": self._ui.translateButton}
        for name, button in buttons.items():
            reason = reasons.get(name, "")
            button.setVisible(name == task and not self.isRunning)
            button.setEnabled(not reason and not self.isRunning)
            button.toolTip = reason or self._purpose(name)
        self._ui.cancelButton.setVisible(self.isRunning)

    def start(self) -> None:
        """Show that the run has started."""
        self.isRunning = True
        self._cancelling = False
        self._ui.cancelButton.setEnabled(True)
        self._ui.checkWidget.setVisible(False)
        self._ui.planLabel.setVisible(False)
        self._ui.progressBar.setVisible(True)
        self.showProgress({"stage": _("preparing")})

    def showProgress(self, progress: dict) -> None:
        """One progress notification of the worker."""
        if not self.isRunning or self._cancelling:
            return
        step, total = progress.get("step") or 0, progress.get("total") or 0
        bar = self._ui.progressBar
        # Without a number of steps the bar only moves.
        bar.setRange(0, total if total > 1 else 0)
        bar.setValue(min(step, total))
        self.showStatus(words.stage(progress))
        self.updateLog()

    def showCancelling(self) -> None:
        """Cancel was pressed; it takes a moment."""
        self._cancelling = True
        self._ui.cancelButton.setEnabled(False)
        self._ui.progressBar.setRange(0, 0)
        self.showStatus(_("Cancelling…"))

    def finish(self, status: str) -> None:
        """The run has ended; `status` is one short sentence, "" where another part of the panel shows it."""
        self.isRunning = False
        self._ui.checkWidget.setVisible(True)
        self._ui.progressBar.setVisible(False)
        self._ui.progressBar.setRange(0, 100)
        self.showStatus(status)
        self.updateLog()

    def showStatus(self, text: str) -> None:
        """The line below the button."""
        widgets.tell(self._ui.statusLabel, text)

    def updateLog(self) -> None:
        """Show the newest lines, if the log is open."""
        if not self._context.pages.isOpen(self._ui.logPage):
            return
        text = self._context.logic.engine.log
        if text != self._ui.logText.plainText:
            self._ui.logText.setPlainText(text)
            bar = self._ui.logText.verticalScrollBar()
            bar.setValue(bar.maximum)

    @staticmethod
    def _purpose(task: str) -> str:
        if task == "generate":
            return _("Make the image from the mask; Slicer stays usable")
        return _("Make the other modality from the image; Slicer stays usable")
