"""Frames from everything that FFmpeg's libraries open: video files, streams and cameras."""

from __future__ import annotations

import ctypes
import os
import re
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakSet

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from hd2s.data.aside import Aside
from hd2s.data.frames import MAX_PIXELS, Frame, FrameSource, last_change
from hd2s.data.upright import Clock, Upright
from hd2s.errors import InputNotFoundError, VideoDecodeError
from hd2s.types import VideoInfo

# PyAV keeps FFmpeg's own messages off standard error unless a caller asks for them: nothing to silence.

OPEN_TIMEOUT_SECONDS = 15.0  # of a URL
READ_TIMEOUT_SECONDS = 30.0

_FALLBACK_FPS = Fraction(25)
_CAMERA_POLL_SECONDS = 0.005
_MISSING_FRAMES_TOLERATED = 2  # containers round their durations
_TEXT_FORMAT = "tty"  # FFmpeg would render a text file as a video of letters


class ContainerSource(FrameSource):
    """Frames from a container, decoded with several threads.

    Rotation metadata is applied without leaving the pixel format. A stream that changes its resolution
    on the way is scaled to the size of its first frame. The sample aspect ratio is ignored.
    What decodes is yielded; damage is noted in `problems` by the frame near which it lies. Damage of a
    live stream is not noted: there is no better copy of it.
    """

    def __init__(
        self, address: str, *, name: str, device_format: str | None = None, may_be_live: bool = False
    ) -> None:
        """Open the container and decode the first frame, which tells what the headers cannot.

        Args:
            address: URL (of a local file: `file:PATH`) or device, as FFmpeg wants it.
            name: Name of the source.
            device_format: FFmpeg's input format for a device; None guesses the format of a file or URL.
            may_be_live: The address is a URL or a device: it is live unless it has an end.

        Raises:
            InputNotFoundError: There is nothing at the address.
            VideoDecodeError: It holds no video that can be decoded.
        """
        super().__init__()
        self._shown = without_password(address.removeprefix("file:"))
        if address.startswith("file:"):
            self.modified = last_change([address.removeprefix("file:")])
        self._aside = Aside(needed=may_be_live)
        self._container = self._aside(lambda: _open(address, self._shown, device_format, timed=may_be_live))
        try:
            playlist = self._container.format.name == "hls"  # its size is not that of the video
            ends = self._container.duration is not None or (not playlist and (self._container.size or 0) > 0)
            live = may_be_live and not ends
            self._stream = _video_stream(self._container, self._shown)
            _prepare_decoder(self._stream, self._shown, live)
            _open_sources.add(self)
            sound = bool(self._container.streams.audio) and not live
            self.audio = address if sound else None
            self._start(name, live)
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """End a read that waits for a server."""
        self._aside.stop()

    def close(self) -> None:
        """Close the container; reading ends. Calling it again does nothing."""
        super().close()
        if not self._aside.busy:  # else it is closed when nobody uses it any more
            self._container.close()

    def _start(self, name: str, live: bool) -> None:
        """Set the clock, decode the first picture and fill `info`."""
        stream = self._stream
        fps = stream.average_rate or stream.guessed_rate or _FALLBACK_FPS
        self.time_base = stream.time_base or 1 / fps
        self._clock = Clock(fps, self.time_base)
        self._upright = Upright()
        self._live = live
        self._last_damaged = -2
        self._end_reason = "the data end early"
        pictures = self._decode()
        first = next(pictures, None)
        if first is None:
            raise self._no_frame()
        self._pictures = chain([first], pictures)
        self.start_time = self._clock.origin * self.time_base
        seconds = self._promised_seconds() or self._estimated_seconds()
        self.info = VideoInfo(
            name=name,
            height=first.height,
            width=first.width,
            fps=fps,
            num_frames=stream.frames or max(0, round(seconds * fps)) or None,
            live=live,
            has_audio=self.audio is not None,
        )

    def _read(self) -> Iterator[Frame]:
        index = 0
        for index, picture in enumerate(self._pictures):
            yield Frame(index, float(self._clock.now * self.time_base), picture)
        self._note_early_end(index + 1)

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield upright pictures of one size with increasing time stamps; note what does not decode."""
        count = 0
        for packet in self._packets():
            if packet is not None and packet.is_corrupt:
                self._note_damage(count, "the data are incomplete")
            try:
                pictures = self._stream.decode(packet)
            except av.FFmpegError as error:
                self._note_damage(count, _reason(error))
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    self._note_damage(count, "the picture is incomplete")
                pts = self._clock.tick(picture.pts, picture.duration)
                upright = self._upright(picture)
                upright.pts, upright.time_base = pts, self.time_base
                yield upright
                count += 1

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """Yield the packets of the stream, at last one that empties the decoder."""
        while True:
            packets = self._container.demux(self._stream)
            try:
                while (packet := self._aside(partial(next, packets, None))) is not None:
                    yield packet
                return
            except av.error.BlockingIOError:  # a camera on macOS that has no new picture yet
                time.sleep(_CAMERA_POLL_SECONDS)
            except av.FFmpegError as error:
                self._end_reason = _reason(error)
                yield None
                if self._live:
                    self._note(f"the stream broke off: {self._end_reason}")
                return

    def _no_frame(self) -> VideoDecodeError:
        """Explain why there is a video stream without pictures."""
        reason = self.problems[0] if self.problems else self._end_reason
        if self._stream.codec_context.width == 0:  # what FFmpeg leaves of a size beyond `max_pixels`
            reason = "its header gives no acceptable picture size"
        return VideoDecodeError(
            f"'{self._shown}' has a video stream, but no frame of it can be decoded: {reason}. Check that it "
            f"plays elsewhere and has at most {MAX_PIXELS} pixels a frame (such as 8192x8192)."
        )

    def _note_damage(self, index: int, reason: str) -> None:
        """Record damage once for each stretch of damaged frames."""
        if index > self._last_damaged + 1 and not self._live:
            self._note(f"damaged near frame {index}: {reason}")
        self._last_damaged = index

    def _note_early_end(self, count: int) -> None:
        """Record that frames which the container promises are missing at the end."""
        promised = self._promised_seconds()
        if promised is None or self._stream.frames and count >= self._stream.frames:
            return
        missing = (promised - self._clock.end * self.time_base) * self.info.fps
        if missing > _MISSING_FRAMES_TOLERATED:
            self._note(f"stopped after frame {count - 1} of about {self.info.num_frames}: {self._end_reason}")

    def _promised_seconds(self) -> Fraction | None:
        """Return from first to last how long the frames are shown, where the container states it."""
        stream = self._stream
        if stream.frames and stream.duration is not None and stream.time_base is not None:
            return stream.duration * stream.time_base
        tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska
        if tag is None:
            return None
        hours, minutes, seconds = tag.groups()
        # FFmpeg writes the end on the file's clock. Others write the length: then less damage is noticed.
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds) - self.start_time

    def _estimated_seconds(self) -> Fraction:
        """Return about how long the frames are shown; 0 if that is unknown."""
        seconds = Fraction(self._container.duration or 0, av.time_base)
        return seconds - self.start_time if "matroska" in self._container.format.name else seconds


_open_sources: WeakSet[ContainerSource] = WeakSet()


def _keep_decoders() -> None:
    """Keep the decoders that a forked process has from its parent for ever.

    Their threads were not copied; to free them would be to wait for those. Python may do that at any time.
    """
    for source in list(_open_sources):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(source._stream.codec_context))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_keep_decoders)


def _open(address: str, shown: str, device_format: str | None, *, timed: bool) -> InputContainer:
    """Open a container; FFmpeg's errors become ours."""
    options = {"max_pixels": str(MAX_PIXELS)}  # also while FFmpeg probes the streams
    if address.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # UDP loses packets, which damages pictures
    timeout = (OPEN_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS) if timed and device_format is None else None
    try:
        container = av.open(address, "r", format=device_format, options=options, timeout=timeout)
    except (av.error.FileNotFoundError, av.error.HTTPNotFoundError) as error:
        raise InputNotFoundError(f"There is nothing at '{shown}'. Check the spelling.") from error
    except (av.FFmpegError, ValueError) as error:  # ValueError: an input format this FFmpeg lacks
        raise _not_a_video(shown, _reason(error)) from error
    if container.format.name == _TEXT_FORMAT:
        container.close()
        raise _not_a_video(shown, "it is a text file")
    return container


def _not_a_video(shown: str, reason: str) -> VideoDecodeError:
    advice = (
        "Check the address and the connection."
        if "://" in shown
        else "It may be cut off, empty or of another kind: check that it plays elsewhere."
    )
    return VideoDecodeError(f"'{shown}' cannot be opened as a video: {reason}. {advice}")


def _video_stream(container: InputContainer, shown: str) -> VideoStream:
    """Choose the main video stream; the cover picture of a song is none.

    Raises:
        VideoDecodeError: There is no video stream.
    """
    stream = container.streams.best("video")
    if isinstance(stream, VideoStream) and not stream.disposition & Disposition.attached_pic:
        return stream
    kinds = ", ".join(sorted({stream.type or "unknown" for stream in container.streams}))
    found = f"only: {kinds}" if kinds else "nor any other: nothing was recorded into it"
    raise VideoDecodeError(f"'{shown}' has no video stream, {found}. Pass a file with pictures.")


def _prepare_decoder(stream: VideoStream, shown: str, live: bool) -> None:
    """Bound the size of pictures, which refuses others before memory is allocated; allow several threads.

    Raises:
        VideoDecodeError: No decoder is there.
    """
    context = stream.codec_context
    if context is None:
        raise _not_a_video(shown, "this FFmpeg has no decoder for it")
    context.options = {"max_pixels": str(MAX_PIXELS)}  # the stream itself may claim more than the container
    stream.thread_type = "SLICE" if live else "AUTO"  # threads over frames would delay a live picture


def _reason(error: Exception) -> str:
    """Say in words what FFmpeg says with an error."""
    if isinstance(error, av.error.ExitError):
        return f"no answer within {OPEN_TIMEOUT_SECONDS:g} to {READ_TIMEOUT_SECONDS:g} seconds"
    return getattr(error, "strerror", None) or str(error)


def without_password(address: str) -> str:
    """Drop user and password from a URL, for messages."""
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
