"""Predictions that look at nothing, and where people look in other videos."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hd2s.data.datasets import AnnotatedVideo
from hd2s.data.datasets.base import inside
from hd2s.errors import DatasetFormatError
from hd2s.evaluation.protocol import Protocol
from hd2s.evaluation.truth import Map
from hd2s.inference.predictor import resized
from hd2s.metrics.fixations import Fixations

CENTRE_SIGMA = 0.25  # of each side
MEAN_HW = (90, 160)  # at which training maps are averaged
MEAN_FRAMES = 16  # of each training video, evenly spaced


def centre_prior(height: int, width: int) -> Map:
    """A Gaussian in the middle (height, width), at most 1; its standard deviation is a quarter of each side.

    Example:
        >>> centre_prior(3, 5).round(2)[1]
        array([0.14, 0.61, 1.  , 0.61, 0.14], dtype=float32)
    """
    reach = 0.5 / CENTRE_SIGMA
    y, x = (np.linspace(-reach, reach, side, dtype=np.float32) for side in (height, width))
    prior: Map = np.exp(-0.5 * (y[:, None] ** 2 + x**2))
    return prior


def mean_of_video(video: AnnotatedVideo) -> Map | None:
    """Average some density maps of a training video, each divided by its sum, at `MEAN_HW`."""
    total, count = np.zeros(MEAN_HW, np.float32), 0
    frames = np.linspace(0, video.num_frames - 1, min(video.num_frames, MEAN_FRAMES)).round()
    for index in map(int, frames):
        density = video.density(index)
        if density is not None and density.any():
            small = resized(density, MEAN_HW)
            total += small / small.sum()
            count += 1
    return (total / count).astype(np.float32) if count else None


@dataclass(frozen=True)
class Cells:
    """Where people look in a video: cells of a grid (N,), flattened, and how often each (N,)."""

    cells: NDArray[np.int32] = field(repr=False)
    counts: NDArray[np.int32] = field(repr=False)


def cells_of_video(video: AnnotatedVideo, protocol: Protocol) -> Cells:
    """Count the fixations of the frames that are scored on a grid."""
    rows, columns = protocol.grid_hw
    total = np.zeros(rows * columns, np.int32)
    if video.gaze is not None:
        size = video.gaze.size
        scale = np.array((columns / size[1], rows / size[0]))
        for index in range(0, video.num_frames, protocol.every):
            points = video.gaze.points(index)
            if points is not None:
                x, y = np.floor(points[inside(points, size)] * scale).astype(np.int64).T
                np.add.at(total, y * columns + x, 1)
    cells = np.flatnonzero(total).astype(np.int32)
    return Cells(cells, total[cells])


@dataclass(frozen=True)
class Elsewhere:
    """Where people look in all videos, to draw the negatives of s-AUC from.

    Attributes:
        total: (cells of the grid,) fixations; or, if each cell counts once, videos with a fixation there.
        grid_hw: Rows and columns of the grid.
        once: Whether each cell counts once.
    """

    total: NDArray[np.int64] = field(repr=False)
    grid_hw: tuple[int, int]
    once: bool

    @classmethod
    def of(cls, videos: Iterable[Cells], protocol: Protocol) -> Elsewhere:
        """Add up videos."""
        rows, columns = protocol.grid_hw
        once = not protocol.preset.multiplicity
        total = np.zeros(rows * columns, np.int64)
        for video in videos:
            total[video.cells] += 1 if once else video.counts
        return cls(total, protocol.grid_hw, once)

    def without(self, own: Cells, size_hw: tuple[int, int]) -> Fixations | None:
        """Leave a video out and bring the rest to a size; None if nothing is left."""
        rest = self.total.copy()
        rest[own.cells] -= 1 if self.once else own.counts
        cells = np.flatnonzero(rest)
        if not len(cells):
            return None
        rows, columns = self.grid_hw
        height, width = size_hw
        y = np.floor((cells // columns + 0.5) * height / rows).astype(np.int64)
        x = np.floor((cells % columns + 0.5) * width / columns).astype(np.int64)
        pixels, places = np.unique(y * width + x, return_inverse=True)
        counts = np.bincount(places, weights=rest[cells]).astype(np.int64)
        if self.once:
            counts[:] = 1
        pool = torch.from_numpy(pixels)[None], torch.from_numpy(counts)[None]
        return Fixations(*pool, size_hw, torch.zeros(1, dtype=torch.int64))


def mean_map(means: Iterable[tuple[str, Map]]) -> Map:
    """Average the mean maps of videos within their groups, then over groups; at most 1.

    Raises:
        DatasetFormatError: None of them has a map.
    """
    sums: dict[str, tuple[Map, int]] = {}
    for group, mean in means:
        total, count = sums.get(group, (np.zeros(MEAN_HW, np.float32), 0))
        sums[group] = total + mean, count + 1
    if not sums:
        raise DatasetFormatError("the split 'train' has no density maps")
    mean = np.mean([total / count for total, count in sums.values()], axis=0, dtype=np.float32)
    scaled: Map = (mean / mean.max()).astype(np.float32)
    return scaled
