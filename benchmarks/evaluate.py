"""Speed and memory of the metrics beside pysaliency and straight numpy loops, as a table.

    python benchmarks/evaluate.py [--frames 60]

All lines are measured in one run. hd2s works in two threads, each with its own batches; pysaliency and numpy
work as they are, in one. pysaliency is called as its users do (`model.CC(stimuli, ...)`, AUC_Judd with its
noise) and, "functions", through its functions alone. Where it is not installed its lines are left out: it
needs pandas, setuptools < 82 and a C compiler. Frames are blurred fixations, float32.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from hd2s.metrics.functional import Fixations, auc_judd, auc_shuffled, cc, nss, sim

BATCH, SPLITS = 4, 100
Array = NDArray[Any]


def frames(count: int, height: int, width: int, points: int) -> tuple[Array, Array, Array]:
    """Predictions and densities (count, height, width) float32, x and y (count, points, 2)."""
    rng = np.random.default_rng(0)
    xy = rng.normal(0.5, 0.15, (2, count, points, 2)).clip(0, 0.999) * (width, height)
    maps = np.zeros((2, count, height, width), np.float32)
    for kind in range(2):
        for i in range(count):
            x, y = xy[kind, i].astype(int).T
            np.add.at(maps[kind, i], (y, x), 1)
            maps[kind, i] = cv2.GaussianBlur(maps[kind, i], (0, 0), 0.03 * width)
    return maps[0], maps[1], xy[1]


def ours(p: Array, g: Array, xy: Array, pool: Fixations | None, keys: range) -> list[float]:
    """Sums of the metrics over the frames of one batch."""
    prediction, density = torch.from_numpy(p), torch.from_numpy(g)
    fixations = Fixations.from_points(list(xy), p.shape[1:])
    values = [cc(prediction, density), sim(prediction, density), nss(prediction, fixations)]
    values.append(auc_judd(prediction, fixations))
    if pool is not None:
        values.append(auc_shuffled(prediction, fixations, pool, keys=torch.tensor(keys)))
    return [v.sum().item() for v in values]


def evaluate(p: Array, g: Array, xy: Array, pool: Fixations | None, repeats: int = 1) -> Array:
    """Means over all frames, two batches at a time."""
    starts = [i for _ in range(repeats) for i in range(0, len(p), BATCH)]

    def work(i: int) -> list[float]:
        part = slice(i, i + BATCH)
        return ours(p[part], g[part], xy[part], pool, range(i, min(i + BATCH, len(p))))

    with ThreadPoolExecutor(2) as threads:
        return np.sum(list(threads.map(work, starts)), axis=0) / (len(p) * repeats)


def loops(p: Array, g: Array, xy: Array) -> Array:
    """The four metrics of the challenges as their definitions read, in numpy."""
    sums = np.zeros(4)
    for prediction, density, points in zip(p, g, xy, strict=True):
        a, b = prediction.astype(float), density.astype(float)
        x, y = points.astype(int).T
        sums[0] += np.corrcoef(a.ravel(), b.ravel())[0, 1]
        a0, b0 = a - a.min(), b - b.min()
        sums[1] += np.minimum(a0 / a0.sum(), b0 / b0.sum()).sum()
        sums[2] += ((a - a.mean()) / a.std(ddof=1))[y, x].mean()
        fixated = np.zeros(a.shape, bool)
        fixated[y, x] = True
        values = a[y, x]
        curve = [(0.0, 0.0)]
        for threshold in np.sort(values)[::-1]:
            above = a >= threshold
            curve.append(((above & ~fixated).sum() / (~fixated).sum(), (values >= threshold).mean()))
        false, true = np.array([*curve, (1.0, 1.0)]).T
        sums[3] += (np.diff(false) * (true[1:] + true[:-1]) / 2).sum()
    return sums / len(p)


def pysaliency_calls(p: Array, g: Array, xy: Array) -> dict[str, Callable[[], object]]:
    """The same five metrics with pysaliency: through its models, and its functions alone."""
    if not hasattr(np, "trapz"):
        np.trapz = np.trapezoid  # noqa: NPY201
    import pysaliency
    from pysaliency import metrics, roc, saliency_map_models

    count, height, width = p.shape
    rng = np.random.default_rng(0)
    stimuli = pysaliency.Stimuli(list(rng.integers(0, 256, (count, height, width, 3), np.uint8)))
    x, y = xy.reshape(-1, 2).T
    fixations = pysaliency.Fixations.create_without_history(x, y, np.repeat(np.arange(count), xy.shape[1]))

    class Model(pysaliency.SaliencyMapModel):  # type: ignore[misc]
        def __init__(self, maps: Array) -> None:
            super().__init__(caching=False)
            self.maps = dict(zip(stimuli.stimulus_ids, maps.astype(float), strict=True))

        def _saliency_map(self, stimulus: Array) -> Array:
            return self.maps[pysaliency.datasets.get_image_hash(stimulus)]

    model, gold = Model(p), Model(g)

    def models() -> None:
        model.CC(stimuli, gold)
        model.SIM(stimuli, gold)
        model.NSS(stimuli, fixations, average="image")
        model.AUC_Judd(stimuli, fixations)
        model.sAUC(stimuli, fixations, average="image")

    def functions() -> None:
        for a, b, points in zip(p.astype(float), g.astype(float), xy.astype(int), strict=True):
            xs, ys = points.T
            metrics.CC(a, b)
            metrics.SIM(a, b)
            metrics.NSS(a, xs, ys).mean()
            rest = saliency_map_models._get_unfixated_values(a, ys, xs)
            roc.general_roc(a[ys, xs], rest, judd=1)
            others = rng.integers(0, (width, height), (SPLITS * len(xs), 2))
            roc.general_roc(a[ys, xs], a[others[:, 1], others[:, 0]])

    return {"pysaliency": models, "pysaliency, functions": functions}


def rate(call: Callable[[], object], count: int, times: int = 3) -> float:
    """Frames a second, the best of some runs after one to warm up."""
    call()
    best = np.inf
    for _ in range(times):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return count / best


def peak_mb(repeats: int) -> float:
    """Peak memory of a process that evaluates 40 frames so many times."""
    command = [sys.executable, __file__, "--memory", str(repeats)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=60, help="frames of 360 x 640")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the threads are those of `evaluate`
    p, g, xy = frames(options.frames, 360, 640, 20)
    pool = Fixations.from_points([xy.reshape(-1, 2)], (360, 640))
    if options.memory:
        evaluate(p[:40], g[:40], xy[:40], pool, options.memory)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    table = Table("what", "frames/s", "hd2s is faster by", title=f"{os.cpu_count()} cores")
    fast = rate(lambda: evaluate(p, g, xy, pool), len(p))
    table.add_row("360 x 640, 20 fixations: CC, SIM, NSS, AUC-J, s-AUC: hd2s", f"{fast:.0f}", "")
    try:
        for name, call in pysaliency_calls(p, g, xy).items():
            slow = rate(call, len(p), 2)
            table.add_row(f"  {name}", f"{slow:.1f}", f"{fast / slow:.1f}")
    except ImportError as error:
        table.add_row(f"  pysaliency is left out ({error})", "", "")
    p, g, xy = frames(8, 1080, 1920, 70)
    np.testing.assert_allclose(evaluate(p, g, xy, None), loops(p, g, xy), rtol=1e-4)
    fast, slow = rate(lambda: evaluate(p, g, xy, None), len(p)), rate(lambda: loops(p, g, xy), len(p), 1)
    table.add_row("1080 x 1920, 70 fixations: CC, SIM, NSS, AUC-J: hd2s", f"{fast:.1f}", "")
    table.add_row("  numpy loops", f"{slow:.2f}", f"{fast / slow:.1f}")
    table.add_row("peak memory, 400 frames", f"{peak_mb(10):.0f} MB", "")
    table.add_row("peak memory, 4,000 frames", f"{peak_mb(100):.0f} MB", "")
    Console().print(table)


if __name__ == "__main__":
    main()
