"""The section *Evaluate*: how close is a synthetic image to a real one?"""

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError, MedGenError
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context


class Evaluation:
    """Metrics to a table node of the scene, and from there to a CSV file."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ui = context.ui
        self._tableID = ""
        table = self._ui.evaluateTable
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        context.connect(self._ui.evaluateButton.clicked, self.evaluate)
        context.connect(self._ui.saveTableButton.clicked, self._save)

    def update(self) -> None:
        """Enable the button once both images are selected."""
        parameters = self._context.parameters
        image, reference = parameters.evaluateImage, parameters.evaluateReference
        same = image is not None and reference is not None and image.GetID() == reference.GetID()
        self._ui.evaluateButton.setEnabled(image is not None and reference is not None and not same)

    def propose(self, node) -> None:
        """The image to judge is the newest result, unless the user chose one."""
        if self._context.parameters is not None and self._context.parameters.evaluateImage is None:
            self._context.parameters.evaluateImage = node

    def evaluate(self) -> None:
        """Compare in the worker; the panel stays usable."""
        parameters = self._context.parameters
        self._ui.evaluateButton.setEnabled(False)
        self._tell(_("Comparing…"))
        self._context.logic.evaluate(
            parameters.evaluateImage, parameters.evaluateReference, parameters.evaluateMask, wait=False,
            onDone=lambda run: self._context.guarded(self._done, run))

    def save(self, path: str) -> None:
        """Write the table to a CSV file.

        Raises
        ------
        InputError: the table was deleted, or the file cannot be written.
        """
        if not slicer.util.saveNode(self._tableNode(), path):
            raise InputError(_("The file '{path}' cannot be written; choose another place.").format(path=path))
        self._tell(_("Saved to {path}").format(path=path))

    def _done(self, run) -> None:
        self._ui.evaluateButton.setEnabled(True)
        if run.error is not None:
            self._failed(run.error)
            return
        node = run.node
        self._tableID = node.GetID()
        self._fill(node)
        self._tell(_("In the scene as '{name}'.").format(name=node.GetName()))
        for widget in (self._ui.evaluateTable, self._ui.saveTableButton):
            widget.setVisible(True)

    def _failed(self, error: MedGenError) -> None:
        self._tell(str(error))

    def _fill(self, node) -> None:
        """Show the table node's first three columns: metric, value, unit; its last is a sentence, the tooltip."""
        table, source = self._ui.evaluateTable, node.GetTable()
        columns = min(3, source.GetNumberOfColumns())
        table.setColumnCount(columns)
        table.setHorizontalHeaderLabels([source.GetColumnName(column) for column in range(columns)])
        table.setRowCount(source.GetNumberOfRows())
        for row in range(source.GetNumberOfRows()):
            last = source.GetValue(row, source.GetNumberOfColumns() - 1).ToString()
            for column in range(columns):
                table.setItem(row, column, widgets.cell(source.GetValue(row, column).ToString(), last))
        for column in range(1, columns):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        widgets.fitRows(table)

    def _save(self) -> None:
        node = self._tableNode()
        path = self._context.dialogs.newFile(_("Save metrics"), f"{node.GetName()}.csv", _("CSV (*.csv)"))
        if path:
            self.save(path)

    def _tableNode(self):
        node = slicer.mrmlScene.GetNodeByID(self._tableID) if self._tableID else None
        if node is None:
            raise InputError(_("The table is no longer in the scene; compare once more."))
        return node

    def _tell(self, text: str) -> None:
        self._ui.evaluateLabel.text = text
        self._ui.evaluateLabel.setVisible(bool(text))
