"""PyTorch as the engine, on a CPU or a CUDA device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hd2s.errors import UnknownNameError
from hd2s.inference.engines import Engine, Maps
from hd2s.models import HD2S, load

_logger = logging.getLogger(__name__)
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

    On a GPU whole batches, and live frames, are replayed as CUDA graphs: starting the many small kernels of a
    network one by one takes longer than they run.

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
        self._graphs = {
            part: Replayed(run) for part, run in (("encode", self._encoded), ("slide", self._slid))
        }

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """See `Engine.encode`."""
        images = torch.from_numpy(frames)
        if not self._on_gpu:
            return self._encoded(images)
        images = images.pin_memory().to(self.device, non_blocking=True)
        return self._runner("encode", len(images))(images)

    def concat(self, features: Sequence[Tensor]) -> Tensor:
        """See `Engine.concat`."""
        return torch.cat(tuple(features))

    @torch.inference_mode()
    def slide(self, features: Sequence[Tensor], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`; at most `batch` windows at once, as a whole clip of each may be in memory."""
        past = self.spec.num_frames - 1
        runs = []
        for start in range(0, len(features[0]) - past, self.batch):
            piece = [level[start : start + past + self.batch] for level in features]
            runs.append(self._runner("slide", len(piece[0]) - past)(*piece))
        saliency, levels = map(torch.cat, zip(*runs, strict=True))
        return Maps(saliency.cpu().numpy(), levels.cpu().numpy() if conspicuity else None)

    def _runner(self, part: str, count: int) -> Callable[..., list[Tensor]]:
        """How to compute so many frames: only what comes again and again is worth a graph and its memory."""
        graph = self._graphs[part]
        return graph if self._on_gpu and count in (1, self.batch) else graph.run

    def _encoded(self, images: Tensor) -> list[Tensor]:
        with self._computing():
            return list(self._encode(images))

    def _slid(self, *features: Tensor) -> list[Tensor]:
        with self._computing():
            return list(self._model.slide(features))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the precision; float32 means it also where cuDNN would take TF32 for it."""
        half = self.precision == "bfloat16"
        with (
            torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=half),
            torch.backends.cudnn.flags(enabled=True, benchmark=self._on_gpu, allow_tf32=False),
        ):
            yield


class Replayed:
    """Replays a function of tensors as a CUDA graph, one for each set of shapes that comes a second time.

    The first time it is computed as it is, which also settles what cuDNN and lazy initialisation decide.

    Args:
        run: Computes tensors from tensors on one CUDA device, without waiting for it.
    """

    def __init__(self, run: Callable[..., list[Tensor]]) -> None:
        self.run = run
        self._seen: set[tuple[torch.Size, ...]] = set()
        self._graphs: dict[tuple[torch.Size, ...], _Graph | None] = {}

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Compute what `run` would."""
        key = tuple(x.shape for x in inputs)
        if key not in self._seen:
            self._seen.add(key)
            return self.run(*inputs)
        if key not in self._graphs:
            self._graphs[key] = self._recorded(inputs)
        graph = self._graphs[key]
        if graph is None:
            return self.run(*inputs)
        for mine, given in zip(graph.inputs, inputs, strict=True):
            mine.copy_(given)
        graph.replay()
        return [output.clone() for output in graph.outputs]  # the next replay overwrites them

    def _recorded(self, inputs: Sequence[Tensor]) -> _Graph | None:
        own = [x.clone() for x in inputs]
        try:
            return _Graph(own, *record(lambda: self.run(*own), own[0].device))
        except RuntimeError as error:  # slower, but no reason to stop
            _logger.warning("no CUDA graph, so predicting takes longer (%s)", error)
            return None


class _Graph(NamedTuple):
    inputs: list[Tensor]
    replay: Callable[[], object]
    outputs: list[Tensor]


def record(
    run: Callable[[], list[Tensor]], device: torch.device
) -> tuple[Callable[[], object], list[Tensor]]:
    """Record what `run` starts on a CUDA device; return what starts it again, and where its results are."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = run()
    return graph.replay, outputs
