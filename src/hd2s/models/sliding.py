"""The paper's network sliding over a video, without doing twice what neighbouring windows share.

The windows of two neighbouring frames have all frames but one in common, but few temporal outputs: a window
sees zeros beyond its ends, and the strides of time shift with it. What can be shared exactly is the stem's
spatial convolution, once for each frame; those outputs of its temporal convolution, and of the next one, that
see no end of a window; and what follows each that sees one moment alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hd2s.models.hd2s import HD2S, HD2SOutput

if TYPE_CHECKING:
    from hd2s.models.s3d import S3D


class SlidingHD2S(HD2S):
    """HD2S over `S3D`."""

    encoder: S3D

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Apply the stem's spatial convolution to frames (N, 3, H, W): one tensor (N, 64, H / 2, W / 2)."""
        spatial, _ = _parts(_parts(self.encoder.levels[0])[0])
        filtered = spatial(_as_clip(frames.permute(0, 2, 3, 1)))
        return [_as_frames(filtered).permute(0, 3, 1, 2)]

    def slide(self, features: Sequence[Tensor]) -> HD2SOutput:
        """Predict the last N frames of a run of N + T - 1 encoded frames; see `HD2S.slide`."""
        (frames,) = features
        level1, level2, level3, *deeper = self.encoder.levels
        stem, pool1 = _parts(level1)
        moments = _strided(_parts(stem)[1], frames.permute(0, 2, 3, 1), self.spec.num_frames).map(pool1)
        if moments.count == 1:  # nothing is shared, and a clip takes less time than its moments
            levels = [level2(moments.clips())]
            levels.append(level3(levels[0]))
        else:
            pointwise, separable, pool2 = _parts(level2)
            spatial, temporal = _parts(separable)
            moments = _filtered(temporal, moments.map(pointwise).map(spatial)).map(pool2)
            first, *others = _parts(level3)
            levels = [moments.clips(), nn.Sequential(*others)(_mixed(first, moments))]
        for level in deeper:
            levels.append(level(levels[-1]))
        return self.decode(self.collapse(levels))


@dataclass(frozen=True)
class _Moments:
    """Features of N windows at each of their moments, which are two frames apart.

    Attributes:
        count: N.
        parts: Features (1, C, S, h, w) at S times, each one frame after the one before.
        places: For each moment the part that has it, and where the first window's is there; that of each next
            window follows. So the moments of a window that are in one part are two places apart.
    """

    count: int
    parts: Sequence[Tensor]
    places: Sequence[tuple[int, int]]

    def map(self, layer: Callable[[Tensor], Tensor]) -> _Moments:
        """Apply what sees one moment alone."""
        return _Moments(self.count, [layer(part) for part in self.parts], self.places)

    def at(self, moment: int) -> Tensor:
        """The features of all windows at a moment, (1, C, N, h, w)."""
        number, first = self.places[moment]
        part = self.parts[number]
        return part if part.shape[2] == self.count else part.narrow(2, first, self.count)

    def highest(self) -> _Moments:
        """The maxima of each moment's features and those of the moments before and after it."""
        length = len(self.places)
        parts = [
            functools.reduce(torch.maximum, map(self.at, range(max(i - 1, 0), min(i + 2, length))))
            for i in range(length)
        ]
        return _Moments(self.count, parts, [(i, 0) for i in range(length)])

    def clips(self) -> Tensor:
        """The windows as clips (N, C, moments, h, w)."""
        moments = [_as_frames(self.at(moment)) for moment in range(len(self.places))]
        return torch.stack(moments, dim=1).permute(0, 4, 1, 2, 3)


def _parts(module: nn.Module) -> list[nn.Module]:
    return list(module.children())


def _as_clip(frames: Tensor) -> Tensor:
    """Turn frames (N, H, W, C) into one clip (1, C, N, H, W); nothing moves in memory."""
    return frames[None].permute(0, 4, 1, 2, 3)


def _as_frames(clip: Tensor) -> Tensor:
    """Turn one clip (1, C, N, H, W) into frames (N, H, W, C)."""
    return clip.permute(0, 2, 3, 4, 1).squeeze(0)


def _strided(layer: nn.Module, frames: Tensor, length: int) -> _Moments:
    """Apply the stem's temporal convolution (7 frames, stride 2) to all windows in a run.

    Args:
        layer: The convolution, batch norm and activation.
        frames: The run, (N + length - 1, h, w, C).
        length: Frames in a window.
    """
    conv, norm, active = _parts(layer)
    assert isinstance(conv, nn.Conv3d)
    count, last = len(frames) - length + 1, length // 2 - 1
    inner = last - 2  # moments
    # The first two moments of a window and the last one see zeros beyond its end; the others are shared.
    parts = []
    for taps, first, moments in (
        (slice(3, 7), 0, count),
        (slice(1, 7), 0, count),
        (slice(0, 5), length - 5, count),
        (slice(0, 7), 1, count + 2 * (inner - 1)),
    ):
        kernel = conv.weight[:, :, taps]
        run = frames[first : first + moments + kernel.shape[2] - 1]
        parts.append(active(norm(F.conv3d(_as_clip(run), kernel))))
    return _Moments(count, parts, [(0, 0), (1, 0), *((3, 2 * i) for i in range(inner)), (2, 0)])


def _filtered(layer: nn.Module, moments: _Moments) -> _Moments:
    """Apply a temporal convolution of 3 moments to all windows.

    Args:
        layer: The convolution, batch norm in eval mode and activation.
        moments: What it is applied to; the last part alone has several moments of a window.
    """
    conv, norm, active = _parts(layer)
    assert isinstance(conv, nn.Conv3d)
    assert isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    weight, bias = conv.weight * scale.view(-1, 1, 1, 1, 1), norm.bias - norm.running_mean * scale
    before, now, after = torch.split(weight, 1, dim=2)
    length, shared = len(moments.places), len(moments.parts) - 1
    parts: list[Tensor] = []
    places: list[tuple[int, int]] = []
    common = None
    for i in range(length):
        seen = moments.places[max(i - 1, 0) : i + 2]
        if len(seen) == 3 and all(part == shared for part, _ in seen):
            if common is None:
                common = len(parts)
                parts.append(F.conv3d(moments.parts[shared], weight, bias, dilation=(2, 1, 1)))
            places.append((common, seen[0][1]))
        else:
            total = F.conv3d(moments.at(i), now, bias)
            if i > 0:
                total = total + F.conv3d(moments.at(i - 1), before)
            if i + 1 < length:
                total = total + F.conv3d(moments.at(i + 1), after)
            places.append((len(parts), 0))
            parts.append(total)
    return _Moments(moments.count, [active(part) for part in parts], places)


def _mixed(block: nn.Module, moments: _Moments) -> Tensor:
    """Apply an `Inception` to all windows; return its outputs as clips."""
    (plain,), *separables, (_, projection) = map(_parts, _parts(_parts(block)[0]))
    outputs = [moments.map(plain).clips()]
    for pointwise, separable in separables:
        spatial, temporal = _parts(separable)
        outputs.append(temporal(moments.map(pointwise).map(spatial).clips()))
    pooled = moments.map(lambda part: F.max_pool3d(part, (1, 3, 3), stride=1, padding=(0, 1, 1)))
    outputs.append(pooled.highest().map(projection).clips())
    return torch.cat(outputs, dim=1)
