"""What the metrics share: checks, the type they work in, means."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from hd2s.errors import InputShapeError
from hd2s.metrics.fixations import Fixations

EPSILON = 2.2204e-16  # MATLAB's eps, as in the MIT saliency benchmark's code

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


def centred(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the mean of each map.

    Args:
        maps: (B, N).

    Returns:
        (B, N) and their sums of squares (B,); nan where a map is constant up to the rounding of its mean.
    """
    mean = maps.mean(1, keepdim=True)
    rest = maps - mean
    squares = torch.linalg.vecdot(rest, rest)
    rounding = maps.shape[1] * (8 * torch.finfo(maps.dtype).eps * mean[:, 0].detach()) ** 2
    return rest, torch.where(squares > rounding, squares, torch.nan)


def weighted_mean(values: Tensor, counts: Tensor) -> Tensor:
    """(B,) mean of `values` (B, M), each as often as `counts` (B, M) says; nan where they are all 0."""
    weight = counts.to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1)
