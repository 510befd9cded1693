"""What the tabs of both tasks share: input, model and output."""

from __future__ import annotations

from slicer.i18n import tr as _

from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection


class TaskTab(PanelSection):
    """A tab for one task; its parameters begin with the name of the task."""

    task = ""
    hasUncertainty = True
    """Whether a map of uncertain areas can be made with what is chosen."""

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        context.tabs[self.task] = self

    @property
    def inputNode(self):
        """The node to work on, None where none is selected."""
        return self._parameter("Input")

    @inputNode.setter
    def inputNode(self, node) -> None:
        setattr(self._context.parameters, f"{self.task}Input", node)

    @property
    def outputNode(self):
        """The volume to write into, None for a new one."""
        return self._parameter("Output")

    @property
    def manifest(self):
        """The model that is selected or fits best, None where it is not installed."""
        wanted = self._parameter("Model")
        return self._context.models.named(wanted) if wanted else self._fitting()

    def update(self) -> None:
        """Show the output of the open tab; it is below the quality, which both tasks share."""
        for name in ("OutputLabel", "OutputSelector"):
            getattr(self._ui, self.task + name).setVisible(self._context.task == self.task)

    def problem(self) -> str:
        """Why it cannot run yet, as one sentence; "" when it can as far as this tab knows."""
        node, output = self.inputNode, self.outputNode
        if node is None:
            return self._noInput()
        if self.manifest is None:
            return self._noModel(self._parameter("Model"))
        if output is not None and output.GetID() == node.GetID():
            return _("The output would replace the input; choose another output.")
        return ""

    def note(self) -> str:
        """What a user should know of the model before the run."""
        return ""

    def checkArguments(self) -> dict:
        """What the input check needs besides node and model."""
        return {}

    def arguments(self) -> dict:
        """Keyword arguments of the logic's method that belong to this tab."""
        raise NotImplementedError

    def _fitting(self):
        """The model where none was chosen."""
        raise NotImplementedError

    def _noInput(self) -> str:
        raise NotImplementedError

    def _noModel(self, wanted: str) -> str:
        return _("The model '{name}' is not installed; choose another.").format(name=wanted)

    def _parameter(self, name: str):
        parameters = self._context.parameters
        return getattr(parameters, f"{self.task}{name}") if parameters is not None else None
