"""Score weights on the validation part of the gaze pack, beside the centre prior and the viewers themselves.

    python experiments/quality.py --root path/to/gaze [--weights runs/lite/weights.safetensors]

Videos are predicted whole, as `hd2s predict` does, and scored every third of a second from frame 15 on, where
at least five fixations are active: mean over frames, then clips. Maps are compared at the size of the stored
pictures; densities are fixations blurred with a Gaussian of 3 % of the width. "viewers": half of them (even
numbers) predict the fixations and the density of the other half. "centre": a Gaussian in the middle with a
standard deviation of a quarter of each side.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hd2s
from hd2s.data.datasets import gaze
from hd2s.data.transforms import SIGMA_FRACTION, density_map, fixation_map
from hd2s.data.video import open_source
from hd2s.inference.engines import Engine, open_engine
from hd2s.metrics.functional import cc, kl_divergence, nss

METRICS = {"CC": cc, "NSS": nss, "KLD": kl_divergence}
MIN_FIXATIONS, FIRST_FRAME = 5, 15
BARS = Console(stderr=True)

Map = NDArray[np.float32]
Scores = dict[str, dict[str, list[list[float]]]]  # predictor -> clip -> scores of each frame


def density(points: NDArray[np.float32], height: int, width: int) -> tuple[Map, Map]:
    """Fixation counts and their density, both (height, width)."""
    counts = fixation_map(points, height, width)
    return counts, density_map(counts, (SIGMA_FRACTION * width, SIGMA_FRACTION * width))


def centre_prior(height: int, width: int) -> Map:
    """A Gaussian in the middle; its standard deviation is a quarter of each side."""
    y, x = (np.linspace(-2, 2, side, dtype=np.float32) for side in (height, width))
    return np.exp(-0.5 * (y[:, None] ** 2 + x**2))


def score(prediction: Map, counts: Map, target: Map) -> list[float]:
    """All metrics of one map."""
    p, c, t = (torch.from_numpy(np.ascontiguousarray(m))[None].double() for m in (prediction, counts, target))
    return [METRICS["CC"](p, t).item(), METRICS["NSS"](p, c).item(), METRICS["KLD"](p, t).item()]


def score_stills(root: Path, engine: Engine, scores: Scores) -> None:
    """Score every validation image; each folder is one clip."""
    for still in track(gaze.stills(root, "validation"), "images", console=BARS):
        (frame,) = hd2s.predict(still.path, model=engine)
        height, width = frame.saliency.shape
        truth = density(still.points, height, width)
        scores["hd2s-lite"][still.domain].append(score(frame.saliency, *truth))
        scores["centre"][still.domain].append(score(centre_prior(height, width), *truth))


def score_video(video: gaze.GazeVideo, engine: Engine, stride: int, scores: Scores) -> None:
    """Score one validation video."""
    clip = f"{video.domain}/{video.path.stem}"
    with open_source(video.path) as source:
        fps = float(source.info.fps)
    for frame in hd2s.predict(video.path, model=engine, stride=stride):
        active = video.active(frame.index, fps)
        due = (frame.index - FIRST_FRAME) % max(1, round(fps / 3)) == 0
        if frame.index < FIRST_FRAME or not due or active.sum() < MIN_FIXATIONS:
            continue
        height, width = frame.saliency.shape
        truth = density(video.points[active], height, width)
        scores["hd2s-lite"][clip].append(score(frame.saliency, *truth))
        scores["centre"][clip].append(score(centre_prior(height, width), *truth))
        even = video.viewers % 2 == 0
        halves = [density(video.points[active & half], height, width) for half in (even, ~even)]
        if all(counts.any() for counts, _ in halves):
            scores["viewers"][clip].append(score(halves[0][1], *halves[1]))


def summary(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over frames of each clip, and over the clips of "hevc": predictor -> clip -> metric."""
    means: dict[str, dict[str, dict[str, float]]] = {}
    for predictor, clips in scores.items():
        rows = {clip: np.mean(values, axis=0) for clip, values in clips.items()}
        videos = [row for clip, row in rows.items() if "/" in clip]
        if videos:
            rows["hevc"] = np.mean(videos, axis=0)
        means[predictor] = {
            clip: dict(zip(METRICS, map(float, row), strict=True)) for clip, row in rows.items()
        }
    return means


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="the gaze pack")
    parser.add_argument("--weights", type=Path, help="weight file; the one that comes along by default")
    parser.add_argument("--stride", type=int, default=1, help="of `hd2s predict`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    engine = open_engine(hd2s.load("hd2s-lite", options.weights), precision="float32")
    scores: Scores = defaultdict(lambda: defaultdict(list))
    score_stills(options.root, engine, scores)
    for video in track(gaze.videos(options.root, "validation"), "videos", console=BARS):
        score_video(video, engine, options.stride, scores)
    means = summary(scores)
    if options.json:
        print(json.dumps(means, indent=2))
        return
    table = Table("clip", *(f"{predictor} {metric}" for predictor in means for metric in METRICS))
    for clip in means["hd2s-lite"]:
        cells = [(means[predictor].get(clip, {}), metric) for predictor in means for metric in METRICS]
        table.add_row(clip, *(f"{row[metric]:.3f}" if row else "" for row, metric in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
