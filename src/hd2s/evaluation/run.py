"""`evaluate`: predictions or a model, and a data set, become a report."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hd2s
from hd2s.data.datasets import AnnotatedVideo, DataSet, open_dataset
from hd2s.errors import DatasetFormatError, HD2SError
from hd2s.evaluation import protocol as protocols
from hd2s.evaluation.baselines import CENTRE_SIGMA, MEAN_FRAMES, MEAN_HW, Cells, Elsewhere, mean_map
from hd2s.evaluation.crew import Crew, Worker
from hd2s.evaluation.protocol import Protocol
from hd2s.evaluation.report import RESAMPLES, Report, VideoResult, summarise
from hd2s.evaluation.scoring import CENTRE, MEAN, PREDICTION, PREDICTORS, VIEWERS
from hd2s.evaluation.sources import Source, source_of
from hd2s.evaluation.store import Store, from_arrays

if TYPE_CHECKING:
    from hd2s.inference.engines import Engine
    from hd2s.models import HD2S

OnProgress = Callable[[str, int, int], None]


def evaluate(
    root: str | Path,
    *,
    split: str = "validation",
    dataset: str | None = None,
    preset: str | None = None,
    metrics: Sequence[str] | None = None,
    every: int = 1,
    predictions: str | Path | None = None,
    model: str | HD2S | Engine = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    engine: str = "auto",
    device: str = "auto",
    post: str = "none",
    out: str | Path | None = None,
    jobs: int = 1,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
) -> Report:
    """Score predictions, or a model, on a data set, beside baselines.

    A video that cannot be scored is reported in `Report.failures`, and the rest is done.

    Args:
        root: Folder of the data set.
        split: Part of it; see `hd2s.data.datasets.open_dataset`.
        dataset: Name of its layout; None finds it by looking.
        preset: "dhf1k", "aim2024", "ntire2026", "mit" or "plain"; None takes that of the data set, or plain.
        metrics: Names of metrics; None takes those of the preset.
        every: Score every how many frames one.
        predictions: Folder of predictions on disk, instead of a model.
        model: See `hd2s.predict`.
        weights: See `hd2s.load`.
        domain: See `hd2s.load`.
        engine: See `hd2s.predict`.
        device: See `hd2s.predict`.
        post: See `hd2s.predict`.
        out: Folder in which finished videos are kept, so that the same call goes on where it was stopped;
            None keeps them only as long as the report.
        jobs: Number of processes; with several, a script needs `if __name__ == "__main__":`.
        overwrite: Score again what has been scored, and read the ground truth for it again.
        on_progress: Called with what is being done ("fixations", "training maps" or "videos"), how many
            videos are done, and of how many; and with "frames", how many are scored, and of how many.

    Raises:
        HD2SError: The data set, the predictions or the model cannot be used, or no video could be scored.

    Example:
        >>> import hd2s
        >>> hd2s.evaluate("gone")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        hd2s.errors.DatasetNotFoundError: There is no folder gone. These layouts are understood:...
    """
    data = open_dataset(root, split, dataset)
    chosen = protocols.choose(data.name, preset, metrics, every)
    videos = [video for video in data.videos if video.labelled]
    if not videos:
        raise DatasetFormatError(
            f"No video of the split '{split}' in {root} has labels: it can be predicted, but not scored."
        )
    source = source_of(
        videos,
        predictions=predictions,
        model=model,
        weights=weights,
        domain=domain,
        engine=engine,
        device=device,
        post=post,
    )
    lasting = out is not None and source.identity() is not None
    folder = Path(out or "") / "scores" if lasting else Path(tempfile.mkdtemp(prefix="hd2s-"))
    run = _Run(data, videos, chosen, source, folder, on_progress or _silent)
    if not lasting:  # the report holds the store
        weakref.finalize(run.worker.scores, shutil.rmtree, folder, ignore_errors=True)
    if overwrite:
        for store in run.stores:
            store.clear()
    with Crew(run.worker, jobs if source.identity() is not None else 1) as crew:
        return run.report(crew)


def _silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


class _Run:
    """One evaluation, in three rounds: fixations elsewhere, training maps, scores."""

    def __init__(
        self,
        data: DataSet,
        videos: list[AnnotatedVideo],
        protocol: Protocol,
        source: Source,
        folder: Path,
        on_progress: OnProgress,
    ) -> None:
        self._data, self._videos, self._protocol, self._source = data, videos, protocol, source
        self._on_progress = on_progress
        self._traces: dict[str, str] = {}
        base = {"version": hd2s.__version__, "root": str(data.root.resolve()), "data": data.name}
        part = {**base, "split": data.split, "names": [video.name for video in videos]}
        grid = {"grid": protocol.grid_hw, "once": not protocol.preset.multiplicity, "every": protocol.every}
        measured = {"preset": asdict(protocol.preset), "metrics": protocol.metrics, "every": protocol.every}
        self.worker = Worker(
            protocol,
            source=source,
            scores=Store(folder, {**part, **measured, "source": source.identity()}),
            baselines=Store(folder, {**part, **measured, "source": "baselines"}),
            fixations=Store(folder, {**part, **grid, "of": "fixations"}),
            training=Store(folder, {**base, "of": "training maps", "size": MEAN_HW, "frames": MEAN_FRAMES}),
        )
        self.stores = (
            self.worker.scores,
            self.worker.baselines,
            self.worker.fixations,
            self.worker.training,
        )
        for store in self.stores:
            store.sweep()

    def report(self, crew: Crew) -> Report:
        """Do the work and put the report together."""
        notes: list[str] = [str(problem) for problem in self._data.problems]
        if "auc_shuffled" in self._protocol.metrics:
            notes += self._gather_fixations(crew)
        without_mean = self._gather_training(crew)
        failures = self._score(crew)
        results = self._results(failures)
        if not results:
            first = next(iter(failures.values()), "")
            cause = RuntimeError("\n".join(self._traces.values()))
            raise DatasetFormatError(f"No video of {self._data.root} could be scored. {first}") from cause
        labels = {
            PREDICTION: self._source.label,
            CENTRE: "centre prior",
            MEAN: "mean training map",
            VIEWERS: "viewers, half against half",
        }
        known = [name for name in PREDICTORS if any(_has(video, name) for video in results)]
        return Report(
            data=self._data,
            protocol=self._protocol,
            settings=self._settings(without_mean),
            labels={name: labels[name] for name in PREDICTORS if name in (PREDICTION, *known)},
            videos=results,
            failures=failures,
            traces=self._traces,
            notes=notes,
            store=self.worker.scores,
        )

    def _settings(self, without_mean: str | None) -> dict[str, str]:
        rows, columns = MEAN_HW
        mean = (
            f"density maps of the split 'train', up to {MEAN_FRAMES} evenly spaced frames of each video, "
            f"each divided by its sum, at {rows} x {columns}"
        )
        if without_mean is None and self._data.split in ("train", "all"):
            mean += "; it has seen the very videos that are scored"
        return {
            **self._protocol.settings(),
            "centre prior": f"a Gaussian with a standard deviation of {CENTRE_SIGMA:g} of each side",
            "mean training map": mean if without_mean is None else f"none: {without_mean}",
            "viewers": "those with even numbers predict those with odd ones: halves, not one against all",
            "interval": f"95 %, percentiles of {RESAMPLES:,} bootstrap resamples over videos",
            "hd2s": hd2s.__version__,
        }

    def _do(
        self, crew: Crew, work: str, videos: list[AnnotatedVideo], done: int, what: str
    ) -> dict[str, str]:
        """Do some work on videos; return what went wrong with which."""
        total, frames = done + len(videos), 0
        self._on_progress(what, done, total)
        of = sum(map(self._frames, videos)) if work == "score" else 0

        def advance(by: int) -> None:
            nonlocal frames
            frames += by
            if by:
                self._on_progress("frames", frames, of)

        failures = {}
        for video, problem in crew.map(work, videos, advance):
            done += 1
            self._on_progress(what, done, total)
            if problem is not None:
                failures[video.name] = self._noted(video, problem)
        return failures

    def _noted(self, video: AnnotatedVideo, error: HD2SError) -> str:
        """Keep the traceback of an error as text: its frames hold maps."""
        self._traces[video.name] = "".join(traceback.format_exception(error))
        return str(error)

    def _frames(self, video: AnnotatedVideo) -> int:
        """Return how many frames are scored; 0 if that cannot be told, as scoring will explain."""
        try:
            return len(range(0, video.num_frames, self._protocol.every))
        except HD2SError:
            return 0

    def _gather_fixations(self, crew: Crew) -> list[str]:
        """Count where people look in all videos, as far as that is not known yet."""
        store = self.worker.fixations
        watched = [video for video in self._videos if video.gaze is not None]
        known = store.load("all")
        if known is not None and known["videos"] == len(watched):
            return []
        missing = [video for video in watched if not store.path(f"of-{video.name}").exists()]
        failures = self._do(crew, "cells", missing, len(watched) - len(missing), "fixations")
        rest = [video for video in watched if video.name not in failures]
        cells = (store.load(f"of-{video.name}") for video in rest)
        counted = (Cells(found["cells"], found["counts"]) for found in cells if found is not None)
        total = Elsewhere.of(counted, self._protocol).total
        store.save("all", {"total": total, "videos": np.array(len(rest))})
        return [f"{name}: no negatives of s-AUC from it: {text}" for name, text in failures.items()]

    def _gather_training(self, crew: Crew) -> str | None:
        """Average the maps of the training split, if that is not done yet; say why if there are none."""
        store = self.worker.training
        if store.load("all") is not None:
            return None
        try:
            train = open_dataset(self._data.root, "train", self._data.name).videos
        except HD2SError as error:
            return str(error).splitlines()[0]
        train = [video for video in train if video.maps is not None]
        missing = [video for video in train if not store.path(f"of-{video.name}").exists()]
        failures = self._do(crew, "mean", missing, len(train) - len(missing), "training maps")
        if failures:
            name, text = next(iter(failures.items()))
            return f"{len(failures)} videos of the split 'train' cannot be read, such as {name}: {text}"
        means = ((video.group, (store.load(f"of-{video.name}") or {}).get("mean")) for video in train)
        try:
            mean = mean_map((group, mean) for group, mean in means if mean is not None and mean.size)
        except DatasetFormatError as error:
            return str(error)
        store.save("all", {"mean": mean})
        return None

    def _score(self, crew: Crew) -> dict[str, str]:
        """Score the videos that are not scored yet; return what went wrong with which."""
        missing, failures = [], {}
        for video in self._videos:
            try:
                fingerprint = self.worker.fingerprint(video)
            except HD2SError as error:
                failures[video.name] = self._noted(video, error)
                continue
            if from_arrays(self.worker.scores.load(video.name), fingerprint) is None:
                missing.append(video)
        done = len(self._videos) - len(missing)
        failures |= self._do(crew, "score", missing, done, "videos")
        return {video.name: failures[video.name] for video in self._videos if video.name in failures}

    def _results(self, failures: dict[str, str]) -> list[VideoResult]:
        results = []
        for video in self._videos:
            scores = from_arrays(self.worker.scores.load(video.name))
            if scores is not None and video.name not in failures:
                results.append(summarise(video.name, video.group, scores))
        return results


def _has(video: VideoResult, predictor: str) -> bool:
    return bool(video.scored[PREDICTORS.index(predictor)].any())
