"""Frames from image files: a folder of them in natural order, or a single still."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hd2s.data.frames import MAX_PIXELS, Frame, FrameSource, evenly_spaced, frame_rate, last_change
from hd2s.errors import InputShapeError, VideoDecodeError
from hd2s.types import VideoInfo

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_logger = logging.getLogger(__name__)

_EXIF_ORIENTATION = 0x0112
_ANIMATED = {"PNG", "WEBP"}  # other formats with several pictures hold pages or previews


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Return a sort key by which `img2` comes before `img10`; letters compare without case.

    Example:
        >>> sorted(["img10.png", "img2.png", "IMG1.png"], key=natural_key)
        ['IMG1.png', 'img2.png', 'img10.png']
    """
    parts = re.split(r"(\d+)", name.casefold())
    # Odd parts are the digits; equal numbers with and without leading zeros need the name itself.
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), name


class ImageSource(FrameSource):
    """Frames from image files of one size, with EXIF orientation applied.

    8-bit and 16-bit, grey, palette and alpha pictures all become 8-bit colour (alpha is dropped).
    """

    def __init__(self, paths: Sequence[Path], name: str, fps: float) -> None:
        """Read the headers of all images, so that a misfit is found before anything is predicted.

        Args:
            paths: At least one image file, in order.
            name: Name of the source.
            fps: Frames a second.

        Raises:
            VideoDecodeError: A file is no image, or is too large to decode.
            InputShapeError: The sizes differ, or the rate is not positive.
        """
        super().__init__()
        rate = frame_rate(fps)
        height, width = image_size(paths[0])
        for path in paths[1:]:
            size = image_size(path)
            if size != (height, width):
                raise InputShapeError(
                    f"The images differ in size: '{paths[0]}' has {width}x{height} pixels, '{path}' "
                    f"{size[1]}x{size[0]}. All images of a folder must have one size: resize them or put "
                    "each size into its own folder."
                )
        if len(paths) == 1:
            _warn_of_animation(paths[0])
        self._paths = paths
        self.time_base = 1 / rate
        self.modified = last_change(paths)
        self.info = VideoInfo(name=name, height=height, width=width, fps=rate, num_frames=len(paths))

    @classmethod
    def of_folder(cls, folder: Path, fps: float) -> ImageSource:
        """Open all images of a folder in natural order; hidden and other files are ignored.

        Raises:
            VideoDecodeError: The folder holds no image or cannot be read, or as for the class.
            InputShapeError: As for the class.
        """
        try:
            entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        except OSError as error:
            raise VideoDecodeError(
                f"The folder '{folder}' cannot be read: {error.strerror}. Check its permissions."
            ) from error
        images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
        if not images:
            others = sorted((entry.name for entry in entries if entry.name != "Thumbs.db"), key=natural_key)
            hint = (
                f" It holds '{others[0]}'{' and more' if len(others) > 1 else ''}: to take each video or "
                f"folder in it as an input of its own, pass '{folder / '*'}'."
                if others
                else " It is empty."
            )
            allowed = ", ".join(sorted(IMAGE_SUFFIXES))
            raise VideoDecodeError(f"The folder '{folder}' has no images ({allowed}).{hint}")
        images.sort(key=lambda entry: natural_key(entry.name))
        return cls(images, folder.resolve().name, fps)

    def _read(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            picture = av.VideoFrame.from_ndarray(self._pixels(path), format="bgr24")
            yield evenly_spaced(index, picture, self.info.fps)

    def _pixels(self, path: Path) -> NDArray[np.uint8]:
        """Decode one image to (H, W, 3) BGR of the size that its header promised."""
        try:
            data = np.fromfile(path, np.uint8)  # cv2.imread cannot open all names on all systems
            if _is_cut_off(data.tobytes()):
                raise _unreadable(path, "it is cut off")
            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        except (OSError, cv2.error) as error:
            raise _unreadable(path, error) from error
        if pixels is None:
            raise _unreadable(path, "its pixel data are damaged or of an unknown kind")
        if pixels.shape[:2] != (self.info.height, self.info.width):
            raise _unreadable(path, f"its header promises another size than its {pixels.shape[:2]} pixels")
        return pixels.astype(np.uint8, copy=False)


def image_size(path: Path) -> tuple[int, int]:
    """Read the height and width of an image as shown, from its header alone.

    Raises:
        VideoDecodeError: It is no image, or larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            # Of a size that is refused below anyway.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            width, height = image.size
            # Asking a PNG without EXIF for it would decode the pixels; TIFF sizes are upright already.
            turned = "exif" in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except Image.DecompressionBombError as error:
        claimed = re.search(r"\d+ pixels", str(error))
        raise _too_large(path, claimed[0] if claimed else str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged headers
        raise _unreadable(path, error) from error
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width}x{height} pixels")
    return (width, height) if turned else (height, width)


def _warn_of_animation(path: Path) -> None:
    """Say that an image moves, which is not predicted."""
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1) if image.format in _ANIMATED else 1
    if count > 1:
        _logger.warning(
            "'%s' is an animation of %d pictures, but an image is predicted as one still: its first picture. "
            "For all, make a video, a GIF or a folder of images of it.",
            path,
            count,
        )


def _is_cut_off(data: bytes) -> bool:
    """Tell whether a PNG lacks its end, of which OpenCV's library would complain on standard error."""
    return data.startswith(b"\x89PNG") and data.rfind(b"IEND") < 0


def _too_large(path: Path, size: str) -> VideoDecodeError:
    return VideoDecodeError(
        f"The image '{path}' claims {size}; at most {MAX_PIXELS} pixels (such as 8192x8192) are decoded. "
        "If that is its true size, make it smaller first."
    )


def _unreadable(path: Path, reason: object) -> VideoDecodeError:
    return VideoDecodeError(
        f"The image '{path}' cannot be read: {reason}. Replace it, or take it out of the folder."
    )
