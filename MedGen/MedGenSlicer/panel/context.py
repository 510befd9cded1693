"""What every section of the panel shares."""

import logging
import traceback
from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError, WorkerError


class Context:
    """The widgets, the logic, the dialogs and the parameter node of the scene that is open.

    Attributes
    ----------
    ui: widgets of MedGen.ui by name.
    parameters: MedGenParameterNode, None while a scene is closed.
    changed: call it after a choice that matters for the run; the panel checks the input again.
    failed: call it with a MedGenError to show it.
    unexpected: tracebacks of faults that no sentence was written for.
    """

    def __init__(self, ui, logic, dialogs) -> None:
        self.ui = ui
        self.logic = logic
        self.dialogs = dialogs
        self.parameters = None
        self.changed: Callable[[], None] = _nothing
        self.failed: Callable[[MedGenError], None] = _nothing
        self.unexpected: list[str] = []

    def connect(self, signal, function: Callable[[], None]) -> None:
        """Call `function` without arguments at a Qt signal; what it raises is shown, never lost in Qt."""

        def slot():
            self.guarded(function)

        signal.connect(slot)

    def guarded(self, function: Callable, *arguments) -> None:
        """Call `function`; an error becomes the failure box of the panel."""
        try:
            function(*arguments)
        except MedGenError as error:
            self.failed(error)
        except Exception as error:
            text = traceback.format_exc()
            self.unexpected.append(text)
            logging.error("MedGen panel: %s", text)
            fault = WorkerError(
                _("Something unexpected happened ({kind}); copy the report and send it to the authors.").format(
                    kind=type(error).__name__
                )
            )
            fault.detail = text
            self.failed(fault)


def _nothing(*unused) -> None:
    pass
