"""Several processes that predict inputs side by side."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol

from hd2s import interrupts
from hd2s.inference.engines import Engine, count_cores

Entry = dict[str, Any]  # what became of an input

_OUT_OF_MEMORY = -9  # exit status of a process that was killed for it


class Job(Protocol):
    """What is done with each input; it travels to the processes as a pickle."""

    def open(self) -> Engine:
        """Make the engine of a process."""

    def predict(
        self, path: str, engine: Engine, claim: Callable[[str], str], on_frame: Callable[[int | None], None]
    ) -> Entry:
        """Predict an input.

        Args:
            path: The input.
            engine: What `open` gave.
            claim: To be called before anything is written, with the name that the results have; returns the
                input whose results have it, which is another one if that came before.
            on_frame: To be called after each frame, with the number of all if it is known.
        """

    def failure(self, path: str, problem: str) -> Entry:
        """Tell that an input was not predicted."""


class Watcher(Protocol):
    """Is told what happens while it does."""

    def begin(self, path: str) -> None:
        """An input is worked on."""

    def frame(self, path: str, total: int | None) -> None:
        """One more frame of it is done."""

    def end(self, path: str, entry: Entry) -> None:
        """It is done with."""


class Crew(AbstractContextManager["Crew"]):
    """Processes that each predict one input at a time.

    Leaving it by an exception, Ctrl-C too, interrupts them and waits until they have put away what they were
    writing; a second Ctrl-C does not wait.

    Args:
        job: What is done.
        size: Number of processes.
    """

    def __init__(self, job: Job, size: int) -> None:
        self._job, self._size = job, size
        self._workers: list[_Worker] = []
        self._names: dict[str, str] = {}  # {name of results: input}
        self._ready = False  # there are graphs: all processes need not build them at once

    def __enter__(self) -> Crew:
        for _ in range(self._size):
            self._workers.append(_Worker(self._job, self._size))
        return self

    def run(self, paths: Sequence[str], watcher: Watcher) -> list[Entry]:
        """Predict inputs; tell what became of each, in their order.

        An input whose process is killed has failed; another process goes on with the next one.

        Raises:
            Exception: What the job raised in a process.
        """
        todo, entries = deque(enumerate(paths)), dict.fromkeys(paths, Entry())
        while todo or self._busy():
            self._hand_out(todo)
            busy: dict[Any, _Worker] = {worker.pipe: worker for worker in self._busy()}
            for pipe in wait(list(busy)):
                self._listen(busy[pipe], watcher, entries)
            self._answer()
        return list(entries.values())

    def _busy(self) -> list[_Worker]:
        """Processes that have an input, in the order of these."""
        return sorted((worker for worker in self._workers if worker.busy), key=lambda worker: worker.number)

    def _hand_out(self, todo: deque[tuple[int, str]]) -> None:
        """Give inputs to processes that have none."""
        for index, worker in enumerate(self._workers):
            if not todo or worker.busy or (self._busy() and not self._ready):
                continue
            if not worker.process.is_alive():
                worker = self._workers[index] = _Worker(self._job, self._size)
            worker.give(*todo.popleft())

    def _listen(self, worker: _Worker, watcher: Watcher, entries: dict[str, Entry]) -> None:
        """Take a message from a process, or note that it is no more."""
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            kind, value = "end", self._job.failure(worker.path, worker.epitaph())
        if kind == "begin":
            self._ready |= value
            watcher.begin(worker.path)
        elif kind == "name":
            worker.name = value
        elif kind == "frame":
            self._ready = True
            watcher.frame(worker.path, value)
        elif kind == "log":
            logging.getLogger(value[0]).log(*value[1:])
        elif kind == "error":
            raise value[0] from RuntimeError(f"in another process:\n{value[1]}")
        else:
            entries[worker.path], worker.busy = value, False
            watcher.end(worker.path, value)

    def _answer(self) -> None:
        """Say whose a name is: what it would be if the inputs had come one by one."""
        for worker in self._busy():
            if worker.name is None:
                return
            if not worker.writes:
                worker.writes = True
                worker.send(self._names.setdefault(worker.name, worker.path))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            if kind is None:
                worker.pipe.close()
            elif worker.busy and worker.writes:
                worker.process.terminate()
            else:
                worker.process.kill()  # it may be waiting for a server
        try:
            for worker in self._workers:
                worker.process.join()
        except KeyboardInterrupt:
            for worker in self._workers:
                worker.process.kill()
            raise


class _Worker:
    """A process, as its parent sees it, and the input that it has or had last.

    Attributes:
        busy: It has an input.
        number: Place of the input among all.
        path: The input.
        name: What the results are called, if it has asked for that name.
        writes: It has been told whose the name is, so there may be files.
    """

    busy = False

    def __init__(self, job: Job, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, job, size), daemon=True)
        with interrupts.put_off():
            self.process.start()
        theirs.close()

    def give(self, number: int, path: str) -> None:
        self.busy, self.number, self.path, self.writes = True, number, path, False
        self.name: str | None = None
        self.send(path)

    def send(self, text: str) -> None:
        with suppress(OSError):  # it is no more, as will be noted when it is listened to
            self.pipe.send(text)

    def epitaph(self) -> str:
        """Say how it ended."""
        self.process.join()
        code = self.process.exitcode or 0
        end = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        cause = ", most likely because memory ran out" if code == _OUT_OF_MEMORY else ""
        return f"The process that predicted it {end}{cause}. Predict it again, with fewer jobs (--jobs)."


class _Line(logging.Handler):
    """A process's end of its pipe; all its threads may use it."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__()
        self._pipe, self._sending = pipe, threading.Lock()

    def tell(self, kind: str, value: object) -> None:
        try:
            with self._sending:
                self._pipe.send((kind, value))
        except BrokenPipeError:  # the parent is no more
            raise KeyboardInterrupt from None

    def claim(self, name: str) -> str:
        self.tell("name", name)
        owner: str = self._pipe.recv()
        return owner

    def emit(self, record: logging.LogRecord) -> None:
        self.tell("log", (record.name, record.levelno, record.getMessage()))


def _work(pipe: Connection, job: Job, size: int) -> None:
    """Predict one input after the other, until there are no more or SIGTERM interrupts it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    interrupts.listen(signal.SIGTERM)
    interrupts.begin()
    # PyTorch's threads wait in busy loops, so they must not be more than there are cores; OpenVINO's may.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // size)))
    line, engine = _Line(pipe), None
    logging.getLogger("hd2s").setLevel(logging.INFO)
    logging.getLogger("hd2s").addHandler(line)
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            path = pipe.recv()
            try:
                engine = engine or job.open()
                # Without graphs in the cache, OpenVINO's engine needs PyTorch to build them at its first map.
                line.tell("begin", engine.name != "openvino" or "torch" not in sys.modules)
                line.tell(
                    "end", job.predict(path, engine, line.claim, lambda total: line.tell("frame", total))
                )
            except Exception as error:
                line.tell("error", (error, traceback.format_exc()))
