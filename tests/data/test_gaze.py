"""The gaze pack: its splits, its fixations, and what is wrong with broken ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import make_gaze_pack
from hd2s.data.datasets import gaze
from hd2s.errors import DatasetFormatError, DatasetNotFoundError

COLUMNS = "viewer,start_ms,duration_ms,x,y\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_gaze_pack(tmp_path / "gaze", images=12, num_frames=2)


def names(items: list[gaze.Still] | list[gaze.GazeVideo]) -> list[str]:
    return [f"{item.domain}/{item.path.stem}" for item in items]


def test_every_tenth_image_is_for_validation(root: Path) -> None:
    held_out = names(gaze.stills(root, "validation"))
    assert held_out == [f"{folder}/{n:03d}" for folder in ("osie", "crowd", "scene") for n in (0, 10)]
    train, every = names(gaze.stills(root, "train")), names(gaze.stills(root, "all"))
    assert sorted(train + held_out) == sorted(every)
    assert len(every) == len(set(every)) == 36
    assert names(gaze.stills(root, "validation", folders=["crowd"])) == ["crowd/000", "crowd/010"]


def test_videos_are_split_by_name(root: Path) -> None:
    assert names(gaze.videos(root, "train")) == ["hevc/Kimono"]
    assert names(gaze.videos(root, "validation")) == ["hevc/Tennis"]
    assert names(gaze.videos(root, "all")) == ["hevc/Kimono", "hevc/Tennis"]


def test_the_videos_to_hold_out_can_be_named(root: Path) -> None:
    held_out = frozenset(("Kimono", "Traffic"))
    assert names(gaze.videos(root, "train", held_out)) == ["hevc/Tennis"]
    assert names(gaze.videos(root, "validation", held_out)) == ["hevc/Kimono"]
    assert names(gaze.videos(root, "all", held_out)) == ["hevc/Kimono", "hevc/Tennis"]
    assert gaze.videos(root, "validation", gaze.FOLDS[0]) == []


def test_each_video_is_in_one_fold() -> None:
    every = [name for fold in gaze.FOLDS for name in fold]
    assert len(gaze.FOLDS) == 5
    assert len(every) == len(set(every)) == 22
    assert set(every) > gaze.VALIDATION_VIDEOS


@pytest.mark.parametrize(
    "related",
    [
        "RaceHorsesC RaceHorsesD",
        "Vidyo1 Vidyo3 Vidyo4 FourPeople Johnny KristenAndSara",
        "Couple Female Lee Male Simo Yan",
    ],
)
def test_related_videos_are_on_one_side(related: str) -> None:
    group = set(related.split())
    assert [group & held_out for held_out in (*gaze.FOLDS, gaze.VALIDATION_VIDEOS)].count(set()) >= 4
    assert all(group & held_out in (set(), group) for held_out in (*gaze.FOLDS, gaze.VALIDATION_VIDEOS))


def test_fixations_are_those_of_the_image(root: Path) -> None:
    (root / "osie" / "fixations.csv").write_text(
        "image,viewer,x,y,duration_ms\n"
        + "".join(f"{n:03d}.jpg,1,{n},{n}.5,200\n{n:03d}.jpg,2,3,4,100\n" for n in range(12))
    )
    still = gaze.stills(root, "validation", folders=["osie"])[1]
    assert still.path.name == "010.jpg"
    assert still.points.dtype == "float32"
    assert still.points.tolist() == [[10, 10.5], [3, 4]]


def test_a_fixation_is_active_from_its_first_to_its_last_millisecond(root: Path) -> None:
    table = root / "hevc" / "fixations" / "Kimono.csv"
    table.write_text(COLUMNS + "1,40,80,5,6\n2,0,39,7,8\n3,121,50,9,10\n")
    (video,) = gaze.videos(root, "train")
    active = [video.points[video.active(frame, 25.0)].tolist() for frame in range(5)]
    assert active == [[[7, 8]], [[5, 6]], [[5, 6]], [[5, 6]], [[9, 10]]]


def test_a_video_that_nobody_looks_at_is_none_the_less_there(root: Path) -> None:
    (root / "hevc" / "fixations" / "Kimono.csv").write_text(COLUMNS)
    (video,) = gaze.videos(root, "train")
    assert video.points.shape == (0, 2)
    assert not video.active(0, 25.0).any()


@pytest.mark.parametrize("read", [gaze.stills, gaze.videos])
def test_a_missing_pack_is_named_with_its_layout(tmp_path: Path, read: Callable[..., object]) -> None:
    with pytest.raises(DatasetNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere", "train")
    (tmp_path / "hevc" / "videos").mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError, match=r"point `data\.root` to it|fixations\.csv is missing"):
        read(tmp_path, "train")


def test_missing_parts_are_named(root: Path) -> None:
    (root / "hevc" / "fixations" / "Tennis.csv").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"Tennis\.csv is missing"):
        gaze.videos(root, "validation")
    shutil.rmtree(root / "crowd" / "images")
    with pytest.raises(DatasetNotFoundError, match=r"No \*\.jpg in .*crowd"):
        gaze.stills(root, "train")


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("osie/fixations.csv", "image,viewer,x\n000.jpg,1,2\n", r"lacks the columns \['y'\]"),
        ("osie/fixations.csv", "", r"lacks the columns \['image', 'x', 'y'\]"),
        ("osie/fixations.csv", "image,x,y\nother.jpg,1,2\n", r"000\.jpg has no fixations"),
        ("osie/fixations.csv", "image,x,y\n000.jpg,left,2\n", r"osie.*not all numbers"),
        ("osie/fixations.csv", "image,x,y\n000.jpg,1\n", r"osie.*not all numbers"),
        (
            "hevc/fixations/Tennis.csv",
            "viewer,x,y\n1,2,3\n",
            r"lacks the columns \['duration_ms', 'start_ms'\]",
        ),
        ("hevc/fixations/Tennis.csv", COLUMNS + "1,0,soon,5,6\n", r"Tennis.*not all numbers"),
        ("hevc/fixations/Tennis.csv", COLUMNS + "1,0,40\n", r"Tennis.*not all numbers"),
    ],
)
def test_tables_that_are_not_as_expected_are_refused(root: Path, table: str, text: str, message: str) -> None:
    (root / table).write_text(text)
    with pytest.raises(DatasetFormatError, match=message):
        gaze.videos(root, "all") if "hevc" in table else gaze.stills(root, "all")
