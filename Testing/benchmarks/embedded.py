"""Tables of the embedded models, made with `medgen evaluate` and `medgen evaluate distribution`.

    MEDGEN_DATA=<folder> make evaluate   (or: python Testing/benchmarks/embedded.py [MODEL ...])

For each model, synthetic images of held-out data are written and evaluated. The tables are inserted
between the markers of RESULTS.md and of the model cards; reports and pictures are written to
out/benchmarks/embedded/<model>/report.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import OUT, ROOT, data_folder, table
from tqdm import tqdm

from MedGenLib import generate, translate
from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.io.files import read_label_map, read_volume, write_volume
from MedGenLib.packages import seal
from MedGenLib.packages.catalogue import find
from MedGenLib.training.data.slices import FILL_HU, SlicePair, read_pairs

TABLES = ROOT / "Testing" / "benchmarks" / "RESULTS.md"
FOLDER = OUT / "embedded"
BEGIN, END = "<!-- begin make evaluate -->", "<!-- end make evaluate -->"
FEWEST = 5
"""Smallest number of cases with an interval of the mean."""
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Case:
    """One image to generate and evaluate; `mask` is passed as --labels or --mask."""

    name: str
    source: Volume | LabelMap
    real: Volume
    mask: LabelMap


def torso(model: str) -> Iterator[Case]:
    """The two held-out torso scans of ct-tissue with their tissue masks."""
    from ct_tissue import scans

    for name, (ct, mask) in scans().items():
        yield Case(name.split(",")[0].split()[0], mask, ct, mask)


def hippocampi(model: str) -> Iterator[Case]:
    """Held-out crops of the Decathlon's hippocampus data set."""
    folder = data_folder() / "mr_hippocampus_msd"
    for file in sorted(find(model).training.held_out):
        mask = read_label_map(folder / "labels" / file)
        real = read_volume(folder / "images" / file, modality="T1w")
        yield Case(file.removesuffix(".nii.gz"), mask, real, mask)


def head_slices(model: str, subjects: set[str] | None = None) -> Iterator[Case]:
    """Slices of 30 people in three planes, as volumes with one slice."""
    manifest = find(model)
    held = subjects or set(manifest.training.held_out)
    for pair in read_pairs(data_folder() / "pairs_ct_mr" / "synthrad2023_brain_slices"):
        if pair.subject in held:
            mr = _slice(pair, 1000 * pair.mr, "T1w")
            ct = _slice(pair, np.where(pair.mask, np.clip(pair.ct, -1024, 2000), FILL_HU), "CT")
            source, real = (ct, mr) if manifest.input.modality == "CT" else (mr, ct)
            mask = LabelMap(_slice(pair, pair.mask, "CT").array.astype(np.uint8), LPS)
            yield Case(f"{pair.subject}_{'zyx'[pair.plane]}", source, real, mask)


def _slice(pair: SlicePair, image: np.ndarray, modality: str) -> Volume:
    axis = (2, 1, 0)[pair.plane]
    array = np.expand_dims(np.asarray(image, np.float32), axis)
    return Volume(array, LPS, modality, "HU" if modality == "CT" else "a.u.")


@dataclass(frozen=True)
class Job:
    """Evaluation of one embedded model.

    Attributes
    ----------
    about: description of the evaluated images.
    segmenter: segments the labels in the synthetic images; "" for errors inside the mask only.
    cohort: whether to compare the distributions as well.
    whole, labels: metrics in the table, of the whole image and of each label.
    """

    cases: Callable[[str], Iterator[Case]]
    about: str
    segmenter: str = ""
    cohort: bool = False
    whole: tuple[str, ...] = ("MAE", "RMSE", "Bias", "PSNR", "SSIM", "MS-SSIM", "NCC")
    labels: tuple[str, ...] = ()


TORSO = "The abdomen at 3 mm and the chest block at 2 mm, preset normal, one seed each."
CROPS = "The 40 held-out crops, generated from their masks, preset normal, one seed each."
HEADS = """\
Slices of 30 people who were not in the training, in three planes, translated as volumes of one
slice by the command at its defaults (preset normal), which finds the head itself. The other
metrics of these slices are those of the network alone, with the mask of the data set. SSIM is
averaged over the mask, not over its bounding box."""
REAL = "The 40 held-out real crops."
SHAPE = ("Dice", "HD95")
JOBS = {
    "ct-tissue": Job(torso, TORSO, "ct-tissue", labels=(*SHAPE, "MAE", "Bias")),
    "mr-hippocampus": Job(hippocampi, CROPS, "hippocampus-segmenter", cohort=True, whole=(), labels=SHAPE),
    "head-mr-to-ct": Job(head_slices, HEADS),
    "head-ct-to-mr": Job(head_slices, HEADS),
    "hippocampus-segmenter": Job(hippocampi, REAL, "hippocampus-segmenter", whole=(), labels=SHAPE),
}


def make(model: str, job: Job) -> Path:
    """Write the folders synthetic, real and mask of a model; existing synthetic images are kept."""
    folder = FOLDER / model
    for name in ("synthetic", "real", "mask"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(tqdm(list(job.cases(model)), desc=model, mininterval=5)):
        file = f"{case.name}.nii.gz"
        write_volume(case.mask, folder / "mask" / file)
        write_volume(case.real, folder / "real" / file)
        if not (folder / "synthetic" / file).exists():
            write_volume(_made(model, case, number + 1), folder / "synthetic" / file)
    if job.cohort:
        _training(model, folder / "training")
    return folder


def _made(model: str, case: Case, seed: int) -> Volume:
    manifest = find(model)
    if manifest.task == "segment":
        return case.real  # a segmenter is evaluated on real images
    if manifest.task == "generate":
        return generate(case.source, model, seed=seed, retries=0).volume
    to = manifest.output.modality
    return translate(case.source, to, model=model, accept_license=True).volume


def _training(model: str, folder: Path) -> None:
    """Copy the training crops of mr-hippocampus."""
    source = data_folder() / "mr_hippocampus_msd" / "images"
    held = find(model).training.held_out
    folder.mkdir(exist_ok=True)
    for path in source.glob("*.nii.gz"):
        if path.name not in held:
            shutil.copy(path, folder / path.name)


def judge(model: str, job: Job, folder: Path) -> str:
    """Run the commands and return their results as Markdown."""
    report = folder / "report"
    words = ["evaluate", "synthetic", "--mask" if not job.segmenter else "--labels", "mask"]
    if job.whole:
        words += ["--reference", "real"]
    if job.segmenter:
        words += ["--segmenter", job.segmenter]
    text = [job.about, "", _command(words), "", _figures(_run(words, folder, report), job)]
    if job.cohort:
        words = ["evaluate", "distribution", "synthetic", "--reference", "real"]
        words += ["--training", "training"]
        found = _run(words, folder, folder / "distribution")
        text += ["", _command(words), "", _measures(found)]
    return "\n".join(text)


def _run(words: list[str], folder: Path, report: Path) -> dict:
    command = [sys.executable, "-m", "MedGenLib", "-q", *words, "--report", str(report)]
    subprocess.run([*command, "--overwrite"], cwd=folder, check=True)
    return json.loads((report / "metrics.json").read_text())


def _command(words: list[str]) -> str:
    return f"    medgen {' '.join(words)} --report report"


def _figures(found: dict, job: Job) -> str:
    """Table of mean, SD and interval over the cases."""
    wanted = [row for row in found["summary"] if row["name"] in (job.labels if row["label"] else job.whole)]
    heads = ["metric", "unit", "cases", "mean", "SD", "95 % CI of the mean"]
    rows = [
        [
            " ".join(filter(None, (row["name"], row["label"]))),
            row["unit"],
            row["count"],
            row["mean"],
            _known(row["sd"]),
            _interval(row),
        ]
        for row in wanted
    ]
    return table(heads, rows)


def _measures(found: dict) -> str:
    known = [m for m in found["measures"] if m["value"] is not None]
    rows = [[m["name"], m["value"], _interval(m)] for m in known]
    copies = sum(bool(n.get("copied")) for n in found["memorization"]["nearest"])
    rows.append(["copies of training images", copies, ""])
    return table(["metric", "value", "95 % CI"], rows)


def _known(value: float | None) -> float | str:
    return "" if value is None else value


def _interval(row: dict) -> str:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or row.get("count", FEWEST) < FEWEST:
        return ""
    return f"{low:.3g} to {high:.3g}"


def put(text: str, path: Path, after: str) -> None:
    """Replace the text between the markers, or insert it before the heading `after`."""
    block = f"{BEGIN}\n\n{text}\n\n{END}"
    old = path.read_text(encoding="utf-8")
    if BEGIN in old:
        head, _, rest = old.partition(BEGIN)
        new = head + block + rest.partition(END)[2]
    elif after and after in old:
        new = old.replace(after, f"{block}\n\n{after}", 1)
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    path.write_text(new, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[], metavar="MODEL", help=", ".join(JOBS))
    models = parser.parse_args().models or list(JOBS)
    texts = {}
    for model in models:
        folder = make(model, JOBS[model])
        texts[model] = text = judge(model, JOBS[model], folder)
        print(f"\n### {model}\n\n{text}", flush=True)
        card = find(model).folder / "docs" / "README.md"
        put(f"## Metrics from `make evaluate`\n\n{text}", card, "## Limits")
        seal(find(model).folder)
    known = _known_texts() | texts
    joined = "\n\n".join(f"### {name}\n\n{known[name]}" for name in JOBS if name in known)
    put(f"{RESULTS}\n\n{joined}", TABLES, "")


def _known_texts() -> dict[str, str]:
    """The tables that RESULTS.md has."""
    block = TABLES.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    parts = (part.partition("\n\n") for part in block.split("\n### ")[1:])
    return {model: text.strip() for model, _, text in parts}


RESULTS = """\
## Embedded models, evaluated with MedGen's commands

    MEDGEN_DATA=<folder> make evaluate

`Testing/benchmarks/embedded.py` uses held-out data: it writes the images, runs the commands below in
out/benchmarks/embedded/<model>, and writes the tables into this file and the model cards. Definitions
as in SynthRAD 2025 (PSNR range -1024 to 3000 HU after clipping). No interval is given for fewer than
five cases."""


if __name__ == "__main__":
    main()
