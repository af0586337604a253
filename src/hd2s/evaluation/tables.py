"""A report as JSON and as CSV files."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hd2s.errors import OutputError
from hd2s.evaluation.report import Mean, Report
from hd2s.evaluation.scoring import PREDICTORS


def to_dict(report: Report) -> dict[str, Any]:
    """Turn a report into what JSON can hold; undefined numbers are None."""
    means: dict[str, dict[str, Any]] = {predictor: {} for predictor in report.labels}
    for predictor, metric, mean in report.rows():
        means[predictor][metric] = {key: plain(value) for key, value in mean._asdict().items()}
    return {
        "data": report.data.name,
        "root": str(report.data.root),
        "split": report.data.split,
        "settings": report.settings,
        "predictors": [
            {"name": name, "label": label, "metrics": means[name]} for name, label in report.labels.items()
        ],
        "videos": [
            {
                "name": video.name,
                "group": video.group,
                "frames": video.frames,
                "metrics": {
                    predictor: dict(
                        zip(report.metrics, map(plain, video.means[PREDICTORS.index(predictor)]), strict=True)
                    )
                    for predictor in report.labels
                },
                "skipped": video.skipped,
                "notes": video.notes,
            }
            for video in report.videos
        ],
        "skipped": report.skipped(),
        "failed": report.failures,
        "notes": report.notes,
    }


def plain(value: float) -> float | None:
    """Turn a number into what JSON can hold."""
    return None if math.isnan(value) else value if isinstance(value, int) else float(value)


def write_tables(report: Report, folder: Path) -> list[Path]:
    """Write CSV files: the scores of frames, of videos and of the data set.

    Raises:
        OutputError: The folder cannot be written to.
    """
    names = list(report.metrics)
    used = [(PREDICTORS.index(name), label) for name, label in report.labels.items()]

    def of_frames() -> Iterator[list[object]]:
        for video in report.videos:
            scores = report.scores(video.name)
            for row, frame in enumerate(() if scores is None else scores.frames):
                assert scores is not None
                fixations = scores.fixations[row]
                for place, label in used:
                    values = scores.values[place, row]
                    yield [video.name, frame, "" if fixations < 0 else fixations, label, *values]

    def of_videos() -> Iterator[list[object]]:
        for video in report.videos:
            for place, label in used:
                yield [video.name, video.group, video.frames, label, *video.means[place]]

    def of_data() -> Iterator[list[object]]:
        for predictor, metric, mean in report.rows():
            yield [report.labels[predictor], metric, *mean]

    return [
        write_csv(folder / "frames.csv", ["video", "frame", "fixations", "predictor", *names], of_frames()),
        write_csv(folder / "videos.csv", ["video", "group", "frames", "predictor", *names], of_videos()),
        write_csv(folder / "dataset.csv", ["predictor", "metric", *Mean._fields], of_data()),
    ]


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a table in one step; nan becomes an empty cell."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a path; what was written there gets the path's name at the end.

    Raises:
        OutputError: The folder cannot be made, or the file not be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"Cannot write '{path}': {error.strerror}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _cell(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.7g}"
    return value
