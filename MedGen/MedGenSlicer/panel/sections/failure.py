"""A run that failed: one sentence, what to do about it, and a report to send."""

from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenLib.errors import LicenseError, MedGenError, MemoryPlanError, PackageError, WorkerError
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection


class FailureBox(PanelSection):
    """The box that is shown when a run has failed."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self.error: MedGenError | None = None
        self._action: Callable[[], None] | None = None
        context.connect(self._ui.failureActionButton.clicked, self._act)
        context.connect(self._ui.copyReportButton.clicked, self.copyReport)
        context.connect(self._ui.showLogButton.clicked, lambda: context.pages.open(self._ui.logPage))

    def show(self, error: MedGenError, label: str = "", action: Callable[[], None] | None = None) -> None:
        """Show an error with a suggested action: the words on its button and what it does."""
        self.error, self._action = error, action
        widgets.setIcon(self._ui.failureIcon, "error")
        self._ui.failureLabel.text = words.inPanel(str(error))
        self._ui.failureActionButton.text = label
        self._ui.failureActionButton.setVisible(action is not None)
        self._ui.failureFrame.setVisible(True)

    def hide(self) -> None:
        """Nothing failed."""
        self.error = self._action = None
        self._ui.failureFrame.setVisible(False)

    def forget(self) -> None:
        self.hide()

    def report(self) -> str:
        """What happened, the log and the diagnostics, as text."""
        logic = self._context.logic
        parts = [
            ("MedGen", str(self.error) if self.error else ""),
            (_("Detail"), getattr(self.error, "detail", "") or ""),
            (_("Log"), logic.engine.log),
            (_("Diagnostics"), logic.dependencies.diagnostics()),
        ]
        return "\n\n".join(f"{title}\n{text.strip()}" for title, text in parts if text.strip()) + "\n"

    def copyReport(self) -> None:
        """Put the report on the clipboard."""
        self._context.dialogs.copy(self.report())
        self._ui.copyReportButton.text = _("Report copied")

    def _act(self) -> None:
        action = self._action
        self.hide()
        if action is not None:
            action()


def suggestion(error: MedGenError, device: str, missing: bool) -> str:
    """Which action suits an error.

    Returns
    -------
    "install", "cpu", "crop", "license", "models" or "again".
    """
    if isinstance(error, WorkerError) and missing:
        return "install"
    if isinstance(error, MemoryPlanError):
        return "crop" if device == "cpu" else "cpu"
    if isinstance(error, LicenseError):
        return "license"
    if isinstance(error, PackageError):
        return "models"
    return "again"
