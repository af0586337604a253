"""What the commands share: how they report errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hd2s.errors import HD2SError, RecipeError, UnknownNameError

if TYPE_CHECKING:
    from rich.console import Console

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

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

    return wrapped
