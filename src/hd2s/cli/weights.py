"""`hd2s weights`: what there is, what it may be used for, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hd2s.cli.common import Debug, complain, reports_errors

if TYPE_CHECKING:
    from torch import Tensor

    from hd2s.types import InputSpec
    from hd2s.weights.catalog import WeightRecord

app = typer.Typer(
    help="List trained weights with their licences, download, explain and convert them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_TABLE_WIDTH = 76  # columns; the table cannot be read in fewer
_UNLIMITED = 1000

File = Annotated[Path, typer.Argument(help="A weight file or checkpoint.", show_default=False)]
Name = Annotated[str, typer.Argument(help="A name that `hd2s weights list` shows.", show_default=False)]


@app.command("list")
@reports_errors
def list_(debug: Debug = False) -> None:
    """List the weights that hd2s knows: licence, size, where they are, and what they were trained on."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hd2s.weights.catalog import WEIGHTS

    rows = [_row(record) for record in WEIGHTS.values()]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNLIMITED  # in a file or a pipe each row is one line
    if console.width < _TABLE_WIDTH:
        for row in rows:
            console.print(Text("\n".join(f"{key}: {value}" for key, value in row.items())), end="\n\n")
    else:
        table = Table(*rows[0], box=None, pad_edge=False, header_style="")
        for column in table.columns[:3]:
            column.no_wrap = True
        for row in rows:
            table.add_row(*row.values())
        console.print(table, Text())
    for record in WEIGHTS.values():
        console.print(Text(f"{record.name}: {_origin(record)}"))
    for advice in dict.fromkeys(record.advice for record in WEIGHTS.values() if record.advice):
        names = ", ".join(record.name for record in WEIGHTS.values() if record.advice == advice)
        console.print(Text(f"\n{names}: {advice}"))


@app.command()
@reports_errors
def get(name: Name, debug: Debug = False) -> None:
    """Download weights into the cache folder, unless they are there. An interrupted download goes on.

    The path of the file goes to standard output.
    """
    from hd2s.cli.progress import download_bars, log_above
    from hd2s.weights.catalog import find
    from hd2s.weights.download import fetch

    record = find(name)
    use = "allowed" if record.commercial_use else "not allowed"
    typer.echo(f"{name}: licence {record.license}, commercial use {use}. {_origin(record)}", err=True)
    bars = download_bars()
    with ExitStack() as stack, log_above(bars.console):

        def show(done: int, total: int | None) -> None:
            if not bars.tasks:  # only a download has a bar
                stack.enter_context(bars)
                bars.add_task(name, total=total)
            bars.update(bars.task_ids[0], completed=done, total=total)

        path = fetch(record, show)
    typer.echo(path)


@app.command()
@reports_errors
def info(
    weights: Annotated[
        Path,
        typer.Argument(
            help="A weight file or checkpoint, or a name that `hd2s weights list` shows.", show_default=False
        ),
    ],
    debug: Debug = False,
) -> None:
    """Say what weights hold, what they may be used for and where they come from."""
    from hd2s.weights.catalog import WEIGHTS

    known = WEIGHTS.get(str(weights))
    for key, value in _of_record(known) if known and not weights.exists() else _of_file(weights).items():
        typer.echo(f"{key}: {value}")


def _of_record(record: WeightRecord) -> Iterator[tuple[str, str]]:
    """Say what the catalogue knows."""
    yield "name", record.name
    yield "network", record.network
    yield from _of_input(record.input, record.domains)
    yield "licence", f"{record.license}, commercial use {'' if record.commercial_use else 'not '}allowed"
    yield "parameters", "unknown" if record.num_parameters is None else f"{record.num_parameters:,}"
    yield "size", _size(record) if not record.path else f"{record.size_bytes:,} bytes"
    yield "sha256", record.sha256 or "unknown"
    yield "where", f"{_where(record)}{f': {place}' if (place := record.path or record.url) else ''}"
    for data in record.trained_on:
        source = f", see {data.license_source}" if data.license_source else ""
        yield "trained on", f"{data.name} [{data.license}{source}]: {data.citation}"
    for name, scores in record.scores.items():
        values = ", ".join(f"{metric} {value:.3f}" for metric, value in scores.items())
        yield "validation", f"{name}: {values}"
    yield "paper", record.paper
    yield "date", record.date or "unknown"
    if record.recipe:
        yield "recipe", record.recipe
    if record.advice:
        yield "advice", record.advice


def _of_input(spec: InputSpec, domains: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield "input", f"{spec.num_frames} frames of {spec.height} x {spec.width} (height x width)"
    yield "normalisation", f"mean {spec.mean}, std {spec.std}, of values from 0 to 1"
    yield "domains", ", ".join(domains) or "not told apart"


def _of_file(file: Path) -> dict[str, str]:
    """Say what a file holds."""
    import hashlib

    from hd2s.errors import InputNotFoundError
    from hd2s.weights import io
    from hd2s.weights.catalog import WEIGHTS

    if not file.exists():
        raise InputNotFoundError(
            f"There is no weight file '{file}', nor are there weights of that name. Known: "
            f"{', '.join(WEIGHTS)}."
        )
    weights = io.read(file)
    header = weights.header
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    lines = {
        "network": header.network + (" (the encoder alone)" if weights.encoder_only else ""),
        "kind": f"published checkpoint, {weights.family}" if weights.family else "written by hd2s",
        **dict(_of_input(header.spec, header.domains)),
        "domain heads": "for domain adaptation, in training only" if weights.heads else "none",
        "licence": header.license or "not stated in the file",
        "parameters": f"{_parameters(weights.state):,}",
        "size": f"{file.stat().st_size:,} bytes",
        "sha256": sha256,
    }
    for record in WEIGHTS.values():
        if record.sha256 and sha256.startswith(record.sha256):
            lines |= {"name": record.name, "licence": record.license, "origin": _origin(record)}
    return lines


@app.command()
@reports_errors
def convert(
    checkpoint: File,
    output: Annotated[Path, typer.Argument(help="A .safetensors file to write.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Turn a published checkpoint into a weight file of hd2s, float32 and free of pickle.

    The path of the file goes to standard output.
    """
    import torch

    from hd2s.errors import OutputError
    from hd2s.models import restore
    from hd2s.weights import io

    weights = io.read(checkpoint)
    model = restore(weights)
    if output.exists():
        raise OutputError(f"{output} exists already. Choose another name or remove it.")
    try:
        io.save(output, model, weights.header, dtype=torch.float32)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}.") from error
    if weights.heads:
        complain("the domain heads are left out: they are needed in training only")
    typer.echo(output)


def _parameters(state: Mapping[str, Tensor]) -> int:
    """Count what is learned by gradient: all but the statistics of batch norms."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(value.numel() for name, value in state.items() if not name.endswith(statistics))


def _row(record: WeightRecord) -> dict[str, str]:
    return {
        "name": record.name,
        "network": record.network,
        "licence": record.license,
        "commercial use": "yes" if record.commercial_use else "no",
        "size": _size(record),
        "where": _where(record),
    }


def _size(record: WeightRecord) -> str:
    if record.size_bytes is None:
        return "unknown"
    return f"{'' if record.size_is_exact else 'about '}{record.size_bytes / 1e6:.1f} MB"


def _where(record: WeightRecord) -> str:
    from hd2s.weights.download import cached_path

    if record.path is not None:
        return "comes along"
    if record.url is None:
        return "no public link"
    return "in the cache" if cached_path(record.url).is_file() else "to be downloaded"


def _origin(record: WeightRecord) -> str:
    """Say what the weights were trained on, and under which licences that is."""
    return f"Trained on {', '.join(f'{data.name} [{data.license}]' for data in record.trained_on)}."
