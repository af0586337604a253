"""What runs the network: PyTorch, or OpenVINO on a CPU.

An engine encodes frames and slides the network over runs of encoded frames; see `HD2SLite`. Its
features are its own kind of array, to be sliced, indexed and joined with `concat` along axis 0.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hd2s.errors import DeviceUnavailableError, MissingExtraError, UnknownNameError
from hd2s.inference import ir_cache
from hd2s.models import HD2SLite
from hd2s.types import InputSpec

ENGINES = ("auto", "torch", "openvino")
DEVICES = ("auto", "cpu", "cuda")
BATCH = 8  # frames that are encoded and decoded at once where they can be waited for


class Maps(NamedTuple):
    """Maps at the network's size: (N, H, W) and, if asked for, (N, 4, H, W) float32 in (0, 1)."""

    saliency: NDArray[np.float32]
    conspicuity: NDArray[np.float32] | None = None


class Engine(ABC):
    """Runs one network on one device."""

    name: str
    device: str

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec

    @abstractmethod
    def encode(self, frames: NDArray[np.uint8]) -> list[Any]:
        """Encode RGB frames (N, H, W, 3) of the network's size to levels 2-5, each (N, C, h, w)."""

    @staticmethod
    @abstractmethod
    def concat(features: Sequence[Any]) -> Any:
        """Join features of one level along axis 0."""

    @abstractmethod
    def slide(self, features: Sequence[Any], *, conspicuity: bool = False) -> Maps:
        """Predict the last N frames of a run of N + T - 1 encoded ones."""


def open_engine(model: HD2SLite, *, engine: str = "auto", device: str = "auto") -> Engine:
    """Make an engine for a model.

    Args:
        model: The network, in eval mode; PyTorch's engine moves it to the device.
        engine: "torch", "openvino", or "auto": OpenVINO on a CPU where it is installed, else PyTorch.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where there is a device, else the CPU.

    Raises:
        UnknownNameError: There is no such engine or kind of device.
        DeviceUnavailableError: The device is not there, or the engine cannot use it.
        MissingExtraError: OpenVINO was asked for and is not installed.
    """
    if engine not in ENGINES:
        raise UnknownNameError.among("engine", engine, ENGINES)
    device = _resolve_device(device, wants_cpu=engine == "openvino")
    installed = importlib.util.find_spec("openvino") is not None
    if engine == "torch" or (engine == "auto" and (device != "cpu" or not installed)):
        return TorchEngine(model, device)
    if not installed:
        raise MissingExtraError(
            "OpenVINO is not installed: pip install 'hd2s[openvino]', or use the engine 'torch'."
        )
    if device != "cpu":
        raise DeviceUnavailableError(
            f"The engine 'openvino' runs on the CPU, not on '{device}': use --engine torch or --device cpu."
        )
    return OpenVINOEngine(model)


def _resolve_device(device: str, *, wants_cpu: bool) -> str:
    kind, colon, number = device.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UnknownNameError.among("device", device, (*DEVICES, "cuda:N"))
    count = torch.cuda.device_count()
    if kind == "auto":
        return "cuda" if count and not wants_cpu else "cpu"
    if kind == "cuda" and int(number or 0) >= count:
        have = f"this machine has {count}" if count else "PyTorch finds none on this machine"
        raise DeviceUnavailableError(
            f"The CUDA device '{device}' is not there: {have}. Use --device cpu or auto."
        )
    return device


class _Encode(nn.Module):
    """Normalises and encodes uint8 frames."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: HD2SLite) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(v).view(3, 1, 1) * 255 for v in (model.spec.mean, model.spec.std))
        self.register_buffer("scale", 1 / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        x = frames.permute(0, 3, 1, 2).to(torch.float32)
        return tuple(self.model.encode(x * self.scale + self.offset))


class _Slide(nn.Module):
    """`HD2SLite.slide` with its features as separate arguments; gives only the maps that are wanted."""

    def __init__(self, model: HD2SLite, conspicuity: bool) -> None:
        super().__init__()
        self.model = model
        self.wanted = 2 if conspicuity else 1

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        return self.model.slide(features)[: self.wanted]


class TorchEngine(Engine):
    """PyTorch on a CPU or a CUDA device, in float32."""

    name = "torch"

    def __init__(self, model: HD2SLite, device: str) -> None:
        super().__init__(model.spec)
        self.device = device
        self._model = model.to(device)
        self._encode = _Encode(model).to(device)

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """See `Engine.encode`."""
        return list(self._encode(torch.from_numpy(frames).to(self.device)))

    @staticmethod
    def concat(features: Sequence[Tensor]) -> Tensor:
        """See `Engine.concat`."""
        return torch.cat(tuple(features))

    @torch.inference_mode()
    def slide(self, features: Sequence[Tensor], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`."""
        saliency, levels = self._model.slide(features)
        return Maps(saliency.cpu().numpy(), levels.cpu().numpy() if conspicuity else None)


class OpenVINOEngine(Engine):
    """OpenVINO on the CPU, in float32.

    Its graphs have fixed sizes, 1 and `BATCH` frames; what lies between is filled up. They are built
    from the model at their first use and kept in the cache folder.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, model: HD2SLite) -> None:
        super().__init__(model.spec)
        self._model = model
        self._requests: dict[tuple[str, int], Any] = {}

    def encode(self, frames: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Engine.encode`."""
        parts = [self._run("encode", pieces, count) for pieces, count in _batches([frames], 0)]
        return [self.concat(level) for level in zip(*parts, strict=True)]

    @staticmethod
    def concat(features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """See `Engine.concat`."""
        return np.concatenate(features)

    def slide(self, features: Sequence[NDArray[np.float32]], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`."""
        past, part = self.spec.num_frames - 1, "slide with levels" if conspicuity else "slide"
        parts = [self._run(part, pieces, count) for pieces, count in _batches(features, past)]
        return Maps(*(self.concat(maps) for maps in zip(*parts, strict=True)))

    def _run(self, part: str, arrays: list[NDArray[Any]], count: int) -> list[NDArray[np.float32]]:
        """Run one graph on arrays of its size; copy the first `count` results out of it."""
        request = self._requests.get((part, len(arrays[0])))
        if request is None:
            request = self._compile(part, arrays)
            self._requests[part, len(arrays[0])] = request
        request.infer(arrays, share_inputs=True)
        outputs = range(len(request.model_outputs))
        return [request.get_output_tensor(i).data[:count].copy() for i in outputs]

    def _compile(self, part: str, examples: list[NDArray[Any]]) -> Any:
        import openvino

        module = _Encode(self._model) if part == "encode" else _Slide(self._model, part != "slide")
        graph = ir_cache.graph(part, module.eval(), [torch.from_numpy(array) for array in examples])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        return openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()


def _batches(arrays: Sequence[NDArray[Any]], past: int) -> Iterator[tuple[list[NDArray[Any]], int]]:
    """Cut runs of N + past frames into pieces for the graphs of 1 or BATCH frames.

    Yields:
        The pieces of each array, filled up with their last frame, and the number of frames that count.
    """
    total = len(arrays[0]) - past
    size = 1 if total == 1 else BATCH
    for start in range(0, total, size):
        count = min(size, total - start)
        pieces = []
        for array in arrays:
            piece = array[start : start + past + count]
            if count < size:
                piece = np.concatenate((piece, np.repeat(piece[-1:], size - count, axis=0)))
            pieces.append(np.ascontiguousarray(piece))
        yield pieces, count
