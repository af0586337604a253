"""The hierarchy of HD2S: encoder levels 2-5, temporal collapse, conspicuity decoders, fusion.

Reference: Bellitto et al., "Hierarchical Domain-Adapted Feature Learning for Video Saliency
Prediction", IJCV 2021, section 3.1 and figure 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hd2s.errors import InputShapeError
from hd2s.models.decoder import full_precision, upsample_maps, weighted_sum
from hd2s.types import InputSpec

LEVELS = (2, 3, 4, 5)
STRIDE = 32  # of the deepest level: height and width must be multiples of it


class HD2SOutput(NamedTuple):
    """What every network returns.

    Attributes:
        saliency: (B, H, W) in (0, 1): the map of the clip's last frame.
        conspicuity: (B, 4, H, W) in (0, 1): the maps of levels 2 to 5, in this order.
    """

    saliency: Tensor
    conspicuity: Tensor


class HD2S(nn.Module):
    """A hierarchical video saliency network over any encoder with four levels.

    Args:
        encoder: Maps a clip (B, 3, T, H, W) to the features of levels 2-5, each (B, C, t, h, w).
        collapses: For each level a module (B, C, t, h, w) -> (B, C', h, w).
        decoders: For each level a module (B, C', h, w) -> log-odds (B, 1, H / scale, W / scale).
        spec: The input that the network expects.
        clip_lengths: The numbers of frames T that the collapses can take.
        scale: The maps are fused at 1 / scale of the input's size and then upsampled bilinearly.
        fuse_log_odds: Fuse the conspicuity maps' log-odds, instead of the maps as the paper does.
        priors: For each level a module that adds prior maps to the collapsed features; see `DomainHD2S`.
        smoothing: Smooths the fused map (B, 1, H, W); see `DomainHD2S`.
        centre: Gives what is added to the fused maps before the sigmoid; see `CentreBias`.

    Raises:
        InputShapeError: The spec's height or width is no multiple of 32, or its number of frames is none
            that the collapses can take.
    """

    def __init__(
        self,
        encoder: nn.Module,
        collapses: Iterable[nn.Module],
        decoders: Iterable[nn.Module],
        spec: InputSpec,
        clip_lengths: Sequence[int],
        scale: int = 1,
        fuse_log_odds: bool = False,
        priors: Iterable[nn.Module] = (),
        smoothing: nn.Module | None = None,
        centre: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if spec.height % STRIDE or spec.width % STRIDE or spec.num_frames not in clip_lengths:
            raise InputShapeError(
                f"The network cannot take {spec}: height and width must be multiples of {STRIDE}, and the "
                f"number of frames one of {tuple(clip_lengths)}."
            )
        self.spec = spec
        self.scale = scale
        self.fuse_log_odds = fuse_log_odds
        self.clip_lengths = tuple(clip_lengths)
        self.encoder = encoder
        self.collapses = nn.ModuleList(collapses)
        self.priors = nn.ModuleList(priors)
        self.decoders = nn.ModuleList(decoders)
        self.fusion = nn.Conv2d(len(LEVELS), 1, 1)
        self.smoothing = smoothing
        self.centre = centre

    def forward(self, clip: Tensor) -> HD2SOutput:
        """Predict the maps of a clip's last frame.

        Args:
            clip: (B, 3, T, H, W) float, RGB, normalised as `spec` says; H and W multiples of 32.

        Raises:
            InputShapeError: The shape is none that the network takes.
        """
        self._check(clip)
        return self.decode(self.collapse(self.encoder(clip)), bars=self.bars(clip[:, :, -1]))

    def bars(self, frames: Tensor) -> Tensor | None:
        """Give what is to be subtracted from the fused maps of frames (N, 3, H, W): here nothing."""
        return None

    def collapse(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Collapse the four levels' features (B, C, t, h, w) over time to (B, C', h, w)."""
        return [collapse(level) for collapse, level in zip(self.collapses, features, strict=True)]

    def decode(
        self, collapsed: Sequence[Tensor], windows: Tensor | None = None, bars: Tensor | None = None
    ) -> HD2SOutput:
        """Decode the four levels' collapsed features (B, C', h, w) to maps and fuse these.

        Args:
            collapsed: What `collapse` gave.
            windows: (B, 2, 2) the parts of pictures that the inputs show; see `CentreBias`. All of them, if
                not given.
            bars: (B, 1, H / scale, W / scale), subtracted from the fused maps; see `find_bars`.
        """
        if self.priors:
            collapsed = [prior(level) for prior, level in zip(self.priors, collapsed, strict=True)]
        levels = [decoder(level) for decoder, level in zip(self.decoders, collapsed, strict=True)]
        log_odds = torch.cat(levels, dim=1)  # (B, 4, H / scale, W / scale)
        with full_precision(log_odds.device):
            conspicuity = log_odds.sigmoid()
            fused = weighted_sum(log_odds if self.fuse_log_odds else conspicuity, self.fusion)
            if self.centre is not None:
                fused = fused + self.centre(fused, windows)
            if bars is not None:
                fused = fused - bars
            saliency = upsample_maps(fused, self.scale).sigmoid()
            if self.smoothing is not None:
                saliency = self.smoothing(saliency)
            return HD2SOutput(saliency.squeeze(1), upsample_maps(conspicuity, self.scale))

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Do the work that a frame needs once, for frames (N, 3, H, W): here none.

        Returns:
            What `slide` takes, each (N, ...).
        """
        return [frames]

    def slide(self, features: Sequence[Tensor]) -> HD2SOutput:
        """Predict the last N frames of a run of N + T - 1 encoded frames.

        Args:
            features: What `encode` gave, each (N + T - 1, ...), in order of time.

        Returns:
            The maps of each window's last frame, (N, H, W) and (N, 4, H, W).
        """
        (frames,) = features
        length = self.spec.num_frames
        clips = [frames[first : first + length] for first in range(len(frames) - length + 1)]
        output: HD2SOutput = self(torch.stack(clips).transpose(1, 2))
        return output

    def _check(self, clip: Tensor) -> None:
        if clip.ndim != 5 or clip.shape[1] != 3:
            raise InputShapeError(f"A clip is (B, 3, T, H, W), got {tuple(clip.shape)}.")
        frames, height, width = clip.shape[2:]
        if frames not in self.clip_lengths or height % STRIDE or width % STRIDE or not height * width:
            nearest = (
                min(self.clip_lengths, key=lambda length: abs(length - frames)),
                *(max(STRIDE, round(side / STRIDE) * STRIDE) for side in (height, width)),
            )
            raise InputShapeError(
                f"Clips of (T, H, W) = {(frames, height, width)} do not fit: T must be one of "
                f"{self.clip_lengths}, H and W multiples of {STRIDE}. The nearest valid size is {nearest}."
            )
