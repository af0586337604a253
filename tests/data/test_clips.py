"""Index arithmetic of clips."""

from __future__ import annotations

import itertools

import pytest

from hd2s.data.clips import clip_before, reflect


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_reflection_repeats_the_edge_frames_and_has_the_period_of_twice_the_length(count: int) -> None:
    there_and_back = [*range(count), *reversed(range(count))]
    expected = itertools.islice(itertools.cycle(there_and_back), 8 * count)
    assert [reflect(i, count) for i in range(-4 * count, 4 * count)] == list(expected)


@pytest.mark.parametrize(
    ("target", "count", "length", "step", "expected"),
    [
        (9, 20, 4, 1.0, [6, 7, 8, 9]),
        (3, 20, 4, 1.0, [0, 1, 2, 3]),
        (2, 20, 4, 1.0, [0, 0, 1, 2]),
        (0, 20, 4, 1.0, [2, 1, 0, 0]),
        (0, 1, 4, 1.0, [0, 0, 0, 0]),
        (1, 2, 5, 1.0, [1, 1, 0, 0, 1]),
        (9, 20, 4, 2.0, [3, 5, 7, 9]),
        (9, 20, 4, 1.5, [5, 6, 7, 9]),
        (2, 20, 4, 2.0, [3, 1, 0, 2]),
    ],
)
def test_clips_end_at_their_target(
    target: int, count: int, length: int, step: float, expected: list[int]
) -> None:
    assert clip_before(target, count, length, step) == expected


@pytest.mark.parametrize("step", [1.0, 1.3, 1.99, 2.0])
@pytest.mark.parametrize("count", [1, 7, 16, 40])
def test_clips_have_their_length_and_stay_inside_the_video(count: int, step: float) -> None:
    for target in range(count):
        indices = clip_before(target, count, 16, step)
        assert len(indices) == 16
        assert indices[-1] == target
        assert set(indices) <= set(range(count))
        past = [index for back, index in enumerate(reversed(indices)) if step * back <= target]
        assert {later - earlier for later, earlier in itertools.pairwise(past)} <= {1, 2}
