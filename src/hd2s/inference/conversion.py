"""From a network to OpenVINO graphs of its parts: "encode", "slide", and "slide with levels"."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from openvino.preprocess import PrePostProcessor
from torch import Tensor

from hd2s.inference.graphs import TYPES, core
from hd2s.inference.torch_engine import Encode
from hd2s.models import HD2S

_logger = logging.getLogger(__name__)
_FIRST = 3  # convolutions of the encoder that stay in float32
_LARGE = 3e38  # nearly the largest float32


def convert(model: HD2S, part: str, shapes: Sequence[Sequence[int]], precision: str) -> Any:
    """Build the graph of a part of a network for inputs of the given shapes.

    "encode" is `Encode`; the others are `HD2S.slide` and give the saliency map alone or both outputs.
    Features pass from one to the other with their channels last, as OpenVINO's kernels have them, so that
    nothing has to be turned. The network is on the CPU, in eval mode and needs no gradients.

    Args:
        model: The network.
        part: "encode", "slide" or "slide with levels".
        shapes: Of the inputs.
        precision: What features pass in, "float32" or "bfloat16".
    """
    encode, kind = Encode(model), torch.uint8 if part == "encode" else torch.float32

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        if part == "encode":
            # OpenVINO turns features to and fro unless an operation follows: this one changes no number.
            return tuple(level.movedim(1, -1).clamp(-_LARGE, _LARGE) for level in encode(inputs[0]))
        return model.slide([level.movedim(-1, 1) for level in inputs])[
            : 2 if part == "slide with levels" else 1
        ]

    examples = tuple(torch.zeros(*shape, dtype=kind) for shape in shapes)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the shapes are meant to be fixed by the trace
        # A trace of a function, not of the module, and the frontend itself, not `openvino.convert_model`,
        # which also simplifies the graph as compiling does again: a fifth of the time.
        traced = torch.jit.trace(run, examples, check_trace=False)  # type: ignore[no-untyped-call]
        _fold(traced.graph)
        decoder = TorchScriptPythonDecoder(traced, example_input=examples)
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    for port, example in zip(graph.inputs, examples, strict=True):
        port.get_node().set_element_type(openvino.Type.u8 if part == "encode" else openvino.Type.f32)
        port.get_node().set_partial_shape(openvino.PartialShape(example.shape))
    graph.validate_nodes_and_infer_types()
    outside, features = PrePostProcessor(graph), TYPES[precision]
    for number in range(len(graph.outputs if part == "encode" else graph.inputs)):
        end = outside.output(number) if part == "encode" else outside.input(number)
        end.tensor().set_element_type(features)
    built = outside.build()
    return _partly_exact(built, part) if precision == "bfloat16" else built


def _partly_exact(graph: Any, part: str) -> Any:
    """Keep some layers in float32 where the precision is bfloat16.

    These are the first layers of the encoder, where rounding does most harm, as nothing averages it out; and
    convolutions of maps, which would give them the steps of 8 bits.
    """
    exact, convolutions = [], 0
    for node in graph.get_ordered_ops():
        convolves = node.get_type_name() in ("Convolution", "GroupConvolution")
        convolutions += convolves
        if convolutions <= _FIRST if part == "encode" else convolves and node.output(0).shape[1] == 1:
            exact.append(node)
    if not exact:
        return graph
    for node in exact:
        node.get_rt_info()["precise_0"] = ""
    # A mark counts once it is read back.
    with suppress(OSError, RuntimeError), TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return core().read_model(path.read_bytes(), path.with_suffix(".bin").read_bytes())
    _logger.warning("no place for temporary files, so maps in bfloat16 are less exact than they could be")
    return graph


def _fold(graph: Any) -> None:
    """Compute what does not depend on the input: shapes, and what follows from weights alone."""
    for _ in range(2):  # shapes become constants, then what follows from these
        torch._C._jit_pass_peephole(graph, False)
        torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_constant_pooling(graph)  # type: ignore[attr-defined]  # equal ones become one
    torch._C._jit_pass_dce(graph)
