"""From pictures and fixations to network input and targets: above all, both must stay together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hd2s.data.transforms import (
    FULL,
    SIGMA_FRACTION,
    Window,
    cut,
    cut_target,
    density_map,
    fixation_map,
    jitter_light,
    normalise,
    random_window,
)
from hd2s.types import InputSpec

OUT = (96, 128)


def points(*pairs: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(pairs, np.float32).reshape(-1, 2)


def centre_of_mass(values: NDArray[np.float32]) -> tuple[float, float]:
    """x, y in pixel indices."""
    rows, columns = np.mgrid[: values.shape[0], : values.shape[1]]
    return float((columns * values).sum() / values.sum()), float((rows * values).sum() / values.sum())


# --- pixels -----------------------------------------------------------------------------------------


def test_normalise_moves_colours_to_the_front_and_scales_each() -> None:
    spec = InputSpec(height=2, width=3, num_frames=1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    frames = np.zeros((4, 2, 3, 3), np.uint8)
    frames[..., 0], frames[..., 1], frames[..., 2] = 255, 255, 51
    x = normalise(frames, spec)
    assert x.shape == (4, 3, 2, 3)
    assert x.dtype == torch.float32
    for channel, value in enumerate((1.0, 3.0, 0.2)):
        torch.testing.assert_close(x[:, channel], torch.full((4, 2, 3), value))


def test_light_scales_about_the_mean_and_shifts() -> None:
    frames = torch.tensor([1.0, 2.0, 6.0])
    torch.testing.assert_close(jitter_light(frames, 0.5, 2.0), torch.tensor([-0.5, 1.5, 9.5]))
    assert torch.equal(jitter_light(frames, 0.0, 1.0), frames)


# --- fixations --------------------------------------------------------------------------------------


def test_fixations_are_counted_at_the_pixel_that_they_lie_in() -> None:
    seen = points((0, 0), (0.9, 0.9), (3.99, 1.5), (2, 1))
    unseen = points((-0.1, 0), (4, 0), (0, 2), (0, -3), (1e6, 1e6))
    counts = fixation_map(np.concatenate((seen, unseen)), 2, 4)
    assert counts.dtype == np.float32
    assert counts.tolist() == [[2, 0, 0, 0], [0, 0, 1, 1]]
    assert not fixation_map(points(), 2, 4).any()


def test_density_is_a_gaussian_around_each_fixation() -> None:
    counts = np.zeros((41, 61), np.float32)
    counts[20, 30] = 1
    density = density_map(counts, (4.0, 2.0))
    rows, columns = np.mgrid[:41, :61]
    gauss = np.exp(-(((columns - 30) / 4.0) ** 2) / 2 - ((rows - 20) / 2.0) ** 2 / 2) / (2 * np.pi * 8)
    np.testing.assert_allclose(density, gauss, atol=2e-4 * gauss.max() + 1e-5)
    counts = np.zeros((41, 61), np.float32)
    counts[0, 30] = 1  # what falls off the picture is lost, not folded back
    assert density_map(counts, (4.0, 4.0)).sum() == pytest.approx(0.55, abs=0.03)


# --- windows ----------------------------------------------------------------------------------------


def test_the_full_window_is_the_picture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*OUT, 3), np.uint8)
    assert np.array_equal(cut(picture, FULL, OUT), picture)
    mirrored = Window(0.0, 0.0, 1.0, 1.0, mirrored=True)
    assert np.array_equal(cut(picture, mirrored, OUT), picture[:, ::-1])


def test_a_window_on_whole_pixels_is_a_slice() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    window = Window(left=10 / 80, top=5 / 40, width=40 / 80, height=20 / 40)
    assert np.array_equal(cut(picture, window, (20, 40)), picture[5:25, 10:50])


@pytest.mark.parametrize("size_hw", [(72, 160), (150, 100), (33, 47)])
def test_dot_and_target_stay_together_in_every_window(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    height, width = size_hw
    distances = []
    for _ in range(200):
        window = random_window(rng, crop=0.8, min_side=0.3)
        x = int((window.left + rng.uniform(0.25, 0.75) * window.width) * width)
        y = int((window.top + rng.uniform(0.25, 0.75) * window.height) * height)
        picture = np.zeros((height, width, 3), np.uint8)
        picture[y, x] = 255
        dot = centre_of_mass(cut(picture, window, OUT)[..., 0].astype(np.float32))
        target = cut_target(points((x + 0.5, y + 0.5)), window, size_hw, OUT)
        row, column = np.unravel_index(target.argmax(), target.shape)
        distances.append((dot[0] - column, dot[1] - row))
    # A fixation counts for the pixel that it lies in: up to half a pixel, zero on average.
    assert np.abs(distances).max() < 0.8
    assert np.abs(np.mean(distances, axis=0)).max() < 0.1


def test_mirroring_mirrors_picture_and_target() -> None:
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (60, 80, 3), np.uint8)
    seen = points((20.3, 30.6), (60.2, 10.1))
    plain = Window(0.1, 0.2, 0.8, 0.7)
    mirrored = Window(0.1, 0.2, 0.8, 0.7, mirrored=True)
    difference = cut(picture, mirrored, OUT).astype(int) - cut(picture, plain, OUT)[:, ::-1]
    assert np.abs(difference).max() <= 2  # OpenCV interpolates in steps of 1/32 pixel
    target, other = (cut_target(seen, window, (60, 80), OUT) for window in (plain, mirrored))
    np.testing.assert_allclose(other, target[:, ::-1], atol=1e-6)
    assert not np.allclose(other, target, atol=1e-4)


def test_the_target_is_as_blurred_as_the_picture_is_enlarged() -> None:
    seen, window = points((50, 50)), Window(0.25, 0.25, 0.5, 0.5)
    target = cut_target(seen, window, (100, 100), (200, 400))
    x, y = centre_of_mass(target)
    rows, columns = np.mgrid[:200, :400]
    sigma = SIGMA_FRACTION * 100
    spread_x = np.sqrt((target * (columns - x) ** 2).sum() / target.sum())
    spread_y = np.sqrt((target * (rows - y) ** 2).sum() / target.sum())
    assert (spread_x, spread_y) == pytest.approx((8 * sigma, 4 * sigma), rel=0.02)


def test_fixations_outside_the_window_leave_the_target_empty() -> None:
    assert not cut_target(points((90, 90)), Window(0, 0, 0.5, 0.5), (100, 100), OUT).any()


def test_windows_on_the_way_lie_between_their_ends() -> None:
    start, end = Window(0.0, 0.1, 0.5, 0.6), Window(0.4, 0.3, 0.6, 0.7, mirrored=True)
    assert start.toward(end, 1.0) == end
    half = start.toward(end, 0.5)
    assert (half.left, half.top, half.width, half.height) == pytest.approx((0.2, 0.2, 0.55, 0.65))
    assert half.mirrored


def test_random_windows_lie_inside_the_picture_and_vary() -> None:
    rng = np.random.default_rng(3)
    windows = [random_window(rng, crop=0.5, min_side=0.4) for _ in range(400)]
    for w in windows:
        assert 0 <= w.left <= w.left + w.width <= 1 + 1e-9
        assert 0 <= w.top <= w.top + w.height <= 1 + 1e-9
        assert min(w.width, w.height) >= 0.4
    assert sum(w.mirrored for w in windows) == pytest.approx(200, abs=50)
    whole = [w for w in windows if (w.left, w.top, w.width, w.height) == (0, 0, 1, 1)]
    assert len(whole) == pytest.approx(200, abs=50)
    never = [random_window(rng, crop=0.0, min_side=0.4) for _ in range(20)]
    assert {(w.width, w.height) for w in never} == {(1.0, 1.0)}


def test_random_windows_beyond_the_picture_hold_the_whole_side() -> None:
    rng = np.random.default_rng(0)
    windows = [random_window(rng, crop=1.0, min_side=1.0, max_side=1.5) for _ in range(50)]
    for window in windows:
        assert window.left <= 0 < 1 <= window.left + window.width + 1e-9
        assert window.top <= 0 < 1 <= window.top + window.height + 1e-9
    assert max(window.width for window in windows) > 1.4


def test_beyond_the_picture_there_is_black() -> None:
    picture = np.full((20, 40, 3), 200, np.uint8)
    view = cut(picture, Window(-0.25, 0.0, 1.5, 1.0), (20, 60))
    assert (view[:, 10:50] == 200).all()
    assert not view[:, :9].any()
    assert not view[:, 51:].any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_spans_give_the_place_of_each_column_and_row(mirrored: bool) -> None:
    (top, height), (start, width) = Window(0.2, 0.1, 0.5, 0.4, mirrored).spans()
    assert (top, top + height) == pytest.approx((0.1, 0.5))
    left_edge, right_edge = start, start + width
    assert (left_edge, right_edge) == pytest.approx((0.7, 0.2) if mirrored else (0.2, 0.7))
