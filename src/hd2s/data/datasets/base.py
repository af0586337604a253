"""What a data set is: videos with the gaze of people who watched them.

How it is used:

    data = open_dataset("DHF1K", split="validation")    # finds the layout by looking
    data.problems                                        # what is wrong with it, as far as names tell
    for video in data.videos:
        video.name, video.num_frames, video.fps          # "0601", 450, 30.0
        for frame in open_source(video.source): ...      # in order, as for prediction
        video.frames([7, 8, 9])                          # any frames, (H, W, 3) uint8 RGB
        if video.labelled:
            video.truth_size                             # (H, W) of maps and fixations
            video.density(7)                             # (H, W) float32, or None: no map of this frame
            video.fixations(7)                           # (N, 2) float32 x, y, or None: not known
            video.viewers(7)                             # (N,) who looked there, or None: not known

Opening reads the names in a few folders. All else is read when asked for: the names of a video's maps,
its packets, single maps. Objects hold no open files and can be sent to workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        path: File or folder.
        message: What is wrong with it, in words.
        fatal: Whether what it concerns cannot be used; else it is only worth knowing.
    """

    path: Path
    message: str
    fatal: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Pictures(ABC):
    """The frames of a video, by number."""

    path: Path

    @property
    @abstractmethod
    def fps(self) -> float:
        """Frames a second."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of frames."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Return frames as (H, W, 3) uint8 RGB."""

    def names(self) -> Sequence[str] | int:
        """Return the file names of the frames, or their number where they have none."""
        return len(self)


class Maps(ABC):
    """Where people looked, as densities."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width."""

    @abstractmethod
    def density(self, index: int) -> NDArray[np.float32] | None:
        """Return the (H, W) map of a frame; None if it has none."""

    @abstractmethod
    def count(self) -> int:
        """Return how many maps there are."""

    def examine(self, decode: bool) -> Iterator[Problem]:
        """Look for irregularities: in names and headers, or in the maps themselves too."""
        yield from ()


class Gaze(ABC):
    """Where people looked, as points."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Height and width of what the points lie in."""

    @abstractmethod
    def points(self, index: int) -> NDArray[np.float32] | None:
        """Return the (N, 2) x, y of a frame as stored, also those outside; None if they are not known."""

    def viewers(self, index: int) -> NDArray[np.int64] | None:
        """Return who looked at each of the points (N,); None if it is not known."""
        return None

    def examine(self) -> Iterator[Problem]:
        """Look for irregularities in names."""
        yield from ()


@dataclass(frozen=True, eq=False, kw_only=True)
class AnnotatedVideo:
    """A video and, where it is labelled, what people looked at. An image is a video of one frame.

    Attributes:
        name: Unique in its data set, and fit for a file name, such as "0001" or "actioncliptest00001_1".
        domain: Which data the video comes from, such as "dhf1k".
        pictures: Its frames.
        maps: Its density maps, or None.
        gaze: Its fixations, or None.
        group: What its scores are averaged with before they count: its own name, but that of their
            folder for images, so that they weigh as the frames of one video.
    """

    name: str
    domain: str
    pictures: Pictures
    maps: Maps | None = None
    gaze: Gaze | None = None
    group: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.name)

    def __repr__(self) -> str:
        return f"AnnotatedVideo({self.domain}/{self.name}, labelled={self.labelled})"

    @property
    def source(self) -> Path:
        """What `open_source` reads in order: a video file, a folder of frames, or an image."""
        return self.pictures.path

    @property
    def num_frames(self) -> int:
        """Number of frames; the first time, a video file is read for it, but not decoded."""
        return len(self.pictures)

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.pictures.fps

    @property
    def labelled(self) -> bool:
        """Whether it can be scored; a video without maps and fixations can still be predicted."""
        return self.maps is not None or self.gaze is not None

    @property
    def truth_size(self) -> tuple[int, int]:
        """Height and width of maps and fixations; of the pictures if there are none."""
        return (self.maps or self.gaze or self.pictures).size

    def frames(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Read frames in any order; each is decoded once.

        Returns:
            For each index an (H, W, 3) uint8 RGB array, equal to that of `open_source(source)`.

        Raises:
            IndexError: There is no such frame.
            VideoDecodeError: A frame cannot be decoded.
            DatasetFormatError: The frames differ in size.
        """
        return self.pictures.frames(indices)

    def density(self, index: int) -> NDArray[np.float32] | None:
        """Read the density map of a frame.

        Returns:
            (H, W) float32, not negative. Stored maps are on the scale [0, 1], with the precision that they
            have; those made of fixations count fixations. None if there is no map of this frame.

        Raises:
            DatasetFormatError: The map cannot be read, is coloured, or not of the size of the others.
        """
        return None if self.maps is None else self.maps.density(index)

    def fixations(self, index: int) -> NDArray[np.float32] | None:
        """Read the fixations of a frame; those outside of the picture are left out.

        Returns:
            (N, 2) float32 x, y in pixels of `truth_size`; rounded down they are the column and the row.
            Coincident fixations are repeated if the data set tells them apart. N is 0 if nobody looked;
            None if that is not known.

        Raises:
            DatasetFormatError: They cannot be read.
        """
        points = None if self.gaze is None else self.gaze.points(index)
        return None if points is None else points[self._inside(points)]

    def viewers(self, index: int) -> NDArray[np.int64] | None:
        """Read who looked at each of the `fixations` of a frame.

        Returns:
            (N,) numbers of viewers, or None if they are not known.
        """
        if self.gaze is None:
            return None
        viewers, points = self.gaze.viewers(index), self.gaze.points(index)
        return None if viewers is None or points is None else viewers[self._inside(points)]

    def _inside(self, points: NDArray[np.float32]) -> NDArray[np.bool_]:
        return inside(points, self.truth_size)


def inside(points: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which points (N, 2) lie in a picture of a size."""
    height, width = size_hw
    x, y = points.T
    within: NDArray[np.bool_] = np.logical_and.reduce((x >= 0, x < width, y >= 0, y < height))
    return within


@dataclass(frozen=True, eq=False)
class DataSet:
    """The videos of one split of a data set.

    Attributes:
        name: As in the registry, such as "dhf1k".
        root: Its folder.
        split: Such as "validation".
        videos: In natural order of their names; what is unusable by its names alone is left out.
        problems: What is wrong as far as names tell. `examine` looks further.
    """

    name: str
    root: Path
    split: str
    videos: list[AnnotatedVideo]
    problems: list[Problem]

    def __repr__(self) -> str:
        return f"DataSet({self.name}, {self.split}, {len(self.videos)} videos, {len(self.problems)} problems)"


Found = tuple[list[AnnotatedVideo], list[Problem]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A data set that hd2s can read.

    Attributes:
        name: For the command line and for `domain`.
        title: Its name in print.
        splits: What it is divided into, without "all".
        description: How it lies on disk, in words.
        license: Under which licence; says if none is stated.
        citation: Whom to cite.
        recognise: Tells by a few names in a folder whether that may be it.
        read: Lists the videos of a split, "all" too.
    """

    name: str
    title: str
    splits: tuple[str, ...]
    description: str
    license: str
    citation: str
    recognise: Callable[[Path], bool]
    read: Callable[[Path, str], Found]
