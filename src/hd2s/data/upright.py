"""What the pictures of a container need before they are frames: upright, one size, increasing time."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import av
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter

# Transpositions that show a picture upright, by what its display matrix does: whether the axes stay what
# they are, and whether the first and the second of them are reversed ("cclock_flip" swaps the axes alone).
_TURNS = {
    (True, False, False): [],
    (True, True, False): ["cclock_flip", "clock"],  # mirrored left to right
    (True, False, True): ["cclock_flip", "cclock"],  # upside down in a mirror
    (True, True, True): ["clock", "clock"],
    (False, False, False): ["cclock_flip"],
    (False, True, False): ["cclock"],
    (False, False, True): ["clock"],
    (False, True, True): ["clock_flip"],
}


class Clock:
    """Turns the time stamps of a container into ticks that start at 0 and increase strictly.

    Missing stamps continue at the frame rate, repeated ones move on by one tick, and a clock that was
    reset on the way (joined recordings) goes on where it was.

    Attributes:
        origin: The container's time stamp of the first frame, in ticks.
        now: Tick of the latest frame.
        end: Tick at which the latest frame stops being shown.
    """

    def __init__(self, fps: Fraction, time_base: Fraction) -> None:
        self._step = max(1, round(1 / (fps * time_base)))
        self._second = round(1 / time_base)
        self._shift: int | None = None
        self.origin = 0
        self.now = 0
        self.end = 0

    def tick(self, pts: int | None, duration: int | None) -> int:
        """Return the tick of the next frame, whose stamp and duration are given in the container's ticks."""
        if self._shift is None:
            self._shift = self.origin = pts or 0
        else:
            due = self.now + self._step
            stamp = due if pts is None else pts - self._shift
            if stamp <= self.now - self._second:
                self._shift += stamp - due
                stamp = due
            self.now = max(stamp, self.now + 1)
        self.end = self.now + (duration or self._step)
        return self.now


class Upright:
    """Scales pictures to the size of the first one, and turns and mirrors them by its display matrix.

    The pixel format stays: only a picture of another size or format than the first is converted.
    """

    def __init__(self) -> None:
        self._layout: tuple[int, int, str] | None = None
        self._graph: Graph | None = None
        self._scaler = VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> av.VideoFrame:
        """Return `picture` itself where nothing is to be done."""
        layout = (picture.width, picture.height, picture.format.name)
        if self._layout is None:
            self._layout = layout
            self._graph = _turning_graph(picture)
        if layout != self._layout:
            width, height, pixel_format = self._layout
            picture = self._scaler.reformat(
                picture, width, height, pixel_format, interpolation=Interpolation.AREA, threads=1
            )
        if self._graph is None:
            return picture
        self._graph.push(picture)
        turned = self._graph.pull()
        assert isinstance(turned, av.VideoFrame)
        return turned


def _turning_graph(picture: av.VideoFrame) -> Graph | None:
    """Build the filters that turn pictures like this one upright; None if they are."""
    turns = _turns(picture)
    if not turns:
        return None
    graph = Graph()
    graph.threads = 1
    last = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    steps = [("transpose", direction) for direction in turns]
    steps.append(("sidedata", "mode=delete:type=DISPLAYMATRIX"))  # so that nobody turns it again
    for name, arguments in [*steps, ("buffersink", None)]:
        following = graph.add(name, arguments)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


def _turns(picture: av.VideoFrame) -> list[str]:
    """Choose the transpositions that come nearest to a picture's display matrix."""
    try:
        matrix = picture.side_data[Type.DISPLAYMATRIX]  # type: ignore[typeddict-item]  # PyAV declares it so
    except KeyError:
        return []
    except ValueError:  # there is a kind of side data that PyAV does not know
        angle = math.radians(picture.rotation)
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    else:
        a, b, _, c, d = struct.unpack_from("=5i", matrix)  # x, y becomes a x + c y, b x + d y
    straight = abs(a) + abs(d) >= abs(b) + abs(c)
    first, second = (a, d) if straight else (b, c)
    return _TURNS[straight, first < 0, second < 0]
