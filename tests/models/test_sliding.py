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


def test_the_stem_sees_each_frame_once() -> None:
    network, seen = hd2s(replace(SPEC, height=SIDE, width=SIDE)).eval(), []
    for convolution in (network.encoder.levels[0][0][0], network.encoder.levels[1][1][0]):
        convolution.register_forward_pre_hook(lambda _, frames: seen.append(frames[0].shape[2]))
    with torch.no_grad():
        network.slide(network.encode(torch.zeros(23, 3, SIDE, SIDE)))
    assert seen == [23, 8 + 8 + 3 * 8], "8 windows of 8 outputs each have 40 different ones"
