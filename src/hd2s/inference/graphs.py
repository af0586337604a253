"""OpenVINO graphs on disk: building them from PyTorch takes seconds, reading them back milliseconds."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openvino

from hd2s.types import InputSpec
from hd2s.weights.cache import cache_folder
from hd2s.weights.catalog import WEIGHTS

if TYPE_CHECKING:
    from torch import nn

    from hd2s.models import HD2S

_logger = logging.getLogger(__name__)
_FILES, _SPEC_FILE = ("graph.xml", "graph.bin"), "input.json"
_SOURCES = ("models/*.py", "weights/*.py", "inference/conversion.py", "inference/torch_engine.py")


class Graphs:
    """The graphs of one network, each read from the cache, or built from the network if it is not there.

    A cached graph that is damaged, or of other weights, code or versions, is built again. A cache
    folder that cannot be written is no error: the graph is then built each time.

    Args:
        facts: All that the graphs depend on besides code and versions.
        model: Gives a network of our own; called if there is no graph in the cache.

    Attributes:
        spec: The input of the network.
    """

    def __init__(self, facts: Iterable[bytes], model: Callable[[], HD2S]) -> None:
        # A trace takes only what needs no gradients for a constant.
        self._model = functools.cache(lambda: model().cpu().eval().requires_grad_(False))
        self._folder = cache_folder() / "openvino" / _key(facts)
        self.spec = _read_spec(self._folder / _SPEC_FILE) or self._model().spec

    @classmethod
    def of(cls, model: HD2S) -> Graphs:
        """The graphs of a network in memory."""
        return cls(_facts(model), lambda: copy.deepcopy(model))

    @classmethod
    def stored(
        cls,
        name: str,
        weights: str | Path | None = None,
        domain: str | None = None,
        *,
        truncate: bool = False,
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
            return cls.of(load())
        return cls((name.encode(), repr((domain, truncate)).encode(), path.read_bytes()), load)

    def graph(self, part: str, shapes: Sequence[Sequence[int]]) -> Any:
        """Return the graph of a part of the network (see `conversion`) for inputs of some shapes."""
        folder = self._folder / f"{part} {shapes[0][0]}"
        return _read(folder) or self._build(part, shapes, folder)

    def _build(self, part: str, shapes: Sequence[Sequence[int]], folder: Path) -> Any:
        from hd2s.inference.conversion import convert

        _logger.info("preparing OpenVINO (%s); this takes some seconds the first time", part)
        built = convert(self._model(), part, shapes)
        _write(built, self.spec, folder)
        return built


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
        yield repr((name, type(module).__qualname__, _settings(module))).encode()
    for name, value in model.state_dict().items():
        yield name.encode()
        yield value.detach().cpu().contiguous().numpy().tobytes()


def _settings(module: nn.Module) -> dict[str, Any]:
    plain = (bool, int, float, str, tuple, list)
    return {key: value for key, value in vars(module).items() if isinstance(value, plain)}


def _read(folder: Path) -> Any:
    """Read a cached graph, or return None if it is not there or not whole."""
    try:
        if (folder / "sha256").read_text() != _sum(folder / name for name in _FILES):
            return None
        return openvino.Core().read_model(folder / "graph.xml")
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None


def _write(graph: Any, spec: InputSpec, folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            openvino.save_model(graph, Path(scratch) / _FILES[0], compress_to_fp16=False)
            (Path(scratch) / "sha256").write_text(_sum(Path(scratch) / name for name in _FILES))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch, folder)
            Path(scratch).mkdir()  # for the context manager to remove
        text = json.dumps(asdict(spec))
        (folder.parent / _SPEC_FILE).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")
    except (OSError, RuntimeError):
        pass  # without a cache


def _sum(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
