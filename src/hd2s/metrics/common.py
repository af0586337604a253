"""What the metrics share: checks, the type they work in, means."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import TypeAlias

import torch
from torch import Tensor

from hd2s.errors import InputShapeError
from hd2s.metrics.fixations import Fixations

EPSILON = 2.2204e-16  # MATLAB's eps, as in the MIT saliency benchmark's code

_BLOCK = 2**15  # pixels: such pieces of a few maps, and what is computed of them, fit into a cache

FixationsLike: TypeAlias = Fixations | Tensor


def flat(prediction: Tensor, fixations: FixationsLike | None = None) -> Tensor:
    """Check shapes; return the maps as (B, H * W) float32 or float64.

    Raises:
        InputShapeError: The prediction is not (B, H, W), or the fixations are for maps of another shape.
    """
    shape = tuple(prediction.shape)
    if len(shape) != 3:
        raise InputShapeError(f"A batch of maps is (B, H, W), got {shape}. Add dimensions with map[None].")
    if fixations is not None:
        found = (
            (len(fixations.pixels), *fixations.size_hw)
            if isinstance(fixations, Fixations)
            else tuple(fixations.shape)
        )
        if found != shape:
            raise InputShapeError(
                f"The fixations are for maps (B, H, W) = {found}, the prediction is {shape}. "
                "Resize the prediction to the ground truth."
            )
    known = prediction.dtype in (torch.float32, torch.float64)
    return (prediction if known else prediction.float()).flatten(1)


def blocks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut maps (B, N) that belong together into pieces (B, n), one after the other.

    What is computed of a piece stays in the cache of a CPU. Of whole maps it takes fresh memory, and to get
    that takes longer than to compute. Pieces do not depend on B, so neither does the rounding.
    """
    size = _BLOCK if maps[0].device.type == "cpu" else maps[0].shape[1]
    return zip(*(torch.split(each, size, 1) for each in maps), strict=True)


def scatter(*maps: Tensor) -> list[Tensor]:
    """Sums over the pixels of products of centred maps.

    Args:
        maps: One or two, (B, N).

    Returns:
        (B,) of the first map with itself; of two, then of both and of the second with itself. A map with
        itself is nan where it is constant up to the rounding of its mean.
    """
    means = [each.mean(1, keepdim=True) for each in maps]
    pairs = list(combinations_with_replacement(range(len(maps)), 2))
    total = maps[0].new_zeros(len(pairs), len(maps[0]))
    for pieces in blocks(*maps):
        rest = [piece - mean for piece, mean in zip(pieces, means, strict=True)]
        total = total + torch.stack([torch.linalg.vecdot(rest[i], rest[j]) for i, j in pairs])
    rounding = [(8 * torch.finfo(mean.dtype).eps * mean[:, 0].detach()) ** 2 for mean in means]
    return [
        products.where(products > maps[0].shape[1] * rounding[i], torch.nan) if i == j else products
        for (i, j), products in zip(pairs, total, strict=True)
    ]


def weighted_mean(values: Tensor, counts: Tensor) -> Tensor:
    """(B,) mean of `values` (B, M), each as often as `counts` (B, M) says; nan where they are all 0."""
    weight = counts.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1)
