"""Training batches and validation samples from the gaze pack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from hd2s.data import transforms
from hd2s.data.clips import clip_before
from hd2s.data.datasets import gaze
from hd2s.data.frames import resize
from hd2s.data.transforms import Window
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError
from hd2s.training.recipe import ImagesTable, MixRecipe
from hd2s.types import InputSpec

Frames = Sequence[NDArray[np.uint8]]  # RGB pictures (H, W, 3) of one size


class Batch(NamedTuple):
    """A training batch; the targets of the stills come first.

    Attributes:
        stills: (S, 3, H, W) normalised images.
        clips: (C, 3, T, H, W) normalised clips.
        targets: (S + C, H, W) fixation densities.
        windows: (S + C, 2, 2) the parts of the pictures that are shown; see `CentreBias`.
    """

    stills: Tensor
    clips: Tensor
    targets: Tensor
    windows: Tensor


class _View(NamedTuple):
    """A sample: (3, T, H, W) normalised frames, (H, W) target, (2, 2) window of the last frame."""

    frames: Tensor
    target: Tensor
    window: Tensor


class ValidationSample(NamedTuple):
    """One frame to score.

    Attributes:
        clip: (3, T, H, W) normalised, or (3, 1, H, W) for a still.
        density: (h, w) fixation density at the size of the stored picture.
        fixations: (h, w) counts.
        group: Data set and clip, such as "hevc/Tennis" or "osie/images".
    """

    clip: Tensor
    density: Tensor
    fixations: Tensor
    group: str


@dataclass(frozen=True)
class Footage:
    """A decoded video with its gaze, and the frames that enough people look at."""

    video: gaze.GazeVideo
    frames: Frames
    fps: float
    usable: list[int]

    @classmethod
    def load(cls, video: gaze.GazeVideo, min_fixations: int) -> Footage:
        """Decode a video whole."""
        with open_source(video.path) as source:
            frames = [frame.rgb() for frame in source]
            fps = float(source.info.fps)
        usable = [i for i in range(len(frames)) if video.active(i, fps).sum() >= min_fixations]
        return cls(video, frames, fps, usable)


def load_pictures(stills: Sequence[gaze.Still]) -> Frames:
    """Decode images whole."""
    return [load_picture(still.path) for still in track(stills, "Reading images", transient=True)]


def load_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one image to RGB (H, W, 3)."""
    with open_source(path) as source:
        return next(iter(source)).rgb()


def load_footage(videos: Sequence[gaze.GazeVideo], min_fixations: int) -> list[Footage]:
    """Decode videos whole."""
    return [Footage.load(video, min_fixations) for video in track(videos, "Reading videos", transient=True)]


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index of the batch); Lightning tells it the epoch."""

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that is to be iterated next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.batches))


class TrainingBatches(Dataset[Batch]):
    """Training batches by (epoch, index): functions of these and the seed alone, so that runs can resume.

    Raises:
        DatasetFormatError: Clips are asked for, but no video has a frame with enough fixations.
    """

    def __init__(
        self,
        stills: Sequence[gaze.Still],
        footage: Sequence[Footage],
        spec: InputSpec,
        recipe: MixRecipe,
    ) -> None:
        self.stills = stills
        self.pictures = load_pictures(stills)
        self.footage = [f for f in footage if f.usable]
        self.spec, self.recipe = spec, recipe
        self.data, self.augment, self.seed = recipe.data, recipe.augment, recipe.seed
        if self.data.clips and not self.footage:
            raise DatasetFormatError(
                f"No frame of the videos has {self.data.min_fixations} fixations: lower data.min_fixations, "
                "or set data.clips=0 to train without videos."
            )

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        epoch, index = key
        order = np.random.default_rng((self.seed, epoch))
        stills, pans, clips, bars = self.data.stills, self.data.pans, self.data.clips, self.data.bars
        phase = self.recipe.phase(epoch)
        if isinstance(phase, ImagesTable):
            stills, pans, clips, bars = phase.batch, 0, 0, 0.0
        per_batch = stills + pans
        rounds = 1 + per_batch * self.data.batches // len(self.stills)
        shuffled = np.concatenate([order.permutation(len(self.stills)) for _ in range(rounds)])
        chosen = shuffled[index * per_batch : (index + 1) * per_batch]

        rng = np.random.default_rng((self.seed, epoch, index))
        views = [self._still(i, rng, bars) for i in chosen[:stills]]
        views += [self._pan(i, rng) for i in chosen[stills:]]
        views += [self._clip(rng, bars) for _ in range(clips)]
        shape = (3, self.spec.num_frames, self.spec.height, self.spec.width)
        return Batch(
            torch.stack([v.frames[:, 0] for v in views[:stills]])
            if stills
            else torch.empty(0, *shape[:1], *shape[2:]),
            torch.stack([v.frames for v in views[stills:]]) if pans + clips else torch.empty(0, *shape),
            torch.stack([v.target for v in views]),
            torch.stack([v.window for v in views]),
        )

    def _still(self, index: int, rng: np.random.Generator, bars: float) -> _View:
        return self._view([self.pictures[index]], [self._window(rng, bars)], self.stills[index].points, rng)

    def _pan(self, index: int, rng: np.random.Generator) -> _View:
        """A still seen through a window that moves and zooms evenly."""
        start, end = (
            transforms.random_window(rng, crop=1.0, min_side=self.augment.min_side) for _ in range(2)
        )
        count = self.spec.num_frames
        shares = np.linspace(1.0 - rng.random(), 1.0, count)  # of the way between the windows
        windows = [start.toward(end, share) for share in shares]
        return self._view([self.pictures[index]] * count, windows, self.stills[index].points, rng)

    def _clip(self, rng: np.random.Generator, bars: float) -> _View:
        """A clip of a random video, at a changed frame rate, seen through one window."""
        footage = self.footage[rng.integers(len(self.footage))]
        target = int(rng.choice(footage.usable))
        step = rng.uniform(1.0, self.augment.max_step)
        indices = clip_before(target, len(footage.frames), self.spec.num_frames, step)
        frames = [footage.frames[i] for i in indices]
        points = footage.video.points[footage.video.active(target, footage.fps)]
        return self._view(frames, [self._window(rng, bars)] * len(frames), points, rng)

    def _window(self, rng: np.random.Generator, bars: float) -> Window:
        if bars and rng.random() < bars:
            return transforms.random_bars(rng)
        crop, least, most = self.augment.crop, self.augment.min_side, self.augment.max_side
        return transforms.random_window(rng, crop=crop, min_side=least, max_side=most)

    def _view(
        self, frames: Frames, windows: Sequence[Window], points: NDArray[np.float32], rng: np.random.Generator
    ) -> _View:
        """Cut, normalise and relight frames; cut the target of the last one."""
        size = (self.spec.height, self.spec.width)
        views = np.stack([transforms.cut(f, w, size) for f, w in zip(frames, windows, strict=True)])
        if rng.random() < self.augment.blur:
            sigma = rng.uniform(0.1, 0.01 * self.spec.width)
            views = np.stack([cv2.GaussianBlur(view, (0, 0), sigma) for view in views])
        target = transforms.cut_target(points, windows[-1], frames[-1].shape[:2], size)
        if not target.any():  # everybody looks elsewhere: show the whole picture instead
            if windows[-1] == transforms.FULL:
                raise DatasetFormatError(
                    f"All of the {len(points)} fixations of a picture lie outside of it."
                )
            return self._view(frames, [transforms.FULL] * len(frames), points, rng)
        light, contrast = rng.uniform(-1, 1, 2) * (self.augment.brightness, self.augment.contrast)
        x = transforms.jitter_light(transforms.normalise(views, self.spec), light, 1.0 + contrast)
        if rng.random() < self.augment.grey:
            x = x.mean(dim=1, keepdim=True).expand_as(x)
        return _View(
            x.transpose(0, 1),
            torch.from_numpy(target),
            torch.tensor(windows[-1].spans(), dtype=torch.float32),
        )


class ValidationSamples(Dataset[ValidationSample]):
    """Every still, and the frames of each video from the first whole clip on, `every_seconds` apart."""

    def __init__(
        self, stills: Sequence[gaze.Still], footage: Sequence[Footage], spec: InputSpec, every_seconds: float
    ) -> None:
        self.stills, self.footage, self.spec = stills, footage, spec
        self.targets = [
            (clip, i)
            for clip in footage
            for i in sorted(
                set(range(spec.num_frames - 1, len(clip.frames), max(1, round(every_seconds * clip.fps))))
                & set(clip.usable)
            )
        ]

    def __len__(self) -> int:
        return len(self.stills) + len(self.targets)

    def __getitem__(self, index: int) -> ValidationSample:
        if index < len(self.stills):
            still = self.stills[index]
            return self._sample([load_picture(still.path)], still.points, f"{still.domain}/images")
        clip, target = self.targets[index - len(self.stills)]
        frames = [clip.frames[i] for i in clip_before(target, len(clip.frames), self.spec.num_frames)]
        group = f"{clip.video.domain}/{clip.video.path.stem}"
        points = clip.video.points[clip.video.active(target, clip.fps)]
        return self._sample(frames, points, group)

    def _sample(self, frames: Frames, points: NDArray[np.float32], group: str) -> ValidationSample:
        height, width = frames[-1].shape[:2]
        counts = transforms.fixation_map(points, height, width)
        sigma = transforms.SIGMA_FRACTION * width
        small = np.stack([resize(frame, self.spec.height, self.spec.width) for frame in frames])
        x = transforms.normalise(small, self.spec)
        density = transforms.density_map(counts, (sigma, sigma))
        return ValidationSample(x.transpose(0, 1), torch.from_numpy(density), torch.from_numpy(counts), group)
