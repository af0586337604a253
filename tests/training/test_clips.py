"""Clips of any data set: which frames, which targets, the same again each time, without broken videos."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fake_datasets import make_dhf1k, make_generic, make_shots
from fakes import make_folder, make_gaze_pack, make_video, write_image
from hd2s.data import transforms
from hd2s.data.datasets import AnnotatedVideo
from hd2s.data.datasets.base import Gaze, Maps, Pictures
from hd2s.data.frames import resize
from hd2s.errors import (
    DatasetFormatError,
    DatasetNotFoundError,
    InputNotFoundError,
    UnknownNameError,
    VideoDecodeError,
)
from hd2s.training.clips import (
    ClipAugment,
    ClipBatch,
    ClipBatches,
    ClipSource,
    VideoSamples,
    open_videos,
)
from hd2s.training.data import EpochSampler
from hd2s.types import InputSpec

SPEC = InputSpec(height=16, width=24, num_frames=4, mean=(0.4, 0.5, 0.6), std=(0.5, 0.25, 0.2))
PLAIN = ClipAugment(flip=0.0)
MIRRORED = ClipAugment(flip=1.0)


class Greys(Pictures):
    """Frames that are as bright as their number says, or that cannot be read."""

    def __init__(self, count: int, broken: bool = False) -> None:
        self.path, self.count, self.broken = Path("greys"), count, broken

    fps, size = 25.0, (16, 24)

    def __len__(self) -> int:
        return self.count

    def frames(self, indices: Sequence[int]) -> list[Any]:
        if self.broken:
            raise VideoDecodeError("the data are damaged")
        return [np.full((*self.size, 3), 10 * i % 256, np.uint8) for i in indices]


class Labels(Maps):
    """Maps of some frames, which are bright in one column; counts how many are read."""

    size = (16, 24)

    def __init__(self, labelled: Sequence[int]) -> None:
        self.labelled, self.read = labelled, 0

    def count(self) -> int:
        return len(self.labelled)

    def density(self, index: int) -> Any:
        self.read += 1
        if index not in self.labelled:
            return None
        density = np.zeros(self.size, np.float32)
        density[:, index % 24] = 0.5
        return density


class Points(Gaze):
    """As many fixations in the middle of a frame as its number."""

    size = (16, 24)

    def points(self, index: int) -> Any:
        return np.full((index, 2), (12.5, 8.5), np.float32)


def video(name: str = "a", count: int = 12, labelled: Sequence[int] = range(99), **changes: Any) -> Any:
    parts = {"pictures": Greys(count), "maps": Labels(labelled), **changes}
    return AnnotatedVideo(name=name, domain="greys", **parts)


def source(videos: Sequence[AnnotatedVideo], augment: ClipAugment = PLAIN, **options: Any) -> ClipSource:
    return ClipSource("grey", videos, SPEC, augment=augment, **{"labelled": True, **options})


def numbers(batch: ClipBatch) -> list[list[int]]:
    """Which frames of `Greys` each clip holds."""
    green = batch.clips[:, 1, :, 0, 0] * SPEC.std[1] + SPEC.mean[1]
    return [[round(25.5 * value) for value in clip] for clip in green.tolist()]


def drawn(one: ClipSource, size: int = 40, seed: int = 0) -> ClipBatch:
    return one.batch(np.random.default_rng(seed), size)


def same(a: ClipBatch, b: ClipBatch) -> bool:
    targets = a.targets is b.targets or torch.equal(a.targets, b.targets)  # type: ignore[arg-type]
    return torch.equal(a.clips, b.clips) and targets and a.names == b.names and a.domain == b.domain


# --- what a clip is ---------------------------------------------------------------------------------


def test_clips_are_consecutive_frames_and_the_target_is_the_last_ones() -> None:
    batch = drawn(source([video()]))
    assert batch.clips.shape == (40, 3, 4, 16, 24)
    assert batch.targets is not None
    assert batch.targets.shape == (40, 16, 24)
    assert {batch.clips.dtype, batch.targets.dtype} == {torch.float32}
    for clip, target, name in zip(numbers(batch), batch.targets, batch.names, strict=True):
        assert clip == list(range(clip[-1] - 3, clip[-1] + 1))
        assert target[5].argmax() == clip[-1]
        assert target.max() == 1
        assert name == f"grey/a, frames {clip[0]} to {clip[-1]}"
    assert {clip[-1] for clip in numbers(batch)} == set(range(3, 12)), "any frame with a whole past"
    assert (batch.domain, batch.skipped) == ("grey", [])


def test_frames_are_normalised_and_resized_as_for_prediction(tmp_path: Path) -> None:
    make_folder(tmp_path / "frames" / "a", num_frames=4, height=32, width=48)
    (one,) = open_videos(tmp_path, layout="generic", split="all")
    (clip,) = drawn(source([one], labelled=False), size=1).clips
    expected = [resize(frame, 16, 24) for frame in one.frames(range(4))]
    torch.testing.assert_close(clip.transpose(0, 1), transforms.normalise(np.stack(expected), SPEC))


def test_short_videos_are_reflected_and_images_are_still() -> None:
    short = numbers(drawn(source([video(count=3)])))
    assert {tuple(clip) for clip in short} == {(2, 1, 0, 0), (1, 0, 0, 1), (0, 0, 1, 2)}
    still = drawn(source([video(count=1)]), size=1)
    assert numbers(still) == [[0, 0, 0, 0]]
    assert still.names == ["grey/a, frame 0"]


def test_mirroring_turns_clip_and_target_together() -> None:
    ramp = np.tile(np.arange(24, dtype=np.uint8)[:, None] * 10, (16, 1, 3))
    ramp[..., 1] //= 2

    class Ramp(Greys):
        def frames(self, indices: Sequence[int]) -> list[Any]:
            return [ramp for _ in indices]

    plain, mirrored = (drawn(source([video(pictures=Ramp(12))], a)) for a in (PLAIN, MIRRORED))
    assert plain.targets is not None
    assert mirrored.targets is not None
    assert torch.equal(mirrored.clips, plain.clips.flip(-1))
    assert torch.equal(mirrored.targets, plain.targets.flip(-1))
    assert not torch.equal(mirrored.clips, plain.clips)
    half = drawn(source([video(pictures=Ramp(12))], ClipAugment(flip=0.5)), size=200).clips[:, 0, 0, 0]
    assert 70 < int((half[:, 0] > half[:, -1]).sum()) < 130


def test_light_and_speed_change_as_told() -> None:
    light = drawn(source([video()], ClipAugment(0.0, brightness=0.3, contrast=0.2)))
    plain = drawn(source([video()]))
    assert light.names == plain.names
    for changed, before in zip(light.clips, plain.clips, strict=True):
        slope = (changed.max() - changed.min()) / (before.max() - before.min())
        assert 0.79 < slope < 1.21
        assert abs(changed.mean() - before.mean()) < 0.301
        torch.testing.assert_close(changed - changed.mean(), slope * (before - before.mean()))
    fast = numbers(drawn(source([video(count=60, labelled=range(24))], ClipAugment(max_step=3.0))))
    spans = Counter(clip[-1] - clip[0] for clip in fast if clip[-1] > 9)
    assert set(spans) <= set(range(3, 10))
    assert len(spans) > 3


# --- targets ----------------------------------------------------------------------------------------


def test_frames_without_a_label_are_not_drawn() -> None:
    batch = drawn(source([video(labelled=[1, 5, 9])]))
    assert {clip[-1] for clip in numbers(batch)} == {5, 9}


def test_labels_are_read_only_until_one_is_found() -> None:
    one = video(count=2000, labelled=range(0, 2000))
    drawn(source([one]), size=4)
    assert one.maps.read == 4


def test_frames_with_too_few_fixations_are_not_drawn() -> None:
    one = video(maps=None, gaze=Points())
    batch = drawn(source([one], min_fixations=8))
    assert {clip[-1] for clip in numbers(batch)} == {8, 9, 10, 11}
    assert batch.targets is not None
    sigma = transforms.SIGMA_FRACTION * 24
    counts = transforms.fixation_map(np.array([[12.5, 8.5]], np.float32), 16, 24)
    expected = transforms.density_map(counts, (sigma, sigma))
    torch.testing.assert_close(
        batch.targets[0], torch.from_numpy(expected / expected.max()), atol=1e-3, rtol=0
    )


def test_fixations_stand_in_for_a_missing_map() -> None:
    one = video(labelled=[11], gaze=Points())
    assert {clip[-1] for clip in numbers(drawn(source([one], min_fixations=9)))} == {9, 10, 11}


def test_stored_maps_are_averaged_over_areas(tmp_path: Path) -> None:
    make_dhf1k(tmp_path)
    videos = [v for v in open_videos(tmp_path, layout=None, split="train") if v.name == "0001"]
    half = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)
    for path in (tmp_path / "annotation" / "0001" / "maps").glob("*.[pP][nN][gG]"):
        path.write_bytes(cv2.imencode(".png", half)[1].tobytes())
    target = drawn(source(videos), size=1).targets
    assert target is not None
    expected = half.reshape(16, 2, 24, 2).mean((1, 3))
    np.testing.assert_allclose(target[0], expected / expected.max(), atol=1e-3)


def test_unlabelled_clips_have_no_targets_and_read_no_labels() -> None:
    one = video()
    batch = drawn(source([one], labelled=False))
    assert batch.targets is None
    assert one.maps.read == 0
    assert {clip[-1] for clip in numbers(batch)} == set(range(3, 12))


def test_a_source_without_labels_is_refused() -> None:
    with pytest.raises(
        DatasetFormatError, match="'grey' cannot be trained on: none of its 2 videos has maps"
    ):
        source([video(maps=None), video(maps=None)])
    with pytest.raises(DatasetFormatError, match="it has no videos"):
        source([], labelled=False)
    assert len(source([video(maps=None), video()]).videos) == 1


# --- the same again ---------------------------------------------------------------------------------


def test_a_batch_depends_on_the_generator_alone() -> None:
    def build() -> ClipSource:
        return source([video("a"), video("b", count=30)], ClipAugment(0.5, 0.2, 0.2, 2.0))

    first, used = build(), build()
    drawn(used, seed=7)
    assert same(drawn(first), drawn(used))
    assert not same(drawn(first), drawn(first, seed=1))


def test_batches_depend_on_seed_epoch_and_index_alone() -> None:
    def build(seed: int = 1) -> ClipBatches:
        return ClipBatches([source([video(count=99)])], 2, seed)

    keys = [(epoch, index) for epoch in range(2) for index in range(3)]
    first, second = build(), build()
    forwards = {key: first[key] for key in keys}
    backwards = {key: second[key] for key in reversed(keys)}
    assert all(same(forwards[key], backwards[key]) for key in keys)  # type: ignore[arg-type]
    assert not any(same(forwards[a], forwards[b]) for a in keys for b in keys if a < b)  # type: ignore[arg-type]
    assert not same(build(2)[0, 0], forwards[0, 0])  # type: ignore[arg-type]


def test_sources_take_turns_and_meet_all_targets() -> None:
    sources, targets = (
        [ClipSource(n, [video()], SPEC, labelled=n < "t", augment=PLAIN) for n in names]
        for names in (("a", "b"), ("t", "u", "v"))
    )
    alone = ClipBatches(sources, 1, 0)
    assert [alone[0, i].domain for i in range(4)] == ["a", "b", "a", "b"]  # type: ignore[union-attr]
    pairs = ClipBatches(sources, 1, 0, targets=targets)
    met = [tuple(batch.domain for batch in pairs[0, i]) for i in range(6)]  # type: ignore[union-attr]
    assert set(met) == {(a, b) for a in "ab" for b in "tuv"}
    source_batch, target_batch = pairs[0, 1]
    assert same(source_batch, alone[0, 1])  # type: ignore[arg-type]
    assert target_batch.targets is None  # type: ignore[union-attr]


@pytest.mark.parametrize("shards", [2, 3])
def test_the_shards_of_a_batch_make_that_of_one_process(shards: int) -> None:
    broken = [video(n, count=50, pictures=Greys(50, broken=n == "c")) for n in "abc"]
    augment = ClipAugment(0.5, 0.2, 0.2, 2.0)
    options = {"targets": [source(broken, augment, labelled=False)]}
    whole = ClipBatches([source(broken, augment)], 2 * shards, 3, **options)[1, 4]
    parts = [
        ClipBatches([source(broken, augment)], 2, 3, shard=r, shards=shards, **options)[1, 4]
        for r in range(shards)
    ]
    for one, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        assert isinstance(one, ClipBatch)
        assert torch.equal(one.clips, torch.cat([piece.clips for piece in pieces]))
        assert one.names == [name for piece in pieces for name in piece.names]
        if one.targets is not None:
            assert torch.equal(one.targets, torch.cat([piece.targets for piece in pieces]))
    with pytest.raises(ValueError, match=r"shard must be in \[0, 2\), got 2"):
        ClipBatches([source(broken)], 2, 3, shard=2, shards=2)


def test_workers_make_the_same_batches(tmp_path: Path) -> None:
    make_gaze_pack(tmp_path, num_frames=8)
    videos = open_videos(tmp_path, layout=None, split="train")
    batches = ClipBatches([source(videos)], 3, 0, targets=[source(videos, labelled=False)])
    before = [batches[0, i] for i in range(4)]  # decoders are open when the workers start
    loader = DataLoader(batches, batch_size=None, sampler=EpochSampler(4), num_workers=2)
    for ours, theirs in zip(before, loader, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert isinstance(b, ClipBatch)
            assert same(a, b)  # type: ignore[arg-type]
    assert same(pickle.loads(pickle.dumps(batches))[0, 0][0], before[0][0])  # type: ignore[arg-type]


# --- what is broken ---------------------------------------------------------------------------------


def test_a_broken_video_is_replaced_and_named_once() -> None:
    one = source([video("a"), video("b", pictures=Greys(12, broken=True)), video("c", labelled=[])])
    first, second = drawn(one, seed=0), drawn(one, seed=1)
    assert {name.split(",")[0] for name in first.names + second.names} == {"grey/a"}
    assert sorted(first.skipped) == [
        "grey/b: the data are damaged",
        "grey/c: none of 9 frames that were looked at has a usable label",
    ]
    assert second.skipped == []


def test_a_source_of_broken_videos_is_an_error() -> None:
    with pytest.raises(DatasetFormatError, match="None of the 2 videos of 'grey' .* the data are damaged"):
        drawn(source([video(n, pictures=Greys(12, broken=True)) for n in "ab"]))


def test_a_video_file_that_is_damaged_is_skipped(tmp_path: Path) -> None:
    make_video(tmp_path / "good.mp4", num_frames=8)
    (tmp_path / "bad.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:300])
    batch = drawn(source(open_videos(tmp_path, layout=None, split=""), labelled=False), size=20)
    assert {name.split(",")[0] for name in batch.names} == {"grey/good.mp4"}
    assert len(batch.skipped) == 1
    assert batch.skipped[0].startswith("grey/bad.mp4: ")


# --- validation -------------------------------------------------------------------------------------


def test_validation_videos_are_whole_and_sparsely_labelled() -> None:
    samples = VideoSamples([source([video(count=40, labelled=[0, 1, 4, 7, 8, 21])], MIRRORED)], every=4)
    assert len(samples) == 1
    sample = samples[0]
    assert sample.frames.shape == (40, 16, 24, 3)
    assert sample.frames.dtype == torch.uint8
    assert sample.frames[:20, 0, 0, 0].tolist() == [10 * i for i in range(20)]
    assert sample.indices == [0, 4, 8, 21]
    assert sample.targets[:, 0].argmax(1).tolist() == sample.indices
    assert (sample.name, sample.domain, sample.skipped) == ("grey/a", "grey", [])


def test_validation_names_what_is_broken() -> None:
    videos = [video("a", pictures=Greys(9, broken=True)), video("b", labelled=[]), video("c")]
    broken, bare, good = VideoSamples([source(videos[:2]), source(videos[2:])])
    assert broken.skipped == ["grey/a: the data are damaged"]
    assert bare.skipped == ["grey/b: no frame has a usable label"]
    assert broken.frames.shape == (0, 16, 24, 3)
    assert broken.targets.shape == (0, 16, 24)
    assert broken.indices == bare.indices == []
    assert good.indices == list(range(12))


def test_validation_videos_pass_through_workers(tmp_path: Path) -> None:
    make_gaze_pack(tmp_path, num_frames=8)
    samples = VideoSamples([source(open_videos(tmp_path, layout=None, split="validation"))], every=3)
    loaded = list(DataLoader(samples, batch_size=None, num_workers=1))
    assert [s.name for s in loaded] == [f"grey/{n}" for n in ("Tennis", "osie-000", "crowd-000", "scene-000")]
    assert [s.indices for s in loaded] == [[0, 3, 6], [0], [0], [0]]
    assert torch.equal(loaded[0].frames, samples[0].frames)
    assert torch.equal(loaded[0].targets, samples[0].targets)


# --- opening ----------------------------------------------------------------------------------------


def test_data_sets_are_opened_by_their_layout(tmp_path: Path) -> None:
    make_generic(tmp_path)
    assert [v.name for v in open_videos(tmp_path, layout=None, split="train")] == ["b", "street"]
    assert len(open_videos(tmp_path, layout="generic", split="all")) == 4
    with pytest.raises(UnknownNameError, match="Unknown split"):
        open_videos(tmp_path, layout=None, split="training")
    shots = make_shots(tmp_path / "ucf", ["Diving-Side-001", "Golf-Swing-002"])
    batch = drawn(source(open_videos(shots, layout="ucfsports", split="all")))
    assert batch.skipped == []


def test_any_videos_are_found_in_folders_and_by_patterns(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b10.mp4", "b2.MP4", "in/c.avi"):
        make_video(tmp_path / name.lower(), num_frames=2, codec="mpeg4")
    (tmp_path / "b2.mp4").rename(tmp_path / "b2.MP4")
    make_folder(tmp_path / "d" / "shot", num_frames=3)
    write_image(tmp_path / "thumbnail.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("no video")

    def names(root: Path, layout: str | None = None) -> list[str]:
        found = open_videos(root, layout=layout, split="train")
        assert not any(v.labelled for v in found)
        return [v.name for v in found]

    assert names(tmp_path) == ["b2.MP4", "b10.mp4", "d-shot", "in-c.avi"]
    assert names(tmp_path / "*.mp4") == ["b10.mp4"]
    assert names(tmp_path / "*") == names(tmp_path)[:1] + ["b10.mp4", "d-shot", "in-c.avi", "thumbnail.png"]
    assert names(tmp_path / "d") == ["shot"]
    assert names(tmp_path / "b10.mp4") == ["b10.mp4"]
    generic = make_generic(tmp_path / "generic")
    assert len(open_videos(generic, layout="videos", split="all")) == 6, "maps are videos, too"


def test_what_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="no data set, video, folder or pattern '.*nowhere'"):
        open_videos(tmp_path / "nowhere", layout=None, split="all")
    with pytest.raises(InputNotFoundError, match=r"no data set, video, folder or pattern '.*\*\.mp4'"):
        open_videos(tmp_path / "*.mp4", layout=None, split="all")
    with pytest.raises(DatasetNotFoundError, match="There is no folder"):
        open_videos(tmp_path / "nowhere", layout="dhf1k", split="all")
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(DatasetNotFoundError, match="There are no videos .* No data set is recognised"):
        open_videos(tmp_path, layout=None, split="all")
