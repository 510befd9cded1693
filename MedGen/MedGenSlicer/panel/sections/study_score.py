"""The tab *Score* of a reader study: how well the readers separate synthetic images from real ones."""

import qt
from slicer.i18n import tr as _

from MedGenSlicer.jobs.dicom import newFolder
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection
from MedGenSlicer.results import tables


class ScoreTab(RunningSection):
    """Scores to a table node, and a report with the ROC curve in the browser."""

    def __init__(self, context: Context, ui) -> None:
        super().__init__(context, ui.scoreLabel, ui)
        ui.scoreTable.verticalHeader().setVisible(False)
        ui.scoreTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        context.connectPath(ui.scoreStudyEdit, self.update)
        context.connect(ui.scoreButton.clicked, self._chooseFolder)
        self.update()

    def update(self) -> None:
        """Enable the button once a study is chosen."""
        self._ui.scoreButton.setEnabled(bool(self._ui.scoreStudyEdit.currentPath) and not self._isRunning)

    def score(self, folder: str) -> None:
        """Score in the worker; the report goes into a new folder below `folder`."""
        self._ask(
            _("Scoring…"),
            "reader_study/score",
            {
                "study": self._ui.scoreStudyEdit.currentPath,
                "key": self._ui.scoreKeyEdit.currentPath or None,
                "output": newFolder(folder, _("reader study scores")),
            },
        )

    def _chooseFolder(self) -> None:
        folder = self._context.dialogs.folder(_("Folder for the scores"))
        if folder:
            self._context.withPackages("reports", lambda: self.score(folder))

    def _shown(self, answer: dict) -> str:
        note = answer.get("note") or ""
        node = tables.addTable(_("Reader study"), answer["rows"], note)
        widgets.fillTable(self._ui.scoreTable, node, _("Reader"))
        self._ui.scoreTable.setVisible(True)
        if answer.get("report"):
            self._context.dialogs.open(answer["report"])
        return _("In the scene as '{name}'. {note}").format(name=node.GetName(), note=note)
