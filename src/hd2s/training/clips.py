"""Training clips and validation videos from any data sets, and from videos without labels.

What is drawn depends on the seed, the epoch and the number of the batch alone, never on what was drawn
before: runs can resume, and processes can share the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from hd2s.data import transforms
from hd2s.data.clips import clip_before
from hd2s.data.datasets import AnnotatedVideo
from hd2s.errors import DatasetFormatError, OutputError, VideoDecodeError
from hd2s.training.cache import Cached, Decoded, Footage, Target, sweep
from hd2s.training.videos import open_videos
from hd2s.types import InputSpec

__all__ = [
    "FAILURES",
    "ClipAugment",
    "ClipBatch",
    "ClipBatches",
    "ClipSource",
    "ValidationVideo",
    "VideoSamples",
    "open_videos",
]

FAILURES = (VideoDecodeError, DatasetFormatError, OSError)  # of a video; the others go on without it

_FRAME_TRIES = 50  # frames of a video that are looked at for a label
_VIDEO_TRIES = 50  # videos that are tried for one clip


@dataclass(frozen=True)
class ClipAugment:
    """Random changes of a clip.

    Attributes:
        flip: Probability of mirroring, in [0, 1].
        brightness: Largest shift, in units of the normalised input.
        contrast: Largest relative change of contrast, in [0, 1).
        max_step: Frames of a clip are between 1 and so many video frames apart; 1: consecutive ones.
    """

    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    max_step: float = 1.0


class ClipBatch(NamedTuple):
    """A batch of clips of one source.

    Attributes:
        clips: (B, 3, T, H, W) float32, normalised as the network's `InputSpec` says.
        targets: (B, H, W) float32 densities of the last frames, each with the maximum 1; None if unlabelled.
        domain: Name of the source.
        names: What each clip is, such as "dhf1k/0001, frames 12 to 27".
        skipped: Videos that could not be used, as "dhf1k/0002: reason"; each video once for each worker.
    """

    clips: Tensor
    targets: Tensor | None
    domain: str
    names: list[str]
    skipped: list[str]


class ValidationVideo(NamedTuple):
    """A whole video, and what is to be predicted of it.

    Attributes:
        frames: (N, H, W, 3) uint8 RGB at the network's size, all of them in order.
        targets: (M, H, W) float32 densities, each with the maximum 1.
        indices: The M frames that they belong to, increasing.
        name: Such as "dhf1k/0601".
        domain: Name of the source.
        skipped: "dhf1k/0601: reason" if the video cannot be used; N and M are 0 then.
    """

    frames: Tensor
    targets: Tensor
    indices: list[int]
    name: str
    domain: str
    skipped: list[str]


class _Clip(NamedTuple):
    """Frames (T, H, W, 3), the target of the last, what it is, and how it is to be changed."""

    frames: np.typing.NDArray[np.uint8]
    target: Target | None
    name: str
    mirrored: bool
    brightness: float
    contrast: float


class ClipSource:
    """A labelled source or an unlabelled target.

    Args:
        name: Its domain.
        videos: Its videos; of a labelled source, those without labels are left out.
        spec: Size and normalisation of the network's input.
        labelled: Whether clips come with targets.
        augment: Random changes.
        min_fixations: Frames without a density map need as many fixations to be a clip's last.
        cache: Folder for decoded frames and targets; None decodes each clip when it is drawn.

    Raises:
        DatasetFormatError: No video has labels, though the source is labelled, or there is none at all.
    """

    def __init__(
        self,
        name: str,
        videos: Sequence[AnnotatedVideo],
        spec: InputSpec,
        *,
        labelled: bool,
        augment: ClipAugment,
        min_fixations: int = 1,
        cache: Path | None = None,
    ) -> None:
        self.name, self.spec, self.labelled, self.augment = name, spec, labelled, augment
        self.videos = [video for video in videos if video.labelled or not labelled]
        if not self.videos:
            missing = (
                f"none of its {len(videos)} videos has maps or fixations" if videos else "it has no videos"
            )
            raise DatasetFormatError(f"The source '{name}' cannot be trained on: {missing}.")
        self._size_hw = spec.height, spec.width
        # What each of the 256 values of R, G and B becomes: ten times as fast as arithmetic on whole clips.
        greys = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
        self._tables = transforms.normalise(greys, spec).numpy()  # (3, 1, 256)
        decoded = [Decoded(video, self._size_hw, min_fixations) for video in self.videos]
        self.footage: list[Footage] = [*decoded]
        if cache is not None:
            self.footage = [Cached(one, labelled, cache) for one in decoded]
            sweep(cache)
        self._reported: set[int] = set()

    def batch(self, rng: np.random.Generator, size: int) -> ClipBatch:
        """Draw clips: a video each, all equally likely, then a last frame among those with labels.

        A video that cannot be read is replaced by another. Which clips are drawn is a function of the
        generator's state; `skipped` is not, as it names each video once.

        Args:
            rng: Takes one step for each clip.
            size: Number of clips.

        Raises:
            DatasetFormatError: No video can be used.
            OutputError: The cache cannot be written.
        """
        clips = torch.empty(size, 3, self.spec.num_frames, *self._size_hw)
        targets = torch.empty(size, *self._size_hw) if self.labelled else None
        names: list[str] = []
        skipped: list[str] = []
        for place in range(size):
            clip = self._draw(_step(rng), skipped)
            self._fill(clips[place], clip)
            if targets is not None and clip.target is not None:
                target = clip.target[:, ::-1] if clip.mirrored else clip.target
                targets[place] = torch.from_numpy(target.astype(np.float32))
            names.append(clip.name)
        return ClipBatch(clips, targets, self.name, names, skipped)

    def _draw(self, seed: int, skipped: list[str]) -> _Clip:
        """Draw a clip from one of the videos that can be used."""
        rng = np.random.default_rng(seed)
        count = len(self.videos)
        reasons = []
        for attempt, number in enumerate(rng.choice(count, min(count, _VIDEO_TRIES), replace=False)):
            try:
                return self._clip(int(number), np.random.default_rng((seed, attempt)))
            except OutputError:
                raise
            except FAILURES as error:
                reasons.append(f"{self.label(number)}: {error}")
            if number not in self._reported:
                self._reported.add(number)
                skipped.append(reasons[-1])
        raise DatasetFormatError(
            f"None of the {len(reasons)} videos of '{self.name}' that were tried can be used. {reasons[0]}"
        )

    def label(self, number: int) -> str:
        """Return the name of a video for messages, such as "dhf1k/0001"."""
        return f"{self.name}/{self.videos[number].name}"

    def _clip(self, number: int, rng: np.random.Generator) -> _Clip:
        footage, length = self.footage[number], self.spec.num_frames
        count = len(footage)
        step = rng.uniform(1.0, self.augment.max_step)
        mirrored = bool(rng.random() < self.augment.flip)
        brightness, contrast = rng.uniform(-1, 1, 2) * (self.augment.brightness, self.augment.contrast)
        last, target = self._target(footage, count, rng)
        indices = clip_before(last, count, length, step)
        low, high = min(indices), max(indices)
        which = f"frame {low}" if low == high else f"frames {low} to {high}"
        name = f"{self.label(number)}, {which}"
        return _Clip(footage.frames(indices), target, name, mirrored, brightness, contrast)

    def _target(self, footage: Footage, count: int, rng: np.random.Generator) -> tuple[int, Target | None]:
        """Draw the last frame of a clip: one with its whole past, but any of a video that is too short."""
        first = self.spec.num_frames - 1 if count >= self.spec.num_frames else 0
        tries = min(count - first, _FRAME_TRIES)
        for last in map(int, first + rng.choice(count - first, tries, replace=False)):
            if not self.labelled:
                return last, None
            target = footage.target(last)
            if target is not None:
                return last, target
        raise DatasetFormatError(f"none of {tries} frames that were looked at has a usable label")

    def _fill(self, place: Tensor, clip: _Clip) -> None:
        """Write a clip, normalised and changed, to where it belongs in its batch, (3, T, H, W)."""
        planes = cv2.split(clip.frames.reshape(-1, self.spec.width, 3))
        for plane, table, out in zip(planes, self._tables, place.numpy(), strict=True):
            view = cv2.flip(plane, 1) if clip.mirrored else plane
            cv2.LUT(view, table, dst=out.reshape(view.shape))
        if clip.brightness or clip.contrast:
            place.copy_(transforms.jitter_light(place, clip.brightness, 1.0 + clip.contrast))


class ClipBatches(Dataset[ClipBatch | tuple[ClipBatch, ClipBatch]]):
    """Batches by (epoch, index): functions of these and the seed alone, so that runs can resume.

    Batch `index` is of source `index` modulo their number. With `targets` an item is a pair of batches, of a
    source and of an unlabelled target; the targets take turns so that all pairs occur.

    Args:
        sources: At least one.
        size: Clips in a batch.
        seed: Not negative.
        targets: Unlabelled ones, for adversarial training.
        shard: Number of this process, if several share the work.
        shards: How many processes do. The batches of all of them, one after the other, are those of a single
            one whose `size` is as many times as large.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        size: int,
        seed: int,
        *,
        targets: Sequence[ClipSource] = (),
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        if not 0 <= shard < shards:
            raise ValueError(f"shard must be in [0, {shards}), got {shard}.")
        self.sources, self.size, self.seed, self.targets = sources, size, seed, targets
        self._ahead = shard * size  # clips that are others' work

    def __getitem__(self, key: tuple[int, int]) -> ClipBatch | tuple[ClipBatch, ClipBatch]:
        _single_threaded_worker()
        _, index = key
        turn, source = divmod(index, len(self.sources))
        batch = self._batch(self.sources[source], (self.seed, *key, 0))
        if not self.targets:
            return batch
        return batch, self._batch(self.targets[turn % len(self.targets)], (self.seed, *key, 1))

    def _batch(self, source: ClipSource, seeds: tuple[int, ...]) -> ClipBatch:
        rng = np.random.default_rng(seeds)
        for _ in range(self._ahead):
            _step(rng)
        return source.batch(rng, self.size)


class VideoSamples(Dataset[ValidationVideo]):
    """Whole videos for validation, those of all sources one after the other.

    Args:
        sources: Labelled ones; their random changes are not applied.
        every: Of each so many frames, the first with a label is scored.
    """

    def __init__(self, sources: Sequence[ClipSource], every: int = 1) -> None:
        self.every = every
        self._videos = [(source, number) for source in sources for number in range(len(source.videos))]

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, item: int) -> ValidationVideo:
        _single_threaded_worker()
        source, number = self._videos[item]
        footage, name = source.footage[number], source.label(number)
        scored: list[tuple[int, Target]] = []
        try:
            count = len(footage)
            for start in range(0, count, self.every):
                scored += _first_labelled(footage, range(start, min(start + self.every, count)))
            frames = footage.frames(range(count)) if scored else None
            reason = f"{name}: no frame has a usable label"
        except OutputError:
            raise
        except FAILURES as error:
            frames, reason = None, f"{name}: {error}"
        size = source.spec.height, source.spec.width
        if frames is None:
            empty = torch.empty(0, *size, 3, dtype=torch.uint8), torch.empty(0, *size)
            return ValidationVideo(*empty, [], name, source.name, [reason])
        targets = np.stack([target for _, target in scored]).astype(np.float32)
        indices = [index for index, _ in scored]
        return ValidationVideo(
            torch.from_numpy(frames), torch.from_numpy(targets), indices, name, source.name, []
        )


def _first_labelled(footage: Footage, indices: Sequence[int]) -> Iterator[tuple[int, Target]]:
    """Yield the first of some frames that has a target, if one has."""
    for index in indices:
        target = footage.target(index)
        if target is not None:
            yield index, target
            return


def _step(rng: np.random.Generator) -> int:
    """Draw the seed of one clip."""
    return int(rng.integers(2**63))


def _single_threaded_worker() -> None:
    """Keep OpenCV from starting threads in each worker, beside those of the model."""
    if get_worker_info() is not None:
        cv2.setNumThreads(0)
