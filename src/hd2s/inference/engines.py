"""What runs a network: PyTorch, or OpenVINO on a CPU.

An engine encodes frames and slides the network over runs of encoded frames; see `HD2S.slide`. Its
features are its own kind of array, to be sliced and indexed along axis 0.

PyTorch is imported only where it is used: with OpenVINO's graphs in the cache it is not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hd2s.errors import DeviceUnavailableError, MissingExtraError, UnknownNameError, WeightsError
from hd2s.types import InputSpec

if TYPE_CHECKING:
    from hd2s.models import HD2S, DomainHD2S

ENGINES = ("auto", "torch", "torch-compile", "openvino")
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16")
POSTPROCESSINGS = ("none", "paper")
BATCH = 8  # frames that a CPU encodes and decodes at once where they can be waited for


class Maps(NamedTuple):
    """Maps at the network's size: (N, H, W) and, if asked for, (N, 4, H, W) float32 in (0, 1)."""

    saliency: NDArray[np.float32]
    conspicuity: NDArray[np.float32] | None = None


class Engine(ABC):
    """Runs one network on one device."""

    name: str
    device: str
    precision: str  # "float32" or "bfloat16"
    batch = BATCH  # frames to encode and decode at once where they can be waited for

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec

    def prepare(self, *, live: bool, conspicuity: bool) -> None:  # noqa: B027 (most need none)
        """Get ready for what is to come, while the caller goes on: frames one by one (`live`), such maps."""

    @abstractmethod
    def encode(self, frames: NDArray[np.uint8], before: Sequence[Any] | None = None) -> list[Any]:
        """Encode RGB frames (N, H, W, 3) of the network's size to its features.

        Args:
            frames: At least one.
            before: The features of the frames before, each (P, ...).

        Returns:
            Features of each kind, (N, ...), or of all frames, (P + N, ...).
        """

    @abstractmethod
    def slide(self, features: Sequence[Any], *, conspicuity: bool = False) -> Maps:
        """Predict the last N frames of a run of N + T - 1 encoded ones."""


def open_engine(
    model: str | HD2S | DomainHD2S | Engine = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "float32",
    post: str = "none",
) -> Engine:
    """Make an engine for a network.

    Args:
        model: Name of the network, or the network itself, in eval mode (PyTorch's engine moves it to the
            device). An engine is returned as it is, and all else is ignored.
        weights: See `hd2s.load`; for a name only.
        domain: See `hd2s.load`; a network that tells sources apart needs it.
        engine: "torch", "openvino", or "auto": OpenVINO on a CPU where it is installed, else PyTorch; or
            "torch-compile": PyTorch makes kernels for the network, which takes minutes on a CPU and about one
            on a GPU, where it pays.
        device: "cpu", "cuda", "cuda:N", or "auto": CUDA where there is a device, else the CPU. On CUDA the
            network is recorded as a graph: a network of your own may not wait for the GPU inside.
        precision: "float32": maps are within 1e-4 of PyTorch's own; "bfloat16": faster, within 0.02; or
            "auto": bfloat16 where the processor computes in it natively.
        post: Post-processing of the maps: "none", or "paper" as in the published inference; see
            `hd2s.inference.postprocess`. With a domain, "paper" also cuts the maps to 8 bits before they are
            smoothed; a network that `for_domain` gave has that setting of its own.

    Raises:
        UnknownNameError: There is no such engine, kind of device, precision, post-processing or domain.
        WeightsError: Weights were given for a network in memory.
        DeviceUnavailableError: The device is not there, or the engine cannot use it or the precision on it.
        MissingExtraError: OpenVINO was asked for and is not installed.
        HD2SError: The network cannot be loaded; see `hd2s.load`.
    """
    if isinstance(model, Engine):
        return model
    if post not in POSTPROCESSINGS:
        raise UnknownNameError.among("post-processing", post, POSTPROCESSINGS)
    if precision not in PRECISIONS:
        raise UnknownNameError.among("precision", precision, PRECISIONS)
    engine, device = _choose(engine, device)
    truncate = post == "paper" and domain is not None  # else the same network would have two sets of graphs
    if not isinstance(model, str):
        model = in_memory(model, weights, domain, truncate=truncate)
    if engine == "openvino":
        opened = _open_openvino(model, weights, domain, precision, truncate=truncate)
    else:
        opened = _open_torch(
            model, weights, domain, device, precision, truncate=truncate, compiled=engine == "torch-compile"
        )
    if post == "none":
        return opened
    from hd2s.inference.postprocess import PaperEngine

    smoothed = domain is not None if isinstance(model, str) else model.smoothing is not None
    return PaperEngine(opened, smoothed=smoothed)


def in_memory(
    model: HD2S | DomainHD2S,
    weights: str | Path | None = None,
    domain: str | None = None,
    *,
    truncate: bool = False,
) -> HD2S:
    """Turn a network in memory, which may tell sources apart, into one that an engine can run.

    Raises:
        WeightsError: Weights were given for it.
        UnknownNameError: It lacks the domain, or none was given.
    """
    from hd2s.models import DomainHD2S

    if weights is not None:
        raise WeightsError(
            f"The network has weights already, so {weights} has no place. Give the name of the network, or "
            "no weights."
        )
    if isinstance(model, DomainHD2S):
        if domain is None:
            raise UnknownNameError(
                f"The network tells sources apart. Choose whose viewers to imitate, with domain= or "
                f"for_domain(): one of {', '.join(model.domains)}."
            )
        return model.for_domain(domain, truncate=truncate)
    if domain is not None:
        raise UnknownNameError(
            f"The network does not tell data sets apart, so there is no domain '{domain}'."
        )
    return model


def _open_openvino(
    model: str | HD2S, weights: str | Path | None, domain: str | None, precision: str, *, truncate: bool
) -> Engine:
    from hd2s.inference.graphs import Graphs, choose_precision
    from hd2s.inference.openvino_engine import OpenVINOEngine

    precision = choose_precision(precision)
    if isinstance(model, str):
        return OpenVINOEngine(Graphs.stored(model, weights, domain, truncate=truncate, precision=precision))
    return OpenVINOEngine(Graphs.of(model, precision=precision))


def _open_torch(
    model: str | HD2S,
    weights: str | Path | None,
    domain: str | None,
    device: str,
    precision: str,
    *,
    truncate: bool,
    compiled: bool,
) -> Engine:
    from hd2s.inference.torch_engine import TorchEngine, choose_precision, load_network

    if isinstance(model, str):
        model = load_network(model, weights, domain, truncate=truncate)
    precision = choose_precision(precision, device)
    return TorchEngine(model, device, precision, compiled=compiled, recorded=device != "cpu")


def _choose(engine: str, device: str) -> tuple[str, str]:
    """Turn what was asked for into an engine other than "auto" and a device that is there."""
    if engine not in ENGINES:
        raise UnknownNameError.among("engine", engine, ENGINES)
    device = _resolve_device(device, wants_cpu=engine == "openvino")
    installed = importlib.util.find_spec("openvino") is not None
    if engine == "auto" and (device != "cpu" or not installed):
        engine = "torch"
    if engine in ("torch", "torch-compile"):
        return engine, device
    if not installed:
        raise MissingExtraError.needed(
            "OpenVINO is not installed. Use the engine 'torch', or install it", "openvino"
        )
    if device != "cpu":
        raise DeviceUnavailableError(
            f"The engine 'openvino' runs on the CPU, not on '{device}': use --engine torch or --device cpu."
        )
    return "openvino", device


def _resolve_device(device: str, *, wants_cpu: bool) -> str:
    kind, colon, number = device.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UnknownNameError.among("device", device, (*DEVICES, "cuda:N"))
    if kind == "cpu" or (kind == "auto" and wants_cpu):
        return "cpu"
    count = _count_cuda_devices()
    if kind == "auto":
        return "cuda" if count else "cpu"
    if int(number or 0) >= count:
        have = f"this machine has {count}" if count else "PyTorch finds none on this machine"
        raise DeviceUnavailableError(
            f"The CUDA device '{device}' is not there: {have}. Use --device cpu or auto."
        )
    return device


def count_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count_cuda_devices() -> int:
    """Ask PyTorch, but do not import it for that if it was built without CUDA and ROCm."""
    if "torch" not in sys.modules:
        spec = importlib.util.find_spec("torch")
        folders = [Path(folder) / "lib" for folder in (spec and spec.submodule_search_locations) or ()]
        names = ("*torch_cuda.*", "*torch_hip.*")
        if not any(list(folder.glob(name)) for folder in folders for name in names):
            return 0
    import torch

    return torch.cuda.device_count()
