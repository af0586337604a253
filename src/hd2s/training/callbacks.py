"""What happens beside the optimisation: checkpoints that survive, pictures, and how fast it goes."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from hd2s.errors import TrainingError
from hd2s.training.steps import Step
from hd2s.types import InputSpec
from hd2s.weights.files import write_whole

_logger = logging.getLogger(__name__)
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class KeepPrevious(Callback):
    """Keeps the checkpoint before the last: a damaged disk block must not cost the whole run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the last checkpoint a second name; the next one is written to a new file."""
        last, scratch = self._folder / LAST, self._folder / f".{PREVIOUS}.tmp"
        if trainer.is_global_zero and last.exists():
            scratch.unlink(missing_ok=True)
            try:
                os.link(last, scratch)
            except OSError:  # a file system without links
                shutil.copyfile(last, scratch)
            os.replace(scratch, self._folder / PREVIOUS)


def resume_point(folder: Path) -> Path | None:
    """Find the checkpoint to go on from: the last one, or the one before if that is damaged.

    Raises:
        TrainingError: There are checkpoints, but all are damaged.
    """
    found = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for path in found:
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
            _logger.warning("%s is damaged (%s); the one before it is tried", path, str(error)[:80])
        else:
            return path
    if found:
        raise TrainingError(
            f"All checkpoints in {folder} are damaged: {', '.join(p.name for p in found)}. Start again with "
            "another --output, or remove the folder."
        )
    return None


class Pictures(Callback):
    """Saves a picture every so many steps: a frame, its ground truth, the output and the four levels."""

    def __init__(self, folder: Path, every: int, spec: InputSpec) -> None:
        self._folder, self._every, self._spec = folder, every, spec
        self._drawn = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw if it is time."""
        step = trainer.global_step
        if step % self._every or step == self._drawn or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Step)
        if pl_module.preview is None:
            return
        self._drawn = step
        frame, target, (saliency, levels) = pl_module.preview
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self._spec.mean, self._spec.std))
        picture = ((frame.float().cpu() * std + mean).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        tiles = [picture[:, :, ::-1]] + [_grey(m) for m in (target, saliency[0], *levels[0])]
        self._folder.mkdir(parents=True, exist_ok=True)
        png = cv2.imencode(".png", np.hstack(tiles))[1].tobytes()
        write_whole(self._folder / f"step_{step:06d}.png", png)


def _grey(tensor: Tensor) -> NDArray[np.uint8]:
    """Draw a map (H, W) from black to its own peak in white, as (H, W, 3)."""
    values = tensor.float().cpu().numpy()
    scaled = (255 * values / max(values.max(), 1e-12)).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


class Speed(Callback):
    """Logs clips a second, and the share of the time that the model waits for data."""

    def __init__(self) -> None:
        self._clear()
        self._mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure."""
        self._clear()
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the batch was waited for; the first one starts the workers and does not count."""
        now = time.perf_counter()
        if batch_idx:
            self._waited += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the step took."""
        now = time.perf_counter()
        self._worked += now - self._mark
        self._mark = now
        parts = batch if isinstance(batch[0], tuple) else (batch,)
        self._clips += sum(len(part.clips) for part in parts)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures of the epoch."""
        total = self._worked + self._waited
        clips_per_s = self._clips * trainer.world_size / max(total, 1e-9)
        pl_module.log("speed/clips_per_s", clips_per_s, sync_dist=True)
        pl_module.log("speed/waiting_share", self._waited / max(total, 1e-9), sync_dist=True)

    def _clear(self) -> None:
        self._waited, self._worked, self._clips = 0.0, 0.0, 0
