"""A closer look at a data set: counting what is there, and finding what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hd2s.data.datasets.base import AnnotatedVideo, Gaze, Problem, inside
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError, HD2SError

SHORT = 16  # frames: shorter videos are continued by reflection


@dataclass
class Counts:
    """What a data set, or a video of it, holds.

    Attributes:
        videos: Videos that can be read.
        labelled: Videos with maps or fixations.
        frames: Frames of the videos.
        maps: Density maps, stored or made of fixations.
        fixations: Fixations in the pictures; those that last over several frames count in each.
        outside: Fixations outside of the pictures, which are left out.
        unwatched: Frames with known fixations of which none is in the picture; they are not scored.
        short: Videos of fewer than 16 frames; they are continued by reflection.
        problems: What is not as it should be.
    """

    videos: int = 0
    labelled: int = 0
    frames: int = 0
    maps: int = 0
    fixations: int = 0
    outside: int = 0
    unwatched: int = 0
    short: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the counts of another video."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def examine(video: AnnotatedVideo, *, decode: bool = False) -> Counts:
    """Count what belongs to a video: its packets, the headers of its maps, its fixations.

    Args:
        video: The video.
        decode: Decode all frames and maps too, which takes long and finds damage in them.
    """
    counts = Counts()
    with _reporting(video, counts):
        counts.frames = video.num_frames
        _ = video.pictures.size  # a folder without images has none, which is an error
        counts.videos, counts.labelled = 1, int(video.labelled)
        counts.short = int(1 < counts.frames < SHORT)
        if decode:
            counts.problems += _decode(video)
    if counts.videos and video.maps is not None:
        with _reporting(video, counts):
            counts.problems += video.maps.examine(decode)
            counts.maps = video.maps.count()
    if counts.videos and video.gaze is not None:
        with _reporting(video, counts):
            counts.problems += video.gaze.examine()
            _count_fixations(video, video.gaze, counts)
    return counts


@contextmanager
def _reporting(video: AnnotatedVideo, counts: Counts) -> Iterator[None]:
    """Make a problem of an error."""
    try:
        yield
    except HD2SError as error:
        counts.problems.append(Problem(video.source, str(error), fatal=True))


def _decode(video: AnnotatedVideo) -> Iterator[Problem]:
    """Decode all frames in order."""
    with open_source(video.source, fps=video.fps) as source:
        count = sum(1 for _ in source)
        yield from (Problem(video.source, problem) for problem in source.problems)
    if count != video.num_frames:
        yield Problem(video.source, f"{video.num_frames} frames by its packets, but {count} can be decoded")


def _count_fixations(video: AnnotatedVideo, gaze: Gaze, counts: Counts) -> None:
    """Read the fixations of all frames."""
    size = video.truth_size
    if gaze.size != size:
        raise DatasetFormatError(
            f"The fixations of {video.name} lie in {gaze.size}, its maps are {size} (H, W)."
        )
    for index in range(counts.frames):
        points = gaze.points(index)
        if points is None:
            continue
        within = int(inside(points, size).sum())
        counts.fixations += within
        counts.outside += len(points) - within
        counts.unwatched += within == 0
    if counts.fixations == 0:
        counts.problems.append(Problem(video.source, "nobody looks at this video: it has no fixations"))
    elif counts.outside:
        text = f"{counts.outside} fixations are outside of the picture, and left out"
        counts.problems.append(Problem(video.source, text))
    if counts.fixations and counts.unwatched:
        text = f"{counts.unwatched} frames have no fixations, and are not scored"
        counts.problems.append(Problem(video.source, text))
