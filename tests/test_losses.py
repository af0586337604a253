"""The hierarchical loss."""

from __future__ import annotations

import pytest
import torch

from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import kl_divergence
from hd2s.models import HD2SOutput


def test_is_the_kl_of_the_output_and_of_each_level_averaged_over_the_batch() -> None:
    output = HD2SOutput(torch.rand(3, 5, 6), torch.rand(3, 4, 5, 6))
    target = torch.rand(3, 5, 6)
    losses = hierarchical_kl(output, target)
    assert list(losses) == ["output", "level2", "level3", "level4", "level5"]
    for name, map_ in zip(losses, (output.saliency, *output.conspicuity.unbind(1)), strict=True):
        expected = sum(kl_divergence(m[None], t[None]).item() for m, t in zip(map_, target, strict=True)) / 3
        assert losses[name].item() == pytest.approx(expected, rel=1e-5)


def test_is_zero_where_every_map_is_the_target() -> None:
    target = torch.rand(2, 5, 6)
    losses = hierarchical_kl(HD2SOutput(3 * target, target[:, None].expand(-1, 4, -1, -1)), target)
    assert all(abs(value.item()) < 1e-6 for value in losses.values())
