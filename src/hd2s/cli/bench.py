"""`hd2s bench`: how fast this machine predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hd2s.cli.common import AsJson, Debug, Device, reports_errors

if TYPE_CHECKING:
    from hd2s.inference.bench import Report

_WIDTH = 125  # of tables that are not shown on a terminal


@reports_errors
def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name of a network, once or more; all by default.", show_default=False),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="torch, torch-compile or openvino, once or more; the first and the last by default.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    video: Annotated[
        Path | None,
        typer.Option(help="Predict this video, instead of a made up one.", show_default=False),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds for each measurement.")] = 2.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure how fast the networks are on this machine; it takes a minute or two.

    Networks without weights get random ones: speed does not depend on them.
    """
    from rich.console import Console

    from hd2s.cli.progress import log_above
    from hd2s.inference import bench as benchmark

    console = Console(stderr=True)
    with console.status("") as status, log_above(console):
        report = benchmark.bench(
            model or (),
            engine or (),
            device=device,
            video=video,
            seconds=seconds,
            on_step=lambda step: status.update(f"measuring: {step}"),
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        _print(report)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    for key, value in report.machine.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {version}" for name, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(value) or "unknown"
        typer.echo(f"{key.replace('_', ' ')}: {'none' if value is None else value}")
    for key, peak in report.peak_gflops.items():
        typer.echo(f"matrix product, {key}: {peak:.0f} GFLOP/s")
    numbers = ["ms/map", "ms/map live", "GFLOP/map", "reused", "GFLOP/s", "of peak"]
    if any(row.gpu_memory_mb is not None for row in report.speeds):
        numbers.append("GPU MB")
    table = Table("network", "engine", "precision")
    for title in numbers:
        table.add_column(title, justify="right")
    for row in report.speeds:
        table.add_row(
            row.model,
            row.engine if row.device == "cpu" else f"{row.engine}, {row.device}",
            row.precision,
            f"{row.ms_per_map:.3f}",
            f"{row.ms_per_map_live:.3f}",
            f"{row.gflop_per_map:.2f}",
            f"{row.gflop_per_map_reused:.2f}",
            f"{row.gflops:.0f}",
            f"{row.peak_share:.1%}",
            *([f"{row.gpu_memory_mb:.0f}"] if row.gpu_memory_mb is not None else []),
        )
    console.print(table)
    typer.echo(
        "GFLOP/map is the work of a whole clip, 'reused' what is left of it where a map takes over what it "
        "shares with those before; GFLOP/s and the share of the matrix product's peak count the latter."
    )
    for result in report.end_to_end:
        typer.echo(
            f"{result.model}, {result.engine} {result.precision}, overlay of {result.video}: "
            f"{result.frames_per_second:.1f} frames/s"
        )
