"""What the panel asks of a section, and what sections share that start runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import slicer.util

from MedGenLib.errors import MedGenError
from MedGenSlicer import paths
from MedGenSlicer.panel import widgets, words
from MedGenSlicer.panel.ask import askWorker
from MedGenSlicer.panel.context import Context


class PanelSection(Protocol):
    """A part of the panel. It is made with the `Context`, reads and writes its parameter node, and knows no other
    section; where one of these moments does not matter to it, it inherits the method."""

    def update(self) -> None:
        """Show the parameter node, which is there; quick."""

    def forget(self) -> None:
        """The scene is closed."""

    def pause(self) -> None:
        """Another module or another scene is opened."""

    def made(self, run) -> None:
        """A run has made volumes."""

    def nodeRemoved(self) -> None:
        """A node left the scene."""

    def close(self) -> None:
        """The panel goes."""


class RunningSection(PanelSection):
    """A section with runs of its own, or requests to the worker, and a line for their progress.

    Parameters
    ----------
    label: widget of the line; hidden while it is empty.
    ui: the widgets, where they are not those of the context.
    """

    def __init__(self, context: Context, label, ui=None) -> None:
        self._context, self._ui, self._label = context, ui or context.ui, label
        self._isRunning = False

    def _shown(self, result) -> str:
        """Show what a run made, or an answer of the worker; the sentence about it."""
        raise NotImplementedError

    def _run(self, sentence: str, function: Callable, *arguments: Any, **keywords: Any) -> None:
        """Start a run of the logic; the panel stays usable."""
        self._begin(sentence)
        guarded = self._context.guarded
        try:
            function(
                *arguments,
                wait=False,
                onProgress=lambda progress: guarded(self._tell, words.stage(progress)),
                onDone=lambda run: guarded(self._done, run),
                **keywords,
            )
        except MedGenError as error:
            self._end(str(error))
        except BaseException:
            self._end("")
            raise

    def _loadForm(self, page, name: str) -> None:
        """The form of a page, when it is first opened; its line for the progress is the section's."""
        form = slicer.util.loadUI(str(paths.resource(f"UI/{name}.ui")))
        form.layout().setContentsMargins(0, 0, 0, 0)
        page.layout().addWidget(form)
        self._label = getattr(slicer.util.childWidgetVariables(form), f"{name.lower()}Label")
        self._context.addForm(form)

    def _startOrCancel(self) -> None:
        """What the button of such a page does."""
        if self._isRunning:
            self._context.logic.cancel()
        else:
            self._context.withPackages("", self._start)

    def _start(self) -> None:
        raise NotImplementedError

    def _ask(self, sentence: str, method: str, params: dict) -> None:
        """Send a request to the worker; the panel stays usable."""
        self._begin(sentence)
        askWorker(
            self._context,
            method,
            params,
            lambda answer: self._tell(self._shown(answer)),
            self._tell,
            lambda: self._end(""),
        )

    def _begin(self, sentence: str) -> None:
        self._isRunning = True
        self.update()
        self._tell(sentence)

    def _done(self, run) -> None:
        self._end("")  # whatever comes now, the button is back
        self._end(str(run.error) if run.error is not None else self._shown(run))

    def _end(self, sentence: str) -> None:
        self._isRunning = False
        self.update()
        self._tell(sentence)

    def _tell(self, sentence: str) -> None:
        widgets.tell(self._label, sentence)
