"""What neighbouring windows share is computed once, and the maps stay the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import networks
from hd2s.models.hd2s import HD2S
from hd2s.models.s3d import SPEC, hd2s

SIDE = 64


@pytest.mark.parametrize("length", [16, 8])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_sliding_gives_the_maps_of_whole_clips(length: int, count: int) -> None:
    network = networks.plain("hd2s").double()
    network.spec = replace(network.spec, num_frames=length)
    frames = torch.randn(length - 1 + count, 3, SIDE, SIDE, dtype=torch.float64)
    with torch.no_grad():
        found = network.slide(network.encode(frames))
        expected = HD2S.slide(network, [frames])
    assert found.saliency.shape == (count, SIDE, SIDE)
    for map_, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(map_, wanted, rtol=0, atol=1e-12)


def test_sums_of_moments_in_bfloat16_stay_near_the_exact_ones() -> None:
    network = networks.plain("hd2s")
    frames = torch.randn(18, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = network.slide(network.encode(frames))
        with torch.autocast("cpu", torch.bfloat16):
            found = network.slide(network.encode(frames))
    for map_, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(map_, wanted, rtol=0, atol=0.05)
        assert torch.corrcoef(torch.stack((map_.flatten(), wanted.flatten())))[0, 1] > 0.999


def test_what_windows_share_is_computed_once() -> None:
    network = hd2s(replace(SPEC, height=SIDE, width=SIDE)).eval()
    stem, level2, level3 = network.encoder.levels[:3]
    convolutions = stem[0][0], level2[1][0], level3[0].branches[0][0]
    seen = [0, 0, 0]

    def count(place: int, frames: torch.Tensor) -> None:
        seen[place] += frames.shape[2]

    for place, convolution in enumerate(convolutions):
        convolution.register_forward_pre_hook(lambda _, inputs, place=place: count(place, inputs[0]))
    with torch.no_grad():
        network.slide(network.encode(torch.zeros(23, 3, SIDE, SIDE)))
    # 8 windows have 64 moments. Behind the stem 3 of 8 see an end of the window, then 5 do.
    assert seen == [23, 3 * 8 + 16, 5 * 8 + 12]
