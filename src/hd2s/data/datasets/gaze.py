"""The gaze pack: human fixations on 1,600 images and 22 videos.

Layout: `osie|crowd|scene/{images/*.jpg,fixations.csv}` with columns `image, viewer, x, y,
duration_ms`; `hevc/{videos/*.mp4,fixations/<name>.csv}` with columns `viewer, start_ms,
duration_ms, x, y`. Coordinates are pixels of the stored picture, origin top left.

Sources and licences: OSIE (Xu, Jiang, Wang, Kankanhalli, Zhao, J. of Vision 2014; MIT), crowd
(Jiang, Xu, Zhao, ECCV 2014; MIT), scene (Liang, Jiang, Liang, Zhao, SMC 2017; MIT), HEVC test sequences
(Xu, Jiang, Sun, Ye, Wang, IEEE TIP 2017; free to use, citing the paper).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hd2s.errors import DatasetFormatError, DatasetNotFoundError

STILL_FOLDERS = ("osie", "crowd", "scene")
VIDEO_FOLDER = "hevc"
# Related videos (same scene or speaker series) are on one side of the split.
VALIDATION_VIDEOS = frozenset(
    ("Tennis", "BQTerrace", "RaceHorsesC", "RaceHorsesD", "Couple", "Female", "Lee", "Male", "Simo", "Yan")
)
Split = Literal["train", "validation", "all"]


@dataclass(frozen=True)
class Still:
    """An image with the fixations of all its viewers, (N, 2) x, y."""

    domain: str
    path: Path
    points: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class GazeVideo:
    """A video with its fixations: (N,) viewers, (N, 2) times [start, end] in ms and (N, 2) points x, y."""

    domain: str
    path: Path
    viewers: NDArray[np.int64] = field(repr=False)
    times_ms: NDArray[np.float32] = field(repr=False)
    points: NDArray[np.float32] = field(repr=False)

    def active(self, frame: int, fps: float) -> NDArray[np.bool_]:
        """Tell which fixations (N,) go on while a frame is shown."""
        now = 1000.0 * frame / fps
        return (self.times_ms[:, 0] <= now) & (now <= self.times_ms[:, 1])


def stills(root: Path, split: Split, folders: Sequence[str] = STILL_FOLDERS) -> list[Still]:
    """List the images of a split; every tenth of each folder, in sorted order, is for validation.

    Raises:
        DatasetNotFoundError: A folder is missing.
        DatasetFormatError: An image has no fixations, or a table lacks a column.
    """
    found = []
    for name in folders:
        table = defaultdict(list)
        for row in _rows(root / name / "fixations.csv", ("image", "x", "y")):
            table[row["image"]].append((row["x"], row["y"]))
        for i, path in enumerate(sorted(_listed(root / name / "images", "*.jpg"))):
            if split == "all" or (i % 10 == 0) == (split == "validation"):
                if path.name not in table:
                    raise DatasetFormatError(f"{path} has no fixations in {root / name / 'fixations.csv'}.")
                found.append(Still(name, path, _numbers(table[path.name], 2, path)))
    return found


def videos(root: Path, split: Split) -> list[GazeVideo]:
    """List the videos of a split (`VALIDATION_VIDEOS` or the others), sorted by name.

    Raises:
        DatasetNotFoundError: A folder or a table of fixations is missing.
        DatasetFormatError: A table lacks a column or holds something that is no number.
    """
    found = []
    for path in sorted(_listed(root / VIDEO_FOLDER / "videos", "*.mp4")):
        if split != "all" and (path.stem in VALIDATION_VIDEOS) != (split == "validation"):
            continue
        columns = ("viewer", "start_ms", "duration_ms", "x", "y")
        rows = _rows(root / VIDEO_FOLDER / "fixations" / f"{path.stem}.csv", columns)
        values = _numbers([[row[c] for c in columns] for row in rows], 5, path)
        times = np.stack((values[:, 1], values[:, 1] + values[:, 2]), axis=1)
        found.append(GazeVideo(VIDEO_FOLDER, path, values[:, 0].astype(np.int64), times, values[:, 3:]))
    return found


def _listed(folder: Path, pattern: str) -> list[Path]:
    paths = list(folder.glob(pattern))
    if not paths:
        raise DatasetNotFoundError(
            f"No {pattern} in {folder}. The gaze pack is a folder with {', '.join(STILL_FOLDERS)} (images/, "
            f"fixations.csv) and {VIDEO_FOLDER} (videos/, fixations/): point `data.root` to it."
        )
    return paths


def _numbers(cells: Sequence[Sequence[str]], columns: int, path: Path) -> NDArray[np.float32]:
    try:
        values = np.array(cells, np.float32).reshape(-1, columns)
    except ValueError as error:
        raise DatasetFormatError(f"The fixations of {path} are not all numbers: {error}.") from error
    if not np.isfinite(values).all():  # an empty cell becomes nan
        raise DatasetFormatError(
            f"The fixations of {path} are not all numbers: a row is too short, or not finite."
        )
    return values


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise DatasetNotFoundError(f"{path} is missing: fixations are read from it.")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise DatasetFormatError(
                f"{path} lacks the columns {sorted(missing)}; it has {reader.fieldnames}."
            )
        return list(reader)
