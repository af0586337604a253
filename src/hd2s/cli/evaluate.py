"""`hd2s evaluate`: predictions or a model on a data set, scored beside baselines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hd2s.cli.common import (
    FAILURE,
    AsJson,
    Debug,
    Device,
    Domain,
    EngineName,
    Model,
    Output,
    Overwrite,
    Post,
    Weights,
    complain,
    reports_errors,
)

if TYPE_CHECKING:
    from hd2s.evaluation.report import Mean, Report

_MAX_JOBS = 8  # where their number is not given
_WIDTH = 100  # of tables that are not shown on a terminal


@reports_errors
def evaluate(
    root: Annotated[Path, typer.Argument(help="Folder of a data set.", show_default=False)],
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Folder with a folder of images, a video or an npz for each video, instead of a model.",
            show_default=False,
        ),
    ] = None,
    output: Output = Path("out"),
    split: Annotated[
        str | None,
        typer.Option(help="Part of the data set: validation, or test with --submit.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Name that `hd2s datasets list` shows, where looking does not tell.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Conventions: dhf1k, aim2024, ntire2026, mit or plain; those of the data set by default.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Any of cc, sim, kld, nss, ig, auc_judd, auc_borji, auc_shuffled, separated by commas; "
            "those of the preset by default.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Score every how many frames one.")] = 1,
    csv: Annotated[
        bool, typer.Option("--csv", help="Write tables of frames, videos and the data set.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the scores, and the best and worst videos, as PNG.")
    ] = False,
    submit: Annotated[
        str | None,
        typer.Option(
            help="Do not score: write predictions as dhf1k, aim2024 or ntire2026 takes them, and check them.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of processes; by default that of cores.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    model: Model = "hd2s-lite",
    weights: Weights = None,
    domain: Domain = None,
    post: Post = "none",
    engine: EngineName = "auto",
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Score a model, or predictions on disk, on a data set, beside baselines.

    The table and the paths of other results go to standard output. Videos that are done are kept in the
    output folder, so the same command goes on where it was stopped. A video that cannot be scored is
    reported and left out; the exit status is then 1.
    """
    from hd2s.inference.engines import count_cores

    network: dict[str, Any] = {
        "model": model,
        "weights": weights,
        "domain": domain,
        "engine": engine,
        "device": device,
        "post": post,
    }
    jobs = jobs or min(count_cores(), _MAX_JOBS)
    split = split or ("validation" if submit is None else "test")
    shared: dict[str, Any] = {
        "split": split,
        "dataset": dataset,
        "predictions": predictions,
        "jobs": jobs,
        **network,
    }
    if submit is not None:
        if csv or plot or preset or metrics or every > 1:
            raise typer.BadParameter(
                "--submit writes predictions and does not score them: leave out --csv, --plot, --preset, "
                "--metrics and --every."
            )
        _submit(root, submit, output, as_json, debug, {**shared, "overwrite": overwrite})
        return
    from hd2s.evaluation.run import evaluate as run

    with _bars(str(root)) as show:
        report = run(
            root,
            **shared,
            preset=preset,
            metrics=None if metrics is None else [word.strip() for word in metrics.split(",")],
            every=every,
            out=output,
            overwrite=overwrite,
            on_progress=show,
        )
    for name, problem in (report.traces if debug else report.failures).items():
        complain(f"{name}: {problem}")
    _print(report, _files(report, output, csv=csv, plot=plot), as_json)
    if report.failures:
        raise typer.Exit(FAILURE)


@contextmanager
def _bars(name: str) -> Iterator[Any]:
    """Show a bar for each round of work, and one for the frames of the last, on standard error."""
    from hd2s.cli.progress import log_above, progress_bars

    with progress_bars(["training maps", name]) as bars, log_above(bars.console):
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                unit = "frames" if what == "frames" else "videos"
                tasks[what] = bars.add_task(what, total=total, completed=done, unit=unit)
            bars.update(tasks[what], completed=done, total=total)

        yield show


def _files(report: Report, output: Path, *, csv: bool, plot: bool) -> list[Path]:
    """Write what was asked for."""
    paths: list[Path] = []
    if csv:
        from hd2s.evaluation.tables import write_tables

        paths += write_tables(report, output)
    if plot:
        from hd2s.evaluation.plot import draw

        paths.append(draw(report, output / "scores.png"))
    return paths


def _print(report: Report, paths: list[Path], as_json: bool) -> None:
    """Print results to standard output."""
    if as_json:
        from hd2s.evaluation.tables import to_dict

        typer.echo(json.dumps({**to_dict(report), "files": [str(path) for path in paths]}, indent=2))
        return
    _print_table(report)
    for key, value in report.settings.items():
        typer.echo(f"{key}: {value}")
    for reason, count in report.skipped().items():
        typer.echo(f"skipped: {count} {reason}")
    for note in _notes(report):
        typer.echo(f"note: {note}")
    if report.failures:
        typer.echo(f"failed: {len(report.failures)} videos, which are not in the numbers")
    for path in paths:
        typer.echo(path)


def _print_table(report: Report) -> None:
    """Print means and intervals: a row for each metric, a column for each predictor."""
    from rich.console import Console
    from rich.table import Table

    from hd2s.evaluation.protocol import METRICS

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    groups = len({video.group for video in report.videos})
    frames = sum(video.frames for video in report.videos)
    title = f"{report.data.name}, {report.data.split}: {len(report.videos)} videos, {frames} frames"
    if groups != len(report.videos):
        title += f"; {groups} means count once each"
    table = Table("", *report.labels.values(), title=title)
    for metric in report.metrics:
        cells = [_cell(report.mean(predictor, metric)) for predictor in report.labels]
        arrow = "↑" if METRICS[metric].higher else "↓"
        table.add_row(f"{METRICS[metric].title} {arrow}", *cells)
    console.print(table)


def _cell(mean: Mean) -> str:
    if not mean.videos:
        return ""
    shown, low, high = (round(value, 4) + 0.0 for value in mean[:3])  # -0.0 becomes 0.0
    return f"{shown:.4f}" if mean.videos == 1 else f"{shown:.4f}\n{low:.3f} … {high:.3f}"


def _notes(report: Report) -> list[str]:
    """Collect notes; those that several videos share once."""
    counts: dict[str, int] = {}
    for video in report.videos:
        for note in video.notes:
            counts[note] = counts.get(note, 0) + 1
    return [*report.notes, *(f"{count} videos: {note}" for note, count in counts.items())]


def _submit(root: Path, name: str, output: Path, as_json: bool, debug: bool, options: dict[str, Any]) -> None:
    """Write and check a submission."""
    from hd2s.evaluation.submission import submit, to_dict

    with _bars(str(root)) as show:
        verdict = submit(root, name, output, **options, on_progress=show)
    for video, problem in (verdict.traces if debug else verdict.problems).items():
        complain(f"{video}: {problem}")
    if as_json:
        typer.echo(json.dumps(to_dict(verdict), indent=2))
    else:
        typer.echo(verdict.folder)
        complain(verdict.summary())
    if verdict.problems:
        raise typer.Exit(FAILURE)
