"""Draws the pictures of the documentation: the panel with the views beside it, one for each task.

    python Testing/slicer/make_picture.py [TASK ...]

Real module, scene, worker and models on the embedded samples. The views are the scene's own slice and displayable
manager logics, drawn by the bridge; the bars over them have Slicer's colors. Without a task, all are drawn.
"""

import sys  # noqa: I001  support boots the bridge, which makes qt and slicer
from pathlib import Path

import support
from support.painter import Painter
from support.panelcase import WIDTH, Answers
from support.pictures import save

import qt
import slicer

from bridge import views

PICTURES = support.ROOT / "Resources" / "Pictures"
SCREENSHOTS = support.SCREENSHOTS
VIEW = 290
"""Width and height of a view in pixels, without its bar."""
BAR = 14
TALLEST = 820
"""Pixels of the panel; the rest is scrolled away."""
GAP = 2
COLORS = {"Red": "#f34a33", "Yellow": "#edd54c", "Green": "#6eb04b", "1": "#7483b7"}
"""Of the bars over Slicer's views."""
MASS = ((76, 58, 56), 7)
"""Center (i, j, k) and radius of what is painted, in voxels of the sample."""


def main(tasks) -> None:
    views.SIZES, views.USUAL = {1: (2 * VIEW, 2 * VIEW), 2: (VIEW, 2 * VIEW + BAR + GAP)}, (VIEW, VIEW)
    widget = support.moduleWidget()
    widget.panel.context.dialogs = Answers()
    for task in tasks or TASKS:
        slicer.mrmlScene.Clear(0)
        for section in (
            widget.ui.editSection,
            widget.ui.evaluateSection,
            widget.ui.exportSection,
            widget.ui.moreSection,
        ):
            section.collapsed = True
        settle(widget)
        path = TASKS[task](widget)
        save(window(), path)
        print(f"{path}: {path.stat().st_size // 1024} KiB")
    widget.cleanup()


def generate(widget) -> Path:
    """The first run of the first minute."""
    widget.ui.sampleButton.click()
    settle(widget)
    run(widget, widget.ui.generateButton)
    return PICTURES / "slicer_generate.png"


def translate(widget) -> Path:
    """The head of the sample becomes a CT."""
    from MedGenSlicer import samples

    samples.loadSample("MedGenHead")
    settle(widget)
    if not widget.ui.translateButton.enabled:
        widget.ui.licenseCheckBox.click()
        settle(widget)
    run(widget, widget.ui.translateButton)
    return PICTURES / "slicer.png"


def beside(widget) -> Path:
    """MR and CT in two views that move together."""
    translate(widget)
    widget.ui.compareButton.click()
    settle(widget)
    return SCREENSHOTS / "side-by-side.png"


def inThreeD(widget) -> Path:
    """Volume rendering of the CT."""
    translate(widget)
    widget.ui.show3DButton.click()
    settle(widget)
    return SCREENSHOTS / "3d.png"


def edit(widget) -> Path:
    """A mass is painted into the mask; the region around it is drawn again."""
    generate(widget)
    made, mask = widget.logic.currentRun.nodes[0], widget.logic.currentRun.snapshot.node
    widget.panel.context.pages.open(widget.ui.editPage)
    settle(widget)
    widget.ui.liveButton.click()
    live = widget.panel.sections["edit"].edit
    support.processUntil(lambda: live.state == "ready", 300)
    center = support.matrixOf(made) @ [*MASS[0], 1.0]
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *center[:3])
    Painter(mask, made).paint("soft tissue", *MASS)
    live.wait(300)
    return PICTURES / "slicer_edit.png"


def evaluate(widget) -> Path:
    """A CT from the mask of the sample against the real CT: figures, and the error over the image."""
    generate(widget)
    widget.logic.currentRun.snapshot.node.GetDisplayNode().SetVisibility(False)  # the eye beside the mask
    real = slicer.util.loadVolume(str(support.SAMPLES / "ct_tissue_real.nii.gz"), {"name": "Abdomen CT", "show": False})
    real.SetAttribute("MedGen.Modality", "CT")
    widget.panel.context.parameters.evaluateReference = real
    widget.ui.evaluateSection.collapsed = False
    settle(widget)
    widget.ui.evaluateButton.click()
    support.processUntil(lambda: widget.ui.evaluateButton.text == "Compare", 300)
    widget.ui.evaluateTable.selectRow(0)
    settle(widget)
    return PICTURES / "slicer_evaluate.png"


TASKS = {
    "translate": translate,
    "generate": generate,
    "beside": beside,
    "3d": inThreeD,
    "edit": edit,
    "evaluate": evaluate,
}


def settle(widget) -> None:
    """Until the panel has looked at everything that changed, and the views have their size."""
    support.processUntil(lambda: not widget.panel.isBusy, 60)
    for _ in range(3):
        slicer.app.processEvents()


def run(widget, button) -> None:
    """Press the button, wait for the result."""
    button.click()
    support.processUntil(lambda: widget.logic.currentRun.isDone and not widget.panel.isBusy, 300)
    if widget.logic.currentRun.error is not None:
        sys.exit(str(widget.logic.currentRun.error))
    settle(widget)


def window():
    """The panel on the left, the views of the layout on the right, as in Slicer."""
    panel, shown = panelImage(), viewImages()
    if panel.height() > TALLEST:  # scrolled to its lower end
        panel = panel.copy(0, panel.height() - TALLEST, WIDTH, TALLEST)
    height = max(panel.height(), *(y + BAR + image.height() for _x, y, _name, image in shown))
    picture = qt.QImage(
        WIDTH + GAP + max(x + image.width() for x, _y, _name, image in shown), height, qt.QImage.Format_RGB888
    )
    picture.fill(qt.QColor("#efefef"))
    painter = qt.QPainter(picture)
    painter.drawImage(0, 0, panel)
    for x, y, name, image in shown:
        painter.fillRect(WIDTH + GAP + x, y, image.width(), BAR, qt.QColor(COLORS[name]))
        painter.drawText(WIDTH + GAP + x + 4, y + BAR - 3, name[0])
        painter.drawImage(WIDTH + GAP + x, y + BAR, image)
    painter.end()
    return picture


def viewImages() -> list:
    """(x, y, name, picture) of the views that are shown, side by side or in two rows."""
    manager = slicer.app.layoutManager()
    nodes = sorted(manager._shownNodes(), key=lambda node: ("Red", "1", "Yellow", "Green").index(node.GetLayoutName()))
    step = VIEW + GAP
    places = [(0, 0), (step, 0), (0, step + BAR), (step, step + BAR)] if len(nodes) > 2 else [(0, 0), (step, 0)]
    return [
        (*place, node.GetLayoutName(), manager.viewWidget(node).image())
        for place, node in zip(places, nodes, strict=False)
    ]


def panelImage():
    """The panel in its full height."""
    host = slicer.modules.medgen.widgetRepresentation()
    host.resize(WIDTH, 100)
    host.show()
    for _ in range(5):
        slicer.app.processEvents()
    host.resize(WIDTH, max(host.sizeHint.height(), host.heightForWidth(WIDTH)))
    for _ in range(3):
        slicer.app.processEvents()
    return host.grab().toImage()


if __name__ == "__main__":
    main(sys.argv[1:])
