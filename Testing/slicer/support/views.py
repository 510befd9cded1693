"""What Slicer's views show."""

import slicer


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
