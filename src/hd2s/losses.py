"""Training losses."""

from __future__ import annotations

from torch import Tensor

from hd2s.metrics.functional import kl_divergence
from hd2s.models.hd2s import LEVELS, HD2SOutput


def hierarchical_kl(output: HD2SOutput, target: Tensor) -> dict[str, Tensor]:
    """KL divergence of the output map and of each conspicuity map from the target.

    The training loss is the sum of the five (Bellitto et al., IJCV 2021, section 3.2).

    Args:
        output: Maps (B, H, W) and (B, 4, H, W).
        target: (B, H, W) density, any positive scale.

    Returns:
        `{"output": ..., "level2": ..., ..., "level5": ...}`, each a scalar, the mean over the batch.
    """
    losses = {"output": kl_divergence(output.saliency, target).mean()}
    for i, level in enumerate(LEVELS):
        losses[f"level{level}"] = kl_divergence(output.conspicuity[:, i], target).mean()
    return losses
