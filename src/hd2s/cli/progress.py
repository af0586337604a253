"""Progress bars on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column
from rich.text import Text

from hd2s.cli.common import complain

_NAME_WIDTH, _BAR_WIDTH, _RATE_WIDTH = 30, 24, 24


class _Rate(ProgressColumn):
    """Steps done, of how many, and how fast on average.

    Not the speed of the latest steps, which Rich measures: predictions come in bursts.
    """

    def render(self, task: Task) -> Text:
        of = f"/{task.total:.0f}" if task.total is not None else ""
        rate = task.completed / task.elapsed if task.elapsed else 0.0
        speed = f"  {rate:.{0 if rate >= 10 else 1}f}/s" if rate else ""
        return Text(f"{task.completed:.0f}{of} {task.fields['unit']}{speed}")


def progress_bars(names: Iterable[str]) -> Progress:
    """Make bars that show a name, the share done, the rate and the time left; add tasks with a `unit`."""
    width = min(max(map(len, names), default=0), _NAME_WIDTH)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(width=width, no_wrap=True)),
        BarColumn(_BAR_WIDTH),
        _Rate(table_column=Column(min_width=_RATE_WIDTH, no_wrap=True)),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )


def download_bars() -> Progress:
    """Make bars that show a name, the share of the bytes that is there, the rate and the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )


class _Above(logging.Handler):
    """Prints what the library logs above the bars."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage(), self._console)


@contextmanager
def log_above(console: Console) -> Iterator[None]:
    """Show the library's log messages on a console for a while."""
    logger, handler = logging.getLogger("hd2s"), _Above(console)
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def finish(progress: Progress, task_id: TaskID, steps: int) -> None:
    """End a task after so many steps; if there were any, its bar becomes a line above the others.

    Bars of a long batch would not fit on the screen together.
    """
    progress.update(task_id, total=steps, completed=steps)
    if steps:
        (task,) = (task for task in progress.tasks if task.id == task_id)
        progress.console.print(progress.make_tasks_table([task]))
    progress.remove_task(task_id)
