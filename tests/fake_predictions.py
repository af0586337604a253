"""A miniature data set with lively maps and viewers, and predictions of it in all forms on disk."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from fake_datasets import write_grey
from fakes import make_folder
from hd2s.data.datasets import AnnotatedVideo
from hd2s.evaluation.crew import Worker

HEIGHT, WIDTH = 24, 32
PLACES = 4  # that people look at in each frame: each of the viewers 0 to 3 at one


@dataclass(frozen=True)
class Scene:
    """What a miniature data set holds.

    Attributes:
        root: The data set, in the layout "generic"; "train" is in the split train, the rest in validation.
        predictions: {video: (N, H, W) uint8}.
        densities: {video: (N, H, W) uint8}.
        points: {video: (N, PLACES, 2) x, y}.
    """

    root: Path
    predictions: dict[str, NDArray[np.uint8]]
    densities: dict[str, NDArray[np.uint8]]
    points: dict[str, NDArray[np.float64]]


def make_scene(root: Path, lengths: tuple[int, ...] = (3, 5, 4), height: int = HEIGHT) -> Scene:
    """Write a data set with the videos "v1", "v2", ... of so many frames, and "train" of two."""
    rng = np.random.default_rng(7)
    scene = Scene(root, {}, {}, {})
    names = [f"v{number}" for number in range(1, len(lengths) + 1)]
    for name, count in zip([*names, "train"], [*lengths, 2], strict=True):
        make_folder(root / "frames" / name, num_frames=count, height=height, width=WIDTH)
        scene.predictions[name] = np.stack([lively(rng, height) for _ in range(count)])
        scene.densities[name] = np.stack([lively(rng, height) for _ in range(count)])
        scene.points[name] = rng.uniform((0, 0), (WIDTH, height), (count, PLACES, 2)).round(2) * 0.99
        for index, density in enumerate(scene.densities[name]):
            write_grey(root / "maps" / name / f"{index + 1}.png", density)
        write_points(root, name, scene.points[name])
    (root / "validation.txt").write_text("\n".join(names))
    (root / "train.txt").write_text("train\n")
    return scene


def lively(rng: np.random.Generator, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Make a smooth random map that uses all levels."""
    rough = cv2.GaussianBlur(rng.random((height, WIDTH)).astype(np.float32), (0, 0), 2)
    return np.rint(255 * (rough - rough.min()) / np.ptp(rough)).astype(np.uint8)


def write_points(root: Path, name: str, points: NDArray[np.float64]) -> None:
    """Write the table of fixations of a video; rows of nan are left out."""
    lines = ["frame,x,y,viewer"]
    for index, frame in enumerate(points):
        lines += [f"{index},{x},{y},{viewer}" for viewer, (x, y) in enumerate(frame) if np.isfinite(x)]
    (root / "fixations").mkdir(exist_ok=True)
    (root / "fixations" / f"{name}.csv").write_text("\n".join(lines) + "\n")


def write_images(folder: Path, maps: NDArray[np.uint8] | NDArray[np.uint16]) -> Path:
    """Write maps as 1.png, 2.png, ... 10.png, which only natural order sorts right."""
    for index, picture in enumerate(maps):
        write_grey(folder / f"{index + 1}.png", picture)
    return folder


def write_all(folder: Path, scene: Scene) -> Path:
    """Write the predictions of a scene as folders of images."""
    for name, maps in scene.predictions.items():
        write_images(folder / name, maps)
    return folder


def write_video(path: Path, maps: NDArray[np.uint8]) -> Path:
    """Write maps as a grey video without loss (FFV1); the suffix must be one that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = maps.shape[1], maps.shape[2], "gray"
        for index, picture in enumerate(maps):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class DyingWorker(Worker):
    """Is killed over its first video, as by a system that is out of memory."""

    def score(self, video: AnnotatedVideo) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
