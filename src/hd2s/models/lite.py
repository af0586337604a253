"""`hd2s-lite`: the hierarchy of HD2S over a per-frame encoder.

Each frame passes through EfficientNet-Lite0, but for its last block, once. Learned filters over the
last T frames' features make up for the missing 3-D convolutions: while a video plays, a new frame
costs one encoder pass and one weighted sum over a ring of cached features.

References:
    Bellitto et al., IJCV 2021, for the hierarchy;
    Tan and Le, "EfficientNet", ICML 2019, and the EfficientNet-Lite variants published with TensorFlow's
    TPU models (ReLU6, no squeeze-and-excitation, fixed stem) for the encoder.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hd2s.models.decoder import Decoder, Stage, full_precision, separable_conv
from hd2s.models.domain import Priors, Smoothing
from hd2s.models.hd2s import HD2S, HD2SOutput
from hd2s.types import InputSpec

SPEC = InputSpec(height=192, width=320, num_frames=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

# kernel, stride of the first block, expansion, output channels, blocks; level that ends here
_STAGES = (
    (3, 1, 1, 16, 1, None),
    (3, 2, 6, 24, 2, 2),
    (5, 2, 6, 40, 2, 3),
    (3, 2, 6, 80, 3, None),
    (5, 1, 6, 112, 3, 4),
    (5, 2, 6, 192, 4, 5),
)
# level: encoder channels, channels behind the collapse, decoder stages
_LEVELS = {
    2: (24, 32, (Stage(32, scale=1),)),
    3: (40, 48, (Stage(32, 1), Stage(32, scale=1))),
    4: (112, 96, (Stage(96, 1), Stage(32, 1), Stage(32, scale=1))),
    5: (192, 128, (Stage(128, 1), Stage(96, 1), Stage(32, 1), Stage(32, scale=1))),
}


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, if `active`, ReLU6.

    Padded as TensorFlow's "same" pads an even input: an odd pixel goes to the right and the bottom.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        before, odd = divmod(kernel - stride, 2)
        self.pad = nn.ZeroPad2d((before, before + odd, before, before + odd)) if odd else nn.Identity()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, 0 if odd else before, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        self.act = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C', h / stride, w / stride)."""
        y: Tensor = self.act(self.norm(self.conv(self.pad(x))))
        return y


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion, depthwise convolution, linear 1x1 projection."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = ConvNorm(in_channels, width, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(width, width, kernel, stride, groups=width)
        self.project = ConvNorm(width, out_channels, 1, active=False)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C', h / stride, w / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its last block and classifier, read at four levels (strides 4, 8, 16, 32).

    Its batch norms keep the statistics of ImageNet also in training mode: a batch holds too few
    different pictures to estimate better ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self.ends: list[int] = []  # block index behind which each of levels 2-5 is read
        in_channels = 32
        for kernel, stride, expansion, out_channels, repeats, level in _STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                self.blocks.append(MBConv(in_channels, out_channels, kernel, step, expansion))
                in_channels = out_channels
            if level is not None:
                self.ends.append(len(self.blocks) - 1)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Encode frames (N, 3, H, W) to levels 2-5: (N, C, H / stride, W / stride) each."""
        x = self.stem(frames)
        levels = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                levels.append(x)
        return levels

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the mode of everything but the batch norms, which stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class FrameEncoder(nn.Module):
    """Applies a 2-D encoder to each frame of a clip."""

    def __init__(self, network: EfficientNetLite0) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> list[Tensor]:
        """Encode a clip (B, 3, T, H, W) to levels 2-5, each (B, C, T, h, w)."""
        batch, _, frames = clip.shape[:3]
        levels = self.network(clip.transpose(1, 2).flatten(0, 1))  # each (B * T, C, h, w)
        return [level.unflatten(0, (batch, frames)).transpose(1, 2) for level in levels]


class TemporalFilters(nn.Module):
    """Collapses features over time to four features of each channel, which a 1x1 convolution mixes.

    The first two are that of the current frame, and what a learned filter gives of all frames: it starts as
    their mean, and all channels share it. The others are magnitudes, which answer to motion, of learned
    mixtures of three: these two and the feature three frames earlier. They start as the current frame minus
    the one three earlier, and minus the mean.

    A single frame (t = 1) counts as a clip in which nothing moves.
    """

    EARLIER = 3  # frames back

    def __init__(self, in_channels: int, out_channels: int, num_frames: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.full((num_frames,), 1.0 / num_frames))
        mixtures = torch.tensor([[1.0, 0.0, -1.0], [1.0, -1.0, 0.0]])  # of current frame, filter, earlier one
        self.mixtures = nn.Parameter(mixtures[:, :, None].repeat(1, 1, in_channels))  # (2, 3, C)
        self.mix = nn.Sequential(
            nn.Conv2d(4 * in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Collapse clips (B, C, t, h, w), t = T or 1, to (B, C', h, w)."""
        frames = features.permute(2, 0, 3, 4, 1)  # (t, B, h, w, C)
        now, still = frames[-1], len(frames) == 1
        with full_precision(features.device):  # else differences of nearly equal features are lost
            weights = self.filter.sum(0, keepdim=True) if still else self.filter
            filtered = torch.einsum("t,tbhwc->bhwc", weights, frames.to(weights.dtype))
        return self._combine(now, filtered, now if still else frames[-1 - self.EARLIER])

    def slide(self, features: Tensor) -> Tensor:
        """Collapse each window of T frames in a run (N + T - 1, C, h, w) to (N, C', h, w).

        The filter is a matrix (N, N + T - 1), whose rows are the filter, each one frame further.
        """
        (length, channels, height, width), past = features.shape, self.filter.shape[0] - 1
        count = length - past
        # Rows that are one longer than the matrix's: cut into the matrix's, each starts one further.
        matrix = F.pad(self.filter, (0, count)).repeat(count)[: count * length].view(count, length)
        frames = features.permute(0, 2, 3, 1)  # nothing moves where channels come last
        with full_precision(features.device):
            filtered = matrix @ frames.reshape(length, -1).to(matrix.dtype)
        now, earlier = frames[past:], frames[past - self.EARLIER : length - self.EARLIER]
        return self._combine(now, filtered.view(count, height, width, channels), earlier)

    def _combine(self, now: Tensor, filtered: Tensor, earlier: Tensor) -> Tensor:
        """Make and mix the four of the three, (N, h, w, C) each, to (N, C', h, w)."""
        moving = [now * a + filtered * b + earlier * c for a, b, c in map(torch.unbind, self.mixtures)]
        parts = now, filtered, *(each.abs() for each in moving)
        conv, *rest = self.mix
        assert isinstance(conv, nn.Conv2d)
        # One convolution of all four would need them side by side, which costs more than it saves.
        mixed = functools.reduce(
            torch.add,
            (
                F.conv2d(part.permute(0, 3, 1, 2), weight)
                for part, weight in zip(parts, conv.weight.chunk(4, dim=1), strict=True)
            ),
        )
        for layer in rest:
            mixed = layer(mixed)
        return mixed


class CentreBias(nn.Module):
    """How much likelier people look at the middle of a picture than at its sides, whatever it shows.

    A learned quadratic of the position, counted from the middle in quarters of a side, is added to the fused
    log-odds: the odds are multiplied by a Gaussian. Where the network is sure that changes little. Inputs
    that show a part of a picture, as random crops in training do, get that part of it, so that cropping does
    not blur what is learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.Parameter(torch.zeros(2, 2))  # [y, x], [linear, quadratic]

    def forward(self, fused: Tensor, windows: Tensor | None = None) -> Tensor:
        """Give what is to be added to fused maps (B, 1, h, w): (B or 1, 1, h, w).

        Args:
            fused: The maps, of which only the size counts.
            windows: (B, 2, 2) the parts of pictures that they show: [y, x], [start, extent] as fractions of
                the picture's sides. A negative extent counts backwards from the start: mirrored.
        """
        sides = []
        for axis, (size, slopes) in enumerate(zip(fused.shape[2:], self.slopes, strict=True)):
            at = (torch.arange(size, device=fused.device, dtype=fused.dtype) + 0.5) / size
            if windows is not None:
                start, extent = windows[:, axis, :, None].unbind(1)  # (B, 1) each
                at = start + extent * at
            at = 4.0 * at - 2.0
            sides.append((slopes[0] * at - slopes[1] * at**2).view(-1, size))
        added: Tensor = (sides[0][:, :, None] + sides[1][:, None, :])[:, None]
        return added


def find_bars(frames: Tensor, spec: InputSpec, cell: int) -> Tensor:
    """Find the black bars of letterboxed pictures: nobody looks at these.

    Bars are the rows and columns at the sides in which no value is above 16 of 255. A frame that is black
    throughout has none.

    Args:
        frames: (N, 3, H, W), normalised as `spec` says.
        spec: Of the input.
        cell: Rows and columns are taken in groups of so many.

    Returns:
        (N, 1, H / cell, W / cell): 3 in the bars, which as log-odds divides the odds by 20, else 0.
    """
    limits = [(16 / 255 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    sides = []
    for across in (3, 2):
        channels = frames.amax(across).unbind(1)
        # Numbers, as a tensor of the limits would have to be copied to a GPU each time.
        lit = torch.stack([channel > limit for channel, limit in zip(channels, limits, strict=True)], dim=1)
        sides.append(_inside(lit, cell))
    rows, columns = sides
    return 3.0 * (1 - rows[:, None, :, None] * columns[:, None, None, :]).to(frames.dtype)


def _inside(lit: Tensor, cell: int) -> Tensor:
    """Tell which groups of rows or columns, lit or not (N, 3, size), are in the picture: (N, size / cell)."""
    groups = lit.float().amax(1).reshape(lit.shape[0], -1, cell).amax(2)
    before = groups.cumsum(1)  # how many are lit up to this one, and from it on
    behind = groups.sum(1, keepdim=True) - before + groups
    inside: Tensor = (before * behind).clamp(max=1.0) + 1 - groups.amax(1, keepdim=True)
    return inside


class HD2SLite(HD2S):
    """HD2S over EfficientNet-Lite0, for clips of T = 16 frames or stills (T = 1).

    `forward` maps whole clips. `encode` and `slide` do the same for a video that is seen frame by frame:
    each frame is encoded once. Both keep the maps out of black bars; training, which uses neither, does not.
    """

    encoder: FrameEncoder
    centre: CentreBias

    def __init__(self, spec: InputSpec = SPEC, domain_specific: bool = False) -> None:
        extra = Priors.COUNT if domain_specific else 0
        super().__init__(
            encoder=FrameEncoder(EfficientNetLite0()),
            collapses=[TemporalFilters(c, out, spec.num_frames) for c, out, _ in _LEVELS.values()],
            decoders=[Decoder(out + extra, stages, separable_conv) for _, out, stages in _LEVELS.values()],
            spec=spec,
            clip_lengths=(1, spec.num_frames),
            scale=4,
            # The levels agree by multiplying their odds. Fusing the maps themselves, as the paper does,
            # bounds the output's contrast and lets weak levels blur it (see docs/hd2s-lite.md).
            fuse_log_odds=True,
            priors=[Priors() for _ in _LEVELS] if domain_specific else (),
            smoothing=Smoothing() if domain_specific else None,
            centre=CentreBias(),
        )
        self.fusion.weight = nn.Parameter(torch.full_like(self.fusion.weight, 0.25))
        self.fusion.bias = nn.Parameter(torch.zeros(1))

    def bars(self, frames: Tensor) -> Tensor:
        """Find the black bars; see `find_bars`."""
        return find_bars(frames, self.spec, self.scale)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Encode frames (N, 3, H, W) to the features of levels 2-5, each (N, C, h, w), and their bars."""
        return [*self.encoder.network(frames), self.bars(frames)]

    def slide(self, features: Sequence[Tensor]) -> HD2SOutput:
        """Predict the last N frames of a run of N + T - 1 frames, from what `encode` gave of them."""
        *levels, bars = features
        collapsed = []
        for collapse, level in zip(self.collapses, levels, strict=True):
            assert isinstance(collapse, TemporalFilters)
            collapsed.append(collapse.slide(level))
        return self.decode(collapsed, bars=bars[self.spec.num_frames - 1 :])
