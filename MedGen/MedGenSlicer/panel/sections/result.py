"""What a run made: verdict, view, export, once more."""

import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.console import pythonLine
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import PanelSection
from MedGenSlicer.results.views import ResultView


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
        self._view = ResultView(lambda: context.guarded(self._showMode))
        ui = self._ui
        for button in (ui.compareButton, ui.show3DButton):
            button.setCheckable(True)
        context.connect(ui.resultComboBox.currentIndexChanged, self._show)
        context.connect(ui.blendSlider.valueChanged, lambda: self._view.blend(self._share))
        context.connect(ui.compareButton.clicked, lambda: self._toggle(ui.compareButton, self._view.showBeside))
        context.connect(ui.show3DButton.clicked, lambda: self._toggle(ui.show3DButton, self._view.show3D))
        context.connect(ui.dicomButton.clicked, self._export)
        context.connect(ui.copyPythonButton.clicked, self._copyPython)

    def made(self, run) -> None:
        self.run = run
        made = [node for node in (*run.nodes, run.spreadNode) if node is not None]
        self._nodeIDs = [node.GetID() for node in made]
        widgets.setIcon(self._ui.verdictIcon, "ok" if run.passed else "warning")
        self._ui.verdictLabel.text, self._ui.verdictLabel.toolTip = words.lines(verdict(run), most=4)
        self._ui.copyPythonButton.text = _("Copy as Python")
        self._ui.resultFrame.setVisible(True)
        self._view.showOver()
        with widgets.quiet(self._ui.blendSlider):
            self._ui.blendSlider.setValue(0)  # the result alone comes first
        self._fill(self._nodeIDs[0])
        self._show()

    def hide(self) -> None:
        """Another run begins; the views stay as they are until it has a result."""
        self._ui.resultFrame.setVisible(False)

    def comeBack(self) -> None:
        """The run has ended; what an earlier one made is there again, if anything is."""
        self._ui.resultFrame.setVisible(self.run is not None)

    def forget(self) -> None:
        self._clear()

    def close(self) -> None:
        self._view.close()

    def nodeRemoved(self) -> None:
        left = [nodeID for nodeID in self._nodeIDs if slicer.mrmlScene.GetNodeByID(nodeID) is not None]
        if left != self._nodeIDs:
            shown, self._nodeIDs = widgets.chosen(self._ui.resultComboBox), left
            if not left:
                self._clear()
                return
            self._fill(shown)
            if shown not in left:
                self._show()
        elif self._view.hasInput and self._inputNode() is None:
            self._show()

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

    @property
    def _share(self) -> float:
        return self._ui.blendSlider.value / 100

    def _inputNode(self):
        return self.run.snapshot.node if self.run is not None else None

    def _clear(self) -> None:
        """There is no result to show."""
        self.run, self._nodeIDs = None, []
        self._view.close()
        self.hide()

    def _fill(self, selectedID: str) -> None:
        nodes = [slicer.mrmlScene.GetNodeByID(nodeID) for nodeID in self._nodeIDs]
        widgets.fillCombo(self._ui.resultComboBox, [(node.GetName(), node.GetID(), "") for node in nodes], selectedID)
        for widget in (self._ui.resultLabel, self._ui.resultComboBox):
            widget.setVisible(len(nodes) > 1)

    def _show(self) -> None:
        self._view.show(self._inputNode(), self.node(), self._share)
        self._showMode()

    def _toggle(self, button, show) -> None:
        try:
            if button.checked:
                show()
            else:
                self._view.showOver()
        finally:
            self._showMode()

    def _showMode(self) -> None:
        """The buttons and the slider say what the views do."""
        ui, mode, hasInput = self._ui, self._view.mode, self._inputNode() is not None
        for button, its in ((ui.compareButton, "beside"), (ui.show3DButton, "3D")):
            button.setChecked(mode == its)
        ui.compareButton.setEnabled(hasInput)
        ui.blendSlider.setEnabled(hasInput and mode != "beside")

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
    return [first, *(words.inPanel(sentence) for sentence in run.sentences)]
