"""The frames of annotated videos: from a video file, a folder of images, or a single image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets.base import Pictures
from hd2s.data.datasets.listing import files
from hd2s.data.images import ImageSource, image_size
from hd2s.data.seek import SeekableVideo
from hd2s.errors import DatasetFormatError


class VideoPictures(Pictures):
    """The frames of a video file, decoded from the key frame before them on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._video = SeekableVideo(path)

    @property
    def fps(self) -> float:
        """Frames a second, as the file says."""
        return float(self._video.info.fps)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as shown."""
        return self._video.info.height, self._video.info.width

    def __len__(self) -> int:
        return len(self._video)

    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Decode frames."""
        return self._video.frames(indices)


class FolderPictures(Pictures):
    """The images of a folder in natural order.

    Args:
        path: The folder.
        fps: Frames a second, which images do not say.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._fps = fps

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self._fps

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image."""
        if not self._names:
            raise DatasetFormatError(f"The folder {self.path} has no images.")
        return image_size(self.path / self._names[0])

    @cached_property
    def _names(self) -> list[str]:
        return files(self.path)

    def names(self) -> Sequence[str]:
        """Return the names of the images."""
        return self._names

    def __len__(self) -> int:
        return len(self._names)

    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Read images; each once."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"'{self.path}' has {len(self)} frames: there is no frame {index}.")
        read = {index: self._frame(index) for index in sorted(set(indices))}
        return [read[index] for index in indices]

    def _frame(self, index: int) -> NDArray[np.uint8]:
        path = self.path / self._names[index]
        picture = read_picture(path)
        if picture.shape[:2] != self.size:
            raise DatasetFormatError(
                f"{path} has {picture.shape[1]}x{picture.shape[0]} pixels, the first frame of its video "
                f"{self.size[1]}x{self.size[0]}. All frames of a video must have one size."
            )
        return picture


class StillPictures(Pictures):
    """A single image as a video of one frame."""

    fps = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width, from the header."""
        return image_size(self.path)

    def __len__(self) -> int:
        return 1

    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Read the image once."""
        if any(indices):
            raise IndexError(f"'{self.path}' is an image: its only frame is 0, got {list(indices)}.")
        return [read_picture(self.path)] * len(indices) if indices else []


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one image to RGB (H, W, 3), as `open_source` does."""
    with ImageSource([path], path.stem, 1.0) as source:
        return next(source).rgb()
