"""Progress bars on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    """Steps done, of how many, and how fast."""

    def render(self, task: Task) -> Text:
        of = f"/{task.total:.0f}" if task.total is not None else ""
        speed = task.finished_speed or task.speed
        rate = f"  {speed:.0f}/s" if speed else ""
        return Text(f"{task.completed:.0f}{of} {task.fields['unit']}{rate}")


def progress_bars() -> Progress:
    """Make bars that show a name, the share done, the rate and the time left; add tasks with a `unit`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
