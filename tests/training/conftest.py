"""What a training run would leave behind in the process of the tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from hd2s.training import run


@pytest.fixture(autouse=True)
def _keeps_the_allocator_and_the_signal_handler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run, "_keep_freed_memory", lambda: None)  # it would last beyond the test
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
