"""The gaze pack: human fixations on 1,600 images and 22 videos.

Layout: `osie|crowd|scene/{images/*.jpg,fixations.csv}` with columns `image, viewer, x, y,
duration_ms`; `hevc/{videos/*.mp4,fixations/<name>.csv}` with columns `viewer, start_ms,
duration_ms, x, y`. Coordinates are pixels of the stored picture, origin top left.

Sources and licences: OSIE (Xu, Jiang, Wang, Kankanhalli, Zhao, J. of Vision 2014; MIT), crowd
(Jiang, Xu, Zhao, ECCV 2014; MIT), scene (Liang, Jiang, Liang, Zhao, SMC 2017; MIT), HEVC test sequences
(Xu, Jiang, Sun, Ye, Wang, IEEE TIP 2017; free to use, citing the paper).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets import points
from hd2s.data.datasets.base import AnnotatedVideo, Found, Layout, Problem
from hd2s.data.datasets.maps import BlurredGaze
from hd2s.data.datasets.pictures import StillPictures, VideoPictures
from hd2s.data.datasets.tables import read_rows, to_numbers
from hd2s.errors import DatasetFormatError, DatasetNotFoundError

STILL_FOLDERS = ("osie", "crowd", "scene")
VIDEO_FOLDER = "hevc"
# Related videos (same scene or speaker series) are on one side of the split, and in one fold.
VALIDATION_VIDEOS = frozenset(
    ("Tennis", "BQTerrace", "RaceHorsesC", "RaceHorsesD", "Couple", "Female", "Lee", "Male", "Simo", "Yan")
)
# Of a cross-validation over all videos: each fold is held out once. Images are not rotated.
FOLDS: tuple[frozenset[str], ...] = (
    frozenset(("Couple", "Female", "Lee", "Male", "Simo", "Yan")),
    frozenset(("Vidyo1", "Vidyo3", "Vidyo4", "FourPeople", "Johnny", "KristenAndSara")),
    frozenset(("RaceHorsesC", "RaceHorsesD", "Tennis", "BQTerrace")),
    frozenset(("BQSquare", "Cactus", "SlideEditing")),
    frozenset(("PeopleOnStreet", "Traffic", "SlideShow")),
)
Split = Literal["train", "validation", "all"]


@dataclass(frozen=True)
class Still:
    """An image with the fixations of all its viewers, (N, 2) x, y, and (N,) viewers, where they are known."""

    domain: str
    path: Path
    points: NDArray[np.float32] = field(repr=False)
    viewers: NDArray[np.int64] | None = field(default=None, repr=False)


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
        return points.active(self.times_ms, frame, fps)


def stills(root: Path, split: Split, folders: Sequence[str] = STILL_FOLDERS) -> list[Still]:
    """List the images of a split; every tenth of each folder, in sorted order, is for validation.

    Raises:
        DatasetNotFoundError: A folder is missing.
        DatasetFormatError: An image has no fixations, or a table lacks a column.
    """
    found = []
    for name in folders:
        table = defaultdict(list)
        for row in read_rows(root / name / "fixations.csv", ("image", "x", "y")):
            table[row["image"]].append([row[c] for c in ("x", "y", "viewer") if c in row])
        for i, path in enumerate(sorted(_listed(root / name / "images", "*.jpg"))):
            if split == "all" or (i % 10 == 0) == (split == "validation"):
                if path.name not in table:
                    raise DatasetFormatError(f"{path} has no fixations in {root / name / 'fixations.csv'}.")
                found.append(_still(name, path, table[path.name]))
    return found


def _still(domain: str, path: Path, rows: list[list[str]]) -> Still:
    """Make an image with its rows of x, y and perhaps the viewer."""
    values = to_numbers(rows, len(rows[0]), path)
    return Still(domain, path, values[:, :2], values[:, 2].astype(np.int64) if len(rows[0]) > 2 else None)


def videos(root: Path, split: Split, held_out: frozenset[str] = VALIDATION_VIDEOS) -> list[GazeVideo]:
    """List the videos of a split, sorted by name.

    Args:
        root: The gaze pack.
        split: "train" leaves out the videos that "validation" lists.
        held_out: Names of those videos, such as one of `FOLDS`.

    Raises:
        DatasetNotFoundError: A folder or a table of fixations is missing.
        DatasetFormatError: A table lacks a column or holds something that is no number.
    """
    found = []
    for path in sorted(_listed(root / VIDEO_FOLDER / "videos", "*.mp4")):
        if split != "all" and (path.stem in held_out) != (split == "validation"):
            continue
        columns = ("viewer", "start_ms", "duration_ms", "x", "y")
        rows = read_rows(root / VIDEO_FOLDER / "fixations" / f"{path.stem}.csv", columns)
        values = to_numbers([[row[c] for c in columns] for row in rows], 5, path)
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


def recognise(root: Path) -> bool:
    """Tell by a folder of images with its table, or by that of the videos."""
    return any((root / name / "fixations.csv").is_file() for name in STILL_FOLDERS) or (
        (root / VIDEO_FOLDER / "videos").is_dir() and (root / VIDEO_FOLDER / "fixations").is_dir()
    )


def read(root: Path, split: str) -> Found:
    """List the videos and images of a split; folders that are missing are reported."""
    which: Split = "train" if split == "train" else "validation" if split == "validation" else "all"
    found: list[AnnotatedVideo] = []
    missing = [name for name in (*STILL_FOLDERS, VIDEO_FOLDER) if not (root / name).is_dir()]
    if VIDEO_FOLDER not in missing:
        found += [_annotated_video(video) for video in videos(root, which)]
    folders = [name for name in STILL_FOLDERS if name not in missing]
    found += [_annotated_still(still) for still in stills(root, which, folders)]
    return found, [Problem(root / name, "the folder is missing") for name in missing]


def _annotated_video(video: GazeVideo) -> AnnotatedVideo:
    pictures = VideoPictures(video.path)
    table = points.Table(video.points, times_ms=video.times_ms, viewers=video.viewers)
    gaze = points.TablePoints(table, pictures)
    maps = BlurredGaze(gaze, pictures)
    return AnnotatedVideo(name=video.path.stem, domain=video.domain, pictures=pictures, maps=maps, gaze=gaze)


def _annotated_still(still: Still) -> AnnotatedVideo:
    pictures = StillPictures(still.path)
    gaze = points.TablePoints(points.Table(still.points, viewers=still.viewers), pictures)
    return AnnotatedVideo(
        name=f"{still.domain}-{still.path.stem}",
        domain=still.domain,
        pictures=pictures,
        maps=BlurredGaze(gaze, pictures),
        gaze=gaze,
        group=still.domain,
    )


LAYOUT = Layout(
    name="gaze",
    title="the gaze pack",
    splits=("train", "validation"),
    description="{osie,crowd,scene}/{images/*.jpg,fixations.csv}, hevc/{videos/*.mp4,fixations/<name>.csv}",
    license="MIT (images); free to use, citing the paper (videos)",
    citation="Xu et al. 2014; Jiang, Xu, Zhao 2014; Liang et al. 2017; Xu, Jiang, Sun, Ye, Wang 2017",
    recognise=recognise,
    read=read,
)
