"""The result of an evaluation: frame → mean over a video → mean over videos, with an interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets import DataSet
from hd2s.evaluation.protocol import Protocol
from hd2s.evaluation.scoring import PREDICTORS, Scores
from hd2s.evaluation.store import Store, from_arrays

RESAMPLES, LEVEL, BOOTSTRAP_SEED = 10_000, 0.95, 0
_AT_ONCE = 500  # resamples


class Mean(NamedTuple):
    """A mean over videos.

    Attributes:
        mean: The mean, nan if there is none.
        low: Lower end of the 95 % interval, nan for fewer than two videos.
        high: Upper end.
        videos: How many videos (or folders of images) it is over.
    """

    mean: float
    low: float
    high: float
    videos: int


@dataclass(frozen=True)
class VideoResult:
    """A video in a report.

    Attributes:
        name: Its name.
        group: What its scores are averaged with before they count.
        frames: Number of frames that were scored.
        means: (predictors, metrics) means over its frames, nan frames left out; in the order of `PREDICTORS`.
        scored: (predictors, metrics) numbers of frames that these are over.
        skipped: {reason: how often something was left out}.
        notes: What is worth knowing.
    """

    name: str
    group: str
    frames: int
    means: NDArray[np.float64] = field(repr=False)
    scored: NDArray[np.int64] = field(repr=False)
    skipped: dict[str, int]
    notes: list[str]


@dataclass(frozen=True, repr=False)
class Report:
    """Scores of predictions and baselines on a data set.

    Attributes:
        data: The videos.
        protocol: What was measured and how.
        settings: That in words, and more.
        labels: {predictor: its name in tables}, those that there are scores of.
        videos: Results of the videos, in natural order of their names.
        failures: {video: why it has no result}.
        traces: {video: the traceback of that}.
        notes: What is worth knowing.
        store: Where the scores of frames are.
    """

    data: DataSet
    protocol: Protocol
    settings: dict[str, str]
    labels: dict[str, str]
    videos: list[VideoResult]
    failures: dict[str, str]
    traces: dict[str, str]
    notes: list[str]
    store: Store

    def __repr__(self) -> str:
        return f"Report({self.data.name}, {self.data.split}, {len(self.videos)} videos, {self.metrics})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return self.protocol.metrics

    def units(self, predictor: str, metric: str) -> dict[str, float]:
        """Return the means that count once each: of a video, or of a folder of images; nan left out."""
        place = PREDICTORS.index(predictor), self.metrics.index(metric)
        groups: dict[str, list[float]] = {}
        for video in self.videos:
            value = float(video.means[place])
            if not math.isnan(value):
                groups.setdefault(video.group, []).append(value)
        return {group: float(np.mean(values)) for group, values in groups.items()}

    def mean(self, predictor: str, metric: str) -> Mean:
        """Average over videos, with a bootstrap interval."""
        values = np.array(list(self.units(predictor, metric).values()))
        if not len(values):
            return Mean(math.nan, math.nan, math.nan, 0)
        return Mean(float(values.mean()), *interval(values), len(values))

    def scores(self, name: str) -> Scores | None:
        """Read the scores of the frames of a video."""
        return from_arrays(self.store.load(name))

    def skipped(self) -> dict[str, int]:
        """Return {reason: how often something was left out} for all videos together."""
        total: Counter[str] = Counter()
        for video in self.videos:
            total.update(video.skipped)
        return dict(sorted(total.items()))

    def rows(self) -> Iterator[tuple[str, str, Mean]]:
        """Yield predictor, metric and mean."""
        for predictor in self.labels:
            for metric in self.metrics:
                yield predictor, metric, self.mean(predictor, metric)


def summarise(name: str, group: str, scores: Scores) -> VideoResult:
    """Average over the frames of a video."""
    defined = np.isfinite(scores.values)
    counts = defined.sum(1)
    sums = np.where(defined, scores.values, 0.0).sum(1)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return VideoResult(name, group, len(scores.frames), means, counts, scores.skipped, scores.notes)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values (N,); nan if there are not two.

    10,000 resamples with a fixed seed.

    Example:
        >>> import numpy as np
        >>> low, high = interval(np.array([0.0, 1.0] * 50))
        >>> print(f"{low:.2f} {high:.2f}")
        0.40 0.60
    """
    if len(values) < 2:
        return math.nan, math.nan
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    means = [
        values[rng.integers(0, len(values), (_AT_ONCE, len(values)))].mean(1)
        for _ in range(RESAMPLES // _AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(means), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
