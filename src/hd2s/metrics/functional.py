"""Metrics of video saliency as pure functions of batches of maps; each returns one value a map.

Definitions and conventions: Bylinskii et al., "What do different evaluation metrics tell us about
saliency models?", TPAMI 2019; docs/metrics.md has the conventions of the benchmarks.

All work in the type of the prediction, float32 or float64 (others become float32), on its device. float32
agrees with float64 to about 1e-5. A map that holds nan or infinity scores nan. Fixations are given as
`Fixations` or as maps of counts (B, H, W).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hd2s.errors import InputShapeError, UnknownNameError
from hd2s.metrics.auc import auc_borji, auc_judd, auc_shuffled
from hd2s.metrics.common import EPSILON, FixationsLike, flat, scatter, summed, weighted_mean
from hd2s.metrics.fixations import Fixations

__all__ = [
    "EPSILON",
    "Fixations",
    "FixationsLike",
    "Normalisation",
    "auc_borji",
    "auc_judd",
    "auc_shuffled",
    "cc",
    "information_gain",
    "kl_divergence",
    "nss",
    "quantise",
    "sim",
]

Normalisation = Literal["minmax", "sum"]


def cc(prediction: Tensor, density: Tensor) -> Tensor:
    """Pearson's correlation coefficient over pixels.

    Args:
        prediction: (B, H, W), any scale.
        density: (B, H, W) ground truth, any scale.

    Returns:
        (B,) in [-1, 1]; nan where either map is constant.

    Raises:
        InputShapeError: The shapes differ or are not (B, H, W).

    Example:
        >>> import torch
        >>> ramp = torch.arange(6.0).reshape(1, 2, 3)
        >>> cc(ramp, 3 * ramp + 1).round(decimals=4)
        tensor([1.])
    """
    p_squares, products, q_squares = scatter(*_pair(prediction, density))
    return products / (p_squares.sqrt() * q_squares.sqrt())


def sim(prediction: Tensor, density: Tensor, *, normalise: Normalisation = "minmax") -> Tensor:
    """Similarity, the intersection of two distributions: sum of min(P', G').

    Args:
        prediction: (B, H, W), any scale for "minmax"; not negative for "sum".
        density: (B, H, W) ground truth, likewise.
        normalise: "minmax" shifts each map to minimum 0 before it is divided by its sum (MIT's benchmark),
            "sum" divides only.

    Returns:
        (B,) in [0, 1]; nan where either map sums to 0 then: constant for "minmax", zero for "sum".

    Raises:
        InputShapeError: The shapes differ or are not (B, H, W).
        UnknownNameError: There is no such normalisation.

    Example:
        >>> import torch
        >>> p, g = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[0.0, 0.0, 2.0]]])
        >>> sim(p, g), sim(p, g, normalise="sum")
        (tensor([0.6667]), tensor([0.5000]))
    """
    if normalise not in ("minmax", "sum"):
        raise UnknownNameError.among("normalisation of SIM", normalise, ("minmax", "sum"))
    p, g = _pair(prediction, density)
    lowest = [m.amin(1, keepdim=True) if normalise == "minmax" else m.new_zeros(len(m), 1) for m in (p, g)]

    def totals(a: Tensor, b: Tensor, a_low: Tensor, b_low: Tensor) -> Tensor:
        return torch.stack([(a - a_low).sum(-1), (b - b_low).sum(-1)], -1)

    def shared(a: Tensor, b: Tensor, a_low: Tensor, b_low: Tensor, scale: Tensor) -> Tensor:
        return torch.minimum(a - a_low, (b - b_low) * scale).sum(-1, keepdim=True)

    p_sum, g_sum = torch.split(summed(totals, p, g, *lowest), 1, 1)
    return (summed(shared, p, g, *lowest, p_sum / g_sum) / p_sum)[:, 0]


def nss(prediction: Tensor, fixations: FixationsLike) -> Tensor:
    """Normalised scanpath saliency: the mean standardised prediction at the fixated pixels.

    Args:
        prediction: (B, H, W), any scale.
        fixations: `Fixations`, or (B, H, W) numbers of fixations at each pixel; coincident ones count each.

    Returns:
        (B,) in standard deviations (n - 1 in the denominator); nan for a constant map or no fixations.

    Raises:
        InputShapeError: The sizes of prediction and fixations differ.

    Example:
        >>> import torch
        >>> nss(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0, 2]]]))
        tensor([0.7071])
    """
    p = flat(prediction, fixations)
    if isinstance(fixations, Fixations):
        (squares,) = scatter(p)
        mean = weighted_mean(p.gather(1, fixations.pixels) - p.mean(1, keepdim=True), fixations.counts)
    else:  # as they are: training calls this, and looking for the fixated pixels would make CUDA wait
        weight = fixations.flatten(1).to(p.dtype)
        squares, products, _ = scatter(p, weight)
        mean = products / weight.sum(1)
    return mean / (squares / (p.shape[1] - 1)).sqrt()


def kl_divergence(prediction: Tensor, density: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the prediction from the ground truth, both normalised to sum 1.

    Args:
        prediction: (B, H, W), not negative, not all zero.
        density: (B, H, W) ground truth, not negative, not all zero.

    Returns:
        (B,) in nats: sum of t * log(eps + t / (p + eps)); gradients flow to the prediction. nan where
        either map is zero.

    Raises:
        InputShapeError: The shapes differ or are not (B, H, W).

    Example:
        >>> import torch
        >>> kl_divergence(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]]))
        tensor([0.6931])
    """
    p, t = _pair(prediction, density)
    p = p / p.sum(1, keepdim=True)
    t = t / t.sum(1, keepdim=True)
    return (t * (EPSILON + t / (p + EPSILON)).log()).sum(1)


def information_gain(prediction: Tensor, fixations: FixationsLike, baseline: Tensor) -> Tensor:
    """Information gain over a baseline: the mean of log2((P' + eps) / (B' + eps)) over the fixations.

    Kümmerer, Wallis and Bethge, "Information-theoretic model comparison unifies saliency metrics",
    PNAS 2015, with the epsilon of MIT's code.

    Args:
        prediction: (B, H, W), not negative, not all zero; normalised to sum 1 here.
        fixations: `Fixations`, or (B, H, W) numbers of fixations at each pixel.
        baseline: (B, H, W) or (1, H, W) density to compare with, such as a centre prior; normalised likewise.

    Returns:
        (B,) in bits a fixation; nan for a zero map or no fixations.

    Raises:
        InputShapeError: The sizes differ.

    Example:
        >>> import torch
        >>> p, b = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0, 1.0]]])
        >>> information_gain(p, torch.tensor([[[0, 1]]]), b)  # log2(0.75 / 0.5)
        tensor([0.5850])
    """
    p = flat(prediction, fixations)
    b = baseline.expand_as(prediction) if len(baseline) == 1 else baseline
    _, b = _pair(prediction, b)
    if not isinstance(fixations, Fixations):
        fixations = Fixations.from_maps(fixations)
    p = p.gather(1, fixations.pixels) / p.sum(1, keepdim=True)
    b = b.gather(1, fixations.pixels) / b.sum(1, keepdim=True)
    return weighted_mean((p + EPSILON).log2() - (b + EPSILON).log2(), fixations.counts)


def quantise(prediction: Tensor) -> Tensor:
    """Round maps to the 256 levels of an 8-bit file, as benchmarks that take files see them.

    Args:
        prediction: (...) in [0, 1]; what is beyond is clipped.

    Returns:
        (...) multiples of 1/255.

    Example:
        >>> import torch
        >>> quantise(torch.tensor([0.0, 0.001, 0.499, 2.0])) * 255
        tensor([  0.,   0., 127., 255.])
    """
    return (prediction.clamp(0, 1) * 255).round() / 255


def _pair(prediction: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as (B, H * W) of the prediction's type."""
    if prediction.shape != density.shape:
        raise InputShapeError(
            f"Prediction and density must have the same shape (B, H, W), got {tuple(prediction.shape)} and "
            f"{tuple(density.shape)}. Resize the prediction to the ground truth."
        )
    p = flat(prediction)
    return p, density.flatten(1).to(p.dtype)
