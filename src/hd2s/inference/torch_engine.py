"""PyTorch as the engine, on a CPU or a CUDA device, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hd2s.errors import UnknownNameError
from hd2s.inference.engines import BATCH, Engine, Maps
from hd2s.models import HD2S, load


def load_network(
    name: str, weights: str | Path | None, domain: str | None, *, truncate: bool = False
) -> HD2S:
    """Load a network as `hd2s.load` does, but only one that can predict.

    Raises:
        UnknownNameError: Its weights tell sources apart, and no domain was chosen.
        HD2SError: See `hd2s.load`.
    """
    model = load(name, weights, domain, truncate=truncate)
    if not isinstance(model, HD2S):
        raise UnknownNameError(
            f"The weights tell sources apart. Choose whose viewers to imitate: --domain, one of "
            f"{', '.join(model.domains)}."
        )
    return model


class Encode(nn.Module):
    """Normalises and encodes RGB frames (N, H, W, 3) uint8."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: HD2S) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (model.spec.mean, model.spec.std))
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Give what `HD2S.slide` takes."""
        x = frames.permute(0, 3, 1, 2).to(torch.float32)
        return tuple(self.model.encode(x * self.scale + self.offset))


class TorchEngine(Engine):
    """Runs a network in eval mode; it is moved to the device."""

    name = "torch"

    def __init__(self, model: HD2S, device: str) -> None:
        super().__init__(model.spec)
        self.device = device
        self._model = model.to(device)
        self._encode = Encode(model).to(device)

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """See `Engine.encode`."""
        return list(self._encode(torch.from_numpy(frames).to(self.device)))

    def concat(self, features: Sequence[Tensor]) -> Tensor:
        """See `Engine.concat`."""
        return torch.cat(tuple(features))

    @torch.inference_mode()
    def slide(self, features: Sequence[Tensor], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`; at most `BATCH` windows at once, as a whole clip of each may be in memory."""
        past = self.spec.num_frames - 1
        runs = [
            self._model.slide([level[start : start + past + BATCH] for level in features])
            for start in range(0, len(features[0]) - past, BATCH)
        ]
        saliency, levels = map(torch.cat, zip(*runs, strict=True))
        return Maps(saliency.cpu().numpy(), levels.cpu().numpy() if conspicuity else None)
