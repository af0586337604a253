"""PyTorch as the engine, on a CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hd2s.errors import UnknownNameError
from hd2s.inference.engines import Engine, Maps
from hd2s.models import HD2S, load

_GPU_BATCH = 32
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


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


def choose_precision(precision: str, device: str) -> str:
    """Turn "auto" into what suits the device: "bfloat16" where it computes in it natively."""
    if precision != "auto":
        return precision
    if torch.device(device).type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.6
        native = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bfloat16" if native else "float32"


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
    """Runs a network in eval mode; it is moved to the device.

    Args:
        model: The network.
        device: As PyTorch names it.
        precision: "float32" or "bfloat16".
    """

    name = "torch"

    def __init__(self, model: HD2S, device: str, precision: str = "float32") -> None:
        super().__init__(model.spec)
        self.device, self.precision = device, precision
        self._model = model.to(device)
        self._encode = Encode(model).to(device)
        self._on_gpu = device != "cpu"
        if self._on_gpu:
            self.batch = _GPU_BATCH
            for parameter in model.parameters():
                if parameter.ndim in _CHANNELS_LAST:  # as `Encode` hands over the frames
                    parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.ndim])

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """See `Engine.encode`."""
        images = torch.from_numpy(frames)
        if self._on_gpu:
            images = images.pin_memory().to(self.device, non_blocking=True)
        with self._computing():
            return list(self._encode(images))

    def concat(self, features: Sequence[Tensor]) -> Tensor:
        """See `Engine.concat`."""
        return torch.cat(tuple(features))

    @torch.inference_mode()
    def slide(self, features: Sequence[Tensor], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`; at most `batch` windows at once, as a whole clip of each may be in memory."""
        past = self.spec.num_frames - 1
        with self._computing():
            runs = [
                self._model.slide([level[start : start + past + self.batch] for level in features])
                for start in range(0, len(features[0]) - past, self.batch)
            ]
        saliency, levels = map(torch.cat, zip(*runs, strict=True))
        return Maps(saliency.cpu().numpy(), levels.cpu().numpy() if conspicuity else None)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the precision; float32 means it also where cuDNN would take TF32 for it."""
        half = self.precision == "bfloat16"
        with (
            torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half),
            torch.backends.cudnn.flags(enabled=True, benchmark=self._on_gpu, allow_tf32=False),
        ):
            yield
