"""Speed and memory of MedGen and of comparable networks, each in a separate process.

    python Testing/benchmarks/speed.py [--threads 2] [--skip-maisi]

- ct-tissue at 96^3 and 128^3, preset normal, from a drawn mask, in float32 and in the default format;
- the networks of MAISI in MONAI's implementation (published configuration, random weights), 128^3,
  30 steps of U-Net and ControlNet and one decoding;
- head-mr-to-ct on 192 x 256 x 256 voxels of 1 mm in three planes, against the U-Net-256 generator
  of pix2pix (random weights) on the 256 axial slices of the same volume;
- start-up of the command line and of the library.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

from common import ROOT, in_process, save, table


def tissue_mask(size: int):
    """Body of fat, muscle, bone and lung in a cube of 2 mm voxels."""
    import numpy as np

    from MedGenLib.imaging.volume import LabelMap

    grid = np.linspace(-1, 1, size)
    x, y, z = np.meshgrid(grid, grid, grid, indexing="ij")
    radius = np.hypot(x, 1.2 * y)
    labels = np.zeros((size,) * 3, np.uint8)
    labels[radius < 0.95] = 1
    labels[radius < 0.85] = 2
    labels[(np.hypot(x - 0.4, y) < 0.3) & (z > -0.2)] = 4
    labels[(np.hypot(x + 0.4, y) < 0.3) & (z > -0.2)] = 4
    labels[np.hypot(x, y - 0.5) < 0.12] = 3
    return LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]))


def ours(size: int, bfloat16: bool) -> dict[str, float]:
    from MedGenLib import generate
    from MedGenLib.pipelines import flow_sampling, loading

    if not bfloat16:
        flow_sampling.bfloat16_pays = loading.bfloat16_pays = lambda device: False
    mask = tissue_mask(size)
    start = time.perf_counter()
    result = generate(mask, "ct-tissue", mapping="model", seed=1, retries=0, device="cpu")
    report = result.report
    return {
        "seconds": time.perf_counter() - start,
        "steps": report.steps,
        "precision": report.parameters["precision"],
        **report.timings,
    }


def maisi_networks():
    """U-Net, ControlNet and decoder with the arguments that MAISI v2 publishes, untrained."""
    from monai.apps.generation.maisi.networks.autoencoderkl_maisi import AutoencoderKlMaisi
    from monai.apps.generation.maisi.networks.controlnet_maisi import ControlNetMaisi
    from monai.apps.generation.maisi.networks.diffusion_model_unet_maisi import DiffusionModelUNetMaisi

    shared = {
        "spatial_dims": 3,
        "in_channels": 4,
        "num_channels": [64, 128, 256, 512],
        "attention_levels": [False, False, True, True],
        "num_head_channels": [0, 0, 32, 32],
        "num_res_blocks": 2,
        "use_flash_attention": False,
        "resblock_updown": True,
        "include_fc": True,
        "num_class_embeds": 128,
    }
    unet = DiffusionModelUNetMaisi(
        out_channels=4,
        include_top_region_index_input=False,
        include_bottom_region_index_input=False,
        include_spacing_input=True,
        **shared,
    ).eval()
    control = ControlNetMaisi(
        conditioning_embedding_in_channels=8, conditioning_embedding_num_channels=[8, 32, 64], **shared
    ).eval()
    decoder = AutoencoderKlMaisi(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        num_channels=[64, 128, 256],
        num_res_blocks=[2, 2, 2],
        norm_num_groups=32,
        norm_eps=1e-6,
        attention_levels=[False, False, False],
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
        use_checkpointing=False,
        use_convtranspose=False,
        norm_float16=False,
        num_splits=4,
        dim_split=1,
    ).eval()
    return unet, control, decoder


def maisi(size: int, steps: int) -> dict[str, float]:
    """U-Net, ControlNet and decoder of MAISI v2 with their published sizes, in a plain loop."""
    import torch

    unet, control, decoder = maisi_networks()
    latent = torch.randn(1, 4, *(size // 4,) * 3)
    mask = torch.zeros(1, 8, *(size,) * 3)
    kind, spacing = torch.ones(1, dtype=torch.long), torch.full((1, 3), 200.0)
    start = time.perf_counter()
    with torch.inference_mode():
        for step in range(steps):
            t = torch.full((1,), 1000.0 * (1 - step / steps))
            down, middle = control(x=latent, timesteps=t, controlnet_cond=mask, class_labels=kind)
            velocity = unet(
                x=latent,
                timesteps=t,
                spacing_tensor=spacing,
                class_labels=kind,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
            latent = latent + velocity / steps
        sampled = time.perf_counter()
        decoder.decode_stage_2_outputs(latent)
    end = time.perf_counter()
    return {"seconds": end - start, "sampling": sampled - start, "decoding": end - sampled}


def head():
    """The sample head on 192 x 256 x 256 voxels of 1 mm."""
    import numpy as np

    from MedGenLib.imaging.volume import Geometry, Volume
    from MedGenLib.io.files import read_volume

    mr = read_volume(ROOT / "Resources" / "SampleData" / "head_t1.nii.gz", modality="T1w")
    array = np.zeros((192, 256, 256), np.float32)
    part = mr.array[:192, :256, :256]
    array[: part.shape[0], : part.shape[1], : part.shape[2]] = part
    return Volume(array, Geometry(array.shape, mr.affine).affine, "T1w")


def ours_head(bfloat16: bool) -> dict[str, float]:
    from MedGenLib import translate
    from MedGenLib.pipelines import loading, slice_sampling

    if not bfloat16:
        slice_sampling.bfloat16_pays = loading.bfloat16_pays = lambda device: False
    volume = head()
    start = time.perf_counter()
    report = translate(volume, "CT", device="cpu", accept_license=True).report
    return {"seconds": time.perf_counter() - start, "precision": report.parameters["precision"], **report.timings}


def pix2pix() -> dict[str, float]:
    """U-Net-256 with 64 channels: eight levels of 4 x 4 convolutions with stride 2 and skips."""
    import torch
    from torch import nn

    class Level(nn.Module):
        def __init__(self, channels: list[int], outermost: bool = False) -> None:
            super().__init__()
            here, below = channels[0], channels[1]
            innermost = len(channels) == 2
            self.down = nn.Sequential(
                nn.Identity() if outermost else nn.LeakyReLU(0.2),
                nn.Conv2d(here, below, 4, 2, 1),
                nn.Identity() if outermost or innermost else nn.BatchNorm2d(below),
            )
            self.inner = None if innermost else Level(channels[1:])
            self.up = nn.Sequential(
                nn.ReLU(),
                nn.ConvTranspose2d(below * (1 if innermost else 2), here, 4, 2, 1),
                nn.Tanh() if outermost else nn.BatchNorm2d(here),
            )
            self.outermost = outermost

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.down(x)
            h = self.up(h if self.inner is None else self.inner(h))
            return h if self.outermost else torch.cat([x, h], 1)

    net = Level([1, 64, 128, 256, 512, 512, 512, 512, 512], outermost=True).eval()
    slices = torch.zeros(256, 1, 256, 256)
    start = time.perf_counter()
    with torch.inference_mode():
        for image in slices.split(1):
            net(image)
    return {"seconds": time.perf_counter() - start, "parameters": float(sum(p.numel() for p in net.parameters()))}


JOBS: dict[str, Callable[[], dict]] = {
    "ct-tissue 96^3, float32": lambda: ours(96, False),
    "ct-tissue 128^3, float32": lambda: ours(128, False),
    "ct-tissue 128^3, auto": lambda: ours(128, True),
    "MAISI networks 128^3, 30 steps": lambda: maisi(128, 30),
    "head-mr-to-ct 192x256x256, float32": lambda: ours_head(False),
    "head-mr-to-ct 192x256x256, auto": lambda: ours_head(True),
    "pix2pix U-Net-256, 256 axial slices": pix2pix,
}


def child(name: str, threads: int) -> None:
    """Run one job and print its results as JSON."""
    import torch

    from MedGenLib.devices import peak_memory_mib

    torch.set_num_threads(threads)
    figures = JOBS[name]()
    print(json.dumps({**figures, "peak MiB": peak_memory_mib()}))


def start_up(code: str) -> float:
    """Median wall time in seconds of five new interpreters."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *code.split("|")], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-maisi", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads)
        return
    names = [n for n in JOBS if not (arguments.skip_maisi and n.startswith("MAISI"))]
    figures = {}
    for name in names:
        figures[name] = in_process(__file__, name, arguments.threads)
        print(name, figures[name], flush=True)
    rows = [[n, f["seconds"], f["peak MiB"]] for n, f in figures.items()]
    print(table(["job", "seconds", "peak MiB"], rows))
    if not arguments.skip_maisi:
        theirs = figures["MAISI networks 128^3, 30 steps"]
        for name in ("ct-tissue 128^3, float32", "ct-tissue 128^3, auto"):
            mine = figures[name]
            faster = theirs["seconds"] / mine["seconds"]
            memory = mine["peak MiB"] / theirs["peak MiB"]
            print(f"{name}: {faster:.1f} x faster than MAISI, {memory:.2f} of its memory")
    theirs = figures["pix2pix U-Net-256, 256 axial slices"]
    for name in figures:
        if name.startswith("head"):
            print(f"{name}: {figures[name]['seconds'] / theirs['seconds']:.2f} x pix2pix's time")
    starts = {
        "python -m MedGenLib --help": start_up("-m|MedGenLib|--help"),
        "import MedGenLib": start_up("-c|import MedGenLib"),
    }
    print(table(["start-up", "seconds"], [list(i) for i in starts.items()]))
    save("speed", {**figures, **starts})


if __name__ == "__main__":
    main()
