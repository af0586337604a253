"""Data sets as they lie on disk: found by looking, split, paired with their labels, problems reported."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fake_datasets import (
    LOOKED_AT_ROW,
    grey,
    make_avimos,
    make_dhf1k,
    make_generic,
    make_ledov,
    make_shots,
    ramp,
    write_fixation,
    write_map,
)
from fakes import make_folder, make_gaze_pack, make_video
from hd2s.data.datasets import LAYOUTS, DataSet, open_dataset
from hd2s.data.datasets.base import AnnotatedVideo
from hd2s.data.images import ImageSource
from hd2s.data.seek import PacketIndex
from hd2s.data.video import open_source
from hd2s.errors import DatasetFormatError, DatasetNotFoundError, UnknownNameError

HOLLYWOOD = ("actioncliptrain00001_1", "actioncliptest00001_1", "actioncliptest00001_10")
UCF = ("Diving-Side-005", "Golf-Swing-Back-001")
MAKERS: dict[str, Callable[[Path], Path]] = {
    "dhf1k": make_dhf1k,
    "hollywood": lambda root: make_shots(root, HOLLYWOOD),
    "ucfsports": lambda root: make_shots(root, UCF),
    "ledov": make_ledov,
    "aim2024": lambda root: make_avimos(root, "fixations"),
    "ntire2026": make_avimos,
    "gaze": make_gaze_pack,
    "generic": make_generic,
}


def names(data: DataSet) -> list[str]:
    return [video.name for video in data.videos]


def only(data: DataSet, name: str) -> AnnotatedVideo:
    (video,) = (video for video in data.videos if video.name == name)
    return video


def messages(data: DataSet) -> str:
    return "\n".join(map(str, data.problems))


def assert_labels_are_of_frame(video: AnnotatedVideo, index: int, frame: int | None = None) -> None:
    """Check that the labels of `video` are those that were written for a frame."""
    frame = index if frame is None else frame
    density, fixations = video.density(index), video.fixations(index)
    assert density is not None
    assert fixations is not None
    assert density.dtype == fixations.dtype == np.float32
    assert density.shape == video.truth_size == (32, 48)
    np.testing.assert_allclose(density, grey(frame) / 255, rtol=1e-6)
    assert fixations.tolist() == [[frame, LOOKED_AT_ROW]]


# --- all of them ------------------------------------------------------------------------------------


def test_each_data_set_has_a_fake() -> None:
    assert MAKERS.keys() == LAYOUTS.keys()
    assert [layout.name for layout in LAYOUTS.values()] == list(LAYOUTS)


@pytest.mark.parametrize("name", MAKERS)
def test_a_layout_is_found_by_looking(tmp_path: Path, name: str) -> None:
    data = open_dataset(MAKERS[name](tmp_path / "data"), split="all")
    assert (data.name, data.split, data.root) == (name, "all", tmp_path / "data")
    assert len(set(names(data))) == len(data.videos) > 0
    parts = [names(open_dataset(data.root, split)) for split in LAYOUTS[name].splits if _has(data, split)]
    listed = sum(parts, [])
    assert len(set(listed)) == len(listed), "no video is in two splits"
    assert set(listed) <= set(names(data))


def _has(data: DataSet, split: str) -> bool:
    """Whether a fake has a split: those of text files need the file."""
    return data.name not in ("generic", "ledov") or (data.root / f"{split}.txt").is_file()


@pytest.mark.parametrize("name", MAKERS)
def test_videos_are_as_they_are_read_in_order(tmp_path: Path, name: str) -> None:
    for video in open_dataset(MAKERS[name](tmp_path / "data"), split="all").videos:
        video = pickle.loads(pickle.dumps(video))
        with open_source(video.source, fps=video.fps) as source:
            frames = [frame.rgb() for frame in source]
            assert video.fps == pytest.approx(float(source.info.fps))
        assert video.num_frames == len(frames)
        order = [len(frames) - 1, 0, len(frames) // 2, 0]
        np.testing.assert_array_equal(video.frames(order), [frames[index] for index in order])
        assert video.frames([]) == []
        with pytest.raises(IndexError):
            video.frames([len(frames)])


@pytest.mark.parametrize("name", MAKERS)
def test_opening_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    root = MAKERS[name](tmp_path / "data")
    monkeypatch.setattr(PacketIndex, "of", lambda path: pytest.fail("read packets"))
    monkeypatch.setattr(ImageSource, "__init__", lambda *arguments: pytest.fail("read an image"))
    for video in open_dataset(root, split="all").videos:
        assert video.labelled == (video.name not in ("0701", "0010", "bare", "animal_bear01"))


def test_opening_does_without_torch() -> None:
    code = "import sys, hd2s.data.datasets.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_folders_of_maps_are_listed_once_and_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_dhf1k(tmp_path)
    listed: list[str] = []
    scandir = os.scandir

    def counting(path: Path) -> object:
        listed.append(str(Path(path).relative_to(root)))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    video = only(open_dataset(root, "validation"), "0601")
    assert "annotation/0601/maps" not in listed
    assert listed.count("annotation/0601/fixation") == 1
    for index in range(12):
        video.density(index)
    assert listed.count("annotation/0601/maps") == 1


# --- not found --------------------------------------------------------------------------------------


def test_a_missing_folder_is_named_with_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere") as caught:
        open_dataset(tmp_path / "nowhere")
    for layout in LAYOUTS.values():
        assert f"{layout.name}: {layout.description}" in str(caught.value)


def test_a_folder_of_something_else_is_not_recognised(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DatasetNotFoundError, match=r"No data set is recognised in .*\. These layouts"):
        open_dataset(tmp_path)
    make_dhf1k(tmp_path / "holiday" / "DHF1K")
    with pytest.raises(DatasetNotFoundError, match=r"Did you mean .*DHF1K\?"):
        open_dataset(tmp_path / "holiday")


def test_names_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dhf1k'"):
        open_dataset(tmp_path, name="dhf1")
    make_shots(tmp_path, UCF)
    with pytest.raises(UnknownNameError, match="split of UCF Sports 'validation'.* Known: all, test, train"):
        open_dataset(tmp_path)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "annotation" / "0601").mkdir(parents=True)
    with pytest.raises(
        DatasetNotFoundError, match=r"no video of the split 'validation'.*(?s:.*)0601 itself is miss"
    ):
        open_dataset(tmp_path)


def test_two_layouts_at_once_need_a_name(tmp_path: Path) -> None:
    make_avimos(tmp_path)
    for part in ("Train", "Test"):
        (tmp_path / f"Fixations{part}").rename(tmp_path / f"elsewhere{part}")
    with pytest.raises(DatasetFormatError, match="say which, 'aim2024' or 'ntire2026'"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, name="ntire2026").name == "ntire2026"


def test_shots_of_other_names_need_a_name(tmp_path: Path) -> None:
    make_shots(tmp_path, ["one", "two"])
    with pytest.raises(DatasetNotFoundError, match="No data set is recognised"):
        open_dataset(tmp_path, "train")
    assert names(open_dataset(tmp_path, "train", name="hollywood")) == ["one"]


# --- DHF1K ------------------------------------------------------------------------------------------


def test_dhf1k_is_split_by_number(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path)
    assert names(open_dataset(root, "train")) == ["0001", "0002"]
    assert names(open_dataset(root)) == ["0601", "0602"]
    assert names(open_dataset(root, "test")) == ["0701"]
    assert {video.domain for video in open_dataset(root, "all").videos} == {"dhf1k"}


def test_names_of_maps_of_both_kinds_are_paired_with_frames(tmp_path: Path) -> None:
    video = only(open_dataset(make_dhf1k(tmp_path), "train"), "0001")
    for index in range(12):
        assert_labels_are_of_frame(video, index)


def test_folders_are_found_in_any_case_and_hidden_files_passed_over(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path)
    maps = root / "annotation" / "0601" / "maps"
    write_map(maps / "._0005.png", 9)  # as macOS leaves beside the file itself
    for path in (maps, maps.parent / "fixation", root / "annotation", root / "video"):
        path.rename(path.with_name(path.name.title()))
    assert_labels_are_of_frame(only(open_dataset(root), "0601"), 4)


def test_a_missing_map_shifts_no_other(tmp_path: Path) -> None:
    video = only(open_dataset(make_dhf1k(tmp_path), "train"), "0002")
    assert video.density(3) is None
    for index in (0, 2, 4, 11):
        assert_labels_are_of_frame(video, index)


def test_test_videos_can_be_predicted_but_not_scored(tmp_path: Path) -> None:
    data = open_dataset(make_dhf1k(tmp_path), "test")
    (video,) = data.videos
    assert not video.labelled
    assert video.density(0) is video.fixations(0) is video.viewers(0) is None
    assert video.truth_size == (32, 48)
    assert "1 videos have neither maps nor fixations: they can be predicted, but not scored" in messages(data)
    assert not any(problem.fatal for problem in data.problems)


def test_extracted_frames_and_matlab_files(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path)
    data = open_dataset(root)
    video = only(data, "0602")
    assert (video.source, video.fps, video.fixations(0)) == (root / "frames" / "602", 30.0, None)
    np.testing.assert_allclose(video.density(5), grey(5) / 255, rtol=1e-6)
    assert "0602/fixation: holds 1 MATLAB files, which are not read" in messages(data)
    (root / "frames" / "602").rename(root / "annotation" / "0602" / "images")
    assert only(open_dataset(root), "0602").num_frames == 12


def test_video_files_take_precedence_over_frames(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path)
    make_folder(root / "frames" / "0601", num_frames=3)
    assert only(open_dataset(root), "0601").num_frames == 12


def test_strangers_and_gaps_are_reported(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path)
    make_video(root / "video" / "1001.AVI", codec="mpeg4", num_frames=2)
    make_video(root / "video" / "603.avi", codec="mpeg4", num_frames=2)
    (root / "annotation" / "0604").mkdir()
    text = messages(open_dataset(root))
    assert "the number 1001 is not of DHF1K" in text
    assert "603.avi: the video 0603 has neither maps nor fixations" in text
    assert "annotation/0604: the video 0604 itself is missing" in text


# --- Hollywood-2 and UCF Sports ---------------------------------------------------------------------


def test_shots_are_in_natural_order_and_may_be_short(tmp_path: Path) -> None:
    root = make_shots(tmp_path, HOLLYWOOD)
    data = open_dataset(root, "test")
    assert names(data) == ["actioncliptest00001_1", "actioncliptest00001_10"]
    assert data.problems == []
    (short,) = open_dataset(root, "train").videos
    assert (short.num_frames, short.domain, short.fps) == (3, "hollywood", 24.0)
    for index in range(3):
        assert_labels_are_of_frame(short, index)


def test_ucf_sports_is_told_by_its_names(tmp_path: Path) -> None:
    (video,) = open_dataset(make_shots(tmp_path, UCF), "train").videos
    assert (video.name, video.domain) == ("Diving-Side-005", "ucfsports")
    assert_labels_are_of_frame(video, 2)


def test_incomplete_shots_are_reported(tmp_path: Path) -> None:
    root = make_shots(tmp_path, HOLLYWOOD)
    (root / "testing" / HOLLYWOOD[1] / "images").rename(root / "testing" / HOLLYWOOD[1] / "frames")
    (root / "testing" / HOLLYWOOD[2] / "maps").rename(root / "testing" / HOLLYWOOD[2] / "density")
    data = open_dataset(root, "test")
    assert names(data) == [HOLLYWOOD[2]]
    assert [problem.fatal for problem in data.problems] == [True, False]
    assert f"the shot {HOLLYWOOD[1]} has no folder of images" in messages(data)
    assert data.videos[0].density(0) is None
    assert data.videos[0].fixations(1) is not None


# --- LEDOV ------------------------------------------------------------------------------------------


def test_ledov_has_frames_or_videos(tmp_path: Path) -> None:
    root = make_ledov(tmp_path)
    data = open_dataset(root, "all")
    assert names(data) == ["animal_bear01", "human_talk02"]
    assert not data.videos[0].labelled
    assert "its fixations are in a MATLAB file, which is not read" in messages(data)
    assert_labels_are_of_frame(data.videos[1], 3)
    assert names(open_dataset(root)) == ["human_talk02"]
    (root / "human_talk02" / "Data.mat").unlink()
    for path in (root / "human_talk02" / "fixation").iterdir():
        path.unlink()
    write_fixation(root / "human_talk02" / "fixation" / "._1.png", 0)  # as macOS leaves them
    assert "human_talk02: it has no fixations" in messages(open_dataset(root))
    with pytest.raises(DatasetFormatError, match=r"train\.txt is missing: it lists the names"):
        open_dataset(root, "train")


def test_ledov_takes_a_table_in_place_of_its_matlab_file(tmp_path: Path) -> None:
    root = make_ledov(tmp_path)
    for name in ("animal_bear01", "human_talk02"):
        (root / name / "fixations.csv").write_text("viewer,start_ms,duration_ms,x,y\n4,40,60,7,9\n")
    bear, talk = open_dataset(root, "all").videos
    assert [bear.fixations(frame).tolist() for frame in range(4)] == [[], [[7, 9]], [[7, 9]], []]  # type: ignore[union-attr]
    assert bear.viewers(1).tolist() == [4]  # type: ignore[union-attr]
    density = bear.density(1)
    assert density is not None
    assert np.unravel_index(density.argmax(), density.shape) == (9, 7)
    np.testing.assert_allclose(talk.density(1), grey(1) / 255, rtol=1e-6)  # its own maps


# --- AViMoS and NTIRE 2026 --------------------------------------------------------------------------


def test_avimos_maps_keep_their_ten_bits(tmp_path: Path) -> None:
    (video,) = open_dataset(make_avimos(tmp_path)).videos
    assert (video.name, video.domain) == ("0002", "ntire2026")
    for index in (7, 0, 3, 4, 5):
        density = video.density(index)
        assert density is not None
        expected = (ramp(index) - 64.0) / (940 - 64)
        np.testing.assert_allclose(density, np.tile(expected, (32, 1)), rtol=1e-6)


def test_avimos_fixations_are_rows_and_columns_and_repeated(tmp_path: Path) -> None:
    (video,) = open_dataset(make_avimos(tmp_path)).videos
    points = video.fixations(5)
    assert points is not None
    assert points.tolist() == [[5, LOOKED_AT_ROW]] * 2
    assert video.viewers(5) is None


def test_avimos_is_split_by_its_file(tmp_path: Path) -> None:
    root = make_avimos(tmp_path)
    assert names(open_dataset(root, "train")) == ["0001"]
    assert [v.labelled for v in open_dataset(root, "test").videos] == [False]
    (root / "TrainTestSplit.json").write_text(json.dumps({"public_test": ["0003", "0002.mp4"]}))
    data = open_dataset(root)
    assert names(data) == ["0002"]
    assert "the video 0003 of TrainTestSplit.json is missing" in messages(data)
    with pytest.raises(DatasetFormatError, match="must hold the lists train, public_test, private_test"):
        open_dataset(root, "train")


def test_half_the_labels_of_avimos_are_reported(tmp_path: Path) -> None:
    root = make_avimos(tmp_path)
    (root / "SaliencyTest" / "Test" / "0002.mp4").unlink()
    assert "there are no maps of the video 0002" in messages(open_dataset(root))


# --- generic ----------------------------------------------------------------------------------------


def test_generic_takes_all_kinds(tmp_path: Path) -> None:
    data = open_dataset(make_generic(tmp_path), "all")
    assert names(data) == ["b", "bare", "street", "talk"]
    street, b, talk = only(data, "street"), only(data, "b"), only(data, "talk")
    np.testing.assert_allclose(street.density(4), grey(4) / 255, rtol=1e-6)
    assert street.fixations(4).tolist() == [[4, 2]] * 2  # type: ignore[union-attr]
    assert street.viewers(4).tolist() == [5, 7]  # type: ignore[union-attr]
    assert b.density(5)[0, 0] == pytest.approx(500 / 876)  # type: ignore[index]
    assert b.fixations(5).tolist() == [[5, 2]]  # type: ignore[union-attr]
    assert talk.fixations(3).tolist() == [[3, 2]]  # type: ignore[union-attr]
    assert talk.density(3) is talk.viewers(3) is None


def test_generic_splits_are_optional_files(tmp_path: Path) -> None:
    root = make_generic(tmp_path)
    assert names(open_dataset(root, "train")) == ["b", "street"]
    (root / "train.txt").write_text("street.mp4\nlost\n")
    data = open_dataset(root, "train")
    assert names(data) == ["street"]
    assert "train.txt: the video lost is missing" in messages(data)


def test_labels_without_a_video_are_reported(tmp_path: Path) -> None:
    root = make_generic(tmp_path)
    write_map(root / "maps" / "other" / "1.png", 0)
    write_fixation(root / "fixations" / "none" / "1.png", 0)
    text = messages(open_dataset(root, "all"))
    assert "maps/other: no video has this name" in text
    assert "fixations/none: no video has this name" in text


# --- the gaze pack ----------------------------------------------------------------------------------


def test_images_of_the_gaze_pack_are_videos_of_one_frame(tmp_path: Path) -> None:
    data = open_dataset(make_gaze_pack(tmp_path))
    assert names(data) == ["Tennis", "osie-000", "crowd-000", "scene-000"]
    assert [video.group for video in data.videos] == ["Tennis", "osie", "crowd", "scene"]
    assert [video.domain for video in data.videos] == ["hevc", "osie", "crowd", "scene"]
    still = data.videos[1]
    assert still.num_frames == 1
    assert still.viewers(0).tolist() == list(range(6))  # type: ignore[union-attr]
    assert still.truth_size == still.frames([0])[0].shape[:2] == (36, 48)


def test_density_of_the_gaze_pack_is_that_of_training(tmp_path: Path) -> None:
    from hd2s.data.transforms import density_map, fixation_map

    video = open_dataset(make_gaze_pack(tmp_path)).videos[0]
    points, viewers, density = video.fixations(7), video.viewers(7), video.density(7)
    assert points is not None
    assert viewers is not None
    assert sorted(viewers.tolist()) == list(range(6))
    expected = density_map(fixation_map(points, 32, 48), (0.03 * 48, 0.03 * 48))
    np.testing.assert_array_equal(density, expected)


def test_folders_of_the_gaze_pack_that_are_missing_are_reported(tmp_path: Path) -> None:
    (make_gaze_pack(tmp_path) / "crowd").rename(tmp_path / "hidden")
    data = open_dataset(tmp_path)
    assert names(data) == ["Tennis", "osie-000", "scene-000"]
    assert "crowd: the folder is missing" in messages(data)


# --- names may not lead out -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../0002", "/etc/passwd", "a\\b", "..", "C:x", "", 7, None, "x" * 300, "a\nb"]
)
def test_names_in_files_may_not_leave_the_data_set(tmp_path: Path, name: object) -> None:
    root = make_avimos(tmp_path / "a")
    (root / "TrainTestSplit.json").write_text(json.dumps({"public_test": [name]}))
    with pytest.raises(DatasetFormatError, match=r"TrainTestSplit\.json"):
        open_dataset(root)
    if isinstance(name, str) and name and "\n" not in name:
        root = make_generic(tmp_path / "b")
        (root / "train.txt").write_text(name)
        with pytest.raises(DatasetFormatError, match=r"train\.txt"):
            open_dataset(root, "train")


def test_linked_folders_are_followed_and_pipes_are_not_opened(tmp_path: Path) -> None:
    root = make_dhf1k(tmp_path / "data")
    (root / "annotation").rename(tmp_path / "other disk")
    (root / "annotation").symlink_to(tmp_path / "other disk")
    os.mkfifo(tmp_path / "other disk" / "0601" / "maps" / "0000.png")
    video = only(open_dataset(root), "0601")
    assert_labels_are_of_frame(video, 4)
