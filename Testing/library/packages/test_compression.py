"""Weights in 8, 6 and 4 bits."""

from __future__ import annotations

import pytest
import torch

from MedGenLib.packages.compression import compress, expand


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "deep.weight": 0.05 * torch.randn(48, 24, 3, 3, 3, generator=generator),
        "slice.weight": 0.05 * torch.randn(64, 60, 3, 3, generator=generator),
        "enter.weight": torch.randn(8, 2, 3, 3, 3, generator=generator),
        "linear.weight": torch.randn(300, 300, generator=generator),
        "outliers.weight": torch.randn(300, 300, generator=generator) ** 5,
        "deep.bias": torch.randn(48, generator=generator),
        "count": torch.tensor(3),
    }


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_large_tensors_take_one_byte_a_weight_and_keep_their_values_to_half_a_percent():
    weights = state()
    stored = compress(weights)
    assert {name: t.dtype for name, t in stored.items()} == {
        "deep.weight": torch.int8,
        "deep.weight.scale": torch.float16,
        "slice.weight": torch.int8,
        "slice.weight.scale": torch.float16,
        "enter.weight": torch.float16,
        "linear.weight": torch.int8,
        "linear.weight.scale": torch.float16,
        "outliers.weight": torch.float16,
        "deep.bias": torch.float16,
        "count": torch.int64,
    }
    assert stored["deep.weight.scale"].shape == (48, 6, 1, 1, 1)
    restored = expand(stored)
    assert restored.keys() == weights.keys()
    for name in ("deep.weight", "slice.weight", "linear.weight"):
        assert restored[name].shape == weights[name].shape
        assert relative_error(restored[name], weights[name]) < 0.007
    torch.testing.assert_close(restored["outliers.weight"].float(), weights["outliers.weight"], rtol=1e-3, atol=1e-6)
    assert restored["count"] == 3


def test_kernels_in_6_bits_take_three_quarters_of_a_byte_and_keep_their_values_to_three_percent():
    weights = state()
    stored, restored = compress(weights, bits=6), expand(compress(weights, bits=6))
    for name, first in (("deep.weight", 36), ("slice.weight", 48)):
        assert stored[name].dtype == torch.uint8
        assert stored[name].shape == (first, *weights[name].shape[1:])
        assert 0.01 < relative_error(restored[name], weights[name]) < 0.03
    others = compress({name: weights[name] for name in weights if name not in ("deep.weight", "slice.weight")})
    assert all(torch.equal(stored[name], tensor) for name, tensor in others.items())
    with pytest.raises(ValueError, match=r"bytes of the shape \(35, .* are no weights in 6 bits"):
        expand({**stored, "deep.weight": stored["deep.weight"][1:]})
    with pytest.raises(ValueError, match="scales of the shape"):
        expand({**stored, "deep.weight": stored["deep.weight"][3:]})


def test_whole_numbers_in_6_bits_are_kept():
    kernel = torch.arange(-31, 32).repeat(32 * 8).reshape(32, 8, 7, 9).float()
    assert torch.equal(expand(compress({"k": kernel}, bits=6))["k"], kernel)


@pytest.mark.parametrize("bits", [6, 8])
def test_the_response_of_a_kernel_to_a_flat_image_is_kept_better_than_its_weights(bits):
    weights = {"k": 0.05 * torch.randn(32, 32, 3, 3, 3, generator=torch.Generator().manual_seed(0))}
    error = expand(compress(weights, bits=bits))["k"] - weights["k"]
    independent = error.std() * 27**0.5
    assert error.sum((2, 3, 4)).std() < 0.35 * independent


def test_a_fine_tuned_network_is_stored_as_its_difference_in_half_a_byte_a_weight():
    base = expand(compress(state()))
    moved = state()
    moved["deep.weight"] = moved["deep.weight"] + 0.05 * state(1)["deep.weight"]
    stored = compress(moved, base)
    assert stored["deep.weight"].dtype == torch.uint8
    assert stored["deep.weight"].numel() == moved["deep.weight"].numel() // 2
    restored = expand(stored, base)
    assert relative_error(restored["deep.weight"], moved["deep.weight"]) < 0.01
    assert relative_error(base["deep.weight"], moved["deep.weight"]) > 0.04
    with pytest.raises(ValueError, match=r"deep\.weight is a difference, but its base has no such tensor"):
        expand(stored)
    with pytest.raises(ValueError, match=r"a difference from another shape than \(48, 12, 3, 3, 3\)"):
        expand(stored, {**base, "deep.weight": base["deep.weight"][:, :12]})
    with pytest.raises(ValueError, match="scales of the shape"):
        expand({**stored, "deep.weight.scale": stored["deep.weight.scale"][:5]}, base)


@pytest.mark.parametrize("count", [7 * 4096 + 1, 7 * 4096])
def test_an_odd_number_of_weights_is_kept(count):
    base = {"k": torch.zeros(1, 1, 1, 1, count)}
    kernel = {"k": torch.linspace(-7, 7, count).round().reshape(1, 1, 1, 1, count)}
    assert torch.equal(expand(compress(kernel, base), base)["k"], kernel["k"])


def test_a_kernel_of_zeros_stays_zero():
    zeros = {"k": torch.zeros(32, 32, 3, 3, 3)}
    assert torch.equal(expand(compress(zeros))["k"], zeros["k"])
