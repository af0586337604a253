"""Predictions on disk: folders of grey images, grey videos and NumPy archives, read frame by frame."""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets.listing import VIDEO_SUFFIXES, files, has_files
from hd2s.data.datasets.maps import luma, read_grey
from hd2s.data.frames import MAX_PIXELS
from hd2s.data.images import IMAGE_SUFFIXES
from hd2s.data.seek import SeekableVideo
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError, InputNotFoundError

Map = NDArray[np.float32]
_NEUTRAL = 16  # levels of 8 bits by which the colour of a grey video may be off
_LOOKED_FOR = (
    "NAME.npz, NAME_saliency.npz, NAME/*.png, NAME_maps/*.png, NAME.png, NAME.mp4 and NAME_saliency.mp4"
)


class StoredMaps(ABC):
    """The predicted maps of one video."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def count(self) -> int:
        """Return how many maps there are, reading no more than it takes."""

    @abstractmethod
    def maps(self, every: int = 1) -> Generator[tuple[int, Map]]:
        """Yield the number and the (H, W) map of every so many frames; levels of images become [0, 1].

        Raises:
            DatasetFormatError: A map is damaged, coloured or of another type.
        """

    def fingerprint(self) -> str:
        """Return what changes when the files do."""
        paths = sorted(self.path.iterdir()) if self.path.is_dir() else [self.path]
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        return f"{zlib.crc32(repr(stats).encode()):08x}"


class _Images(StoredMaps):
    """A folder of grey images in natural order, of 8 or 16 bits; or a single one."""

    def _paths(self) -> list[Path]:
        return [self.path / name for name in files(self.path)] if self.path.is_dir() else [self.path]

    def count(self) -> int:
        return len(self._paths())

    def maps(self, every: int = 1) -> Generator[tuple[int, Map]]:
        for index, path in enumerate(self._paths()):
            if index % every == 0:
                yield index, read_grey(path)


class _Video(StoredMaps):
    """A grey video; its brightness is the prediction."""

    def count(self) -> int:
        return len(SeekableVideo(self.path))

    def maps(self, every: int = 1) -> Generator[tuple[int, Map]]:
        with open_source(self.path) as source:
            for frame in source:
                if frame.index == 0:
                    _check_grey(frame.picture, self.path)
                if frame.index % every == 0:
                    yield frame.index, luma(frame.picture)


class _Archive(StoredMaps):
    """A NumPy archive with an array (N, H, W); its member is read as a stream."""

    def count(self) -> int:
        with self._opened() as archive, archive.open(self._member(archive)) as file:
            return self._header(file)[0][0]

    def maps(self, every: int = 1) -> Generator[tuple[int, Map]]:
        with self._opened() as archive, archive.open(self._member(archive)) as file:
            (count, height, width), dtype = self._header(file)
            size = height * width * dtype.itemsize
            scale = np.float32(1 if dtype.kind == "f" else 1 / np.iinfo(dtype).max)
            for index in range(count):
                data = self._read(file, size)
                if index % every == 0:
                    yield index, np.frombuffer(data, dtype).reshape(height, width).astype(np.float32) * scale

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetFormatError(f"The archive {self.path} cannot be read: {error}.") from error

    def _member(self, archive: zipfile.ZipFile) -> str:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if "saliency.npy" in names:
            return "saliency.npy"
        if len(names) == 1:
            return names[0]
        raise DatasetFormatError(
            f"{self.path} holds the arrays {', '.join(name[:-4] for name in names) or 'none'}; the maps must "
            "be called 'saliency', or be the only array."
        )

    def _header(self, file: IO[bytes]) -> tuple[tuple[int, int, int], np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[version](file)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise DatasetFormatError(f"The array of {self.path} cannot be read: {error}.") from error
        known = dtype.kind == "f" or dtype in (np.uint8, np.uint16)
        if len(shape) != 3 or fortran or not known or not 0 < shape[1] * shape[2] <= MAX_PIXELS:
            raise DatasetFormatError(
                f"{self.path} holds an array of the shape {shape} and the type {dtype}; maps are (N, H, W), "
                "floats, uint8 or uint16, in C order."
            )
        return shape, dtype

    def _read(self, file: IO[bytes], size: int) -> bytes:
        try:
            data = file.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DatasetFormatError(f"The array of {self.path} is damaged: {error}.") from error
        if len(data) < size:
            raise DatasetFormatError(f"The array of {self.path} ends too early.")
        return data


def find_maps(folder: Path, names: Sequence[str]) -> StoredMaps:
    """Find the predictions of a video; of several kinds the most exact one.

    Args:
        folder: Where the predictions of all videos are.
        names: What the video may be called.

    Raises:
        InputNotFoundError: There are none.
    """
    for name in names:
        for path, kind in _candidates(folder, name):
            if has_files(path) or path.is_file():
                return kind(path)
    raise InputNotFoundError(
        f"There is no prediction of the video '{names[0]}' in {folder}. Looked for {_LOOKED_FOR}, with the "
        f"NAME {' or '.join(names)}, and other suffixes of images and videos."
    )


def _candidates(folder: Path, name: str) -> Iterator[tuple[Path, type[StoredMaps]]]:
    """Yield where the predictions of a video may be, and what they are there."""
    stems = name, f"{name}_saliency"
    yield from ((folder / f"{stem}.npz", _Archive) for stem in stems)
    yield from ((folder / images, _Images) for images in (name, f"{name}_maps"))
    yield from ((folder / f"{name}{suffix}", _Images) for suffix in sorted(IMAGE_SUFFIXES))
    yield from ((folder / f"{stem}{suffix}", _Video) for stem in stems for suffix in sorted(VIDEO_SUFFIXES))


def _check_grey(picture: av.VideoFrame, path: Path) -> None:
    """Refuse a video in colours, such as an overlay."""
    if len(picture.planes) < 3 or picture.format.is_rgb:
        return
    bits = picture.format.components[1].bits
    kind = "u1" if bits <= 8 else ">u2" if picture.format.is_big_endian else "<u2"
    for plane in picture.planes[1:3]:
        rows = np.frombuffer(memoryview(plane), np.dtype(kind)).reshape(plane.height, -1)[:, : plane.width]
        if np.abs(rows.astype(np.int32) - (1 << bits - 1)).max(initial=0) > _NEUTRAL << bits - 8:
            raise DatasetFormatError(
                f"The video {path} is coloured; maps must be grey. Is it an overlay or a colour-mapped one?"
            )
