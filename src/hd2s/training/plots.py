"""The curves of a run as a picture."""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from pathlib import Path

from hd2s.errors import InputNotFoundError, MissingExtraError

_EPOCH_COLUMNS = ("epoch", "step")


def read_curves(run: Path) -> dict[str, dict[int, float]]:
    """Read what a run logged, over all its starts: {name: {step: value}}; a later start replaces an earlier.

    Raises:
        InputNotFoundError: The folder holds no run.
    """
    paths = sorted(run.glob("metrics/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    if not paths:
        raise InputNotFoundError(
            f"{run} holds no run: there is no metrics/version_0/metrics.csv. Give a run's folder."
        )
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if text and name not in _EPOCH_COLUMNS:
                        curves[name][int(row["step"])] = float(text)
    return dict(curves)


def plot_run(run: Path) -> Path:
    """Draw all curves of a run, one panel for each group of names, into `curves.png` in its folder.

    Raises:
        InputNotFoundError: The folder holds no run.
        MissingExtraError: Matplotlib is not installed.
    """
    curves = read_curves(run)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.needed("Drawing needs Matplotlib", "train") from error
    panels: dict[str, list[str]] = defaultdict(list)
    for name in sorted(curves):
        panels[name.rpartition("/")[0] or name].append(name)
    columns = math.ceil(math.sqrt(len(panels)))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    for axes, (title, names) in zip(
        figure.subplots(rows, columns, squeeze=False).flat, panels.items(), strict=False
    ):
        for name in names:
            points = sorted(curves[name].items())
            axes.plot([s for s, _ in points], [v for _, v in points], label=name.rpartition("/")[2])
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.legend(fontsize="small")
    path = run / "curves.png"
    scratch = run / ".curves.tmp.png"
    figure.savefig(scratch, dpi=100)
    os.replace(scratch, path)
    return path
