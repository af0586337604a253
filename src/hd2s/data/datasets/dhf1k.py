"""DHF1K: 1,000 videos from YouTube, watched by 17 people each.

Layout: `video/001.AVI`, `annotation/0001/{maps,fixation}/0001.png`. Frames may have been extracted to
`frames/<id>/` or `annotation/<id>/images/`; they are used where the video file is missing. The fixations
that are also in `annotation/<id>/fixation/maps/*.mat` are read from the PNG files only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hd2s.data.datasets.base import AnnotatedVideo, Found, Gaze, Layout, Maps, Pictures, Problem
from hd2s.data.datasets.listing import VIDEO_SUFFIXES, child, files, folders, has_files, number_in
from hd2s.data.datasets.maps import MapFiles
from hd2s.data.datasets.pictures import FolderPictures, VideoPictures
from hd2s.data.datasets.points import PointFiles

FPS = 30.0
NUMBERS = {"train": range(1, 601), "validation": range(601, 701), "test": range(701, 1001)}


def recognise(root: Path) -> bool:
    """Tell by `annotation`, or a folder `video` with numbered files."""
    return child(root, "annotation").is_dir() or bool(_numbered(files(child(root, "video"), VIDEO_SUFFIXES)))


def read(root: Path, split: str) -> Found:
    """List the videos of a split."""
    wanted = [n for s in ([split] if split != "all" else list(NUMBERS)) for n in NUMBERS[s]]
    annotation = child(root, "annotation")
    annotated = _numbered(folders(annotation))
    sources = _sources(root, annotation, annotated)
    videos: list[AnnotatedVideo] = []
    problems = list(_strangers(root, sources, annotated))
    for number in wanted:
        pictures, labels = sources.get(number), annotated.get(number)
        name = f"{number:04d}"
        if pictures is None:
            if labels is not None:
                problems.append(Problem(annotation / labels, f"the video {name} itself is missing"))
            continue
        maps, gaze = _truth(None if labels is None else annotation / labels, pictures, problems)
        if maps is None and gaze is None and number not in NUMBERS["test"]:
            problems.append(Problem(pictures.path, f"the video {name} has neither maps nor fixations"))
        videos.append(AnnotatedVideo(name=name, domain="dhf1k", pictures=pictures, maps=maps, gaze=gaze))
    return videos, problems


def _sources(root: Path, annotation: Path, annotated: dict[int, str]) -> dict[int, Pictures]:
    """Find the frames of each video: extracted ones first, so that video files take precedence."""
    found: dict[int, Pictures] = {}
    for number, name in annotated.items():
        if child(annotation / name, "images").is_dir():
            found[number] = FolderPictures(child(annotation / name, "images"), FPS)
    frames, video = child(root, "frames"), child(root, "video")
    found |= {n: FolderPictures(frames / name, FPS) for n, name in _numbered(folders(frames)).items()}
    found |= {n: VideoPictures(video / name) for n, name in _numbered(files(video, VIDEO_SUFFIXES)).items()}
    return found


def _truth(
    folder: Path | None, pictures: Pictures, problems: list[Problem]
) -> tuple[Maps | None, Gaze | None]:
    """Find maps and fixations in the annotation folder of a video."""
    if folder is None:
        return None, None
    maps, fixation = child(folder, "maps"), child(folder, "fixation")
    has_images = has_files(fixation)
    if not has_images and fixation.is_dir():
        mats = files(child(fixation, "maps"), frozenset({".mat"}))
        what = f"{len(mats)} MATLAB files, which are not read, and no images" if mats else "no images"
        problems.append(Problem(fixation, f"holds {what}: there are no fixations of this video"))
    return (
        MapFiles(maps, pictures) if maps.is_dir() else None,
        PointFiles(fixation, pictures) if has_images else None,
    )


def _numbered(names: list[str]) -> dict[int, str]:
    """Key names by the number in them; of two with one number, the first counts."""
    numbered: dict[int, str] = {}
    for name in names:
        number = number_in(name)
        if number is not None:
            numbered.setdefault(number, name)
    return numbered


def _strangers(root: Path, sources: dict[int, Pictures], annotated: dict[int, str]) -> Iterator[Problem]:
    """Report what has a number that no video of DHF1K has."""
    for number in sorted((sources.keys() | annotated.keys()) - set(range(1, 1001))):
        yield Problem(root, f"the number {number} is not of DHF1K, which has 1 to 1000: left out")


LAYOUT = Layout(
    name="dhf1k",
    title="DHF1K",
    splits=tuple(NUMBERS),
    description="video/001.AVI (or frames/001/, or annotation/0001/images/), "
    "annotation/0001/{maps,fixation}/0001.png",
    license="CC BY 4.0",
    citation="Wang, Shen, Guo, Cheng, Borji: Revisiting Video Saliency, CVPR 2018",
    recognise=recognise,
    read=read,
)
