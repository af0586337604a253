"""The paper's network sliding over a video, without doing twice what neighbouring windows share.

The windows of two neighbouring frames have all frames but one in common, but few temporal outputs: a window
sees zeros beyond its ends, and the strides of time shift with it. What can be shared exactly is the stem: its
spatial convolution, once for each frame, and those outputs of its temporal convolution that see no end of a
window; and with them the spatial convolution that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        level1, level2, *deeper = self.encoder.levels
        stem, pool1 = _parts(level1)
        pointwise, separable, pool2 = _parts(level2)
        spatial, temporal = _parts(separable)
        slices, windows = _strided(_parts(stem)[1], frames.permute(0, 2, 3, 1), self.spec.num_frames)
        slices = spatial(pointwise(pool1(slices)))  # these see one moment alone
        clips = _as_frames(slices)[windows].permute(0, 4, 1, 2, 3)  # (N, C, T / 2, h, w)
        levels = [pool2(temporal(clips))]
        for level in deeper:
            levels.append(level(levels[-1]))
        return self.decode(self.collapse(levels))


def _parts(module: nn.Module) -> list[nn.Module]:
    return list(module.children())


def _as_clip(frames: Tensor) -> Tensor:
    """Turn frames (N, H, W, C) into one clip (1, C, N, H, W); nothing moves in memory."""
    return frames[None].permute(0, 4, 1, 2, 3)


def _as_frames(clip: Tensor) -> Tensor:
    """Turn one clip (1, C, N, H, W) into frames (N, H, W, C)."""
    return clip.permute(0, 2, 3, 4, 1).squeeze(0)


def _strided(layer: nn.Module, frames: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Apply the stem's temporal convolution (7 frames, stride 2) to all windows in a run.

    Args:
        layer: The convolution, batch norm and activation.
        frames: The run, (N + length - 1, h, w, C).
        length: Frames in a window.

    Returns:
        The different outputs, (1, C, S, h, w), and which of them make up each window, (N, length / 2).
    """
    conv, norm, active = _parts(layer)
    assert isinstance(conv, nn.Conv3d)
    count, last = len(frames) - length + 1, length // 2 - 1
    start = torch.arange(count, device=frames.device)
    windows = start.new_empty(count, last + 1)
    parts: list[Tensor] = []
    # The first two outputs of a window and the last one see zeros beyond its end.
    for output, taps, first in ((0, slice(3, 7), 0), (1, slice(1, 7), 0), (last, slice(0, 5), length - 5)):
        kernel = conv.weight[:, :, taps]
        windows[:, output] = len(parts) * count + start
        parts.append(F.conv3d(_as_clip(frames[first : first + count + kernel.shape[2] - 1]), kernel))
    for inner in range(last - 2):
        windows[:, 2 + inner] = len(parts) * count + start + 2 * inner
    parts.append(F.conv3d(_as_clip(frames[1 : count + 2 * last + 1]), conv.weight))
    return active(norm(torch.cat(parts, dim=2))), windows
