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
            return upsample(self.head(features.to(self.head.weight.dtype)), self.scales[-1])


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Compute in float32 also under autocast: in half precision, with its 8 bits, a map would show steps."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def upsample(x: Tensor, scale: int) -> Tensor:
    """Enlarge maps (B, C, H, W) bilinearly by a whole factor."""
    if scale == 1:
        return x
    if x.shape[1] > 1:
        return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
    # The same as two matrix products, which on one channel are several times as fast in OpenVINO.
    rows, columns = (_interpolation(side, scale, x) for side in x.shape[2:])
    return rows.T @ x @ columns


def _interpolation(side: int, scale: int, like: Tensor) -> Tensor:
    """Return the matrix (side, side * scale) that interpolates a row linearly."""
    unit = torch.eye(side, device=like.device, dtype=like.dtype)[None]
    return F.interpolate(unit, scale_factor=scale, mode="linear", align_corners=False)[0]
