"""The tab *Read* of a reader study: real or synthetic, how sure, next."""

import contextlib
import time
from collections.abc import Callable

from slicer.i18n import tr as _

from MedGenLib.errors import MedGenError
from MedGenSlicer.engine.background import Background
from MedGenSlicer.panel import widgets
from MedGenSlicer.panel.context import Context

CONFIDENCES = (1, 2, 3, 4, 5)


class ReadTab:
    """Leads a reader through the images of a study.

    The answer has two clicks, what it is and how sure; neither is suggested. Each is written at once, so that a
    reading continues after a pause or a crash.
    """

    def __init__(self, context: Context, ui) -> None:
        self._context, self._ui = context, ui
        self._isOn = False
        self._turn = 0  # what an earlier turn still reads is dropped
        self._reading = self._view = self._item = None
        self._shownAt = 0.0
        for button, other in ((ui.realButton, ui.syntheticButton), (ui.syntheticButton, ui.realButton)):
            context.connect(button.clicked, lambda button=button, other=other: self._choose(button, other))
        for confidence in CONFIDENCES:
            context.connect(
                self._confidenceButton(confidence).clicked, lambda confidence=confidence: self.answer(confidence)
            )
        context.connectPath(ui.readStudyEdit, self._update)
        context.connect(ui.readerEdit.textChanged, self._update)
        context.connect(ui.startReadingButton.clicked, self.start)
        context.connect(ui.pauseButton.clicked, self.pause)
        self._update()

    @property
    def isReading(self) -> bool:
        """Whether a reader is reading."""
        return self._isOn

    @property
    def isWaiting(self) -> bool:
        """Whether the study or its next image is being read from the disk."""
        return self._isOn and self._item is None

    def start(self) -> None:
        """Check the study, then show the first image that this reader has not answered."""
        from MedGenLib.reader_study.reading import Reading

        study, reader = self._ui.readStudyEdit.currentPath, self._ui.readerEdit.text.strip()
        self._isOn = True
        self._tell(_("Checking the images…"))
        self._update()
        self._inBackground(lambda: Reading(study, reader), self._begin)

    def answer(self, confidence: int) -> None:
        """Write the answer and go on; the question what it is was answered before."""
        if self._item is None:
            return
        seconds = time.monotonic() - self._shownAt
        with self._leftOnError():
            self._reading.answer(self._item, self._ui.syntheticButton.checked, confidence, seconds)
            self._next()

    def pause(self) -> None:
        """Give the views back; the image that is shown stays unanswered."""
        if self.isReading:
            self._leave()
            self._tell(_("Paused; every answer is kept. Press Start to go on."))

    def _begin(self, reading) -> None:
        from MedGenSlicer.results.study_views import ReadingView

        self._reading, self._view = reading, ReadingView()
        title = reading.study.title
        self._ui.questionLabel.text = _("{shown}.\nIs this image real or synthetic?").format(
            shown=title[:1].upper() + title[1:].rstrip(".")
        )
        self._tell("")
        self._next()

    def _next(self) -> None:
        self._item = None
        item = self._reading.next()
        done, total = self._reading.progress
        self._ui.readingBar.setRange(0, total)
        self._ui.readingBar.setValue(done)
        if item is None:
            self._leave()
            self._tell(_("All {count} images are read. Thank you.").format(count=total))
            return
        for button in (self._ui.realButton, self._ui.syntheticButton):
            button.setChecked(False)
        self._update()
        title = _("Image {number} of {total}").format(number=done + 1, total=total)
        self._inBackground(item.image, lambda image: self._show(item, image, title))

    def _show(self, item, image, title: str) -> None:
        self._view.show(image.array, title, image.spacing, image.window, image.level)
        self._item = item
        self._update()
        self._shownAt = time.monotonic()

    def _inBackground(self, function: Callable[[], object], onDone: Callable[[object], None]) -> None:
        """Images may be large and lie on a slow disk: Slicer never waits for one."""
        turn = self._turn

        def ended(step: Callable[[], None]) -> None:
            if turn == self._turn:
                with self._leftOnError():
                    step()

        def failed(error: Exception) -> None:
            def fail() -> None:
                raise error

            self._context.guarded(ended, fail)

        Background(function, lambda result: self._context.guarded(ended, lambda: onDone(result)), failed)

    @contextlib.contextmanager
    def _leftOnError(self):
        """Whatever goes wrong, the views come back; the library's sentence is shown here."""
        try:
            yield
        except BaseException as error:
            self._leave()
            if not isinstance(error, MedGenError):
                self._tell("")
                raise
            self._tell(str(error))

    def _leave(self) -> None:
        self._isOn = False
        self._turn += 1
        view, self._view = self._view, None
        self._reading = self._item = None
        try:
            if view is not None:
                view.close()
        finally:
            self._update()

    def _choose(self, button, other) -> None:
        button.setChecked(self._item is not None)
        other.setChecked(False)
        self._update()

    def _update(self) -> None:
        ui = self._ui
        ui.startReadingButton.setEnabled(bool(ui.readStudyEdit.currentPath) and bool(ui.readerEdit.text.strip()))
        ui.startReadingButton.setVisible(not self.isReading)
        for widget in (ui.readStudyEdit, ui.readerEdit):
            widget.setEnabled(not self.isReading)
        for widget in (ui.answerFrame, ui.readingBar):
            widget.setVisible(self._reading is not None)
        hasChosen = ui.realButton.checked or ui.syntheticButton.checked
        for confidence in CONFIDENCES:
            self._confidenceButton(confidence).setEnabled(hasChosen)

    def _confidenceButton(self, confidence: int):
        return getattr(self._ui, f"confidence{confidence}Button")

    def _tell(self, text: str) -> None:
        widgets.tell(self._ui.readingLabel, text)
