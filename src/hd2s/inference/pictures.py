"""Pictures as the overlay needs them: I420 arrays, and what their numbers mean.

An I420 array is (3/2 · H, W) uint8 with even H and W: the luma plane over the two chroma planes of half the
size. Decoders give 4:2:0 and encoders want it, so an overlay never has to go through RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from hd2s.errors import VideoDecodeError

BT709, UNSPECIFIED = 1, 2
LIMITED_RANGE, FULL_RANGE = 1, 2


@dataclass(frozen=True)
class ColorTags:
    """How the numbers of a picture are meant, as FFmpeg's enumerations count (ITU-T H.273).

    Attributes:
        space: AVColorSpace: 1 is BT.709, 2 is unspecified, 5 and 6 are BT.601.
        range: AVColorRange: 1 is limited (luma 16 to 235), 2 is full (0 to 255).
        primaries: AVColorPrimaries.
        trc: AVColorTransferCharacteristic.
    """

    space: int = UNSPECIFIED
    range: int = LIMITED_RANGE
    primaries: int = UNSPECIFIED
    trc: int = UNSPECIFIED


def to_i420(
    picture: av.VideoFrame, *, width: int | None = None, height: int | None = None
) -> tuple[NDArray[np.uint8], ColorTags]:
    """Copy a picture of any pixel format into an I420 array and tell how its colours are coded.

    4:2:0 needs even sizes: the last row or column of an odd picture is repeated. RGB becomes limited BT.709.

    Args:
        picture: Any picture in main memory.
        width: Width to scale to, in pixels; the picture's own if None.
        height: Height to scale to, in pixels; the picture's own if None.

    Raises:
        VideoDecodeError: FFmpeg cannot convert the pixel format.
    """
    picture, tags = _as_420(picture, width or picture.width, height or picture.height)
    height, width = picture.height, picture.width
    even_height, even_width = height + height % 2, width + width % 2
    i420 = np.empty((even_height * 3 // 2, even_width), np.uint8)
    for target, plane in zip(planes(i420), picture.planes, strict=True):
        target[: plane.height, : plane.width] = _pixels(plane)
    luma = planes(i420)[0]
    luma[height:, :width] = luma[height - 1, :width]
    luma[:, width:] = luma[:, width - 1 : width]
    return i420, tags


def from_i420(i420: NDArray[np.uint8], tags: ColorTags) -> av.VideoFrame:
    """Copy an I420 array into a picture."""
    # Not from_numpy_buffer: PyAV 18.1 misplaces the chroma of heights that are no multiple of 4. from_ndarray
    # takes three times as long.
    picture = av.VideoFrame(i420.shape[1], i420.shape[0] * 2 // 3, "yuv420p")
    for plane, pixels in zip(picture.planes, planes(i420), strict=True):
        _pixels(plane)[:] = pixels
    picture.colorspace, picture.color_range = tags.space, tags.range
    picture.color_primaries, picture.color_trc = tags.primaries, tags.trc
    return picture


def planes(i420: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the luma (H, W), blue and red chroma (H/2, W/2) planes of an I420 array as views of it."""
    height, width = i420.shape[0] * 2 // 3, i420.shape[1]
    chroma = i420[height:].reshape(2, height // 2, width // 2)
    return i420[:height], chroma[0], chroma[1]


def pad_to_even(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row and column of an (H, W) array where H or W is odd."""
    odd_rows, odd_columns = array.shape[0] % 2, array.shape[1] % 2
    if not (odd_rows or odd_columns):
        return array
    return np.pad(array, ((0, odd_rows), (0, odd_columns)), mode="edge")


def quantize(saliency: NDArray[np.float32], gain: float, offset: float = 0.0) -> NDArray[np.uint8]:
    """Return saliency (at least 0) · gain + offset, rounded and limited to 255."""
    quantized = np.empty(saliency.shape, np.uint8)
    cv2.convertScaleAbs(saliency, dst=quantized, alpha=gain, beta=offset)
    return quantized


def _as_420(picture: av.VideoFrame, width: int, height: int) -> tuple[av.VideoFrame, ColorTags]:
    """Convert to planar 8-bit 4:2:0 of the given size where needed, keeping the range."""
    from_rgb = picture.format.is_rgb or picture.format.has_palette
    full = not from_rgb and (picture.color_range == FULL_RANGE or picture.format.name.startswith("yuvj"))
    tags = ColorTags(
        space=BT709 if from_rgb else picture.colorspace,
        range=FULL_RANGE if full else LIMITED_RANGE,
        primaries=picture.color_primaries,
        trc=picture.color_trc,
    )
    if picture.format.name in {"yuv420p", "yuvj420p"} and (picture.width, picture.height) == (width, height):
        return picture, tags
    options: dict[str, Any] = {"dst_colorspace": Colorspace.ITU709} if from_rgb else {}
    try:
        converted = picture.reformat(
            width,
            height,
            "yuv420p",
            interpolation="AREA",
            dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            threads=1,  # swscale would start new threads for every picture
            **options,
        )
    except (av.FFmpegError, ValueError) as error:
        raise VideoDecodeError(
            f"The pixel format '{picture.format.name}' cannot be converted to yuv420p ({error}). "
            "Convert the video to yuv420p first."
        ) from error
    return converted, tags


def _pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """View the (height, width) bytes of a plane without the padding of its lines."""
    stride = abs(plane.line_size)
    data: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    rows = data.reshape(plane.height, stride)[:, : plane.width]
    return rows[::-1] if plane.line_size < 0 else rows
