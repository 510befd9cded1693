"""The tab *Prepare* of a reader study: a blinded reading list from two folders."""

from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenSlicer.jobs.dicom import newFolder
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.ask import askWorker
from MedGenSlicer.panel.context import Context


class MakeTab:
    """Two folders, what is shown of their volumes, and where the study goes.

    Parameters
    ----------
    onMade: called with the folder of a study that was prepared.
    """

    def __init__(self, context: Context, ui, onMade: Callable[[str], None]) -> None:
        self._context, self._ui, self._onMade = context, ui, onMade
        self._isRunning = False
        widgets.fillCombo(
            ui.itemsComboBox, [(_("Slices"), "slices", ""), (_("Whole volumes"), "volumes", "")], "slices"
        )
        for edit in (ui.realFolderEdit, ui.syntheticFolderEdit, ui.studyTargetEdit):
            context.connect(edit.currentPathChanged, self.update)
        context.connect(ui.itemsComboBox.currentIndexChanged, self.update)
        context.connect(ui.makeStudyButton.clicked, self.make)
        self.update()

    def update(self) -> None:
        """Enable what can be done with what is chosen."""
        ui = self._ui
        for widget in (ui.perVolumeLabel, ui.perVolumeSpinBox):
            widget.setEnabled(widgets.chosen(ui.itemsComboBox) == "slices")
        paths = (ui.realFolderEdit.currentPath, ui.syntheticFolderEdit.currentPath, ui.studyTargetEdit.currentPath)
        ui.makeStudyButton.setEnabled(all(paths) and not self._isRunning)

    def make(self) -> None:
        """Prepare the study in the worker."""
        ui = self._ui
        self._isRunning = True
        self.update()
        self._tell(_("Preparing…"))
        askWorker(
            self._context,
            "reader_study/make",
            {
                "real": [ui.realFolderEdit.currentPath],
                "synthetic": [ui.syntheticFolderEdit.currentPath],
                "output": newFolder(ui.studyTargetEdit.currentPath, _("reader study")),
                "items": widgets.chosen(ui.itemsComboBox),
                "per_volume": ui.perVolumeSpinBox.value,
            },
            self._done,
            self._tell,
            self._ended,
        )

    def _done(self, answer: dict) -> None:
        self._onMade(answer["study"])
        text = _(
            "{count} images are ready to read in {study}. The key that tells which is which is {key}; keep it from"
            " the readers."
        ).format(count=answer["items"], study=answer["study"], key=answer["key"])
        self._tell("\n".join([text, *answer.get("warnings", [])]))

    def _ended(self) -> None:
        self._isRunning = False
        self.update()

    def _tell(self, text: str) -> None:
        self._ui.makeStudyLabel.text = text
        self._ui.makeStudyLabel.setVisible(bool(text))
