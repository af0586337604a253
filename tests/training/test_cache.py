"""Footage on disk: the same to the last bit, rebuilt when damaged or out of date, never half-written."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fake_datasets import make_avimos, make_dhf1k
from fakes import file_size_limit, make_gaze_pack
from hd2s.data.datasets import AnnotatedVideo
from hd2s.errors import OutputError, VideoDecodeError
from hd2s.training import cache
from hd2s.training.cache import Cached, Decoded
from hd2s.training.clips import ClipAugment, ClipSource, VideoSamples, open_videos
from hd2s.types import InputSpec

SIZE = 16, 24
SPEC = InputSpec(height=16, width=24, num_frames=4, mean=(0.4, 0.5, 0.6), std=(0.5, 0.25, 0.2))


@pytest.fixture
def videos(tmp_path: Path) -> list[AnnotatedVideo]:
    """0001, whose maps are the same everywhere, and 0002, which has none of frame 3."""
    make_dhf1k(tmp_path / "data")
    return open_videos(tmp_path / "data", layout=None, split="train")


def source(videos: list[AnnotatedVideo], folder: Path | None, **options: object) -> ClipSource:
    parts = {"labelled": True, "augment": ClipAugment(0.5, 0.1, 0.1, 2.0), **options}
    return ClipSource("dhf1k", videos, SPEC, cache=folder, **parts)  # type: ignore[arg-type]


def cached(video: AnnotatedVideo, folder: Path) -> Cached:
    return Cached(Decoded(video, SIZE), labelled=True, folder=folder)


def stored(folder: Path, kind: str) -> Path:
    (path,) = folder.glob(f"*.{kind}.npy")
    return path


@pytest.mark.parametrize("layout", ["dhf1k", "gaze", "ntire2026"])
def test_the_cache_changes_nothing(tmp_path: Path, layout: str) -> None:
    make: Callable[[Path], Path] = {"dhf1k": make_dhf1k, "gaze": make_gaze_pack, "ntire2026": make_avimos}[
        layout
    ]
    videos = open_videos(make(tmp_path / "data"), layout=layout, split="train")
    for folder in (tmp_path / "new", tmp_path / "new"):  # written, and read
        ours, theirs = source(videos, None), source(videos, folder)
        for seed in range(3):
            a, b = (one.batch(np.random.default_rng(seed), 6) for one in (ours, theirs))
            assert torch.equal(a.clips, b.clips)
            assert a.targets is not None
            assert torch.equal(a.targets, b.targets)  # type: ignore[arg-type]
            assert a.names == b.names
        for x, y in zip(VideoSamples([ours], 2), VideoSamples([theirs], 2), strict=False):
            assert torch.equal(x.frames, y.frames)
            assert torch.equal(x.targets, y.targets)
            assert x.indices == y.indices
    assert not list(folder.glob("*.partial"))


def test_a_video_is_decoded_once(
    tmp_path: Path, videos: list[AnnotatedVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(videos[0], tmp_path).target(0)
    before = cached(videos[0], tmp_path).frames([3, 3, 1])

    def fail(*arguments: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Decoded, "frames", fail)
    again = cached(videos[0], tmp_path)
    assert np.array_equal(again.frames([3, 3, 1]), before)
    assert len(again) == 12
    monkeypatch.setattr(Decoded, "target", fail)
    with pytest.raises(AssertionError, match="decoded again"):
        again.target(0)  # compared with the labels once


def test_targets_are_read_once_more_to_compare(
    tmp_path: Path, videos: list[AnnotatedVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(videos[0], tmp_path).target(0)
    read: list[int] = []
    target = Decoded.target
    monkeypatch.setattr(Decoded, "target", lambda self, i: read.append(i) or target(self, i))
    again = cached(videos[0], tmp_path)
    for index in (5, 7, 9):
        assert again.target(index) is not None
    assert read == [0]


def test_frames_without_labels_have_none_in_the_cache(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    footage = Cached(Decoded(videos[1], SIZE, min_fixations=2), labelled=True, folder=tmp_path)
    assert [i for i in range(12) if footage.target(i) is None] == [3]
    unlabelled = Cached(Decoded(videos[1], SIZE), labelled=False, folder=tmp_path / "bare")
    unlabelled.frames([0])
    assert unlabelled.target(0) is None
    assert not list((tmp_path / "bare").glob("*.targets.npy"))


@pytest.mark.parametrize("kind", ["frames", "targets"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: b"PK\3\4" + data[4:],
        lambda data: data[:20] + b"\xff" * 40 + data[60:],
        lambda data: data[:8] + b"\xff\xff" + data[10:],
        lambda data: data.replace(b"(12, 16, 24", b"(12, 24, 16"),
        lambda data: data.replace(b"|u1", b"|i1").replace(b"<f2", b"<i2"),
    ],
    ids=["short", "long", "empty", "zip", "garbage", "length", "shape", "type"],
)
def test_damaged_files_are_rebuilt(
    tmp_path: Path, videos: list[AnnotatedVideo], kind: str, damage: Callable[[bytes], bytes]
) -> None:
    footage = cached(videos[0], tmp_path)
    frames, target = footage.frames(range(12)), footage.target(2)
    path = stored(tmp_path, kind)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    for again in (footage, cached(videos[0], tmp_path)):
        assert np.array_equal(again.frames(range(12)), frames)
        assert np.array_equal(again.target(2), target)  # type: ignore[arg-type]
    assert path.read_bytes() == whole


def test_another_video_size_or_threshold_is_another_file(
    tmp_path: Path, videos: list[AnnotatedVideo]
) -> None:
    folder = tmp_path / "cache"
    for size, fixations in ((SIZE, 1), ((24, 16), 1), (SIZE, 2)):
        footage = Cached(Decoded(videos[0], size, fixations), labelled=True, folder=folder)
        assert footage.frames([0]).shape == (1, *size, 3)
        footage.target(0)
    assert len(list(folder.glob("*.frames.npy"))) == 2, "fixations do not matter to frames"
    assert len(list(folder.glob("*.targets.npy"))) == 3
    os.utime(videos[0].source, (1, 1))
    cached(videos[0], folder).frames([0])
    assert len(list(folder.glob("*.frames.npy"))) == 3


def test_labels_that_changed_are_read_again(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    folder = tmp_path / "cache"
    before = cached(videos[0], folder).target(7)
    maps = tmp_path / "data" / "annotation" / "0001" / "maps"
    for path in maps.glob("*.[pP][nN][gG]"):
        ramp = np.tile(np.arange(48, dtype=np.uint8), (32, 1))
        path.write_bytes(cv2.imencode(".png", ramp)[1].tobytes())
    after = cached(videos[0], folder).target(7)
    assert np.array_equal(after, Decoded(videos[0], SIZE).target(7))  # type: ignore[arg-type]
    assert not np.array_equal(after, before)  # type: ignore[arg-type]


def test_a_full_disk_is_an_error_of_its_own(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    one = source(videos, tmp_path / "cache")
    with file_size_limit(3000), pytest.raises(OutputError, match="cannot be written: .*Make room"):
        one.batch(np.random.default_rng(0), 1)
    assert list((tmp_path / "cache").iterdir()) == []
    with file_size_limit(3000), pytest.raises(OutputError, match="cannot be written"):
        VideoSamples([one])[0]
    assert one.batch(np.random.default_rng(0), 1).skipped == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="choose another folder as cache"):
        source(videos, tmp_path / "file" / "cache").batch(np.random.default_rng(0), 1)


def test_a_video_that_breaks_off_leaves_nothing(
    tmp_path: Path, videos: list[AnnotatedVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = Decoded.frames

    def breaking(self: Decoded, indices: range) -> object:
        if indices[0] > 0:
            raise VideoDecodeError("the data are damaged")
        return frames(self, indices)

    monkeypatch.setattr(Decoded, "frames", breaking)
    monkeypatch.setattr(cache, "_CHUNK", 5)
    footage = cached(videos[0], tmp_path / "cache")
    with pytest.raises(VideoDecodeError, match="damaged"):
        footage.frames([0])
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(Decoded, "frames", frames)
    with pytest.raises(VideoDecodeError, match="damaged"):
        len(footage)  # not decoded again
    assert len(cached(videos[0], tmp_path / "cache")) == 12


def test_what_killed_processes_left_is_swept(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    old, new = tmp_path / "a.partial", tmp_path / "b.partial"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    source(videos, tmp_path)
    assert [old.exists(), new.exists()] == [False, True]


def _fill(videos: list[AnnotatedVideo], folder: Path, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    batch = source(videos, folder).batch(np.random.default_rng(1), 6)
    results.put((batch.names, batch.clips.double().sum().item()))  # type: ignore[attr-defined]


def test_processes_may_fill_a_cache_together(tmp_path: Path, videos: list[AnnotatedVideo]) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_fill, args=(videos, tmp_path / "cache", start, results)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    batch = source(videos, None).batch(np.random.default_rng(1), 6)
    assert found == [(batch.names, batch.clips.double().sum().item())] * 3
    assert not list((tmp_path / "cache").glob("*.partial"))
