"""Metrics of video saliency as pure functions of batches of maps; each returns one value a map.

Definitions and conventions: Bylinskii et al., "What do different evaluation metrics tell us about
saliency models?", TPAMI 2019.
"""

from __future__ import annotations

from torch import Tensor

EPSILON = 2.2204e-16  # MATLAB's eps, as in the MIT saliency benchmark's code


def cc(prediction: Tensor, density: Tensor) -> Tensor:
    """Pearson's correlation coefficient over pixels.

    Args:
        prediction: (B, H, W), any scale.
        density: (B, H, W) ground truth, any scale.

    Returns:
        (B,) in [-1, 1]; nan where either map is constant.

    Example:
        >>> import torch
        >>> ramp = torch.arange(6.0).reshape(1, 2, 3)
        >>> cc(ramp, 3 * ramp + 1)
        tensor([1.])
    """
    p = prediction.flatten(1) - prediction.flatten(1).mean(1, keepdim=True)
    q = density.flatten(1) - density.flatten(1).mean(1, keepdim=True)
    return (p * q).sum(1) / ((p * p).sum(1) * (q * q).sum(1)).sqrt()


def nss(prediction: Tensor, fixations: Tensor) -> Tensor:
    """Normalised scanpath saliency: the mean standardised prediction at the fixated pixels.

    Args:
        prediction: (B, H, W), any scale.
        fixations: (B, H, W) numbers of fixations at each pixel; coincident ones count each.

    Returns:
        (B,) in standard deviations (n - 1 in the denominator); nan for a constant map or no fixations.

    Example:
        >>> import torch
        >>> nss(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0, 2]]]))
        tensor([0.7071])
    """
    p = prediction.flatten(1)
    weight = fixations.flatten(1).to(p.dtype)
    standard = (p - p.mean(1, keepdim=True)) / p.std(1, keepdim=True)
    return (standard * weight).sum(1) / weight.sum(1)


def kl_divergence(prediction: Tensor, density: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the prediction from the ground truth, both normalised to sum 1.

    Args:
        prediction: (B, H, W), not negative, not all zero.
        density: (B, H, W) ground truth, not negative, not all zero.

    Returns:
        (B,) in nats: sum of t * log(eps + t / (p + eps)); gradients flow to the prediction.

    Example:
        >>> import torch
        >>> kl_divergence(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]]))
        tensor([0.6931])
    """
    p = prediction.flatten(1)
    t = density.flatten(1)
    p = p / p.sum(1, keepdim=True)
    t = t / t.sum(1, keepdim=True)
    return (t * (EPSILON + t / (p + EPSILON)).log()).sum(1)
