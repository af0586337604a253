"""From saliency maps to pictures: the display scale, colour maps, blending and the mosaic.

All of it works on I420 arrays (see `pictures`): a heat map is blended with four tables of 256 entries,
and the chroma planes need a quarter of the work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from hd2s.errors import UnknownNameError
from hd2s.inference.pictures import FULL_RANGE, ColorTags, pad_to_even, planes, quantize
from hd2s.inference.predictor import resized

COLORMAPS: dict[str, int] = {
    "bone": cv2.COLORMAP_BONE,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "hot": cv2.COLORMAP_HOT,
    "inferno": cv2.COLORMAP_INFERNO,
    "jet": cv2.COLORMAP_JET,
    "magma": cv2.COLORMAP_MAGMA,
    "parula": cv2.COLORMAP_PARULA,
    "plasma": cv2.COLORMAP_PLASMA,
    "turbo": cv2.COLORMAP_TURBO,
    "viridis": cv2.COLORMAP_VIRIDIS,
}

# Opacity of the heat map: none up to the first value (the picture stays as it is), full from the second on.
_CLEAR_BELOW, _OPAQUE_FROM = 0.04, 0.4

# Time constants of `DisplayScale` in seconds, and the smallest peak that is stretched to full heat: a map
# that is black in 8 bits stays black.
_RISE_SECONDS, _FALL_SECONDS, _MIN_PEAK = 0.25, 1.0, 1 / 255

# Weights of red and blue in luma for each AVColorSpace (ITU-T H.273, table 4).
_BT709_WEIGHTS, _BT601_WEIGHTS, _BT2020_WEIGHTS = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
_LUMA_WEIGHTS = {
    1: _BT709_WEIGHTS,
    4: (0.30, 0.11),
    5: _BT601_WEIGHTS,
    6: _BT601_WEIGHTS,
    7: (0.212, 0.087),
    9: _BT2020_WEIGHTS,
    10: _BT2020_WEIGHTS,
}
_HD_HEIGHT = 720


class HeatTables(NamedTuple):
    """What heat 0 to 255 makes of a pixel p: p · keep / 255 + the part of its plane; (256,) uint8 each."""

    keep: NDArray[np.uint8]
    luma: NDArray[np.uint8]
    blue: NDArray[np.uint8]
    red: NDArray[np.uint8]


class DisplayScale:
    """Turns maps into heat from 0 to 255, bright enough to see and steady over time.

    The values of maps are comparable between frames, but their peak may be far below 1. Heat 255 is therefore
    a running peak: it starts at the first map's peak, follows a higher one within a quarter of a second and
    forgets it over a second or two. A frame's own peak alone never sets the scale, so nothing flickers.
    """

    def __init__(self) -> None:
        self._peak = 0.0
        self._time_seconds: float | None = None

    def __call__(self, saliency: NDArray[np.float32], time_seconds: float) -> NDArray[np.uint8]:
        """Scale one (H, W) float32 map that is shown at `time_seconds` to (H, W) uint8 heat."""
        peak = float(saliency.max())
        if self._time_seconds is None:
            self._peak = peak
        else:
            elapsed = max(0.0, time_seconds - self._time_seconds)
            constant = _RISE_SECONDS if peak > self._peak else _FALL_SECONDS
            self._peak += (peak - self._peak) * -math.expm1(-elapsed / constant)
        self._time_seconds = time_seconds
        return quantize(saliency, 255 / max(self._peak, _MIN_PEAK))


def check_colormap(name: str) -> str:
    """Return `name` if it is one of `COLORMAPS`, else raise an UnknownNameError that lists them."""
    if name not in COLORMAPS:
        raise UnknownNameError.among("colormap", name, COLORMAPS)
    return name


def colormap_yuv(name: str, height: int, tags: ColorTags) -> NDArray[np.float64]:
    """Return the 256 colours of a colormap as luma, blue and red chroma, (3, 256) on the scale 0 to 255.

    Args:
        name: One of `COLORMAPS`.
        height: Height of the picture in pixels; it decides, as in players, if `tags` names no space.
        tags: How the picture is coded.

    Raises:
        UnknownNameError: No such colormap.
    """
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLORMAPS[check_colormap(name)])
    blue, green, red = bgr.reshape(256, 3).T.astype(np.float64) / 255
    assumed = _BT709_WEIGHTS if height >= _HD_HEIGHT else _BT601_WEIGHTS
    of_red, of_blue = _LUMA_WEIGHTS.get(tags.space, assumed)
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    colors: NDArray[np.float64] = np.stack(
        [luma, (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)]
    )
    full = tags.range == FULL_RANGE
    scale, offset = ([255, 255, 255], [0, 128, 128]) if full else ([219, 224, 224], [16, 128, 128])
    colors = colors * np.array(scale)[:, None] + np.array(offset)[:, None]
    return colors.clip(0, 255)


def heat_tables(colors: NDArray[np.float64], alpha: float) -> HeatTables:
    """Prepare `blend` for the (3, 256) colours of `colormap_yuv` and a highest opacity `alpha` in [0, 1]."""
    ramp = np.clip((np.arange(256) / 255 - _CLEAR_BELOW) / (_OPAQUE_FROM - _CLEAR_BELOW), 0, 1)
    opacity = np.rint(255 * alpha * ramp * ramp * (3 - 2 * ramp)) / 255
    parts = np.rint(opacity * colors).astype(np.uint8)
    return HeatTables(np.rint(255 * (1 - opacity)).astype(np.uint8), parts[0], parts[1], parts[2])


def blend(i420: NDArray[np.uint8], heat: NDArray[np.uint8], tables: HeatTables) -> None:
    """Lay a heat map over a picture, in place.

    What the heat does to a pixel is looked up at the size of the map, which is small, then resized to that of
    each plane: the opacity and the premultiplied colours. What no heat covers is left alone.

    Args:
        i420: The picture, (3/2 · H, W) uint8.
        heat: (h, w) uint8, of any size.
        tables: What to do for each heat.
    """
    maps = [_lut(heat, table) for table in tables]
    luma, *chroma = planes(i420)
    bounds = _bounds(maps[0] < 255, chroma[0].shape)
    keep, *parts = (_cut(each, bounds, heat.shape) for each in maps)
    if keep.size:
        _mix([_cut(luma, bounds, heat.shape)], keep, parts[:1])
        _mix([_cut(plane, bounds, heat.shape) for plane in chroma], keep, parts[1:])


def paint(heat: NDArray[np.uint8], colors: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colour (H, W) uint8 heat with the (3, 256) colours of `colormap_yuv`; returns a padded I420 array."""
    heat = pad_to_even(heat)
    half = _halved(heat)
    tables = np.rint(colors).astype(np.uint8)
    parts = (_lut(plane, table).ravel() for plane, table in zip((heat, half, half), tables, strict=True))
    return np.concatenate(list(parts)).reshape(-1, heat.shape[1])


def mosaic(maps: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Arrange four (H, W) uint8 maps as a 2 × 2 grid of the same size, row by row."""
    height, width = maps[0].shape
    grid = np.empty((height, width), np.uint8)
    rows, columns = (0, height // 2, height), (0, width // 2, width)
    for number, level in enumerate(maps):
        row, column = divmod(number, 2)
        cell = grid[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        if cell.size:  # a picture one pixel wide or high has no room for all four
            cell[:] = cv2.resize(level, cell.shape[::-1], interpolation=cv2.INTER_AREA)
    return grid


def label_mosaic(i420: NDArray[np.uint8], labels: list[str]) -> None:
    """Write a label into the upper left corner of each cell of a 2 × 2 grid, in place."""
    luma = planes(i420)[0]
    height, width = luma.shape
    scale = height / 720
    thickness = max(1, round(2 * scale))
    for number, label in enumerate(labels):
        row, column = divmod(number, 2)
        origin = (column * (width // 2) + round(16 * scale), row * (height // 2) + round(36 * scale))
        for shade, stroke in ((16, 3 * thickness), (235, thickness)):
            cv2.putText(luma, label, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, [shade], stroke, cv2.LINE_AA)


def _lut(indices: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values = np.empty(indices.shape, np.uint8)
    cv2.LUT(indices, table, dst=values)
    return values


def _halved(heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 × 2 block: the heat of a chroma pixel."""
    half = np.empty((heat.shape[0] // 2, heat.shape[1] // 2), np.uint8)
    cv2.resize(heat, half.shape[::-1], dst=half, interpolation=cv2.INTER_AREA)
    return half


def _bounds(touched: NDArray[np.bool_], size_hw: tuple[int, ...]) -> list[tuple[int, int]]:
    """Find where a map changes a picture: the first row and the one behind the last, and the same of columns.

    That is widened by one, as the map is resized, and to where rows and columns of the picture begin.

    Args:
        touched: Where the map changes it, (h, w).
        size_hw: Of the picture, or of what it is a multiple of.
    """
    bounds = []
    for axis, (size, length) in enumerate(zip(touched.shape, size_hw, strict=True)):
        step = size // math.gcd(size, length)
        found = np.flatnonzero(touched.any(axis=1 - axis))
        first, last = (int(found[0]) - 1, int(found[-1]) + 1) if found.size else (0, -1)
        bounds.append((max(0, first) // step * step, min(size, -(-(last + 1) // step) * step)))
    return bounds


def _cut(
    plane: NDArray[np.uint8], bounds: Sequence[tuple[int, int]], of_hw: tuple[int, ...]
) -> NDArray[np.uint8]:
    """View the part of a plane between bounds, which are in rows and columns of a map of size `of_hw`."""
    parts = (
        slice(first * size // length, end * size // length)
        for (first, end), size, length in zip(bounds, plane.shape, of_hw, strict=True)
    )
    return plane[tuple(parts)]


def _mix(
    pictures: Sequence[NDArray[np.uint8]], keep: NDArray[np.uint8], parts: Sequence[NDArray[np.uint8]]
) -> None:
    """Make each plane p · keep / 255 + its part; all planes have one size."""
    size_hw = pictures[0].shape
    keep = resized(keep, size_hw)
    for plane, part in zip(pictures, parts, strict=True):
        cv2.multiply(plane, keep, dst=plane, scale=1 / 255)
        cv2.add(plane, resized(part, size_hw), dst=plane)
