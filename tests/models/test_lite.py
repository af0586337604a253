"""`hd2s-lite`: whole clips, frame by frame, stills, motion, size and work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fakes import SMALL_SPEC, lively_model, moving_blob
from hd2s.models import HD2SLite
from hd2s.models.lite import CentreBias, TemporalFilters, find_bars

HEIGHT, WIDTH, FRAMES = SMALL_SPEC.height, SMALL_SPEC.width, SMALL_SPEC.num_frames


def blob_run(num_frames: int) -> Tensor:
    """Normalised frames (N, 3, H, W) of a blob that moves."""
    frames = [torch.from_numpy(frame) for frame in moving_blob(num_frames, HEIGHT, WIDTH)]
    return torch.stack(frames).permute(0, 3, 1, 2) / 127.5 - 1


def as_clip(frames: Tensor) -> Tensor:
    """(T, 3, H, W) -> (1, 3, T, H, W)."""
    return frames.transpose(0, 1)[None]


@pytest.fixture(scope="module")
def model() -> HD2SLite:
    return lively_model()


# --- one function, however it is run ----------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 8])
@torch.no_grad()
def test_sliding_over_encoded_frames_equals_whole_clips(model: HD2SLite, count: int) -> None:
    frames = blob_run(FRAMES - 1 + count)
    clips = torch.cat([as_clip(frames[i : i + FRAMES]) for i in range(count)])
    expected, expected_levels = model(clips)
    ring = [
        torch.cat(levels) for levels in zip(*(model.encode(frame[None]) for frame in frames), strict=True)
    ]
    saliency, conspicuity = model.slide(ring)
    assert saliency.std() > 0.02, "nearly constant maps would agree whatever the network does"
    torch.testing.assert_close(saliency, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(conspicuity, expected_levels, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_still_is_a_clip_in_which_nothing_moves() -> None:
    model = lively_model().double()  # what remains of a still minus itself is rounding, which float32 shows
    still = torch.randn(1, 3, 1, HEIGHT, WIDTH, dtype=torch.float64)
    for of_still, of_clip in zip(model(still), model(still.expand(-1, -1, FRAMES, -1, -1)), strict=True):
        assert of_still.std() > 0.02
        torch.testing.assert_close(of_still, of_clip, rtol=0, atol=1e-8)


@torch.no_grad()
def test_motion_before_the_last_frame_changes_the_map(model: HD2SLite) -> None:
    moving = blob_run(FRAMES)
    frozen = moving[-1:].expand_as(moving)
    backwards = torch.cat((moving[:-1].flip(0), moving[-1:]))
    expected, other_still, other_order = (model(as_clip(f)).saliency for f in (moving, frozen, backwards))
    assert (expected - other_still).abs().max() > 0.03
    assert (expected - other_order).abs().max() > 0.03, "the order of the past frames must matter"


def four_features(collapse: TemporalFilters, features: Tensor) -> Tensor:
    """What is mixed of clips (B, C, T, h, w), (4, B, C, h, w)."""
    now, earlier = features[:, :, -1], features[:, :, -4]
    filtered = (features * collapse.filter[:, None, None]).sum(2)
    shares = collapse.mixtures[..., None, None]
    moving = [(a * now + b * filtered + c * earlier).abs() for a, b, c in shares]
    return torch.stack((now, filtered, *moving))


@torch.no_grad()
def test_an_untrained_network_sees_motion_and_order_already() -> None:
    collapse = TemporalFilters(3, 8, FRAMES).eval()
    still = torch.rand(1, 3, 1, 4, 4).expand(-1, -1, FRAMES, -1, -1)
    features = torch.rand(1, 3, FRAMES, 4, 4)
    reordered = torch.cat((features[:, :, :-1].flip(2), features[:, :, -1:]), dim=2)
    now, mean = features[:, :, -1], features.mean(2)
    expected = torch.stack((now, mean, (now - features[:, :, -4]).abs(), (now - mean).abs()))
    torch.testing.assert_close(four_features(collapse, features), expected)
    assert not torch.allclose(collapse(features), collapse(reordered))
    torch.testing.assert_close(collapse(still), collapse(still[:, :, :1]))


@torch.no_grad()
def test_four_features_of_each_channel_are_mixed() -> None:
    collapse = TemporalFilters(3, 8, FRAMES).eval()
    for parameter in (collapse.filter, collapse.mixtures):
        parameter += 0.1 * torch.randn_like(parameter)
    features = torch.randn(2, 3, FRAMES, 4, 4)
    expected = collapse.mix(torch.cat(tuple(four_features(collapse, features)), dim=1))
    torch.testing.assert_close(collapse(features), expected)


# --- training ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_training_mode_keeps_the_statistics_of_the_encoder_and_updates_the_others() -> None:
    model = lively_model().train()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    model(1 + torch.randn(2, 3, FRAMES, HEIGHT, WIDTH))
    changed = {
        name for name, value in model.named_buffers() if name in before and not value.equal(before[name])
    }
    assert changed == {name for name in before if not name.startswith("encoder.")}


# --- size and work ----------------------------------------------------------------------------------


@torch.no_grad()
def test_work_and_parameters_a_frame_stay_small() -> None:
    model = HD2SLite().eval()
    assert sum(p.numel() for p in model.parameters()) < 4e6
    spec = model.spec
    assert (spec.height, spec.width, spec.num_frames) == (192, 320, 16)
    with FlopCounterMode(display=False) as counter:
        levels = model.encode(torch.zeros(1, 3, spec.height, spec.width))
        model.slide([level.expand(spec.num_frames, -1, -1, -1) for level in levels])
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 2
    assert 0.3e9 < convolutions < 0.6e9


# --- centre bias ------------------------------------------------------------------------------------


def test_the_centre_bias_multiplies_the_odds_by_a_gaussian() -> None:
    bias = CentreBias()
    with torch.no_grad():
        bias.slopes.copy_(torch.tensor([[0.0, 0.5], [0.0, 0.125]]))  # y: sigma of a quarter, x: of a half
        added = bias(torch.zeros(2, 1, 8, 12))[0, 0].exp()
    y, x = (torch.arange(8) + 0.5) / 8, (torch.arange(12) + 0.5) / 12
    expected = torch.exp(-0.5 * (((y - 0.5) / 0.25)[:, None] ** 2 + ((x - 0.5) / 0.5) ** 2))
    torch.testing.assert_close(added, expected)


def test_a_window_gets_its_part_of_the_centre_bias() -> None:
    bias = CentreBias()
    with torch.no_grad():
        bias.slopes.copy_(torch.tensor([[0.1, 0.3], [-0.2, 0.4]]))
        whole = bias(torch.zeros(1, 1, 16, 16))
        windows = torch.tensor([[[0.25, 0.5], [0.5, 0.5]], [[0.25, 0.5], [1.0, -0.5]]])
        parts = bias(torch.zeros(2, 1, 8, 8), windows)
    torch.testing.assert_close(parts[:1], whole[..., 4:12, 8:])
    torch.testing.assert_close(parts[1:], whole[..., 4:12, 8:].flip(-1))
    assert not torch.allclose(parts[0], parts[1])


def test_the_centre_bias_moves_the_fused_map_alone() -> None:
    model = lively_model()
    clip = torch.randn(1, 3, 1, SMALL_SPEC.height, SMALL_SPEC.width)
    with torch.no_grad():
        before = model(clip)
        model.centre.slopes[:, 1] = 5.0
        after = model(clip)
    assert torch.equal(before.conspicuity, after.conspicuity)
    assert after.saliency[0, 0, 0] < 0.1 * before.saliency[0, 0, 0]


# --- black bars -------------------------------------------------------------------------------------


def lit(rows: slice, columns: slice) -> Tensor:
    """A frame (3, H, W) of values up to 255 that is lit only there; elsewhere it is nearly black."""
    frame = torch.randint(0, 17, (3, HEIGHT, WIDTH)).float()
    frame[:, rows, columns] = 200.0
    return frame


def test_bars_are_black_groups_of_rows_and_columns_at_the_sides() -> None:
    frames = torch.stack(
        [
            lit(slice(8, 48), slice(None)),
            lit(slice(None), slice(10, 71)),
            lit(slice(30, 31), slice(40, 41)),
            lit(slice(0), slice(0)),
        ]
    )
    frames[2, 0, -1, -1] = 17.0  # one value above, in a corner
    bars = find_bars(frames / 127.5 - 1, SMALL_SPEC, 4)
    expected = torch.zeros(4, 1, HEIGHT // 4, WIDTH // 4)
    expected[0, :, :2] = expected[0, :, 12:] = 3.0
    expected[1, :, :, :2] = expected[1, :, :, 18:] = 3.0
    expected[2, :, :7] = expected[2, :, :, :10] = 3.0
    assert torch.equal(bars, expected)


def test_what_is_black_depends_on_the_normalisation() -> None:
    spec = replace(SMALL_SPEC, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (spec.mean, spec.std))
    for channel in range(3):
        frames = torch.full((2, 3, HEIGHT, WIDTH), 15.0)
        frames[1, channel] = 18.0
        frames[:, :, HEIGHT // 2 :] = 90.0
        bars = find_bars((frames / 255 - mean) / std, spec, 4)
        assert [bool(each.any()) for each in bars] == [True, False]


@torch.no_grad()
def test_maps_are_kept_out_of_black_bars(model: HD2SLite) -> None:
    frames = blob_run(FRAMES).clamp(min=-0.5)
    plain = model(as_clip(frames))
    frames[:, :, :16] = -1.0
    clip = as_clip(frames)
    boxed = model(clip)
    without = model.decode(model.collapse(model.encoder(clip)))
    odds, expected = (torch.logit(map_.double()) for map_ in (boxed.saliency, without.saliency))
    torch.testing.assert_close(odds[:, :14], expected[:, :14] - 3.0, rtol=0, atol=1e-3)
    torch.testing.assert_close(odds[:, 18:], expected[:, 18:], rtol=0, atol=1e-3)
    assert torch.equal(boxed.conspicuity, without.conspicuity)
    frames[:-1, :, :16] = -0.5  # only the last frame counts
    later = model(as_clip(frames))
    assert (later.saliency[:, :14].mean() / plain.saliency[:, :14].mean()).item() < 0.2
