"""What the tests of the command line share."""

from __future__ import annotations

import pytest

import hd2s.inference.engines
import hd2s.inference.pipeline  # here, or its first import would keep what `bright` puts in place
from fake_engine import BrightEngine


@pytest.fixture
def bright(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predict with `BrightEngine`, which needs no weights and next to no time."""
    monkeypatch.setattr(hd2s.inference.engines, "open_engine", lambda *network, **options: BrightEngine())
