"""Live editing in Slicer: time from a stroke to the changed volume, through the real worker.

    .venv/bin/python Testing/benchmarks/edit_slicer.py [--edits N] [--threads N]

Balls are painted with Slicer's Segment Editor logic into a mask of 128 x 128 x 128 voxels; each
regenerates a window of the volume. Runs on the bridge of the tests (Testing/slicer); needs no data.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import common  # noqa: E402

sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.insert(0, str(common.ROOT / "Testing" / "slicer"))
import support  # noqa: E402

support.useModuleFolder()

import numpy as np  # noqa: E402
import slicer  # noqa: E402

from MedGenSlicer.engine.engine import Engine  # noqa: E402
from MedGenSlicer.logic import MedGenLogic  # noqa: E402
from support import processUntil, worstGap  # noqa: E402
from support.painter import Painter  # noqa: E402

MODEL = "ct-tissue"
SIDE = 128
"""Voxels along each axis of the volume, 3 mm each."""
RADII = {"96 x 96 x 96": (16, 22), "64 x 64 x 64": (3, 7)}
"""Window of the networks -> range of the radii of strokes, both in voxels; the window covers the stroke
and the receptive field around it."""
WARM = 2
"""Edits before the measured ones, which load the networks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    mask, volume, logic = scene(arguments.threads)
    original = voxels(volume)
    with worstGap() as opening:
        edit = logic.liveEdit(volume, mask)
        processUntil(lambda: edit.state != "opening", 300)
    painter, generator = Painter(mask, volume), np.random.default_rng(0)
    figures = {}
    for window, radii in RADII.items():
        figures |= strokes(edit, painter, generator, window, radii, arguments.edits)
    while edit.canUndo:
        edit.undo()
        edit.wait(300)
    figures["worst gap of the event loop while opening, ms"] = (opening.milliseconds, "< 50")
    left = float(np.abs(voxels(volume) - original).max())
    figures["largest difference after all edits are undone"] = (left, "0")
    figures["threads"] = (arguments.threads, "")
    figures["system load at the end"] = (os.getloadavg()[0], "")
    logic.cleanup()
    rows = [[name, value, limit] for name, (value, limit) in figures.items()]
    print(common.table(["metric", "measured", "limit"], rows))
    common.save("edit_slicer", {name: value for name, (value, _limit) in figures.items()})


def scene(threads: int):
    """The sample mask mirrored to 128 x 128 x 128 voxels, a CT generated from it, and the logic."""
    slicer.mrmlScene.Clear(0)
    labels = support.ctMaskNode(None)
    array = slicer.util.arrayFromVolume(labels)
    margins = [(0, max(0, SIDE - count)) for count in array.shape]
    array = np.pad(array, margins, mode="symmetric")[:SIDE, :SIDE, :SIDE]
    slicer.util.updateVolumeFromArray(labels, np.ascontiguousarray(array))
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Segmentation")
    slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, mask)
    mask.SetReferenceImageGeometryParameterFromVolumeNode(labels)
    logic = MedGenLogic(Engine(variables={"OMP_NUM_THREADS": str(threads)}))
    return mask, logic.generate(mask, model=MODEL, seed=7, preset="draft"), logic


def strokes(edit, painter, generator, window: str, radii: tuple[int, int], edits: int) -> dict:
    """Paint balls of one size and wait for each edit."""
    names = list(support.TISSUES)
    first, blocks, gaps, outside = len(edit.seconds) + WARM, [], [], 0.0
    for number in range(edits + WARM):
        radius = int(generator.integers(radii[0], radii[1] + 1))
        center = generator.integers(SIDE // 2 - 12, SIDE // 2 + 12, 3)
        before = voxels(edit.volumeNode)
        ball = painter.paint(names[number % len(names)], [int(n) for n in center], radius)
        with worstGap() as gap:
            processUntil(lambda: not edit.isBusy, 300)
        if edit.error is not None:
            raise edit.error
        changed = np.argwhere(voxels(edit.volumeNode) != before)
        if not len(changed):
            continue
        blocks.append(changed.max(0) - changed.min(0) + 1)
        gaps.append(gap.milliseconds)
        painted = np.argwhere(ball)
        low, high = painted.min(0) - edit.haloVoxels, painted.max(0) + edit.haloVoxels
        beyond = ((changed < low) | (changed > high)).any()
        outside = max(outside, float(beyond))
    seconds = sorted(edit.seconds[first:])
    block = " x ".join(str(int(n)) for n in np.median(blocks, axis=0))
    return {
        f"{window}: edits": (len(seconds), ""),
        f"{window}: changed block, median, voxels": (block, ""),
        f"{window}: stroke to changed node, p50, s": (statistics.median(seconds), "< 0.6"),
        f"{window}: p95, s": (seconds[round(0.95 * (len(seconds) - 1))], "< 1.0"),
        f"{window}: worst gap of the event loop, median, ms": (statistics.median(gaps), "< 50"),
        f"{window}: edits that changed a voxel beyond the halo": (int(outside), "0"),
    }


def voxels(node) -> np.ndarray:
    """(i, j, k) copy of a volume's voxels."""
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0).astype(np.float32)


if __name__ == "__main__":
    main()
