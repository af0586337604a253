"""`hd2s.predict` and `hd2s.render` as a caller sees them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

import hd2s
from command import contents
from fake_engine import BrightEngine
from fakes import make_video, moving_blob
from hd2s.data.frames import Frame, FrameSource, evenly_spaced
from hd2s.data.video import open_source
from hd2s.errors import InputNotFoundError, InputShapeError, OutputError, UnknownNameError, VideoDecodeError
from hd2s.inference.engines import BATCH
from hd2s.types import SaliencyFrame, VideoInfo

# Targets without a past wait for their future (twice 15 frames); then there are the queues between the
# threads, the batch that is being filled and the few that are being handed over.
MOST_READ_AHEAD = 2 * 15 + 2 * BATCH + BATCH + 10


def grey(level: int, height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    """A picture whose saliency is level / 255 everywhere, says `BrightEngine`."""
    return np.full((height, width, 3), level, np.uint8)


def levels(frames: Iterator[SaliencyFrame]) -> list[int]:
    """The grey levels that the maps stand for."""
    return [round(255 * float(frame.saliency.mean())) for frame in frames]


def prediction_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("hd2s")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert prediction_threads() == []


class TestPredict:
    def test_of_a_video_file(self, tmp_path: Path) -> None:
        video = make_video(tmp_path / "a.mp4", height=48, width=80, pts=[0, 40, 80, 500], num_frames=4)
        for path in (video, str(video)):
            frames = list(hd2s.predict(path, model=BrightEngine()))
            assert [frame.index for frame in frames] == [0, 1, 2, 3]
            assert [frame.time_seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.5])
            for index, (frame, rgb) in enumerate(zip(frames, moving_blob(4, 48, 80), strict=True)):
                assert (frame.saliency.shape, frame.saliency.dtype) == ((48, 80), np.float32)
                assert 0 <= frame.saliency.min() < frame.saliency.max() <= 1
                wanted = rgb.mean(axis=-1) / 255
                assert np.abs(frame.saliency - wanted).mean() < 0.02, f"frame {index} is not in its place"
                assert frame.conspicuity is None

    @pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 100])
    def test_each_frame_gets_its_own_map(self, count: int) -> None:
        given = [grey(2 * index) for index in range(count)]
        assert levels(hd2s.predict(given, model=BrightEngine())) == [2 * index for index in range(count)]

    def test_other_sizes(self) -> None:
        for height, width in [(1, 1), (1, 200), (31, 47), (300, 20)]:
            (frame,) = hd2s.predict([grey(100, height, width)], model=BrightEngine())
            assert frame.saliency.shape == (height, width)

    def test_conspicuity_maps(self) -> None:
        (frame,) = hd2s.predict([grey(200)], model=BrightEngine(), conspicuity=True)
        assert frame.conspicuity is not None
        assert (frame.conspicuity.shape, frame.conspicuity.dtype) == ((4, 40, 60), np.float32)
        assert frame.conspicuity.mean(axis=(1, 2)) * 255 == pytest.approx([50, 100, 150, 200], abs=0.1)

    def test_frame_rate_of_arrays(self) -> None:
        times = [f.time_seconds for f in hd2s.predict([grey(0)] * 3, model=BrightEngine(), fps=10)]
        assert times == pytest.approx([0, 0.1, 0.2])

    def test_generator_is_read_no_further_than_needed(self) -> None:
        read = 0

        def endless() -> Iterator[NDArray[np.uint8]]:
            nonlocal read
            for index in itertools.count():
                read += 1
                assert read < 1000, "the whole generator is read before the first map"
                yield grey(index % 256)

        maps = hd2s.predict(endless(), model=BrightEngine())
        assert read == 0, "reading begins before the first map is asked for"
        for taken in range(1, 201):
            next(maps)
            assert read <= taken + MOST_READ_AHEAD
        maps.close()  # type: ignore[attr-defined]
        assert prediction_threads() == []

    def test_leaving_the_loop_early_ends_the_threads(self) -> None:
        for frame in hd2s.predict((grey(100) for _ in range(500)), model=BrightEngine()):
            assert prediction_threads() != []
            if frame.index == 3:
                break
        assert prediction_threads() == []

    def test_error_of_the_callers_generator_is_raised_as_it_is(self) -> None:
        def broken() -> Iterator[NDArray[np.uint8]]:
            yield from (grey(9) for _ in range(40))
            raise ZeroDivisionError("the caller's own")

        with pytest.raises(ZeroDivisionError, match="the caller's own"):
            list(hd2s.predict(broken(), model=BrightEngine()))

    def test_frame_that_does_not_fit_is_named(self) -> None:
        with pytest.raises(InputShapeError, match=r"Frame 20 has the shape \(40, 61, 3\)"):
            list(hd2s.predict([grey(0)] * 20 + [grey(0, 40, 61)], model=BrightEngine()))
        with pytest.raises(InputShapeError, match=r"Frame 1 is .* float64; frames must be \(H, W, 3\) uint8"):
            list(hd2s.predict([grey(0), grey(0) / 255], model=BrightEngine()))  # type: ignore[list-item]

    def test_bad_sources(self, tmp_path: Path) -> None:
        with pytest.raises(InputNotFoundError, match=r"gone\.mp4"):
            next(hd2s.predict(tmp_path / "gone.mp4", model=BrightEngine()))
        with pytest.raises(VideoDecodeError, match="iterable of frames is empty"):
            next(hd2s.predict([], model=BrightEngine()))
        with pytest.raises(UnknownNameError, match="Unknown model 'sailency'"):
            next(hd2s.predict([grey(0)], model="sailency"))
        with pytest.raises(UnknownNameError, match="Unknown engine 'onnx'"):
            next(hd2s.predict([grey(0)], engine="onnx"))

    def test_damage_is_a_warning(self, tmp_path: Path) -> None:
        video = cut_video(tmp_path / "clip.mp4")
        with pytest.warns(UserWarning, match="^clip: ") as caught:
            frames = list(hd2s.predict(video, model=BrightEngine()))
        last = str(caught[-1].message)
        assert last.startswith(f"clip: stopped after frame {len(frames) - 1} of about 60")


def cut_video(path: Path) -> Path:
    """Write a video of 60 frames whose data end within the 41st."""
    make_video(path, num_frames=60, height=96, width=160, container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: places[40] + 5])
    return path


class TestRender:
    def test_one_kind_needs_no_list(self, tmp_path: Path) -> None:
        report = hd2s.render([grey(80)], tmp_path, save="csv", model=BrightEngine())
        assert report.results == {"csv": tmp_path / "frames.csv"}
        with pytest.raises(UnknownNameError, match="Unknown kind of result 'movie'"):
            hd2s.render([grey(80)], tmp_path, save="movie", model=BrightEngine())

    def test_report(self, tmp_path: Path) -> None:
        seen: list[VideoInfo] = []
        video = make_video(tmp_path / "a.mp4", num_frames=20)
        report = hd2s.render(
            video, tmp_path / "out", save=["csv", "npz"], model=BrightEngine(), on_frame=seen.append
        )
        out = tmp_path / "out"
        assert report.results == {"csv": out / "a.csv", "npz": out / "a_saliency.npz"}
        assert (report.num_frames, report.problems) == (20, [])
        assert 0 < report.first_map_seconds <= report.seconds
        assert (len(seen), {info.name for info in seen}) == (20, {"a"})
        assert contents(out) == ["a.csv", "a_saliency.npz"]

    def test_of_arrays_and_of_an_open_source(self, tmp_path: Path) -> None:
        hd2s.render([grey(80)] * 3, tmp_path / "arrays", save=["maps"], model=BrightEngine())
        assert contents(tmp_path / "arrays") == [
            "frames_maps",
            *(f"frames_maps/00000{i}.png" for i in range(3)),
        ]
        source = open_source([grey(80)] * 3)
        hd2s.render(source, tmp_path / "source", save=["csv"], model=BrightEngine())
        assert contents(tmp_path / "source") == ["frames.csv"]
        assert list(source) == [], "the source is closed in the end"

    def test_only_missing_results_are_made(self, tmp_path: Path) -> None:
        (tmp_path / "frames.csv").write_text("mine")
        report = hd2s.render([grey(80)] * 3, tmp_path, save=["csv", "npz"], model=BrightEngine())
        assert (report.num_frames, set(report.results)) == (3, {"csv", "npz"})
        assert (tmp_path / "frames.csv").read_text() == "mine"
        again = hd2s.render([grey(80)] * 3, tmp_path, save=["csv", "npz"], model="no model is loaded")
        assert (again.num_frames, again.results) == (0, report.results)
        hd2s.render([grey(80)] * 3, tmp_path, save=["csv"], model=BrightEngine(), overwrite=True)
        assert len((tmp_path / "frames.csv").read_text().splitlines()) == 1 + 3

    def test_conspicuity_is_predicted_only_for_those_who_want_it(self, tmp_path: Path) -> None:
        hd2s.render([grey(80)], tmp_path / "a", save=["npz"], model=BrightEngine())
        hd2s.render([grey(80)], tmp_path / "b", save=["npz", "conspicuity"], model=BrightEngine())
        with np.load(tmp_path / "a" / "frames_saliency.npz") as archive:
            assert "conspicuity" not in archive
        with np.load(tmp_path / "b" / "frames_saliency.npz") as archive:
            assert archive["conspicuity"].shape == (1, 4, 40, 60)

    def test_damage_is_reported_beside_the_results(self, tmp_path: Path) -> None:
        report = hd2s.render(cut_video(tmp_path / "a.mp4"), tmp_path, save=["csv"], model=BrightEngine())
        assert report.problems[-1].startswith(f"stopped after frame {report.num_frames - 1} of about 60")
        assert len((tmp_path / "a.csv").read_text().splitlines()) == 1 + report.num_frames

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
    def test_nothing_is_left_when_it_breaks_off(self, error: type[BaseException], tmp_path: Path) -> None:
        def broken() -> Iterator[NDArray[np.uint8]]:
            yield from (grey(9) for _ in range(60))
            raise error

        kinds = ["csv", "npz", "overlay", "maps"]
        with pytest.raises(error):
            hd2s.render(broken(), tmp_path / "out", save=kinds, model=BrightEngine())
        assert contents(tmp_path / "out") == []

    def test_output_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="Cannot write"):
            hd2s.render([grey(80)], tmp_path / "file" / "out", model=BrightEngine())
        with pytest.raises(UnknownNameError, match="Unknown kind of result 'movie'"):
            hd2s.render([grey(80)], tmp_path / "out", save=["csv", "movie"], model=BrightEngine())
        assert contents(tmp_path) == ["file"]


class Camera(FrameSource):
    """A live source; whoever watches presses Ctrl-C after some frames."""

    time_base = Fraction(1, 25)
    info = VideoInfo(name="camera0", height=40, width=60, fps=1 / time_base, live=True)

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self._num_frames = num_frames

    def _read(self) -> Iterator[Frame]:
        for index in range(self._num_frames):
            picture = av.VideoFrame.from_ndarray(grey(10 + index), format="rgb24")
            yield evenly_spaced(index, picture, self.info.fps)
        raise KeyboardInterrupt


class TestLive:
    def test_interruption_is_the_end_of_a_recording(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            hd2s.render(Camera(7), tmp_path, save=["csv", "npz", "overlay"], model=BrightEngine())
        assert contents(tmp_path) == ["camera0.csv", "camera0_overlay.mp4", "camera0_saliency.npz"]
        with np.load(tmp_path / "camera0_saliency.npz") as archive:
            saliency = archive["saliency"].astype(np.float32)
        assert np.rint(255 * saliency.mean(axis=(1, 2))).tolist() == [10, 11, 12, 13, 14, 15, 16]
        with av.open(str(tmp_path / "camera0_overlay.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 7

    def test_interruption_of_the_callers_own_work(self, tmp_path: Path) -> None:
        seen: list[VideoInfo] = []

        def press_after_five(info: VideoInfo) -> None:
            seen.append(info)
            if len(seen) == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hd2s.render(Camera(500), tmp_path, save=["csv"], model=BrightEngine(), on_frame=press_after_five)
        assert len((tmp_path / "camera0.csv").read_text().splitlines()) == 1 + 5

    def test_interruption_before_the_first_frame_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            hd2s.render(Camera(0), tmp_path, save=["csv", "overlay"], model=BrightEngine())
        assert contents(tmp_path) == []

    def test_maps_come_with_their_frames(self) -> None:
        """Nothing waits for frames to come, neither for a window nor for a batch."""
        predictor = hd2s.Predictor(BrightEngine(), live=True)
        for index in range(40):
            (result,) = predictor.push(grey(index))
            assert (result.index, round(255 * float(result.saliency.mean()))) == (index, index)
        assert list(predictor.flush()) == []
