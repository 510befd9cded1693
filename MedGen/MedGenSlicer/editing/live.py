"""Live editing: the volume is redrawn while its segmentation is painted.

States: "opening" (the worker takes image and mask), "ready", "drawing", "ended". The worker has at most one edit: what
is painted meanwhile becomes the next one, of the newest mask. The segmentation is only read.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from MedGenLib.errors import InputError, MedGenError, WorkerError
from MedGenSlicer.console import RunParameters
from MedGenSlicer.editing.mask import MaskBlock, TrackedMask, UnknownSegments
from MedGenSlicer.editing.observer import EditObserver
from MedGenSlicer.editing.origin import isOurs
from MedGenSlicer.editing.remote_canvas import RedrawnBlock, RemoteCanvas
from MedGenSlicer.editing.volume import EditableVolume, VoxelState
from MedGenSlicer.engine.background import waitUntil
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.engine.faults import asSentence, notify
from MedGenSlicer.nodes.inputs import InputSnapshot, captureInput
from MedGenSlicer.results import volumes as results
from MedGenSlicer.results.edited_copy import editedCopy, markEdited
from MedGenSlicer.results.views import showInstead
from MedGenSlicer.results.volumes import PreparedImage

SETTLE_MS = 10
"""One stroke sends several events; they are one edit."""


class LiveEdit:
    """Redraws a volume where its segmentation changes; made by `MedGenLogic.liveEdit`.

    drawnFrom: (k, j, i) the mask in the model's labels that the volume was made from, where it is known: what was
    painted since is drawn first.

    Attributes
    ----------
    state: see the module.
    parameters: its options, and the seed that was drawn.
    isLive: whether strokes are drawn as they come; otherwise by `redraw` only.
    sentence: what the user should read now.
    unknown: names of painted segments that the model has no label for; nothing is drawn until they get one.
    error: why it ended, None while it has not, and when it was stopped.
    volumeNode: the volume that is drawn: the one given where MedGen made it, else a copy (there once it is ready).
    seconds: from each change of the mask to the changed volume, one number per edit.
    canUndo, canRedo: whether there is an edit to take back or to bring back.
    """

    def __init__(
        self,
        engine: Engine,
        volumeNode,
        segmentationNode,
        manifest,
        parameters: RunParameters,
        isLive: bool = True,
        onChange: Callable[[LiveEdit], None] | None = None,
        drawnFrom: np.ndarray | None = None,
    ) -> None:
        self._engine, self._manifest, self.parameters, self._onChange = engine, manifest, parameters, onChange
        self._source: InputSnapshot | None = captureInput(volumeNode, "volume")
        self._affine = self._source.affine
        self.sourceNode, self.segmentationNode, self.volumeNode = volumeNode, segmentationNode, None
        self._mask = TrackedMask(segmentationNode, volumeNode, manifest, parameters.mapping, drawnFrom)
        self._sourceState = VoxelState(volumeNode)
        self._copied: PreparedImage | None = None
        self._drawn: EditableVolume | None = None
        self._canvas = RemoteCanvas(engine)
        self._watch: EditObserver | None = None
        self._changedAt = time.perf_counter() if drawnFrom is not None else None
        self._steps: list[str] = []
        self._redraws = False
        self.isLive, self.state, self.sentence = isLive, "opening", ""
        self.unknown: list[str] = []
        self.error: MedGenError | None = None
        self.seconds: list[float] = []
        self.canUndo = self.canRedo = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLE_MS)
        self._timer.timeout.connect(self._flush)

    # What a user does

    def start(self) -> LiveEdit:
        """Begin; returns at once."""
        self._watch = EditObserver(
            self.segmentationNode, self.sourceNode, self._isUntouched, self._onPainted, self._endWith
        )
        self._engine.addObserver(self._onEngine)
        self._open()
        return self

    def stop(self, sentence: str = "") -> None:
        """End it; the volume stays as it is."""
        if self.state != "ended":
            self._end(sentence)

    def setLive(self, isLive: bool) -> None:
        """Draw strokes as they come, or only when `redraw` is called."""
        self.isLive = isLive and self.state != "ended"
        if isLive:
            self._changed()
        self._tell(self.sentence)

    def setMapping(self, mapping) -> None:
        """What the segments mean from now on, as in `MedGenLogic.generate`; what that changes is drawn."""
        self.parameters = self.parameters.replaced(mapping=mapping)
        self._mask.setMapping(mapping)
        self._changed()

    def redraw(self) -> None:
        """Draw what was painted since the last time."""
        self._redraws = True
        self._changed()

    def undo(self) -> None:
        """Take back the last edit of the volume; the segmentation stays as it is."""
        self._do("undo")

    def redo(self) -> None:
        """Bring back the edit that was taken back."""
        self._do("redo")

    @property
    def model(self) -> str:
        """Name of the model that draws."""
        return self._manifest.name

    @property
    def haloVoxels(self) -> tuple[int, ...]:
        """How far from a changed voxel of the mask the volume may change, along (i, j, k); known once it is ready."""
        return self._canvas.haloVoxels

    @property
    def drawnMask(self) -> np.ndarray:
        """(k, j, i) the mask that the volume shows, in the model's labels."""
        return self._mask.known

    def shows(self, volumeNode, segmentationNode, manifest) -> bool:
        """Whether this editing drew that volume after that segmentation."""
        return (
            volumeNode is self.volumeNode
            and segmentationNode is self.segmentationNode
            and manifest.name == self._manifest.name
            and volumeNode.GetImageData().GetDimensions() == self._mask.known.shape[::-1]
        )

    @property
    def isBusy(self) -> bool:
        """Whether an edit is at the worker or due."""
        return self.state in ("opening", "drawing") or self._timer.active

    def wait(self, timeout: float | None = None) -> LiveEdit:
        """Let Slicer's event loop go on until everything is drawn; raises what has ended it.

        timeout: seconds after which WorkerError is raised; the drawing continues.
        """
        if not waitUntil(lambda: not self.isBusy, timeout):
            raise WorkerError(
                _("The volume is not redrawn within {seconds:g} s; it continues.").format(seconds=timeout)
            )
        if self.error is not None:
            raise self.error
        return self

    # Opening

    def _open(self) -> None:
        self.state = "opening"
        self.canUndo = self.canRedo = False
        self._tell(_("Live editing gets ready…"))
        if self.state == "opening":  # else ended by the callback
            self._engine.start(lambda info: self._sendOpen(), self._workerFailed)

    def _sendOpen(self) -> None:
        if self.state == "ended":
            return
        try:
            source = self._source or captureInput(self.volumeNode, "volume")
        except MedGenError as error:  # what was done to the volume since
            self._end(str(error), error)
            return

        def makeImage():
            if self._drawn is None:
                self._copied = results.prepareImage(source.image)
            return source.image

        # The mask is in the model's labels already.
        options = self.parameters.replaced(model=self._manifest.name, mapping=None).options
        self._canvas.open(makeImage, self._mask.labelMap(self._affine), options, self._opened, self._openFailed)

    def _opened(self, answer: dict) -> None:
        if self.state == "ended":
            return
        self.parameters = self.parameters.replaced(seed=answer.get("seed", self.parameters.seed))
        if self._drawn is None:
            try:
                self._takeVolume()
            except Exception as error:
                self._endUnexpectedly(error)
                return
        self._settle(" ".join([_("Ready: paint, and the volume follows."), *(answer.get("sentences") or [])]))

    def _takeVolume(self) -> None:
        """The node that is drawn from now on: the source where MedGen made it, else a copy beside it."""
        source, copied, self._copied = self.sourceNode, self._copied, None
        if isOurs(source):
            with slicer.util.NodeModify(source):  # its event comes when `_drawn` is known
                self._drawn = EditableVolume(source, copied.array)
            self.volumeNode = source
        else:
            self.volumeNode = editedCopy(source, self._source, copied, self._manifest, _("{name} edited"))
            self._drawn = EditableVolume(self.volumeNode)
            showInstead(source, self.volumeNode)
        self._source = None
        if self.state != "ended":
            self._watch.follow(self.volumeNode)

    def _isUntouched(self) -> bool:
        return self._drawn.isUntouched if self._drawn is not None else self._sourceState.isSame

    def _openFailed(self, error: MedGenError) -> None:
        if self._canvas.isThere:
            self._end(str(error), error)
        else:
            self._workerFailed(error)

    # Drawing

    def _changed(self) -> None:
        """What comes is measured from now on."""
        self._changedAt = None
        self._onPainted()

    def _onPainted(self) -> None:
        if self.state == "ended":
            return
        self._changedAt = self._changedAt or time.perf_counter()
        if self.state == "ready" and (self.isLive or self._redraws):
            self._timer.start()

    def _flush(self) -> None:
        """Send what has changed since the last edit, if no edit is at the worker."""
        self._timer.stop()
        if self.state != "ready":
            return
        if self._steps:
            step = self._steps.pop(0)
            if self._isDrawing(_("Going back…") if step == "undo" else _("Going forward…")):
                self._canvas.step(
                    step, lambda drawn: self._stepped(step, drawn), lambda error: self._failed(error, None)
                )
            return
        if self._changedAt is None or not (self.isLive or self._redraws):
            return
        since, self._changedAt, self.unknown = self._changedAt, None, []
        isAsked, self._redraws = self._redraws, False
        try:
            self._mask.look()
            block = self._mask.changed()
        except UnknownSegments as error:  # until they are named, given a label or erased
            self.unknown = error.names
            self._tell(
                _("Nothing is drawn: {names} has no label of the model yet.").format(
                    names=", ".join(f"'{name}'" for name in error.names)
                )
            )
            return
        except MedGenError as error:
            self._tell(str(error))
            return
        if block is None:
            if isAsked:
                self._tell(_("The volume shows this mask already."))
            return
        if self._isDrawing(_("Redrawing…")):
            self._canvas.edit(
                self._mask.labelMap(self._affine, block),
                block.start[::-1],
                self.parameters.preset,
                lambda drawn: self._edited(block, since, drawn),
                lambda error: self._failed(error, block),
            )

    def _isDrawing(self, sentence: str) -> bool:
        """Show that an edit is at the worker; False where the callback has ended the editing."""
        self.state = "drawing"
        self._tell(sentence)
        return self.state == "drawing"

    def _edited(self, block: MaskBlock, since: float, drawn: RedrawnBlock | None) -> None:
        if self.state == "ended":
            return
        if drawn is None:
            self._mask.reject(block)
            self._changedAt, self._redraws = since, True
            self._reopen()
            return
        if not self._write(drawn):
            return
        self._mask.accept(block)
        self.seconds.append(time.perf_counter() - since)
        sentence = _("The volume shows this mask already.")
        if drawn.values is not None:
            sentence = _("Redrawn in {seconds:.2f} s ({size} voxels).").format(
                seconds=self.seconds[-1], size=" × ".join(map(str, drawn.values.shape))
            )
        self._settle(" ".join([sentence, *drawn.sentences]))

    def _stepped(self, step: str, drawn: RedrawnBlock | None) -> None:
        if self.state == "ended":
            return
        if drawn is None:
            self._steps.clear()
            self._reopen()  # what could be taken back is forgotten, too
            return
        if not self._write(drawn):
            return
        if drawn.mask is not None:
            labels = drawn.mask.transpose(2, 1, 0).astype(self._mask.known.dtype)
            self._mask.restore(MaskBlock(labels, drawn.start[::-1]))
        sentences = {
            "undo": _("One edit back; the next stroke draws the mask as it is then."),
            "redo": _("The edit is back."),
        }
        self._settle(sentences[step] if drawn.values is not None else _("There is no other edit."))

    def _write(self, drawn: RedrawnBlock) -> bool:
        """Copy a block into the node; whether that went well."""
        self.canUndo, self.canRedo = drawn.canUndo, drawn.canRedo
        if drawn.values is None:
            return True
        try:
            with slicer.util.NodeModify(self.volumeNode):
                markEdited(self.volumeNode)
                self._drawn.write(drawn.values, drawn.start)
        except Exception as error:
            self._endUnexpectedly(error)
            return False
        return True

    def _settle(self, sentence: str) -> None:
        if self.state == "ended":  # by an observer of the volume
            return
        self.state = "ready"
        self._tell(sentence)
        self._flush()

    def _failed(self, error: MedGenError, block: MaskBlock | None) -> None:
        """An edit that failed changed nothing; the next stroke tries again with all that is not drawn."""
        if self.state == "ended":
            return
        if not self._canvas.isThere:
            self._workerFailed(error)
            return
        if block is not None:
            self._mask.reject(block)
        self._settle(str(error))

    def _reopen(self) -> None:
        """The worker needed the memory for something else; it gets image and mask once more."""
        self._canvas.close()
        self._open()

    def _do(self, step: str) -> None:
        if self.state != "ended":
            self._steps.append(step)
            self._flush()

    # What ends it

    def _onEngine(self) -> None:
        if self.state in ("ready", "drawing") and not self._canvas.isThere:
            self._workerFailed(None)

    def _workerFailed(self, error: MedGenError | None) -> None:
        if self.state == "ended":
            return
        if self.volumeNode is None and error is not None:
            self._end(str(error), error)  # it never began; the worker's own reason says what to do
            return
        self._endWith(_("the worker stopped"), kind=WorkerError)

    def _endUnexpectedly(self, error: Exception) -> None:
        fault = asSentence(error)
        self._end(str(fault), fault)

    def _endWith(self, reason: str, advice: str = "", kind: type[MedGenError] = InputError) -> None:
        if self.state != "ended":
            sentence = _("Live editing ended because {reason}; {advice}.").format(
                reason=reason, advice=advice or _("switch it on again to go on")
            )
            self._end(sentence, kind(sentence))

    def _end(self, sentence: str, error: MedGenError | None = None) -> None:
        self.state, self.isLive, self.error = "ended", False, error
        self.canUndo = self.canRedo = False
        self._source = self._copied = None
        self._steps.clear()
        self._timer.stop()
        self._timer.timeout.disconnect(self._flush)  # a connection keeps what it calls: masks and voxels
        qt.QTimer.singleShot(0, self._outlive)
        if self._watch is not None:
            self._watch.close()
        self._engine.removeObserver(self._onEngine)
        self._canvas.close()
        self._tell(sentence)

    def _outlive(self) -> None:
        """Being bound to a later event keeps the timer from being destroyed while it emits."""

    def _tell(self, sentence: str) -> None:
        self.sentence = sentence
        notify(self._onChange, self)
