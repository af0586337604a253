"""What people looked at in one frame, at the size of the comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets import AnnotatedVideo
from hd2s.data.datasets.base import inside
from hd2s.data.transforms import SIGMA_FRACTION, density_map, fixation_map
from hd2s.errors import DatasetFormatError
from hd2s.evaluation.protocol import Protocol
from hd2s.inference.predictor import resized
from hd2s.metrics.fixations import Fixations

Map = NDArray[np.float32]
ONE_HALF = "frames with viewers in one half only"


@dataclass(frozen=True)
class Target:
    """What a prediction is compared with: a density (H, W), fixations, or both."""

    density: Map | None = field(repr=False)
    fixations: Fixations | None = field(repr=False)


@dataclass(frozen=True)
class Halves:
    """The viewers with even numbers as a prediction (H, W) of those with odd ones."""

    prediction: Map = field(repr=False)
    target: Target


class Truth:
    """Reads the ground truth of a video, and counts what cannot be used.

    Attributes:
        size_hw: Height and width of the comparison.
        skipped: {reason: how often}.
    """

    def __init__(self, video: AnnotatedVideo, protocol: Protocol) -> None:
        """Compare the sizes of maps and fixations.

        Raises:
            DatasetFormatError: They differ.
        """
        self._video, self._protocol = video, protocol
        self._picture_hw = video.truth_size
        if video.gaze is not None and video.gaze.size != self._picture_hw:
            raise DatasetFormatError(
                f"The fixations of {video.name} lie in {video.gaze.size}, its maps are {self._picture_hw} "
                "(H, W)."
            )
        self.size_hw = protocol.preset.size_hw or self._picture_hw
        self.skipped: Counter[str] = Counter()

    @property
    def resized(self) -> bool:
        """Whether maps and fixations are brought to another size, that of the preset."""
        return self.size_hw != self._picture_hw

    def target(self, index: int) -> Target | None:
        """Read a frame; None if it cannot be scored."""
        points = None if self._video.gaze is None else self._video.gaze.points(index)
        fixations = None if points is None else self._fixations(points)
        if fixations is not None and not int(fixations.totals().sum()):
            self.skipped["frames without fixations"] += 1
            return None
        density = self._video.density(index)
        if density is not None and not density.any():
            self.skipped["frames with an empty density map"] += 1
            density = None
        if density is None and fixations is None:
            self.skipped["frames without ground truth"] += 1
            return None
        if fixations is None and self._video.gaze is not None:
            self.skipped["frames with unknown fixations"] += 1
        return Target(None if density is None else resized(density, self.size_hw), fixations)

    def halves(self, index: int) -> Halves | None:
        """Read a frame for half of the viewers against the other half; None if one of them is missing."""
        gaze = self._video.gaze
        viewers, points = (None, None) if gaze is None else (gaze.viewers(index), gaze.points(index))
        if viewers is None or points is None:
            return None
        within = inside(points, self._picture_hw)
        even = viewers[within] % 2 == 0
        first, second = points[within][even], points[within][~even]
        if not len(first) or not len(second):
            self.skipped[ONE_HALF] += 1
            return None
        target = Target(self._density(second), self._fixations(second))
        prediction = self._density(first)
        return Halves(prediction / prediction.max(), target)

    def _fixations(self, points: NDArray[np.float32]) -> Fixations:
        fixations = Fixations.from_points([points], self.size_hw, picture_hw=self._picture_hw, outside="drop")
        outside = int(fixations.outside.sum())
        if outside:
            self.skipped["fixations outside of the picture"] += outside
        return fixations if self._protocol.preset.multiplicity else fixations.once()

    def _density(self, points: NDArray[np.float32]) -> Map:
        sigma = SIGMA_FRACTION * self._picture_hw[1]
        counts = fixation_map(points, *self._picture_hw)
        return resized(density_map(counts, (sigma, sigma)), self.size_hw)
