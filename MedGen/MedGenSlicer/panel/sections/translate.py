"""The tab *Translate CT / MR*."""

from slicer.i18n import tr as _

from MedGenSlicer.panel import guess, widgets
from MedGenSlicer.panel.catalogue import Models, modalityText, modelItems
from MedGenSlicer.panel.context import Context


class TranslateTab:
    """Image, modality wanted, model, output."""

    task = "translate"

    def __init__(self, context: Context, models: Models) -> None:
        self._context = context
        self._ui = context.ui
        self._models = models
        self._guessedFor = ""
        context.connect(self._ui.translateTargetComboBox.currentIndexChanged, self._targetChosen)
        context.connect(self._ui.translateModelComboBox.currentIndexChanged, self._modelChosen)

    @property
    def inputNode(self):
        """The image, None where none is selected."""
        return self._context.parameters.translateInput if self._context.parameters else None

    @property
    def outputNode(self):
        """The volume to write into, None for a new one."""
        return self._context.parameters.translateOutput if self._context.parameters else None

    @property
    def target(self) -> str:
        """The modality wanted; the first that a model makes where nothing was chosen yet."""
        targets = self._models.targets()
        wanted = self._context.parameters.translateTarget if self._context.parameters else ""
        return wanted or (targets[0] if targets else "")

    @property
    def manifest(self):
        """The model chosen, or the first that makes the target; None where it is not installed."""
        wanted = self._context.parameters.translateModel if self._context.parameters else ""
        if wanted:
            return self._models.named(wanted)
        fitting = self._models.translators(self.target)
        return fitting[0] if fitting else None

    def update(self) -> None:
        """Show what the parameter node says."""
        manifest, target = self.manifest, self.target
        targets = list(dict.fromkeys([*self._models.targets(), *([target] if target else [])]))
        widgets.fillCombo(
            self._ui.translateTargetComboBox, [(modalityText(name), name, "") for name in targets], target
        )
        name = manifest.name if manifest else self._context.parameters.translateModel
        widgets.fillCombo(self._ui.translateModelComboBox, modelItems(self._models.translators(target), name), name)

    def guessTarget(self) -> None:
        """The other modality than the image's, each time another image is selected, until the user chooses."""
        parameters, node = self._context.parameters, self.inputNode
        nodeID = node.GetID() if node is not None and node.GetImageData() is not None else ""
        isKnown = nodeID == self._guessedFor and parameters.translateTarget
        if not nodeID or parameters.targetChosen or isKnown:
            return
        self._guessedFor = nodeID
        parameters.translateTarget = guess.target(node, self._models.targets())

    def problem(self) -> str:
        """Why it cannot run yet, as one sentence; "" when it can as far as this tab knows."""
        if self.inputNode is None:
            return _("Select a CT or MR volume.")
        if self.manifest is None:
            wanted = self._context.parameters.translateModel
            if wanted:
                return _("The model '{name}' is not installed; choose another.").format(name=wanted)
            return _("No installed model makes {modality}.").format(modality=modalityText(self.target))
        if self.outputNode is not None and self.outputNode.GetID() == self.inputNode.GetID():
            return _("The output would replace the input; choose another output.")
        return ""

    def checkArguments(self) -> dict:
        """What the input check needs besides node and model."""
        return {}

    def arguments(self) -> dict:
        """Keyword arguments of MedGenLogic.translate that belong to this tab."""
        return {"to": self.target, "model": self.manifest.name, "spread": self._context.parameters.spread}

    def _targetChosen(self) -> None:
        parameters = self._context.parameters
        if parameters is not None:
            parameters.translateTarget = widgets.chosen(self._ui.translateTargetComboBox)
            parameters.targetChosen = True
            # The first model that makes it; the box below offers the others.
            parameters.translateModel = ""

    def _modelChosen(self) -> None:
        if self._context.parameters is not None:
            self._context.parameters.translateModel = widgets.chosen(self._ui.translateModelComboBox)
