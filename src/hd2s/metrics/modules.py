"""The metrics as torchmetrics classes: they add up over batches and processes. Needs the extra "train"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hd2s.metrics import functional
from hd2s.metrics.common import FixationsLike
from hd2s.metrics.functional import Normalisation


class MapMetric(Metric):
    """Mean of a metric over maps; maps on which it is undefined are left out and counted.

    Attributes:
        total: Sum of the defined values, float64.
        scored: Number of maps with a defined value.
        skipped: Number of the others: nan in a map, a constant map, no fixations.
    """

    full_state_update = False
    is_differentiable = False
    total: Tensor
    scored: Tensor
    skipped: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("scored", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        defined = values.detach().isfinite()
        self.total += values.detach().where(defined, 0).double().sum()
        self.scored += defined.sum()
        self.skipped += (~defined).sum()

    def compute(self) -> Tensor:
        """Mean over the scored maps, float64; nan if there are none."""
        return self.total / self.scored


class CC(MapMetric):
    """Mean of `functional.cc`.

    Example:
        >>> metric = CC()
        >>> ramp = torch.tensor([[[1.0, -1.0, 0.0]]])
        >>> metric.update(torch.cat([ramp, torch.ones(1, 1, 3)]), torch.cat([ramp, ramp]))
        >>> round(metric.compute().item(), 4), metric.skipped.item()  # the second prediction is constant
        (1.0, 1)
    """

    higher_is_better = True

    def update(self, prediction: Tensor, density: Tensor) -> None:
        """Add maps (B, H, W)."""
        self._add(functional.cc(prediction, density))


class SIM(MapMetric):
    """Mean of `functional.sim`."""

    higher_is_better = True

    def __init__(self, *, normalise: Normalisation = "minmax", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.normalise = normalise

    def update(self, prediction: Tensor, density: Tensor) -> None:
        """Add maps (B, H, W)."""
        self._add(functional.sim(prediction, density, normalise=self.normalise))


class KLD(MapMetric):
    """Mean of `functional.kl_divergence`."""

    higher_is_better = False

    def update(self, prediction: Tensor, density: Tensor) -> None:
        """Add maps (B, H, W)."""
        self._add(functional.kl_divergence(prediction, density))


class NSS(MapMetric):
    """Mean of `functional.nss`."""

    higher_is_better = True

    def update(self, prediction: Tensor, fixations: FixationsLike) -> None:
        """Add maps (B, H, W) and their fixations."""
        self._add(functional.nss(prediction, fixations))


class IG(MapMetric):
    """Mean of `functional.information_gain`."""

    higher_is_better = True

    def update(self, prediction: Tensor, fixations: FixationsLike, baseline: Tensor) -> None:
        """Add maps (B, H, W), their fixations and the baseline, (B, H, W) or (1, H, W)."""
        self._add(functional.information_gain(prediction, fixations, baseline))


class AUCJudd(MapMetric):
    """Mean of `functional.auc_judd`."""

    higher_is_better = True

    def update(self, prediction: Tensor, fixations: FixationsLike) -> None:
        """Add maps (B, H, W) and their fixations."""
        self._add(functional.auc_judd(prediction, fixations))


class AUCBorji(MapMetric):
    """Mean of `functional.auc_borji`."""

    higher_is_better = True

    def __init__(self, *, seed: int = 0, splits: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed, self.splits = seed, splits

    def update(self, prediction: Tensor, fixations: FixationsLike, keys: Tensor | None = None) -> None:
        """Add maps (B, H, W), their fixations and numbers (B,)."""
        scores = functional.auc_borji(prediction, fixations, seed=self.seed, keys=keys, splits=self.splits)
        self._add(scores)


class AUCShuffled(AUCBorji):
    """Mean of `functional.auc_shuffled`."""

    def update(  # type: ignore[override]
        self,
        prediction: Tensor,
        fixations: FixationsLike,
        negatives: FixationsLike,
        keys: Tensor | None = None,
    ) -> None:
        """Add maps (B, H, W), their fixations, the pool of negatives and numbers (B,)."""
        scores = functional.auc_shuffled(
            prediction, fixations, negatives, seed=self.seed, keys=keys, splits=self.splits
        )
        self._add(scores)


METRICS: dict[str, type[MapMetric]] = {
    "cc": CC,
    "sim": SIM,
    "kld": KLD,
    "nss": NSS,
    "ig": IG,
    "auc_judd": AUCJudd,
    "auc_borji": AUCBorji,
    "auc_shuffled": AUCShuffled,
}
