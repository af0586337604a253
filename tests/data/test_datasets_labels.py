"""Maps and fixations: their precision, their frames, and what is refused or reported."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fake_datasets import (
    make_avimos,
    make_dhf1k,
    make_generic,
    make_shots,
    write_fixation,
    write_grey,
    write_map,
)
from fakes import make_gaze_pack, make_video, write_image
from hd2s.data.datasets import open_dataset, tables
from hd2s.data.datasets.base import AnnotatedVideo
from hd2s.data.datasets.check import Counts, examine
from hd2s.data.datasets.listing import number_in, pair
from hd2s.data.datasets.maps import MapFiles, luma, read_grey
from hd2s.data.datasets.pictures import FolderPictures, StillPictures
from hd2s.data.datasets.points import PointFiles, PointLists, Table, TablePoints, read_table
from hd2s.errors import DatasetFormatError, DatasetNotFoundError, VideoDecodeError

SHOTS = ("actioncliptrain00001_1", "actioncliptest00001_1")


@pytest.fixture
def shot(tmp_path: Path) -> AnnotatedVideo:
    """A shot of 4 frames, numbered from 12."""
    return open_dataset(make_shots(tmp_path / "data", SHOTS), "test").videos[0]


def told(counts: Counts, *, fatal: bool) -> str:
    return "\n".join(str(problem) for problem in counts.problems if problem.fatal == fatal)


# --- pairing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "names", "files", "unused"),
    [
        (3, ["1.png", "2.png", "3.png"], ["1.png", "2.png", "3.png"], []),
        (3, ["0.png", "1.png", "2.png"], ["0.png", "1.png", "2.png"], []),
        (3, ["0.png", "2.png"], ["0.png", None, "2.png"], []),
        (3, ["2.png", "3.png"], [None, "2.png", "3.png"], []),
        (3, ["7.png", "8.png", "9.png"], ["7.png", "8.png", "9.png"], []),
        (3, ["1.png", "3.png", "4.png"], ["1.png", None, "3.png"], ["4.png"]),
        (2, ["1.png", "2.png", "3.png"], ["1.png", "2.png"], ["3.png"]),
        (["a5.jpg", "a6.jpg"], ["0006.png"], [None, "0006.png"], []),
        (["a5.jpg", "a6.jpg"], ["0.png", "1.png"], ["0.png", "1.png"], []),
        (["x.jpg", "y.jpg"], ["a.png", "b.png"], ["a.png", "b.png"], []),
        (["1.jpg", "01.jpg"], ["1.png", "2.png"], ["1.png", "2.png"], []),
        (0, [], [], []),
    ],
)
def test_files_are_paired_by_number_or_order(
    frames: list[str] | int, names: list[str], files: list[str | None], unused: list[str]
) -> None:
    pairing = pair(frames, names)
    assert (pairing.files, pairing.unused, pairing.unclear) == (files, unused, False)


@pytest.mark.parametrize(
    "names", [["a.png", "b.png"], ["1.png", "01.png"], ["1.png", "2.png", "2.jpg", "cover.png"]]
)
def test_what_names_do_not_tell_is_not_guessed(names: list[str]) -> None:
    pairing = pair(3, names)
    assert (pairing.files, pairing.unused, pairing.unclear) == ([None] * 3, names, True)


def test_the_last_number_counts() -> None:
    assert [number_in(name) for name in ("v1_f02.png", "3.tar.png", "mp4.png", "x.mp4")] == [2, 3, 4, None]


# --- maps -------------------------------------------------------------------------------------------


def test_sixteen_bits_keep_their_precision(tmp_path: Path) -> None:
    path = write_grey(tmp_path / "map.png", np.array([[0, 1, 256, 65535]], np.uint16))
    np.testing.assert_allclose(read_grey(path), [[0, 1 / 65535, 256 / 65535, 1]], rtol=1e-6)


def test_equal_channels_are_one_and_colours_are_refused(tmp_path: Path) -> None:
    rgb = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    np.testing.assert_allclose(
        read_grey(write_image(tmp_path / "grey.png", rgb)) * 255, rgb[..., 0], rtol=1e-6
    )
    rgb[1, 1, 0] += 1
    with pytest.raises(DatasetFormatError, match=r"colour\.png is coloured; maps and fixations must be grey"):
        read_grey(write_image(tmp_path / "colour.png", rgb))


def test_other_depths_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 3), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DatasetFormatError, match="pixels of float32; maps must have 8 or 16 bits"):
        read_grey(tmp_path / "float.tif")


def test_one_bit_and_alpha_are_understood(tmp_path: Path) -> None:
    Image.fromarray(np.eye(3) > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "bits.png"), np.eye(3))
    Image.fromarray(np.full((2, 2), 51, np.uint8)).convert("LA").save(tmp_path / "alpha.png")
    np.testing.assert_allclose(read_grey(tmp_path / "alpha.png"), 0.2, rtol=1e-6)


def test_a_header_cannot_make_us_allocate(tmp_path: Path) -> None:
    """A PNG of a few bytes claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(DatasetFormatError, match=r"bomb\.png' claims"):
        read_grey(tmp_path / "bomb.png")


def test_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "map.png").write_bytes(b"no image")
    with pytest.raises(DatasetFormatError, match=r"map\.png' cannot be read"):
        read_grey(tmp_path / "map.png")
    with pytest.raises(DatasetFormatError, match=r"gone\.png' cannot be read"):
        read_grey(tmp_path / "gone.png")


def test_maps_of_two_sizes_are_refused(shot: AnnotatedVideo) -> None:
    name = f"{SHOTS[1]}_00014.png"
    write_map(shot.source.parent / "maps" / name, 2, (16, 24))
    assert shot.density(1) is not None
    with pytest.raises(DatasetFormatError, match=rf"{name} has 24x16 pixels, the first of these maps 48x32"):
        shot.density(2)


@pytest.mark.parametrize(
    ("pix_fmt", "black", "white"),
    [
        ("gray", 0, 255),
        ("gray10le", 0, 1023),
        ("yuvj420p", 0, 255),
        ("yuv420p", 16, 235),
        ("yuv420p10le", 64, 940),
    ],
)
def test_brightness_has_the_range_of_its_format(pix_fmt: str, black: int, white: int) -> None:
    picture = av.VideoFrame(48, 2, pix_fmt)
    kind = np.uint8 if white < 256 else np.dtype("<u2")
    values = np.zeros((2, picture.planes[0].line_size // np.dtype(kind).itemsize), kind)
    values[:, :3] = black, white, (black + white) // 2
    picture.planes[0].update(values.tobytes())
    density = luma(picture)
    assert density.shape == (2, 48)
    np.testing.assert_allclose(density[0, :3], [0, 1, 0.5], atol=0.5 / (white - black) + 1e-6)


def test_coloured_videos_hold_no_maps() -> None:
    with pytest.raises(VideoDecodeError, match="pixel format 'rgb24'"):
        luma(av.VideoFrame(4, 4, "rgb24"))


# --- fixations --------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [1, 255])
def test_bright_pixels_are_fixations(tmp_path: Path, white: int) -> None:
    write_grey(tmp_path / "1.png", np.array([[0, 0, white], [white, 0, 0]], np.uint8))
    gaze = PointFiles(tmp_path, StillPictures(tmp_path / "1.png"))
    assert gaze.points(0).tolist() == [[2, 0], [0, 1]]  # type: ignore[union-attr]


def test_dim_pixels_are_no_fixations(tmp_path: Path) -> None:
    """As compression leaves them beside bright ones."""
    write_grey(tmp_path / "1.png", np.array([[0, 30, 255], [120, 0, 0]], np.uint8))
    gaze = PointFiles(tmp_path, StillPictures(tmp_path / "1.png"))
    assert gaze.points(0).tolist() == [[2, 0]]  # type: ignore[union-attr]


def test_fixations_outside_are_left_out_with_their_viewers(tmp_path: Path) -> None:
    root = make_generic(tmp_path)
    rows = ["47.9,31.9,1", "48,3,2", "-0.1,3,3", "3,32,4", "3,-0.1,6", "0,0,5"]
    (root / "fixations" / "street.csv").write_text(
        "frame,x,y,viewer\n" + "".join(f"2,{row}\n" for row in rows)
    )
    (video,) = (v for v in open_dataset(root, "train").videos if v.name == "street")
    np.testing.assert_allclose(video.fixations(2), [[47.9, 31.9], [0, 0]])  # type: ignore[arg-type]
    assert video.viewers(2).tolist() == [1, 5]  # type: ignore[union-attr]
    assert video.fixations(0).shape == (0, 2)  # type: ignore[union-attr]


def test_a_fixation_lasts_from_its_start_to_its_end() -> None:
    times = np.array([[40, 120], [0, 39], [121, 171]], np.float32)
    table = Table(np.zeros((3, 2), np.float32), times_ms=times)
    assert [np.flatnonzero(table.rows(frame, 25.0)).tolist() for frame in range(5)] == [
        [1],
        [0],
        [0],
        [0],
        [2],
    ]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"frames": []}, "must be a list with a list of pairs"),
        ([[], [[1, 2, 3]]], "of frame 1 are not pairs of numbers"),
        ([[1, 2]], "of frame 0 are not pairs"),
        ([5], "of frame 0 are not pairs"),
        ([[["a", "b"]]], "of frame 0 are not pairs"),
        ([[[1, 2], [3]]], "of frame 0 are not pairs"),
        ([None], "of frame 0 are not pairs"),
        ([[[1, float("nan")]]], "of frame 0 are not pairs"),
    ],
)
def test_lists_that_hold_something_else_are_refused(tmp_path: Path, stored: object, message: str) -> None:
    (tmp_path / "v.json").write_text(json.dumps(stored))
    gaze = PointLists(tmp_path / "v.json", StillPictures(tmp_path), rows_first=False)
    with pytest.raises(DatasetFormatError, match=message):
        gaze.points(0)


@pytest.mark.parametrize("text", ["[[1,", "[" * 100_000, "\xff\xfe"])
def test_files_that_are_no_json_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "v.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetFormatError, match=r"v\.json is no (valid JSON|text in UTF-8)"):
        tables.read_json(tmp_path / "v.json")


def test_large_lists_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v.json").write_text("[[]]")
    monkeypatch.setattr(tables, "MAX_BYTES", 3)
    with pytest.raises(DatasetFormatError, match=r"v\.json has 4 bytes; at most 3 are read"):
        tables.read_json(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,z\n1,2\n", r"lacks the columns \['y'\]"),
        ("x,y\n1,2\n", "needs the column 'frame', or 'start_ms' and 'duration_ms'"),
        ("frame,x,y\n0,left,2\n", "not all numbers"),
        ("frame,x,y\n0,1\n", "not all numbers"),
        ("frame,x,y\n0,inf,2\n", "not finite"),
    ],
)
def test_tables_that_hold_something_else_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(DatasetFormatError, match=message):
        read_table(tmp_path / "v.csv")


def test_an_empty_table_has_no_fixations(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("frame,x,y\n")
    assert read_table(tmp_path / "v.csv").points.shape == (0, 2)
    with pytest.raises(DatasetNotFoundError, match=r"gone\.csv is missing"):
        read_table(tmp_path / "gone.csv")


# --- pictures ---------------------------------------------------------------------------------------


def test_frames_of_two_sizes_are_refused(shot: AnnotatedVideo) -> None:
    Image.new("RGB", (20, 10)).save(shot.source / f"{SHOTS[1]}_00014.png")
    with pytest.raises(
        DatasetFormatError, match="00014.png has 20x10 pixels, the first frame of its video 48x32"
    ):
        shot.frames([0, 2])


def test_a_folder_without_images_has_no_size(tmp_path: Path) -> None:
    for part in (FolderPictures(tmp_path, 25.0), MapFiles(tmp_path, FolderPictures(tmp_path, 25.0))):
        with pytest.raises(DatasetFormatError, match="has no images"):
            _ = part.size


# --- counting and reporting -------------------------------------------------------------------------


def test_all_is_counted(tmp_path: Path) -> None:
    total = Counts()
    for video in open_dataset(make_shots(tmp_path, SHOTS), "all").videos:
        total.add(examine(video, decode=True))
    assert total == Counts(videos=2, labelled=2, frames=7, maps=7, fixations=7, short=2)
    total = Counts()
    for video in open_dataset(make_avimos(tmp_path / "a"), "all").videos:
        total.add(examine(video, decode=True))
    assert total == Counts(videos=3, labelled=2, frames=24, maps=16, fixations=32, short=3)
    total = Counts()
    for video in open_dataset(make_gaze_pack(tmp_path / "g"), "all").videos:
        total.add(examine(video, decode=True))
    assert (total.videos, total.frames, total.maps) == (11, 9 + 2 * 18, 9 + 2 * 18)
    assert total.fixations == 9 * 6 + 2 * 18 * 6
    assert (total.short, total.problems) == (0, [])


def test_a_missing_map_and_one_too_many_are_reported_with_both_counts(tmp_path: Path) -> None:
    videos = open_dataset(make_dhf1k(tmp_path), "train").videos
    assert examine(videos[0], decode=True).problems == []
    counts = examine(videos[1])
    assert told(counts, fatal=False) == (
        f"{tmp_path}/annotation/0002/maps: 12 frames but 12 maps; none for the frames 3 (from 0); "
        "no frame for 0013.png"
    )
    (tmp_path / "annotation" / "0002" / "maps" / "0013.png").unlink()
    counts = examine(open_dataset(tmp_path, "train").videos[1])
    assert "0002/maps: 12 frames but 11 maps; none for the frames 3" in told(counts, fatal=False)
    assert told(counts, fatal=True) == ""


def test_maps_that_cannot_be_paired_are_unusable(shot: AnnotatedVideo) -> None:
    maps = shot.source.parent / "maps"
    (maps / f"{SHOTS[1]}_00012.png").rename(maps / "cover.png")
    (maps / f"{SHOTS[1]}_00013.png").unlink()
    assert "4 frames but 3 maps, whose names do not tell" in told(examine(shot), fatal=True)


def test_odd_maps_are_reported(shot: AnnotatedVideo) -> None:
    maps = shot.source.parent / "maps"
    write_grey(maps / f"{SHOTS[1]}_00012.png", np.ones((32, 48), np.uint16))
    write_image(maps / f"{SHOTS[1]}_00013.png", np.zeros((32, 48, 3), np.uint8))
    counts = examine(shot)
    assert f"1 maps have 16 bits: read as such ({SHOTS[1]}_00012.png)" in told(counts, fatal=False)
    assert f"1 maps have colour channels, which must be equal ({SHOTS[1]}_00013.png)" in told(
        counts, fatal=False
    )
    assert told(counts, fatal=True) == ""
    assert f"{SHOTS[1]}_00013.png: the map is empty" in told(examine(shot, decode=True), fatal=False)


def test_broken_maps_are_unusable(shot: AnnotatedVideo) -> None:
    maps = shot.source.parent / "maps"
    write_map(maps / f"{SHOTS[1]}_00013.png", 1, (8, 8))
    (maps / f"{SHOTS[1]}_00014.png").write_bytes(b"no image")
    text = told(examine(shot), fatal=True)
    assert f"{SHOTS[1]}_00013.png: 8x8 pixels, the first one 48x32" in text
    assert f"{SHOTS[1]}_00014.png' cannot be read" in text


def test_damage_in_maps_and_frames_is_found_by_decoding(tmp_path: Path, shot: AnnotatedVideo) -> None:
    path = shot.source.parent / "maps" / f"{SHOTS[1]}_00015.png"
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[0, 0] = 1, 2, 3
    write_image(path, rgb)
    assert told(examine(shot), fatal=True) == ""
    assert "00015.png is coloured" in told(examine(shot, decode=True), fatal=True)
    Image.new("RGB", (20, 10)).save(shot.source / f"{SHOTS[1]}_00014.png")
    assert "differ in size" in told(examine(shot, decode=True), fatal=True)


def test_frames_that_are_lost_are_found_by_decoding(tmp_path: Path) -> None:
    path = make_generic(tmp_path) / "videos" / "street.mp4"
    make_video(path, num_frames=6, options={"g": "20", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][3]
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    video = open_dataset(tmp_path, "train").videos[1]
    assert told(examine(video), fatal=False) == ""
    text = told(examine(video, decode=True), fatal=False)
    assert "street.mp4: damaged near frame 3" in text
    assert "street.mp4: 6 frames by its packets, but 5 can be decoded" in text


def test_fixations_outside_and_frames_without_are_counted(tmp_path: Path) -> None:
    root = make_generic(tmp_path)
    (root / "fixations" / "street.csv").write_text("frame,x,y\n0,1,1\n0,99,1\n1,1,1\n5,-1,1\n9,1,1\n")
    video = open_dataset(root, "train").videos[1]
    counts = examine(video)
    assert (counts.fixations, counts.outside, counts.unwatched) == (2, 2, 4)
    text = told(counts, fatal=False)
    assert "street.mp4: 2 fixations are outside of the picture, and left out" in text
    assert "street.mp4: 4 frames have no fixations, and are not scored" in text
    assert "street.mp4: 1 fixations are of frames that the video does not have" in text


def test_a_video_that_nobody_looks_at_is_reported(shot: AnnotatedVideo) -> None:
    for index in range(4):
        path = shot.source.parent / "fixation" / f"{SHOTS[1]}_{12 + index:05d}.png"
        write_grey(path, np.zeros((32, 48), np.uint8))
    counts = examine(shot)
    assert (counts.fixations, counts.unwatched) == (0, 4)
    assert "nobody looks at this video" in told(counts, fatal=False)


def test_numbers_of_lists_and_of_maps_in_videos_are_compared(tmp_path: Path) -> None:
    root = make_avimos(tmp_path)
    make_video(root / "Videos" / "0002.mp4", num_frames=9)
    (video,) = open_dataset(root).videos
    text = told(examine(video), fatal=False)
    assert f"{root}/SaliencyTest/Test/0002.mp4: 9 frames but 8 maps" in text
    assert f"{root}/FixationsTest/Test/0002/fixations.json: 9 frames but 8 lists of fixations" in text
    assert video.density(8) is video.fixations(8) is None


def test_fixations_and_maps_of_two_sizes_are_unusable(shot: AnnotatedVideo) -> None:
    for index in range(4):
        write_fixation(shot.source.parent / "fixation" / f"{SHOTS[1]}_{12 + index:05d}.png", index, (16, 24))
    assert "lie in (16, 24), its maps are (32, 48)" in told(examine(shot), fatal=True)


def test_a_shot_without_frames_is_unusable(shot: AnnotatedVideo) -> None:
    for path in shot.source.iterdir():
        path.rename(path.with_suffix(".db"))
    counts = examine(shot)
    assert (counts.videos, counts.frames) == (0, 0)
    assert f"The folder {shot.source} has no images" in told(counts, fatal=True)


def test_a_video_that_is_none_is_unusable(tmp_path: Path) -> None:
    root = make_generic(tmp_path)
    (root / "videos" / "street.mp4").write_text("text")
    counts = examine(open_dataset(root, "train").videos[1])
    assert counts.videos == counts.labelled == 0
    assert "street.mp4" in told(counts, fatal=True)


def test_a_table_without_times_is_of_an_image() -> None:
    table = Table(np.ones((2, 2), np.float32), viewers=np.array([3, 4]))
    gaze = TablePoints(table, StillPictures(Path("x.png")))
    assert gaze.viewers(0).tolist() == [3, 4]  # type: ignore[union-attr]
