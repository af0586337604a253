"""torch.export: what is exported gives the same maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import networks
from hd2s.inference.torch_engine import Slide
from hd2s.models import HD2S
from networks import PLAIN, Kind


class Encode(nn.Module):
    """`HD2S.encode` as a module."""

    def __init__(self, network: HD2S) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> list[Tensor]:
        return self.network.encode(frames)


@pytest.mark.parametrize("kind", PLAIN, ids=str)
@torch.no_grad()
def test_whole_clips(kind: Kind) -> None:
    model = networks.shared(kind)
    first, second = networks.clips(model, 1), networks.clips(model, 1, seed=1)
    program = torch.export.export(model, (first,)).module()
    for maps, exported in zip(model(second), program(second), strict=True):
        torch.testing.assert_close(exported, maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in PLAIN if kind.name == "hd2s-lite"], ids=str)
@torch.no_grad()
def test_frame_by_frame(kind: Kind) -> None:
    model = networks.shared(kind)
    frames = networks.clips(model, 1)[0].transpose(0, 1)
    encode = torch.export.export(Encode(model), (frames,)).module()
    features = encode(frames)
    slide = torch.export.export(Slide(model), (features,)).module()
    for maps, exported in zip(model.slide(model.encode(frames)), slide(features), strict=True):
        torch.testing.assert_close(exported, maps, rtol=0, atol=1e-5)
