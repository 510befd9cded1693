"""What a latent saves against a model of voxels: memory and time of a flow, and what an autoencoder keeps of an image.

    python Testing/benchmarks/latents.py training [--side 64]
    python Testing/benchmarks/latents.py evaluation [--side 64]
    python Testing/benchmarks/latents.py quality CROPS [--steps 300]

training, evaluation: one training step (batch 1), or one evaluation and the decoding of a volume, of the default flow
on the latents of compression 8, 4 and 2 and on the voxels themselves. The peaks are those of one process, which runs
the cases from the smallest to the largest, over its memory before them.
quality: autoencoders of each compression and quantizer, trained for the same steps on the crops of the people that
`medgen train` keeps, and the PSNR of the crops of the others (of the range of each).
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import save, table

from MedGenLib.networks import Autoencoder, FlowUNet

MAPS = 6
CASES = {"8": 8, "4": 4, "2": 2, "none": 1}
"""Compression -> image voxels per latent voxel along each axis."""
QUALITY = ((2, "none"), (4, "none"), (4, "kl"), (4, "vq"), (8, "kl"))


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flow_of(stride: int) -> FlowUNet:
    return FlowUNet(MAPS, latent=1 if stride == 1 else 8, conditioner=f"mask-encoder/{max(2, stride)}")


def features(flow: FlowUNet, maps: torch.Tensor, stride: int) -> list[torch.Tensor]:
    """The mask at the resolution of the latent; the encoder halves, so that voxels need it twice as large."""
    return flow.encode_mask(F.interpolate(maps, scale_factor=2) if stride == 1 else maps)


def memory(task: str, side: int) -> None:
    rows, start = [], peak_mib()
    for name, stride in CASES.items():
        torch.manual_seed(0)
        flow = flow_of(stride)
        coder = Autoencoder(24 * stride // 2, 1, stride) if stride > 1 else None
        maps = torch.zeros(1, MAPS, side, side, side)
        x = torch.randn(1, 1 if stride == 1 else 8, *[side // stride] * 3)
        moment, begun = torch.full((1,), 0.5), time.process_time()
        if task == "training":
            optimizer = torch.optim.AdamW(flow.parameters())
            flow(x, moment, features(flow, maps, stride)).square().mean().backward()
            optimizer.step()
        else:
            with torch.inference_mode():
                made = flow(x, moment, features(flow, maps, stride))
                if coder is not None:
                    coder.decode(made)
        rows.append((name, f"{peak_mib() - start:.0f}", f"{time.process_time() - begun:.2f}"))
        print(rows[-1], flush=True)
    print(table(["compression", "peak MiB", "processor s"], rows))
    save(f"latents_{task}_{side}", {"rows": rows})


def quality(crops: Path, steps: int) -> None:
    from MedGenLib.trainer.layouts import read_dataset
    from MedGenLib.trainer.run import Choices, plan_of
    from MedGenLib.training import train
    from MedGenLib.training.data import read_data
    from MedGenLib.training.recipes.latent_flow import trained_autoencoder

    fixed = {"steps.autoencoder": str(steps), "steps.latent-flow": "1", "patch": "[32, 32, 32]"}
    dataset, rows = read_dataset(crops), []
    plan, _ = plan_of(dataset, Choices(modality="T1w", changes=fixed), "cpu", 1)
    held = [case for case in dataset.cases if case.subject in plan.held_out]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        unseen = read_data(plan.with_values(held_out=["nobody"]).config(held, cache), [32, 32, 32])
        for stride, quantizer in QUALITY:
            config = plan.changed({"compression": str(stride), "quantizer": quantizer}).config(dataset.cases, cache)
            out, begun = Path(folder) / f"{stride}-{quantizer}", time.process_time()
            train("autoencoder", config, out, device="cpu", threads=1)
            seconds, network = time.process_time() - begun, trained_autoencoder(out)
            found = [psnr(network, torch.from_numpy(np.asarray(case.values, np.float32))) for case in unseen.cases]
            millions = sum(p.numel() for p in network.parameters()) / 1e6
            share = 8 / stride**3
            row = (stride, quantizer, f"{share:.3g}", f"{np.mean(found):.2f}", f"{np.std(found):.2f}")
            rows.append((*row, f"{millions:.2f}", f"{seconds:.0f}"))
            print(rows[-1], flush=True)
    heads = ["compression", "quantizer", "numbers per voxel", "PSNR in dB", "SD", "M parameters", "processor s"]
    print(table(heads, rows))
    save(f"latents_quality_{steps}", {"rows": rows})


@torch.inference_mode()
def psnr(network: Autoencoder, image: torch.Tensor) -> float:
    """Of a whole crop, padded by its border to whole strides of 8."""
    margins = [side for n in reversed(image.shape) for side in (0, -n % 8)]
    padded = F.pad(image[None, None], margins, mode="replicate")
    made = network.decode(network.encode(padded))[0, 0, : image.shape[0], : image.shape[1], : image.shape[2]]
    return float(10 * torch.log10((image.max() - image.min()) ** 2 / (made - image).square().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("training", "evaluation", "quality"))
    parser.add_argument("crops", nargs="?", type=Path)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "quality":
        quality(arguments.crops, arguments.steps)
    else:
        memory(arguments.what, arguments.side)


if __name__ == "__main__":
    main()
