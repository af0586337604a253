"""`hd2s predict`: videos in, overlays and maps out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    Precision,
    Weights,
    complain,
    reports_errors,
)
from hd2s.errors import HD2SError, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hd2s.inference.crew import Entry
    from hd2s.inference.engines import Engine
    from hd2s.inference.writers import Style


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
        list[str],
        typer.Option(help="Any of overlay, video, maps, npz, gif, csv, separated by commas, or repeated."),
    ] = ["overlay"],  # noqa: B006 (typer copies it)
    conspicuity: Annotated[
        bool, typer.Option("--conspicuity", help="Also save the maps of the four levels, as a mosaic.")
    ] = False,
    colormap: Annotated[
        str, typer.Option(help="Colours of the heat map: turbo, inferno, viridis, ...")
    ] = "turbo",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Opacity of the heat map.")] = 0.6,
    bits: Annotated[int, typer.Option(help="Bits of a grey level in the PNG files of maps: 8 or 16.")] = 8,
    stride: Annotated[
        int,
        typer.Option(
            min=1, help="Predict every so-manieth frame and interpolate in between; memory grows with it."
        ),
    ] = 1,
    jobs: Annotated[
        int, typer.Option(min=1, help="Number of processes that share the inputs and the cores.")
    ] = 1,
    overwrite: Overwrite = False,
    model: Model = "hd2s-lite",
    weights: Weights = None,
    domain: Domain = None,
    post: Post = "none",
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Predict where people look, and save overlays, maps or numbers.

    The paths of the results go to standard output. Results that are there already, and newer than their
    input, are kept. An input that cannot be read is reported and skipped; the exit status is then 1.
    """
    from hd2s.data.video import expand_inputs
    from hd2s.inference.writers import Style, check_kinds

    words = (word.strip() for part in save for word in part.split(","))
    kinds = check_kinds(words) + ["conspicuity"] * conspicuity
    style = Style(colormap=colormap, alpha=alpha, map_bits=bits)  # type: ignore[arg-type]  # it checks itself
    network = {
        "model": model,
        "weights": weights,
        "domain": domain,
        "engine": engine,
        "device": device,
        "precision": precision,
        "post": post,
    }
    job = _Job(output, kinds, style, stride, overwrite, debug, network)
    entries = _predict_all(job, _without_results(expand_inputs(inputs), output), jobs)
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
    else:
        for entry in entries:
            for path in entry["results"].values():
                typer.echo(path)
    if any(entry["problems"] for entry in entries):
        raise typer.Exit(FAILURE)


def _without_results(paths: list[str], output: Path) -> list[str]:
    """Leave out what is called like a result of another input: patterns match what an earlier run made."""
    from hd2s.inference.writers import SAVE_KINDS, result_path

    makers = {
        os.path.abspath(result_path(kind, Path(path).stem, output)): path
        for path in paths
        for kind in SAVE_KINDS
    }
    kept = [path for path in paths if makers.get(os.path.abspath(path), path) == path]
    if len(kept) < len(paths):
        complain(f"left out, as they are results of other inputs in '{output}': {len(paths) - len(kept)}")
    return kept


def _predict_all(job: _Job, paths: list[str], jobs: int) -> list[Entry]:
    """Predict all inputs, here or in several processes; tell what became of each."""
    from hd2s.cli.progress import log_above, progress_bars

    jobs = min(jobs, len(paths))
    engine = job.open() if jobs == 1 else None
    progress = progress_bars(["total", *(Path(path).name for path in paths)])
    with progress, log_above(progress.console):
        bars = _Bars(progress, len(paths))
        if engine is not None:
            return _predict_here(job, paths, engine, bars)
        from hd2s.inference.crew import Crew

        with Crew(job, jobs) as crew:
            return crew.run(paths, bars)


def _predict_here(job: _Job, paths: list[str], engine: Engine, bars: _Bars) -> list[Entry]:
    """Predict inputs one by one."""
    entries, names = [], dict[str, str]()
    for path in paths:
        bars.begin(path)
        claim, show = partial(_claim, names, path), partial(bars.frame, path)
        entries.append(job.predict(path, engine, claim, show))
        bars.end(path, entries[-1])
    return entries


@dataclass
class _Job:
    """What is done with each input; see `hd2s.inference.crew.Job`."""

    output: Path
    kinds: list[str]
    style: Style
    stride: int
    overwrite: bool
    debug: bool
    network: dict[str, Any]  # for `open_engine`

    def open(self) -> Engine:
        """Make the engine."""
        from hd2s.inference.engines import open_engine

        return open_engine(**self.network)

    def predict(
        self, path: str, engine: Engine, claim: Callable[[str], str], on_frame: Callable[[int | None], None]
    ) -> Entry:
        """Predict one input; an error is a problem of that input alone."""
        from hd2s.data.video import open_source
        from hd2s.inference.pipeline import render

        try:
            with open_source(path) as source:
                name = source.info.name
                if (other := claim(name)) != path:
                    raise OutputError(
                        f"Its results would replace those of '{other}', as both are called '{name}'. Predict "
                        "it into another folder (--output)."
                    )
                report = render(
                    source,
                    self.output,
                    save=self.kinds,
                    model=engine,
                    style=self.style,
                    stride=self.stride,
                    overwrite=self.overwrite,
                    on_frame=lambda info: on_frame(info.num_frames),
                )
        except HD2SError as error:
            if self.debug:
                raise
            return self.failure(path, str(error))
        return {
            **self.failure(path),
            "status": "done" if report.num_frames else "skipped",
            "frames": report.num_frames,
            "seconds": round(report.seconds, 3),
            "first_map_seconds": round(report.first_map_seconds, 3),
            "results": {kind: str(result) for kind, result in report.results.items()},
            "problems": report.problems,
        }

    def failure(self, path: str, *problems: str) -> Entry:
        """Tell that an input was not predicted."""
        return {"input": path, "status": "failed", "frames": 0, "results": {}, "problems": list(problems)}


class _Bars:
    """Shows a bar for each input that is worked on, and one for all; see `hd2s.inference.crew.Watcher`."""

    def __init__(self, progress: Progress, count: int) -> None:
        self._progress = progress
        self._total = progress.add_task("total", total=count, unit="inputs", visible=False)
        self._tasks: dict[str, TaskID] = {}
        self._several = count > 1

    def begin(self, path: str) -> None:
        """Add a bar."""
        self._progress.update(self._total, visible=self._several)
        self._tasks[path] = self._progress.add_task(Path(path).name, total=None, unit="frames")

    def frame(self, path: str, total: int | None) -> None:
        """Advance a bar."""
        self._progress.update(self._tasks[path], advance=1, total=total)

    def end(self, path: str, entry: Entry) -> None:
        """Finish a bar, and tell what was not as usual."""
        from hd2s.cli.progress import finish

        if path in self._tasks:  # else its process ended before it began
            finish(self._progress, self._tasks[path], entry["frames"])
        self._progress.advance(self._total)
        problems = entry["problems"]
        if entry["status"] == "skipped":
            kept = "skipped, its results are there and stay as they were made; for other options or weights"
            problems = [f"{kept} use --overwrite", *problems]
        for problem in problems:
            complain(f"{path}: {problem}", self._progress.console)


def _claim(names: dict[str, str], path: str, name: str) -> str:
    """Return the input whose results have a name: `path` if there is none yet."""
    return names.setdefault(name, path)
