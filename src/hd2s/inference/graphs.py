"""Compiled OpenVINO graphs on disk: building them takes seconds, reading them back milliseconds."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import io
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from hd2s.errors import DeviceUnavailableError
from hd2s.types import InputSpec
from hd2s.weights.cache import cache_folder
from hd2s.weights.catalog import WEIGHTS
from hd2s.weights.files import write_whole

if TYPE_CHECKING:
    from torch import nn

    from hd2s.models import HD2S

_logger = logging.getLogger(__name__)
_SPEC_FILE, _DIGEST_BYTES = "input.json", hashlib.sha256().digest_size
_KEPT = 8  # networks in the cache, each with up to 0.2 GB of graphs
TYPES = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}
_SOURCES = ("models/*.py", "weights/*.py", "inference/conversion.py", "inference/torch_engine.py")


class Graphs:
    """The compiled graphs of one network, each read from the cache, or built if it is not there.

    A cached graph that is damaged, or of other weights, code, versions or processor, is built again. A
    cache folder that cannot be written is no error: the graph is then built each time. It keeps the networks
    that were used last, and forgets others.

    Args:
        facts: All that the graphs depend on besides code and versions.
        model: Gives a network of our own; called if there is no graph in the cache.
        precision: "float32" or "bfloat16".

    Attributes:
        spec: The input of the network.
        precision: As given.
    """

    def __init__(self, facts: Iterable[bytes], model: Callable[[], HD2S], precision: str) -> None:
        # A trace takes only what needs no gradients for a constant.
        self._model = functools.cache(lambda: model().cpu().eval().requires_grad_(False))
        self._folder = cache_folder() / "openvino" / _key((*facts, _processor()))
        with suppress(OSError):
            os.utime(self._folder)
        self.precision = precision
        self.spec = _read_spec(self._folder / _SPEC_FILE) or self._model().spec

    @classmethod
    def of(cls, model: HD2S, *, precision: str = "float32") -> Graphs:
        """The graphs of a network in memory."""
        copied = copy.deepcopy(model)  # it may change until a graph is built
        return cls(_facts(copied), lambda: copied, precision)

    @classmethod
    def stored(
        cls,
        name: str,
        weights: str | Path | None = None,
        domain: str | None = None,
        *,
        truncate: bool = False,
        precision: str = "float32",
    ) -> Graphs:
        """The graphs of a stored network, for the arguments of `hd2s.load`.

        Nothing is checked if there are graphs: they come from what could be loaded from such a file once.

        Raises:
            HD2SError: The network cannot be loaded.
        """

        def load() -> HD2S:
            from hd2s.inference.torch_engine import load_network

            return load_network(name, weights, domain, truncate=truncate)

        path = Path(weights) if weights else WEIGHTS[name].path if name in WEIGHTS else None
        if path is None or not path.is_file():
            return cls.of(load(), precision=precision)
        return cls((name.encode(), repr((domain, truncate)).encode(), path.read_bytes()), load, precision)

    def compiled(self, part: str, shapes: Sequence[Sequence[int]], *, live: bool = False) -> Any:
        """Return a part of the network (see `conversion`), compiled for inputs of some shapes.

        Args:
            part: Which one.
            shapes: Of its inputs.
            live: All cores work on one request, rather than each core on one of its own.
        """
        hint = "LATENCY" if live else "THROUGHPUT"
        settings = {"INFERENCE_PRECISION_HINT": TYPES[self.precision], "PERFORMANCE_HINT": hint}
        path = self._folder / f"{part}, {shapes[0][0]}, {self.precision}{', live' if live else ''}"
        return self._read(path, settings) or self._build(part, shapes, path, settings)

    def _read(self, path: Path, settings: dict[str, Any]) -> Any:
        """Read a compiled graph; None if it is not there, not whole, or OpenVINO does not want it."""
        try:
            data = path.read_bytes()
            if data[:_DIGEST_BYTES] != hashlib.sha256(data[_DIGEST_BYTES:]).digest():
                return None
            return core().import_model(data[_DIGEST_BYTES:], "CPU", settings)
        except (OSError, RuntimeError):
            return None

    def _build(self, part: str, shapes: Sequence[Sequence[int]], path: Path, settings: dict[str, Any]) -> Any:
        from hd2s.inference.conversion import convert

        _logger.info("preparing OpenVINO (%s); this takes some seconds the first time", part)
        graph = convert(self._model(), part, shapes, self.precision)
        compiled = core().compile_model(graph, "CPU", settings)
        with suppress(OSError, RuntimeError):  # without a cache
            stream = io.BytesIO()
            compiled.export_model(stream)
            data = stream.getvalue()
            text = json.dumps(asdict(self.spec))
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, hashlib.sha256(data).digest() + data)
            write_whole(
                self._folder / _SPEC_FILE, f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n".encode()
            )
            _forget_all_but(_KEPT, self._folder.parent)
        return compiled


@functools.cache
def core() -> Any:
    """OpenVINO, once and for all.

    A `Core` gives the thread that first uses it a stack for signals, and frees that when it goes. If two go
    in the order in which they came, the thread is left with the first one's, which is freed: the next signal,
    such as that of a child process that ends, kills the process.
    """
    return openvino.Core()


def choose_precision(precision: str) -> str:
    """Turn "auto" into what suits the CPU.

    Raises:
        DeviceUnavailableError: "bfloat16" was asked for, and the CPU does not compute in it.
    """
    native = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not native:
        raise DeviceUnavailableError(
            "This CPU does not compute in bfloat16, so OpenVINO would not either: use --precision float32 or "
            "auto."
        )
    return ("bfloat16" if native else "float32") if precision == "auto" else precision


def _key(facts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for package in ("openvino", "torch"):
        digest.update(f"{package} {metadata.version(package)};".encode())
    for pattern in _SOURCES:
        for source in sorted(Path(__file__).parents[1].glob(pattern)):
            digest.update(source.read_bytes())
    for fact in facts:
        digest.update(hashlib.sha256(fact).digest())
    return digest.hexdigest()[:32]


def _facts(model: HD2S) -> Iterator[bytes]:
    """Tell a network in memory from all others: its layers, their settings and their weights."""
    yield repr(model.spec).encode()
    for name, module in model.named_modules():
        yield repr((name, type(module).__qualname__, _settings(module), _code(type(module)))).encode()
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        yield name.encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()


def _code(kind: type) -> str:
    """The code of a layer that is neither ours nor PyTorch's; if it is nowhere, nothing equals it."""
    if kind.__module__.partition(".")[0] in ("hd2s", "torch"):
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return os.urandom(16).hex()


def _settings(module: nn.Module) -> dict[str, Any]:
    plain = (bool, int, float, str, tuple, list)
    return {key: value for key, value in vars(module).items() if isinstance(value, plain)}


def _processor() -> bytes:
    """What a compiled graph may depend on; OpenVINO itself refuses one for other instructions."""
    return repr((core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), platform.machine())).encode()


def _forget_all_but(count: int, cache: Path) -> None:
    """Remove the folders that were not among the last so many to be used; who reads there builds again."""
    folders = sorted(cache.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in folders[count:]:
        shutil.rmtree(folder, ignore_errors=True)


def _read_spec(path: Path) -> InputSpec | None:
    """Read the input of the network whose graphs are cached; None if it is not there or not whole."""
    try:
        text, digest = path.read_text().splitlines()
    except (OSError, ValueError):
        return None
    if digest != hashlib.sha256(text.encode()).hexdigest():
        return None
    fields = json.loads(text)
    fields |= {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    return InputSpec(**fields)
