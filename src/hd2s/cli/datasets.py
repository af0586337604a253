"""`hd2s datasets`: which data sets are understood, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hd2s.cli.common import FAILURE, Debug, reports_errors

if TYPE_CHECKING:
    from hd2s.data.datasets import DataSet
    from hd2s.data.datasets.check import Counts

app = typer.Typer(
    help="List the data sets that are understood, and check one.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command("list")
@reports_errors
def list_(debug: Debug = False) -> None:
    """List the data sets that hd2s reads: how they lie on disk, their splits, licence and paper."""
    from hd2s.data.datasets import LAYOUTS

    for layout in LAYOUTS.values():
        typer.echo(f"{layout.name}: {layout.title}")
        typer.echo(f"  layout: {layout.description}")
        typer.echo(f"  splits: {', '.join(layout.splits)}")
        typer.echo(f"  licence: {layout.license}")
        typer.echo(f"  cite: {layout.citation}")


@app.command()
@reports_errors
def check(
    root: Annotated[Path, typer.Argument(help="Folder of a data set.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name that `hd2s datasets list` shows, where looking does not tell.", show_default=False
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Check this part only.")] = "all",
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode all frames and maps, to find damage.", show_default=False)
    ] = False,
    debug: Debug = False,
) -> None:
    """Find the layout of a data set, count what is there and list what is wrong.

    The exit status is 1 if something cannot be used as it is.
    """
    from hd2s.data.datasets import open_dataset

    data = open_dataset(root, split, name)
    counts = _examine(data, decode)
    _report(data, counts)
    if any(problem.fatal for problem in counts.problems):
        raise typer.Exit(FAILURE)


def _examine(data: DataSet, decode: bool) -> Counts:
    """Look at all videos, with a bar."""
    from hd2s.cli.progress import progress_bars
    from hd2s.data.datasets.check import Counts, examine

    total = Counts(problems=list(data.problems))
    with progress_bars([data.name]) as bars:
        task = bars.add_task(data.name, total=len(data.videos), unit="videos")
        for video in data.videos:
            total.add(examine(video, decode=decode))
            bars.advance(task)
    return total


def _report(data: DataSet, counts: Counts) -> None:
    """Print what was found: facts first, then problems, those that count last."""
    from hd2s.data.datasets import LAYOUTS

    layout = LAYOUTS[data.name]
    facts = {
        "data set": f"{layout.title} ({data.name}), split {data.split}",
        "videos": f"{counts.videos:,}, {counts.labelled:,} of them with maps or fixations",
        "frames": f"{counts.frames:,}",
        "maps": f"{counts.maps:,}",
        "fixations": f"{counts.fixations:,}",
    }
    if counts.short:
        facts["short"] = f"{counts.short:,} videos of fewer than 16 frames, which are continued by reflection"
    for key, value in facts.items():
        typer.echo(f"{key}: {value}")
    for problem in sorted(counts.problems, key=lambda problem: problem.fatal):
        typer.echo(f"{'unusable' if problem.fatal else 'note'}: {problem}")
    fatal = sum(problem.fatal for problem in counts.problems)
    typer.echo(f"{len(counts.problems) - fatal} notes, {fatal} unusable")
