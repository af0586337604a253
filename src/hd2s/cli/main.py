"""The command `hd2s`: it listens for Ctrl-C before anything is imported that takes time."""

from __future__ import annotations

from hd2s import interrupts


def main() -> None:
    """Run the command line.

    The exit status is 0 for success, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM.
    """
    interrupts.listen()
    try:
        from hd2s.cli.app import app

        app()
    finally:
        interrupts.leave()
