"""Live editing: latency through the real worker, changes outside and inside the mask, and seams.

    python Testing/benchmarks/edit.py [--threads 2] [--edits 40] [--latency-only | --quality-only]
    python Testing/benchmarks/edit.py --picture Resources/Pictures/edit.png

The image is the sample CT (ct_tissue_real, 3 mm) with its mask; the strokes are balls of one tissue
at random positions in the body, as painted with a brush.

- latency: time from the changed mask in the client until the client has read back the changed block,
  for small strokes (a ball of 24 mm) and large ones whose window has 96^3 voxels.
- outside: largest difference of any voxel beyond the halo, over all edits.
- inside: Dice of the tissues in the edited region (thresholds after a 3 x 3 x 3 median) against the
  new mask, compared with that of a full generation from the new mask.
- border: mean difference between neighboring voxels of one tissue where the new image is blended
  into the old one, divided by that of the same voxels before the edit.
- kept (--kept-only): what single edits of the real CT change beside the edited labels: voxels by more than 50 HU,
  volume of more than 100 HU that falls below 60 (spongy bone, vessels), and groups of up to 8 voxels above 180 HU that
  appear where the mask has no bone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from common import ROOT, save, table

SAMPLES = ROOT / "Resources" / "SampleData"
LATENCIES = {"stroke of 24 mm": 12.0, "stroke of 120 mm (window 96^3)": 60.0}
"""Name -> radius in mm."""
TISSUES = (1, 2, 3, 4)
SHELL = ((46, 62, 60), (27.0, 21.0, 24.0), 2)
CORE = ((46, 62, 60), (11.0, 9.0, 10.0), 4)
"""Ellipsoids of the picture: center (voxels), radii in mm, tissue."""
SEED = 4


def scan():
    """The sample CT and its mask."""
    from MedGenLib.io.files import read_label_map, read_volume

    image = read_volume(SAMPLES / "ct_tissue_real.nii.gz", modality="CT")
    return image, read_label_map(SAMPLES / "ct_tissue_mask.nii.gz")


def strokes(mask, radius: float, count: int) -> Iterator[np.ndarray]:
    """Masks with one more ball each, inside the body."""
    rng = np.random.default_rng(0)
    body, index = np.argwhere(mask.array > 0), np.indices(mask.shape)
    reach = [int(np.ceil(radius / s)) for s in mask.spacing]
    room = np.all([(body >= reach), (body < np.array(mask.shape) - reach)], axis=(0, 2))
    body, array = body[room], mask.array.copy()
    for _ in range(count):
        center = body[rng.integers(len(body))]
        offset = [(i - c) * s for i, c, s in zip(index, center, mask.spacing, strict=True)]
        inside = sum(o**2 for o in offset) <= radius**2
        array = array.copy()
        other = [tissue for tissue in TISSUES if tissue != array[tuple(center)]]
        array[inside & (array > 0)] = rng.choice(other)
        yield array


def latency(radius: float, edits: int, threads: int) -> dict[str, float]:
    """Seconds from a changed mask to the block in the client, in a separate worker."""
    from MedGenLib.imaging.volume import LabelMap
    from MedGenLib.worker.client import Worker
    from MedGenLib.worker.protocol.transfer import put, take

    image, mask = scan()
    seconds, inside = [], []
    # A separate home, so that the number format is probed in this run.
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryDirectory() as folder,
        Worker(env={"OMP_NUM_THREADS": str(threads), "MEDGEN_HOME": home}) as worker,
    ):
        opened = worker.call(
            "edit/open",
            input=put(mask, folder, "mask"),
            image=put(image, folder, "image"),
            folder=folder,
            seed=1,
            device="cpu",
        )
        process, now = psutil.Process(worker.pid), mask.array
        for number, new in enumerate(strokes(mask, radius, edits + 3)):
            start = time.perf_counter()
            where = np.argwhere(new != now)
            low, high = where.min(axis=0), where.max(axis=0) + 1
            block = new[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            affine = mask.geometry.moved(low, block.shape).affine
            answer = worker.call(
                "edit",
                canvas=opened["canvas"],
                offset=low.tolist(),
                folder=folder,
                mask=put(LabelMap(block, affine), folder, f"block-{number}"),
            )
            np.array(take(answer["block"]).array)
            if number == 2:
                busy = cpu(process)
            if number >= 3:  # the first edits prepare kernels for each window size
                seconds.append(time.perf_counter() - start)
                inside.append(answer["seconds"])
            for file in Path(folder).glob("*.npy"):
                file.unlink()
            now = new
        busy = cpu(process) - busy
        probes = json.loads(next(Path(home).rglob("probes.json")).read_text())
    return {
        "edits": len(seconds),
        "p50 s": float(np.percentile(seconds, 50)),
        "p95 s": float(np.percentile(seconds, 95)),
        "p50 of the edit alone s": float(np.percentile(inside, 50)),
        "CPU s of the worker per edit": busy / len(seconds),
        "format": "bfloat16" if all(probes.values()) else "float32",
    }


def cpu(process: psutil.Process) -> float:
    """CPU seconds of a process so far, independent of the load of the machine."""
    times = process.cpu_times()
    return times.user + times.system


def quality(radius: float, count: int, preset: str) -> dict[str, float]:
    """Changes outside the halo, Dice inside and step at the border, over single strokes."""
    from scipy import ndimage

    from MedGenLib import generate
    from MedGenLib.editing.session import Canvas
    from MedGenLib.imaging.volume import LabelMap, crop
    from MedGenLib.labels.tissues import resegment
    from MedGenLib.packages.catalogue import find

    image, mask = scan()
    image, mask = (crop(item, (12, 8, 20), (108, 93, 100)) for item in (image, mask))
    spec = find("ct-tissue").statistics.resegment
    outside, edited, generated, steps = [], [], [], []
    with Canvas.generate(mask, seed=1, preset="draft", retries=0, device="cpu") as canvas:
        for new in strokes(mask, radius, count):
            before = canvas.volume.array.copy()
            changed = new != canvas.mask.array
            done = canvas.edit(new, preset=preset)
            after = canvas.volume.array
            reach = [2 * h + 1 for h in done.halo_voxels]
            near = ndimage.maximum_filter(changed, reach, mode="constant")
            outside.append(int(np.abs(after.astype(int) - before)[~near].max(initial=0)))
            full = generate(LabelMap(new, mask.affine), mapping="model", seed=1, preset=preset, retries=0, device="cpu")
            for volume, scores in ((after, edited), (full.volume.array, generated)):
                scores.append(mean_dice(resegment(volume, spec), new, changed, done.box))
            steps.append(border_step(before, after, new, near & (before != after), changed))
    return {
        "strokes": count,
        "outside, largest difference HU": max(outside),
        "Dice inside": float(np.mean(edited)),
        "Dice inside, full generation": float(np.mean(generated)),
        "step at the border": float(np.mean(steps)),
    }


def kept(count: int, preset: str) -> dict[str, float]:
    """What edits of the real CT change beside the edited labels; balls of one tissue, one at a time."""
    from MedGenLib.editing.session import Canvas

    image, mask = scan()
    before, voxel_ml = image.array.astype(float), float(np.prod(image.spacing)) / 1000
    totals = {"edits": 0, "mask voxels": 0, "others > 50 HU": 0, "lost above 100 HU, ml": 0.0, "bright specks": 0}
    with Canvas.of_image(image, mask, seed=SEED, device="cpu") as canvas:
        previous = mask.array
        for painted in strokes(mask, 15.0, count):
            new, previous = np.where(painted != previous, painted, mask.array), painted
            changed = new != mask.array
            if not canvas.edit(new, preset=preset).changed:
                continue
            after = canvas.volume.array.astype(float)
            canvas.undo()
            totals["edits"] += 1
            totals["mask voxels"] += int(changed.sum())
            totals["others > 50 HU"] += int(((np.abs(after - before) > 50) & ~changed).sum())
            totals["lost above 100 HU, ml"] += float(((before > 100) & (after < 60) & ~changed).sum()) * voxel_ml
            totals["bright specks"] += _specks(after, before, new)
    return totals


def _specks(after: np.ndarray, before: np.ndarray, labels: np.ndarray) -> int:
    """Groups of up to 8 voxels that became as bright as bone where the mask has none."""
    from scipy import ndimage

    groups, _ = ndimage.label(after > 180, np.ones((3, 3, 3)))
    small = (np.bincount(groups.ravel()) <= 8)[groups] & (groups > 0) & (before <= 180) & (labels != 3)
    return len(np.unique(groups[small]))


def picture(path: Path) -> None:
    """Figure of an edit: before, painted mask, after; a mass with gas in the fat of the mesentery."""
    from MedGenLib.editing.session import edit_image
    from MedGenLib.io.provenance import NOTE
    from MedGenLib.visual.grid import COLORS, Tile, draw
    from MedGenLib.visual.views import PLANES, SOFT_TISSUE

    image, mask = scan()
    index, new = np.indices(mask.shape), mask.array.copy()
    for center, radii, tissue in SHELL, CORE:
        inside = sum(((i - c) * s / r) ** 2 for i, c, s, r in zip(index, center, mask.spacing, radii, strict=True))
        new[(inside <= 1) & (new > 0)] = tissue
    result = edit_image(image, mask, mask.with_array(new), seed=SEED, preset="draft", device="cpu")
    painted, axial = np.where(new == mask.array, 0, new), PLANES[0]
    panels = []
    for caption, shown, labels in (
        ("A real CT", image.array, None),
        ("Mask painted", image.array, painted),
        ("After: the painted part is synthetic", result.volume.array, None),
    ):
        values, marked = (
            None if array is None else axial.cut(array[12:84, 28:100], SHELL[0][2]) for array in (shown, labels)
        )
        size = (72 * image.spacing[0], 72 * image.spacing[1])
        panels.append(Tile(values, SOFT_TISSUE.limits, size, axial.letters, caption, labels=marked, opacity=0.6))
    figure = draw([panels], dict(enumerate(COLORS, 1)), title="An edit of the mask by ct-tissue")
    figure.savefig(path, metadata={"Description": NOTE})


def mean_dice(found: np.ndarray, labels: np.ndarray, changed: np.ndarray, box) -> float:
    """Mean Dice of the tissues in the box, weighted by their size."""
    from MedGenLib.metrics.image import dice

    found, labels = np.where(labels > 0, found, 0)[box], labels[box]
    sizes = [np.count_nonzero(labels == tissue) for tissue in TISSUES]
    scores = [dice(found == t, labels == t) if t in labels else 0.0 for t in TISSUES]
    return float(np.average(scores, weights=sizes))


def border_step(before, after, labels, written, changed) -> float:
    """Mean step within a tissue at the border of the written voxels, relative to before the edit."""
    from scipy import ndimage

    rim = written & ~ndimage.binary_dilation(changed, iterations=5)
    steps = {"before": [], "after": []}
    for axis in range(3):
        first, second = (tuple(slice(*s) if a == axis else slice(None) for a in range(3)) for s in ((0, -1), (1, None)))
        same = (labels[first] == labels[second]) & (labels[first] > 0) & (rim[first] | rim[second])
        for name, image in (("before", before), ("after", after)):
            steps[name].append(np.abs(image[second].astype(float) - image[first])[same])
    means = {name: np.concatenate(parts).mean() for name, parts in steps.items()}
    return float(means["after"] / means["before"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--edits", type=int, default=40)
    parser.add_argument("--strokes", type=int, default=12)
    parser.add_argument("--quality-only", action="store_true")
    parser.add_argument("--latency-only", action="store_true")
    parser.add_argument("--kept-only", action="store_true")
    parser.add_argument("--picture", type=Path, metavar="P.png")
    arguments = parser.parse_args()
    if arguments.picture is not None:
        picture(arguments.picture)
        return
    figures = {f"kept, {preset}": kept(arguments.edits, preset) for preset in ("draft", "normal")}
    print(table(["preset", *figures["kept, draft"]], [[name, *found.values()] for name, found in figures.items()]))
    if arguments.kept_only:
        return
    if not arguments.quality_only:
        for name, radius in LATENCIES.items():
            figures[name] = latency(radius, arguments.edits, arguments.threads)
        rows = [[name, *figures[name].values()] for name in LATENCIES]
        print(table(["edit", *figures[name]], rows))
        load, cores = psutil.getloadavg()[0], psutil.cpu_count()
        print(f"{arguments.threads} threads on {cores} cores; system load {load:.1f}\n")
    if not arguments.latency_only:
        for preset in ("draft", "normal"):
            figures[preset] = quality(24.0, arguments.strokes, preset)
        rows = [[preset, *figures[preset].values()] for preset in ("draft", "normal")]
        print(table(["preset", *figures["draft"]], rows))
    save("edit", figures)


if __name__ == "__main__":
    main()
