"""The page *Breathe*: a breathing series of a CT of the chest."""

from slicer.i18n import tr as _

from MedGenSlicer.panel import words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection
from MedGenSlicer.results import views
from MedGenSlicer.results.sequences import sequencesOf


class BreatheSection(RunningSection):
    """Makes a sequence of the selected CT, and of the segmentation that moves along."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, None)
        context.pages.onOpened(self._ui.breathePage, self.update)

    def forget(self) -> None:
        if self._label is not None:
            self._tell("")

    def update(self) -> None:
        parameters, ui = self._context.parameters, self._ui
        if parameters is None or not self._context.pages.isOpen(ui.breathePage):
            return
        if self._label is None:
            self._load()
        ui.breatheButton.text = _("Cancel") if self._isRunning else _("Breathe")
        ui.breatheButton.setEnabled(self._isRunning or parameters.breatheVolume is not None)

    def _load(self) -> None:
        """The form comes when the page is first opened."""
        context, ui = self._context, self._ui
        self._loadForm(ui.breathePage, "Breathe")
        context.connect(ui.breatheButton.clicked, self._startOrCancel)

    def _start(self) -> None:
        parameters, ui = self._context.parameters, self._ui
        self._run(
            _("Breathing…"),
            self._context.logic.breathe,
            parameters.breatheVolume,
            ui.breathePhasesSpinBox.value,
            ui.breatheAmplitudeSpinBox.value,
            chest=ui.breatheChestSpinBox.value,
            trace=ui.breatheTraceEdit.currentPath or None,
            labelsNode=parameters.breatheLabels,
        )

    def _shown(self, run) -> str:
        views.showInstead(run.snapshot.node, run.node.GetProxyNode(sequencesOf(run.node)[0]))
        text = _("In the scene as '{name}'; the sequence browser plays it.").format(name=run.node.GetName())
        return " ".join([text, *map(words.inPanel, run.sentences), _("The motion is synthetic; not for diagnosis.")])

    def _tell(self, sentence: str) -> None:
        super()._tell(words.inPanel(sentence))
