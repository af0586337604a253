"""The supervised step as a LightningModule."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor

from hd2s.errors import TrainingError
from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import cc, nss
from hd2s.models import HD2SLite, HD2SOutput
from hd2s.training.data import Batch, ValidationSample
from hd2s.training.recipe import MixRecipe
from hd2s.training.steps import encode_windows, rise_and_fall


class Supervised(LightningModule):
    """Trains `hd2s-lite` on stills and clips with the hierarchical KL loss.

    Up to level 2 the encoder keeps the weights that it came with: edges and colours are the same everywhere.
    """

    def __init__(self, model: HD2SLite, recipe: MixRecipe) -> None:
        super().__init__()
        self.model = model.train()
        self.recipe = recipe
        network = model.encoder.network
        for part in (network.stem, *network.blocks[: network.ends[0] + 1]):
            part.requires_grad_(False)
        self._scores: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def on_train_epoch_start(self) -> None:
        """Freeze the batch norms after the images: few and alike videos would spoil their statistics."""
        if self.recipe.phase(0) is not self.recipe.phase(self.current_epoch):
            self.model.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the sum of the five KL divergences."""
        losses = hierarchical_kl(self._predict(batch), batch.targets)
        total = torch.stack(list(losses.values())).sum()
        if not total.isfinite():
            raise TrainingError(
                f"The loss is {total.item()} at epoch {self.current_epoch}, batch {batch_idx}: "
                "start again with a lower optim.lr and another --output; the checkpoints of earlier "
                "epochs are untouched."
            )
        parts = {f"train/{name}": value for name, value in losses.items()}
        count = len(batch.targets)
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=count)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=count)
        return total

    def _predict(self, batch: Batch) -> HD2SOutput:
        newest = torch.cat((batch.stills, batch.clips[:, :, -1]))
        with torch.set_grad_enabled(self.recipe.phase(self.current_epoch).encoder_lr > 0):
            features = encode_windows(self.model, newest, batch.clips[:, :, :-1])
        return self.model.decode(self.model.collapse(features), batch.windows)

    def validation_step(self, sample: ValidationSample, batch_idx: int) -> None:
        """Score one frame at the size of its ground truth."""
        saliency = self.model(sample.clip[None]).saliency[None]
        size = sample.density.shape
        prediction = F.interpolate(saliency, size=size, mode="bilinear", align_corners=False)[0]
        score = cc(prediction, sample.density[None]), nss(prediction, sample.fixations[None])
        self._scores[sample.group].append((score[0].item(), score[1].item()))

    def on_validation_epoch_end(self) -> None:
        """Log the mean over frames, then clips, of each data set; `val/cc` is the mean over data sets."""
        by_domain: dict[str, list[list[float]]] = defaultdict(list)
        for group, scores in self._scores.items():
            by_domain[group.partition("/")[0]].append(
                [sum(column) / len(scores) for column in zip(*scores, strict=True)]
            )
        self._scores.clear()
        means = {
            domain: [sum(c) / len(clips) for c in zip(*clips, strict=True)]
            for domain, clips in by_domain.items()
        }
        for domain, (mean_cc, mean_nss) in means.items():
            self.log_dict({f"val/{domain}_cc": mean_cc, f"val/{domain}_nss": mean_nss}, prog_bar=True)
        if means:
            self.log("val/cc", sum(m[0] for m in means.values()) / len(means), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with learning rates for encoder and the rest; the rates rise and fall in each phase."""
        encoder = list(self.model.encoder.parameters())
        rest = [p for name, p in self.model.named_parameters() if not name.startswith("encoder.")]
        groups = [{"params": encoder}, {"params": rest}]
        optim, images = self.recipe.optim, self.recipe.images
        # The rates are those of the schedule: it multiplies by what is given here.
        optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=optim.weight_decay)
        first = images.epochs * self.recipe.data.batches
        second = optim.epochs * self.recipe.data.batches

        def factor(step: int, steps: int) -> float:
            return rise_and_fall(step, max(1, round(optim.warmup * steps)), steps)

        def rate(step: int, of_images: float, of_all: float) -> float:
            if step < first:
                return of_images * factor(step, first)
            return of_all * factor(step - first, second)

        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            [
                partial(rate, of_images=images.encoder_lr, of_all=optim.encoder_lr),
                partial(rate, of_images=images.lr, of_all=optim.lr),
            ],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
