"""OpenVINO as the engine, on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from hd2s.inference.engines import Engine, Maps
from hd2s.inference.graphs import Graphs

_PIECE = 8  # maps that are predicted at once where they can be waited for: neighbours share work


class OpenVINOEngine(Engine):
    """Runs graphs of small fixed sizes, each read or built in `prepare` or at its first use.

    Work is cut into pieces that run at the same time on different cores, rather than each on all cores: that
    costs less, as cores need not wait for each other, and what passes between layers stays in their caches.
    Live frames come one by one, and all cores work on each.

    Features are (N, h, w, C) arrays of float32, or of uint16 that hold the bits of bfloat16 (numpy lacks it).
    """

    name = "openvino"
    device = "cpu"
    batch = 2 * _PIECE

    def __init__(self, graphs: Graphs) -> None:
        super().__init__(graphs.spec)
        self._graphs = graphs
        self.precision = graphs.precision
        self._live = False
        self._queues: dict[tuple[str, int, bool], Any] = {}
        self._building = threading.Lock()

    def prepare(self, *, live: bool, conspicuity: bool) -> None:
        """See `Engine.prepare`."""
        self._live = live

        def work() -> None:
            with suppress(Exception):  # it will be met again where the graph is needed
                encoder = self._queue("encode", [(1, self.spec.height, self.spec.width, 3)])
                count = self.spec.num_frames - 1 + self._piece()
                shapes = [(count, *output.shape[1:]) for output in encoder[0].model_outputs]
                self._queue(_slide_part(conspicuity), shapes)

        threading.Thread(target=work, name="hd2s-prepare").start()

    def encode(
        self, frames: NDArray[np.uint8], before: Sequence[NDArray[Any]] | None = None
    ) -> list[NDArray[Any]]:
        """See `Engine.encode`."""
        pieces = [[frames[i : i + 1]] for i in range(len(frames))]
        if before is None:
            return self._run("encode", pieces)
        past = len(before[0])
        run = self._run("encode", pieces, past)
        for level, earlier in zip(run, before, strict=True):
            level[:past] = earlier
        return run

    def slide(self, features: Sequence[NDArray[Any]], *, conspicuity: bool = False) -> Maps:
        """See `Engine.slide`."""
        past = self.spec.num_frames - 1
        pieces = list(_pieces(features, past, self._piece()))
        maps = self._run(_slide_part(conspicuity), pieces)
        return Maps(*(each[: len(features[0]) - past] for each in maps))

    def _piece(self) -> int:
        """How many maps are predicted by one request."""
        return 1 if self._live else _PIECE

    def _run(self, part: str, pieces: list[list[NDArray[Any]]], start: int = 0) -> list[NDArray[Any]]:
        """Run a part of the network on pieces of its input; join their results, behind `start` empty rows."""
        queue = self._queue(part, [array.shape for array in pieces[0]])
        outputs = queue[0].model_outputs
        size = outputs[0].shape[0]
        count = start + len(pieces) * size
        results = [np.empty((count, *output.shape[1:]), _array_type(output)) for output in outputs]
        for number, piece in enumerate(pieces):
            first = start + number * size
            request = queue[queue.get_idle_request_id()]  # which will be the next to be started
            for index, (result, output) in enumerate(zip(results, outputs, strict=True)):
                place = openvino.Tensor(result[first : first + size], output.shape, output.element_type)
                request.set_output_tensor(index, place)  # it writes there, so nothing has to be copied
            queue.start_async(piece, share_inputs=True)
        queue.wait_all()
        return results

    def _queue(self, part: str, shapes: list[tuple[int, ...]]) -> Any:
        """Return the queue of requests for inputs of some shapes."""
        key = part, shapes[0][0], self._live
        if key not in self._queues:
            with self._building:
                if key not in self._queues:
                    self._queues[key] = self._build(part, shapes)
        return self._queues[key]

    def _build(self, part: str, shapes: list[tuple[int, ...]]) -> Any:
        return openvino.AsyncInferQueue(self._graphs.compiled(part, shapes, live=self._live))


def _slide_part(conspicuity: bool) -> str:
    return "slide with levels" if conspicuity else "slide"


def _array_type(output: Any) -> type:
    return np.uint16 if output.get_element_type() == openvino.Type.bf16 else np.float32


def _pieces(arrays: Sequence[NDArray[Any]], past: int, size: int) -> Iterator[list[NDArray[Any]]]:
    """Cut runs of N + past frames into such of size + past; fill the last one up with its last frame."""
    for start in range(0, len(arrays[0]) - past, size):
        pieces = []
        for array in arrays:
            piece = array[start : start + past + size]
            lacking = past + size - len(piece)
            if lacking:
                piece = np.concatenate((piece, np.repeat(piece[-1:], lacking, axis=0)))
            pieces.append(np.ascontiguousarray(piece))
        yield pieces
