"""Speed and memory of the metrics beside pysaliency and straight numpy loops, as a table.

    python benchmarks/evaluate.py [--frames 60] [--pysaliency PYTHON]

All lines are measured in one run. hd2s works in two processes, as `hd2s evaluate` does, or in one; pysaliency
and numpy work as they are, in one. pysaliency is called as its users do (`model.CC(stimuli, ...)`, AUC_Judd
with its noise) and, "functions", through its functions alone. It does not import beside the versions that
hd2s is tested with: PYTHON is that of an environment which has it (a C compiler, pandas, setuptools < 82,
torch, opencv-python-headless). Without one its lines are left out. Frames are blurred fixations, float32.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

import hd2s
from hd2s.metrics.functional import Fixations, auc_judd, auc_shuffled, cc, nss, sim

BATCH, SPLITS = 8, 100
Array = NDArray[Any]


class Case(NamedTuple):
    """What is scored: how many frames, how large, with how many fixations each, and whether by s-AUC too."""

    count: int
    height: int
    width: int
    points: int
    shuffled: bool


@cache
def frames(case: Case) -> tuple[Array, Array, Array]:
    """Predictions and densities (count, height, width) float32, x and y (count, points, 2)."""
    count, height, width, points, _ = case
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


@cache
def pool_of(case: Case) -> Fixations | None:
    """All fixations, as the pool of negatives."""
    xy = frames(case)[2].reshape(-1, 2)
    return Fixations.from_points([xy], (case.height, case.width)) if case.shuffled else None


def batch(case: Case, start: int) -> list[float]:
    """Sums of the metrics over the frames from `start` on."""
    p, g, xy = (each[start : start + BATCH] for each in frames(case))
    return ours(p, g, xy, pool_of(case), range(start, start + len(p)))


def evaluate(case: Case, processes: ProcessPoolExecutor | None = None, repeats: int = 1) -> Array:
    """Means over all frames, several times over."""
    starts = list(range(0, case.count, BATCH)) * repeats
    sums = (map if processes is None else processes.map)(partial(batch, case), starts)
    return sum(map(np.array, sums), start=np.zeros(())) / (case.count * repeats)


def begin(case: Case) -> None:
    """Prepare a process: one thread, and the frames at hand."""
    torch.set_num_threads(1)
    batch(case, 0)


def fast(case: Case) -> tuple[float, float]:
    """Frames a second of hd2s in two processes and in one."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), begin, (case,)) as processes:
        both = rate(lambda: evaluate(case, processes), case.count, 12)
    return both, rate(lambda: evaluate(case), case.count, 12)


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


def rate(call: Callable[[], object], count: int, times: int) -> float:
    """Frames a second, the best of some runs after one to warm up."""
    call()
    best = np.inf
    for _ in range(times):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return count / best


def slow(python: str, case: Case) -> dict[str, float] | str:
    """Frames a second of pysaliency in an interpreter that has it, or why there are none."""
    source = str(Path(hd2s.__file__).parents[1])
    command = [python, __file__, "--theirs", "--frames", str(case.count)]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source})
    rates: dict[str, float] = json.loads(ran.stdout) if ran.returncode == 0 else {}
    return rates or ran.stderr.strip().splitlines()[-1]


def peak_mb(repeats: int) -> float:
    """Peak memory of a process that evaluates 40 frames so many times."""
    command = [sys.executable, __file__, "--memory", str(repeats)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def measure(case: Case, pysaliency: str) -> list[tuple[str, str, str, str]]:
    """Rows of the table."""
    rows = []

    def add(what: str, rates: tuple[float, float], theirs: float | None = None) -> None:
        ratios = [f"{each / theirs:.1f}" for each in rates] if theirs else ["", ""]
        rows.append((what, f"{theirs or rates[0]:.1f}", *ratios))

    rates = fast(case)
    add("360 x 640, 20 fixations: CC, SIM, NSS, AUC-J, s-AUC: hd2s", rates)
    add("  in one process", rates[1:] * 2)
    theirs = slow(pysaliency, case)
    if isinstance(theirs, str):
        rows.append((f"  pysaliency is left out ({theirs})", "", "", ""))
    else:
        for name, each in theirs.items():
            add(f"  {name}", rates, each)
    full_hd = Case(2 * BATCH, 1080, 1920, 70, shuffled=False)
    np.testing.assert_allclose(evaluate(full_hd), loops(*frames(full_hd)), rtol=1e-4)
    rates = fast(full_hd)
    add("1080 x 1920, 70 fixations: CC, SIM, NSS, AUC-J: hd2s", rates)
    add("  in one process", rates[1:] * 2)
    add("  numpy loops", rates, rate(lambda: loops(*frames(full_hd)), full_hd.count, 3))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=60, help="frames of 360 x 640")
    parser.add_argument("--pysaliency", default=sys.executable, metavar="PYTHON", help="one that has it")
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case = Case(options.frames, 360, 640, 20, shuffled=True)
    if options.theirs:
        calls = pysaliency_calls(*frames(case))
        print(json.dumps({name: rate(call, case.count, 3) for name, call in calls.items()}))
        return
    if options.memory:
        evaluate(case._replace(count=40), repeats=options.memory)
        print(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])  # Linux has it
        return
    from rich.console import Console
    from rich.table import Table

    heads = "what", "frames/s", "hd2s is faster by", "in one process by"
    table = Table(*heads, title=f"{os.cpu_count()} cores")
    for row in measure(case, options.pysaliency):
        table.add_row(*row)
    table.add_row("peak memory of a process, 400 frames", f"{peak_mb(10):.0f} MB", "", "")
    table.add_row("peak memory of a process, 4,000 frames", f"{peak_mb(100):.0f} MB", "", "")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
