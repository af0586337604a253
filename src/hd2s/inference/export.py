"""A network as one file for other runtimes: ONNX, or OpenVINO's pair of files.

A file is compared with PyTorch in its own runtime before it gets its name.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import hd2s
from hd2s.errors import MissingExtraError, OutputError, UnknownNameError
from hd2s.inference.engines import in_memory
from hd2s.inference.torch_engine import load_network
from hd2s.models import HD2S
from hd2s.models.hd2s import STRIDE
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS

TOLERANCE = 1e-4  # largest difference of a map's value from PyTorch's
_MAX_SIDE = 4096
_INPUT, _OUTPUTS = "frames", ("saliency", "conspicuity")
_logger = logging.getLogger(__name__)
_Shape = Sequence[int | str]
_Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]


class Whole(nn.Module):
    """A network with its normalisation: RGB clips (B, T, H, W, 3) uint8 in, both maps out."""

    scale: Tensor
    offset: Tensor

    def __init__(self, model: HD2S) -> None:
        super().__init__()
        self.model = model
        mean, std = (torch.tensor(v).view(3, 1, 1, 1) * 255 for v in (model.spec.mean, model.spec.std))
        self.register_buffer("scale", 1 / std)
        self.register_buffer("offset", -mean / std)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Give (B, H, W) and (B, 4, H, W) float32 in (0, 1) for the clips' last frames."""
        clips = frames.permute(0, 4, 1, 2, 3).to(torch.float32)
        saliency, conspicuity = self.model(clips * self.scale + self.offset)
        return saliency, conspicuity


class _Format(NamedTuple):
    """How a kind of file is made and run.

    Attributes:
        suffixes: Of its files; the first is the one that is opened, and appears last.
        packages: That are needed, and the extra that brings them.
        write: Takes the program, the shapes of its input and outputs, metadata, and the path.
        run: Opens a file; gives what maps clips to both outputs.
    """

    suffixes: tuple[str, ...]
    packages: tuple[str, ...]
    extra: str
    write: Callable[[Any, Sequence[_Shape], dict[str, str], Path], None]
    run: Callable[[Path], _Run]


def export(
    path: str | Path,
    format: str,
    model: str | HD2S = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    *,
    dynamic: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write a network as one self-contained graph, once its own runtime gives PyTorch's maps.

    Input: `frames` (B, T, H, W, 3) uint8, RGB, oldest frame first; outputs: `saliency` (B, H, W) and
    `conspicuity` (B, 4, H, W), float32 in (0, 1), of the clips' last frames.

    Args:
        path: File to write; it ends as the format wants it, ".onnx" or ".xml" (with a ".bin" beside it).
        format: "onnx" or "openvino".
        model: Name of the network, or the network itself, in eval mode and on the CPU.
        weights: See `hd2s.load`; for a name only.
        domain: See `hd2s.load`; for a name only.
        dynamic: Any B, and any H and W that are multiples of 32, instead of B = 1 at the network's size.
        overwrite: Replace a file that is there already.

    Returns:
        The files, that of the given name first.

    Raises:
        UnknownNameError: There is no such format, network or domain.
        MissingExtraError: The format needs packages that are not installed.
        OutputError: The file is there already, cannot be written, or its maps differ from PyTorch's.
        HD2SError: The network cannot be loaded; see `hd2s.load`.
    """
    if format not in FORMATS:
        raise UnknownNameError.among("format", format, FORMATS)
    kind, path = FORMATS[format], Path(path)
    files = _check_path(path, kind, overwrite)
    _check_packages(format, kind)
    if isinstance(model, str):
        network = load_network(model, weights, domain)
    else:
        network = copy.deepcopy(in_memory(model, weights, domain))
    facts = _metadata(network, model if isinstance(model, str) else None, weights, domain)
    whole, (batch, height, width) = (
        Whole(network).eval().requires_grad_(False),
        _example_size(network, dynamic),
    )
    length = network.spec.num_frames
    with _scratch(path) as folder, torch.no_grad():
        _logger.info("exporting; this may take a minute")
        with _quiet():
            program = _program(whole, (batch, length, height, width, 3), dynamic)
            sides: _Shape = ("batch", "height", "width") if dynamic else (1, height, width)
            shapes = (
                (sides[0], length, *sides[1:], 3),
                tuple(sides),
                (sides[0], 4, *sides[1:]),
            )
            kind.write(program, shapes, facts, folder / path.name)
        _logger.info("comparing with PyTorch")
        _compare(path, whole, kind.run(folder / path.name), _trials(length, (batch, height, width), dynamic))
        if len(files) > 1:
            path.unlink(missing_ok=True)  # else it would stand beside a part of another export for a moment
        for file in reversed(files):
            os.replace(folder / file.name, file)
    return files


def _check_path(path: Path, kind: _Format, overwrite: bool) -> list[Path]:
    """Return the files to write."""
    if path.suffix != kind.suffixes[0]:
        raise OutputError(
            f"'{path}' does not end in {kind.suffixes[0]}. Name it so, or choose another --format."
        )
    files = [path.with_suffix(suffix) for suffix in kind.suffixes]
    for file in files:
        if file.is_dir() or (file.exists() and not overwrite):
            raise OutputError(f"'{file}' exists already. Choose another name, or replace it: --overwrite.")
    return files


def _check_packages(format: str, kind: _Format) -> None:
    for package in kind.packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError.needed(
                f"The format '{format}' needs more packages ({package})", kind.extra
            ) from error


def _metadata(
    network: HD2S, name: str | None, weights: str | Path | None, domain: str | None
) -> dict[str, str]:
    """What a user of the file has to know of it."""
    spec = network.spec
    facts = {
        "hd2s_version": hd2s.__version__,
        "num_frames": str(spec.num_frames),
        "height": str(spec.height),
        "width": str(spec.width),
        "input": "frames (batch, time, height, width, channel) uint8 from 0 to 255, RGB, oldest frame first; "
        "normalised inside",
        "output": "saliency (batch, height, width) and conspicuity (batch, level 2-5, height, width) of the "
        "last frame, float32 from 0 to 1",
    }
    if domain is not None:
        facts["domain"] = domain
    if name is None:
        return facts
    file = Path(weights) if weights is not None else WEIGHTS[name].path
    assert file is not None  # else the network would not have been loaded
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    facts |= {"model": name, "weights_sha256": digest}
    license_ = io.read(file).header.license
    for record in WEIGHTS.values():
        if record.sha256 and digest.startswith(record.sha256):
            license_ = record.license
            facts["trained_on"] = "; ".join(f"{data.name} [{data.license}]" for data in record.trained_on)
    return facts | {"license": license_ or "not stated in the weight file"}


def _example_size(network: HD2S, dynamic: bool) -> tuple[int, int, int]:
    """B, H and W to export with; torch.export takes a dynamic size of 1 for a constant."""
    least = 2 * STRIDE if dynamic else STRIDE
    return 1 + dynamic, max(network.spec.height, least), max(network.spec.width, least)


def _program(whole: Whole, shape: Sequence[int], dynamic: bool) -> torch.export.ExportedProgram:
    dimensions = None
    if dynamic:
        rows, columns = (
            torch.export.Dim(name, min=2, max=_MAX_SIDE // STRIDE) for name in ("rows", "columns")
        )
        sizes = {0: torch.export.Dim("batch", min=1), 2: STRIDE * rows, 3: STRIDE * columns}
        dimensions = {_INPUT: sizes}
    return torch.export.export(whole, (torch.zeros(*shape, dtype=torch.uint8),), dynamic_shapes=dimensions)


def _write_onnx(program: Any, shapes: Sequence[_Shape], facts: dict[str, str], path: Path) -> None:
    from onnx_ir import Shape

    exported = torch.onnx.export(
        program, dynamo=True, input_names=[_INPUT], output_names=_OUTPUTS, verbose=False
    )
    assert exported is not None
    graph = exported.model.graph
    for value, shape in zip((*graph.inputs, *graph.outputs), shapes, strict=True):
        value.shape = Shape(shape)  # with names for what is dynamic
    exported.model.metadata_props.update(facts)
    exported.save(str(path), external_data=False)


def _run_onnx(path: Path) -> _Run:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames: session.run(_OUTPUTS, {_INPUT: frames})


def _write_openvino(program: Any, shapes: Sequence[_Shape], facts: dict[str, str], path: Path) -> None:
    import openvino

    graph = openvino.convert_model(program)
    for port, name in zip((*graph.inputs, *graph.outputs), (_INPUT, *_OUTPUTS), strict=True):
        port.get_tensor().set_names({name})
    graph.reshape([side if isinstance(side, int) else -1 for side in shapes[0]])
    for key, value in facts.items():
        graph.set_rt_info(value, ["hd2s", key])
    try:
        openvino.save_model(graph, path, compress_to_fp16=False)
    except RuntimeError as error:  # a full disk, say
        raise OSError(str(error)) from error


def _run_openvino(path: Path) -> _Run:
    from hd2s.inference.graphs import core

    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda frames: [compiled({_INPUT: frames})[name] for name in _OUTPUTS]


FORMATS = {
    "onnx": _Format((".onnx",), ("onnxscript", "onnxruntime"), "export", _write_onnx, _run_onnx),
    "openvino": _Format((".xml", ".bin"), ("openvino",), "openvino", _write_openvino, _run_openvino),
}


def _trials(length: int, size: tuple[int, int, int], dynamic: bool) -> Iterator[NDArray[np.uint8]]:
    """Give clips (B, T, H, W, 3) to compare maps of: noise, and soft blotches that move."""
    rng = np.random.default_rng(0)
    batch, height, width = size
    sizes = [(batch, height, width)]
    if dynamic:
        sizes += [(1, height, width), (3, height + STRIDE, width + 2 * STRIDE)]
    for batch, height, width in sizes:
        yield rng.integers(0, 256, (batch, length, height, width, 3), np.uint8)
        clips = np.empty((batch, length, height, width, 3), np.uint8)
        for clip in clips:
            coarse = rng.integers(0, 256, (8, 12, 3), np.uint8)
            wide = cv2.resize(coarse, (width + 2 * length, height), interpolation=cv2.INTER_CUBIC)
            for number, frame in enumerate(clip):
                frame[:] = wide[:, 2 * number : 2 * number + width]
        yield clips


def _compare(path: Path, whole: Whole, run: _Run, trials: Iterator[NDArray[np.uint8]]) -> None:
    for frames in trials:
        expected = whole(torch.from_numpy(frames))
        for name, want, got in zip(_OUTPUTS, expected, run(frames), strict=True):
            same = want.shape == got.shape
            difference = float(np.abs(want.numpy() - got).max()) if same else float("inf")
            if not difference <= TOLERANCE:  # nor is NaN
                raise OutputError(
                    f"'{path}' was not written: its '{name}' for frames {frames.shape} differs from "
                    f"PyTorch's by {difference:.2g}, more than {TOLERANCE:g}. Please report this with the "
                    "versions of the packages ('pip freeze')."
                )


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, removed in the end; errors of the file system become ours."""
    folder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", suffix=".partial", dir=path.parent))
        yield folder
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"Cannot write '{path}': {error.strerror or error}. Choose another place."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what exporters say of packages that are not needed, and of how PyTorch calls itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
