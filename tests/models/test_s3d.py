"""`hd2s`: the layers of the paper's tables, their sizes, work and constants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hd2s.errors import InputShapeError
from hd2s.models.s3d import S3D, SPEC, Inception, hd2s
from networks import TINY

PARAMETERS = 29_795_597
CHANNELS = (64, 192, 480, 832, 1024)
# in, b0, r1 -> b1, r2 -> b2, b3 of each inception block
INCEPTIONS = [
    (192, 64, 96, 128, 16, 32, 32),
    (256, 128, 128, 192, 32, 96, 64),
    (480, 192, 96, 208, 16, 48, 64),
    (512, 160, 112, 224, 24, 64, 64),
    (512, 128, 128, 256, 24, 64, 64),
    (512, 112, 144, 288, 32, 64, 64),
    (528, 256, 160, 320, 32, 128, 128),
    (832, 256, 160, 320, 32, 128, 128),
    (832, 384, 192, 384, 48, 128, 128),
]
# level: in, (width, separable convolutions) of each stage
DECODERS = {
    2: (192, [(128, 1), (64, 1), (3, 1)]),
    3: (480, [(256, 1), (128, 1), (64, 1), (3, 1)]),
    4: (832, [(512, 2), (256, 2), (128, 1), (64, 1), (3, 1)]),
    5: (1024, [(512, 2), (256, 2), (128, 1), (64, 1), (3, 1)]),
}


def on_meta(frames: int, height: int, width: int, **options: bool) -> tuple[nn.Module, Tensor]:
    """A network and a clip that have shapes but no values."""
    with torch.device("meta"):
        spec = replace(SPEC, height=height, width=width, num_frames=frames)
        return hd2s(spec, **options).eval(), torch.empty(1, 3, frames, height, width)


def test_has_the_published_number_of_parameters_whatever_the_input() -> None:
    for size in ((16, 128, 192), (8, 64, 64)):
        model, _ = on_meta(*size)
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS


def test_a_source_adds_its_priors_wider_decoders_and_sigma() -> None:
    model, _ = on_meta(16, 128, 192, domain_specific=True)
    first_widths = sum(stages[0][0] for _, stages in DECODERS.values())
    more = 4 * 16 * 2 * 2 + 16 * 3 * 3 * first_widths + 1
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS + more


@pytest.mark.parametrize(("frames", "height", "width"), [(16, 128, 192), (8, 64, 32), (16, 32, 224)])
def test_levels_and_maps_have_the_sizes_of_the_table(frames: int, height: int, width: int) -> None:
    model, clip = on_meta(frames, height, width)
    features, x = model.encoder(clip), clip
    for level in model.encoder.levels[:1]:
        x = level(x)
    shapes = [tuple(level.shape[1:]) for level in (x, *features)]
    times, strides = (2, 2, 4, 8, 8), (4, 8, 16, 32, 32)
    assert shapes == [
        (channels, frames // time, height // stride, width // stride)
        for channels, time, stride in zip(CHANNELS, times, strides, strict=True)
    ]
    collapsed = model.collapse(features)
    assert [tuple(level.shape[1:]) for level in collapsed] == [
        (channels, height // stride, width // stride)
        for channels, stride in zip(CHANNELS[1:], strides[1:], strict=True)
    ]
    for decoder, level in zip(model.decoders, collapsed, strict=True):
        assert decoder(level).shape == (1, 1, height, width)


def test_work_of_a_clip_is_the_published_one() -> None:
    model, clip = on_meta(16, 128, 192)
    macs = []
    for part in (model, model.encoder):
        with FlopCounterMode(display=False) as counter:
            part(clip)
        macs.append(counter.get_total_flops() / 2e9)
    assert [round(giga, 1) for giga in macs] == [11.0, 8.8]


def test_inception_blocks_have_the_widths_of_the_table() -> None:
    with torch.device("meta"):
        blocks = [module for module in S3D().modules() if isinstance(module, Inception)]
    found = []
    for block in blocks:
        b0, b1, b2, b3 = (
            [m for m in branch.modules() if isinstance(m, nn.Conv3d)] for branch in block.branches
        )
        assert [conv.kernel_size for conv in b1] == [(1, 1, 1), (1, 3, 3), (3, 1, 1)]
        assert [len(convs) for convs in (b0, b1, b2, b3)] == [1, 3, 3, 1]
        widths = (b0[0], b1[0], b1[2], b2[0], b2[2], b3[0])
        found.append((b0[0].in_channels, *(conv.out_channels for conv in widths)))
    assert found == INCEPTIONS


def test_decoders_have_the_stages_of_the_table() -> None:
    model, _ = on_meta(16, 128, 192)
    for level, decoder in zip(DECODERS, model.decoders, strict=True):
        channels, stages = DECODERS[level]
        assert decoder.stages[0][0][0].in_channels == channels
        found = [(stage[0][0].out_channels, len(stage) - 1) for stage in decoder.stages]
        assert found == stages
        assert decoder.scales == [2] * len(stages)


def test_temporal_collapses_halve_the_time_until_none_is_left() -> None:
    model, _ = on_meta(16, 128, 192)
    for channels, steps, collapse in zip(CHANNELS[1:], (3, 2, 1, 1), model.collapses, strict=True):
        convs = [module for module in collapse.modules() if isinstance(module, nn.Conv3d)]
        assert len(convs) == steps
        for conv in convs:
            assert (conv.in_channels, conv.out_channels) == (channels, channels)
            assert (conv.kernel_size, conv.stride, conv.padding) == ((3, 1, 1), (2, 1, 1), (1, 0, 0))


def test_batch_norms_have_the_constants_of_s3d_but_for_separable_convolutions_of_decoders() -> None:
    model, _ = on_meta(16, 128, 192)
    for name, norm in model.named_modules():
        if isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d)):
            separable = name.startswith("decoders.") and name.split(".")[4] != "0"
            expected = (1e-5, 0.1) if separable else (1e-3, 1e-3)
            assert (norm.eps, norm.momentum) == expected, name


def test_only_1x1_convolutions_at_the_end_have_a_bias() -> None:
    model, _ = on_meta(16, 128, 192)
    convs = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))}
    biased = {name for name, conv in convs.items() if conv.bias is not None}
    assert biased == {"fusion", *(f"decoders.{level}.head" for level in range(4))}


@pytest.mark.parametrize("frames", [1, 4, 12, 32])
def test_other_clip_lengths_are_refused(frames: int) -> None:
    with pytest.raises(InputShapeError, match=r"number of frames one of \(8, 16\)"):
        hd2s(replace(TINY, num_frames=frames))
