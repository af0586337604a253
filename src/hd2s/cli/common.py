"""What the commands share: options, and how they report errors."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hd2s import interrupts
from hd2s.errors import HD2SError, RecipeError, UnknownNameError

if TYPE_CHECKING:
    from rich.console import Console

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make results again that are there already.")]
Model = Annotated[str, typer.Option(help="Name of the network: hd2s-lite or hd2s.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weight file or published checkpoint, instead of the weights that come along.",
        show_default=False,
    ),
]
Domain = Annotated[str | None, typer.Option(help="Data set whose viewers to imitate.", show_default=False)]
Post = Annotated[str, typer.Option(help="Post-processing: none, or paper as in the published inference.")]
EngineName = Annotated[str, typer.Option(help="auto, torch, torch-compile or openvino.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[
    str, typer.Option(help="float32, bfloat16, or auto: bfloat16 where the processor has it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a report as JSON to standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)]


def complain(message: object, console: Console | None = None) -> None:
    """Print an error or a warning to standard error; above the bars of a `console` that shows some."""
    text = f"hd2s: {message}"
    if console is None:
        typer.echo(text, err=True)
    else:
        console.out(text, highlight=False)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that hd2s raises on purpose into messages and exit statuses, unless `debug` is set."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> None:
        interrupts.begin()
        try:
            command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted; complete results are kept, and the same command again makes the rest")
            raise typer.Exit(INTERRUPTED) from None
        except HD2SError as error:
            if debug:
                raise
            complain(error)
            raise typer.Exit(
                USAGE if isinstance(error, (UnknownNameError, RecipeError)) else FAILURE
            ) from None
        except OSError as error:
            if debug or error.errno == errno.EPIPE:  # of a pipe that nobody reads any more typer says nothing
                raise
            complain(f"{error}. Check standard output and free space; --debug shows where it happened.")
            sys.stdout = None  # else Python tries again at its end to write to it
            raise typer.Exit(FAILURE) from None

    return wrapped
