"""Weights on disk: large tensors in 8 bits, kernels also in 6, or in 4 as the difference from another network's.

A group of weights of an output channel shares a scale: a stored integer times its scale is the weight (symmetric
quantization, Jacob et al., CVPR 2018, with smaller groups). The rounding errors of a kernel add up to half a step at
most, as neighboring voxels are alike (SQuant, Guo et al., ICLR 2022). Small tensors stay in half precision, and so do
those that integers represent badly, such as the embedding of the time, which has outliers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 8000
"""Tensors with fewer weights stay in half precision: biases, and the first and last layers of a network."""
WORST = 0.008
"""Largest rounding error of a tensor in 8 bits, relative to its norm; above, it stays in half precision.
In 6 bits the limit is four times as large, as the error is."""
SCALE = ".scale"
"""A tensor NAME of integers has its scales in the tensor NAME.scale."""
GROUP = 128
"""Most weights with a common scale; a whole output channel has one where its inputs cannot be divided well."""
GROUP_OF_6_BITS = 64
FEWEST = 16
CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Tried ranges of the integers, relative to the largest weight of a group."""


def compress(state: Mapping[str, Tensor], base: Mapping[str, Tensor] | None = None, bits: int = 8) -> dict[str, Tensor]:
    """State dictionary of a network -> tensors to store; `expand` is the inverse, up to rounding.

    `base` is the state of a network that this one was trained from, as `expand` returns it: kernels of the same name
    and shape are stored as their difference from it. `bits` (6 or 8) of each weight are stored of other large kernels.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        known = None if base is None or tensor.ndim < 4 else base.get(name)
        if known is not None and known.shape == tensor.shape and tensor.numel() >= SMALLEST:
            integers, stored[name + SCALE] = _quantize(tensor.float() - known.float(), 7)
            stored[name] = _pack(integers)
        else:
            few = bits == 6 and tensor.ndim >= 4 and tensor.shape[0] % 4 == 0
            stored |= _in_integers(name, tensor, 6 if few else 8)
    return stored


def _in_integers(name: str, tensor: Tensor, bits: int) -> dict[str, Tensor]:
    """A tensor in 6 or 8 bits, or as it is stored where that is not possible or not good."""
    if not tensor.is_floating_point():
        return {name: tensor}
    if tensor.ndim > 1 and tensor.numel() >= SMALLEST:
        few = bits == 6
        integers, scale = _quantize(tensor.float(), 31 if few else 127, GROUP_OF_6_BITS if few else GROUP)
        error = (_scaled(integers.float(), scale) - tensor.float()).norm()
        if error <= WORST * (4 if few else 1) * tensor.float().norm():
            return {name: _pack_6_bits(integers) if few else integers, name + SCALE: scale}
    return {name: tensor.half()}


def expand(stored: Mapping[str, Tensor], base: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Tensors of a file -> state dictionary. Raises ValueError if scales or `base` do not fit."""
    import torch

    state = {}
    for name, tensor in stored.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in stored:
            continue
        scale = stored.get(name + SCALE)
        if scale is None:
            state[name] = tensor
        elif tensor.dtype == torch.uint8 and tensor.ndim > 1:
            state[name] = _scaled(_unpack_6_bits(tensor), scale)
        elif tensor.dtype == torch.uint8:
            if base is None or name not in base:
                raise ValueError(f"{name} is a difference, but its base has no such tensor")
            kernel = base[name].float()
            if tensor.numel() != (kernel.numel() + 1) // 2:
                raise ValueError(f"{name} is a difference from another shape than {tuple(kernel.shape)}")
            state[name] = kernel + _scaled(_unpack(tensor, kernel.numel()).reshape(kernel.shape), scale)
        else:
            state[name] = _scaled(tensor.float(), scale)
    return state


def _scaled(integers: Tensor, scale: Tensor) -> Tensor:
    """Integers times the scales of their groups; `scale` has one value for equal parts of the input channels."""
    shape = integers.shape
    if scale.ndim < 2 or scale.shape[0] != shape[0] or integers.numel() % scale.numel():
        raise ValueError(f"scales of the shape {tuple(scale.shape)} do not fit weights of the shape {tuple(shape)}")
    groups = integers.reshape(*scale.shape[:2], -1)
    return (groups * scale.float().reshape(*scale.shape[:2], 1)).reshape(shape)


def _quantize(kernel: Tensor, top: int, most: int = GROUP) -> tuple[Tensor, Tensor]:
    """Integers from -top to top, and the scale with the least squared error of each group of at most `most` weights.

    The shape of the scales is (output channels, groups of input channels, 1, ...).
    """
    import torch

    channels, size = kernel.shape[1], kernel[0, 0].numel()
    group = next(n for n in range(channels, 0, -1) if channels % n == 0 and (n * size <= most or n == 1))
    group = group if group * size >= FEWEST else channels
    rows = kernel.reshape(kernel.shape[0] * (channels // group), -1)
    largest = rows.abs().amax(1, keepdim=True)
    found = torch.zeros_like(largest)
    least = torch.full_like(largest, torch.inf)
    for clip in CLIPS:
        scale = (largest * clip / top).half().float().clamp(min=1e-7)
        error = ((rows / scale).round().clamp(-top, top) * scale - rows).square().sum(1, keepdim=True)
        found, least = torch.where(error < least, scale, found), torch.minimum(error, least)
    integers = _rounded((rows / found).reshape(*kernel.shape[:2], size)).clamp(-top, top).to(torch.int8)
    scales = found.half().reshape(kernel.shape[0], channels // group, *(1,) * (kernel.ndim - 2))
    return integers.reshape(kernel.shape), scales


def _rounded(exact: Tensor) -> Tensor:
    """Whole numbers whose sum along the last axis is the rounded sum: those nearest to the other side change it."""
    nearest = exact.round()
    missing = (exact - nearest).sum(-1, keepdim=True).round()
    order = ((exact - nearest) * missing.sign()).argsort(-1, descending=True).argsort(-1)
    return nearest + missing.sign() * (order < missing.abs())


def _pack_6_bits(integers: Tensor) -> Tensor:
    """Integers from -32 to 31 (channels, ...) -> bytes (3/4 channels, ...), whose upper bits have the last quarter."""
    import torch

    *parts, last = (integers + 32).to(torch.uint8).chunk(4)
    return torch.cat([part | (last >> 2 * n & 3) << 6 for n, part in enumerate(parts)])


def _unpack_6_bits(packed: Tensor) -> Tensor:
    import torch

    if packed.shape[0] % 3:
        raise ValueError(f"bytes of the shape {tuple(packed.shape)} are no weights in 6 bits")
    parts = packed.chunk(3)
    last = sum(part >> 6 << 2 * n for n, part in enumerate(parts))
    return torch.cat([*(part & 63 for part in parts), last]).float() - 32


def _pack(integers: Tensor) -> Tensor:
    """Integers from -8 to 7, two to a byte."""
    import torch

    flat = (integers.flatten() + 8).to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
    return flat[0::2] | (flat[1::2] << 4)


def _unpack(packed: Tensor, count: int) -> Tensor:
    import torch

    return torch.stack([packed & 15, packed >> 4], 1).flatten()[:count].float() - 8
