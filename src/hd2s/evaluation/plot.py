"""A picture of a report: how scores are spread, and the best and worst videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hd2s.data.datasets import AnnotatedVideo
from hd2s.errors import HD2SError, MissingExtraError
from hd2s.evaluation.protocol import METRICS
from hd2s.evaluation.report import Report
from hd2s.evaluation.scoring import PREDICTION, PREDICTORS
from hd2s.evaluation.tables import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 3  # best videos, and as many worst ones
_COLUMNS = 4
_JITTER = 0.12


def draw(report: Report, path: Path) -> Path:
    """Draw a PNG: for each metric the spread over videos, then pictures of the best and worst ones.

    Pictures show a frame in the middle, its ground truth and its prediction; videos are ranked by the first
    metric.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.needed("Plots need matplotlib", "evaluate") from error
    ranked = _ranked(report)
    best = ranked[: min(SHOWN, (len(ranked) + 1) // 2)]
    worst = [name for name in ranked[-SHOWN:] if name not in best]
    rows = -(-len(report.metrics) // _COLUMNS)
    pictures = len(best) + len(worst)
    figure = Figure(figsize=(12, 3.2 * rows + 1.8 * pictures + 0.8), layout="constrained")
    figure.suptitle(f"{report.labels[PREDICTION]} on {report.data.name}, {report.data.split}")
    parts: Any = figure.subfigures(2, 1, height_ratios=(3.2 * rows, max(1.8 * pictures, 0.1)))
    upper, lower = parts
    _draw_spreads(report, upper, rows)
    _draw_videos(report, lower, [*best, *worst], len(best))
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=100)
    return path


def _ranked(report: Report) -> list[str]:
    """Return the names of the videos, the best first."""
    metric = report.metrics[0]
    place = PREDICTORS.index(PREDICTION), 0
    scores = {video.name: float(video.means[place]) for video in report.videos}
    known = [name for name, score in scores.items() if np.isfinite(score)]
    return sorted(known, key=lambda name: scores[name], reverse=METRICS[metric].higher)


def _draw_spreads(report: Report, figure: Any, rows: int) -> None:
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for place in axes:
        place.set_axis_off()
    for metric, place in zip(report.metrics, axes, strict=False):
        place.set_axis_on()
        _draw_spread(report, metric, place)


def _draw_spread(report: Report, metric: str, place: Axes) -> None:
    """Draw the mean of each video as a point, and boxes of all."""
    rng = np.random.default_rng(0)
    columns = [list(report.units(predictor, metric).values()) for predictor in report.labels]
    place.boxplot(columns, showfliers=False, widths=0.5)
    for number, values in enumerate(columns, start=1):
        x = number + rng.uniform(-_JITTER, _JITTER, len(values))
        place.plot(x, values, ".", alpha=0.5, markersize=4)
    labels = [label.replace(", ", ",\n").replace(" ", "\n", 1) for label in report.labels.values()]
    place.set_xticks(range(1, len(columns) + 1), labels, fontsize=7)
    place.set_title(f"{METRICS[metric].title} ({'more' if METRICS[metric].higher else 'less'} is better)")


def _draw_videos(report: Report, figure: Any, names: list[str], best: int) -> None:
    if not names:
        return
    videos = {video.name: video for video in report.data.videos}
    title = METRICS[report.metrics[0]].title
    means = {video.name: float(video.means[PREDICTORS.index(PREDICTION), 0]) for video in report.videos}
    axes = figure.subplots(len(names), 3, squeeze=False)
    for number, (name, row) in enumerate(zip(names, axes, strict=True)):
        rank = "best" if number < best else "worst"
        pictures = _pictures(report, videos[name])
        shown = (f"{rank}: {name}, {title} {means[name]:.3f}", "ground truth", "prediction")
        for place, picture, text in zip(row, pictures, shown, strict=True):
            place.set_axis_off()
            place.set_title(text, fontsize=8)
            if picture is not None:
                place.imshow(picture, cmap="inferno", aspect="equal")


def _pictures(report: Report, video: AnnotatedVideo) -> list[NDArray[Any] | None]:
    """Read a frame, its ground truth and its prediction; None for what cannot be read."""
    scores = report.scores(video.name)
    if scores is None or not scores.thumbnail.size:
        return [None, None, None]
    try:
        (frame,) = video.frames([scores.shown])
        density = video.density(scores.shown)
        points = video.fixations(scores.shown) if density is None else None
    except HD2SError:
        return [None, None, scores.thumbnail]
    if points is not None:
        density = np.zeros(video.truth_size, np.float32)
        x, y = points.astype(np.int64).T
        density[y, x] = 1
    return [frame, density, scores.thumbnail]
