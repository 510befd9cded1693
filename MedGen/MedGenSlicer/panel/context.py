"""What every section of the panel shares."""

import logging
import traceback
from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError, WorkerError
from MedGenSlicer.engine.background import ignore
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.catalogue import Models
from MedGenSlicer.panel.pages import Pages


class Context:
    """The widgets, the logic, the dialogs and the parameter node of the scene that is open.

    Attributes
    ----------
    ui: widgets of MedGen.ui by name.
    models: the installed models.
    pages: the pages of the folded sections.
    parameters: MedGenParameterNode, None while a scene is closed.
    tabs: task -> the tab for it.
    changed: call it after a choice that matters for the run; the panel checks the input again.
    failed: call it with a MedGenError to show it.
    withPackages: call it with a use of `MedGenLib/requirements.txt` and a function, which is called once the packages
        for that use are installed.
    addForm: call it with a form that is loaded later; its widgets join those of the panel.
    unexpected: tracebacks of faults that no sentence was written for.
    """

    def __init__(self, ui, logic, dialogs) -> None:
        self.ui = ui
        self.logic = logic
        self.dialogs = dialogs
        self.models = Models()
        self.pages = Pages(ui, self.connect)
        self.parameters = None
        self.tabs: dict = {}
        self.changed: Callable[[], None] = ignore
        self.failed: Callable[[MedGenError], None] = ignore
        self.withPackages: Callable[[str, Callable[[], None]], None] = ignore
        self.addForm: Callable = ignore
        self.unexpected: list[str] = []

    @property
    def task(self) -> str:
        """ "generate" or "translate", the tab that is open."""
        task = self.parameters.task if self.parameters is not None else ""
        return task if task in self.tabs else next(iter(self.tabs))

    @property
    def tab(self):
        """The tab that is open."""
        return self.tabs[self.task]

    def connect(self, signal, function: Callable[[], None]) -> None:
        """Call `function` without arguments at a Qt signal; what it raises is shown, never lost in Qt."""

        def slot():
            self.guarded(function)

        signal.connect(slot)

    def connectPath(self, edit, function: Callable[[], None]) -> None:
        """Call `function` when the path in a ctkPathLineEdit changes, also to one that cannot be used."""
        self.connect(edit.currentPathChanged, function)
        self.connect(edit.validInputChanged, function)

    def bind(self, combo, parameter: str, then: Callable[[], None] = ignore) -> None:
        """Keep the data of the item that the user selects in a parameter, and call `then()`."""

        def store() -> None:
            if self.parameters is not None:
                setattr(self.parameters, parameter, widgets.chosen(combo))
                then()

        self.connect(combo.currentIndexChanged, store)

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
