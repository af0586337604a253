"""Fixations: in binary images, in lists for each frame, or in tables with times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets.base import Gaze, Pictures, Problem
from hd2s.data.datasets.maps import GreyFiles
from hd2s.data.datasets.tables import read_json, read_rows, to_numbers
from hd2s.errors import DatasetFormatError

_KEPT = 32  # lists of videos that stay in memory


class PointFiles(Gaze):
    """Fixations as the bright pixels of grey images; coincident ones are one."""

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self._files = GreyFiles(folder, pictures, "fixation images")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first image."""
        return self._files.size

    def points(self, index: int) -> NDArray[np.float32] | None:
        """Find the pixels that are more than half as bright as white, or are 1 where nothing is brighter."""
        image = self._files.read(index)
        if image is None:
            return None
        threshold = 0.5 if image.max(initial=0.0) > 1.5 / 255 else 0.0
        rows, columns = np.nonzero(image > threshold)
        return np.stack((columns, rows), axis=1).astype(np.float32)

    def examine(self) -> Iterator[Problem]:
        """Look at names and headers."""
        yield from self._files.examine()


class PointLists(Gaze):
    """Fixations in a JSON file: for each frame a list of pairs."""

    def __init__(self, path: Path, pictures: Pictures, *, rows_first: bool) -> None:
        """Remember where the lists are.

        Args:
            path: The JSON file.
            pictures: The frames of the video, in whose pixels the pairs count.
            rows_first: Pairs are row and column, not x and y.
        """
        self._path, self._pictures, self._rows_first = path, pictures, rows_first

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self._pictures.size

    def points(self, index: int) -> NDArray[np.float32] | None:
        """Return the pairs of a frame as x, y."""
        frames = _lists(self._path)
        if index >= len(frames):
            return None
        return frames[index][:, ::-1] if self._rows_first else frames[index]

    def examine(self) -> Iterator[Problem]:
        """Compare the number of lists with the frames."""
        count = len(_lists(self._path))
        if count != len(self._pictures):
            yield Problem(self._path, f"{len(self._pictures)} frames but {count} lists of fixations")


@dataclass(frozen=True)
class Table:
    """Fixations of a video in a table of N rows.

    Attributes:
        points: (N, 2) x, y in pixels of the picture.
        frames: (N,) frame of each, or None if there are times.
        times_ms: (N, 2) from and to, in milliseconds, or None if there are frames.
        viewers: (N,) number of the viewer, or None if it is not known.
    """

    points: NDArray[np.float32] = field(repr=False)
    frames: NDArray[np.int64] | None = field(default=None, repr=False)
    times_ms: NDArray[np.float32] | None = field(default=None, repr=False)
    viewers: NDArray[np.int64] | None = field(default=None, repr=False)

    def rows(self, frame: int, fps: float) -> NDArray[np.bool_]:
        """Tell which rows (N,) belong to a frame: by number, or because they go on when it is shown."""
        if self.frames is not None:
            return np.equal(self.frames, frame)
        if self.times_ms is not None:
            return active(self.times_ms, frame, fps)
        return np.ones(len(self.points), np.bool_)


class TablePoints(Gaze):
    """Fixations from a table."""

    def __init__(self, table: Table | Callable[[], Table], pictures: Pictures) -> None:
        """Remember the table, or how to get it when it is needed."""
        self._table_or_reader, self._pictures = table, pictures

    @property
    def _table(self) -> Table:
        table = self._table_or_reader
        return table if isinstance(table, Table) else table()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self._pictures.size

    def points(self, index: int) -> NDArray[np.float32] | None:
        """Return the points of a frame, in the order of the table."""
        return self._table.points[self._table.rows(index, self._pictures.fps)]

    def viewers(self, index: int) -> NDArray[np.int64] | None:
        """Return the viewers of a frame, where the table names them."""
        table = self._table
        return None if table.viewers is None else table.viewers[table.rows(index, self._pictures.fps)]

    def examine(self) -> Iterator[Problem]:
        """Look for frames that the video does not have."""
        frames = self._table.frames
        late = 0 if frames is None else int(((frames < 0) | (frames >= len(self._pictures))).sum())
        if late:
            yield Problem(self._pictures.path, f"{late} fixations are of frames that the video does not have")


@lru_cache(maxsize=_KEPT)
def read_table(path: Path) -> Table:
    """Read a CSV file with `x, y`, `frame` or `start_ms, duration_ms`, and maybe `viewer`.

    Raises:
        DatasetFormatError: A column is missing, or a cell is no number.
    """
    rows = read_rows(path, ("x", "y"))
    columns = set(rows[0]) if rows else {"frame"}
    timing = ["frame"] if "frame" in columns else ["start_ms", "duration_ms"]
    if not columns.issuperset(timing):
        raise DatasetFormatError(f"{path} needs the column 'frame', or 'start_ms' and 'duration_ms'.")
    wanted = ["x", "y", *timing, *(["viewer"] if "viewer" in columns else [])]
    values = to_numbers([[row[column] for column in wanted] for row in rows], len(wanted), path)
    viewers = values[:, -1].astype(np.int64) if "viewer" in columns else None
    points = values[:, :2]
    if "frame" in columns:
        return Table(points, frames=values[:, 2].astype(np.int64), viewers=viewers)
    times = np.stack((values[:, 2], values[:, 2] + values[:, 3]), axis=1)
    return Table(points, times_ms=times, viewers=viewers)


def active(times_ms: NDArray[np.float32], frame: int, fps: float) -> NDArray[np.bool_]:
    """Tell which fixations, from and to (N, 2) in milliseconds, go on when a frame is shown."""
    now = 1000.0 * frame / fps
    return (times_ms[:, 0] <= now) & (now <= times_ms[:, 1])


@lru_cache(maxsize=_KEPT)
def _lists(path: Path) -> list[NDArray[np.float32]]:
    """Read the pairs (N, 2) of each frame, as stored."""
    stored = read_json(path)
    if not isinstance(stored, list):
        raise DatasetFormatError(f"{path} must be a list with a list of pairs for each frame.")
    frames = []
    for number, value in enumerate(stored):
        pairs = _pairs(value)
        if pairs is None:
            raise DatasetFormatError(f"{path}: the fixations of frame {number} are not pairs of numbers.")
        frames.append(pairs)
    return frames


def _pairs(value: object) -> NDArray[np.float32] | None:
    """Turn a list of pairs into an array (N, 2); None if it is something else."""
    if value == []:
        return np.empty((0, 2), np.float32)
    try:
        pairs = np.array(value, np.float32)
    except (TypeError, ValueError):
        return None
    return pairs if pairs.ndim == 2 and pairs.shape[1] == 2 and np.isfinite(pairs).all() else None
