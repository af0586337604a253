"""Frames in, maps out, one at a time and in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from hd2s.data.frames import Frame, FrameSource, resize
from hd2s.inference.engines import Engine, open_engine
from hd2s.inference.windows import opening
from hd2s.types import SaliencyFrame

if TYPE_CHECKING:
    from hd2s.models import HD2S

_DEFAULT_FPS = 25.0
_T = TypeVar("_T")
_Number = TypeVar("_Number", np.uint8, np.float32)
_Pair = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # saliency, conspicuity


class Slot(NamedTuple):
    """A frame that has a map or is to get one: its number, time and (H, W)."""

    number: int
    time_seconds: float
    size_hw: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The maps of a frame at the network's size, and at the frame's if that is asked for.

    Attributes:
        slot: The frame.
        saliency: (h, w) float32 in [0, 1].
        conspicuity: (4, h, w) float32 in [0, 1], or None.
    """

    slot: Slot
    saliency: NDArray[np.float32]
    conspicuity: NDArray[np.float32] | None = None

    @cached_property
    def enlarged(self) -> SaliencyFrame:
        """The result at the size of the frame, made once and kept."""
        number, time_seconds, size_hw = self.slot
        levels = None
        if self.conspicuity is not None:
            levels = np.stack([resized(level, size_hw) for level in self.conspicuity])
        return SaliencyFrame(number, time_seconds, resized(self.saliency, size_hw), levels)


class _End(NamedTuple):
    """What a thread hands over last."""

    error: BaseException | None


class Predictor:
    """Predicts the maps of a video that is pushed in frame by frame.

    Maps come out in order, some frames later: a recorded video's first T - 1 = 15 frames are predicted
    from their future (see `windows`), and frames are processed in batches. `flush` gives the rest. For a
    live source each push gives that frame's map at once; what came before the first frame is taken to
    look like it.

    Args:
        model: Name of a network, the network itself, or an engine that runs one.
        engine: See `open_engine`.
        device: See `open_engine`.
        precision: See `open_engine`.
        conspicuity: Also give the four conspicuity maps.
        live: The future cannot be waited for.
        stride: Only every so-manieth frame is shown to the network, as if the video had so many times fewer
            frames a second. Maps in between are interpolated in time; of a live source, and behind the last
            frame that is shown, the latest map stays. Memory grows with it: 30 such frames are waited for.

    Raises:
        ValueError: The stride is below 1.
        HD2SError: See `open_engine`.

    Example:
        >>> import numpy as np
        >>> import hd2s
        >>> predictor = hd2s.Predictor(hd2s.load("hd2s-lite"), engine="torch")
        >>> frames = [np.full((90, 160, 3), 40 * i, np.uint8) for i in range(3)]
        >>> maps = [m for frame in frames for m in predictor.push(frame)]  # none yet: too few frames
        >>> maps += predictor.flush()
        >>> [(m.index, m.saliency.shape, m.saliency.dtype.name) for m in maps]
        [(0, (90, 160), 'float32'), (1, (90, 160), 'float32'), (2, (90, 160), 'float32')]
    """

    def __init__(
        self,
        model: str | HD2S | Engine,
        *,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        conspicuity: bool = False,
        live: bool = False,
        stride: int = 1,
    ) -> None:
        if stride < 1:
            raise ValueError(f"The stride must be at least 1, got {stride}.")
        self._engine = open_engine(model, engine=engine, device=device, precision=precision)
        self._engine.prepare(live=live, conspicuity=conspicuity)
        self._conspicuity = conspicuity
        self._live = live
        self._stride = stride
        self.spec = self._engine.spec
        self._reset()

    def _reset(self) -> None:
        self._pushed = 0
        self._images: list[NDArray[np.uint8]] = []  # not yet encoded
        self._features: list[Any] | None = None  # of the frames that windows to come need
        self._targets: deque[Slot] = deque()  # frames whose maps are to come
        self._opened = False  # the targets without a whole past are done
        self._latest: Prediction | None = None  # of the frames that the network was shown

    def push(
        self,
        image: NDArray[np.uint8],
        *,
        time_seconds: float | None = None,
        size_hw: tuple[int, int] | None = None,
    ) -> Iterator[SaliencyFrame]:
        """Take the next frame and give the maps that it completes.

        Args:
            image: (H, W, 3) uint8, RGB.
            time_seconds: When the frame is shown; index / 25 if None.
            size_hw: Size of the map, (H, W) of the image if None.

        Returns:
            Maps, each enlarged to its size only when it is taken.

        Raises:
            InputShapeError: The image is no (H, W, 3) uint8 array.
        """
        small = resize(image, self.spec.height, self.spec.width)
        shown = self._pushed % self._stride == 0
        results = self._push(small if shown else None, time_seconds, size_hw or image.shape[:2])
        return (replace(result).enlarged for result in results)  # of a copy: the lists keep theirs small

    def flush(self) -> Iterator[SaliencyFrame]:
        """Give the maps of the frames that are left and get ready for another video."""
        return (replace(result).enlarged for result in self._flush())

    def _push(
        self, image: NDArray[np.uint8] | None, time_seconds: float | None, size_hw: tuple[int, int]
    ) -> list[Prediction]:
        """Take the next frame, of the network's size or, if it is not shown, None."""
        time = self._pushed / _DEFAULT_FPS if time_seconds is None else time_seconds
        self._targets.append(Slot(self._pushed, time, size_hw))
        self._pushed += 1
        if image is not None:
            self._images.append(image)
            if self._live or len(self._images) == self._engine.batch:
                return self._completed(self._advance(final=False))
        return self._held() if self._live else []

    def _flush(self) -> list[Prediction]:
        rest = self._completed(self._advance(final=True)) + self._held()
        self._reset()
        return rest

    def _completed(self, pairs: Iterable[_Pair]) -> list[Prediction]:
        """Give the maps of frames that were shown and of those before them that were not."""
        results = []
        for pair in pairs:
            skipped = []
            while self._targets[0].number % self._stride:
                skipped.append(self._targets.popleft())
            after = Prediction(self._targets.popleft(), *pair)
            if self._latest is not None:  # the first frame is always shown
                results += [_between(self._latest, after, target) for target in skipped]
            results.append(after)
            self._latest = after
        return results

    def _held(self) -> list[Prediction]:
        """Give the latest maps to the frames that are left."""
        if self._latest is None:
            return []
        left, self._targets = self._targets, deque()
        return [replace(self._latest, slot=target) for target in left]

    def _advance(self, *, final: bool) -> list[_Pair]:
        """Encode the waiting images and predict what can be predicted."""
        past = self.spec.num_frames - 1
        if self._images:
            self._encode(past)
        if self._features is None:
            return []
        count = len(self._features[0])
        runs: list[list[_Pair]] = []
        if not self._opened:
            if count < 2 * past and not final:
                return []
            order = opening(count, self.spec.num_frames)
            backwards = self._slide([level[order] for level in self._features])
            runs.append(backwards[::-1])
            self._opened = True
        if count > past:
            runs.append(self._slide(self._features))
            self._features = [level[-past:] for level in self._features]
        return list(chain.from_iterable(runs))

    def _slide(self, features: list[Any]) -> list[_Pair]:
        """Predict a run of frames: for each its saliency and, if wanted, its conspicuity maps."""
        saliency, conspicuity = self._engine.slide(features, conspicuity=self._conspicuity)
        return list(zip(saliency, repeat(None) if conspicuity is None else conspicuity, strict=False))

    def _encode(self, past: int) -> None:
        """Encode the waiting images and put their features behind those of the frames before."""
        run = self._engine.encode(np.stack(self._images), self._features)
        self._images.clear()
        if self._features is None and self._live:
            run = [level[[0] * past + list(range(len(level)))] for level in run]
            self._opened = True
        self._features = run


def _between(before: Prediction, after: Prediction, target: Slot) -> Prediction:
    """Interpolate maps in time."""
    start, end = before.slot.time_seconds, after.slot.time_seconds
    weight = np.float32((target.time_seconds - start) / (end - start) if end > start else 1)

    def mix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
        mixed: NDArray[np.float32] = a + weight * (b - a)
        return mixed

    levels = None
    if before.conspicuity is not None and after.conspicuity is not None:
        levels = mix(before.conspicuity, after.conspicuity)
    return Prediction(target, mix(before.saliency, after.saliency), levels)


def resized(image: NDArray[_Number], size_hw: tuple[int, int]) -> NDArray[_Number]:
    """Resize an image (H, W) bilinearly, or by area averaging where it gets smaller."""
    smaller = size_hw[0] < image.shape[0] and size_hw[1] < image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    changed: NDArray[Any] = cv2.resize(image, size_hw[::-1], interpolation=method)
    return changed


def predict_frames(
    source: FrameSource, model: str | HD2S | Engine, *, conspicuity: bool = False, stride: int = 1
) -> Generator[tuple[Frame, Prediction]]:
    """Predict every frame of an open source; decoding, predicting and the caller's work overlap.

    Yields:
        Each frame and its maps at the network's size, in order, in bounded memory.
    """
    network = open_engine(model)
    predictor = Predictor(network, conspicuity=conspicuity, live=source.info.live, stride=stride)

    def decode() -> Generator[tuple[Frame, NDArray[np.uint8] | None]]:
        # Only one thread at a time may convert a picture, so it is made small before it moves on.
        for number, frame in enumerate(source):
            shown = number % stride == 0
            yield frame, frame.rgb(predictor.spec.height, predictor.spec.width) if shown else None

    def predict() -> Generator[tuple[Frame, Prediction]]:
        waiting: deque[Frame] = deque()
        with closing(prefetch(decode(), network.batch)) as frames:
            for frame, small in frames:
                waiting.append(frame)
                size_hw = frame.picture.height, frame.picture.width
                for result in predictor._push(small, frame.time_seconds, size_hw):
                    yield waiting.popleft(), result
        for result in predictor._flush():
            yield waiting.popleft(), result

    # Half a batch ahead: while the caller works on the rest of one, the next is predicted.
    with closing(prefetch(predict(), max(1, network.batch // 2))) as pairs:
        try:
            for frame, result in pairs:
                yield frame, replace(result)  # what the caller enlarges is not kept here
        finally:
            source.stop()  # else leaving early would wait for a server


def prefetch(items: Generator[_T], ahead: int) -> Generator[_T]:
    """Run a generator in a thread, at most `ahead` items ahead of the caller; its exceptions are raised here.

    Closing this generator ends the thread and closes the other.
    """
    ready: queue.Queue[_T | _End] = queue.Queue(ahead)
    abandoned = threading.Event()

    def put(item: _T | _End) -> None:
        while not abandoned.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        end = _End(None)
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if abandoned.is_set():
                        break
        except BaseException as error:  # whatever it is, it belongs to the caller
            end = _End(error)
        put(end)

    thread = threading.Thread(target=work, name="hd2s-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        abandoned.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()  # makes room: a thread that waits for it ends at once
        thread.join()
