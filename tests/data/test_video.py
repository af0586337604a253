"""Every kind of input gives its frames, and every kind of bad input a message that helps."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from av.stream import Disposition
from PIL import Image

from fakes import QuietHandler, make_audio, make_folder, make_video, moving_blob, serving, write_image
from hd2s.data import container, upright
from hd2s.data.frames import MAX_PROBLEMS, FrameSource, frame_rate
from hd2s.data.upright import Clock
from hd2s.data.video import Frame, expand_inputs, natural_key, open_source
from hd2s.errors import InputNotFoundError, InputShapeError, VideoDecodeError

HEIGHT, WIDTH = 32, 48


def read(source: object, **options: float) -> tuple[FrameSource, list[Frame]]:
    with open_source(source, **options) as opened:  # type: ignore[arg-type]
        return opened, list(opened)


def error_between(frame: Frame, expected: np.ndarray) -> float:
    """Mean absolute difference to an (H, W, 3) picture, in grey levels."""
    return float(np.abs(frame.rgb().astype(int) - expected).mean())


# --- kinds of input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "pixel_format", "tolerance"),
    [
        ("h264.mp4", {"options": {"crf": "5"}}, "yuv420p", 4),
        ("h264.mov", {"audio": True, "options": {"crf": "5"}}, "yuv420p", 4),
        ("mpeg4.avi", {"codec": "mpeg4", "options": {"qmin": "1", "qmax": "2"}}, "yuv420p", 4),
        ("vp9.webm", {"codec": "libvpx-vp9", "audio": True, "options": {"crf": "5"}}, "yuv420p", 6),
        ("hevc.mkv", {"codec": "libx265", "height": 48, "width": 64}, "yuv420p", 6),
        ("transport.ts", {"audio": True, "options": {"crf": "5"}}, "yuv420p", 4),
        ("palette.gif", {"codec": "gif", "pix_fmt": "rgb8"}, "bgra", 30),
        ("ten_bits.mkv", {"codec": "ffv1", "pix_fmt": "yuv420p10le"}, "yuv420p10le", 4),
        ("alpha.mkv", {"codec": "ffv1", "pix_fmt": "yuva420p"}, "yuva420p", 4),
        ("odd.mkv", {"codec": "ffv1", "height": 33, "width": 47}, "yuv420p", 4),
        ("full_range.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, "yuvj420p", 6),
        ("rgb.avi", {"codec": "rawvideo", "pix_fmt": "bgr24"}, "bgr24", 0),
    ],
)
def test_reads_video_files(
    tmp_path: Path, name: str, options: dict[str, object], pixel_format: str, tolerance: float
) -> None:
    size = {"height": HEIGHT, "width": WIDTH, **options}
    source, frames = read(make_video(tmp_path / name, **options))  # type: ignore[arg-type]
    assert source.problems == []
    assert (source.info.name, source.info.fps) == (Path(name).stem, 25)
    assert (source.info.height, source.info.width) == (size["height"], size["width"])
    assert source.info.num_frames == pytest.approx(20, abs=3)
    assert not source.info.live
    assert source.info.has_audio == bool(options.get("audio")) == (source.audio is not None)
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time_seconds for frame in frames], np.arange(20) / 25, atol=1e-3)
    written = list(moving_blob(20, size["height"], size["width"]))  # type: ignore[arg-type]
    for frame in frames:
        assert frame.picture.format.name == pixel_format
        assert frame.picture.pts * source.time_base == pytest.approx(frame.time_seconds)
        assert frame.picture.time_base == source.time_base
        errors = [error_between(frame, rgb) for rgb in written]
        assert int(np.argmin(errors)) == frame.index, "another frame than was written at this place"
        assert errors[frame.index] <= tolerance


def test_grey_video_is_grey_in_rgb(tmp_path: Path) -> None:
    _, frames = read(make_video(tmp_path / "grey.mkv", codec="ffv1", pix_fmt="gray", num_frames=2))
    rgb = frames[0].rgb()
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    assert np.ptp(rgb.astype(int), axis=2).max() == 0
    assert np.ptp(rgb) > 50


def test_sound_stays_in_step_with_a_container_that_starts_late(tmp_path: Path) -> None:
    source, frames = read(make_video(tmp_path / "late.mkv", pts=[500, 540, 580], num_frames=3, audio=True))
    assert [frame.time_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08])
    assert source.start_time == Fraction(1, 2)
    assert source.audio is not None
    with av.open(source.audio) as sound:
        assert sound.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_variable_frame_rate_keeps_its_time_stamps(tmp_path: Path, suffix: str) -> None:
    source, frames = read(make_video(tmp_path / f"v{suffix}", num_frames=4, pts=[0, 40, 100, 1000]))
    assert [frame.time_seconds for frame in frames] == pytest.approx([0, 0.04, 0.1, 1.0])
    assert source.problems == []


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation_is_applied_in_the_native_pixel_format(
    tmp_path: Path, rotation: int, pixel_format: str
) -> None:
    lossless = {"num_frames": 3, "pix_fmt": pixel_format, "options": {"qp": "0"}}
    _, flat = read(make_video(tmp_path / "flat.mp4", **lossless))  # type: ignore[arg-type]
    source, turned = read(make_video(tmp_path / "turned.mp4", rotation=rotation, **lossless))  # type: ignore[arg-type]
    for before, after in zip(flat, turned, strict=True):
        expected = np.rot90(before.rgb(), rotation // 90)
        assert (source.info.height, source.info.width) == expected.shape[:2] == after.rgb().shape[:2]
        assert error_between(after, expected) < 2
        assert after.picture.format.name == pixel_format
        assert after.picture.rotation == 0, "a reader would turn it twice"
        assert after.time_seconds == before.time_seconds


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
@pytest.mark.parametrize("mirror", ["hflip", "vflip"])
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_mirrored_video_is_shown_as_players_show_it(
    tmp_path: Path, rotation: int, mirror: str, size: tuple[int, int]
) -> None:
    rgb = next(moving_blob(1, *size))
    with av.open(str(tmp_path / "mirrored.mp4"), "w") as written:
        stream = written.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = *size, "rgb24"
        stream.set_display_rotation(rotation, **{mirror: True})
        written.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        written.mux(stream.encode(None))
    source, (frame,) = read(tmp_path / "mirrored.mp4")
    expected = np.flip(np.rot90(rgb, rotation // 90), axis=1 if mirror == "hflip" else 0)
    assert (source.info.height, source.info.width) == expected.shape[:2]
    np.testing.assert_array_equal(frame.rgb(), expected)
    assert not any(data.type == Type.DISPLAYMATRIX for data in frame.picture.side_data)


@pytest.mark.parametrize("rotation", [0, 90, -90, 180])
def test_rotation_beside_side_data_that_pyav_does_not_know(rotation: int) -> None:
    class Odd:
        def __getitem__(self, kind: Type) -> object:
            raise ValueError("99 is not a valid Type")

    odd = SimpleNamespace(side_data=Odd(), rotation=rotation)
    turns = {0: [], 90: ["cclock"], -90: ["clock"], 180: ["clock", "clock"]}
    assert upright._turns(odd) == turns[rotation]  # type: ignore[arg-type]


def test_joined_recordings_of_two_sizes_go_on_in_size_and_time(tmp_path: Path) -> None:
    small = make_video(tmp_path / "a.ts", num_frames=10).read_bytes()
    large = make_video(tmp_path / "b.ts", num_frames=10, height=64, width=96).read_bytes()
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small + large)
    source, frames = read(joined)
    assert {frame.rgb().shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert len(frames) > 15
    assert min(np.diff([frame.time_seconds for frame in frames])) > 0
    assert error_between(frames[-1], list(moving_blob(10))[-1]) < 10


def test_folder_is_read_in_natural_order_without_other_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "frames", num_frames=11)
    for other in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (folder / other).write_bytes(b"no picture")
    source, frames = read(folder, fps=10)
    assert (source.info.name, source.info.num_frames, source.info.fps) == ("frames", 11, 10)
    assert [frame.time_seconds for frame in frames] == pytest.approx(np.arange(11) / 10)
    for frame, rgb in zip(frames, moving_blob(11), strict=True):
        np.testing.assert_array_equal(frame.rgb(), rgb)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_single_image_is_one_frame(tmp_path: Path, suffix: str) -> None:
    rgb = next(moving_blob(1))
    source, (frame,) = read(write_image(tmp_path / f"still{suffix}", rgb))
    assert (source.info.name, source.info.num_frames, source.info.live) == ("still", 1, False)
    assert error_between(frame, rgb) < 6


@pytest.mark.parametrize(
    ("name", "convert"),
    [
        ("deep.png", lambda rgb: rgb.astype(np.uint16) * 257),
        ("deep.tif", lambda rgb: rgb.astype(np.uint16) * 257),
        ("alpha.png", lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])),
    ],
)
def test_deep_and_transparent_images(tmp_path: Path, name: str, convert: object) -> None:
    rgb = next(moving_blob(1))
    cv2.imwrite(str(tmp_path / name), convert(rgb[..., ::-1]))  # type: ignore[operator]
    _, (frame,) = read(tmp_path / name)
    np.testing.assert_array_equal(frame.rgb(), rgb)


def test_grey_image(tmp_path: Path) -> None:
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 40
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    _, (frame,) = read(tmp_path / "grey.png")
    np.testing.assert_array_equal(frame.rgb(), np.repeat((grey // 256)[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_image_orientation_is_honoured(tmp_path: Path, suffix: str) -> None:
    rgb = next(moving_blob(1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(rgb).save(tmp_path / f"turned{suffix}", exif=exif)
    source, (frame,) = read(tmp_path / f"turned{suffix}")
    assert (source.info.height, source.info.width) == (WIDTH, HEIGHT)
    assert error_between(frame, np.rot90(rgb, -1)) < 6


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_animation_is_a_still_and_said_to_be(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = (Image.fromarray(rgb) for rgb in moving_blob(4))
    first.save(tmp_path / f"moves{suffix}", save_all=True, append_images=others)
    first.save(tmp_path / f"still{suffix}")
    for name, warned in (("moves", suffix != ".tif"), ("still", False)):
        caplog.clear()
        _, frames = read(tmp_path / f"{name}{suffix}")
        assert (len(frames), "is an animation of 4 pictures" in caplog.text) == (1, warned)


def test_arrays_come_back_as_they_are() -> None:
    arrays = list(moving_blob(4, 33, 47))
    source, frames = read(arrays, fps=29.97)
    assert (source.info.num_frames, source.info.fps) == (4, Fraction(30_000, 1001))
    for frame, array in zip(frames, arrays, strict=True):
        np.testing.assert_array_equal(frame.rgb(), array)
    assert frames[3].time_seconds == pytest.approx(3 * 1001 / 30_000)


def test_generators_and_flipped_arrays_are_frames() -> None:
    source, frames = read(array[:, ::-1, ::-1] for array in moving_blob(3))
    assert source.info.num_frames is None
    np.testing.assert_array_equal(frames[2].rgb(), list(moving_blob(3))[2][:, ::-1, ::-1])


def test_source_is_read_once_and_closing_ends_it(tmp_path: Path) -> None:
    with open_source(make_video(tmp_path / "a.mp4")) as source:
        assert next(iter(source)).index == 0
        assert next(iter(source)).index == 1
    source.close()
    assert list(source) == []


@pytest.mark.parametrize("name", ["http:clip.mp4", "12:30 [x] %03d.mp4", "-i.mp4"])
def test_names_that_ffmpeg_would_misread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "a.mp4").rename(name)
    source, frames = read(name)
    assert len(frames) == 20
    assert source.info.name == name.removesuffix(".mp4")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class WithLive(QuietHandler):
        def do_GET(self) -> None:
            if self.path != "/live":
                return super().do_GET()
            self.send_response(200)  # without a length, so that nobody knows where it ends
            self.end_headers()
            self.wfile.write((tmp_path / "live.ts").read_bytes())
            return None

    with serving(tmp_path, WithLive) as address:
        yield address


def test_video_behind_a_url(tmp_path: Path, server: str) -> None:
    make_video(tmp_path / "clip.mp4", audio=True, container_options={"movflags": "faststart"})
    source, frames = read(f"{server}/clip.mp4")
    assert (len(frames), source.info.name, source.info.live) == (20, "clip", False)
    assert source.audio == f"{server}/clip.mp4"


def test_stream_without_an_end_is_live(tmp_path: Path, server: str) -> None:
    make_video(tmp_path / "live.ts", audio=True)
    lose_transport_packet(tmp_path / "live.ts")
    source, frames = read(f"{server}/live")
    assert (source.info.live, source.info.num_frames, source.info.has_audio) == (True, None, False)
    assert len(frames) >= 18
    assert all(problem.startswith("the stream broke off") for problem in source.problems)


def test_url_errors_hide_the_password(server: str) -> None:
    with pytest.raises(InputNotFoundError, match=r"clip\.mp4") as missing:
        open_source(f"{server}/clip.mp4".replace("//", "//me:secret@"))
    assert "secret" not in str(missing.value)
    with pytest.raises(VideoDecodeError, match="connection"):
        open_source("rtsp://127.0.0.1:9/live")


# --- colours and sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", ["ITU601", "ITU709"])
@pytest.mark.parametrize("colour_range", ["MPEG", "JPEG"])
@pytest.mark.parametrize("size", [(64, 96), (16, 24)])
def test_rgb_respects_matrix_and_range(matrix: str, colour_range: str, size: tuple[int, int]) -> None:
    colour = np.full((64, 96, 3), (200, 60, 30), np.uint8)
    picture = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=matrix, dst_color_range=colour_range
    )
    rgb = Frame(0, 0.0, picture).rgb(*size)
    assert rgb.shape == (*size, 3)
    assert np.abs(rgb.astype(int) - (200, 60, 30)).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(576, "ITU601"), (720, "ITU709")])
@pytest.mark.parametrize("tag", [2, 8])  # unspecified; YCgCo, which swscale refuses
def test_unusable_matrix_tags_follow_the_height(height: int, matrix: str, tag: int) -> None:
    colour = np.full((height, 64, 3), (200, 60, 30), np.uint8)
    picture = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG"
    )
    picture.colorspace = tag
    assert np.abs(Frame(0, 0.0, picture).rgb(32, 32).astype(int) - (200, 60, 30)).max() <= 3


def test_shrinking_averages_areas() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    frame = Frame(0, 0.0, av.VideoFrame.from_ndarray(noise, format="rgb24"))
    expected = cv2.resize(noise, (20, 12), interpolation=cv2.INTER_AREA)
    assert np.abs(frame.rgb(12, 20).astype(int) - expected).max() <= 2


def test_shrinking_keeps_the_colours_of_narrow_stripes() -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    picture = av.VideoFrame.from_ndarray(blocks.repeat(8, 0).repeat(8, 1), format="rgb24")
    rgb = Frame(0, 0.0, picture.reformat(format="yuv420p")).rgb(12, 20)
    assert np.abs(rgb.astype(int) - blocks).mean() < 4


# --- inputs on the command line ---------------------------------------------------------------------


def test_natural_order() -> None:
    names = ["img10", "img2", "b/1", "a/10", "a/9", "IMG1", "img02", "5", "x"]
    assert sorted(names, key=natural_key) == [
        "5",
        "a/9",
        "a/10",
        "b/1",
        "IMG1",
        "img02",
        "img2",
        "img10",
        "x",
    ]


FORKING = """
import gc, os, sys
from hd2s.data.video import open_source

gc.disable()  # so that what is no longer needed is left to the child
dropped, closed, held = (open_source(sys.argv[1]) for _ in range(3))
for source in (dropped, closed, held):
    next(source)
closed.close()
del dropped, source
child = os.fork()
if child == 0:
    del closed, held
    gc.collect()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(make_video(tmp_path / "clip.mp4"))]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_patterns_become_sorted_paths_without_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("v10.mp4", "v2.mp4", "odd [1].mp4"):
        (tmp_path / name).touch()
    given = ["v*.mp4", "./v2.mp4", "odd [1].mp4", "gone.mp4", "http://host/a?b=*", "0", "/dev/video0"]
    assert expand_inputs(given) == [
        "v2.mp4",
        "v10.mp4",
        "odd [1].mp4",
        "gone.mp4",
        "http://host/a?b=*",
        "0",
        "/dev/video0",
    ]
    assert expand_inputs(["*.avi"]) == ["*.avi"]
    with pytest.raises(InputNotFoundError, match=r"The pattern '\*\.avi' matches nothing in"):
        open_source("*.avi")


# --- bad input --------------------------------------------------------------------------------------


def test_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match=r"gone\.mp4"):
        open_source(tmp_path / "gone.mp4")
    with pytest.raises(InputNotFoundError, match=r"camera 997 \(/dev/video997\)|cameras work on"):
        open_source("997")


def test_files_that_are_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    (tmp_path / "text.txt").write_text("FFmpeg makes a picture of this\n" * 100)
    make_audio(tmp_path / "sound.mp4")
    make_video(tmp_path / "none.mp4", num_frames=0)
    make_video(tmp_path / "none.mkv", num_frames=0)
    for name, reason in [
        ("empty.mp4", "is empty"),
        ("text.mp4", "Invalid data"),
        ("text.txt", "text file"),
        ("sound.mp4", "only: audio"),
        ("none.mp4", "nothing was recorded"),
        ("none.mkv", "End of file"),
    ]:
        with pytest.raises(VideoDecodeError, match=rf"{name}.*{reason}"):
            open_source(tmp_path / name)


def test_cover_picture_of_a_song_is_no_video(tmp_path: Path) -> None:
    cover = av.VideoFrame.from_ndarray(next(moving_blob(1)), format="rgb24").reformat(format="yuvj420p")
    make_audio(tmp_path / "plain.m4a")
    with (
        av.open(str(tmp_path / "plain.m4a")) as plain,
        av.open(str(tmp_path / "song.m4a"), "w", format="mp4") as song,
    ):
        sound = song.add_stream_from_template(plain.streams.audio[0])
        picture = song.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        picture.disposition = Disposition.attached_pic
        song.mux(picture.encode(cover))
        for packet in plain.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                song.mux(packet)
    with pytest.raises(VideoDecodeError, match=r"song\.m4a.*no video stream"):
        open_source(tmp_path / "song.m4a")


def test_mp4_without_its_index(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov")])
    with pytest.raises(VideoDecodeError, match=r"cut\.mp4.*cut off"):
        open_source(tmp_path / "cut.mp4")


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Return the place and size in bytes of each packet of the first video stream."""
    with av.open(str(path)) as opened:
        return [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("spoiled", "reason"),
    [(0.0, "Invalid data found when processing input"), (0.5, "the picture is incomplete")],
)
def test_damage_in_the_middle_is_skipped_and_named(tmp_path: Path, spoiled: float, reason: str) -> None:
    """Packet 30 is damaged from its header on, or in its second half."""
    plain = {"g": "10", "bf": "0", "qp": "10"}
    path = make_video(tmp_path / "a.mp4", num_frames=60, height=96, width=160, options=plain)
    place, size = packet_places(path)[30]
    start = 4 + round(spoiled * size)
    data = bytearray(path.read_bytes())
    data[place + start : place + size] = bytes(size - start)
    path.write_bytes(data)
    source, frames = read(path)
    assert 50 <= len(frames) <= 60
    assert [frame.index for frame in frames] == list(range(len(frames)))
    (problem,) = source.problems
    index, given = problem.removeprefix("damaged near frame ").split(": ")
    assert 27 <= int(index) <= 33
    assert given == reason


def lose_transport_packet(path: Path) -> None:
    """Take 188 bytes out of the middle of an MPEG transport stream, as a bad cable does."""
    data = path.read_bytes()
    place = len(data) // 188 // 2 * 188
    path.write_bytes(data[:place] + data[place + 188 :])


def test_lost_transport_packet_is_named(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts", num_frames=60, height=96, width=160, options={"qp": "5"})
    lose_transport_packet(path)
    source, frames = read(path)
    assert len(frames) >= 50
    assert any("the data are incomplete" in problem for problem in source.problems)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"container_options": {"movflags": "faststart"}}),
        ("a.mkv", {}),
        ("late.mkv", {"pts": range(5000, 7400, 40)}),
        ("a.webm", {"codec": "libvpx-vp9"}),
        ("a.avi", {"codec": "mpeg4"}),
    ],
)
def test_missing_end_is_named(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    path = make_video(tmp_path / name, num_frames=60, height=96, width=160, **options)  # type: ignore[arg-type]
    places = packet_places(path)
    path.write_bytes(path.read_bytes()[: places[40][0] + 5])
    source, frames = read(path)
    assert 30 <= len(frames) <= 42
    assert source.problems[-1].startswith(f"stopped after frame {len(frames) - 1} of about 60: ")


def test_all_frames_are_there_whatever_the_duration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container.ContainerSource, "_promised_seconds", lambda source: Fraction(60))
    source, frames = read(make_video(tmp_path / "a.mp4"))
    assert (len(frames), source.problems) == (20, [])


@pytest.mark.parametrize("name", ["late.mkv", "late.webm", "late.mp4"])
def test_late_start_is_no_problem(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    late = range(5000, 5800, 40)
    source, frames = read(make_video(tmp_path / name, codec=codec, pts=late))
    assert (source.info.num_frames, len(frames), source.problems) == (20, 20, [])


def test_trimmed_video_is_no_problem(tmp_path: Path) -> None:
    """A start that an MP4 hides by its edit list is not taken for lost frames."""
    whole = make_video(tmp_path / "whole.mp4", num_frames=60)
    with av.open(str(whole)) as given, av.open(str(tmp_path / "part.mp4"), "w") as written:
        stream = written.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.pts is not None and packet.dts is not None and packet.time_base:
                shift = round(0.8 / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                written.mux(packet)
    source, frames = read(tmp_path / "part.mp4")
    assert (len(frames), source.problems) == (40, [])


def test_problems_are_bounded() -> None:
    source = open_source(moving_blob(1))
    for index in range(100):
        source._note(f"problem {index}")
    assert len(source.problems) == MAX_PROBLEMS + 1
    assert source.problems[-1] == "further problems are not listed"


def test_folders_without_images_say_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(VideoDecodeError, match="no images.*empty"):
        open_source(tmp_path)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(VideoDecodeError, match=r"no images.*clip\.mp4.*/\*'"):
        open_source(tmp_path)


def test_images_of_two_sizes_are_found_before_reading(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "frames")
    write_image(folder / "img4.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputShapeError, match=r"img1\.png' has 48x32.*img4\.png' 30x20"):
        open_source(folder)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "frames", suffix=".jpg")
    data = (folder / "img3.jpg").read_bytes()
    (folder / "img3.jpg").write_bytes(data[: len(data) * 2 // 3])
    with open_source(folder) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with pytest.raises(VideoDecodeError, match=r"img3\.jpg"):
            next(source)
    (folder / "img3.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(VideoDecodeError, match=r"img3\.jpg"):
        open_source(folder)


def test_image_that_changes_its_size_while_it_waits(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "frames")
    with open_source(folder) as source:
        write_image(folder / "img2.png", np.zeros((20, 30, 3), np.uint8))
        next(source)
        with pytest.raises(VideoDecodeError, match=r"img2\.png.*another size"):
            next(source)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8193, 16_384, 50_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_image_bombs_are_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(VideoDecodeError, match=r"bomb\.png.*at most 67108864 pixels"):
        open_source(tmp_path / "bomb.png")


def test_video_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_video(tmp_path / "a.avi", codec="rawvideo", num_frames=2).read_bytes()
    claim = data.replace(struct.pack("<ii", WIDTH, HEIGHT), struct.pack("<ii", 16_384, 16_384))
    assert claim != data
    (tmp_path / "bomb.avi").write_bytes(claim)
    with pytest.raises(VideoDecodeError, match=r"bomb\.avi.*at most 67108864 pixels"):
        open_source(tmp_path / "bomb.avi")
    path = make_video(tmp_path / "a.mp4", num_frames=2)  # here the size is in the H.264 stream itself
    monkeypatch.setattr(container, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(VideoDecodeError, match=r"a\.mp4.*at most 1535 pixels"):
        open_source(path)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        "clip.mp4",
    ],
)
def test_arrays_that_are_no_rgb_pictures(bad: object) -> None:
    with pytest.raises(InputShapeError, match="Frame 0 .*uint8"):
        open_source([bad])  # type: ignore[list-item]
    with open_source([np.zeros((4, 4, 3), np.uint8), bad]) as source:  # type: ignore[list-item]
        next(source)
        with pytest.raises(InputShapeError, match="Frame 1 .*uint8"):
            next(source)


def test_array_of_another_size_is_named() -> None:
    with open_source([np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)]) as source:
        next(source)
        with pytest.raises(InputShapeError, match=r"Frame 1 .*\(6, 4, 3\).*\(4, 6, 3\)"):
            next(source)


def test_no_arrays_at_all() -> None:
    with pytest.raises(VideoDecodeError, match="at least one"):
        open_source([])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_impossible_frame_rates(fps: float) -> None:
    with pytest.raises(InputShapeError, match="frame rate"):
        frame_rate(fps)


# --- time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([7, 47, 87], [0, 40, 80]),
        ([None, None, None], [0, 40, 80]),
        ([0, None, 80], [0, 40, 80]),
        ([0, 40, 40, 80], [0, 40, 41, 80]),
        ([5000, 5040, 0, 40], [0, 40, 80, 120]),
        ([0, 40, 5000], [0, 40, 5000]),
    ],
    ids=["late start", "no stamps", "one missing", "repeated", "clock was reset", "long pause"],
)
def test_clock_makes_time_increase(stamps: list[int | None], expected: list[int]) -> None:
    clock = Clock(Fraction(25), Fraction(1, 1000))
    assert [clock.tick(stamp, None) for stamp in stamps] == expected
    assert (clock.origin, clock.end) == (stamps[0] or 0, expected[-1] + 40)
