"""The page *Enhance*: finer slices, less noise, even brightness, no ghosts."""

from typing import Any

from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError
from MedGenLib.options import validate
from MedGenSlicer.engine.background import ignore
from MedGenSlicer.nodes.inputs import outlineOf
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.section import RunningSection
from MedGenSlicer.panel.watch import InputWatcher
from MedGenSlicer.results import views

CONTROLS = {
    "superres": ("Second", "Third", "Spacing", "Thickness", "Register"),
    "denoise": ("Strength", "Noise"),
    "debias": ("Strength",),
    "deghost": ("Strength",),
}
"""Task -> what the page shows for it, beside the image."""


class EnhanceSection(RunningSection):
    """Makes a volume from the selected one, and says before what it will be."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, None)
        self._watcher = InputWatcher(lambda: context.guarded(self.update), ignore)
        context.pages.onOpened(self._ui.enhancePage, self.update)

    def forget(self) -> None:
        self.close()
        if self._label is not None:
            self._tell("")

    def close(self) -> None:
        self._watcher.watch(None)

    def update(self) -> None:
        parameters, ui = self._context.parameters, self._ui
        if parameters is None or not self._context.pages.isOpen(ui.enhancePage):
            return
        if self._label is None:
            self._load()
        self._watcher.watch(parameters.enhanceImage)
        widgets.selectData(ui.enhanceTaskComboBox, parameters.enhanceTask)
        for name in {name for names in CONTROLS.values() for name in names}:
            for widget in _widgetsOf(ui, name):
                widget.setVisible(name in CONTROLS[self._task])
        ui.enhanceRegisterCheckBox.setEnabled(bool(parameters.enhanceSecond or parameters.enhanceThird))
        isPossible, sentence = self._plan()
        ui.enhancePlanLabel.text = words.inPanel(sentence)
        ui.enhanceButton.text = _("Cancel") if self._isRunning else _("Enhance")
        ui.enhanceButton.setEnabled(self._isRunning or isPossible)

    def _load(self) -> None:
        """The form comes when the page is first opened."""
        context, ui = self._context, self._ui
        self._loadForm(ui.enhancePage, "Enhance")
        titles = (_("Finer slices"), _("Less noise"), _("Even brightness"), _("No ghosts"))
        tasks = zip(titles, CONTROLS, strict=True)
        widgets.fillCombo(ui.enhanceTaskComboBox, [(title, task, "") for title, task in tasks], "superres")
        context.bind(ui.enhanceTaskComboBox, "enhanceTask")
        context.connect(ui.enhanceButton.clicked, self._startOrCancel)
        for box in (
            ui.enhanceSpacingSpinBox,
            ui.enhanceThicknessSpinBox,
            ui.enhanceStrengthSpinBox,
            ui.enhanceNoiseSpinBox,
        ):
            context.connect(box.valueChanged, self.update)

    @property
    def _task(self) -> str:
        return widgets.chosen(self._ui.enhanceTaskComboBox)

    def _plan(self) -> tuple[bool, str]:
        """Whether it can run, and what will be made or why not."""
        from MedGenSlicer.jobs.enhance import planned

        image, chosen = self._context.parameters.enhanceImage, self._chosen()
        if image is None:
            return False, _("Select the image to enhance.")
        try:
            options = validate("enhance", {"volumeNode": image, **chosen}, "slicer")
            outlines = {
                name: outlineOf(options[name], "volume")
                for name in ("image", "second", "third")
                if options[name] is not None
            }
            return True, planned({**options, **outlines}) + "."
        except MedGenError as error:
            return False, str(error)

    def _chosen(self) -> dict[str, Any]:
        """The options of the task; 0 is automatic."""
        parameters, ui = self._context.parameters, self._ui
        values = {
            "Second": ("secondNode", parameters.enhanceSecond),
            "Third": ("thirdNode", parameters.enhanceThird),
            "Spacing": ("spacing", ui.enhanceSpacingSpinBox.value or None),
            "Thickness": ("thickness", ui.enhanceThicknessSpinBox.value or None),
            "Register": ("register", parameters.enhanceRegister),
            "Strength": ("strength", ui.enhanceStrengthSpinBox.value / 100),
            "Noise": ("noise", ui.enhanceNoiseSpinBox.value or None),
        }
        return {"task": self._task, **dict(values[name] for name in CONTROLS[self._task])}

    def _start(self) -> None:
        parameters, logic = self._context.parameters, self._context.logic
        self._run(_("Enhancing…"), logic.enhance, parameters.enhanceImage, device=parameters.device, **self._chosen())

    def _shown(self, run) -> str:
        from MedGenLib.enhancement.measures import in_words

        views.showInstead(run.snapshot.node, run.node)
        facts = run.report["parameters"]
        return " ".join(
            (
                _("In the scene as '{name}'.").format(name=run.node.GetName()),
                in_words(facts, run.node.GetAttribute("MedGen.Unit") or ""),
                *map(words.inPanel, run.sentences),
                _disclaimer(facts["task"]),
            )
        )

    def _tell(self, sentence: str) -> None:
        super()._tell(words.inPanel(sentence))


def _widgetsOf(ui, name: str) -> list:
    """The label and the input of a control."""
    ends = ("Label", "Selector", "SpinBox", "CheckBox")
    return [widget for end in ends if (widget := getattr(ui, f"enhance{name}{end}", None)) is not None]


def _disclaimer(task: str) -> str:
    estimated = {
        "superres": _("What lies between the slices is an estimate; not for diagnosis."),
        "denoise": _("Weak structures may vanish with the noise; not for diagnosis."),
    }
    return estimated.get(task, _("Not for diagnosis."))
