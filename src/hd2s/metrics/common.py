"""What the metrics share: checks, the type they work in, means."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import TypeAlias

import torch
from torch import Tensor

from hd2s.errors import InputShapeError
from hd2s.metrics.fixations import Fixations

EPSILON = 2.2204e-16  # MATLAB's eps, as in the MIT saliency benchmark's code

_PIECE = 2**16  # pixels: such pieces of a few maps, and what is computed of them, fit into a cache

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


def summed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Sum what is computed of maps over their pixels, piece by piece.

    What is computed of a piece of one map stays in the cache of a CPU. Of whole maps it takes fresh memory,
    and to get that takes longer than to compute. Small maps, and those on other devices, are taken whole.
    Pieces do not depend on the batch, so neither does the rounding.

    Args:
        function: Is given pieces (n,) of each map, or the maps; sums over the last dimension and returns (K,)
            or (B, K).
        tensors: Maps (B, N) that belong together, and values (B, 1) that a piece is given whole.

    Returns:
        (B, K) sums.
    """
    pixels = max(each.shape[1] for each in tensors)
    if tensors[0].device.type != "cpu" or not len(tensors[0]) or pixels < _PIECE // 4:
        return function(*tensors)
    rows = []
    for row in zip(*tensors, strict=True):
        cut = ([each] * -(-pixels // _PIECE) if len(each) == 1 else each.split(_PIECE) for each in row)
        rows.append(torch.stack([function(*pieces) for pieces in zip(*cut, strict=True)]).sum(0))
    return torch.stack(rows)


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

    def products_of(*pieces: Tensor) -> Tensor:
        rest = [piece - mean for piece, mean in zip(pieces[: len(maps)], pieces[len(maps) :], strict=True)]
        return torch.stack([torch.linalg.vecdot(rest[i], rest[j]) for i, j in pairs], -1)

    total = summed(products_of, *maps, *means)
    rounding = [(8 * torch.finfo(mean.dtype).eps * mean[:, 0].detach()) ** 2 for mean in means]
    return [
        products.where(products > maps[0].shape[1] * rounding[i], torch.nan) if i == j else products
        for (i, j), products in zip(pairs, total.unbind(1), strict=True)
    ]


def weighted_mean(values: Tensor, counts: Tensor) -> Tensor:
    """(B,) mean of `values` (B, M), each as often as `counts` (B, M) says; nan where they are all 0."""
    weight = counts.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1)
