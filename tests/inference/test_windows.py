"""Which frames make a window: against the table that was made by hand, and for any length of video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hd2s.inference.windows import opening, window

LENGTH = 16
GOLDEN = {
    int(count): windows
    for count, windows in json.loads(
        (Path(__file__).parents[1] / "golden" / "windows.json").read_text(encoding="utf-8")
    ).items()
}


@pytest.mark.parametrize("count", GOLDEN)
def test_windows_are_those_of_the_table(count: int) -> None:
    assert [window(target, count, LENGTH) for target in range(count)] == GOLDEN[count]


@pytest.mark.parametrize("length", [1, 2, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 15, 16, 40])
def test_every_window_ends_at_its_target_and_stays_inside_the_video(count: int, length: int) -> None:
    for target in range(count):
        indices = window(target, count, length)
        assert len(indices) == length
        assert indices[-1] == target
        assert set(indices) <= set(range(count))


@pytest.mark.parametrize("length", [2, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 14, 15, 16, 17, 29, 30, 31, 50])
def test_sliding_over_the_opening_gives_the_first_windows_last_target_first(count: int, length: int) -> None:
    run = opening(count, length)
    slid = [run[i : i + length] for i in range(len(run) - length + 1)]
    early = range(min(count, length - 1))
    assert slid == [window(target, count, length) for target in reversed(early)]


@pytest.mark.parametrize("length", [2, 4, 16])
def test_the_opening_needs_no_more_than_its_promise(length: int) -> None:
    enough = 2 * (length - 1)
    assert all(opening(enough, length) == opening(count, length) for count in range(enough, enough + 40))
