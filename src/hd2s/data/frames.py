"""A decoded frame, and what every source of frames has in common."""

from __future__ import annotations

import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from hd2s.errors import InputShapeError, VideoDecodeError
from hd2s.types import VideoInfo

MAX_PIXELS = 8192 * 8192  # a frame beyond this is taken for a damaged or hostile header
MAX_PROBLEMS = 20  # a damaged recording of hours must not fill the memory with messages

# SWS_FULL_CHR_H_INT of FFmpeg, by its number because PyAV 17 has no name for it: without it, the scaler
# halves the horizontal colour resolution of the *small* RGB picture.
_FULL_CHROMA = 1 << 13
# VideoFrame.reformat would leave a scaler of some megabytes with each frame, as long as that is alive.
_scalers = threading.local()
# AVColorSpace values that swscale converts: bt709, FCC, bt470bg, smpte170m, smpte240m, bt2020nc.
_CONVERTIBLE_MATRICES = frozenset({1, 4, 5, 6, 7, 9})


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    Attributes:
        index: Number of the frame in its source, from 0 without gaps.
        time_seconds: When it is shown, in seconds; 0 for the first frame, strictly increasing.
        picture: The picture upright, in the pixel format of its source. `picture.pts` counts the
            source's `time_base` and agrees with `time_seconds`. FFmpeg's scaler marks a picture while
            it reads it, so only one thread at a time may convert it.
    """

    index: int
    time_seconds: float
    picture: av.VideoFrame

    def rgb(self, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
        """Convert to RGB, and to another size by area averaging in the same pass.

        Args:
            height: Height in pixels; None keeps that of the picture.
            width: Width in pixels; None keeps that of the picture.

        Returns:
            (H, W, 3) uint8, full range.

        Raises:
            VideoDecodeError: FFmpeg cannot convert the pixel format.
        """
        try:
            converted = _scaler().reformat(
                self.picture,
                width=width,
                height=height,
                format="rgb24",
                src_colorspace=yuv_matrix(self.picture),
                interpolation=Interpolation.AREA | _FULL_CHROMA,
                threads=1,
            )
        except (av.FFmpegError, ValueError) as error:
            raise VideoDecodeError(
                f"Frame {self.index} has the pixel format '{self.picture.format.name}', which cannot be "
                f"converted to RGB ({error}). Convert the video to yuv420p first."
            ) from error
        return converted.to_ndarray().astype(np.uint8, copy=False)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an RGB image (H, W, 3) to (height, width, 3) as `Frame.rgb` does.

    Raises:
        InputShapeError: The image is no (H, W, 3) uint8 array.
    """
    _check_rgb(image, 0)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return Frame(0, 0.0, picture).rgb(height, width)


def _scaler() -> VideoReformatter:
    """Return the scaler of the calling thread."""
    scaler: VideoReformatter | None = getattr(_scalers, "scaler", None)
    if scaler is None:
        scaler = _scalers.scaler = VideoReformatter()
    return scaler


def yuv_matrix(picture: av.VideoFrame) -> Colorspace | None:
    """Tell which matrix turns a picture into RGB where its own tag does not.

    Returns:
        None where the tag serves (or the picture is RGB), else what players assume: BT.709 for a height
        of 720 pixels or more, BT.601 below.
    """
    if picture.format.is_rgb or picture.colorspace in _CONVERTIBLE_MATRICES:
        return None
    return Colorspace.ITU709 if picture.height >= 720 else Colorspace.ITU601


class FrameSource(ABC):
    """Frames in order, once: a context manager and an iterator, to be used by one thread at a time.

    Attributes:
        info: What is known before decoding.
        time_base: Seconds per tick of `frame.picture.pts`.
        problems: What went wrong without ending the iteration, one message each; empty if all is fine.
            It grows while frames are read and is complete at the end.
        audio: File or URL whose first audio stream belongs to the frames, or None.
        start_time: Seconds on that file's own clock at which frame 0 is shown: to be subtracted from the
            time stamps of the sound.
        modified: When the frames' files were last changed, in seconds since 1970; 1 if that is unknown.
    """

    info: VideoInfo
    time_base: Fraction
    audio: str | None = None
    start_time: Fraction = Fraction(0)
    modified: float = 1.0

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._frames = self._read()

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield the frames; called once."""

    def stop(self) -> None:  # noqa: B027 (not every source waits)
        """Let a read that waits for a server end soon, with an error; any thread may call it."""

    def close(self) -> None:
        """Release the input; reading ends. Calling it again does nothing."""
        self._frames = iter(())

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note(self, problem: str) -> None:
        """Record a problem, up to a bound."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("further problems are not listed")


def last_change(paths: Iterable[str | Path]) -> float:
    """Tell for `FrameSource.modified` when files were last changed. A time to come is a wrong one."""
    try:
        latest = max(os.path.getmtime(path) for path in paths)
    except OSError:
        latest = math.inf
    return latest if latest <= time.time() else FrameSource.modified


def evenly_spaced(index: int, picture: av.VideoFrame, rate: Fraction) -> Frame:
    """Make frame `index` of a source without time stamps, whose time base is 1 / `rate`."""
    picture.pts, picture.time_base = index, 1 / rate
    return Frame(index, float(index / rate), picture)


def frame_rate(fps: float) -> Fraction:
    """Turn frames a second into a fraction that encoders accept.

    Raises:
        InputShapeError: The rate is not a positive number up to 1000.
    """
    if not 0 < fps <= 1000:  # also refuses NaN
        raise InputShapeError(f"The frame rate must be above 0 and at most 1000 frames a second, got {fps}.")
    for known in (Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60_000, 1001)):
        if abs(fps - known) < 0.005:
            return known
    return Fraction(fps).limit_denominator(1000)


class ArraySource(FrameSource):
    """Frames from any iterable of RGB arrays."""

    def __init__(self, arrays: Iterable[NDArray[np.uint8]], fps: float) -> None:
        """Look at the first array to learn the size.

        Args:
            arrays: (H, W, 3) uint8 RGB arrays, all of one size.
            fps: Frames a second.

        Raises:
            VideoDecodeError: There is no array at all.
            InputShapeError: The first one is no RGB picture, or the rate is not positive.
        """
        super().__init__()
        rate = frame_rate(fps)
        iterator = iter(arrays)
        try:
            first = next(iterator)
        except StopIteration:
            raise VideoDecodeError("The iterable of frames is empty; it must yield at least one.") from None
        _check_rgb(first, 0)
        self._arrays = chain([first], iterator)
        self.time_base = 1 / rate
        self.info = VideoInfo(
            name="frames",
            height=first.shape[0],
            width=first.shape[1],
            fps=rate,
            num_frames=len(arrays) if isinstance(arrays, Sized) else None,
        )

    def _read(self) -> Iterator[Frame]:
        expected = None
        for index, array in enumerate(self._arrays):
            _check_rgb(array, index)
            expected = expected or array.shape
            if array.shape != expected:
                raise InputShapeError(
                    f"Frame {index} has the shape {array.shape}, the frames before it {expected}. "
                    "All frames must have one size: resize them, or predict them separately."
                )
            picture = av.VideoFrame.from_ndarray(array, format="rgb24")
            yield evenly_spaced(index, picture, self.info.fps)


def _check_rgb(array: object, index: int) -> None:
    """Refuse what is not an (H, W, 3) uint8 array of a size that a codec can hold."""
    if not isinstance(array, np.ndarray):
        given = f"of the type {type(array).__name__}"
    elif array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        given = f"an array of the shape {array.shape} and the type {array.dtype}"
    else:
        return
    raise InputShapeError(
        f"Frame {index} is {given}; frames must be (H, W, 3) uint8 arrays in RGB order. "
        "Floats in [0, 1] become such by (255 * frame).astype('uint8')."
    )
