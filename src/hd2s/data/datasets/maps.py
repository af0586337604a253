"""Density maps: in grey images, in a video, or made of fixations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hd2s.data.datasets.base import Gaze, Maps, Pictures, Problem, inside
from hd2s.data.datasets.listing import Pairing, files, pair
from hd2s.data.images import image_size
from hd2s.data.seek import SeekableVideo
from hd2s.errors import DatasetFormatError, HD2SError, VideoDecodeError

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_EXAMPLES = 5  # names shown of a longer list


class GreyFiles:
    """Grey images of one size in a folder, one for each frame of a video.

    Reading a folder's names is put off until one is needed.
    """

    def __init__(self, folder: Path, pictures: Pictures, kind: str) -> None:
        """Remember where the images are.

        Args:
            folder: The folder.
            pictures: The frames of the video.
            kind: What the images are, in plural, for messages.
        """
        self.folder, self.kind = folder, kind
        self._pictures = pictures

    @cached_property
    def names(self) -> list[str]:
        """Names of the images."""
        return files(self.folder)

    @cached_property
    def pairing(self) -> Pairing:
        """Which image belongs to which frame."""
        return pair(self._pictures.names(), self.names)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image."""
        if not self.names:
            raise DatasetFormatError(f"The folder {self.folder} has no images.")
        return _size(self.folder / self.names[0])

    def path(self, index: int) -> Path | None:
        """Return the image of a frame."""
        name = self.pairing.files[index]
        return None if name is None else self.folder / name

    def read(self, index: int) -> NDArray[np.float32] | None:
        """Read the image of a frame to (H, W) in [0, 1]; None if there is none.

        Raises:
            DatasetFormatError: It is no grey image of the size of the first.
        """
        path = self.path(index)
        if path is None:
            return None
        image = read_grey(path)
        if image.shape != self.size:
            raise DatasetFormatError(
                f"{path} has {image.shape[1]}x{image.shape[0]} pixels, the first of these {self.kind} "
                f"{self.size[1]}x{self.size[0]}. All of a video must have one size."
            )
        return image

    def examine(self) -> Iterator[Problem]:
        """Compare the number and the names of images with the frames, and look at the headers."""
        count, pairing = len(self._pictures), self.pairing
        missing = [str(index) for index, name in enumerate(pairing.files) if name is None]
        if pairing.unclear:
            yield Problem(
                self.folder,
                f"{count} frames but {len(self.names)} {self.kind}, whose names do not tell which belong "
                "together: number both alike",
                fatal=True,
            )
        elif missing or pairing.unused:
            parts = [f"{count} frames but {len(self.names)} {self.kind}"]
            parts += [f"none for the frames {_some(missing)} (from 0)"] if missing else []
            parts += [f"no frame for {_some(pairing.unused)}"] if pairing.unused else []
            yield Problem(self.folder, "; ".join(parts))
        yield from self._examine_headers()

    def _examine_headers(self) -> Iterator[Problem]:
        deep, coloured = [], []
        for name in self.names:
            try:
                size, mode = _header(self.folder / name)
            except DatasetFormatError as error:
                yield Problem(self.folder / name, str(error), fatal=True)
                continue
            if size != self.size:
                text = f"{size[1]}x{size[0]} pixels, the first one {self.size[1]}x{self.size[0]}"
                yield Problem(self.folder / name, text, fatal=True)
            deep += [name] if mode.startswith("I") else []
            coloured += [name] if not mode.startswith(("I", "L", "1")) else []
        if deep:
            yield Problem(self.folder, f"{len(deep)} {self.kind} have 16 bits: read as such ({_some(deep)})")
        if coloured:
            text = (
                f"{len(coloured)} {self.kind} have colour channels, which must be equal ({_some(coloured)})"
            )
            yield Problem(self.folder, text)


class MapFiles(Maps):
    """Density maps in grey images of 8 or 16 bits."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self._files = GreyFiles(folder, pictures, "maps")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first map."""
        return self._files.size

    def density(self, index: int) -> NDArray[np.float32] | None:
        """Read the map of a frame."""
        return self._files.read(index)

    def count(self) -> int:
        """Return how many maps there are."""
        return len(self._files.names)

    def examine(self, decode: bool) -> Iterator[Problem]:
        """Look at names and headers, or at all maps."""
        yield from self._files.examine()
        for index, name in enumerate(self._files.pairing.files if decode else ()):
            try:
                density = self.density(index)
            except HD2SError as error:
                yield Problem(self._files.folder / (name or ""), str(error), fatal=True)
                continue
            if density is not None and not density.any():
                yield Problem(self._files.folder / (name or ""), "the map is empty")


class MapVideo(Maps):
    """Density maps in the brightness of a video, such as an almost lossless one of 10 bits."""

    def __init__(self, path: Path, pictures: Pictures) -> None:
        self._path, self._pictures = path, pictures
        self._video = SeekableVideo(path)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        return self._video.info.height, self._video.info.width

    def density(self, index: int) -> NDArray[np.float32] | None:
        """Decode the map of a frame; in order, none is decoded twice."""
        return luma(self._video.pictures([index])[0]) if index < len(self._video) else None

    def count(self) -> int:
        """Return how many maps there are."""
        return len(self._video)

    def examine(self, decode: bool) -> Iterator[Problem]:
        """Compare the number of maps with the frames, or decode all."""
        try:
            if self.count() != len(self._pictures):
                yield Problem(self._path, f"{len(self._pictures)} frames but {self.count()} maps")
            for index in range(self.count() if decode else 0):
                self.density(index)
        except HD2SError as error:
            yield Problem(self._path, str(error), fatal=True)


class BlurredGaze(Maps):
    """Density maps made of fixations by a Gaussian, whose sigma is 3 % of the width."""

    def __init__(self, gaze: Gaze, pictures: Pictures) -> None:
        self._gaze, self._pictures = gaze, pictures

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture that was looked at."""
        return self._gaze.size

    def density(self, index: int) -> NDArray[np.float32] | None:
        """Blur the fixations of a frame."""
        from hd2s.data import transforms  # it imports torch, which listing a data set can do without

        points = self._gaze.points(index)
        if points is None:
            return None
        height, width = self.size
        counts = transforms.fixation_map(points[inside(points, self.size)], height, width)
        sigma = transforms.SIGMA_FRACTION * width
        return transforms.density_map(counts, (sigma, sigma))

    def count(self) -> int:
        """Return the number of frames: a map can be made for each."""
        return len(self._pictures)


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read a grey image of 8 or 16 bits to (H, W) float32 in [0, 1]; equal colour channels are one.

    Raises:
        DatasetFormatError: It is no image, too large, coloured, or of another depth.
    """
    _size(path)  # before anything of the size that the header claims is allocated
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error) as error:
        raise DatasetFormatError(f"The image {path} cannot be read: {error}.") from error
    if image is None:
        raise DatasetFormatError(f"The image {path} cannot be read: its pixel data are damaged.")
    if image.dtype not in (np.uint8, np.uint16):
        raise DatasetFormatError(f"{path} has pixels of {image.dtype}; maps must have 8 or 16 bits.")
    if image.ndim == 3:
        if not (image[..., :3] == image[..., :1]).all():
            raise DatasetFormatError(
                f"{path} is coloured; maps and fixations must be grey, or have equal colour channels. "
                "Is it an overlay or a colour-mapped picture?"
            )
        image = image[..., 0]
    white = 255 if image.dtype == np.uint8 else 65535
    return np.divide(image, white, dtype=np.float32)


def luma(picture: av.VideoFrame) -> NDArray[np.float32]:
    """Return the brightness (H, W) of a picture on the scale [0, 1], with all its bits.

    Raises:
        VideoDecodeError: Its pixel format has no plane of brightness.
    """
    layout = picture.format
    if layout.is_rgb or not layout.is_planar and len(layout.components) > 1 or layout.has_palette:
        raise VideoDecodeError(f"Maps must be grey or YUV, this video has the pixel format '{layout.name}'.")
    bits, plane = layout.components[0].bits, picture.planes[0]
    kind = "u1" if bits <= 8 else ">u2" if layout.is_big_endian else "<u2"
    rows = np.frombuffer(memoryview(plane), np.dtype(kind)).reshape(plane.height, -1)  # padded to the right
    # FFmpeg's scaler takes grey for full range, whatever its tag says; so does who wrote the maps with it.
    full = picture.color_range == _FULL_RANGE or layout.name.startswith(("gray", "yuvj"))
    black, white = (0, 2**bits - 1) if full else (16 << bits - 8, 235 << bits - 8)
    values: NDArray[np.float32] = (rows[:, : plane.width].astype(np.float32) - black) / (white - black)
    return values.clip(0.0, 1.0)


def _size(path: Path) -> tuple[int, int]:
    """Read the height and width of an image from its header."""
    try:
        return image_size(path)
    except VideoDecodeError as error:
        raise DatasetFormatError(str(error)) from error


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Read the size of an image and Pillow's name of its kind of pixels."""
    size = _size(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            return size, image.mode


def _some(names: list[str]) -> str:
    """Name the first few of a list."""
    return ", ".join(names[:_EXAMPLES]) + (
        f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    )
