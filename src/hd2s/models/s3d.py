"""`hd2s`: the paper's network (Bellitto et al., IJCV 2021, section 3.1), the hierarchy over S3D.

Reference for S3D: Xie et al., "Rethinking Spatiotemporal Feature Learning", ECCV 2018.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from hd2s.models.decoder import Decoder, Stage, dense_conv
from hd2s.models.domain import Priors, Smoothing
from hd2s.models.sliding import SlidingHD2S
from hd2s.types import InputSpec

_Triple = tuple[int, int, int]
SPEC = InputSpec(height=128, width=192, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# level: its inception blocks, each with input channels, b0, (r1, b1), (r2, b2), b3
_INCEPTIONS = {
    3: ((192, 64, (96, 128), (16, 32), 32), (256, 128, (128, 192), (32, 96), 64)),
    4: (
        (480, 192, (96, 208), (16, 48), 64),
        (512, 160, (112, 224), (24, 64), 64),
        (512, 128, (128, 256), (24, 64), 64),
        (512, 112, (144, 288), (32, 64), 64),
        (528, 256, (160, 320), (32, 128), 128),
    ),
    5: ((832, 256, (160, 320), (32, 128), 128), (832, 384, (192, 384), (48, 128), 128)),
}
# level: channels, convolutions of the temporal collapse, decoder stages
_LEVELS = {
    2: (192, 3, (Stage(128, 1), Stage(64, 1), Stage(3, 1))),
    3: (480, 2, (Stage(256, 1), Stage(128, 1), Stage(64, 1), Stage(3, 1))),
    4: (832, 1, (Stage(512, 2), Stage(256, 2), Stage(128, 1), Stage(64, 1), Stage(3, 1))),
    5: (1024, 1, (Stage(512, 2), Stage(256, 2), Stage(128, 1), Stage(64, 1), Stage(3, 1))),
}


def _conv(c_in: int, c_out: int, kernel: _Triple = (1, 1, 1), stride: _Triple = (1, 1, 1)) -> nn.Sequential:
    padding = kernel[0] // 2, kernel[1] // 2, kernel[2] // 2
    conv = nn.Conv3d(c_in, c_out, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(c_out, eps=1e-3, momentum=1e-3), nn.ReLU(inplace=True))


def _separable(c_in: int, c_out: int, side: int, stride: int = 1) -> nn.Sequential:
    spatial = _conv(c_in, c_out, (1, side, side), (1, stride, stride))
    return nn.Sequential(spatial, _conv(c_out, c_out, (side, 1, 1), (stride, 1, 1)))


class Inception(nn.Module):
    """Four branches over the same input, their outputs (b0, b1, b2, b3 channels) concatenated."""

    def __init__(self, c_in: int, b0: int, mid1: tuple[int, int], mid2: tuple[int, int], b3: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            (
                nn.Sequential(_conv(c_in, b0)),
                nn.Sequential(_conv(c_in, mid1[0]), _separable(*mid1, 3)),
                nn.Sequential(_conv(c_in, mid2[0]), _separable(*mid2, 3)),
                nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), _conv(c_in, b3)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, h, w) to (B, b0 + b1 + b2 + b3, T, h, w)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class S3D(nn.Module):
    """S3D without its classifier, in five levels: 64, 192, 480, 832 and 1024 channels.

    Sizes: T/2 x H/4 x W/4, T/2 x H/8 x W/8, T/4 x H/16 x W/16, and T/8 x H/32 x W/32 for the last two.
    """

    def __init__(self) -> None:
        super().__init__()
        pool = partial(nn.MaxPool3d, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.levels = nn.ModuleList(
            (
                nn.Sequential(_separable(3, 64, 7, 2), pool()),
                nn.Sequential(_conv(64, 64), _separable(64, 192, 3), pool()),
                nn.Sequential(*(Inception(*row) for row in _INCEPTIONS[3]), nn.MaxPool3d(3, 2, padding=1)),
                nn.Sequential(*(Inception(*row) for row in _INCEPTIONS[4]), nn.MaxPool3d(2, 2)),
                nn.Sequential(*(Inception(*row) for row in _INCEPTIONS[5])),
            )
        )

    def forward(self, clip: Tensor) -> list[Tensor]:
        """Encode a clip (B, 3, T, H, W) to levels 2-5, each (B, C, t, h, w)."""
        features = []
        for level in self.levels:
            clip = level(clip)
            features.append(clip)
        return features[1:]


def hd2s(spec: InputSpec = SPEC, domain_specific: bool = False) -> SlidingHD2S:
    """Build the paper's network, for clips of T = 16 or 8 frames: 29,795,597 parameters.

    Args:
        spec: Size of the input and length of the clips.
        domain_specific: Build the parts that each source has for itself; see `DomainHD2S`.
    """
    extra = Priors.COUNT if domain_specific else 0
    return SlidingHD2S(
        encoder=S3D(),
        collapses=[
            nn.Sequential(*(_conv(c, c, (3, 1, 1), (2, 1, 1)) for _ in range(steps)), nn.Flatten(1, 2))
            for c, steps, _ in _LEVELS.values()
        ],
        decoders=[Decoder(c + extra, stages, dense_conv) for c, _, stages in _LEVELS.values()],
        spec=spec,
        clip_lengths=(8, 16),
        priors=[Priors() for _ in _LEVELS] if domain_specific else (),
        smoothing=Smoothing() if domain_specific else None,
    )
