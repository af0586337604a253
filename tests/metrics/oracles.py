"""Straight loops of the definitions, to compare the metrics with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hd2s.metrics.functional import EPSILON

Array = NDArray[np.float64]


def loop_cc(p: Array, q: Array) -> float:
    return float(np.corrcoef(p.ravel(), q.ravel())[0, 1])


def loop_nss(p: Array, fixations: Array) -> float:
    mean = sum(p.flat) / p.size
    std = math.sqrt(sum((v - mean) ** 2 for v in p.flat) / (p.size - 1))
    total = sum(count * (v - mean) / std for v, count in zip(p.flat, fixations.flat, strict=True))
    return total / sum(fixations.flat)


def loop_kl(p: Array, t: Array) -> float:
    return sum(
        (b / t.sum()) * math.log(EPSILON + (b / t.sum()) / (a / p.sum() + EPSILON))
        for a, b in zip(p.flat, t.flat, strict=True)
    )


def loop_sim(p: Array, q: Array, *, shift: bool = True) -> float:
    if shift:
        p, q = p - p.min(), q - q.min()
    return sum(min(a / p.sum(), b / q.sum()) for a, b in zip(p.flat, q.flat, strict=True))


def loop_ig(p: Array, fixations: Array, baseline: Array) -> float:
    total = 0.0
    for a, b, count in zip(p.flat, baseline.flat, fixations.flat, strict=True):
        total += count * math.log2((a / p.sum() + EPSILON) / (b / baseline.sum() + EPSILON))
    return total / fixations.sum()


def area(points: list[tuple[float, float]]) -> float:
    """Under the curve through (0, 0), the points (false, true positive rate) and (1, 1)."""
    curve = [(0.0, 0.0), *points, (1.0, 1.0)]
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(curve[:-1], curve[1:], strict=True))


def loop_auc_judd(p: Array, fixations: NDArray[Any]) -> float:
    positives = [v for v, count in zip(p.flat, fixations.flat, strict=True) for _ in range(int(count))]
    negatives = [v for v, count in zip(p.flat, fixations.flat, strict=True) if not count]
    points = []
    for threshold in sorted(set(positives), reverse=True):
        false = sum(v >= threshold for v in negatives) / len(negatives)
        points.append((false, sum(v >= threshold for v in positives) / len(positives)))
    return area(points)


def loop_auc_splits(p: Array, fixations: NDArray[Any], splits: list[list[int]]) -> float:
    """Mean over splits, each a list of the pixels of its negatives."""
    normal = (p.ravel() - p.min()) / (p.max() - p.min())
    positives = [v for v, count in zip(normal, fixations.flat, strict=True) for _ in range(int(count))]
    areas = []
    for pixels in splits:
        negatives = [normal[pixel] for pixel in pixels]
        points = []
        for step in range(10, -1, -1):
            if step / 10 <= max(positives + negatives):
                false = sum(v >= step / 10 for v in negatives) / len(negatives)
                points.append((false, sum(v >= step / 10 for v in positives) / len(positives)))
        areas.append(area(points))
    return float(np.mean(areas))
