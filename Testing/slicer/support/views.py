"""What Slicer's views show."""

import numpy as np
import slicer


def pixels(view) -> np.ndarray:
    """(y, x, RGB) what a view shows, row 0 at the top; the name of a slice view or the number of a 3D view (on the
    bridge, which draws without a window)."""
    manager = slicer.app.layoutManager()
    image = (manager.sliceWidget(view) if isinstance(view, str) else manager.threeDWidget(view)).image()
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def views() -> dict:
    """What every slice view shows and where, as plain values."""
    found = {}
    for name in ("Red", "Yellow", "Green"):
        logic = slicer.app.layoutManager().sliceWidget(name).sliceLogic()
        composite, node = logic.GetSliceCompositeNode(), logic.GetSliceNode()
        found[name] = (
            composite.GetBackgroundVolumeID(),
            composite.GetForegroundVolumeID(),
            composite.GetLabelVolumeID(),
            composite.GetForegroundOpacity(),
            composite.GetLinkedControl(),
            slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).round(9).tolist(),
            tuple(node.GetFieldOfView()),
            tuple(node.GetXYZOrigin()),
        )
    return found
