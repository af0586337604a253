"""Domain adaptation by gradient reversal: heads that tell source from target, at each of the four levels.

The heads learn to tell the domains apart; behind the reversal layer the encoder and the collapses learn the
opposite. They are needed in training only and are no part of a network's weights.

References:
    Bellitto et al., IJCV 2021, section 3.2;
    Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hd2s.models.hd2s import HD2S, LEVELS

# level: widths of the 1x1 convolutions, widths of the linear layers before the last
_HEADS = {
    2: ((64, 32, 4), (512, 128, 32)),
    3: ((64, 4), (64, 16)),
    4: ((128, 16), (64, 16)),
    5: ((512, 64, 16), (64, 16)),
}
_DOMAINS = 2  # 0 source, 1 target


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, alpha: float) -> Tensor:
        ctx.alpha = alpha
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.alpha * gradient, None


def reverse_gradient(features: Tensor, alpha: float) -> Tensor:
    """Return the features as they are; on the way back their gradient is multiplied by -alpha."""
    reversed_: Tensor = _Reverse.apply(features, alpha)  # type: ignore[no-untyped-call]
    return reversed_


class DomainHead(nn.Module):
    """Tells from one level's collapsed features which domain they come from.

    Args:
        size: (C, h, w) of the features.
        convs: Widths of the 1x1 convolutions.
        linears: Widths of the linear layers before the last.
    """

    def __init__(self, size: tuple[int, int, int], convs: Sequence[int], linears: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = size
        self.reduce = nn.Sequential()
        for before, after in pairwise((channels, *convs)):
            self.reduce.extend((nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)))
        self.classify = nn.Sequential()
        widths = (convs[-1] * height * width, *linears)
        for i, (before, after) in enumerate(pairwise(widths)):
            self.classify.extend((nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(inplace=True)))
            if i > 0:
                self.classify.append(nn.Dropout(0.5))
        self.classify.append(nn.Linear(widths[-1], _DOMAINS))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, h, w) to log-probabilities (B, 2) of source and target."""
        return F.log_softmax(self.classify(self.reduce(features).flatten(1)), dim=1)


class Adversary(nn.Module):
    """The four heads for one network, for clips of the size of its `spec`.

    Args:
        network: The network whose collapsed features the heads will see; it is only measured.
    """

    def __init__(self, network: HD2S) -> None:
        super().__init__()
        spec = network.spec
        with torch.no_grad():
            shadow = copy.deepcopy(network).to("meta").eval()  # shapes without values
            clip = torch.empty(1, 3, spec.num_frames, spec.height, spec.width, device="meta")
            sizes = [level.shape[1:] for level in shadow.collapse(shadow.encoder(clip))]
        self.heads = nn.ModuleList(
            DomainHead((size[0], size[1], size[2]), *_HEADS[level])
            for level, size in zip(LEVELS, sizes, strict=True)
        )

    def forward(self, collapsed: Sequence[Tensor], alpha: float) -> Tensor:
        """Judge the collapsed features of a batch.

        Args:
            collapsed: For levels 2-5 (B, C, h, w), as `HD2S.collapse` gives them; B > 1 in training mode.
            alpha: Strength of the reversal, 0 or more.

        Returns:
            Log-probabilities (B, 4, 2): levels 2-5, source and target.
        """
        heads = zip(self.heads, collapsed, strict=True)
        return torch.stack([head(reverse_gradient(level, alpha)) for head, level in heads], dim=1)
