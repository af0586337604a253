"""Who does the work on videos: this process, or several."""

from __future__ import annotations

import multiprocessing
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch

from hd2s import interrupts
from hd2s.data.datasets import AnnotatedVideo
from hd2s.errors import DatasetFormatError, HD2SError
from hd2s.evaluation.baselines import Cells, Elsewhere, cells_of_video, mean_of_video
from hd2s.evaluation.protocol import Protocol
from hd2s.evaluation.scoring import UNSEEN, Scorer
from hd2s.evaluation.sources import Source
from hd2s.evaluation.store import Store, from_arrays, to_arrays
from hd2s.evaluation.truth import Map

_POLL_SECONDS = 0.2  # between looks at how many frames the processes have done


def ignore(frames: int) -> None:
    """Do nothing with a number of frames."""


@dataclass(kw_only=True)
class Doer:
    """Does work on one video at a time; each kind of it is a method. Is sent to processes.

    Attributes:
        source: Where the predictions come from.
        on_frame: To be called with the number of frames that have been done since the last time.
    """

    source: Source
    on_frame: Callable[[int], None] = ignore


@dataclass
class Worker(Doer):
    """Does one kind of work on one video at a time, and stores the result.

    Attributes:
        protocol: What is measured and how.
        scores: Scores of the videos.
        baselines: Scores of what stands beside them, which other predictions of the videos share.
        fixations: Cells of the videos, and their sum "all", for s-AUC.
        training: Mean maps of training videos, and their mean "all".
    """

    protocol: Protocol
    scores: Store
    baselines: Store
    fixations: Store
    training: Store

    def cells(self, video: AnnotatedVideo) -> None:
        """Count where people look."""
        cells = cells_of_video(video, self.protocol)
        self.fixations.save(f"of-{video.name}", vars(cells))

    def mean(self, video: AnnotatedVideo) -> None:
        """Average maps of a training video."""
        mean = mean_of_video(video)
        self.training.save(f"of-{video.name}", {"mean": np.zeros((0, 0)) if mean is None else mean})

    def score(self, video: AnnotatedVideo) -> None:
        """Score the predictions of a video."""
        fingerprint = self.fingerprint(video)
        scorer = Scorer(video, self.protocol, mean=self._mean)
        known = from_arrays(self.baselines.load(video.name), self._beside)
        if self._elsewhere is not None:
            own = self.fixations.load(f"of-{video.name}")
            if own is not None:
                scorer.pool = self._elsewhere.without(Cells(own["cells"], own["counts"]), scorer.size_hw)
        with closing(self.source.maps(video, self.protocol.every)) as maps:
            scores = scorer.score(told(maps, self), known)
        if UNSEEN in scores.skipped and self.source.problems:
            raise DatasetFormatError(
                f"The video {video.name} is damaged, and {scores.skipped[UNSEEN]} of its {video.num_frames} "
                f"frames are missing, so the rest may not belong to its labels ({self.source.problems[0]})."
            )
        notes = [*scores.notes, *self.source.problems]
        self.scores.save(video.name, to_arrays(replace(scores, notes=notes), fingerprint))
        if known is None:
            self.baselines.save(video.name, to_arrays(scores, self._beside))

    def fingerprint(self, video: AnnotatedVideo) -> str:
        """Return what changes when the predictions of a video, or what stands beside them, do.

        Raises:
            HD2SError: There are no predictions.
        """
        return f"{self.source.fingerprint(video)}-{self._beside}"

    @cached_property
    def _beside(self) -> str:
        """What changes when training maps or fixations in other videos do."""
        mean = b"" if self._mean is None else self._mean.tobytes()
        total = b"" if self._elsewhere is None else self._elsewhere.total.tobytes()
        return f"{zlib.crc32(mean):08x}-{zlib.crc32(total):08x}"

    @cached_property
    def _mean(self) -> Map | None:
        arrays = self.training.load("all")
        return None if arrays is None else arrays["mean"]

    @cached_property
    def _elsewhere(self) -> Elsewhere | None:
        arrays = self.fixations.load("all")
        once = not self.protocol.preset.multiplicity
        return None if arrays is None else Elsewhere(arrays["total"], self.protocol.grid_hw, once)


def told(frames: Iterator[Any], doer: Doer) -> Iterator[Any]:
    """Pass frames on, and tell `on_frame` of each when it is done."""
    for frame in frames:
        yield frame
        doer.on_frame(1)


class Crew(AbstractContextManager["Crew"]):
    """Some processes, or this one, with a worker in each.

    Leaving it by an exception, Ctrl-C too, ends the processes at once.
    """

    def __init__(self, worker: Doer, jobs: int) -> None:
        self._worker, self._jobs = worker, jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Crew:
        """Take no more threads than are of use here; workers do so themselves."""
        self._before = torch.get_num_threads(), cv2.getNumThreads()
        self._strangers = set(multiprocessing.active_children())
        _limit_threads(self._worker.source, 1)
        return self

    def map(
        self, work: str, videos: Sequence[AnnotatedVideo], on_frame: Callable[[int], None] = ignore
    ) -> Iterator[tuple[AnnotatedVideo, HD2SError | None]]:
        """Do some work on videos; yield each with what went wrong, in the order in which they are done.

        Args:
            work: Name of a method of the worker.
            videos: What it is called with.
            on_frame: Is called with the number of frames that have been done since the last time.
        """
        if self._jobs == 1 or len(videos) < 2:
            self._worker.on_frame = on_frame
            try:
                for video in videos:
                    yield video, _attempt(self._worker, work, video)
            finally:
                self._worker.on_frame = ignore  # what is sent to processes holds no function of a caller
            return
        context = multiprocessing.get_context("spawn")
        if self._pool is None:
            self._done = context.Value("q", 0)
            args = self._worker, self._jobs, self._done
            self._pool = ProcessPoolExecutor(self._jobs, context, initializer=_begin, initargs=args)
        before = self._done.value
        with interrupts.put_off():
            todo = {self._pool.submit(_do, work, video): video for video in videos}
        while todo:
            ready, _ = wait(todo, _POLL_SECONDS, FIRST_COMPLETED)
            now = self._done.value
            on_frame(now - before)
            before = now
            for future in ready:
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise HD2SError(
                        "A worker process was killed, most likely because memory ran out. What is done is "
                        "kept: run the same again with fewer processes."
                    ) from error
                if error is not None and not isinstance(error, HD2SError):
                    raise error
                yield todo.pop(future), error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.set_num_threads(self._before[0])
        cv2.setNumThreads(self._before[1])
        if self._pool is None:
            return
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._strangers:
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)


_worker: Doer  # of a process


def _begin(worker: Doer, jobs: int, done: Any) -> None:
    """Start a process: Ctrl-C is for its parent, and it takes its share of the cores only."""
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_threads(worker.source, jobs)

    def count(frames: int) -> None:
        with done.get_lock():
            done.value += frames

    worker.on_frame = count


def _limit_threads(source: Source, jobs: int) -> None:
    """Use one thread, but leave a network that PyTorch runs its share of the cores.

    Metrics are short: a second thread costs several times what it saves, as it waits for work in a busy loop.
    """
    threads = max(1, torch.get_num_threads() // jobs) if source.needs_threads else 1
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _do(work: str, video: AnnotatedVideo) -> None:
    getattr(_worker, work)(video)


def _attempt(worker: Doer, work: str, video: AnnotatedVideo) -> HD2SError | None:
    """Return what went wrong."""
    try:
        getattr(worker, work)(video)
    except HD2SError as error:
        return error
    return None
