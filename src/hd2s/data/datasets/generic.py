"""Any data set that was put into the layout of hd2s itself.

Layout: `videos/<name>.mp4` (or another kind of video) or `frames/<name>/*` (images); `maps/<name>/*` (grey
images) or `maps/<name>.mp4` (maps in the brightness); `fixations/<name>.csv`, `fixations/<name>.json` or
`fixations/<name>/*` (binary images). A CSV file has the columns `x, y` and either `frame` (from 0) or
`start_ms, duration_ms`, and may have `viewer`. A JSON file has for each frame a list of pairs x, y.
`train.txt`, `validation.txt` and `test.txt` may list names, one a line; without them all is in "all".
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from hd2s.data.datasets.base import AnnotatedVideo, Found, Gaze, Layout, Maps, Pictures, Problem
from hd2s.data.datasets.listing import VIDEO_SUFFIXES, child, files, folders, plain_name
from hd2s.data.datasets.maps import MapFiles, MapVideo
from hd2s.data.datasets.pictures import FolderPictures, VideoPictures
from hd2s.data.datasets.points import PointFiles, PointLists, TablePoints, read_table
from hd2s.data.datasets.tables import read_names
from hd2s.data.images import natural_key
from hd2s.errors import DatasetFormatError

FPS = 25.0  # of folders of frames, which do not say it
SPLITS = ("train", "validation", "test")


def recognise(root: Path) -> bool:
    """Tell by `videos` with video files or `frames` with folders."""
    return bool(files(child(root, "videos"), VIDEO_SUFFIXES) or folders(child(root, "frames")))


def read(root: Path, split: str) -> Found:
    """List the videos of a split."""
    sources = _sources(root)
    names, problems = split_names(root, split, sorted(sources, key=natural_key))
    found = {part: _index(child(root, part)) for part in ("maps", "fixations")}
    videos = [
        AnnotatedVideo(
            name=name,
            domain="generic",
            pictures=sources[name],
            maps=_maps(found["maps"].get(name), sources[name]),
            gaze=_gaze(found["fixations"].get(name), sources[name]),
        )
        for name in names
    ]
    for paths in found.values():
        for name in sorted(paths.keys() - sources.keys(), key=natural_key):
            problems.append(Problem(paths[name], "no video has this name"))
    return videos, problems


def split_names(root: Path, split: str, known: list[str]) -> tuple[list[str], list[Problem]]:
    """Read which of the `known` names are in a split, from a text file in `root`.

    Raises:
        DatasetFormatError: There is no such file, or it holds something else than names.
    """
    if split == "all":
        return known, []
    path = child(root, f"{split}.txt")
    if not path.is_file():
        raise DatasetFormatError(
            f"{path} is missing: it lists the names of the split '{split}', one a line. "
            "Write it, or choose the split 'all'."
        )
    names = [plain_name(name, path) for name in read_names(path)]
    stems = {os.path.splitext(n)[0] if n not in known else n for n in names}
    missing = sorted(stems - set(known), key=natural_key)
    return [n for n in known if n in stems], [
        Problem(path, f"the video {name} is missing") for name in missing
    ]


def _sources(root: Path) -> dict[str, Pictures]:
    """Find the frames of each video; video files take precedence over folders."""
    frames, videos = child(root, "frames"), child(root, "videos")
    found: dict[str, Pictures] = {name: FolderPictures(frames / name, FPS) for name in folders(frames)}
    for name in files(videos, VIDEO_SUFFIXES):
        found[os.path.splitext(name)[0]] = VideoPictures(videos / name)
    return found


def _index(folder: Path) -> dict[str, Path]:
    """Key the files and folders of a folder by the name of their video."""
    kinds = VIDEO_SUFFIXES | {".csv", ".json"}
    found = {os.path.splitext(name)[0]: folder / name for name in files(folder, kinds)}
    return found | {name: folder / name for name in folders(folder)}


def _maps(path: Path | None, pictures: Pictures) -> Maps | None:
    if path is None:
        return None
    return MapFiles(path, pictures) if path.is_dir() else MapVideo(path, pictures)


def _gaze(path: Path | None, pictures: Pictures) -> Gaze | None:
    if path is None:
        return None
    if path.is_dir():
        return PointFiles(path, pictures)
    if path.suffix.lower() == ".json":
        return PointLists(path, pictures, rows_first=False)
    return TablePoints(partial(read_table, path), pictures)


LAYOUT = Layout(
    name="generic",
    title="any other",
    splits=SPLITS,
    description="videos/<name>.mp4 or frames/<name>/*, maps/<name>/* (or <name>.mp4), "
    "fixations/<name>.csv (or .json, or <name>/*), optionally train.txt, validation.txt, test.txt",
    license="that of the data",
    citation="that of the data",
    recognise=recognise,
    read=read,
)
