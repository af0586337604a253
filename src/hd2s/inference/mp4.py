"""An MP4 file that is encoded picture by picture (H.264), with sound."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from hd2s.inference.audio import SoundTrack
from hd2s.inference.pictures import ColorTags, from_i420

# Two threads: the network and the decoder want the rest of a small machine, and more pictures in flight would
# only cost memory.
_ENCODER_THREADS = 2
_AHEAD = 2  # pictures that wait to be coded


class Mp4Encoder:
    """Writes I420 pictures into an MP4 file, each with its own time, in a thread of its own.

    Args:
        path: File to write.
        height: Height of the pictures in pixels, even.
        width: Width of the pictures in pixels, even.
        fps: Average frames a second; only a hint, and how long the last picture is shown.
        time_base: Unit of time in seconds; times are rounded to it.
        quality: Options of libx264 that decide on quality and size, such as {"crf": "20"}.
        tags: How the pictures are coded.

    Raises:
        av.FFmpegError: The file cannot be written; from all methods, which may tell of earlier pictures.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: Fraction,
        time_base: Fraction,
        quality: dict[str, str],
        tags: ColorTags,
    ) -> None:
        self._time_base = time_base
        self._tags = tags
        self._frame_seconds = float(1 / fps)
        self._last_pts: int | None = None
        self._sound: SoundTrack | None = None
        self._thread = ThreadPoolExecutor(1, "hd2s-encode")
        self._waiting: deque[Future[None]] = deque()
        self._failed = False
        self._container = av.open(f"file:{path}", "w", format="mp4")  # else a:b/ is a protocol
        options = {"preset": "veryfast", **quality}
        self._stream = self._container.add_stream("libx264", rate=fps, options=options)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self._stream.time_base = time_base
        codec = self._stream.codec_context
        codec.time_base = time_base
        codec.thread_count = _ENCODER_THREADS
        codec.colorspace, codec.color_range = tags.space, tags.range
        codec.color_primaries, codec.color_trc = tags.primaries, tags.trc

    def add_sound(self, location: str, start_seconds: float) -> None:
        """Carry the sound of a file along; to be called before the first picture.

        Args:
            location: File or URL with the sound.
            start_seconds: Time in that file that is 0 here.
        """
        self._sound = SoundTrack(location, self._container, start_seconds)

    @property
    def problem(self) -> str | None:
        """Why there is no (more) sound although it was asked for, or None."""
        return self._sound.problem if self._sound else None

    def encode(self, i420: NDArray[np.uint8], time_seconds: float) -> None:
        """Append a picture, (3/2 · H, W) uint8, that nobody changes any more."""
        if len(self._waiting) > _AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._encode, i420, time_seconds))

    def _encode(self, i420: NDArray[np.uint8], time_seconds: float) -> None:
        if self._failed:
            return  # FFmpeg crashes if it has to go on after an error
        self._failed = True  # unless the end is reached
        pts = round(time_seconds / self._time_base)
        if self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1  # encoders refuse times that do not increase; some sources repeat them
        self._last_pts = pts
        if self._sound:
            self._sound.write_until(time_seconds)
        picture = from_i420(i420, self._tags)
        picture.pts, picture.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(picture))
        self._failed = False

    def finish(self) -> None:
        """Write what the encoder still holds, the sound up to the end of the pictures, and the index."""
        while self._waiting:
            self._waiting.popleft().result()
        self._container.mux(self._stream.encode(None))
        if self._sound and self._last_pts is not None:
            self._sound.write_until(float(self._last_pts * self._time_base) + self._frame_seconds)
        self._container.close()

    def close(self) -> None:
        """Close all files; without `finish` the result is not usable."""
        self._thread.shutdown(cancel_futures=True)
        if self._sound:
            self._sound.close()
        self._container.close()
