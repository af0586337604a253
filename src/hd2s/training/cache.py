"""Frames and targets of videos at the network's size: decoded when asked for, or kept on disk.

Both ways give the same numbers to the last bit. On disk, each video has a memory-mapped array of its frames
and one of its targets, written whole when the video is first used; so a video with damage anywhere is not
used at all, while without a cache its sound parts are.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from hd2s.data.datasets import AnnotatedVideo
from hd2s.data.datasets.maps import BlurredGaze
from hd2s.data.datasets.pictures import VideoPictures
from hd2s.data.frames import Frame, resize
from hd2s.data.seek import SeekableVideo
from hd2s.data.transforms import FULL, cut_target
from hd2s.errors import DatasetFormatError, HD2SError, OutputError, VideoDecodeError

_VERSION = 1  # of the files' content: to be raised with each change of what is in them
_CHUNK = 32  # frames in memory at once at the video's own size
_PARTIAL = ".partial"
_ABANDONED_SECONDS = 3600.0

Target = NDArray[np.float16]


class Footage(Protocol):
    """A video as a network sees it. All may raise VideoDecodeError, DatasetFormatError or OSError."""

    def __len__(self) -> int:
        """Return the number of frames, at least 1."""

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Return frames (N, H, W, 3) in RGB, resized by area averaging."""

    def target(self, index: int) -> Target | None:
        """Return the density (H, W) of a frame, at most 1; None if the frame has no usable label."""


class Decoded:
    """Footage that is decoded when it is asked for.

    Args:
        video: The video.
        size_hw: Height and width of the network's input.
        min_fixations: Frames without a map need as many fixations to have a target.
    """

    def __init__(self, video: AnnotatedVideo, size_hw: tuple[int, int], min_fixations: int = 1) -> None:
        self.video, self.size_hw, self.min_fixations = video, size_hw, min_fixations
        # Its pictures become RGB and small in one pass; those of `video.frames` are RGB at full size.
        pictures = video.pictures
        self._file = SeekableVideo(pictures.path) if isinstance(pictures, VideoPictures) else None
        self._stored_maps = None if isinstance(video.maps, BlurredGaze) else video.maps

    def __len__(self) -> int:
        count = self.video.num_frames if self._file is None else len(self._file)
        if not count:
            raise DatasetFormatError(f"{self.video.source} has no frames.")
        return count

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Footage`; each frame is decoded once."""
        distinct = sorted(set(indices))
        small: dict[int, NDArray[np.uint8]] = {}
        for start in range(0, len(distinct), _CHUNK):
            chunk = distinct[start : start + _CHUNK]
            small |= zip(chunk, self._small(chunk), strict=True)
        return np.stack([small[index] for index in indices])

    def _small(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        if self._file is None:
            return [resize(frame, *self.size_hw) for frame in self.video.frames(indices)]
        pictures = zip(indices, self._file.pictures(indices), strict=True)
        return [Frame(index, 0.0, picture).rgb(*self.size_hw) for index, picture in pictures]

    def target(self, index: int) -> Target | None:
        """See `Footage`: the stored map, resized by area averaging, or else the blurred fixations."""
        density = None if self._stored_maps is None else self._stored_maps.density(index)
        if density is not None and density.any():
            density = cv2.resize(density, self.size_hw[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        else:
            points = self.video.fixations(index)
            if points is None or len(points) < self.min_fixations:
                return None
            density = cut_target(points, FULL, self.video.truth_size, self.size_hw)
        highest = float(density.max())
        return (density / highest).astype(np.float16) if highest > 0 else None


class Cached:
    """Footage that is kept on disk.

    A file is named after the path, size and time of its video and the size of the pictures in it. Labels have
    no such marks: when a video is first used, one of its targets is compared with the labels.

    Args:
        source: The footage that the files are made of.
        labelled: Whether to keep targets too.
        folder: Where the files lie; several processes may share it.
    """

    def __init__(self, source: Decoded, labelled: bool, folder: Path) -> None:
        self._source, self._labelled, self._folder = source, labelled, folder
        self._compared = False
        self._broken: HD2SError | None = None

    def __len__(self) -> int:
        return len(self._frames())

    def frames(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """See `Footage`."""
        return np.asarray(self._frames()[list(indices)])

    def target(self, index: int) -> Target | None:
        """See `Footage`."""
        target = np.array(self._targets()[index]) if self._labelled else None
        return target if target is not None and target.any() else None

    def _frames(self) -> NDArray[np.uint8]:
        path, shape = self._path("frames"), (*self._source.size_hw, 3)
        found = _mapped(path, shape, np.uint8)
        if found is not None:
            return found
        if self._broken is not None:  # decoding it again up to the damage would take seconds
            raise self._broken.with_traceback(None)
        try:
            _write(path, (len(self._source), *shape), np.uint8, self._decode())
        except (VideoDecodeError, DatasetFormatError) as error:
            self._broken = error
            raise
        return _required(path, shape, np.uint8)

    def _decode(self) -> Iterator[NDArray[np.uint8]]:
        count = len(self._source)
        for start in range(0, count, _CHUNK):
            yield self._source.frames(range(start, min(start + _CHUNK, count)))

    def _targets(self) -> Target:
        path, shape = self._path("targets", self._source.min_fixations), self._source.size_hw
        found = _mapped(path, shape, np.float16)
        if found is None or not self._up_to_date(found):
            _write(path, (len(self._source), *shape), np.float16, self._label())
            found = _required(path, shape, np.float16)
        self._compared = True
        return found

    def _label(self) -> Iterator[Target]:
        nothing = np.zeros(self._source.size_hw, np.float16)
        for index in range(len(self._source)):
            target = self._source.target(index)
            yield nothing if target is None else target

    def _up_to_date(self, targets: Target) -> bool:
        """Compare the first target with the labels, once."""
        first = None if self._compared else next((i for i, one in enumerate(targets) if one.any()), None)
        if first is None:
            return True
        target = self._source.target(first)
        return target is not None and np.array_equal(target, targets[first])

    def _path(self, kind: str, *settings: int) -> Path:
        video = self._source.video
        status = video.source.stat()
        marks = [os.path.abspath(video.source), status.st_size, status.st_mtime_ns]
        text = json.dumps([_VERSION, *marks, *self._source.size_hw, *settings])
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._folder / f"{video.name[:80]}-{digest}.{kind}.npy"


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left incomplete."""
    for path in folder.glob(f"*{_PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _mapped(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any] | None:
    """Map an array of rows of a shape; None if there is none, or it is damaged."""
    try:
        array = npy.open_memmap(path, mode="r")
        whole = array.offset + array.nbytes == path.stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    return array if whole and array.shape[1:] == shape and array.dtype == dtype and len(array) else None


def _required(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    array = _mapped(path, shape, dtype)
    if array is None:
        raise OutputError(f"'{path}' was just written and cannot be read. Choose another folder as cache.")
    return array


def _write(path: Path, shape: tuple[int, ...], dtype: DTypeLike, parts: Iterable[NDArray[Any]]) -> None:
    """Write an array piece by piece; it gets its name when it is complete.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=_PARTIAL)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            with _writing(path):
                npy.write_array_header_1_0(file, header)
            for part in parts:
                rest = memoryview(part.tobytes())
                while rest:
                    with _writing(path):
                        rest = rest[file.write(rest) :]
            with _writing(path):
                os.fsync(handle)  # else a crash may leave zeros under the final name
        with _writing(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell errors of writing from those of reading the video."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"The cache '{path}' cannot be written: {error.strerror or error}. Make room, choose another "
            "folder as cache, or none to decode each clip anew."
        ) from error
