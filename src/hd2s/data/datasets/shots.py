"""What Hollywood-2 and UCF Sports have in common: one folder a shot, in `training` and `testing`."""

from __future__ import annotations

import re
from pathlib import Path

from hd2s.data.datasets.base import AnnotatedVideo, Found, Problem
from hd2s.data.datasets.listing import child, folders, has_files
from hd2s.data.datasets.maps import MapFiles
from hd2s.data.datasets.pictures import FolderPictures
from hd2s.data.datasets.points import PointFiles

FOLDERS = {"train": "training", "test": "testing"}
DESCRIPTION = "{training,testing}/<shot>/{images,maps,fixation}/*.png"


def names_match(root: Path, pattern: str) -> bool:
    """Tell whether there are shots, and whether the name of one matches a pattern without regard to case.

    Shots of which no data set's pattern is known match neither.
    """
    shots = [name for folder in FOLDERS.values() for name in folders(child(root, folder))]
    return any(re.match(pattern, name, re.IGNORECASE) for name in shots)


def read(root: Path, split: str, domain: str, fps: float) -> Found:
    """List the shots of a split."""
    videos: list[AnnotatedVideo] = []
    problems: list[Problem] = []
    for part in [split] if split != "all" else list(FOLDERS):
        parent = child(root, FOLDERS[part])
        if not parent.is_dir():
            problems.append(Problem(parent, "the folder is missing"))
        for name in folders(parent):
            video = _shot(parent / name, domain, fps, problems)
            if video is not None:
                videos.append(video)
    return videos, problems


def _shot(folder: Path, domain: str, fps: float, problems: list[Problem]) -> AnnotatedVideo | None:
    images, maps, fixation = (child(folder, name) for name in ("images", "maps", "fixation"))
    if not images.is_dir():
        problems.append(
            Problem(images, f"the shot {folder.name} has no folder of images: left out", fatal=True)
        )
        return None
    pictures = FolderPictures(images, fps)
    if not maps.is_dir():
        problems.append(Problem(maps, f"the shot {folder.name} has no folder of maps"))
    has_fixations = has_files(fixation)
    if not has_fixations:
        problems.append(Problem(fixation, f"the shot {folder.name} has no images of fixations"))
    return AnnotatedVideo(
        name=folder.name,
        domain=domain,
        pictures=pictures,
        maps=MapFiles(maps, pictures) if maps.is_dir() else None,
        gaze=PointFiles(fixation, pictures) if has_fixations else None,
    )
