"""Windows: coverage, blending and tiled decoding."""

from __future__ import annotations

import pytest
import torch

from MedGenLib.packages import find
from MedGenLib.pipelines.loading import network
from MedGenLib.pipelines.windows import Windows, blend, decode_tiled, starts, tile_count


@pytest.mark.parametrize(("length", "window", "overlap"), [(100, 64, 16), (65, 64, 16), (300, 48, 8)])
def test_starts_cover_the_length_with_enough_overlap(length, window, overlap):
    firsts = starts(length, window, overlap)
    assert firsts[0] == 0 and firsts[-1] + window == length
    gaps = [b - a for a, b in zip(firsts[:-1], firsts[1:], strict=True)]
    assert all(0 < gap <= window - overlap for gap in gaps)


def test_a_short_length_is_one_window():
    assert starts(10, 64, 16) == [0]


@pytest.mark.parametrize("shape", [(40, 20, 36), (32, 28, 20), (20, 20, 20)])
def test_windows_cover_every_voxel_and_start_on_the_stride(shape):
    windows = Windows(shape, (20, 20, 20), 4, 4)
    covered = torch.zeros(shape)
    for box in windows:
        assert all(part.stop - part.start == 20 and part.start % 4 == 0 for part in box)
        assert float(windows.weight(box).min()) > 0
        covered[box] += 1
    assert float(covered.min()) >= 1


def test_blending_the_identity_gives_the_input_back():
    windows = Windows((40, 24, 20), (20, 20, 20), 8, 4)
    x = torch.randn(1, 2, 40, 24, 20)
    assert torch.allclose(blend(lambda number, part: part, x, windows), x, atol=1e-6)


def test_disagreeing_windows_are_blended_without_a_jump():
    windows = Windows((44, 20, 20), (24, 20, 20), 12, 4)
    boxes = list(windows)
    assert len(boxes) > 1
    x = torch.zeros(1, 1, 44, 20, 20)
    mixed = blend(lambda number, part: part + number, x, windows)[0, 0, :, 0, 0]
    assert float(mixed[0]) == 0 and float(mixed[-1]) == len(boxes) - 1
    assert float(mixed.diff().abs().max()) < 0.2


def test_borders_are_the_window_edges_inside_the_grid():
    windows = Windows((44, 20, 20), (24, 20, 20), 4, 4)
    axes = {axis for axis, _ in windows.borders}
    assert axes == {0}
    assert Windows((20, 20, 20), (20, 20, 20), 4).borders == []


def test_tile_count_matches_the_tiles():
    assert tile_count((64, 65, 10), 64) == 2


@pytest.fixture(scope="module", params=["ct-tissue", "mr-hippocampus"])
def autoencoder(request):
    return network(find(request.param), "autoencoder", torch.device("cpu"))


@pytest.mark.parametrize(("shape", "tile"), [((16, 28, 20), 12), ((13, 9, 30), 8), ((9, 9, 9), 4), ((20, 12, 16), 64)])
def test_tiled_decoding_equals_decoding_at_once(autoencoder, shape, tile):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, 1, *(2 * n for n in shape)), generator=generator)
    halo, seen = autoencoder.halo // 2, []
    with torch.inference_mode():
        latent = autoencoder.encode(image)
        back = decode_tiled(autoencoder.decode, latent, tile, halo, autoencoder.stride, seen.append)
        assert seen == list(range(1, tile_count(shape, tile) + 1))
        assert float((back - autoencoder.decode(latent)).abs().max()) < 1e-3


def test_a_halo_that_is_too_small_changes_the_result(autoencoder):
    image = torch.randn((1, 1, 40, 40, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latent = autoencoder.encode(image)
        cut = decode_tiled(autoencoder.decode, latent, 10, autoencoder.halo // 2 - 2, autoencoder.stride)
        assert float((cut - autoencoder.decode(latent)).abs().max()) > 1e-3


def test_the_tiles_of_a_decoder_are_limited_to_tile_and_halo(autoencoder):
    sizes = []

    def decode(part):
        sizes.append(max(part.shape[2:]))
        return autoencoder.decode(part)

    halo = autoencoder.halo // 2
    with torch.inference_mode():
        decode_tiled(decode, torch.zeros(1, autoencoder.channels, 32, 16, 16), 8, halo, autoencoder.stride)
    assert max(sizes) == 8 + 2 * halo
