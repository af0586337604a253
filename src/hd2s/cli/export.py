"""`hd2s export`: a network as one file for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hd2s.cli.common import Debug, Domain, Model, Overwrite, Weights, reports_errors


@reports_errors
def export(
    format: Annotated[str, typer.Option(help="onnx or openvino.")] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .onnx, or .xml with a .bin beside it. By default the model's name.",
            show_default=False,
        ),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Any batch, and any size in multiples of 32.")
    ] = False,
    overwrite: Overwrite = False,
    model: Model = "hd2s-lite",
    weights: Weights = None,
    domain: Domain = None,
    debug: Debug = False,
) -> None:
    """Write a network as one graph: RGB clips of bytes in, maps of their last frames out.

    The file is compared with PyTorch in its own runtime before it gets its name. The paths of the files go
    to standard output.
    """
    from rich.console import Console

    from hd2s.cli.progress import log_above
    from hd2s.inference import export as exporter

    known = exporter.FORMATS.get(format)  # an unknown one is refused below
    path = output or Path(model + (known.suffixes[0] if known else ""))
    with log_above(Console(stderr=True)):
        files = exporter.export(path, format, model, weights, domain, dynamic=dynamic, overwrite=overwrite)
    for file in files:
        typer.echo(file)
