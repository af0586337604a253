"""Ctrl-C and SIGTERM become a KeyboardInterrupt, at a moment that is fit for it."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_RETRY_SECONDS = 0.02
_HASTE_SECONDS = 1.0  # signals that follow this fast say the same: key presses, or several who pass one on

interrupted = threading.Event()  # for waits in other threads than that which gets the KeyboardInterrupt
_owner = 0  # the process that listens, not one that a library forks from it
_begun = _put_off = False
_signal = 0  # the first one, and when it came
_since = 0.0


def listen(*signals: int) -> None:
    """End the process at these signals, SIGINT and SIGTERM if none are named, as `begin` says.

    Those that are ignored, as in a job in the background, stay so.
    """
    global _owner
    _owner = os.getpid()
    for number in signals or (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def begin() -> None:
    """Raise a KeyboardInterrupt in the main thread from now on, as there may be something to put away.

    Before, the process just ends.
    """
    global _begun
    _begun = True


def leave() -> None:
    """End the process at once, with the status of a shell, if it was interrupted.

    Python would wait for threads, which may be waiting for a server.
    """
    if interrupted.is_set():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(128 + _signal)


@contextmanager
def put_off() -> Iterator[None]:
    """Put an interrupt off for a moment; processes that are started in it do not hear Ctrl-C."""
    global _put_off
    if sys.platform != "win32":
        from multiprocessing import resource_tracker  # here, as a start takes less time without it

        resource_tracker.ensure_running()  # else multiprocessing starts it now, and hears again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _put_off = True
    try:
        yield
    finally:
        _put_off = False
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _signal, _since
    if os.getpid() != _owner:
        os._exit(0)  # it has nothing to put away, and its parent hears the same
    if not _begun:
        os._exit(128 + number)
    if _put_off or _is_importing(frame):
        _thread.start_new_thread(_again, (number,))
        return
    now = time.monotonic()
    if interrupted.is_set() and now - _since < _HASTE_SECONDS:
        return
    if not interrupted.is_set():
        _signal, _since = number, now
        interrupted.set()
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Tell whether an exception might be swallowed, or become an ImportError: modules try what there is."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _again(number: int) -> None:
    time.sleep(_RETRY_SECONDS)
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        os.kill(os.getpid(), number)  # which wakes the main thread
