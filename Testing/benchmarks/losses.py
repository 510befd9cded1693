"""Effect of the additional loss terms of the flow: mr-hippocampus fine-tuned with each of them.

    MEDGEN_DATA=<folder> python Testing/benchmarks/losses.py [--steps 120] [--cases 8]

Training continues for some steps from the weights of the package, with the same batches and noise
for each variant: plain, with a higher weight of the region, with the region contrast, and with the
anatomy term. Dice on held-out masks is given for two segmenters: that of the anatomy term, and an
independent one trained for this comparison. Detail is the SD of the high-pass image relative to the
real crops; values below 1 mean a loss of texture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from common import OUT, data_folder, save, table
from hippocampus import read, segment, standard, train_segmenter

from MedGenLib.imaging.volume import LabelMap, Volume
from MedGenLib.metrics.image import dice
from MedGenLib.packages.catalogue import find
from MedGenLib.pipelines.flow_sampling import Sampling
from MedGenLib.pipelines.loading import network
from MedGenLib.pipelines.scene import prepare
from MedGenLib.segmentation.segmenters import segmenter
from MedGenLib.training import config as training_config
from MedGenLib.training import train

VARIANTS = {
    "plain": None,
    "region": {"region": {"labels": [1, 2], "weight": 10}},
    "contrast": {"contrast": {"labels": [1, 2], "into": 0, "weight": 0.05, "window": 2}},
    "anatomy": {"anatomy": {"package": "hippocampus-segmenter", "weight": 0.1, "until": 0.5}},
}
CPU = torch.device("cpu")
SEGMENTER_STEPS = 250


def prepare_start(folder: Path) -> None:
    """Write the weights of the package where the recipe expects them."""
    from safetensors.torch import save_file

    manifest = find("mr-hippocampus")
    autoencoder, flow = (network(manifest, role, CPU) for role in ("autoencoder", "flow"))
    (folder / "autoencoder").mkdir(parents=True, exist_ok=True)
    (folder / "start").mkdir(exist_ok=True)
    state = {k: v.contiguous().clone() for k, v in autoencoder.state_dict().items()}
    save_file(state, str(folder / "autoencoder" / "autoencoder.safetensors"))
    arguments = json.dumps({"network": autoencoder.arguments})
    (folder / "autoencoder" / "autoencoder.json").write_text(arguments)
    torch.save({"averages": {"flow": flow.state_dict()}}, folder / "start" / "checkpoint.pt")


def configuration(folder: Path, name: str, steps: int) -> Path:
    shipped = Path(training_config.__file__).parent / "configs"
    config = json.loads((shipped / "mr-hippocampus-first.json").read_text())
    config["start_from"] = "start"
    if VARIANTS[name] is not None:
        config["flow"]["losses"] = VARIANTS[name]
    config["optimisation"]["latent-flow"] = {
        "steps": steps,
        "batch": 2,
        "learning_rate": 0.0002,
        "warmup": 10,
        "decay": 0.5,
        "ema": 0.97,
        "validate_every": 10 * steps,
        "checkpoint_every": 20,
    }
    file = config["package"]["license_file"]
    (folder / file).write_text((shipped / file).read_text())
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return path


def trained(folder: Path, name: str) -> torch.nn.Module:
    """Averaged network of a variant, or the network of the package for the name "package"."""
    original = network(find("mr-hippocampus"), "flow", CPU)
    if name == "package":
        return original
    net = type(original)(**original.arguments)
    state = torch.load(folder / name / "checkpoint.pt", weights_only=True)
    net.load_state_dict(state["averages"]["flow"])
    return net.eval().requires_grad_(False).to(memory_format=torch.channels_last_3d)


def made(net: torch.nn.Module, mask: LabelMap, seed: int) -> Volume:
    manifest = find("mr-hippocampus")
    scene = prepare(mask, manifest)
    sampling = Sampling.of(manifest, CPU, None, 12, scene)
    sampling.flow = net
    return scene.finish(sampling.decode(sampling.sample(seed), None))


def detail(image: np.ndarray) -> float:
    from scipy.ndimage import gaussian_filter

    return float((image - gaussian_filter(image, 1.0)).std())


def evaluate(net: torch.nn.Module, cases: list, independent: torch.nn.Module) -> list[float]:
    """Dice of both segmenters for anterior and posterior, and the detail ratio."""
    known = segmenter("hippocampus-segmenter", "cpu")
    rows = []
    for number, (image, mask) in enumerate(cases):
        volume = made(net, mask, 100 + number)
        found = [known(volume).array, segment(independent, standard(volume.array))]
        overlaps = [dice(f == value, mask.array == value) for f in found for value in (1, 2)]
        rows.append([*overlaps, detail(standard(volume.array)) / detail(image)])
    return np.mean(rows, 0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--cases", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = OUT / "losses"
    prepare_start(folder)
    for name in VARIANTS:
        path = configuration(folder, name, arguments.steps)
        train("latent-flow", path, folder / name, device="cpu", threads=1)
        print("trained", name, flush=True)

    data = data_folder() / "mr_hippocampus_msd"
    names = sorted(path.name for path in (data / "images").glob("*.nii.gz"))
    held = find("mr-hippocampus").training.held_out
    segmenter_file = folder / "segmenter.pt"
    if not segmenter_file.exists():
        cases = [read(data, name) for name in names if name not in held]
        torch.save(train_segmenter(cases, SEGMENTER_STEPS), segmenter_file)
    independent = torch.load(segmenter_file, weights_only=False)
    chosen = [read(data, name) for name in held[: arguments.cases]]
    real = [
        [dice(segment(independent, image) == value, mask.array == value) for value in (1, 2)] for image, mask in chosen
    ]
    rows = []
    for name in ("package", *VARIANTS):
        rows.append([name, *evaluate(trained(folder, name), chosen, independent)])
        print(rows[-1], flush=True)
    heads = ["trained on", "Dice anterior", "posterior", "independent segmenter: anterior", "posterior", "detail"]
    print(table(heads, rows))
    print("independent segmenter on the real crops:", np.mean(real, 0).round(3).tolist())
    save("losses", {"rows": rows, "steps": arguments.steps, "cases": arguments.cases})


if __name__ == "__main__":
    main()
