"""The question whether an image that holds HU + 1024 should be used in HU."""

from slicer.i18n import tr as _

from MedGenLib.imaging.modality import STORED_OFFSET
from MedGenSlicer.nodes.copies import shiftedCopy
from MedGenSlicer.panel.context import Context

CODE = "hu-offset"
"""Of the finding of the input check."""


class HounsfieldQuestion:
    """Asks once while an image is selected."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._asked = ""  # the ID of a node

    def ask(self, tab, findings: list) -> None:
        """After an input check: select a copy in HU as the input of the tab, if the user wants one."""
        node = tab.inputNode
        selected = "" if node is None else node.GetID()
        if selected != self._asked:
            self._asked = ""
        if self._asked or all(finding.code != CODE for finding in findings):
            return
        self._asked = selected
        question = _(
            "The values of '{name}' look like HU + 1024. Make a copy of it in HU and use the copy? The original "
            "stays as it is."
        ).format(name=node.GetName())
        if self._context.dialogs.confirm(question, _("CT that is not in HU")):
            tab.inputNode = shiftedCopy(node, -STORED_OFFSET)
