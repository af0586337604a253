"""The conspicuity decoder and the fusion of the hierarchy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fakes import SMALL_SPEC, lively_model
from hd2s.models.decoder import Decoder, Stage, separable_conv, upsample, upsample_maps


def published_order(decoder: Decoder, features: Tensor) -> Tensor:
    """The decoder as the paper draws it: every stage upsamples, then the 1x1 convolution."""
    for stage, scale in zip(decoder.stages, decoder.scales, strict=True):
        features = F.interpolate(stage(features), scale_factor=scale, mode="bilinear", align_corners=False)
    return decoder.head(features)


@torch.no_grad()
def test_the_1x1_convolution_may_run_before_the_last_upsampling() -> None:
    decoder = Decoder(
        6, (Stage(5, 1), Stage(4, 2, scale=4)), separable_conv
    )  # batch statistics keep the signal alive
    decoder.head.bias.fill_(0.7)  # a bias survives because bilinear weights sum to one
    features = torch.randn(2, 6, 3, 4)
    maps = decoder(features)
    assert maps.shape == (2, 1, 24, 32)
    assert maps.std() > 0.01
    torch.testing.assert_close(maps, published_order(decoder, features), rtol=0, atol=1e-6)


def test_stages_have_the_layers_of_their_row() -> None:
    def first(in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, 1)

    decoder = Decoder(6, (Stage(5, 0), Stage(4, 2), Stage(3, 1, scale=1)), first)
    assert [len(stage) for stage in decoder.stages] == [1, 3, 2]
    assert [(stage[0].in_channels, stage[0].out_channels) for stage in decoder.stages] == [
        (6, 5),
        (5, 4),
        (4, 3),
    ]
    assert (decoder.head.in_channels, decoder.head.out_channels) == (3, 1)


@pytest.mark.parametrize("size", [(3, 4), (1, 2), (5, 1)])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_maps_are_enlarged_as_features_are(size: tuple[int, int], scale: int) -> None:
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(upsample_maps(maps, scale), upsample(maps, scale), rtol=0, atol=1e-12)


@torch.no_grad()
def test_upsampling_keeps_constants_and_a_factor_of_one_keeps_all() -> None:
    x = torch.randn(1, 2, 3, 4)
    for enlarge in (upsample, upsample_maps):
        assert enlarge(x, 1) is x
        assert torch.equal(enlarge(torch.full((1, 1, 2, 3), 0.25), 4), torch.full((1, 1, 8, 12), 0.25))


@pytest.mark.parametrize("log_odds", [True, False])
@torch.no_grad()
def test_saliency_is_a_learned_mixture_of_the_four_levels_in_their_order(log_odds: bool) -> None:
    model = lively_model()
    assert model.fuse_log_odds
    model.fuse_log_odds = log_odds
    clip = torch.randn(1, 3, 1, SMALL_SPEC.height, SMALL_SPEC.width)
    collapsed = model.collapse(model.encoder(clip))
    model.fusion.bias.fill_(0.5)
    model.centre.slopes.zero_()
    for level in range(4):
        model.fusion.weight.zero_()
        model.fusion.weight[0, level] = 2.0
        saliency, conspicuity = model(clip)
        logits = model.decoders[level](collapsed[level])[:, 0]
        alone = upsample(logits.sigmoid()[None], model.scale)[0]
        torch.testing.assert_close(conspicuity[:, level], alone, rtol=0, atol=1e-6)
        fused = upsample((2 * (logits if log_odds else logits.sigmoid()) + 0.5)[None], model.scale)[0]
        torch.testing.assert_close(saliency, fused.sigmoid(), rtol=0, atol=1e-6)
