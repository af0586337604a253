"""The data of the AIM 2024 and NTIRE 2026 challenges: full HD videos, watched by over 70 people each.

Layout: `Videos/<name>.mp4`, `TrainTestSplit.json` with lists of names, `SaliencyTrain|SaliencyTest/.../
<name>.mp4` with density maps in the brightness, `FixationsTrain|FixationsTest/.../<name>/fixations.json`
with a list of pairs for each frame. The pairs are row and column: so the organisers' `bench.py` indexes
maps by them. They were recorded with a mouse that uncovers a sharp spot, not with an eye tracker.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hd2s.data.datasets.base import AnnotatedVideo, Found, Layout, Problem
from hd2s.data.datasets.listing import VIDEO_SUFFIXES, child, files, folders, plain_name
from hd2s.data.datasets.maps import MapVideo
from hd2s.data.datasets.pictures import VideoPictures
from hd2s.data.datasets.points import PointLists
from hd2s.data.datasets.tables import read_json
from hd2s.data.images import natural_key
from hd2s.errors import DatasetFormatError

SPLIT_FILE = "TrainTestSplit.json"
# The organisers' test set has a public part, whose labels could be had by anyone at the time of the
# challenge, and a private part. Here the public one serves for validation.
SPLITS = {"train": "train", "validation": "public_test", "test": "private_test"}
# Folders of binary images beside fixations.json, which tell the two challenges apart; they are not read.
IMAGES = {"aim2024": "fixations", "ntire2026": "fixations_maps"}

_DEPTH = 3  # folders between SaliencyTest and a video's file


def recognise(root: Path, name: str) -> bool:
    """Tell by the file of splits; where there are fixations, by what lies beside them."""
    if not child(root, SPLIT_FILE).is_file():
        return False
    for parent in _parts(root, "Fixations"):
        for path in _walk(parent):
            beside = [kind for kind, images in IMAGES.items() if (path / images).is_dir()]
            if beside:
                return name in beside
    return True


def read(root: Path, split: str, domain: str) -> Found:
    """List the videos of a split."""
    names = _split_names(child(root, SPLIT_FILE), split)
    folder = child(root, "Videos")
    sources = {os.path.splitext(name)[0]: folder / name for name in files(folder, VIDEO_SUFFIXES)}
    maps = {path.stem: path for part in _parts(root, "Saliency") for path in _videos(part)}
    fixations = {
        path.name: path / "fixations.json"
        for part in _parts(root, "Fixations")
        for path in _walk(part)
        if (path / "fixations.json").is_file()
    }
    videos: list[AnnotatedVideo] = []
    problems: list[Problem] = []
    for name in names:
        if name not in sources:
            problems.append(Problem(folder, f"the video {name} of {SPLIT_FILE} is missing"))
            continue
        pictures = VideoPictures(sources[name])
        video = AnnotatedVideo(
            name=name,
            domain=domain,
            pictures=pictures,
            maps=MapVideo(maps[name], pictures) if name in maps else None,
            gaze=PointLists(fixations[name], pictures, rows_first=True) if name in fixations else None,
        )
        if (video.maps is None) != (video.gaze is None):
            lacks = "maps" if video.maps is None else "fixations"
            problems.append(Problem(sources[name], f"there are no {lacks} of the video {name}"))
        videos.append(video)
    return videos, problems


def _split_names(path: Path, split: str) -> list[str]:
    """Read the names of a split, without suffix."""
    lists = read_json(path)
    wanted = [SPLITS[split]] if split != "all" else list(SPLITS.values())
    if not isinstance(lists, dict) or any(not isinstance(lists.get(key), list) for key in wanted):
        raise DatasetFormatError(f"{path} must hold the lists {', '.join(SPLITS.values())}.")
    names = [plain_name(name, path) for key in wanted for name in lists[key]]
    stems = {os.path.splitext(n)[0] if n.lower().endswith(".mp4") else n for n in names}
    return sorted(stems, key=natural_key)


def _parts(root: Path, kind: str) -> list[Path]:
    """Return the folders such as SaliencyTrain and SaliencyTest that are there."""
    return [path for path in (child(root, kind + part) for part in ("Train", "Test")) if path.is_dir()]


def _videos(folder: Path) -> Iterator[Path]:
    """Find video files in a folder and a few folders below."""
    for path in [folder, *_walk(folder)]:
        yield from (path / name for name in files(path, VIDEO_SUFFIXES))


def _walk(folder: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield the folders below a folder, a few levels deep; those with fixations.json are not entered."""
    for name in folders(folder):
        yield folder / name
        if depth > 1 and not (folder / name / "fixations.json").is_file():
            yield from _walk(folder / name, depth - 1)


def _layout(name: str, title: str, citation: str) -> Layout:
    return Layout(
        name=name,
        title=title,
        splits=tuple(SPLITS),
        description=f"Videos/*.mp4, {SPLIT_FILE}, Saliency{{Train,Test}}/*/<video>.mp4, "
        "Fixations{Train,Test}/*/<video>/fixations.json",
        license="CC BY",
        citation=citation,
        recognise=partial(recognise, name=name),
        read=partial(read, domain=name),
    )


AIM2024 = _layout(
    "aim2024",
    "AViMoS (AIM 2024)",
    "Moskalenko et al.: AIM 2024 Challenge on Video Saliency Prediction, ECCV Workshops 2024",
)
NTIRE2026 = _layout(
    "ntire2026",
    "NTIRE 2026",
    "Moskalenko et al.: NTIRE 2026 Challenge on Video Saliency Prediction, CVPR Workshops 2026",
)
