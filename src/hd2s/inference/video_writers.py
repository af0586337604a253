"""Writers of moving pictures: MP4 files and GIFs."""

from __future__ import annotations

import math
from abc import abstractmethod
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from hd2s.data.frames import Frame, FrameSource, yuv_matrix
from hd2s.errors import InputShapeError
from hd2s.inference.mp4 import Mp4Encoder
from hd2s.inference.pictures import ColorTags, from_i420, pad_to_even, planes, quantize, to_i420
from hd2s.inference.predictor import Prediction
from hd2s.inference.render import (
    DisplayScale,
    HeatTables,
    blend,
    check_colormap,
    colormap_yuv,
    heat_tables,
    label_mosaic,
    mosaic,
    paint,
)
from hd2s.inference.writer_base import Writer

# Pictures: "superfast" takes half the time of "veryfast" for a third more bytes at the same PSNR. Without the
# look-ahead that it lacks, B pictures cost a quarter of the time and a sixth of the bytes.
_PICTURE_QUALITY = {"preset": "superfast", "crf": "22.5", "bf": "0"}
# Grey maps are data, so the encoder must not shape them for the eye ("psnr"). With this, 99.9 % of the pixels
# of smooth moving maps come back within 3 of 255 levels, for some 3 kB a frame at 720p.
_MAP_QUALITY = {"crf": "6", "tune": "psnr"}

_GIF_MAX_WIDTH, _GIF_MAX_FPS, _GIF_TICK = 480, Fraction(25, 2), Fraction(1, 100)


class HeatBrush:
    """Lays heat maps over pictures: the display scale and the colours, which the first picture decides."""

    def __init__(self, colormap: str, alpha: float) -> None:
        self._colormap = check_colormap(colormap)
        self._alpha = alpha
        self._scale = DisplayScale()
        self._tables: HeatTables | None = None

    def draw(
        self, i420: NDArray[np.uint8], tags: ColorTags, saliency: NDArray[np.float32], time_seconds: float
    ) -> None:
        """Blend a map of any size into the (3/2 · H, W) picture that is shown at `time_seconds`, in place."""
        if self._tables is None:
            colors = colormap_yuv(self._colormap, len(planes(i420)[0]), tags)
            self._tables = heat_tables(colors, self._alpha)
        blend(i420, self._scale(saliency, time_seconds), self._tables)


class Mp4Writer(Writer):
    """An MP4 file with one picture for each frame, each shown at the time of its frame in the source.

    H.264 in 4:2:0 needs even sizes: a picture of odd height or width has its last row or column repeated.
    """

    quality = _PICTURE_QUALITY
    with_sound = False

    def __init__(self, path: Path, source: FrameSource) -> None:
        super().__init__(path)
        self._source = source
        self._encoder: Mp4Encoder | None = None

    @abstractmethod
    def _draw(self, frame: Frame, result: Prediction) -> tuple[NDArray[np.uint8], ColorTags]:
        """Return the I420 picture of a frame and how it is coded."""

    def _write(self, frame: Frame, result: Prediction) -> None:
        i420, tags = self._draw(frame, result)
        if self._encoder is None:
            self._encoder = self._open(i420, tags)
        self._encoder.encode(i420, frame.time_seconds)

    def _open(self, i420: NDArray[np.uint8], tags: ColorTags) -> Mp4Encoder:
        encoder = Mp4Encoder(
            self._partial,
            height=i420.shape[0] * 2 // 3,
            width=i420.shape[1],
            fps=self._source.info.fps,
            time_base=self._source.time_base,
            quality=self.quality,
            tags=tags,
        )
        self._open_files.callback(encoder.close)
        if self.with_sound and self._source.audio is not None:
            encoder.add_sound(self._source.audio, float(self._source.start_time))
        return encoder

    def _finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish()
        if self._encoder.problem:
            self.problems.append(self._encoder.problem)


class OverlayWriter(Mp4Writer):
    """The source's pictures and sound with the heat map blended over the pictures."""

    with_sound = True

    def __init__(self, path: Path, source: FrameSource, *, colormap: str, alpha: float) -> None:
        super().__init__(path, source)
        self._brush = HeatBrush(colormap, alpha)

    def _draw(self, frame: Frame, result: Prediction) -> tuple[NDArray[np.uint8], ColorTags]:
        i420, tags = to_i420(frame.picture)
        self._brush.draw(i420, tags, result.saliency, frame.time_seconds)
        return i420, tags


class SaliencyVideoWriter(Mp4Writer):
    """Grey maps, not scaled: a decoded grey level is 255 times the saliency, within a few levels.

    The levels are coded in the limited range that every decoder expects of video.
    """

    quality = _MAP_QUALITY

    def _draw(self, frame: Frame, result: Prediction) -> tuple[NDArray[np.uint8], ColorTags]:
        grey = pad_to_even(quantize(result.enlarged.saliency, 219, 16))
        i420 = np.full((grey.shape[0] * 3 // 2, grey.shape[1]), 128, np.uint8)
        planes(i420)[0][:] = grey
        return i420, ColorTags()


class ConspicuityWriter(Mp4Writer):
    """The conspicuity maps of the four levels, coloured and labelled, as a 2 × 2 grid of the source's size.

    Each level has a display scale of its own, since their peaks differ.
    """

    def __init__(self, path: Path, source: FrameSource, *, colormap: str) -> None:
        super().__init__(path, source)
        self._colormap = check_colormap(colormap)
        self._scales = [DisplayScale() for _ in range(4)]

    def _draw(self, frame: Frame, result: Prediction) -> tuple[NDArray[np.uint8], ColorTags]:
        maps = result.enlarged.conspicuity
        if maps is None:
            raise InputShapeError(
                f"Frame {result.slot.number} has no conspicuity maps to write; ask the predictor for them."
            )
        levels = zip(self._scales, maps, strict=True)
        grid = mosaic([scale(level, frame.time_seconds) for scale, level in levels])
        i420 = paint(grid, colormap_yuv(self._colormap, grid.shape[0], ColorTags()))
        label_mosaic(i420, [f"level {level}" for level in (2, 3, 4, 5)])
        return i420, ColorTags()


class GifWriter(Writer):
    """A small overlay that loops for ever: at most 480 pixels wide and 12.5 frames a second.

    Every n-th frame is shown, so that motion stays even. Each picture has a palette of its own, so memory
    does not grow with the length.
    """

    def __init__(self, path: Path, source: FrameSource, *, colormap: str, alpha: float) -> None:
        super().__init__(path)
        self._every = max(1, math.ceil(source.info.fps / _GIF_MAX_FPS))
        self._brush = HeatBrush(colormap, alpha)
        self._encoder: _GifEncoder | None = None

    def _write(self, frame: Frame, result: Prediction) -> None:
        if self.num_frames % self._every:
            return
        width = min(frame.picture.width, _GIF_MAX_WIDTH)
        height = max(1, round(frame.picture.height * width / frame.picture.width))
        i420, tags = to_i420(frame.picture, width=width, height=height)
        self._brush.draw(i420, tags, result.saliency, frame.time_seconds)
        if self._encoder is None:
            self._encoder = _GifEncoder(self._partial, height=i420.shape[0] * 2 // 3, width=i420.shape[1])
            self._open_files.callback(self._encoder.close)
        self._encoder.encode(i420, tags, frame.time_seconds)

    def _finish(self) -> None:
        assert self._encoder is not None
        self._encoder.finish()


class _GifEncoder:
    """Finds a palette for each picture in turn (libavfilter) and writes the picture with it."""

    def __init__(self, path: Path, *, height: int, width: int) -> None:
        self._container = av.open(f"file:{path}", "w", format="gif")
        self._stream = self._container.add_stream("gif", rate=_GIF_MAX_FPS)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "pal8"
        self._stream.codec_context.time_base = _GIF_TICK
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("bgra"), time_base=_GIF_TICK
        )
        split, sink = self._graph.add("split"), self._graph.add("buffersink")
        palette = self._graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        # An ordered pattern stays in place; error diffusion would crawl from frame to frame.
        use = self._graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        self._graph.configure()
        self._last_pts = -1

    def encode(self, i420: NDArray[np.uint8], tags: ColorTags, time_seconds: float) -> None:
        picture = from_i420(i420, tags)
        picture = picture.reformat(format="bgra", src_colorspace=yuv_matrix(picture), threads=1)
        self._last_pts = max(round(time_seconds / _GIF_TICK), self._last_pts + 1)
        picture.pts, picture.time_base = self._last_pts, _GIF_TICK
        self._graph.vpush(picture)
        self._write_ready()

    def finish(self) -> None:
        self._graph.vpush(None)
        self._write_ready()
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def close(self) -> None:
        self._container.close()

    def _write_ready(self) -> None:
        with suppress(av.error.BlockingIOError, av.error.EOFError):  # wants another picture, or is done
            while True:
                self._container.mux(self._stream.encode(self._graph.vpull()))
