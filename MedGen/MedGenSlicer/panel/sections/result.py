"""What a run made: verdict, view, export, once more."""

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.console import pythonLine
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection
from MedGenSlicer.results import views


class ResultBox(PanelSection):
    """The box below the button once a run has ended well.

    Attributes
    ----------
    run: the run shown, None when there is none.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._ui = context, context.ui
        self.run = None
        self._nodeIDs: list[str] = []
        ui = self._ui
        context.connect(ui.resultComboBox.currentIndexChanged, self._show)
        context.connect(ui.blendSlider.valueChanged, self._blend)
        context.connect(ui.compareButton.clicked, self._compare)
        context.connect(ui.show3DButton.clicked, lambda: views.show3D(self.node()))
        context.connect(ui.dicomButton.clicked, self._export)
        context.connect(ui.copyPythonButton.clicked, self._copyPython)

    def made(self, run) -> None:
        self.run = run
        made = [node for node in (*run.nodes, run.spreadNode) if node is not None]
        self._nodeIDs = [node.GetID() for node in made]
        widgets.setIcon(self._ui.verdictIcon, "ok" if run.passed else "warning")
        self._ui.verdictLabel.text, self._ui.verdictLabel.toolTip = words.lines(verdict(run), most=4)
        widgets.fillCombo(
            self._ui.resultComboBox, [(node.GetName(), node.GetID(), "") for node in made], self._nodeIDs[0]
        )
        for widget in (self._ui.resultLabel, self._ui.resultComboBox):
            widget.setVisible(len(made) > 1)
        self._ui.copyPythonButton.text = _("Copy as Python")
        self._ui.resultFrame.setVisible(True)
        self._show()

    def hide(self) -> None:
        """There is no result to show."""
        self.run = None
        self._nodeIDs = []
        self._ui.resultFrame.setVisible(False)

    def forget(self) -> None:
        self.hide()

    def nodeRemoved(self) -> None:
        if self._nodeIDs and not any(slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in self._nodeIDs):
            self.hide()

    def node(self):
        """The volume that is selected.

        Raises
        ------
        InputError: it was deleted.
        """
        node = slicer.mrmlScene.GetNodeByID(widgets.chosen(self._ui.resultComboBox))
        if node is None:
            raise InputError(_("The result is no longer in the scene; run once more."))
        return node

    def _inputNode(self):
        return self.run.snapshot.node if self.run is not None else None

    def _show(self) -> None:
        views.showOver(self._inputNode(), self.node(), self._ui.blendSlider.value / 100)

    def _blend(self) -> None:
        views.setOpacity(self._ui.blendSlider.value / 100)

    def _compare(self) -> None:
        views.compareSideBySide(self._inputNode(), self.node())

    def _export(self) -> None:
        """Select it in the section that exports to DICOM."""
        self._context.parameters.exportNode = self.node()
        self._ui.exportSection.collapsed = False

    def _copyPython(self) -> None:
        self._context.dialogs.copy(pythonLine(self.run.parameters))
        self._ui.copyPythonButton.text = _("Python copied")


def verdict(run) -> list[str]:
    """The verdict of the quality checks in words, then what they noticed."""
    first = _("The quality checks passed.") if run.passed else _("The quality checks found problems; look closely.")
    return [first, *run.sentences]
