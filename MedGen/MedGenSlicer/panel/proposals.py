"""Fills in what the user probably wants, once a scene; later choices are the user's."""

from MedGenSlicer.panel import guess
from MedGenSlicer.panel.context import Context


class Proposals:
    """Proposes the task and the inputs of both tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def propose(self) -> None:
        """Task and inputs from what the scene holds, unless something was chosen before."""
        parameters = self._context.parameters
        if parameters is None:
            return
        if parameters.guessed or parameters.generateInput is not None or parameters.translateInput is not None:
            self.fillOpenTab()
            return
        mask, image = guess.firstMask(), guess.firstImage()
        if mask is None and image is None:
            return
        parameters.task = guess.task(mask, image)
        if mask is not None:
            parameters.generateInput = mask
        if image is not None:
            parameters.translateInput = image
        parameters.guessed = True

    def fillOpenTab(self) -> None:
        """An input for the task that is open, if it has none; nothing that was chosen changes."""
        parameters = self._context.parameters
        if parameters.task == "translate":
            if parameters.translateInput is None and (image := guess.firstImage()) is not None:
                parameters.translateInput = image
        elif parameters.generateInput is None and (mask := guess.firstMask()) is not None:
            parameters.generateInput = mask
