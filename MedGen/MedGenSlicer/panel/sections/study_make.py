"""The tab *Prepare* of a reader study: a blinded reading list from two folders."""

from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenSlicer.jobs.dicom import newFolder
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection


class MakeTab(RunningSection):
    """Two folders, what is shown of their volumes, and where the study goes.

    Parameters
    ----------
    onMade: called with the folder of a study that was prepared.
    """

    def __init__(self, context: Context, ui, onMade: Callable[[str], None]) -> None:
        super().__init__(context, ui.makeStudyLabel, ui)
        self._onMade = onMade
        widgets.fillCombo(
            ui.itemsComboBox, [(_("Slices"), "slices", ""), (_("Whole volumes"), "volumes", "")], "slices"
        )
        for edit in (ui.realFolderEdit, ui.syntheticFolderEdit, ui.studyTargetEdit):
            context.connectPath(edit, self.update)
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
        self._ask(
            _("Preparing…"),
            "reader_study/make",
            {
                "real": [ui.realFolderEdit.currentPath],
                "synthetic": [ui.syntheticFolderEdit.currentPath],
                "output": newFolder(ui.studyTargetEdit.currentPath, _("reader study")),
                "items": widgets.chosen(ui.itemsComboBox),
                "per_volume": ui.perVolumeSpinBox.value,
            },
        )

    def _shown(self, answer: dict) -> str:
        self._onMade(answer["study"])
        text = _(
            "{count} images are ready to read in {study}. The key that tells which is which is {key}; keep it from"
            " the readers."
        ).format(count=answer["items"], study=answer["study"], key=answer["key"])
        return "\n".join([text, *answer.get("warnings", [])])
