"""Convolution blocks and the conspicuity decoder that all networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dense_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm with the constants of S3D, and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels, eps=1e-3, momentum=1e-3),
        nn.ReLU(inplace=True),
    )


def separable_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 depthwise convolution and a 1x1 one, each followed by batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


@dataclass(frozen=True)
class Stage:
    """One row of a decoder's table.

    Attributes:
        width: Output channels.
        separables: Separable convolutions behind the first convolution.
        scale: Factor of the bilinear upsampling at the end of the stage.
    """

    width: int
    separables: int = 0
    scale: int = 2


class Decoder(nn.Module):
    """Turns the collapsed features of one level into that level's conspicuity map.

    Each stage is a first convolution to `width` channels, a number of separable ones, and a bilinear
    upsampling; a 1x1 convolution to one channel ends the chain. It runs before the last upsampling: both
    are linear and the bilinear weights sum to one, so this is the same function as the published order at
    a fraction of the work. The sigmoid behind it is left to the fusion.

    Args:
        in_channels: Channels of the collapsed features.
        stages: The rows of the table, first to last.
        first_conv: Builds the first convolution of each stage from its input and output channels.
    """

    def __init__(
        self, in_channels: int, stages: Sequence[Stage], first_conv: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.scales = [stage.scale for stage in stages]
        self.stages = nn.ModuleList()
        for stage in stages:
            layers = [first_conv(in_channels, stage.width)]
            layers += [separable_conv(stage.width, stage.width) for _ in range(stage.separables)]
            self.stages.append(nn.Sequential(*layers))
            in_channels = stage.width
        self.head = nn.Conv2d(in_channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, h, w) to a conspicuity map's log-odds (B, 1, H, W), H = h times all scales."""
        for stage, scale in zip(self.stages[:-1], self.scales[:-1], strict=True):
            features = upsample(stage(features), scale)
        features = self.stages[-1](features)
        with full_precision(features.device):
            return upsample_maps(
                weighted_sum(features.to(self.head.weight.dtype), self.head), self.scales[-1]
            )


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Compute in float32 also under autocast: in half precision, with its 8 bits, a map would show steps."""
    if device.type == "meta":  # has no autocast; to ask PyTorch 2.11 which devices have it cannot be compiled
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def upsample(features: Tensor, scale: int) -> Tensor:
    """Enlarge features (B, C, h, w) bilinearly by a whole factor."""
    if scale == 1:
        return features
    return F.interpolate(features, scale_factor=scale, mode="bilinear", align_corners=False)


# What follows makes maps of features, of products and sums alone: behind layers in bfloat16 OpenVINO keeps
# these in float32, as `full_precision` does for PyTorch, but no convolution, matrix product or interpolation.


def weighted_sum(x: Tensor, weights: nn.Conv2d) -> Tensor:
    """Apply a 1x1 convolution to one channel: (B, C, H, W) to (B, 1, H, W)."""
    total = (x * weights.weight.view(1, -1, 1, 1)).sum(1, keepdim=True)
    return total if weights.bias is None else total + weights.bias


def upsample_maps(maps: Tensor, scale: int) -> Tensor:
    """Enlarge maps (B, C, H, W) as `upsample` does features."""
    return maps if scale == 1 else _stretch(_stretch(maps, 2, scale), 3, scale)


def _stretch(maps: Tensor, axis: int, scale: int) -> Tensor:
    """Interpolate linearly along an axis: `scale` results for each value, of it and its neighbours."""
    size = maps.shape[axis]
    before = torch.cat((maps.narrow(axis, 0, 1), maps.narrow(axis, 0, size - 1)), dim=axis)
    after = torch.cat((maps.narrow(axis, 1, size - 1), maps.narrow(axis, size - 1, 1)), dim=axis)
    at = (torch.arange(scale, device=maps.device, dtype=maps.dtype) + 0.5) / scale - 0.5  # from the value on
    at = at.view(-1, *[1] * (maps.ndim - axis - 1))
    shares = ((-at).clamp(min=0), 1 - at.abs(), at.clamp(min=0))
    parts = [x.unsqueeze(axis + 1) * share for x, share in zip((before, maps, after), shares, strict=True)]
    return (parts[0] + parts[1] + parts[2]).flatten(axis, axis + 1)
