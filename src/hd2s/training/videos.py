"""What a recipe names, opened: data sets, and videos without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hd2s.data.datasets import AnnotatedVideo, find_layout, open_dataset
from hd2s.data.datasets.base import Pictures
from hd2s.data.datasets.listing import VIDEO_SUFFIXES, files, folders
from hd2s.data.datasets.pictures import FolderPictures, StillPictures, VideoPictures
from hd2s.data.images import IMAGE_SUFFIXES
from hd2s.data.video import expand_inputs
from hd2s.errors import DatasetNotFoundError, InputNotFoundError

PLAIN = "videos"  # the layout of what is no data set: video files and folders of frames

_FPS = 25.0  # of folders of frames, which do not say it


def open_videos(root: Path, *, layout: str | None, split: str) -> list[AnnotatedVideo]:
    """Open what a recipe names: a data set, or any videos that are to do without labels.

    Args:
        root: Folder of a data set; or a video file, a folder with video files or with folders of images (at
            any depth), or a pattern such as "clips/*.mp4".
        layout: Name of the data set; "videos" for any videos; None finds out by looking.
        split: Of the data set; other videos are not split.

    Raises:
        DatasetNotFoundError: There is no such folder, or nothing in it that is understood, or no video.
        DatasetFormatError: It may be one of several data sets, or a list in it cannot be read.
        UnknownNameError: There is no such data set, or it has no such split.
        InputNotFoundError: A pattern matches nothing.
    """
    if layout is None:
        try:
            layout = find_layout(root).name if root.is_dir() else PLAIN
        except DatasetNotFoundError as error:
            return _plain_videos(root, f" {error}")
    return _plain_videos(root) if layout == PLAIN else open_dataset(root, split, layout).videos


def _plain_videos(root: Path, hint: str = "") -> list[AnnotatedVideo]:
    """List videos without labels; their names are their paths from `root` on."""
    matches = [Path(match) for match in expand_inputs([os.fspath(root)])]
    if not all(match.exists() for match in matches):
        raise InputNotFoundError(f"There is no data set, video, folder or pattern '{root}'.")
    base = Path(os.path.commonpath(matches))
    videos = []
    for pictures in (pictures for match in matches for pictures in _pictures(match)):
        place = pictures.path.relative_to(base)
        name = "-".join(place.parts) or pictures.path.name
        videos.append(AnnotatedVideo(name=name, domain=PLAIN, pictures=pictures))
    if not videos:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise DatasetNotFoundError(
            f"There are no videos ({kinds}) and no folders of images in '{root}'.{hint}"
        )
    return videos


def _pictures(path: Path) -> Iterator[Pictures]:
    """Find video files and, where there are none, images, in a folder and those below."""
    if path.is_dir():
        videos = files(path, VIDEO_SUFFIXES)
        yield from (VideoPictures(path / name) for name in videos)
        if not videos and files(path):
            yield FolderPictures(path, _FPS)
        for name in folders(path):
            yield from _pictures(path / name)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield VideoPictures(path)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield StillPictures(path)
