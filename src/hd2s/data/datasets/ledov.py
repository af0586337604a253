"""LEDOV: 538 videos, watched by 32 people.

Layout: one folder a video, `<name>/<name>.mp4` (or images, in it or in `<name>/images` or `<name>/frames`)
with `<name>/Data.mat`, whose `Data.fixdata` has rows of viewer, start and duration in milliseconds, x, y.
MATLAB files are not read: those rows are, from `<name>/fixations.csv` with the header `viewer, start_ms,
duration_ms, x, y`, or else fixations from the images of `<name>/fixation`. Maps are those in `<name>/maps`,
or made of the rows. The published lists of splits are in `namelist.mat`: `train.txt`, `validation.txt` and
`test.txt` take their place.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hd2s.data.datasets import generic
from hd2s.data.datasets.base import AnnotatedVideo, Found, Gaze, Layout, Maps, Pictures, Problem
from hd2s.data.datasets.listing import VIDEO_SUFFIXES, child, files, folders, has_files
from hd2s.data.datasets.maps import BlurredGaze, MapFiles
from hd2s.data.datasets.pictures import FolderPictures, VideoPictures
from hd2s.data.datasets.points import PointFiles, TablePoints, read_table

FPS = 24.0  # of folders of frames; the video files say it themselves
DATA_FILE, TABLE = "Data.mat", "fixations.csv"

_LOOKED_AT = 20  # folders, to tell whether it is LEDOV


def recognise(root: Path) -> bool:
    """Tell by a folder with `Data.mat` or with the video of its own name."""
    return any(
        (root / name / DATA_FILE).is_file() or (root / name / f"{name}.mp4").is_file()
        for name in folders(root)[:_LOOKED_AT]
    )


def read(root: Path, split: str) -> Found:
    """List the videos of a split."""
    names, problems = generic.split_names(root, split, folders(root))
    videos = []
    for name in names:
        pictures = _pictures(root / name)
        if pictures is None:
            problems.append(Problem(root / name, "holds neither a video nor images: left out"))
        else:
            videos.append(_video(root / name, pictures, problems))
    return videos, problems


def _pictures(folder: Path) -> Pictures | None:
    """Find the frames of a video."""
    video = [name for name in files(folder, VIDEO_SUFFIXES) if name.startswith(folder.name)]
    if video:
        return VideoPictures(folder / video[0])
    for images in (child(folder, "frames"), child(folder, "images"), folder):
        if has_files(images):
            return FolderPictures(images, FPS)
    return None


def _video(folder: Path, pictures: Pictures, problems: list[Problem]) -> AnnotatedVideo:
    stored, fixation = child(folder, "maps"), child(folder, "fixation")
    maps: Maps | None = MapFiles(stored, pictures) if stored.is_dir() else None
    gaze: Gaze | None = None
    if (folder / TABLE).is_file():
        gaze = TablePoints(partial(read_table, folder / TABLE), pictures)
        maps = maps or BlurredGaze(gaze, pictures)
    elif has_files(fixation):
        gaze = PointFiles(fixation, pictures)
    elif (folder / DATA_FILE).is_file():
        text = f"its fixations are in a MATLAB file, which is not read: write them to {TABLE}"
        problems.append(Problem(folder, text))
    else:
        problems.append(Problem(folder, "it has no fixations"))
    return AnnotatedVideo(name=folder.name, domain="ledov", pictures=pictures, maps=maps, gaze=gaze)


LAYOUT = Layout(
    name="ledov",
    title="LEDOV",
    splits=generic.SPLITS,
    description="<name>/<name>.mp4 (or images), <name>/fixations.csv or <name>/{maps,fixation}/*, "
    "optionally train.txt, validation.txt, test.txt",
    license="free to use, citing the paper",
    citation="Jiang, Xu, Liu, Qiao, Wang: DeepVS, ECCV 2018",
    recognise=recognise,
    read=read,
)
