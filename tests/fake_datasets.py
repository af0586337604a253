"""Miniature data sets in the layouts in which they are published, with the irregularities met in the wild.

What belongs to frame i can be told by looking: its map is `grey(i)` everywhere, and somebody looks at
column i of row 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from fakes import make_folder, make_video

HEIGHT, WIDTH = 32, 48
LOOKED_AT_ROW = 2


def grey(index: int) -> int:
    """Brightness of the map of a frame, of 255."""
    return 10 * (index + 1)


def write_map(path: Path, index: int, size_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write the density map of a frame."""
    write_grey(path, np.full(size_hw, grey(index), np.uint8))


def write_fixation(path: Path, index: int, size_hw: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Write the fixations of a frame as a binary image."""
    image = np.zeros(size_hw, np.uint8)
    image[LOOKED_AT_ROW, index] = 255
    write_grey(path, image)


def write_grey(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Write any array as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def make_dhf1k(root: Path) -> Path:
    """Write DHF1K with the videos 1, 2 (to train on), 601, 602 (to validate on) and 701 (without labels).

    * 1: 12 frames, the maps 1 to 12 with names of both kinds (0001.png, 2.PNG, ...) and `Thumbs.db`.
    * 2: without a map of its frame 3 (from 0), and with one map too many.
    * 601: as it should be.
    * 602: extracted frames, and fixations in MATLAB files only.
    """
    (root / "video").mkdir(parents=True)
    for name in ("001.AVI", "2.avi", "601.AVI", "0701.AVI"):
        make_video(root / "video" / name.lower(), num_frames=12, codec="mpeg4", options={"g": "6", "bf": "2"})
        (root / "video" / name.lower()).rename(root / "video" / name)
    (root / "video" / "Thumbs.db").write_bytes(b"no video")
    notes = root / "annotation"
    for index in range(12):
        name = f"{index + 1:04d}.png" if index % 3 else f"{index + 1}.png"
        write_map(notes / "0001" / "maps" / name, index)
        write_fixation(notes / "0001" / "fixation" / name, index)
        if index % 2:
            (notes / "0001" / "maps" / name).rename(notes / "0001" / "maps" / name.upper())
        if index != 3:
            write_map(notes / "0002" / "maps" / f"{index + 1:04d}.png", index)
        write_fixation(notes / "0002" / "fixation" / f"{index + 1:04d}.png", index)
        write_map(notes / "0601" / "maps" / f"{index + 1:04d}.png", index)
        write_fixation(notes / "0601" / "fixation" / f"{index + 1:04d}.png", index)
        write_map(notes / "0602" / "maps" / f"{index + 1:04d}.png", index)
    (notes / "0001" / "maps" / "Thumbs.db").write_bytes(b"no map")
    write_map(notes / "0002" / "maps" / "0013.png", 12)
    make_folder(root / "frames" / "602", num_frames=12, suffix=".JPG")
    (notes / "0602" / "fixation" / "maps").mkdir(parents=True)
    (notes / "0602" / "fixation" / "maps" / "0001.mat").write_bytes(b"MATLAB 5.0")
    return root


def make_shots(root: Path, shots: Sequence[str], first: int = 12) -> Path:
    """Write Hollywood-2 or UCF Sports with some shots, of which all but the first are in `testing`.

    The shots have 3, 4, 5, ... frames, whose numbers begin with `first`.
    """
    for number, shot in enumerate(shots):
        folder = root / ("testing" if number else "training") / shot
        make_folder(folder / "images", num_frames=3 + number)
        for index in range(3 + number):
            name = f"{shot}_{first + index:05d}.png"
            (folder / "images" / f"img{index + 1}.png").rename(folder / "images" / name)
            write_map(folder / "maps" / name, index)
            write_fixation(folder / "fixation" / name, index)
    return root


def make_ledov(root: Path) -> Path:
    """Write LEDOV with a video (fixations in MATLAB) and a folder of frames (with maps), and a split."""
    for name in ("animal_bear01", "human_talk02"):
        (root / name).mkdir(parents=True)
        (root / name / "Data.mat").write_bytes(b"MATLAB 5.0")
    make_video(root / "animal_bear01" / "animal_bear01.mp4", num_frames=6)
    make_folder(root / "human_talk02" / "frames", num_frames=4)
    for index in range(4):
        write_map(root / "human_talk02" / "maps" / f"{index + 1}.png", index)
        write_fixation(root / "human_talk02" / "fixation" / f"{index + 1}.png", index)
    (root / "validation.txt").write_text("# held out\nhuman_talk02\n\n")
    return root


def make_avimos(root: Path, images: str = "fixations_maps") -> Path:
    """Write AViMoS (`images="fixations"`) or NTIRE 2026: one video to train on, two to test on.

    The private one has no labels. In the others, two people look at the same place of each frame.
    """
    (root / "Videos").mkdir(parents=True)
    splits = {"train": ["0001"], "public_test": ["0002"], "private_test": ["0010"]}
    (root / "TrainTestSplit.json").write_text(json.dumps(splits))
    for name in ("0001", "0002", "0010"):
        make_video(root / "Videos" / f"{name}.mp4", num_frames=8)
    for name, part in (("0001", "Train"), ("0002", "Test")):
        (root / f"Saliency{part}" / part).mkdir(parents=True)
        write_map_video(root / f"Saliency{part}" / part / f"{name}.mp4", 8)
        folder = root / f"Fixations{part}" / part / name
        (folder / images).mkdir(parents=True)
        pairs = [[[LOOKED_AT_ROW, index]] * 2 for index in range(8)]
        (folder / "fixations.json").write_text(json.dumps(pairs))
    return root


def write_map_video(path: Path, num_frames: int, pix_fmt: str = "yuv420p10le") -> Path:
    """Write maps that are brighter from left to right and from frame to frame, without loss.

    `ramp` tells their values.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0", "g": "4"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        for index in range(num_frames):
            picture = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
            for number, plane in enumerate(picture.planes):
                rows = np.full((plane.height, plane.line_size // 2), 512, "<u2")
                if number == 0:
                    rows[:, :WIDTH] = ramp(index)
                plane.update(rows.tobytes())
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def ramp(index: int) -> NDArray[np.uint16]:
    """The 10-bit brightness (W,) of each column of a frame of `write_map_video`, from black (64) on."""
    return (64 + 100 * index + np.arange(WIDTH)).astype(np.uint16)


def make_generic(root: Path) -> Path:
    """Write a data set in the layout of hd2s: each kind of frames, maps and fixations once, and splits.

    * street: a video, maps in images, fixations by frame in a table with viewers.
    * b: frames, maps in a video, fixations in lists.
    * talk: a video, no maps, fixations by time.
    * bare: a video without labels.
    """
    (root / "videos").mkdir(parents=True)
    (root / "fixations").mkdir()
    for name in ("street", "talk", "bare"):
        make_video(root / "videos" / f"{name}.mp4", num_frames=6)
    make_folder(root / "frames" / "b", num_frames=6)
    for index in range(6):
        write_map(root / "maps" / "street" / f"{index}.png", index)
    write_map_video(root / "maps" / "b.mp4", 6)
    rows = [f"{index},{index},2,{viewer}\n" for index in range(6) for viewer in (5, 7)]
    (root / "fixations" / "street.csv").write_text("frame,x,y,viewer\n" + "".join(rows))
    (root / "fixations" / "b.json").write_text(json.dumps([[[i, 2]] for i in range(6)]))
    rows = [f"{40 * i},39,{i},2\n" for i in range(6)]
    (root / "fixations" / "talk.csv").write_text("start_ms,duration_ms,x,y\n" + "".join(rows))
    (root / "train.txt").write_text("street\nb\n")
    (root / "test.txt").write_text("bare\n")
    return root
