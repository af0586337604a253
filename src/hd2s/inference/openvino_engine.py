"""OpenVINO as the engine, on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from hd2s.inference.engines import BATCH, Engine, Maps
from hd2s.inference.graphs import Graphs

_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINOEngine(Engine):
    """Runs graphs of fixed sizes, each read or built at its first use.

    Frames are encoded one by one, some at the same time on different cores: what passes between the layers
    then stays in the processor's cache. The network slides over runs for 1 or `BATCH` maps; what lies
    between is filled up.
    """

    name = "openvino"
    device = "cpu"

    def __init__(self, graphs: Graphs) -> None:
        super().__init__(graphs.spec)
        self._graphs = graphs
        self._core = openvino.Core()
        self._encoders: Any = None  # a queue of requests
        self._sliders: dict[tuple[str, int], Any] = {}  # a request for each part and size

    def encode(self, frames: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """See `Engine.encode`."""
        if self._encoders is None:
            compiled = self._compiled("encode", [frames[:1]], "THROUGHPUT")
            self._encoders = openvino.AsyncInferQueue(compiled)
            self._encoders.set_callback(_keep)
        outputs = self._encoders[0].model_outputs
        features = [np.empty((len(frames), *output.shape[1:]), np.float32) for output in outputs]
        for index in range(len(frames)):
            places = [level[index : index + 1] for level in features]
            self._encoders.start_async([frames[index : index + 1]], places, share_inputs=True)
        self._encoders.wait_all()
        return features

    @staticmethod
    def concat(features: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """See `Engine.concat`."""
        return np.concatenate(features)

    def slide(self, features: Sequence[NDArray[np.float32]], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`."""
        past, part = self.spec.num_frames - 1, "slide with levels" if conspicuity else "slide"
        parts = [self._slide(part, pieces, count) for pieces, count in _batches(features, past)]
        return Maps(*(self.concat(maps) for maps in zip(*parts, strict=True)))

    def _slide(self, part: str, arrays: list[NDArray[Any]], count: int) -> list[NDArray[np.float32]]:
        """Run one graph on arrays of its size; copy the first `count` results out of it."""
        request = self._sliders.get((part, len(arrays[0])))
        if request is None:
            request = self._compiled(part, arrays, "LATENCY").create_infer_request()
            self._sliders[part, len(arrays[0])] = request
        request.infer(arrays, share_inputs=True)
        outputs = range(len(request.model_outputs))
        return [request.get_output_tensor(i).data[:count].copy() for i in outputs]

    def _compiled(self, part: str, arrays: list[NDArray[Any]], hint: str) -> Any:
        graph = self._graphs.graph(part, [array.shape for array in arrays])
        return self._core.compile_model(graph, "CPU", {**_FLOAT32, "PERFORMANCE_HINT": hint})


def _keep(request: Any, places: list[NDArray[np.float32]]) -> None:
    """Copy the results of a request, before it is used again."""
    for index, place in enumerate(places):
        place[:] = request.get_output_tensor(index).data


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
