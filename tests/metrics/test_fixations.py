"""Fixations from maps and from coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hd2s.errors import InputShapeError
from hd2s.metrics.fixations import Fixations


def test_maps_and_coordinates_mean_the_same() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (3, 4, 5))
    counts[1] = 0
    points = [np.argwhere(m)[:, ::-1].repeat(m[m > 0], axis=0) for m in counts]
    shuffled = [rng.permutation(p + rng.random(p.shape)) for p in points]
    a, b = Fixations.from_maps(torch.from_numpy(counts)), Fixations.from_points(shuffled, (4, 5))
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.counts, b.counts)
    assert a.size_hw == b.size_hw == (4, 5)
    assert a.totals().tolist() == counts.sum((1, 2)).tolist()
    assert a.once().totals().tolist() == (counts > 0).sum((1, 2)).tolist()


def test_coordinates_of_a_larger_picture_are_scaled() -> None:
    fixations = Fixations.from_points([[(1919.9, 1079.9), (960, 0)]], (360, 640), picture_hw=(1080, 1920))
    assert fixations.pixels.tolist() == [[320, 360 * 640 - 1]]


def test_fixations_outside_the_picture_are_an_error_or_counted() -> None:
    points = [[(0, 0), (5, 0), (-0.1, 2)], [], [(4.999, 3.999), (0, 4)]]
    with pytest.raises(InputShapeError, match="3 fixations lie outside .* x=5, y=0 in list 0.*drop"):
        Fixations.from_points(points, (4, 5))
    fixations = Fixations.from_points(points, (4, 5), outside="drop")
    assert fixations.outside.tolist() == [2, 0, 1]
    assert fixations.totals().tolist() == [1, 0, 1]


@pytest.mark.parametrize("points", [[[(0, 1, 2)]], [[0, 1]], [[(0, np.nan)]], [[(0, np.inf)]]])
def test_what_is_no_coordinate_is_refused(points: list[list[tuple[float, ...]]]) -> None:
    with pytest.raises(InputShapeError, match="list 0"):
        Fixations.from_points(points, (4, 5))


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_what_is_no_count_is_refused(value: float) -> None:
    maps = torch.zeros(2, 4, 5)
    maps[1, 2, 3] = value
    with pytest.raises(InputShapeError, match="whole and not negative"):
        Fixations.from_maps(maps)
    with pytest.raises(InputShapeError, match=r"\(B, H, W\)"):
        Fixations.from_maps(maps[0])


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_no_fixations_at_all(frames: int) -> None:
    for fixations in (
        Fixations.from_points([[]] * frames, (4, 5)),
        Fixations.from_maps(torch.zeros(frames, 4, 5)),
    ):
        assert fixations.totals().tolist() == [0] * frames
        assert fixations.pixels.shape == (frames, 0)
