"""Each kind of result is read back; whatever goes wrong, nothing unfinished stays behind."""

from __future__ import annotations

import csv
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import file_size_limit, make_video, moving_blob
from hd2s.data.video import FrameSource, open_source
from hd2s.errors import InputShapeError, OutputError, UnknownNameError
from hd2s.inference.predictor import Prediction, Slot
from hd2s.inference.writers import SAVE_KINDS, Style, Writer, open_writer, result_path


def blob(height: int, width: int, index: int = 0) -> NDArray[np.float32]:
    """Return a map that is hot near the upper left corner and zero in the lower right quarter."""
    rows, columns = np.mgrid[:height, :width]
    distance = ((rows - height / 4) ** 2 + (columns - width / 4 - index) ** 2) / (height / 12) ** 2
    saliency = 0.8 * np.exp(-distance / 2)
    saliency[height // 2 :, width // 2 :] = 0
    return saliency.astype(np.float32)


def save(
    kind: str,
    source: FrameSource,
    out: Path,
    *,
    style: Style | None = None,
    conspicuity: bool | None = None,
    saliency: Callable[[int, int, int], NDArray[np.float32]] = blob,
    after_each: Callable[[Writer], None] = lambda writer: None,
) -> Writer:
    """Write all frames of a source with `saliency(height, width, index)` for maps."""
    conspicuity = kind == "conspicuity" if conspicuity is None else conspicuity
    with source, open_writer(kind, source, out, style=style) as writer:
        for frame in source:
            values = saliency(source.info.height, source.info.width, frame.index)
            levels = np.stack([values * factor for factor in (0.2, 0.4, 0.6, 0.8)]) if conspicuity else None
            slot = Slot(frame.index, frame.time_seconds, values.shape)
            writer.write(frame, Prediction(slot, values, levels))
            after_each(writer)
    return writer


def arrays(num_frames: int = 6, height: int = 32, width: int = 48, fps: float = 25.0) -> FrameSource:
    return open_source(moving_blob(num_frames, height, width), fps=fps)


def decode(path: Path, pixel_format: str = "rgb24") -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [picture.to_ndarray(format=pixel_format) for picture in container.decode(video=0)]


def times(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [picture.time for picture in container.decode(video=0)]


def sound(path: Path) -> tuple[str, list[tuple[float, bytes]]]:
    """Return the codec and the packets (start in seconds, content) of the first audio stream."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        contents = [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]
        return stream.codec_context.codec.canonical_name, contents


class TestAllKinds:
    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_only_the_final_name_remains(self, kind: str, tmp_path: Path) -> None:
        out = tmp_path / "new" / "out"
        writer = save(kind, arrays(), out)
        assert list(out.iterdir()) == [writer.path] == [result_path(kind, "frames", out)]
        assert writer.num_frames == 6
        assert writer.problems == []

    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_nothing_has_the_final_name_before_the_end(self, kind: str, tmp_path: Path) -> None:
        seen: list[bool] = []
        writer = save(kind, arrays(3), tmp_path, after_each=lambda writer: seen.append(writer.path.exists()))
        assert seen == [False] * 3
        assert writer.path.exists()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, ValueError])
    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_an_interruption_leaves_what_was_there(
        self, kind: str, error: type[BaseException], tmp_path: Path
    ) -> None:
        def interrupt(writer: Writer) -> None:
            if writer.num_frames == 4:
                raise error

        path = save(kind, arrays(2), tmp_path).path
        before = path.stat()
        with pytest.raises(error):
            save(kind, arrays(), tmp_path, after_each=interrupt)
        assert list(tmp_path.iterdir()) == [path]
        assert path.stat() == before

    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_without_frames_there_is_no_result(self, kind: str, tmp_path: Path) -> None:
        with open_writer(kind, arrays(), tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("num_bytes", [16, 250])
    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_full_disk(self, kind: str, num_bytes: int, tmp_path: Path) -> None:
        rng = np.random.default_rng(3)

        def noise(height: int, width: int, index: int) -> NDArray[np.float32]:
            return rng.random((height, width), dtype=np.float32)

        message = rf"Cannot write '{tmp_path}/frames.*': File too large\. \S"
        with pytest.raises(OutputError, match=message), file_size_limit(num_bytes):
            save(kind, arrays(20), tmp_path, saliency=noise)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", SAVE_KINDS)
    def test_folder_below_a_file(self, kind: str, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(OutputError, match=r"Cannot write '.*file/out/frames.*': Not a directory"):
            save(kind, arrays(), tmp_path / "file" / "out")

    def test_a_result_replaces_an_older_one(self, tmp_path: Path) -> None:
        for kind in ("csv", "maps"):
            save(kind, arrays(9), tmp_path)
            save(kind, arrays(3), tmp_path)
        assert len((tmp_path / "frames.csv").read_text().splitlines()) == 4
        assert len(list((tmp_path / "frames_maps").iterdir())) == 3
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_file_where_a_folder_should_go(self, tmp_path: Path) -> None:
        (tmp_path / "frames_maps").write_text("precious")
        with pytest.raises(OutputError, match=r"frames_maps'"):
            save("maps", arrays(), tmp_path)
        assert (tmp_path / "frames_maps").read_text() == "precious"

    def test_unknown_kind(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match=r"kind of result 'overlai'.*'overlay'.*conspicuity, csv"):
            open_writer("overlai", arrays(), tmp_path)

    def test_style_is_checked(self) -> None:
        with pytest.raises(UnknownNameError, match=r"colormap 'rainbow'.*jet"):
            Style(colormap="rainbow")
        with pytest.raises(UnknownNameError, match=r"bits '12'.*16, 8"):
            Style(map_bits=12)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
            Style(alpha=1.5)


class TestOverlay:
    def test_blends_only_where_it_is_hot(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "clip.mp4", height=96, width=128, num_frames=8)
        original = decode(path)
        overlay = decode(save("overlay", open_source(path), tmp_path / "out").path)
        assert len(overlay) == len(original)
        for before, after in zip(original, overlay, strict=True):
            assert after.shape == before.shape
            difference = np.abs(after.astype(int) - before)
            assert difference[56:, 72:].mean() < 3
            assert difference[24, 32].max() > 40

    def test_hot_is_red_and_not_blue(self, tmp_path: Path) -> None:
        picture = decode(save("overlay", arrays(1, 96, 128), tmp_path).path)[0]
        red, green, blue = picture[24, 32].astype(int)
        assert red > green + 40
        assert red > blue + 20

    def test_alpha_0_shows_the_source(self, tmp_path: Path) -> None:
        overlay = decode(save("overlay", arrays(3, 64, 96), tmp_path, style=Style(alpha=0)).path)
        for shown, frame in zip(overlay, moving_blob(3, 64, 96), strict=True):
            assert np.abs(shown.astype(int) - frame).mean() < 4

    def test_variable_frame_rate_keeps_its_times(self, tmp_path: Path) -> None:
        stamps = [0, 40, 50, 200, 210, 600, 1000]
        path = make_video(tmp_path / "clip.mkv", num_frames=7, pts=stamps)
        overlay = save("overlay", open_source(path), tmp_path).path
        assert times(overlay) == pytest.approx([stamp / 1000 for stamp in stamps], abs=0.0006)

    @pytest.mark.parametrize(("fps", "expected"), [(25, 25), (29.97, Fraction(30_000, 1001))])
    def test_constant_frame_rate(self, fps: float, expected: Fraction, tmp_path: Path) -> None:
        overlay = save("overlay", arrays(8, fps=fps), tmp_path).path
        with av.open(str(overlay)) as container:
            assert container.streams.video[0].average_rate == expected
            assert container.duration == pytest.approx(8e6 / fps, abs=1000)

    @pytest.mark.parametrize(("height", "width"), [(33, 47), (1, 1), (270, 480)])
    def test_odd_sizes_are_padded(self, height: int, width: int, tmp_path: Path) -> None:
        shown = decode(save("overlay", arrays(2, height, width), tmp_path).path)[0]
        assert shown.shape == (height + height % 2, width + width % 2, 3)

    @pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv444p", "gray"])
    def test_other_pixel_formats(self, pixel_format: str, tmp_path: Path) -> None:
        path = make_video(tmp_path / "clip.mkv", codec="ffv1", pix_fmt=pixel_format, num_frames=2)
        original = decode(path)[0].astype(int)
        shown = decode(save("overlay", open_source(path), tmp_path).path)[0]
        assert np.abs(shown[16:, 28:] - original[16:, 28:]).mean() < 5

    def test_colour_tags_are_those_of_the_source(self, tmp_path: Path) -> None:
        tags = {"colorprim": "bt709", "transfer": "bt709", "colormatrix": "bt709", "fullrange": "on"}
        options = {"x264-params": ":".join(f"{key}={tag}" for key, tag in tags.items())}
        path = make_video(tmp_path / "clip.mp4", num_frames=2, options=options)
        with av.open(str(save("overlay", open_source(path), tmp_path).path)) as container:
            picture = next(container.decode(video=0))
        seen = (picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc)
        assert seen == (1, 2, 1, 1)


class TestSound:
    @pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
    def test_is_copied_bit_by_bit(self, name: str, tmp_path: Path) -> None:
        path = make_video(tmp_path / name, audio=True, num_frames=50)
        writer = save("overlay", open_source(path), tmp_path / "out")
        assert writer.problems == []
        codec, packets = sound(writer.path)
        expected_codec, expected = sound(path)
        assert codec == expected_codec == "aac"
        assert [content for _, content in packets] == [content for _, content in expected][: len(packets)]
        assert packets[-1][0] + 0.2 > expected[-1][0]
        assert packets[0][0] == pytest.approx(expected[0][0], abs=0.002)

    def test_opus_is_copied(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "clip.webm", codec="libvpx-vp9", height=64, width=64, audio=True)
        codec, packets = sound(save("overlay", open_source(path), tmp_path).path)
        assert codec == "opus"
        assert packets[5][1] == sound(path)[1][5][1]

    def test_of_a_transport_stream_starts_with_the_pictures(self, tmp_path: Path) -> None:
        offset = {"output_ts_offset": "5"}
        path = make_video(tmp_path / "clip.ts", audio=True, num_frames=50, container_options=offset)
        with av.open(str(path)) as container:
            assert container.start_time > 1_000_000  # else this tests nothing
        overlay = save("overlay", open_source(path), tmp_path).path
        assert times(overlay)[0] == pytest.approx(0, abs=0.002)
        codec, packets = sound(overlay)
        assert codec == "aac"
        assert packets[0][0] == pytest.approx(0, abs=0.1)
        assert packets[-1][0] == pytest.approx(1.95, abs=0.1)

    def test_that_mp4_cannot_hold_is_encoded(self, tmp_path: Path) -> None:
        source = arrays(25)
        source.audio = str(tone(tmp_path / "tone.wav", seconds=1))
        writer = save("overlay", source, tmp_path)
        assert writer.problems == []
        codec, packets = sound(writer.path)
        assert codec == "aac"
        assert packets[-1][0] == pytest.approx(0.95, abs=0.06)
        with av.open(str(writer.path)) as container:
            loudness = [np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)]
        assert max(loudness) == pytest.approx(0.5, abs=0.1)

    def test_ends_with_the_pictures(self, tmp_path: Path) -> None:
        source = arrays(10)
        source.audio = str(tone(tmp_path / "tone.wav", seconds=3))
        with av.open(str(save("overlay", source, tmp_path).path)) as container:
            assert container.duration == pytest.approx(0.4e6, abs=0.06e6)

    @pytest.mark.parametrize("content", [None, b"", b"no sound" * 50])
    def test_that_cannot_be_read_is_left_out(self, content: bytes | None, tmp_path: Path) -> None:
        source = arrays()
        path = tmp_path / "tone.wav"
        source.audio = str(path)
        if content is not None:
            path.write_bytes(content)
        writer = save("overlay", source, tmp_path / "out")
        assert len(decode(writer.path)) == 6
        assert len(writer.problems) == 1
        assert str(path) in writer.problems[0]

    def test_only_the_overlay_has_it(self, tmp_path: Path) -> None:
        path = make_video(tmp_path / "clip.mp4", audio=True)
        with av.open(str(save("video", open_source(path), tmp_path).path)) as container:
            assert not container.streams.audio


def tone(path: Path, *, seconds: float) -> Path:
    """Write a 48 kHz stereo PCM file with a tone of amplitude 0.5."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="stereo")
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 48_000)) / 48_000)
        samples = np.rint(32767 * wave).astype(np.int16).repeat(2)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class TestSaliencyVideo:
    @pytest.mark.parametrize("pixel_format", ["gray", "rgb24"])
    def test_levels_survive(self, pixel_format: str, tmp_path: Path) -> None:
        path = save("video", arrays(12, 96, 128), tmp_path).path
        for index, picture in enumerate(decode(path, pixel_format)):
            level = np.rint(255 * blob(96, 128, index))
            seen = picture if pixel_format == "gray" else picture.mean(axis=2)
            assert np.abs(seen - level).max() <= 3
            assert np.abs(seen - level).mean() < 0.5

    def test_times_are_those_of_the_source(self, tmp_path: Path) -> None:
        source = open_source(make_video(tmp_path / "clip.mkv", num_frames=3, pts=[0, 100, 130]))
        assert times(save("video", source, tmp_path).path) == pytest.approx([0, 0.1, 0.13])


class TestMaps:
    @pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
    def test_levels_are_exact(self, bits: int, dtype: type, tmp_path: Path) -> None:
        style = Style(map_bits=bits)  # type: ignore[arg-type]
        folder = save("maps", arrays(12), tmp_path, style=style).path
        assert sorted(path.name for path in folder.iterdir()) == [f"{index:06d}.png" for index in range(12)]
        for index in (0, 11):
            seen = cv2.imread(str(folder / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
            assert seen.dtype == dtype
            np.testing.assert_array_equal(seen, np.rint(blob(32, 48, index) * np.float32(2**bits - 1)))


class TestNpz:
    @pytest.mark.parametrize("conspicuity", [False, True])
    def test_arrays(self, conspicuity: bool, tmp_path: Path) -> None:
        with np.load(save("npz", arrays(7), tmp_path, conspicuity=conspicuity).path) as archive:
            assert set(archive) == {"saliency", "time_seconds"} | ({"conspicuity"} if conspicuity else set())
            expected = np.stack([blob(32, 48, index) for index in range(7)]).astype(np.float16)
            np.testing.assert_array_equal(archive["saliency"], expected)
            np.testing.assert_allclose(archive["time_seconds"], np.arange(7) / 25)
            if conspicuity:
                assert archive["conspicuity"].dtype == np.float16
                assert archive["conspicuity"].shape == (7, 4, 32, 48)
                np.testing.assert_allclose(archive["conspicuity"][3, 1], expected[3] * 0.4, atol=1e-3)

    def test_frames_of_one_size(self, tmp_path: Path) -> None:
        def growing(height: int, width: int, index: int) -> NDArray[np.float32]:
            return np.zeros((height + index, width), np.float32)

        with pytest.raises(InputShapeError, match=r"\(32, 48\) arrays, got \(33, 48\)"):
            save("npz", arrays(2), tmp_path, saliency=growing)
        assert list(tmp_path.iterdir()) == []


class TestGif:
    def test_is_small_slow_and_endless(self, tmp_path: Path) -> None:
        path = save("gif", arrays(10, 100, 1000), tmp_path).path
        assert times(path) == pytest.approx([0, 0.08, 0.16, 0.24, 0.32])
        picture = decode(path)[0]
        assert picture.shape == (48, 480, 3)
        assert b"NETSCAPE2.0\x03\x01\x00\x00" in path.read_bytes()  # 0 repeats for ever

    def test_low_frame_rates_keep_all_frames(self, tmp_path: Path) -> None:
        assert times(save("gif", arrays(4, fps=10), tmp_path).path) == pytest.approx([0, 0.1, 0.2, 0.3])

    @pytest.mark.parametrize("height", [64, 70])  # 70 is no multiple of 4
    def test_colours(self, height: int, tmp_path: Path) -> None:
        style = Style(alpha=0)
        pictures = decode(save("gif", arrays(3, height, 96, fps=10), tmp_path, style=style).path)
        for shown, frame in zip(pictures, moving_blob(3, height, 96), strict=True):
            assert np.abs(shown.astype(int) - frame).mean() < 6


class TestCsv:
    def test_rows(self, tmp_path: Path) -> None:
        source = open_source(make_video(tmp_path / "clip.mkv", num_frames=3, pts=[0, 100, 130]))
        with save("csv", source, tmp_path).path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == [
            "index",
            "time_seconds",
            "peak_x",
            "peak_y",
            "peak_value",
            "center_x",
            "center_y",
            "entropy_bits",
            "half_mass_area",
        ]
        assert [row["index"] for row in rows] == ["0", "1", "2"]
        assert [float(row["time_seconds"]) for row in rows] == pytest.approx([0, 0.1, 0.13])
        assert [(row["peak_x"], row["peak_y"]) for row in rows] == [("12", "8"), ("13", "8"), ("14", "8")]
        assert float(rows[0]["peak_value"]) == pytest.approx(0.8)

    def test_empty_map_has_empty_cells(self, tmp_path: Path) -> None:
        writer = save("csv", arrays(1), tmp_path, saliency=lambda *_: np.zeros((32, 48), np.float32))
        assert writer.path.read_text().splitlines()[1] == "0,0.000000,0,0,0.000000,,,,"


class TestConspicuity:
    def test_four_labelled_cells_of_the_source_size(self, tmp_path: Path) -> None:
        shown = decode(save("conspicuity", arrays(2, 96, 128), tmp_path).path)[0].astype(int)
        assert shown.shape == (96, 128, 3)
        cells = [shown[row : row + 48, column : column + 64] for row in (0, 48) for column in (0, 64)]
        for cell in cells:
            assert cell[12, 16, 0] > 60  # each level's peak is hot, however low it is
            assert cell[40, 56].max() < 90  # and the dark end of turbo elsewhere

    def test_needs_the_maps(self, tmp_path: Path) -> None:
        with pytest.raises(InputShapeError, match="no conspicuity maps"):
            save("conspicuity", arrays(1), tmp_path, conspicuity=False)
        assert list(tmp_path.iterdir()) == []
