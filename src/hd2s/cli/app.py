"""The commands of `hd2s`. Heavy imports happen inside the commands: `hd2s --help` is instant."""

from __future__ import annotations

from typing import Annotated

import typer

import hd2s
from hd2s.cli import datasets, weights
from hd2s.cli.bench import bench
from hd2s.cli.evaluate import evaluate
from hd2s.cli.export import export
from hd2s.cli.predict import predict
from hd2s.cli.train import train

app = typer.Typer(
    name="hd2s",
    help="Predict where people look in a video, frame by frame.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a paragraph
)
app.command()(predict)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(bench)
app.add_typer(weights.app, name="weights")
app.add_typer(datasets.app, name="datasets")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(hd2s.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before a command."""
