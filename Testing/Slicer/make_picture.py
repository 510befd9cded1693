"""Draws the README's picture: the first translation as a user makes it, panel and slice views.

    python Testing/Slicer/make_picture.py

Real module, scene, worker and model on the embedded sample; the views are Slicer's slice logics
drawn by the bridge, so that the frame around them is not Slicer's own.
"""

import sys  # noqa: I001  support boots the bridge, which makes qt and slicer
from pathlib import Path

import support
from panelcase import WIDTH, Answers

import qt
import slicer

PICTURE = Path(__file__).resolve().parents[2] / "Resources" / "Pictures" / "slicer.png"
VIEWS = ("Red", "Yellow", "Green")
SIZE, GAP = 372, 6


def translateSample():
    """Load the head, accept the license, press Translate, wait; the widget."""
    from MedGenSlicer import samples

    widget = support.moduleWidget()
    widget.panel.context.dialogs = Answers()
    samples.loadSample("MedGenHead")
    support.processUntil(lambda: widget.logic.engine.state == "ready" and not widget.panel.isBusy, 120)
    widget.ui.licenseCheckBox.click()
    support.processUntil(lambda: widget.ui.translateButton.enabled, 30)
    widget.ui.translateButton.click()
    support.processUntil(lambda: widget.logic.currentRun.isDone and not widget.panel.isBusy, 300)
    if widget.logic.currentRun.error is not None:
        sys.exit(str(widget.logic.currentRun.error))
    return widget


def drawViews() -> list:
    """Axial, sagittal and coronal through the middle, blended as the panel left them."""
    manager = slicer.app.layoutManager()
    for name in VIEWS:
        manager.sliceWidget(name).mrmlSliceNode().SetDimensions(SIZE, SIZE, 1)
    manager.resetSliceViews()
    slicer.app.processEvents()
    return [support.sliceImage(name) for name in VIEWS]


def compose(panel, views) -> None:
    """The panel on the left, the views in a column and a half on the right, as in Slicer."""
    width = panel.width() + 2 * (SIZE + GAP)
    height = max(panel.height(), 2 * SIZE + GAP)
    picture = qt.QImage(width, height, qt.QImage.Format_RGB888)
    picture.fill(qt.QColor(239, 239, 239))
    painter = qt.QPainter(picture)
    painter.drawImage(0, 0, panel)
    left = panel.width() + GAP
    painter.fillRect(left, 0, width - left, height, qt.QColor(0, 0, 0))
    places = [(left, 0), (left + SIZE + GAP, 0), (left, SIZE + GAP)]
    for (x, y), image in zip(places, views, strict=True):
        painter.drawImage(x, y, image)
    painter.setPen(qt.QColor(230, 230, 230))
    text = ("Synthetic CT over the MR that it was made from,\nblend slider at one half.\n\n"
            "Synthetic. Not for diagnosis.")
    painter.drawText(qt.QRect(left + SIZE + GAP + 24, SIZE + GAP + 24, SIZE - 48, SIZE - 48), 0, text)
    painter.end()
    picture.save(str(PICTURE))


def main() -> None:
    widget = translateSample()
    widget.ui.blendSlider.setValue(widget.ui.blendSlider.maximum // 2)
    slicer.app.processEvents()
    host = slicer.modules.medgen.widgetRepresentation()
    host.resize(WIDTH, 100)
    host.show()
    for _ in range(5):
        slicer.app.processEvents()
    host.resize(WIDTH, max(200, host.sizeHint.height()))
    for _ in range(3):
        slicer.app.processEvents()
    compose(host.grab().toImage(), drawViews())
    widget.cleanup()
    print(PICTURE)


if __name__ == "__main__":
    main()
