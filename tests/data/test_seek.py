"""Any frame of a video file is the one that reading in order gives."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import make_audio, make_folder, make_video
from hd2s.data import seek
from hd2s.data.seek import PacketIndex, SeekableVideo
from hd2s.data.video import open_source
from hd2s.errors import InputNotFoundError, VideoDecodeError

OPEN_GOP = {"g": "6", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}
B_FRAMES = {"g": "6", "bf": "2"}
UNEVEN = [0, 10, 35, 80, 120, 121, 200, 300, 310, 330, 400, 410, 450, 451, 452, 500, 600, 700, 701, 720]
LATE = [500 + 40 * index for index in range(20)]

# Name of the file, and how to make it.
KINDS: dict[str, dict[str, object]] = {
    "b_frames.mp4": {"options": B_FRAMES},
    "open_gop.mp4": {"options": OPEN_GOP},
    "open_gop.mkv": {"options": OPEN_GOP},
    "open_gop.ts": {"options": OPEN_GOP},
    "untimed.avi": {"options": B_FRAMES},
    "mpeg4.avi": {"codec": "mpeg4", "options": B_FRAMES},
    "mpeg4.mp4": {"codec": "mpeg4", "options": B_FRAMES},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": B_FRAMES},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "8", "auto-alt-ref": "1", "lag-in-frames": "10"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "6"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "uneven.mp4": {"pts": UNEVEN, "options": B_FRAMES},
    "late.mp4": {"pts": LATE, "options": B_FRAMES},
    "late.mkv": {"pts": LATE, "options": B_FRAMES},
    "one_key_frame.mp4": {"options": {"g": "100"}},
    "raw.h264": {"options": {"g": "6", "bf": "0"}},
    "rotated.mp4": {"rotation": 90, "options": B_FRAMES},
}


@pytest.fixture(autouse=True)
def _no_open_files() -> Iterator[None]:
    """Begin and end without decoders of other tests."""
    seek._local.__dict__.clear()
    yield
    seek._local.__dict__.clear()


def in_order(path: Path) -> list[NDArray[np.uint8]]:
    with open_source(path) as source:
        return [frame.rgb() for frame in source]


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_reading_in_order(tmp_path: Path, name: str) -> None:
    expected = in_order(make_video(tmp_path / name, **KINDS[name]))  # type: ignore[arg-type]
    assert len({frame.tobytes() for frame in expected}) == 20, "frames must differ to tell them apart"
    video = SeekableVideo(tmp_path / name)
    assert len(video) == 20
    assert (video.info.height, video.info.width) == expected[0].shape[:2]
    order = [19, 0, 7, 6, 6, 5, 13, 12, 18, 1, 2]
    for index in order + random.Random(1).choices(range(20), k=20):
        np.testing.assert_array_equal(video.frames([index])[0], expected[index], f"frame {index}")
    np.testing.assert_array_equal(video.frames(order), [expected[index] for index in order])
    np.testing.assert_array_equal(SeekableVideo(tmp_path / name).frames(range(20)), expected)


def test_frames_that_an_edit_list_cuts_off_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    source = make_video(tmp_path / "whole.mp4", options=B_FRAMES)
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as whole, av.open(str(path), "w", options=options) as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                eight_frames = int(8 / (25 * packet.time_base))
                packet.pts, packet.dts = packet.pts - eight_frames, packet.dts - eight_frames
                packet.stream = stream
                part.mux(packet)
    expected = in_order(path)
    video = SeekableVideo(path)
    assert len(video) == len(expected) == 12
    for index in (11, 0, 5, 1, 6, 3):
        np.testing.assert_array_equal(video.frames([index])[0], expected[index], f"frame {index}")


def test_packets_that_say_as_before_make_no_frame(tmp_path: Path) -> None:
    path, options = tmp_path / "gaps.avi", {"g": "12", "bf": "0"}
    source = make_video(tmp_path / "whole.avi", codec="mpeg4", options=options)
    with av.open(str(source)) as whole, av.open(str(path), "w") as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        for index, packet in enumerate(whole.demux(video=0)):
            if packet.pts is None:
                continue
            if index in (5, 6):  # a P-frame of ISO 14496-2, of which no more is coded than its time
                bits = f"0101{index:05b}10" + "0" + "1111"
                empty = av.Packet(b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big"))
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                packet = empty
            packet.stream = stream
            part.mux(packet)
    expected = in_order(path)
    assert len(SeekableVideo(path)) == len(expected) == 18
    np.testing.assert_array_equal(SeekableVideo(path).frames([14, 5, 4]), [expected[i] for i in (14, 5, 4)])


def test_frames_of_vp8_for_reference_only_are_not_shown() -> None:
    """By RFC 6386, 9.1; the encoder would make them in a second pass only."""
    assert [seek._has_frame(av.Packet(bytes([first, 0])), "vp8") for first in (0x10, 0x31, 0x01)] == [  # type: ignore[arg-type]
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.ts"])
def test_seeking_that_leads_astray_is_noticed(tmp_path: Path, name: str) -> None:
    expected = in_order(make_video(tmp_path / name, **KINDS[name]))  # type: ignore[arg-type]
    video = SeekableVideo(tmp_path / name)
    wrong = replace(video.index, key_times=video.index.key_times[1:] + video.index.key_times[-1:])
    video.__dict__["index"] = wrong
    for index in (19, 8, 9, 3, 13, 0):
        np.testing.assert_array_equal(video.frames([index])[0], expected[index], f"frame {index}")


def test_key_frames_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = SeekableVideo(make_video(tmp_path / "long.mp4", num_frames=60, options={"g": "10", "bf": "0"}))
    decoded: list[int] = []
    original = seek._decoded

    def counting(stream: object, packet: object) -> list[av.VideoFrame]:
        pictures = original(stream, packet)  # type: ignore[arg-type]
        decoded.extend([1] * len(pictures))
        return pictures

    monkeypatch.setattr(seek, "_decoded", counting)
    video.frames([43])
    assert 4 <= len(decoded) <= 10, "only from the key frame 40 on, and what threads are ahead"
    decoded.clear()
    for index in (44, 45, 46, 46):
        video.frames([index])
    assert len(decoded) <= 3, "going on needs no seeking"
    decoded.clear()
    for index in range(60):
        video.frames([index])
    assert len(decoded) <= 60 + 10, "reading in order decodes nothing twice"


def test_counting_packets_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "clip.mp4", options=OPEN_GOP)
    monkeypatch.setattr(seek, "_decoded", lambda *arguments: pytest.fail("decoded"))
    index = PacketIndex.of(path)
    assert (len(index.stamps), index.timed) == (20, True)
    assert len(index.keys) >= 3


def test_frames_outside_are_refused(tmp_path: Path) -> None:
    video = SeekableVideo(make_video(tmp_path / "clip.mp4", num_frames=3))
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"3 frames: there is no frame {index}"):
            video.frames([0, index])


def test_files_that_are_no_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="gone"):
        len(SeekableVideo(tmp_path / "gone.mp4"))
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoDecodeError, match="text"):
        len(SeekableVideo(tmp_path / "text.mp4"))


def test_what_cannot_be_sought_in_is_read_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = in_order(make_video(tmp_path / "clip.mp4", options=B_FRAMES))
    monkeypatch.setattr(seek._Decoder, "_packet_at", lambda *arguments: None)
    video = SeekableVideo(tmp_path / "clip.mp4")
    for index in (19, 8, 9, 3):
        np.testing.assert_array_equal(video.frames([index])[0], expected[index], f"frame {index}")


def test_a_song_is_no_video(tmp_path: Path) -> None:
    make_audio(tmp_path / "song.m4a")
    with pytest.raises(VideoDecodeError, match="no video stream"):
        SeekableVideo(tmp_path / "song.m4a").frames([0])


def test_damage_is_named_by_frame(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", num_frames=12, options={"g": "20", "bf": "0"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        packet = packets[5]
        assert packet.pos is not None
        data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    path.write_bytes(data)
    video = SeekableVideo(path)
    (after,) = video.frames([6])
    seek._local.__dict__.clear()
    assert len(video.frames([4])) == 1
    with pytest.raises(VideoDecodeError, match=r"Frame 5 of .*clip\.mp4.* cannot be decoded"):
        video.frames([5])
    np.testing.assert_array_equal(video.frames([6])[0], after)
    assert len(video.frames([4, 6])) == 2


def test_a_video_travels_to_workers(tmp_path: Path) -> None:
    video = SeekableVideo(make_video(tmp_path / "clip.mp4", options=B_FRAMES))
    expected = video.frames([13])[0]
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.frames([13])[0], expected)


def test_a_forked_process_has_its_own_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = SeekableVideo(make_video(tmp_path / "clip.mp4", options=B_FRAMES))
    video.frames([3])
    (parents,) = seek._decoders().values()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert not seek._decoders()
    video.frames([4])
    (own,) = seek._decoders().values()
    assert own is not parents
    assert parents._next == 4, "not touched"


FORKING = """
import gc, os, sys
from pathlib import Path
from hd2s.data import seek

video = seek.SeekableVideo(Path(sys.argv[1]))
gc.disable()  # so that the decoders that are no longer needed are left to the child
for index in (3, 12, 17):
    expected = video.frames([index])[0]
    seek._forget(video)
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0 if (video.frames([17])[0] == expected).all() else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_can_clear_up_after_its_parent(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", options=B_FRAMES)
    process = subprocess.Popen([sys.executable, "-c", FORKING, str(path)], start_new_session=True)
    try:
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seek, "MAX_OPEN", 2)
    videos = [SeekableVideo(make_video(tmp_path / f"{n}.mp4", num_frames=3)) for n in range(4)]
    for video in (*videos, videos[2]):
        video.frames([1])
    assert [Path(path).stem for path in seek._decoders()] == ["3", "2"]


def test_folders_are_no_videos(tmp_path: Path) -> None:
    with pytest.raises(VideoDecodeError):
        SeekableVideo(make_folder(tmp_path / "frames")).frames([0])
