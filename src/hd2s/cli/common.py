"""What the commands share: how they report errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hd2s.errors import HD2SError, RecipeError, UnknownNameError

FAILURE, USAGE, INTERRUPTED = 1, 2, 130

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)]


def complain(message: object) -> None:
    """Print an error or a warning to standard error."""
    typer.echo(f"hd2s: {message}", err=True)


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that hd2s raises on purpose into messages and exit statuses, unless `debug` is set."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> None:
        try:
            command(*args, debug=debug, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except HD2SError as error:
            if debug:
                raise
            complain(error)
            raise typer.Exit(
                USAGE if isinstance(error, (UnknownNameError, RecipeError)) else FAILURE
            ) from None

    return wrapped
