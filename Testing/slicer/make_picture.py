"""Draws the README's pictures of the panel with the slice views beside it.

    python Testing/slicer/make_picture.py [translate|evaluate|edit]

*translate* is the first translation as a user makes it, *evaluate* a CT generated from the mask of
the sample and compared with the real one, *edit* live editing: before, painted, after. Real module,
scene, worker and model on the embedded sample; the views are Slicer's slice logics drawn by the
bridge, so that the frame around them is not Slicer's own.
"""

import sys  # noqa: I001  support boots the bridge, which makes qt and slicer
from pathlib import Path

import support
from support.panelcase import WIDTH, Answers

import qt
import slicer

PICTURES = Path(__file__).resolve().parents[2] / "Resources" / "Pictures"
TRANSLATED = (
    "Synthetic CT over the MR that it was made from,\nblend slider at one half.\n\nSynthetic. Not for diagnosis."
)
EVALUATED = (
    "The error of a synthetic CT, drawn over it:\nblue where it is too low, red where it is too high,\n"
    "in HU against the real CT.\n\nSynthetic. Not for diagnosis."
)
EDITED = (
    "Left: a synthetic CT. Right: a mass painted into\nthe mask with the Segment Editor's logic.\n"
    "Below: the CT a moment later. Live is pressed,\nand only the region about the mass was redrawn.\n\n"
    "Synthetic. Not for diagnosis."
)
MASS = ((76, 58, 56), 7)
"""Center (i, j, k) and radius of what is painted, in voxels of the sample."""
FIELD_MM = 220
VIEWS = ("Red", "Yellow", "Green")
GAP = 6


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


def evaluateSample():
    """Generate from the abdomen's mask, compare with its CT, wait; the widget."""
    widget = support.moduleWidget()
    widget.panel.context.dialogs = Answers()
    mask = support.ctSegmentation(None)
    real = slicer.util.loadVolume(str(support.SAMPLES / "ct_tissue_real.nii.gz"), {"name": "Abdomen CT"})
    real.SetAttribute("MedGen.Modality", "CT")
    made = widget.logic.generate(mask, seed=7)
    mask.GetDisplayNode().SetVisibility(False)
    parameters = widget.panel.context.parameters
    parameters.evaluateImage, parameters.evaluateReference, parameters.evaluateLabels = made, real, mask
    parameters.evaluateSegmenter = "ct-tissue"
    widget.ui.evaluateSection.collapsed = False
    support.processUntil(lambda: widget.ui.evaluateButton.enabled and not widget.panel.isBusy, 60)
    widget.ui.evaluateButton.click()
    support.processUntil(lambda: widget.logic.currentRun.isDone and widget.ui.evaluateButton.text == "Compare", 300)
    if widget.logic.currentRun.error is not None:
        sys.exit(str(widget.logic.currentRun.error))
    return widget


def editSample():
    """Generate, switch Live on, paint a mass, wait; the widget and the pictures of the axial view."""
    from painter import Painter

    widget = support.moduleWidget()
    widget.panel.context.dialogs = Answers()
    mask = support.ctSegmentation(None)
    made = widget.logic.generate(mask, seed=7)
    parameters = widget.panel.context.parameters
    parameters.generateInput, parameters.editVolume, parameters.editMask = mask, made, mask
    widget.ui.editSection.collapsed = False
    support.processUntil(lambda: widget.ui.liveButton.enabled and not widget.panel.isBusy, 60)
    widget.ui.liveButton.click()
    edit = widget.panel.sections["edit"].edit
    support.processUntil(lambda: edit.state == "ready", 300)
    slicer.util.setSliceViewerLayers(background=made, fit=True)
    center = support.matrixOf(made) @ [*MASS[0], 1.0]
    pictures = [axialPicture(center)]
    painter = Painter(mask, made)
    painter.paint("bone", *MASS)
    edit.wait(300)  # the first edit loads the networks
    painter.undo()
    edit.wait(300)
    ball = painter.paint("soft tissue", *MASS)
    label = slicer.util.addVolumeFromArray(
        ball.transpose(2, 1, 0).astype("uint8"), support.matrixOf(made), "Mass", "vtkMRMLLabelMapVolumeNode"
    )
    label.CreateDefaultDisplayNodes()
    slicer.util.setSliceViewerLayers(label=label, labelOpacity=0.6)
    pictures.append(axialPicture(center))
    slicer.util.setSliceViewerLayers(label=None)
    edit.wait(300)
    return widget, [*pictures, axialPicture(center)]


def axialPicture(center, size: int = 480):
    """The axial view about a point, as it is now."""
    node = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    node.SetDimensions(size, size, 1)
    node.SetFieldOfView(FIELD_MM, FIELD_MM, 1)
    node.JumpSliceByCentering(*center[:3])
    return support.sliceImage("Red")


def drawViews(size: int) -> list:
    """Axial, sagittal and coronal through the middle, blended as the panel left them."""
    manager = slicer.app.layoutManager()
    for name in VIEWS:
        manager.sliceWidget(name).mrmlSliceNode().SetDimensions(size, size, 1)
    manager.resetSliceViews()
    slicer.app.processEvents()
    return [support.sliceImage(name) for name in VIEWS]


def compose(panel, text: str, path: Path, images=None) -> None:
    """The panel on the left, the views in a column and a half on the right, as in Slicer.

    images: three pictures instead of the views.
    """
    size = (panel.height() - GAP) // 2
    left = panel.width() + GAP
    picture = qt.QImage(left + 2 * size + GAP, panel.height(), qt.QImage.Format_RGB888)
    picture.fill(qt.QColor(0, 0, 0))
    painter = qt.QPainter(picture)
    painter.drawImage(0, 0, panel)
    places = [(left, 0), (left + size + GAP, 0), (left, size + GAP)]
    for (x, y), image in zip(places, images or drawViews(size), strict=True):
        painter.drawImage(x, y, image.scaled(size, size))
    painter.setPen(qt.QColor(230, 230, 230))
    painter.drawText(qt.QRect(left + size + GAP + 24, size + GAP + 24, size - 48, size - 48), 0, text)
    painter.end()
    picture.save(str(path))
    print(path)


def panelPicture():
    """The panel in its full height."""
    slicer.app.processEvents()
    host = slicer.modules.medgen.widgetRepresentation()
    host.resize(WIDTH, 100)
    host.show()
    for _ in range(5):
        slicer.app.processEvents()
    host.resize(WIDTH, max(200, host.sizeHint.height()))
    for _ in range(3):
        slicer.app.processEvents()
    return host.grab().toImage()


def main() -> None:
    if sys.argv[1:] == ["evaluate"]:
        widget = evaluateSample()
        compose(panelPicture(), EVALUATED, PICTURES / "slicer_evaluate.png")
    elif sys.argv[1:] == ["edit"]:
        widget, images = editSample()
        compose(panelPicture(), EDITED, PICTURES / "slicer_edit.png", images)
    else:
        widget = translateSample()
        widget.ui.blendSlider.setValue(widget.ui.blendSlider.maximum // 2)
        compose(panelPicture(), TRANSLATED, PICTURES / "slicer.png")
    widget.cleanup()


if __name__ == "__main__":
    main()
