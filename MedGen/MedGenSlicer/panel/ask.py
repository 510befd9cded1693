"""A question to the worker that is no run: it changes nothing in the scene."""

from collections.abc import Callable

from MedGenLib.errors import MedGenError
from MedGenSlicer.panel import words
from MedGenSlicer.panel.context import Context


def askWorker(
    context: Context,
    method: str,
    params: dict,
    onDone: Callable[[dict], None],
    tell: Callable[[str], None],
    onEnd: Callable[[], None] | None = None,
) -> None:
    """Send a request, after starting the worker where it is not there.

    Parameters
    ----------
    onDone(answer): called when it went well.
    tell(text): called with how far it is, and with the sentence of an error.
    onEnd(): called first when it has ended, however.
    """
    engine = context.logic.engine

    def ended(function: Callable, argument) -> None:
        if onEnd is not None:
            context.guarded(onEnd)
        context.guarded(function, argument)

    def done(answer: dict) -> None:
        ended(onDone, answer)

    def failed(error: MedGenError) -> None:
        ended(tell, str(error))

    def progress(state: dict) -> None:
        context.guarded(tell, words.stage(state) + "…")

    engine.start(lambda info: engine.request(method, params, done, failed, progress), failed)
