"""Waiting for servers so that Ctrl-C is noticed, which FFmpeg does not do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from hd2s.interrupts import interrupted

_POLL_SECONDS = 0.1

_T = TypeVar("_T")


class Stopped(Exception):
    """The caller is no longer waited for."""


class Aside:
    """Runs calls that may wait for a server in threads, and waits for them until Ctrl-C or `stop`.

    A call that nobody waits for any more goes on in its thread, which the end of the process ends.

    Args:
        needed: The calls may wait for a server; else they are just made.
    """

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed
        self._stopped = threading.Event()
        self._latest: Future[object] | None = None

    def __call__(self, call: Callable[[], _T]) -> _T:
        """Return what the call returns, or raise what it raises.

        Raises:
            Stopped: `stop` was called, or the process was interrupted.
        """
        if not self._needed:
            return call()
        outcome: Future[_T] = Future()

        def work() -> None:
            try:
                outcome.set_result(call())
            except BaseException as error:  # whatever it is, it belongs to the caller
                outcome.set_exception(error)

        self._latest = outcome  # type: ignore[assignment]  # only asked whether it is done
        threading.Thread(target=work, daemon=True).start()
        while not (self._stopped.is_set() or interrupted.is_set()):
            wait([outcome], _POLL_SECONDS)
            if outcome.done():
                return outcome.result()
        raise Stopped

    def stop(self) -> None:
        """Let the wait for a call end soon; any thread may do so."""
        self._stopped.set()

    @property
    def busy(self) -> bool:
        """Whether a call is still going on, so that what it uses must be left to it."""
        return self._latest is not None and not self._latest.done()
