"""The paper's three ways to train, each as a LightningModule over batches of clips.

Reference: Bellitto et al., IJCV 2021, sections 3.2 (adversarial) and 3.3 (domain-specific).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from hd2s.errors import TrainingError
from hd2s.inference.predictor import Predictor
from hd2s.inference.torch_engine import TorchEngine
from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import kl_divergence
from hd2s.models import HD2S, DomainHD2S, HD2SLite, HD2SOutput
from hd2s.models.adversary import Adversary
from hd2s.models.domain import Smoothing
from hd2s.models.hd2s import LEVELS
from hd2s.training.clip_recipe import ClipRecipe, StepsTable
from hd2s.training.clips import ClipBatch, ValidationVideo

_MAX_BAD_SHARE = 0.01  # of the videos; more means that the data set is broken


class Preview(NamedTuple):
    """What a picture of the training shows: the last frame of a clip, its ground truth and its prediction."""

    frame: Tensor
    target: Tensor
    output: HD2SOutput


class Step(LightningModule):
    """What the three have in common: optimiser, schedule, validation and what is logged.

    Args:
        model: The network to train.
        recipe: See `ClipRecipe`.
        num_videos: Videos to draw from, to tell a bad one from a bad data set.
    """

    def __init__(self, model: HD2S | DomainHD2S, recipe: ClipRecipe, num_videos: int) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.num_videos = num_videos
        self.preview: Preview | None = None
        self._bad_videos: dict[str, str] = {}  # name: reason
        self._scores: dict[str, list[float]] = {}

    def network(self, domain: str) -> HD2S:
        """The network that predicts a source: the one of its own if there is one for each."""
        if isinstance(self.model, HD2S):
            return self.model
        network = self.model.networks[domain]
        assert isinstance(network, HD2S)
        return network

    def on_train_epoch_start(self) -> None:
        """Keep batch norms in eval mode if the recipe says so."""
        if self.recipe.optim.norms == "frozen":
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def supervise(self, batch: ClipBatch, collapsed: list[Tensor]) -> Tensor:
        """Predict from collapsed features; return the sum of the KL divergences from the targets."""
        assert batch.targets is not None
        output = self.network(batch.domain).decode(collapsed)
        losses = hierarchical_kl(output, batch.targets)
        self.preview = Preview(
            batch.clips[0, :, -1], batch.targets[0], HD2SOutput(*(o[:1].detach() for o in output))
        )
        self._log({f"train/{batch.domain}/{name}": loss.detach() for name, loss in losses.items()}, batch)
        supervised = losses if self.recipe.supervise_levels else {"output": losses["output"]}
        return torch.stack(list(supervised.values())).sum()

    def finish(self, loss: Tensor, *batches: ClipBatch) -> Tensor:
        """Check a batch's loss, note videos that failed, and scale the loss as gradients are accumulated."""
        for batch in batches:
            self._note_bad(batch.skipped)
        if not loss.isfinite():
            names = "; ".join(name for batch in batches for name in batch.names)
            raise TrainingError(
                f"The loss is {loss.item()} at step {self.global_step}, in the batch of {names}. Earlier "
                "checkpoints are untouched: start again with a lower optim.lr and another --output."
            )
        self._log({"train/loss": loss.detach()}, batches[0], prog_bar=True)
        # Lightning divides by the number of accumulated batches.
        return loss * self.recipe.optim.accumulate if self.recipe.optim.gradients == "sum" else loss

    def validation_step(self, video: ValidationVideo, batch_idx: int) -> None:
        """Predict a whole video as in inference; score its frames by KL divergence."""
        self._note_bad(video.skipped)
        if not video.indices:
            return
        wanted = set(video.indices)
        found = []
        with torch.autocast(self.device.type, enabled=False):
            predictor = Predictor(TorchEngine(self.network(video.domain), str(self.device)))
            for frame in video.frames.cpu().numpy():
                found += [m.saliency for m in predictor.push(frame) if m.index in wanted]
            found += [m.saliency for m in predictor.flush() if m.index in wanted]
        divergence = kl_divergence(torch.from_numpy(np.stack(found)), video.targets.cpu())
        self._scores.setdefault(video.domain, []).append(divergence.nanmean().item())

    def on_validation_epoch_end(self) -> None:
        """Log the mean over videos for each source, and that over the sources, by which the best is kept."""
        means = {}
        for domain in [table.name for table in self.recipe.source]:
            scores = self._scores.get(domain, [])
            sums = torch.tensor([sum(scores), len(scores)], dtype=torch.float32, device=self.device)
            total, count = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
            if count:
                means[domain] = total / count
                self.log(f"val/{domain}/kl", means[domain], sync_dist=True)
        self._scores.clear()
        if means:
            self.log("val/kl", sum(means.values()) / len(means), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam or AdamW with up to two learning rates and a schedule over the steps."""
        table = self.recipe.optim
        encoder = list(self.model.encoder.parameters())
        inside = set(map(id, encoder))
        rest = [p for p in self.parameters() if id(p) not in inside]
        kind = torch.optim.Adam if table.kind == "adam" else torch.optim.AdamW
        encoder_lr = table.lr if table.encoder_lr is None else table.encoder_lr
        optimizer = kind(
            [
                {"params": encoder, "lr": encoder_lr, "name": "encoder"},
                {"params": rest, "lr": table.lr, "name": "rest"},
            ],
            weight_decay=table.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, table)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _log(self, values: dict[str, Tensor], batch: ClipBatch, prog_bar: bool = False) -> None:
        self.log_dict(
            values,
            on_step=False,
            on_epoch=True,
            prog_bar=prog_bar,
            batch_size=len(batch.clips),
            sync_dist=True,
        )

    def _note_bad(self, skipped: list[str]) -> None:
        for entry in skipped:  # different workers may give different reasons for one video
            self._bad_videos.setdefault(entry.partition(": ")[0], entry)
        if len(self._bad_videos) > max(1, _MAX_BAD_SHARE * self.num_videos):
            shown = "\n  ".join(sorted(self._bad_videos.values())[:5])
            raise TrainingError(
                f"{len(self._bad_videos)} of {self.num_videos} videos could not be used, more than "
                f"{_MAX_BAD_SHARE:.0%}. Repair the data set ('hd2s datasets check'). The first:\n  {shown}"
            )


class SupervisedStep(Step):
    """The base recipe: sum of five KL divergences, the sources in turn."""

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch of one source."""
        return self.finish(self.supervise(batch, features(self.network(batch.domain), batch.clips)), batch)


class DomainSpecificStep(SupervisedStep):
    """Each batch is of one source, in turn; it moves the shared parameters and those of its own source."""

    model: DomainHD2S

    def on_train_batch_end(self, outputs: Any, batch: ClipBatch, batch_idx: int) -> None:
        """Log the width of the smoothing."""
        smoothing = self.network(batch.domain).smoothing
        assert isinstance(smoothing, Smoothing)
        self._log({f"sigma/{batch.domain}": smoothing.sigma.detach().clone()}, batch)


class AdversarialStep(Step):
    """Labelled source, unlabelled target: KL of the output and the domain heads behind gradient reversal."""

    model: HD2S

    def __init__(self, model: HD2S, recipe: ClipRecipe, num_videos: int) -> None:
        super().__init__(model, recipe, num_videos)
        self.adversary = Adversary(model)

    def training_step(self, pair: tuple[ClipBatch, ClipBatch], batch_idx: int) -> Tensor:
        """Return the KL divergence of the source's output plus the eight losses of the domain heads."""
        alpha = reversal_strength(self.global_step / self.recipe.optim.steps)
        source, target = pair
        collapsed = [features(self.model, batch.clips) for batch in pair]
        loss = self.supervise(source, collapsed[0])
        # Both domains in one batch: apart, batch norm would take away what tells their means apart.
        joined = [torch.cat(levels) for levels in zip(*collapsed, strict=True)]
        verdicts = self.adversary(joined, alpha).split([len(batch.clips) for batch in pair])  # (B, 4, 2) each
        loss = loss - torch.stack([v[:, :, label].mean(0) for label, v in enumerate(verdicts)]).sum()
        hits = [(v.argmax(2) == label).float().mean(0) for label, v in enumerate(verdicts)]
        accuracy = torch.stack(hits).mean(0)
        named = {f"domain/level{level}": accuracy[i] for i, level in enumerate(LEVELS)}
        self._log({**named, "domain/alpha": torch.tensor(alpha)}, source)
        return self.finish(loss, source, target)


def features(network: HD2S, clips: Tensor) -> list[Tensor]:
    """Encode and collapse clips (B, 3, T, H, W) to the four levels' (B, C, h, w)."""
    if isinstance(network, HD2SLite):
        return network.collapse(encode_windows(network, clips[:, :, -1], clips[:, :, :-1]))
    return network.collapse(network.encoder(clips))


def encode_windows(network: HD2SLite, newest: Tensor, past: Tensor) -> list[Tensor]:
    """Encode windows of T frames, the last frame of each with gradients.

    That makes a step four times as fast: the encoder learns from that frame, the temporal filters from all.

    Args:
        network: Whose encoder.
        newest: (B, 3, H, W) the last frames.
        past: (N, 3, T - 1, H, W) the frames before the last N of these; nothing moves before the others.

    Returns:
        The four levels' (B, C, T, h, w), or (B, C, 1, h, w) if N is 0.
    """
    levels = network.encoder.network(newest.contiguous(memory_format=torch.channels_last))
    if not len(past):
        return [level[:, :, None] for level in levels]
    with torch.no_grad():
        frames = past.transpose(1, 2).flatten(0, 1)
        history = network.encoder.network(frames.contiguous(memory_format=torch.channels_last))
    stills, length = len(newest) - len(past), past.shape[2]
    windows = []
    for level, before in zip(levels, history, strict=True):
        standing = level[:stills, :, None].expand(-1, -1, length, -1, -1)
        moving = before.view(len(past), length, *before.shape[1:]).transpose(1, 2)
        windows.append(torch.cat((torch.cat((standing, moving)), level[:, :, None]), dim=2))
    return windows


def reversal_strength(progress: float) -> float:
    """The paper's schedule of the reversal's alpha: from 0 to 1 while the progress goes from 0 to 1.

    Example:
        >>> reversal_strength(0.0), round(reversal_strength(0.5), 4), round(reversal_strength(1.0), 4)
        (0.0, 0.9866, 0.9999)
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def rise_and_fall(step: int, warmup: int, steps: int) -> float:
    """Rise to 1 evenly in the first `warmup` steps, then fall to 0 along half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def learning_rate_factor(step: int, table: StepsTable) -> float:
    """What the learning rates are multiplied by at a step.

    Example:
        >>> table = StepsTable(steps=100, kind="adam", lr=1, schedule="step", drop_at=(0.5,), warmup=0.1)
        >>> [round(learning_rate_factor(step, table), 3) for step in (0, 4, 9, 49, 50, 99)]
        [0.1, 0.5, 1.0, 1.0, 0.1, 0.1]
    """
    warmup = round(table.warmup * table.steps)
    if step < warmup or table.schedule == "cosine":
        return rise_and_fall(step, warmup, table.steps)
    return float(0.1 ** sum(step >= share * table.steps for share in table.drop_at))
