"""The scores of one video, frame by frame: of its predictions and of the baselines beside them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hd2s.data.datasets import AnnotatedVideo
from hd2s.errors import DatasetFormatError
from hd2s.evaluation.baselines import centre_prior
from hd2s.evaluation.protocol import METRICS, Protocol
from hd2s.evaluation.truth import ONE_HALF, Map, Target, Truth
from hd2s.inference.predictor import resized
from hd2s.metrics import functional
from hd2s.metrics.fixations import Fixations

PREDICTION, CENTRE, MEAN, VIEWERS = "prediction", "centre", "mean", "viewers"
PREDICTORS = (PREDICTION, CENTRE, MEAN, VIEWERS)
UNSEEN = "frames without a prediction"

THUMBNAIL_WIDTH = 160
_BEYOND = 1e-3  # by which a prediction may leave [0, 1] where it is rounded to 8 bits


@dataclass(frozen=True)
class Scores:
    """The scores of the frames of a video that are scored, N.

    Attributes:
        frames: (N,) their numbers.
        fixations: (N,) fixations in each; -1 where they are not known.
        values: (predictors, N, metrics), nan where undefined; in the order of `PREDICTORS`.
        skipped: {reason: how often something was left out}.
        notes: What is worth knowing of the video.
        thumbnail: The prediction (h, w) uint8 of a frame in the middle, for showing; none if (0, 0).
        shown: Number of that frame.
    """

    frames: NDArray[np.int64] = field(repr=False)
    fixations: NDArray[np.int64] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)
    skipped: dict[str, int]
    notes: list[str]
    thumbnail: NDArray[np.uint8] = field(repr=False)
    shown: int = 0


class Scorer:
    """Scores the maps of one video.

    Args:
        video: The video.
        protocol: What is measured and how.
        mean: Mean training map of any size, or None.

    Attributes:
        size_hw: Height and width of the comparison.
        pool: Fixations of other videos at that size, for s-AUC, or None.
    """

    def __init__(self, video: AnnotatedVideo, protocol: Protocol, *, mean: Map | None = None) -> None:
        self._video, self._protocol = video, protocol
        self.pool: Fixations | None = None
        self._truth = Truth(video, protocol)
        self._skipped = self._truth.skipped
        self.size_hw = self._truth.size_hw
        self._fixed = [centre_prior(*self.size_hw)]
        if mean is not None:
            self._fixed.append(resized(mean, self.size_hw))
        self._prior = torch.from_numpy(self._fixed[0])[None]

    def score(self, maps: Iterator[tuple[int, Map]], known: Scores | None = None) -> Scores:
        """Score maps in order; only scores are kept of them.

        Args:
            maps: Number of a frame and its map, of all frames that are to be scored.
            known: Scores of other predictions of the video, from which those of baselines are taken.

        Raises:
            DatasetFormatError: A prediction is beyond [0, 1] although it is to be rounded to 8 bits.
        """
        beside = self._beside(known)
        frames, fixations, values = [], [], []
        thumbnail, shown = np.zeros((0, 0), np.uint8), -1
        count, every, seen = self._video.num_frames, self._protocol.every, 0
        for index, prediction in maps:
            seen += 1
            target = self._truth.target(index) if index < count else None
            if target is None:
                continue
            if shown < count // 2 // every * every:
                thumbnail, shown = _thumbnail(prediction), index
            frames.append(index)
            fixations.append(-1 if target.fixations is None else int(target.fixations.totals().sum()))
            values.append(self._frame(index, prediction, target, beside.get(index)))
        if seen < len(range(0, count, every)):
            self._skipped[UNSEEN] += len(range(0, count, every)) - seen
        shape = len(frames), len(PREDICTORS), len(self._protocol.metrics)
        return Scores(
            np.array(frames, np.int64),
            np.array(fixations, np.int64),
            np.array(values, np.float64).reshape(shape).transpose(1, 0, 2),
            dict(self._skipped),
            self._notes(),
            thumbnail,
            max(shown, 0),
        )

    def _beside(self, known: Scores | None) -> dict[int, NDArray[np.float64]]:
        """Return the scores (baselines, metrics) of frames that are known already."""
        if known is None:
            return {}
        if ONE_HALF in known.skipped:
            self._skipped[ONE_HALF] = known.skipped[ONE_HALF]
        return dict(zip(known.frames.tolist(), known.values[1:].swapaxes(0, 1), strict=True))

    def _frame(
        self, index: int, prediction: Map, target: Target, beside: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Return the scores (predictors, metrics) of a frame; those of baselines if they are not known."""
        table = np.full((len(PREDICTORS), len(self._protocol.metrics)), np.nan)
        maps = [resized(self._checked(prediction, index), self.size_hw)]
        maps += self._fixed if beside is None else []
        scores = self._compare(maps, target, index)
        table[: len(scores)] = scores
        if beside is not None:
            table[1:] = beside
            return table
        halves = self._truth.halves(index)
        if halves is not None:
            table[PREDICTORS.index(VIEWERS)] = self._compare([halves.prediction], halves.target, index)[0]
        return table

    def _checked(self, prediction: Map, index: int) -> Map:
        """Count predictions that say nothing; refuse those that rounding to 8 bits would spoil."""
        low, high = float(prediction.min()), float(prediction.max())
        if not np.isfinite((low, high)).all():
            self._skipped["predictions with nan or infinity"] += 1
        elif low == high:
            self._skipped["constant predictions"] += 1
        elif self._protocol.preset.quantise and (low < -_BEYOND or high > 1 + _BEYOND):
            raise DatasetFormatError(
                f"The prediction of frame {index} of the video {self._video.name} reaches from {low:.4g} to "
                f"{high:.4g}. The preset '{self._protocol.preset.name}' rounds maps in [0, 1] to 8 bits: "
                "scale them to that, or use the preset 'plain'."
            )
        return prediction

    def _compare(self, maps: list[Map], target: Target, index: int) -> NDArray[np.float64]:
        """Return the scores (maps, metrics) of maps of the size of the comparison."""
        batch = torch.from_numpy(np.stack(maps))
        if self._protocol.preset.quantise:
            batch = functional.quantise(batch)
        density = fixations = None
        if target.density is not None:
            density = torch.from_numpy(target.density).expand_as(batch)
        if target.fixations is not None:
            fixations = _repeated(target.fixations, len(batch))
        key = (zlib.crc32(self._video.name.encode()) >> 1 << 32) + index
        keys = torch.full((len(batch),), key, dtype=torch.int64)
        table = np.full((len(batch), len(self._protocol.metrics)), np.nan)
        for column, name in enumerate(self._protocol.metrics):
            given = density if METRICS[name].of == "density" else fixations
            if given is not None:
                scores = self._measure(name, batch, given, keys)
                if scores is not None:
                    table[:, column] = scores.numpy()
        return np.where(np.isfinite(table), table, np.nan)

    def _measure(self, name: str, batch: Tensor, given: Tensor | Fixations, keys: Tensor) -> Tensor | None:
        preset = self._protocol.preset
        draws = {"seed": preset.seed, "splits": preset.splits}
        if isinstance(given, Tensor):
            if name == "sim":
                return functional.sim(batch, given, normalise=preset.sim)
            return functional.cc(batch, given) if name == "cc" else functional.kl_divergence(batch, given)
        if name == "nss":
            return functional.nss(batch, given)
        if name == "ig":
            return functional.information_gain(batch, given, self._prior)
        if name == "auc_judd":
            return functional.auc_judd(batch, given)
        if name == "auc_borji":
            return functional.auc_borji(batch, given, keys=keys, **draws)
        if self.pool is None:
            return None
        return functional.auc_shuffled(batch, given, self.pool, keys=keys, **draws)

    def _notes(self) -> list[str]:
        notes = []
        if self._truth.resized:
            (from_h, from_w), (to_h, to_w) = self._video.truth_size, self.size_hw
            sizes = f"from {from_h} x {from_w} to the {to_h} x {to_w} of the preset"
            notes.append(f"ground truth brought {sizes}")
        if "auc_shuffled" in self._protocol.metrics and self.pool is None and self._video.gaze is not None:
            notes.append("no s-AUC, as there are no fixations in other videos")
        return notes


def _repeated(fixations: Fixations, count: int) -> Fixations:
    return Fixations(
        fixations.pixels.expand(count, -1),
        fixations.counts.expand(count, -1),
        fixations.size_hw,
        fixations.outside.expand(count),
    )


def _thumbnail(prediction: Map) -> NDArray[np.uint8]:
    """Shrink a map for showing, from its minimum to its maximum."""
    height, width = prediction.shape
    wide = min(width, THUMBNAIL_WIDTH)
    small = np.nan_to_num(resized(prediction, (max(1, round(height * wide / width)), wide)))
    small = small - small.min()
    shown: NDArray[np.uint8] = (255 * small / max(float(small.max()), 1e-12)).astype(np.uint8)
    return shown
