"""Areas under ROC curves: how well a map tells fixated from other pixels, by a threshold.

The sampled ones average over 100 splits: each draws as many negatives as there are fixations. With fixed
thresholds the area is linear in the rate of false positives, so the mean over the splits is the area for
all their negatives at once, and that is how it is computed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hd2s.errors import InputShapeError
from hd2s.metrics.common import FixationsLike, flat
from hd2s.metrics.draws import uniform
from hd2s.metrics.fixations import Fixations

SPLITS = 100
COUNTED = 32  # thresholds of AUC-Judd, from the lowest, that are counted one by one
STEPS = 10  # thresholds at 0, 1/10, ... 1 of the min-max-normalised map


def auc_judd(prediction: Tensor, fixations: FixationsLike) -> Tensor:
    """AUC-Judd: thresholds at the fixated values, false positives over all pixels that are not fixated.

    Judd et al., "Learning to predict where humans look", ICCV 2009; MIT's code, without the noise that it
    adds to break ties: of equal values all are above the threshold. The curve goes straight from (0, 0)
    over the points of the thresholds to (1, 1). Coincident fixations count each as true positives; their
    pixel is left out of the negatives once.

    Args:
        prediction: (B, H, W), any scale; only the order of its values matters.
        fixations: `Fixations`, or (B, H, W) numbers of fixations at each pixel.

    Returns:
        (B,) in [0, 1]; 0.5 for a constant map; nan without fixations or where all pixels are fixated.

    Raises:
        InputShapeError: The sizes of prediction and fixations differ.

    Example:
        >>> import torch
        >>> auc_judd(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0, 0], [1, 0]]]))
        tensor([0.8333])
    """
    p, fixations = _inputs(prediction, fixations)
    values, order = p.gather(1, fixations.pixels).masked_fill(fixations.counts == 0, torch.inf).sort(1)
    counts = fixations.counts.gather(1, order)
    # Of equal values the first tells how many are below it, and so how many are not.
    first = torch.searchsorted(values, values).clamp(max=max(0, values.shape[1] - 1))  # beyond: nan
    true = _at_least(counts, first)
    fixated = _at_least((counts > 0).long(), first)
    above = _above(p, values)
    rest = p.shape[1] - (counts > 0).sum(1, keepdim=True)
    area = _area((above - fixated).double() / rest, true.double() / counts.sum(1, keepdim=True))
    defined = p.amin(1).isfinite() & p.amax(1).isfinite() & (rest[:, 0] > 0)
    return area.where(defined, torch.nan).to(p.dtype)


def auc_borji(
    prediction: Tensor,
    fixations: FixationsLike,
    *,
    seed: int = 0,
    keys: Tensor | None = None,
    splits: int = SPLITS,
) -> Tensor:
    """AUC-Borji: negatives are drawn uniformly from all pixels, thresholds are at every tenth.

    Borji, Tavakoli, Sihite and Itti, "Analysis of scores, datasets, and models in visual saliency
    prediction", ICCV 2013; MIT's code.

    Args:
        prediction: (B, H, W), any scale; min-max normalised here.
        fixations: `Fixations`, or (B, H, W) numbers of fixations at each pixel.
        seed: Of the draws.
        keys: (B,) int64, the number of each map: draws depend on seed and key, not on batch or device.
            The same for all if not given.
        splits: Draws to average over.

    Returns:
        (B,) in [0, 1]; nan for a constant map or no fixations.

    Raises:
        InputShapeError: The sizes of prediction and fixations differ.

    Example:
        >>> import torch
        >>> auc_borji(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0, 0], [0, 1]]]))
        tensor([0.8350])
    """
    p, fixations = _inputs(prediction, fixations)
    numbers, used = _draws(fixations, seed, keys, splits)
    return _sampled(p, fixations, (numbers * p.shape[1]).long(), used)


def auc_shuffled(
    prediction: Tensor,
    fixations: FixationsLike,
    negatives: FixationsLike,
    *,
    seed: int = 0,
    keys: Tensor | None = None,
    splits: int = SPLITS,
) -> Tensor:
    """Shuffled AUC: as AUC-Borji, with negatives drawn from the fixations of other pictures.

    Tatler, Baddeley and Gilchrist, "Visual correlates of fixation selection", Vision Research 2005; Zhang
    et al., "SUN", J. of Vision 2008; MIT's code. That one draws a split without putting back, this one
    puts back: the expectation is the same.

    Args:
        prediction: (B, H, W), any scale; min-max normalised here.
        fixations: `Fixations`, or (B, H, W) numbers of fixations at each pixel.
        negatives: The pool to draw from, for B maps or one for all; coincident ones are as much more likely.
            `Fixations.from_points` scales coordinates of other pictures to the map, `once` makes a union.
        seed: Of the draws.
        keys: (B,) int64, the number of each map: draws depend on seed and key, not on batch or device.
            The same for all if not given.
        splits: Draws to average over.

    Returns:
        (B,) in [0, 1]; nan for a constant map, no fixations or no negatives.

    Raises:
        InputShapeError: The sizes differ.

    Example:
        >>> import torch
        >>> p = torch.tensor([[[0.0, 0.2], [0.6, 1.0]]])
        >>> auc_shuffled(p, torch.tensor([[[0, 0], [0, 1]]]), torch.tensor([[[0, 0], [1, 0]]]))
        tensor([1.])
    """
    p, fixations = _inputs(prediction, fixations)
    if not isinstance(negatives, Fixations):
        negatives = Fixations.from_maps(negatives)
    if negatives.size_hw != fixations.size_hw or len(negatives.pixels) not in (1, len(p)):
        raise InputShapeError(
            f"Negatives are for the {len(p)} maps of {fixations.size_hw} or for one of that size, got "
            f"{len(negatives.pixels)} of {negatives.size_hw}. Scale them with Fixations.from_points."
        )
    numbers, used = _draws(fixations, seed, keys, splits)
    pool = negatives.pixels.flatten().repeat_interleave(negatives.counts.flatten())
    if not len(pool):
        return p.new_full((len(p),), torch.nan)
    totals = negatives.totals()[:, None]
    chosen = (numbers * totals).long() + totals.cumsum(0) - totals
    scores = _sampled(p, fixations, pool[chosen.clamp(max=len(pool) - 1)], used)
    return scores.where(totals[:, 0] > 0, torch.nan)


def _inputs(prediction: Tensor, fixations: FixationsLike) -> tuple[Tensor, Fixations]:
    p = flat(prediction, fixations).detach()
    return p, fixations if isinstance(fixations, Fixations) else Fixations.from_maps(fixations)


def _above(p: Tensor, values: Tensor) -> Tensor:
    """(B, M) pixels of maps (B, N) that are not below each of the rising `values` (B, M).

    On a CPU most of the time of AUC-Judd is spent here. Each value leaves fewer pixels for the next, so to
    count is fast for a few values; for many it is faster to sort what they leave, which numpy does some 15
    times as fast as torch.
    """
    if p.device.type != "cpu":
        return p.shape[1] - torch.searchsorted(p.sort(1).values, values)
    above = np.zeros(values.shape, np.int64)
    for row, edges, counts in zip(p.numpy(), values.numpy(), above, strict=True):
        rest = row
        for i, edge in enumerate(edges[:COUNTED]):
            high = rest >= edge
            counts[i] = np.count_nonzero(high)
            if counts[i] < len(rest) / 2:  # to drop the others costs more than to count some of them again
                rest = rest[high]
        if len(edges) > COUNTED:
            ordered = np.sort(rest)
            counts[COUNTED:] = len(ordered) - np.searchsorted(ordered, edges[COUNTED:])
    return torch.from_numpy(above)


def _at_least(counts: Tensor, first: Tensor) -> Tensor:
    """(B, M) sums of the counts from place `first` on."""
    return counts.sum(1, keepdim=True) - (counts.cumsum(1) - counts).gather(1, first)


def _area(false: Tensor, true: Tensor) -> Tensor:
    """(B,) area under curves through (1, 1), the points (B, M) of rising thresholds, and (0, 0)."""
    false, true = (torch.nn.functional.pad(rate, (0, 1)) for rate in (false, true))
    false, true = (torch.nn.functional.pad(rate, (1, 0), value=1.0) for rate in (false, true))
    return -torch.trapezoid(true, false, dim=1)


def _draws(fixations: Fixations, seed: int, keys: Tensor | None, splits: int) -> tuple[Tensor, Tensor]:
    """(B, K) numbers in [0, 1), as many as the richest map needs, and which of them each map uses."""
    needed = fixations.totals()[:, None] * splits
    most = int(needed.max()) if len(needed) else 0
    if keys is None:
        keys = torch.zeros(len(needed), dtype=torch.int64)
    used = torch.arange(most, device=needed.device) < needed
    return uniform(seed, keys.to(needed.device), most), used


def _sampled(p: Tensor, fixations: Fixations, drawn: Tensor, used: Tensor) -> Tensor:
    """(B,) areas for negatives at the pixels `drawn` (B, K) of maps (B, N)."""
    low, high = p.amin(1, keepdim=True).double(), p.amax(1, keepdim=True).double()
    span = high - low

    def histogram(pixels: Tensor, counts: Tensor) -> Tensor:
        values = (p.gather(1, pixels).double() - low) / span
        edges = torch.arange(STEPS + 1, device=p.device, dtype=torch.float64) / STEPS
        bins = torch.bucketize(values, edges, right=True).clamp(1, STEPS + 1) - 1  # nan comes last
        return torch.zeros(len(p), STEPS + 1, device=p.device, dtype=torch.int64).scatter_add(1, bins, counts)

    rates = []
    for counts in (histogram(drawn, used.long()), histogram(fixations.pixels, fixations.counts)):
        rates.append(counts.flip(1).cumsum(1).flip(1).double() / counts.sum(1, keepdim=True))
    return _area(*rates).where((span[:, 0] > 0) & span[:, 0].isfinite(), torch.nan).to(p.dtype)
