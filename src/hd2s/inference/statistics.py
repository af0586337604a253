"""A saliency map in a few numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_LONGEST_SIDE = 256


@dataclass(frozen=True, kw_only=True)
class FrameStatistics:
    """A saliency map in a few numbers; those that an all-zero map does not have are NaN.

    Attributes:
        peak_x: Column of the highest value, in pixels from the left.
        peak_y: Row of the highest value, in pixels from the top.
        peak_value: The highest value, in [0, 1].
        center_x: Column of the centre of mass, in pixels.
        center_y: Row of the centre of mass, in pixels.
        entropy_bits: Entropy of the map normalised to the sum 1, between 0 and log2(H · W).
        half_mass_area: The smallest fraction of the picture that holds half the saliency, at most 0.5.
    """

    peak_x: int
    peak_y: int
    peak_value: float
    center_x: float
    center_y: float
    entropy_bits: float
    half_mass_area: float


def frame_statistics(saliency: NDArray[np.float32]) -> FrameStatistics:
    """Summarise one (H, W) float32 map.

    The peak is exact. The other numbers come from a map whose longer side is reduced to at most 256 cells by
    averaging: saliency is smooth, so they hardly change, and each takes a twenty-fifth of the time at 720p.
    The entropy counts each cell as pixels of one value.
    """
    height, width = saliency.shape
    _, peak_value, _, (peak_x, peak_y) = cv2.minMaxLoc(saliency)
    cells = _reduced(saliency)
    rows, columns = cells.shape
    total = float(cells.sum())
    if total <= 0:
        missing = dict.fromkeys(("center_x", "center_y", "entropy_bits", "half_mass_area"), math.nan)
        return FrameStatistics(peak_x=peak_x, peak_y=peak_y, peak_value=peak_value, **missing)
    mass = cells / total
    center_x = float(mass.sum(axis=0) @ (np.arange(columns) + 0.5)) * width / columns - 0.5
    center_y = float(mass.sum(axis=1) @ (np.arange(rows) + 0.5)) * height / rows - 0.5
    positive = mass[mass > 0]
    entropy = -float(positive @ np.log2(positive)) + math.log2(height * width / mass.size)
    return FrameStatistics(
        peak_x=peak_x,
        peak_y=peak_y,
        peak_value=peak_value,
        center_x=center_x,
        center_y=center_y,
        entropy_bits=entropy,
        half_mass_area=_half_mass_area(positive) * positive.size / mass.size,
    )


def _reduced(saliency: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average a map down to at most `_LONGEST_SIDE` cells a side; negative values count as nothing."""
    height, width = saliency.shape
    factor = max(1.0, max(height, width) / _LONGEST_SIDE)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    cells = cv2.resize(saliency, size, interpolation=cv2.INTER_AREA) if factor > 1 else saliency
    return np.maximum(cells, 0).astype(np.float64)


def _half_mass_area(mass: NDArray[np.float64]) -> float:
    """Return the smallest fraction of the cells that adds up to half of the mass 1."""
    descending = np.sort(mass)[::-1]
    held = np.cumsum(descending)
    last = int(np.searchsorted(held, 0.5))
    surplus = (held[last] - 0.5) / descending[last]
    return float(last + 1 - surplus) / mass.size
