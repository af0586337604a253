"""Pictures, heat maps and statistics against values worked out by hand or in floating point."""

from __future__ import annotations

import math

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hd2s.errors import UnknownNameError
from hd2s.inference.pictures import ColorTags, from_i420, pad_to_even, planes, quantize, to_i420
from hd2s.inference.predictor import resized
from hd2s.inference.render import (
    COLORMAPS,
    DisplayScale,
    blend,
    colormap_yuv,
    heat_tables,
    label_mosaic,
    mosaic,
    paint,
)
from hd2s.inference.statistics import frame_statistics

BT601, BT709 = ColorTags(space=6), ColorTags(space=1)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (height, width), dtype=np.uint8)


def flat(rgb: tuple[int, int, int], height: int = 32, width: int = 48) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((height, width, 3), rgb, np.uint8), format="rgb24")


def to_rgb(i420: NDArray[np.uint8], tags: ColorTags) -> NDArray[np.uint8]:
    return from_i420(i420, tags).to_ndarray(format="rgb24")


class TestPictures:
    # 34 is no multiple of 4: its chroma planes have an odd height.
    @pytest.mark.parametrize("size", [(32, 48), (34, 50), (2, 2)])
    def test_round_trip_changes_nothing(self, size: tuple[int, int]) -> None:
        original = noise(size[0] * 3 // 2, size[1])
        tags = ColorTags(space=9, range=2, primaries=9, trc=16)
        copy, seen = to_i420(from_i420(original, tags))
        np.testing.assert_array_equal(copy, original)
        assert seen == tags

    def test_odd_size_repeats_the_last_row_and_column(self) -> None:
        picture = av.VideoFrame(33, 31, "yuv420p")
        luma = noise(31, 33)
        for plane in picture.planes:
            rows = np.full((plane.height, plane.line_size), 77, np.uint8)
            if plane is picture.planes[0] or plane.height == 31:
                rows[:, :33] = luma
            plane.update(rows.tobytes())
        i420, _ = to_i420(picture)
        assert i420.shape == (48, 34)
        np.testing.assert_array_equal(planes(i420)[0], np.pad(luma, ((0, 1), (0, 1)), mode="edge"))
        assert (planes(i420)[1] == 77).all()

    def test_bottom_up_picture_is_read_top_down(self) -> None:
        original = noise(48, 48)
        graph = av.filter.Graph()
        source = graph.add_buffer(width=48, height=32, format=av.VideoFormat("yuv420p"), time_base=1)
        flip, sink = graph.add("vflip"), graph.add("buffersink")
        graph.link_nodes(source, flip, sink).configure()
        graph.vpush(from_i420(original, ColorTags()))
        flipped, _ = to_i420(graph.vpull())
        for plane, expected in zip(planes(flipped), planes(original), strict=True):
            np.testing.assert_array_equal(plane, expected[::-1])

    @pytest.mark.parametrize(
        "pixel_format", ["rgb24", "bgra", "gbrp", "yuv444p", "yuv422p", "yuv420p10le", "yuva420p", "nv12"]
    )
    def test_any_pixel_format_keeps_its_colour(self, pixel_format: str) -> None:
        i420, tags = to_i420(flat((200, 80, 40)).reformat(format=pixel_format))
        np.testing.assert_allclose(to_rgb(i420, tags)[8, 8], (200, 80, 40), atol=4)
        assert tags.range == 1

    def test_grey_picture_becomes_limited_range(self) -> None:
        grey = av.VideoFrame.from_ndarray(np.full((32, 48), 255, np.uint8), format="gray")
        luma, blue, red = planes(to_i420(grey)[0])
        assert (luma[0, 0], blue[0, 0], red[0, 0]) == (235, 128, 128)

    def test_full_range_stays_full_range(self) -> None:
        i420, tags = to_i420(flat((255, 255, 255)).reformat(format="yuvj420p"))
        assert tags.range == 2
        assert planes(i420)[0][0, 0] == 255

    def test_scaling(self) -> None:
        assert to_i420(flat((9, 9, 9)), width=20, height=10)[0].shape == (15, 20)

    def test_quantize_rounds_and_saturates(self) -> None:
        saliency = np.array([[0, 0.5, 1, 1.2]], np.float32)
        np.testing.assert_array_equal(quantize(saliency, 219, 16), [[16, 126, 235, 255]])

    def test_pad_to_even_leaves_even_arrays_alone(self) -> None:
        array = noise(4, 6)
        assert pad_to_even(array) is array
        assert pad_to_even(noise(3, 5)).shape == (4, 6)


class TestColours:
    # Hand-worked from ITU-T H.273: white, and pure red as in the BT.601 and BT.709 colour bars.
    @pytest.mark.parametrize(
        ("tags", "height", "expected"),
        [
            (BT601, 1080, (81.5, 90.2, 240)),
            (BT709, 32, (62.6, 102.3, 240)),
            (ColorTags(space=6, range=2), 32, (76.2, 85, 255)),
            (ColorTags(), 719, (81.5, 90.2, 240)),
            (ColorTags(), 720, (62.6, 102.3, 240)),
        ],
    )
    def test_red_in_each_coding(
        self, tags: ColorTags, height: int, expected: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        red = np.zeros((256, 1, 3), np.uint8)
        red[..., 2] = 255
        monkeypatch.setattr(cv2, "applyColorMap", lambda *_: red)
        np.testing.assert_allclose(colormap_yuv("jet", height, tags)[:, 0], expected, atol=0.3)

    @pytest.mark.parametrize("name", COLORMAPS)
    def test_painted_colours_are_those_of_opencv(self, name: str) -> None:
        heat = np.repeat(np.arange(256, dtype=np.uint8), 4)[None].repeat(8, axis=0)
        painted = to_rgb(paint(heat, colormap_yuv(name, 8, BT709)), BT709)[4, ::4]
        expected = cv2.applyColorMap(np.arange(256, dtype=np.uint8), COLORMAPS[name]).reshape(256, 3)
        assert np.abs(painted.astype(int) - expected[:, ::-1]).mean() < 3

    def test_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(UnknownNameError, match=r"colormap 'inferna'.*'inferno'.*turbo, viridis"):
            colormap_yuv("inferna", 32, ColorTags())


class TestBlend:
    def test_without_heat_nothing_changes(self) -> None:
        i420 = noise(48, 48)
        blended = i420.copy()
        # 4 % of the full heat is still clear.
        blend(blended, np.full((32, 48), 10, np.uint8), heat_tables(colormap_yuv("turbo", 32, BT709), 1))
        np.testing.assert_array_equal(blended, i420)

    @pytest.mark.parametrize(("heat", "opacity"), [(255, 0.6), (128, 0.6), (56, 0.3)])
    def test_equals_blending_in_rgb(self, heat: int, opacity: float) -> None:
        picture, tags = to_i420(flat((120, 140, 100)))
        blend(picture, np.full((32, 48), heat, np.uint8), heat_tables(colormap_yuv("turbo", 32, tags), 0.6))
        table = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO).reshape(256, 3)
        expected = (1 - opacity) * np.array([120, 140, 100]) + opacity * table[heat, ::-1]
        np.testing.assert_allclose(to_rgb(picture, tags)[8, 8], expected, atol=4)

    @pytest.mark.parametrize("size", [1.0, 0.5, 2.0])
    def test_heat_lies_where_the_map_is_hot(self, size: float) -> None:
        picture, tags = to_i420(flat((100, 100, 100)))
        before = picture.copy()
        heat = np.zeros((round(32 * size), round(48 * size)), np.uint8)
        heat[round(4 * size) : round(12 * size), round(30 * size) : round(40 * size)] = 255
        blend(picture, heat, heat_tables(colormap_yuv("hot", 32, tags), 1))
        spread = 1 if size < 1 else 0  # pixels that a coarse map reaches beyond
        for plane, untouched, scale in zip(planes(picture), planes(before), (1, 2, 2), strict=True):
            changed = plane != untouched
            assert not changed[12 // scale + spread :].any()
            assert not changed[:, : 30 // scale - spread].any()
        middle = planes(picture)[0][4 + spread : 12 - spread, 30 + spread : 40 - spread]
        assert (middle == 235).all()  # hot ends in white

    @pytest.mark.parametrize("map_hw", [(12, 20), (24, 32), (31, 47), (192, 320)])
    @pytest.mark.parametrize("at", [(0.3, 0.6), (0.0, 1.0)])
    def test_a_hot_spot_is_resized_as_the_whole_map_would_be(
        self, map_hw: tuple[int, int], at: tuple[float, float]
    ) -> None:
        y, x = np.mgrid[: map_hw[0], : map_hw[1]]
        distance = np.hypot(y / map_hw[0] - at[0], x / map_hw[1] - at[1])
        heat = np.rint(255 * np.exp(-(distance**2) / 0.02)).astype(np.uint8)
        tables = heat_tables(colormap_yuv("hot", 90, BT709), 0.8)
        picture = noise(135, 160)  # I420 of 90 x 160
        expected = picture.copy()
        blend(picture, heat, tables)
        for plane, wanted, part in zip(planes(picture), planes(expected), tables[1:], strict=True):
            keep, added = (
                resized(table[heat], plane.shape).astype(np.float64) for table in (tables.keep, part)
            )
            np.testing.assert_allclose(plane, (wanted * keep / 255 + added).clip(0, 255), atol=1)

    def test_odd_map_on_a_padded_picture(self) -> None:
        picture, tags = to_i420(flat((100, 100, 100), 31, 47))
        blend(picture, np.full((31, 47), 255, np.uint8), heat_tables(colormap_yuv("hot", 31, tags), 1))
        assert (planes(picture)[0] == 235).all()


class TestDisplayScale:
    def test_a_low_peak_is_shown_at_full_heat(self) -> None:
        assert DisplayScale()(np.array([[0.05, 0.1]], np.float32), 0).tolist() == [[128, 255]]

    def test_one_weak_frame_stays_weak(self) -> None:
        scale = DisplayScale()
        scale(np.full((2, 2), 0.8, np.float32), 0)
        weak = scale(np.full((2, 2), 0.4, np.float32), 0.04)
        assert 127 <= weak.max() <= 134  # its own maximum would make it 255
        assert abs(int(scale(np.full((2, 2), 0.8, np.float32), 0.08).max()) - 255) <= 3

    def test_adapts_over_seconds(self) -> None:
        scale = DisplayScale()
        scale(np.full((2, 2), 0.8, np.float32), 0)
        for number in range(1, 500):
            heat = scale(np.full((2, 2), 0.2, np.float32), number / 25)
        assert heat.max() > 245

    def test_a_map_that_is_black_in_8_bits_stays_dark(self) -> None:
        assert DisplayScale()(np.full((2, 2), 1e-5, np.float32), 0).max() <= 1
        assert DisplayScale()(np.zeros((2, 2), np.float32), 0).max() == 0


class TestMosaic:
    def test_levels_lie_row_by_row(self) -> None:
        grid = mosaic([np.full((6, 8), level, np.uint8) for level in (10, 20, 30, 40)])
        assert grid.shape == (6, 8)
        assert (grid[:3, :4] == 10).all()
        assert (grid[:3, 4:] == 20).all()
        assert (grid[3:, :4] == 30).all()
        assert (grid[3:, 4:] == 40).all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3)])
    def test_any_size(self, size: tuple[int, int]) -> None:
        assert mosaic([np.full(size, 9, np.uint8)] * 4).tolist() == np.full(size, 9).tolist()

    def test_label_is_written_into_each_cell(self) -> None:
        i420 = np.full((540, 640), 128, np.uint8)
        label_mosaic(i420, ["level 2"] * 4)
        luma, blue, _ = planes(i420)
        for row in (0, 180):
            for column in (0, 320):
                assert luma[row : row + 40, column : column + 100].max() == 235
        assert (blue == 128).all()


class TestStatistics:
    def test_single_pixel(self) -> None:
        saliency = np.zeros((20, 30), np.float32)
        saliency[4, 17] = 0.5
        statistics = frame_statistics(saliency)
        assert (statistics.peak_x, statistics.peak_y, statistics.peak_value) == (17, 4, 0.5)
        assert (statistics.center_x, statistics.center_y) == pytest.approx((17, 4))
        assert statistics.entropy_bits == pytest.approx(0)
        assert statistics.half_mass_area == pytest.approx(0.5 / 600)  # half of that pixel

    @pytest.mark.parametrize("size", [(24, 32), (600, 800)])  # exact, and reduced
    def test_uniform_map(self, size: tuple[int, int]) -> None:
        statistics = frame_statistics(np.full(size, 0.3, np.float32))
        assert statistics.entropy_bits == pytest.approx(math.log2(size[0] * size[1]))
        assert statistics.half_mass_area == pytest.approx(0.5)
        assert statistics.center_x == pytest.approx((size[1] - 1) / 2)
        assert statistics.center_y == pytest.approx((size[0] - 1) / 2)

    def test_half_mass_by_hand(self) -> None:
        # Sum 10, half of it: the 4 and a third of a 3.
        saliency = np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)
        assert frame_statistics(saliency).half_mass_area == pytest.approx((1 + 1 / 3) / 4)

    def test_reduced_map_gives_the_numbers_of_the_whole(self) -> None:
        rows, columns = np.mgrid[:500, :700]
        saliency = np.exp(-((rows - 150) ** 2 + (columns - 420) ** 2) / 2 / 40**2).astype(np.float32)
        statistics = frame_statistics(saliency)
        mass = np.sort((saliency / saliency.sum(dtype=np.float64)).ravel())[::-1]
        positive = mass[mass > 0]
        assert (statistics.peak_x, statistics.peak_y) == (420, 150)
        assert (statistics.center_x, statistics.center_y) == pytest.approx((420, 150), abs=0.5)
        assert statistics.entropy_bits == pytest.approx(-(positive * np.log2(positive)).sum(), abs=0.01)
        area = np.searchsorted(mass.cumsum(), 0.5) / mass.size
        assert statistics.half_mass_area == pytest.approx(area, rel=0.02)

    def test_empty_map_has_no_centre(self) -> None:
        statistics = frame_statistics(np.zeros((4, 4), np.float32))
        assert statistics.peak_value == 0
        assert all(
            math.isnan(number)
            for number in (statistics.center_x, statistics.entropy_bits, statistics.half_mass_area)
        )
