"""Frames in, maps out: the same maps as whole clips give, in order, in bounded memory."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import hd2s
from fake_engine import BrightEngine
from fakes import SMALL_SPEC, lively_model, moving_blob
from hd2s.data.transforms import normalise
from hd2s.data.video import open_source
from hd2s.errors import InputShapeError
from hd2s.inference.engines import BATCH
from hd2s.inference.predictor import Predictor, predict_frames, prefetch
from hd2s.inference.torch_engine import TorchEngine
from hd2s.inference.windows import window
from hd2s.models import HD2SLite, HD2SOutput
from hd2s.types import InputSpec, SaliencyFrame

PAST = SMALL_SPEC.num_frames - 1
Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def model() -> HD2SLite:
    return lively_model()


def blob_video(count: int, spec: InputSpec = SMALL_SPEC) -> list[Image]:
    return list(moving_blob(count, spec.height, spec.width))


def run(predictor: Predictor, images: Iterable[Image]) -> list[SaliencyFrame]:
    return [result for image in images for result in predictor.push(image)] + list(predictor.flush())


@torch.no_grad()
def whole_clips(model: HD2SLite, images: Sequence[Image], windows: Sequence[Sequence[int]]) -> HD2SOutput:
    """Maps of windows, each as a clip of its own."""
    frames = normalise(np.stack(images), model.spec)
    outputs = [model(frames[list(indices)].transpose(0, 1)[None]) for indices in windows]
    return HD2SOutput(*(torch.cat(maps) for maps in zip(*outputs, strict=True)))


@torch.no_grad()
def whole_clips_encoded_once(
    model: HD2SLite, images: Sequence[Image], windows: Sequence[Sequence[int]]
) -> HD2SOutput:
    """The same as `whole_clips` in a fraction of the time: `forward` without encoding a frame again."""
    *levels, bars = model.encode(normalise(np.stack(images), model.spec))
    clips = ([level[list(indices)].transpose(0, 1)[None] for level in levels] for indices in windows)
    lasts = (bars[[indices[-1]]] for indices in windows)
    outputs = [model.decode(model.collapse(c), bars=last) for c, last in zip(clips, lasts, strict=True)]
    return HD2SOutput(*(torch.cat(maps) for maps in zip(*outputs, strict=True)))


def assert_maps(results: Sequence[SaliencyFrame], expected: Tensor) -> None:
    assert [result.index for result in results] == list(range(len(expected)))
    np.testing.assert_allclose(np.stack([result.saliency for result in results]), expected, rtol=0, atol=1e-5)


# --- the same maps as whole clips -------------------------------------------------------------------


# The lengths meet each case of the rule and each edge of the batches: too short for any window, for a
# whole opening (30 frames), just long enough, and one frame more or less than whole batches.
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 29, 30, 31, 32, 33, 38, 40])
def test_equals_whole_clips_for_videos_of_any_length(model: HD2SLite, count: int) -> None:
    images = blob_video(count)
    windows = [window(target, count, SMALL_SPEC.num_frames) for target in range(count)]
    expected = whole_clips_encoded_once(model, images, windows).saliency
    assert expected.std() > 0.02
    assert_maps(run(Predictor(model, engine="torch"), images), expected)


def test_equals_whole_clips_with_the_weights_and_the_size_that_come_along() -> None:
    model = hd2s.load()
    images = blob_video(2, model.spec)
    expected = whole_clips(model, images, [window(target, 2, 16) for target in range(2)])
    results = run(Predictor(model, engine="torch", conspicuity=True), images)
    assert_maps(results, expected.saliency)
    levels = np.stack([result.conspicuity for result in results])  # type: ignore[arg-type]
    np.testing.assert_allclose(levels, expected.conspicuity, rtol=0, atol=1e-5)


def test_live_frames_are_predicted_at_once_from_the_past_alone(model: HD2SLite) -> None:
    images = blob_video(18)
    predictor = Predictor(model, engine="torch", live=True)
    pushed = [list(predictor.push(image)) for image in images]
    assert [len(results) for results in pushed] == [1] * len(images)
    assert list(predictor.flush()) == []
    windows = [[max(0, target - back) for back in reversed(range(16))] for target in range(18)]
    assert_maps(
        [result for results in pushed for result in results], whole_clips(model, images, windows).saliency
    )


def test_conspicuity_comes_if_asked_for(model: HD2SLite) -> None:
    images = blob_video(3)
    plain = run(Predictor(model, engine="torch"), images)
    assert [result.conspicuity for result in plain] == [None] * 3
    expected = whole_clips(model, images, [window(target, 3, 16) for target in range(3)])
    results = run(Predictor(model, engine="torch", conspicuity=True), images)
    assert_maps(results, expected.saliency)
    levels = np.stack([result.conspicuity for result in results])  # type: ignore[arg-type]
    assert levels.shape == (3, 4, SMALL_SPEC.height, SMALL_SPEC.width)
    np.testing.assert_allclose(levels, expected.conspicuity, rtol=0, atol=1e-5)


def test_takes_an_engine_that_is_already_open(model: HD2SLite) -> None:
    images = blob_video(2)
    expected = run(Predictor(model, engine="torch"), images)
    results = run(Predictor(TorchEngine(model, "cpu")), images)
    assert [np.array_equal(a.saliency, b.saliency) for a, b in zip(results, expected, strict=True)] == [
        True
    ] * 2


# --- order, sizes, times, state ---------------------------------------------------------------------


def test_maps_come_in_order_and_at_most_an_opening_and_a_batch_late() -> None:
    predictor = Predictor(BrightEngine())
    given = 0
    for pushed, image in enumerate(blob_video(100), start=1):
        for result in predictor.push(image):
            assert result.index == given
            given += 1
        assert pushed - given < 2 * PAST + BATCH
        if pushed > 2 * PAST + BATCH:
            assert pushed - given < BATCH
    assert [result.index for result in predictor.flush()] == list(range(given, 100))


def test_maps_have_the_size_of_their_image_and_the_time_that_was_given() -> None:
    predictor = Predictor(BrightEngine(), conspicuity=True)
    image = np.zeros((90, 161, 3), np.uint8)
    image[:, 80:] = 255
    results = list(predictor.push(image)) + list(predictor.push(image, time_seconds=7.5))
    results += list(predictor.push(image, size_hw=(20, 30)))
    results += list(predictor.flush())
    assert [result.index for result in results] == [0, 1, 2]
    assert [result.time_seconds for result in results] == [0.0, 7.5, 2 / 25]
    assert [result.saliency.shape for result in results] == [(90, 161), (90, 161), (20, 30)]
    for result in results:
        assert result.saliency.dtype == np.float32
        assert result.conspicuity is not None
        assert result.conspicuity.shape == (4, *result.saliency.shape)
        assert result.saliency[:, :4].max() < 0.05 < 0.95 < result.saliency[:, -4:].min()


def test_images_are_reduced_to_the_networks_size_by_averaging() -> None:
    engine = BrightEngine()
    fine = np.random.default_rng(0).integers(
        0, 256, (engine.spec.height * 3, engine.spec.width * 3, 3), np.uint8
    )
    (result,) = run(Predictor(engine), [fine])
    grey = fine.mean(axis=-1).reshape(engine.spec.height, 3, engine.spec.width, 3).mean(axis=(1, 3)) / 255
    expected = cv2.resize(grey.astype(np.float32), fine.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    assert expected.std() > 0.03
    assert np.abs(result.saliency - expected).mean() < 0.01  # FFmpeg counts in small integers


def test_flush_makes_ready_for_another_video(model: HD2SLite) -> None:
    first, second = blob_video(20), blob_video(5)[::-1]
    predictor = Predictor(model, engine="torch")
    assert list(predictor.flush()) == []
    run(predictor, first)
    results = run(predictor, second)
    fresh = run(Predictor(model, engine="torch"), second)
    assert [result.index for result in results] == list(range(5))
    assert all(np.array_equal(a.saliency, b.saliency) for a, b in zip(results, fresh, strict=True))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"shape \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"shape \(0, 8, 3\)"),
        (np.zeros((8, 8, 3), np.float32), "type float32"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "type Tensor"),
        ([[[1, 2, 3]]], "type list"),
        (None, "type NoneType"),
    ],
)
def test_frames_that_are_no_pictures_are_refused_and_do_no_harm(image: object, message: str) -> None:
    predictor = Predictor(BrightEngine())
    with pytest.raises(InputShapeError, match=message):
        predictor.push(image)  # type: ignore[arg-type]
    assert [result.index for result in run(predictor, blob_video(2))] == [0, 1]


# --- whole sources ----------------------------------------------------------------------------------


class Counted:
    """An iterable that knows how much of it was read."""

    def __init__(self, count: int) -> None:
        self.count, self.read = count, 0

    def __iter__(self) -> Iterator[Image]:
        for image in moving_blob(self.count, 16, 24):
            self.read += 1
            yield image


def test_a_source_is_read_no_further_ahead_than_needed() -> None:
    images = Counted(300)
    with (
        open_source(images, fps=25) as source,
        closing(predict_frames(source, BrightEngine())) as results,
    ):
        for wanted, (frame, result) in enumerate(results):
            assert frame.index == result.slot.number == wanted
            if wanted % 50 == 0:
                time.sleep(0.2)  # a slow consumer: the threads get all the time that they can use
                assert images.read - wanted <= 2 * PAST + 4 * BATCH + 8
    assert wanted == 299


@pytest.mark.parametrize("stride", [1, 4])
def test_enlarged_maps_live_no_longer_than_the_caller_wants(stride: int) -> None:
    alive: list[weakref.ref[NDArray[np.float32]]] = []

    def count(saliency: NDArray[np.float32]) -> int:
        alive.append(weakref.ref(saliency))
        return sum(map_() is not None for map_ in alive)

    images = blob_video(80)
    for result in hd2s.predict(images, model=BrightEngine(), stride=stride):
        assert count(result.saliency) <= 2
    predictor = Predictor(BrightEngine(), stride=stride)
    for image in images:
        for result in predictor.push(image):
            assert count(result.saliency) <= 3
    for result in predictor.flush():
        assert count(result.saliency) <= 3
    assert len(alive) == 160


def test_every_frame_comes_with_its_own_map() -> None:
    images = blob_video(45)
    with open_source(images, fps=10) as source:
        pairs = list(predict_frames(source, BrightEngine()))
    assert [frame.index for frame, _ in pairs] == list(range(45))
    for frame, result in pairs:
        assert result.slot.time_seconds == frame.time_seconds == pytest.approx(frame.index / 10)
        expected = cv2.resize(images[frame.index], (48, 32), interpolation=cv2.INTER_AREA).mean(axis=-1) / 255
        expected = cv2.resize(expected, images[0].shape[1::-1], interpolation=cv2.INTER_LINEAR)
        assert np.abs(result.enlarged.saliency - expected).mean() < 0.02


# --- prefetch ---------------------------------------------------------------------------------------


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hd2s-prefetch"]


def counting(
    count: int, seen: list[int], ended: list[str], error: BaseException | None = None
) -> Generator[int]:
    try:
        for number in range(count):
            seen.append(number)
            yield number
        if error is not None:
            raise error
    finally:
        ended.append(threading.current_thread().name)


@pytest.mark.parametrize("ahead", [1, 3])
def test_prefetch_keeps_the_order_and_works_in_a_thread(ahead: int) -> None:
    ended: list[str] = []
    assert list(prefetch(counting(20, [], ended), ahead)) == list(range(20))
    assert ended == ["hd2s-prefetch"]
    assert workers() == []


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_prefetch_raises_what_its_generator_raises_behind_its_items(error: BaseException) -> None:
    received = []
    with pytest.raises(type(error)) as raised:
        received.extend(prefetch(counting(3, [], [], error), 2))
    items = prefetch(counting(3, [], [], error), 2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(type(error)):
        next(items)
    assert raised.value is error
    assert workers() == []


def test_prefetch_stays_within_its_bound_and_ends_its_thread_when_closed_early() -> None:
    seen: list[int] = []
    ended: list[str] = []
    items = prefetch(counting(10**9, seen, ended), 3)
    assert next(items) == 0
    time.sleep(0.1)
    assert len(seen) <= 1 + 3 + 1  # taken, in the queue, in the hand of the thread
    items.close()
    assert ended == ["hd2s-prefetch"]
    assert workers() == []


def test_prefetch_that_is_never_begun_starts_nothing() -> None:
    seen: list[int] = []
    prefetch(counting(3, seen, []), 1).close()
    assert seen == []
    assert workers() == []
