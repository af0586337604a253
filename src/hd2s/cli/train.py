"""`hd2s train`: from a recipe to a weight file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hd2s.cli.common import Debug, reports_errors
from hd2s.errors import MissingExtraError


@reports_errors
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe such as recipes/lite.toml.", show_default=False)],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe: optim.epochs=2.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the run; runs/NAME of the recipe by default.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[
        bool, typer.Option("--print", help="Print the recipe with all its values as JSON, and do nothing.")
    ] = False,
    plot: Annotated[
        bool, typer.Option("--plot", help="Draw the curves of a run so far: give its folder as RECIPE.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a network as a recipe says. The same command again resumes an interrupted run.

    The path of the weight file goes to standard output.
    """
    try:
        import lightning  # noqa: F401
        import pydantic  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.needed(f"Training needs more packages ({error.name})", "train") from error
    if plot:
        from hd2s.training.plots import plot_run

        typer.echo(plot_run(recipe))
        return
    from hd2s.training.recipe import load_recipe

    resolved = load_recipe(recipe, changes or ())
    if show:
        typer.echo(resolved.model_dump_json(indent=2, by_alias=True))
        return
    from lightning.pytorch.utilities import rank_zero_only

    from hd2s.training.run import train as run

    weights = run(resolved, output or Path("runs") / recipe.stem)
    if not getattr(rank_zero_only, "rank", 0):
        typer.echo(weights)
