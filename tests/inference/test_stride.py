"""With a stride the network is shown every so-manieth frame, and the maps in between are interpolated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fake_engine import BrightEngine
from fakes import SMALL_SPEC, lively_model, make_video, moving_blob
from hd2s.data.video import open_source
from hd2s.inference.predictor import Predictor, predict_frames
from hd2s.types import SaliencyFrame


def greys(values: list[int]) -> list[np.ndarray]:
    return [np.full((32, 48, 3), value, np.uint8) for value in values]


def run(
    predictor: Predictor, images: list[np.ndarray], times: list[float] | None = None
) -> list[SaliencyFrame]:
    results = [
        result
        for number, image in enumerate(images)
        for result in predictor.push(image, time_seconds=None if times is None else times[number])
    ]
    return results + list(predictor.flush())


@pytest.mark.parametrize("stride", [2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 47, 130])
def test_maps_in_between_are_interpolated_and_the_last_is_held(stride: int, count: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, count)
    results = run(Predictor(BrightEngine(), conspicuity=True, stride=stride), greys(values.tolist()))
    assert [result.index for result in results] == list(range(count))
    shown = np.arange(0, count, stride)
    expected = np.interp(np.arange(count), shown, values[shown] / 255)
    np.testing.assert_allclose([result.saliency[3, 5] for result in results], expected, atol=1e-6)
    levels = [result.conspicuity[0, 3, 5] for result in results]  # type: ignore[index]
    np.testing.assert_allclose(levels, expected / 4, atol=1e-6)


def test_time_counts_not_the_number_of_the_frame() -> None:
    results = run(Predictor(BrightEngine(), stride=2), greys([0, 9, 255]), [0.0, 0.75, 1.0])
    assert results[1].saliency[0, 0] == pytest.approx(0.75)
    repeated = run(Predictor(BrightEngine(), stride=2), greys([0, 9, 255]), [1.0, 1.0, 1.0])
    assert repeated[1].saliency[0, 0] == pytest.approx(1)


def test_shown_frames_are_predicted_as_a_video_of_their_own() -> None:
    model = lively_model()
    images = list(moving_blob(70, SMALL_SPEC.height, SMALL_SPEC.width))
    found = run(Predictor(model, engine="torch", stride=3), images)[::3]
    expected = run(Predictor(model, engine="torch"), images[::3])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.saliency, other.saliency, rtol=0, atol=1e-6)


def test_a_live_source_is_not_delayed() -> None:
    predictor = Predictor(BrightEngine(), live=True, stride=2)
    results = [list(predictor.push(image)) for image in greys([51, 0, 102, 0, 0])]
    assert [[round(float(r.saliency[0, 0]), 3) for r in each] for each in results] == [
        [0.2],
        [0.2],
        [0.4],
        [0.4],
        [0.0],
    ]
    assert list(predictor.flush()) == []


def test_a_predictor_serves_one_video_after_another() -> None:
    predictor = Predictor(BrightEngine(), stride=2)
    for value in (51, 204):
        results = run(predictor, greys([value] * 4))
        assert [result.saliency[0, 0] for result in results] == pytest.approx([value / 255] * 4)


def test_a_source_is_predicted_with_a_stride(tmp_path: Path) -> None:
    with open_source(make_video(tmp_path / "clip.mp4", num_frames=21)) as source:
        pairs = list(predict_frames(source, BrightEngine(), stride=4))
    assert (
        [frame.index for frame, _ in pairs] == [result.slot.number for _, result in pairs] == list(range(21))
    )
    middle = (pairs[4][1].saliency + pairs[8][1].saliency) / 2
    np.testing.assert_allclose(pairs[6][1].saliency, middle, atol=1e-6)


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {stride}"):
        Predictor(BrightEngine(), stride=stride)
