"""The input check, in a thread: a large volume must not hold up the panel."""

from collections.abc import Callable

import qt

from MedGenSlicer.panel.context import Context


class InputCheck:
    """Compares input and model again whenever one of them changed, and only then.

    Attributes
    ----------
    findings: of the last check that ended; empty while another one is running.
    isPending: whether a check is running.
    """

    def __init__(self, context: Context, onDone: Callable[[], None]) -> None:
        self._context = context
        self._onDone = onDone
        self._key: tuple | None = None
        self._number = 0
        self.findings: list = []
        self.isPending = False

    def invalidate(self) -> None:
        """The input changed."""
        self._key = None

    def update(self, node, manifest, arguments: dict) -> None:
        """Start a check, unless the same was checked already; `arguments` are those of MedGenLogic.startCheck."""
        key = (
            None
            if node is None or manifest is None
            else (node.GetID(), manifest.name, manifest.version, repr(arguments))
        )
        if key is not None and key == self._key:
            return
        self._key = key
        self._number += 1
        self.findings, self.isPending = [], key is not None
        if self.isPending:
            number = self._number
            # Next, because the thread would hold up what this event still has to do.
            qt.QTimer.singleShot(0, lambda: self._context.guarded(self._start, number, node, manifest.name, arguments))

    def _start(self, number: int, node, model: str, arguments: dict) -> None:
        if number != self._number:
            return
        if node.GetScene() is None:  # deleted meanwhile
            self._done(number, [])
            return
        guarded = self._context.guarded
        self._context.logic.startCheck(node, lambda findings: guarded(self._done, number, findings), model, **arguments)

    def _done(self, number: int, findings: list) -> None:
        if number != self._number:
            return  # of an input that was changed meanwhile
        self.findings, self.isPending = findings, False
        self._onDone()
