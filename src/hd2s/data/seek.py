"""Any frame of a video file, without decoding all before it.

The packets of the file are read once, undecoded, for their time stamps and key frames. To show a frame,
the decoder starts at the key frame before it, unless it is on its way there already: reading in order
never seeks. Frames are those of `open_source` in number, order and content.

Where time stamps cannot be trusted (H.264 with B-frames in AVI), the frames are counted from the first
on: still exact, but a step back begins anew.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from hd2s.data.frames import MAX_PIXELS, Frame
from hd2s.data.upright import Upright
from hd2s.data.video import open_source
from hd2s.errors import VideoDecodeError
from hd2s.types import VideoInfo

MAX_OPEN = 8  # decoders kept open by a thread; each may hold some megabytes and a file handle

# Of a decoder. What a process leaves behind when it forks, such as a decoder that awaits its end, its child
# may clear away: joining threads that were never copied, it would wait for ever.
_THREADS = 1
_FALLBACK_FPS = Fraction(25)  # as in `open_source`
# Formats that store no presentation times, with the codecs for which FFmpeg cannot restore them.
_UNTIMED = ({"avi", "h264", "hevc"}, {"h264", "hevc"})
_EMPTY_MPEG4 = 7  # bytes of a packet that says "as before", at most: FFmpeg shows no frame for it
_SEEK_ATTEMPTS = 3
_ANY_TIME_BASE = Fraction(1, 1000)

_local = threading.local()


@dataclass(frozen=True)
class PacketIndex:
    """What the packets of a video stream say of its frames.

    Attributes:
        stamps: Presentation time stamp of each frame, in the order of showing.
        keys: Stamps of the key frames, increasing; decoding can start there.
        key_times: For each key frame, the stamp to seek by.
        timed: Whether the stamps of decoded frames tell which frames they are.
    """

    stamps: tuple[int, ...]
    keys: tuple[int, ...]
    key_times: tuple[int, ...]
    timed: bool

    @classmethod
    def of(cls, path: Path) -> PacketIndex:
        """Read all packets of a file, decoding nothing."""
        with _open(path) as container:
            stream = _stream(container)
            codec, container_format = stream.codec_context.name, container.format.name
            untimed = container_format in _UNTIMED[0] and codec in _UNTIMED[1]
            untimed = untimed and stream.codec_context.has_b_frames
            shown: list[int | None] = []
            keys: dict[int, int] = {}
            for packet in _packets(container, stream):
                if packet.is_keyframe and packet.pts is not None:
                    keys[packet.pts] = packet.pts if packet.dts is None else packet.dts
                if not packet.is_discard and _has_frame(packet, codec):
                    shown.append(packet.pts)
        stamps = [stamp for stamp in shown if stamp is not None]
        timed = not untimed and len(set(stamps)) == len(shown) and bool(keys)
        if not timed:
            return cls(tuple(range(len(shown))), (), (), False)
        order = sorted(keys)
        return cls(tuple(sorted(stamps)), tuple(order), tuple(keys[key] for key in order), True)


class SeekableVideo:
    """Random access to the frames of a video file.

    It holds no decoder: each thread and process has its own few, so objects can be sent to workers.
    Nothing is read before it is asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def info(self) -> VideoInfo:
        """Size and frame rate, from the header and the first frame.

        Raises:
            InputNotFoundError: There is no such file.
            VideoDecodeError: It holds no video that can be decoded.
        """
        if self.path.is_file():
            info = _probe(self.path)
            if info is not None:
                return info
        with open_source(self.path) as source:  # which says what is wrong
            return source.info

    @cached_property
    def index(self) -> PacketIndex:
        """Time stamps and key frames; costs reading the whole file once."""
        _ = self.info  # complains about files that are no videos
        return PacketIndex.of(self.path)

    def __len__(self) -> int:
        return len(self.index.stamps)

    def pictures(self, indices: Sequence[int]) -> list[av.VideoFrame]:
        """Decode frames, upright, in the pixel format of the file.

        Args:
            indices: Frame numbers in any order; repeated ones are decoded once.

        Raises:
            IndexError: There is no such frame.
            VideoDecodeError: A frame cannot be decoded.
        """
        count = len(self)
        for index in indices:
            if not 0 <= index < count:
                raise IndexError(f"'{self.path}' has {count} frames: there is no frame {index}.")
        decoder = _decoder(self)
        try:
            found = {index: decoder.picture(index) for index in sorted(set(indices))}
        except BaseException:
            _forget(self)
            raise
        return [found[index] for index in indices]

    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Decode frames to (H, W, 3) RGB uint8 arrays, all of the size in `info`; see `pictures`."""
        size = self.info.height, self.info.width
        pictures = self.pictures(indices)
        converted = {
            id(picture): Frame(index, 0.0, picture).rgb(*size)
            for index, picture in zip(indices, pictures, strict=True)
        }
        return [converted[id(picture)] for picture in pictures]


def _probe(path: Path) -> VideoInfo | None:
    """Decode the first frame of a file; None if there is none."""
    try:
        with _open(path) as container:
            stream = _stream(container)
            for packet in chain(_packets(container, stream), [None]):
                for picture in _decoded(stream, packet):
                    upright = Upright()(picture)
                    fps = stream.average_rate or stream.guessed_rate or _FALLBACK_FPS
                    return VideoInfo(name=path.stem, height=upright.height, width=upright.width, fps=fps)
    except VideoDecodeError:
        pass
    return None


class _Decoder:
    """An open file, and which frame it shows next."""

    def __init__(self, path: Path, index: PacketIndex) -> None:
        self._path, self._index = path, index
        self._by_stamp = {stamp: place for place, stamp in enumerate(index.stamps)}
        self._latest: tuple[int, av.VideoFrame] | None = None
        self._decoded: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._start()

    def close(self) -> None:
        self._container.close()

    def picture(self, wanted: int) -> av.VideoFrame:
        """Decode up to a frame, from where the decoder is or from the key frame before it."""
        if self._latest is not None and self._latest[0] == wanted:
            return self._latest[1]
        if not self._is_on_the_way(wanted):
            self._seek(wanted)
        for place, picture in self._decoded:
            if place < wanted:
                continue
            if place > wanted:
                break
            self._latest = place, self._upright(picture)
            self._next = place + 1
            return self._latest[1]
        raise VideoDecodeError(
            f"Frame {wanted} of '{self._path}' cannot be decoded: the data are damaged. "
            "Fetch or extract the video again."
        )

    def _is_on_the_way(self, wanted: int) -> bool:
        """Tell whether decoding on leads to a frame sooner than a key frame that is nearer to it."""
        if wanted < self._next:
            return False
        key = self._key_before(wanted)
        return key is None or self._by_stamp.get(self._index.keys[key], 0) <= self._next

    def _key_before(self, wanted: int) -> int | None:
        """Return the number of the last key frame that is not shown after a frame."""
        if not self._index.timed:
            return None
        return max(0, bisect_right(self._index.keys, self._index.stamps[wanted]) - 1)

    def _start(self) -> None:
        """Begin anew at the first frame."""
        self._container = _open(self._path)
        self._stream = _stream(self._container)
        self._upright = Upright()
        self._latest = None
        self._next = 0
        self._decoded = self._decode(None)

    def _seek(self, wanted: int) -> None:
        """Go to a key frame from which decoding leads to a frame; at worst to the beginning."""
        key = self._key_before(wanted)
        for earlier in range(_SEEK_ATTEMPTS if key else 0):
            number = max(0, (key or 0) - earlier)
            first = self._packet_at(self._index.key_times[number])
            # Seeking is by decoding times, and by guess in formats without an index: see where it led.
            if first is None or not first.is_keyframe or first.pts is None:
                continue
            if self._index.keys[0] <= first.pts <= self._index.stamps[wanted]:
                self._latest = None
                self._next = self._by_stamp.get(first.pts, 0)
                self._decoded = self._decode(first)
                return
        self.close()
        self._start()

    def _packet_at(self, stamp: int) -> Packet[VideoStream] | None:
        """Seek, and take the first packet that is there; None if the file cannot be sought in."""
        try:
            self._container.seek(stamp, stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        return next(_packets(self._container, self._stream), None)

    def _decode(self, first: Packet[VideoStream] | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield frames with their numbers, after those packets of which `first` was taken already."""
        for count, picture in enumerate(self._pictures(first)):
            if not self._index.timed:
                yield count, picture
            elif picture.pts in self._by_stamp:
                yield self._by_stamp[picture.pts], picture

    def _pictures(self, first: Packet[VideoStream] | None) -> Iterator[av.VideoFrame]:
        """Decode all packets from `first` on, and empty the decoder at the end."""
        taken = [] if first is None else [first]
        for packet in chain(taken, _packets(self._container, self._stream), [None]):
            yield from _decoded(self._stream, packet)


def _decoded(stream: VideoStream, packet: Packet[VideoStream] | None) -> list[av.VideoFrame]:
    """Decode a packet; a damaged one gives nothing, as in `open_source`."""
    try:
        pictures = stream.decode(packet)
    except av.FFmpegError:
        return []
    for picture in pictures:
        picture.time_base = stream.time_base or _ANY_TIME_BASE  # those that empty the decoder have none
    return pictures


def _open(path: Path) -> InputContainer:
    """Open a file."""
    try:
        return av.open(f"file:{path}", "r", options={"max_pixels": str(MAX_PIXELS)})
    except (av.FFmpegError, OSError) as error:
        raise VideoDecodeError(f"'{path}' cannot be opened: {error}.") from error


def _stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    cover = isinstance(stream, VideoStream) and stream.disposition & Disposition.attached_pic
    if not isinstance(stream, VideoStream) or cover or stream.codec_context is None:
        raise VideoDecodeError("There is no video stream.")
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.codec_context.thread_count = _THREADS
    return stream


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield packets with data; damage ends them."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.FFmpegError:
        return


def _has_frame(packet: Packet[VideoStream], codec: str) -> bool:
    """Tell whether a packet makes a frame to be shown."""
    if codec == "vp8":
        return bool(bytes(packet)[0] & 0x10)  # RFC 6386, 9.1: frames may be for reference only
    return codec != "mpeg4" or packet.size > _EMPTY_MPEG4


def _decoder(video: SeekableVideo) -> _Decoder:
    """Return the calling thread's decoder of a video, making room for it."""
    decoders = _decoders()
    key = os.fspath(video.path)
    if key not in decoders:
        while len(decoders) >= MAX_OPEN:
            decoders.popitem(last=False)[1].close()
        decoders[key] = _Decoder(video.path, video.index)
    decoders.move_to_end(key)
    return decoders[key]


def _forget(video: SeekableVideo) -> None:
    """Close the calling thread's decoder of a video."""
    decoder = _decoders().pop(os.fspath(video.path), None)
    if decoder is not None:
        decoder.close()


def _decoders() -> OrderedDict[str, _Decoder]:
    """Return the decoders of the calling thread, by path.

    A forked process does not use those of its parent: their files share a position.
    """
    pools: dict[int, OrderedDict[str, _Decoder]] = _local.__dict__.setdefault("pools", {})
    return pools.setdefault(os.getpid(), OrderedDict())
