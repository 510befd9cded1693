"""The tab *Translate CT / MR*."""

from slicer.i18n import tr as _

from MedGenSlicer.panel import guess, widgets
from MedGenSlicer.panel.catalogue import modalityText, modelItems
from MedGenSlicer.panel.context import Context
from MedGenSlicer.panel.tab import TaskTab


class TranslateTab(TaskTab):
    """Image, modality wanted, model, output."""

    task = "translate"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._guessedFor = ""
        context.bind(self._ui.translateTargetComboBox, "translateTarget", self._targetChosen)
        context.bind(self._ui.translateModelComboBox, "translateModel")

    @property
    def target(self) -> str:
        """The modality wanted; the first that a model makes where nothing was chosen yet."""
        targets = self._context.models.targets()
        return self._parameter("Target") or (targets[0] if targets else "")

    def update(self) -> None:
        super().update()
        models, manifest, target = self._context.models, self.manifest, self.target
        targets = list(dict.fromkeys([*models.targets(), *([target] if target else [])]))
        widgets.fillCombo(
            self._ui.translateTargetComboBox, [(modalityText(name), name, "") for name in targets], target
        )
        name = manifest.name if manifest else self._context.parameters.translateModel
        widgets.fillCombo(self._ui.translateModelComboBox, modelItems(models.translators(target), name), name)

    def guessTarget(self) -> None:
        """The other modality than the image's, each time another image is selected, until the user chooses."""
        parameters, node = self._context.parameters, self.inputNode
        nodeID = node.GetID() if node is not None and node.GetImageData() is not None else ""
        isKnown = nodeID == self._guessedFor and parameters.translateTarget
        if not nodeID or parameters.targetChosen or isKnown:
            return
        self._guessedFor = nodeID
        parameters.translateTarget = guess.target(node, self._context.models.targets())

    def arguments(self) -> dict:
        return {"to": self.target, "model": self.manifest.name, "uncertainty": self._context.parameters.spread}

    def _fitting(self):
        """The first model that makes the target."""
        fitting = self._context.models.translators(self.target)
        return fitting[0] if fitting else None

    def _noInput(self) -> str:
        return _("Select a CT or MR volume.")

    def _noModel(self, wanted: str) -> str:
        if wanted:
            return super()._noModel(wanted)
        return _("No installed model makes {modality}.").format(modality=modalityText(self.target))

    def _targetChosen(self) -> None:
        parameters = self._context.parameters
        parameters.targetChosen = True
        parameters.translateModel = ""  # the first model that makes it; the box below offers the others
