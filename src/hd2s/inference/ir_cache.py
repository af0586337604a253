"""OpenVINO graphs on disk: converting a network from PyTorch takes seconds, reading it back milliseconds."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hd2s import models
from hd2s.weights.cache import cache_folder

_logger = logging.getLogger(__name__)
_FILES = ("graph.xml", "graph.bin")


def graph(name: str, module: nn.Module, examples: Sequence[Tensor]) -> Any:
    """Return a module's OpenVINO graph for inputs of the examples' shapes, from the cache if it is there.

    The name tells apart modules of the same weights and inputs.

    A cached graph that is damaged, or of other weights, code or versions, is built again. A cache
    folder that cannot be written is no error: the graph is then built each time.
    """
    folder = cache_folder() / "openvino" / _key(name, module, examples)
    return _read(folder) or _build(name, module, examples, folder)


def _key(name: str, module: nn.Module, examples: Sequence[Tensor]) -> str:
    """Name all that the graph depends on: weights, shapes, code and versions."""
    digest = hashlib.sha256()
    for package in ("openvino", "torch"):
        digest.update(f"{package} {metadata.version(package)};".encode())
    for source in sorted(Path(models.__file__).parent.glob("*.py")) + [
        Path(__file__).with_name("engines.py")
    ]:
        digest.update(source.read_bytes())
    digest.update(f"{name};".encode())
    for example in examples:
        digest.update(f"{tuple(example.shape)} {example.dtype};".encode())
    for key, value in (*module.named_parameters(), *module.named_buffers()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(folder: Path) -> Any:
    """Read a cached graph, or return None if it is not there or not whole."""
    import openvino

    try:
        if (folder / "sha256").read_text() != _sum(folder / name for name in _FILES):
            return None
        return openvino.Core().read_model(folder / "graph.xml")
    except (OSError, RuntimeError, UnicodeDecodeError):
        return None


def _build(name: str, module: nn.Module, examples: Sequence[Tensor], folder: Path) -> Any:
    import openvino

    _logger.info("preparing OpenVINO (%s); this takes some seconds the first time", name)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the shapes are meant to be fixed by the trace
        traced = torch.jit.trace(module, tuple(examples), check_trace=False)  # type: ignore[no-untyped-call]
        built = openvino.convert_model(
            traced, example_input=tuple(examples), input=[list(e.shape) for e in examples]
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            openvino.save_model(built, Path(scratch) / _FILES[0], compress_to_fp16=False)
            (Path(scratch) / "sha256").write_text(_sum(Path(scratch) / name for name in _FILES))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch, folder)
            Path(scratch).mkdir()  # for the context manager to remove
    except (OSError, RuntimeError):
        pass  # without a cache
    return built


def _sum(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
