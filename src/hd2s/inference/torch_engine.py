"""PyTorch as the engine, on a CPU or a CUDA device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hd2s.errors import DeviceUnavailableError, UnknownNameError
from hd2s.inference.engines import Engine, Maps
from hd2s.models import HD2S, HD2SOutput, load

_GPU_BATCH = 32
_recording = threading.Lock()  # PyTorch records one graph at a time
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


def _explain(error: RuntimeError) -> None:
    """Raise an error that says what to do, if this is one of `torch.compile`."""
    from torch._dynamo.exc import BackendCompilerFailed

    if isinstance(error, BackendCompilerFailed):
        first, *_ = str(error.inner_exception).splitlines()
        raise DeviceUnavailableError(
            f"PyTorch cannot compile the network here: {first} Use --engine torch, or install what it needs: "
            "a C++ compiler for a CPU, Triton for a GPU."
        ) from error


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


class Slide(nn.Module):
    """`HD2S.slide` as a module."""

    def __init__(self, model: HD2S) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Sequence[Tensor]) -> HD2SOutput:
        """Give the maps of the last N frames of a run of N + T - 1."""
        return self.model.slide(features)


class CUDAGraph:
    """Calls a part of a network as one: what it starts on the GPU is recorded, and replayed from then on.

    Calls whose tensors have other shapes than those of the call before are recorded anew. A graph does not
    keep the weights that it reads, and serves one thread at a time.

    Args:
        part: Takes and gives tensors on the current GPU; it may not wait for that, as `Tensor.item` does.
    """

    def __init__(self, part: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
        self._part = part
        self._inputs: list[Tensor] = []

    def __call__(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Give what the part gives; the next call overwrites it."""
        if [each.shape for each in inputs] != [each.shape for each in self._inputs]:
            self._record(inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._outputs

    def _record(self, inputs: Sequence[Tensor]) -> None:
        with _recording:
            self._part(inputs)  # the first call does what cannot be recorded: it compiles and chooses kernels
            own, graph = [each.clone() for each in inputs], torch.cuda.CUDAGraph()
            # The default stream for this would be one of the GPU that was recorded first. Other threads may
            # use the GPU meanwhile.
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                outputs = self._part(own)
        self._inputs, self._graph, self._outputs = own, graph, outputs


class TorchEngine(Engine):
    """Runs a network in eval mode; it is moved to the device.

    Args:
        model: The network.
        device: As PyTorch names it.
        precision: "float32" or "bfloat16".
        compiled: `torch.compile` makes kernels for the network at its first use.
        recorded: Record the network as CUDA graphs at its first use, as most of the time that small batches
            take goes into starting hundreds of kernels. The network's tensors must stay on the device; what
            they hold may change.

    If compiled or recorded, batches are filled up, so that it is done once.
    """

    def __init__(
        self,
        model: HD2S,
        device: str,
        precision: str = "float32",
        *,
        compiled: bool = False,
        recorded: bool = False,
    ) -> None:
        super().__init__(model.spec)
        self.name = "torch-compile" if compiled else "torch"
        self.device, self.precision = device, precision
        self._on_gpu = torch.device(device).type == "cuda"
        self._compiled, self._recorded = compiled, recorded
        self._turn: AbstractContextManager[object] = threading.Lock() if recorded else nullcontext()
        self._live = False
        encode, slide = Encode(model).to(device), Slide(model).to(device)
        if compiled:
            for part in (encode, slide):
                part.compile(fullgraph=True, dynamic=False)
        self._encode: Callable[[Sequence[Tensor]], Sequence[Tensor]] = lambda images: encode(*images)
        self._slide: Callable[[Sequence[Tensor]], Sequence[Tensor]] = slide
        if recorded:
            self._encode, self._slide = CUDAGraph(self._encode), CUDAGraph(slide)
        if self._on_gpu:
            self.batch = _GPU_BATCH
            for parameter in model.parameters():
                if parameter.ndim in _CHANNELS_LAST:  # as `Encode` hands over the frames
                    parameter.data = parameter.data.contiguous(memory_format=_CHANNELS_LAST[parameter.ndim])
        # What graphs read, should the network be moved elsewhere after all.
        self._kept = [each.data for each in (*encode.parameters(), *encode.buffers())] if recorded else []

    def prepare(self, *, live: bool, conspicuity: bool) -> None:
        """See `Engine.prepare`."""
        self._live = live

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8], before: Sequence[Tensor] | None = None) -> list[Tensor]:
        """See `Engine.encode`; at most `batch` frames at once."""
        images = torch.from_numpy(frames)
        if self._on_gpu:
            images = images.pin_memory().to(self.device, non_blocking=True)
        pieces = [] if before is None else [before]
        for piece in torch.split(images, self.batch):
            with self._computing():
                levels = [level[: len(piece)] for level in self._encode([self._filled(piece)])]
                # The next call of a recorded part overwrites them.
                pieces.append([level.clone() for level in levels] if self._recorded else levels)
        return [torch.cat(levels) for levels in zip(*pieces, strict=True)]

    @torch.inference_mode()
    def slide(self, features: Sequence[Tensor], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`; at most `batch` windows at once, as a whole clip of each may be in memory."""
        past, batch = self.spec.num_frames - 1, self.batch
        count = len(features[0]) - past
        runs = []
        for i in range(0, count, batch):
            with self._computing():
                saliency, levels = self._slide(
                    [self._filled(level[i : i + past + batch], past) for level in features]
                )
                wanted = (saliency, levels) if conspicuity else (saliency,)
                runs.append([self._fetched(maps) for maps in wanted])
        return Maps(*(np.concatenate(maps)[:count] for maps in zip(*runs, strict=True)))

    def _fetched(self, maps: Tensor) -> NDArray[np.float32]:
        """Copy maps to the CPU's memory; pinned, it takes them from a GPU several times as fast."""
        return torch.empty(maps.shape, dtype=maps.dtype, pin_memory=self._on_gpu).copy_(maps).numpy()

    def _filled(self, run: Tensor, past: int = 0) -> Tensor:
        """Fill a run of frames up to a batch with its last one, where kernels are made for one size.

        A run that is full is copied, too: kernels are also made for one layout in memory.
        """
        if self._live or not (self._compiled or self._recorded):
            return run
        lacking = max(0, past + self.batch - len(run))
        return torch.cat((run, *[run[-1:]] * lacking))  # expanded, it would not have channels last

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Compute in the precision; float32 means it also where cuDNN would take TF32 for it."""
        half, kind = self.precision == "bfloat16", torch.device(self.device).type
        try:
            with (
                self._turn,
                torch.cuda.device(self.device) if self._on_gpu else nullcontext(),
                # What autocast caches would not outlive a recording.
                torch.autocast(kind, torch.bfloat16, enabled=half, cache_enabled=not self._recorded),
                torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            ):
                yield
        except RuntimeError as error:
            if self._compiled:
                _explain(error)
            raise
