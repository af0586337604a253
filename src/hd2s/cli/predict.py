"""`hd2s predict`: videos in, overlays and maps out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
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
from hd2s.errors import HD2SError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from hd2s.inference.engines import Engine
    from hd2s.inference.writers import Style
    from hd2s.types import VideoInfo


@reports_errors
def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Videos, images, folders of frames, patterns such as 'clips/*.mp4', URLs, or cameras.",
            show_default=False,
        ),
    ],
    output: Output = Path("out"),
    save: Annotated[
        str, typer.Option(help="Any of overlay, video, maps, npz, gif, csv, separated by commas.")
    ] = "overlay",
    conspicuity: Annotated[
        bool, typer.Option("--conspicuity", help="Also save the maps of the four levels, as a mosaic.")
    ] = False,
    colormap: Annotated[
        str, typer.Option(help="Colours of the heat map: turbo, inferno, viridis, ...")
    ] = "turbo",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Opacity of the heat map.")] = 0.6,
    bits: Annotated[int, typer.Option(help="Bits of a grey level in the PNG files of maps: 8 or 16.")] = 8,
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
    """Predict where people look, and save overlays, maps or numbers.

    The paths of the results go to standard output. Results that are there already are skipped. An input
    that cannot be read is reported and skipped; the exit status is then 1.
    """
    from hd2s.data.video import expand_inputs
    from hd2s.inference.engines import open_engine
    from hd2s.inference.writers import Style, check_kinds

    kinds = check_kinds(word.strip() for word in save.split(",")) + ["conspicuity"] * conspicuity
    job = _Job(
        output,
        kinds,
        Style(colormap=colormap, alpha=alpha, map_bits=bits),  # type: ignore[arg-type]  # it checks itself
        overwrite,
        debug,
    )
    paths = expand_inputs(inputs)
    entries = job.run(paths, open_engine(model, weights, domain, engine=engine, device=device, post=post))
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    else:
        for entry in entries:
            for path in entry["results"].values():
                typer.echo(path)
    if any(entry["problems"] for entry in entries):
        raise typer.Exit(FAILURE)


@dataclass
class _Job:
    """A number of inputs that are predicted alike, with progress bars."""

    output: Path
    kinds: list[str]
    style: Style
    overwrite: bool
    debug: bool
    inputs: dict[str, str] = field(default_factory=dict)  # by the name that their results have

    def run(self, paths: list[str], network: Engine) -> list[dict[str, Any]]:
        """Predict all inputs; tell what became of each."""
        from hd2s.cli.progress import log_above, progress_bars

        entries = []
        bars = progress_bars(["total", *(Path(path).name for path in paths)])
        with bars as progress, log_above(bars.console):
            total = progress.add_task("total", total=len(paths), unit="inputs", visible=len(paths) > 1)
            for path in paths:
                entry = self._one(path, network, progress)
                progress.advance(total)
                for problem in entry["problems"]:
                    complain(f"{path}: {problem}", progress.console)
                entries.append(entry)
        return entries

    def _one(self, path: str, network: Engine, progress: Progress) -> dict[str, Any]:
        """Predict one input; an error is a problem of that input alone."""
        from hd2s.cli.progress import finish
        from hd2s.data.video import open_source
        from hd2s.inference.pipeline import render

        task = progress.add_task(Path(path).name, total=None, unit="frames")

        def show(info: VideoInfo) -> None:
            progress.update(task, advance=1, total=info.num_frames)

        entry: dict[str, Any] = {
            "input": path,
            "status": "failed",
            "frames": 0,
            "results": {},
            "problems": [],
        }
        try:
            with open_source(path) as source:
                self._claim(source.info.name, path)
                report = render(
                    source,
                    self.output,
                    save=self.kinds,
                    model=network,
                    style=self.style,
                    overwrite=self.overwrite,
                    on_frame=show,
                )
        except HD2SError as error:
            if self.debug:
                raise
            finish(progress, task, 0)
            return {**entry, "problems": [str(error)]}
        finish(progress, task, report.num_frames)
        if not report.num_frames:
            skipped = "skipped, its results are there already; --overwrite makes them again"
            complain(f"{path}: {skipped}", progress.console)
        return {
            **entry,
            "status": "done" if report.num_frames else "skipped",
            "frames": report.num_frames,
            "seconds": round(report.seconds, 3),
            "first_map_seconds": round(report.first_map_seconds, 3),
            "results": {kind: str(result) for kind, result in report.results.items()},
            "problems": report.problems,
        }

    def _claim(self, name: str, path: str) -> None:
        """Refuse an input whose results would have the names of another's."""
        other = self.inputs.setdefault(name, path)
        if other != path:
            raise OutputError(
                f"Its results would replace those of '{other}', as both are called '{name}'. Predict it into "
                "another folder (--output)."
            )
