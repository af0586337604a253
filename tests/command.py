"""Runs the command line inside the test's own process, as `hd2s ARGUMENTS...` would run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from hd2s.cli.app import app


@dataclass(frozen=True)
class Outcome:
    """What a user sees of a command that has ended."""

    status: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Outcome:
    """Run `hd2s` with arguments; an exception that a user would see as a traceback is raised here."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def contents(folder: Path) -> list[str]:
    """Everything in a folder, hidden names too, sorted; nothing if there is no such folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
