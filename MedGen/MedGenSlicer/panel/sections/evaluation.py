"""The section *Evaluate*: how close is a synthetic image to a real one, and does it show the labels it should?"""

import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError
from MedGenSlicer.jobs.dicom import newFolder
from MedGenSlicer.nodes.kinds import isMask
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection
from MedGenSlicer.results.error_map import ErrorMapView


class EvaluationSection(RunningSection):
    """Figures to a table node, the error map over the image, the report in the browser."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, context.ui.evaluateLabel)
        self._errorView = ErrorMapView()
        self._tableID = self._errorID = self._imageID = self._shownProblem = ""
        table = self._ui.evaluateTable
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        context.connect(table.itemSelectionChanged, self._tellMeaning)
        context.connect(self._ui.evaluateButton.clicked, self._pressed)
        context.connect(self._ui.reportButton.clicked, self._report)
        context.connect(self._ui.errorMapCheckBox.toggled, self._showErrorMap)
        context.connect(self._ui.saveTableButton.clicked, self._save)
        context.bind(self._ui.evaluateSegmenterComboBox, "evaluateSegmenter")
        context.connect(self._ui.evaluateSection.contentsCollapsed, self.update)

    def close(self) -> None:
        self._errorView.hide()

    def forget(self) -> None:
        self._errorView.hide()
        self._tableID = self._errorID = self._imageID = self._shownProblem = ""
        ui = self._ui
        for widget in (ui.evaluateTable, ui.meaningLabel, ui.saveTableButton, ui.errorMapCheckBox):
            widget.setVisible(False)
        self._tell("")

    def nodeRemoved(self) -> None:
        if self._errorID and slicer.mrmlScene.GetNodeByID(self._errorID) is None:
            self._errorID = ""
            self._errorView.hide()
            self._ui.errorMapCheckBox.setVisible(False)

    def update(self) -> None:
        """Enable what can be done with what is selected."""
        parameters = self._context.parameters
        if parameters is None:
            return
        if not self._ui.evaluateSection.collapsed:
            self._fillSegmenters(parameters.evaluateSegmenter)
        hasLabels = parameters.evaluateLabels is not None
        for widget in (self._ui.evaluateSegmenterLabel, self._ui.evaluateSegmenterComboBox):
            widget.setEnabled(hasLabels)
        problem = self._problem()
        self._ui.evaluateButton.text = _("Cancel") if self._isRunning else _("Compare")
        self._ui.evaluateButton.setEnabled(self._isRunning or not problem)
        self._ui.reportButton.setEnabled(not self._isRunning and not problem)
        if problem != self._shownProblem and not self._isRunning:
            self._shownProblem = problem
            self._tell(problem)

    def made(self, run) -> None:
        """The image to measure is the newest result, unless the user chose one. The mask it was made from, what finds
        its labels again and its spread come with it."""
        parameters = self._context.parameters
        if parameters is None or parameters.evaluateImage is not None:
            return
        parameters.evaluateImage = run.nodes[0]
        source = run.snapshot.node
        if isMask(source):
            parameters.evaluateLabels = source
            parameters.evaluateSegmenter = segmenterOf(run.manifest)
        if run.spreadNode is not None:
            parameters.evaluateUncertainty = run.spreadNode

    def evaluate(self, reportFolder: str | None = None) -> None:
        """Compare in the worker."""
        parameters = self._context.parameters
        self._imageID = parameters.evaluateImage.GetID()
        self._run(
            _("Comparing…"),
            self._context.logic.evaluate,
            parameters.evaluateImage,
            parameters.evaluateReference,
            parameters.evaluateMask,
            labelsNode=parameters.evaluateLabels,
            segmenter=parameters.evaluateSegmenter if parameters.evaluateLabels is not None else None,
            uncertaintyNode=parameters.evaluateUncertainty,
            reportFolder=reportFolder,
        )

    def save(self, path: str) -> None:
        """Write the table to a CSV file.

        Raises
        ------
        InputError: the table was deleted, or the file cannot be written.
        """
        if not slicer.util.saveNode(self._tableNode(), path):
            raise InputError(_("The file '{path}' cannot be written; choose another place.").format(path=path))
        self._tell(_("Saved to {path}").format(path=path))

    def _problem(self) -> str:
        """What is missing for an evaluation, as one sentence; "" for nothing."""
        parameters = self._context.parameters
        image, reference = parameters.evaluateImage, parameters.evaluateReference
        if image is None:
            return _("Select the synthetic image to judge.")
        if reference is not None and reference.GetID() == image.GetID():
            return _("The synthetic and the real image are the same volume; select another one.")
        if reference is not None:
            return ""
        if parameters.evaluateLabels is None:
            return _("Select a real image, or the structures that the image should show.")
        return "" if parameters.evaluateSegmenter else _("Select what finds the structures in the image.")

    def _pressed(self) -> None:
        if self._isRunning:
            self._context.logic.cancel()
        else:
            self.evaluate()

    def _shown(self, run) -> str:
        node = run.node
        self._tableID = node.GetID()
        self._errorID = run.errorNode.GetID() if run.errorNode is not None else ""
        widgets.fillTable(self._ui.evaluateTable, node)
        for widget in (self._ui.evaluateTable, self._ui.saveTableButton):
            widget.setVisible(True)
        self._tellMeaning()
        self._ui.errorMapCheckBox.setVisible(bool(self._errorID))
        with widgets.quiet(self._ui.errorMapCheckBox):
            self._ui.errorMapCheckBox.setChecked(True)
        if self._errorID:
            self._showErrorMap()
        if run.report:
            self._context.dialogs.open(run.report)
        return _("In the scene as '{name}'.").format(name=node.GetName())

    def _tellMeaning(self) -> None:
        """What the figure in the selected row says, below the table."""
        table = self._ui.evaluateTable
        cell = table.item(table.currentRow(), 0)
        isAny = cell is not None and bool(table.selectedItems())
        widgets.tell(self._ui.meaningLabel, cell.toolTip() if isAny else _("Select a figure to read what it means."))

    def _fillSegmenters(self, wanted: str) -> None:
        from MedGenLib.segmentation.segmenters import names

        items = [(_("Not looked for"), "", ""), *((self._segmenterText(n), n, sentence) for n, sentence in names())]
        if wanted not in [data for _text, data, _tip in items]:
            items.append((_("{name} (not installed)").format(name=wanted), wanted, ""))
        widgets.fillCombo(self._ui.evaluateSegmenterComboBox, items, wanted)

    def _segmenterText(self, name: str) -> str:
        manifest = self._context.models.named(name)
        if manifest is None:
            return name
        return manifest.title if manifest.task == "segment" else _("HU thresholds ({name})").format(name=name)

    def _report(self) -> None:
        folder = self._context.dialogs.folder(_("Folder for the report"))
        if folder:
            name = self._context.parameters.evaluateImage.GetName()
            reportFolder = newFolder(folder, _("Report of {name}").format(name=name))
            self._context.withPackages("reports", lambda: self.evaluate(reportFolder))

    def _showErrorMap(self) -> None:
        node = slicer.mrmlScene.GetNodeByID(self._errorID) if self._errorID else None
        if node is None:
            raise InputError(_("The error map is no longer in the scene; compare once more."))
        image = slicer.mrmlScene.GetNodeByID(self._imageID)
        if self._ui.errorMapCheckBox.checked:
            if image is None:
                raise InputError(_("The image is no longer in the scene; compare another one."))
            self._errorView.show(image, node)
        else:
            self._errorView.hide()

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


def segmenterOf(manifest) -> str:
    """What finds the labels of a model in its images; "" where nothing does."""
    known = manifest.statistics
    return known.segmenter.package if known.segmenter else manifest.name if known.resegment else ""
