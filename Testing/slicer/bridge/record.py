"""What happened behind the test's back: Qt and VTK swallow exceptions, the bridge keeps them."""

import sys
import traceback


class BridgeError(AssertionError):
    """Something that the real application would refuse, or silently get wrong."""


#: Exceptions that escaped from a slot, a timer, an observer or an overridden event handler.
errors: list[BaseException] = []

#: Dialogs that asked for an answer: (class name, text).
dialogs: list[tuple[str, str]] = []

#: What a dialog answers, by class name: a value, or a function that takes the dialog.
answers: dict[str, object] = {}


def guarded(function, *arguments):
    """Call ``function``; keep and print its exception, as PythonQt prints and goes on."""
    try:
        return function(*arguments)
    except Exception as error:
        errors.append(error)
        traceback.print_exc()
        return None


def watchUnraisable() -> None:
    """Keep the exceptions that VTK and Shiboken print: both go through sys.excepthook."""
    before = sys.excepthook

    def hook(kind, error, trace):
        errors.append(error)
        before(kind, error, trace)

    sys.excepthook = hook


def answerDialog(dialog, text: str):
    """The answer to a modal dialog; without one the test would wait for ever."""
    name = type(dialog).__name__ if not isinstance(dialog, str) else dialog
    dialogs.append((name, text))
    if name not in answers:
        raise BridgeError(f"modal {name} would wait for the user: {text!r}; put an answer into bridge.answers")
    answer = answers[name]
    return answer(dialog) if callable(answer) else answer
