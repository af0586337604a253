"""Domain adaptation: the reversal of gradients, and the heads that tell source from target."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import networks
from hd2s.models import build
from hd2s.models.adversary import Adversary, DomainHead, reverse_gradient
from networks import NAMES, TINY, Kind

ALPHAS = [0.0, 0.3, 1.0, 2.5]


# --- the reversal -----------------------------------------------------------------------------------


def curved(x: Tensor) -> Tensor:
    return (x.sin() * x.roll(1)).sum()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_reversal_keeps_values_and_turns_gradients_round(alpha: float) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(reverse_gradient(x, alpha), x)
    (found,) = torch.autograd.grad(curved(reverse_gradient(x, alpha)), x)
    step, differences = 1e-6, torch.zeros_like(x)
    with torch.no_grad():
        for index in range(x.numel()):
            moved = torch.zeros(x.numel(), dtype=x.dtype)
            moved[index] = step
            moved = moved.view_as(x)
            differences.view(-1)[index] = (curved(x + moved) - curved(x - moved)) / (2 * step)
    assert differences.abs().min() > 1e-4
    torch.testing.assert_close(found, -alpha * differences, rtol=0, atol=1e-8)


def small_head() -> DomainHead:
    head = DomainHead((6, 3, 4), (5, 2), (8, 4)).double()
    for module in head.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # two passes are to be compared
    return head.train()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_behind_the_reversal_gradients_change_sign_but_not_those_of_the_head(alpha: float) -> None:
    head, features = small_head(), torch.randn(4, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    inputs = [features, *head.parameters()]
    forward, *own = torch.autograd.grad(head(features)[:, 0].sum(), inputs)
    backward, *same = torch.autograd.grad(head(reverse_gradient(features, alpha))[:, 0].sum(), inputs)
    assert forward.abs().max() > 1e-3
    torch.testing.assert_close(backward, -alpha * forward)
    torch.testing.assert_close(same, own)


@pytest.mark.parametrize("name", NAMES)
def test_the_reversal_is_in_front_of_every_head(name: str) -> None:
    network = networks.shared(Kind(name))
    adversary = Adversary(network).eval()
    with torch.no_grad():
        collapsed = network.collapse(network.encoder(networks.clips(network, 1)))
    leaves = [level.requires_grad_() for level in collapsed]
    one, two = (torch.autograd.grad(adversary(leaves, alpha)[..., 0].sum(), leaves) for alpha in (1.0, 2.0))
    for single, double in zip(one, two, strict=True):
        assert single.any()
        torch.testing.assert_close(double, 2 * single)


# --- the heads --------------------------------------------------------------------------------------


def widths(head: DomainHead) -> tuple[list[int], list[int]]:
    """Output channels of the convolutions; input of the first linear layer and outputs of all."""
    convs = [module.out_channels for module in head.reduce if isinstance(module, nn.Conv2d)]
    linears = [module for module in head.classify if isinstance(module, nn.Linear)]
    return convs, [linears[0].in_features, *(linear.out_features for linear in linears)]


@pytest.mark.parametrize(
    ("height", "width", "frames"), [(128, 192, 16), (64, 96, 8), (32, 32, 16)], ids=["paper", "half", "least"]
)
def test_heads_have_the_widths_of_the_paper_and_fit_the_size_of_the_clips(
    height: int, width: int, frames: int
) -> None:
    spec = replace(TINY, height=height, width=width, num_frames=frames)
    with torch.device("meta"):
        adversary = Adversary(build("hd2s", spec))  # type: ignore[arg-type]
    deepest = height // 32 * (width // 32)
    assert [widths(head) for head in adversary.heads] == [
        ([64, 32, 4], [4 * 16 * deepest, 512, 128, 32, 2]),
        ([64, 4], [4 * 4 * deepest, 64, 16, 2]),
        ([128, 16], [16 * deepest, 64, 16, 2]),
        ([512, 64, 16], [16 * deepest, 64, 16, 2]),
    ]
    inputs = [head.reduce[0].in_channels for head in adversary.heads]
    assert inputs == [192, 480, 832, 1024]


def test_heads_of_hd2s_lite_fit_its_features() -> None:
    adversary = Adversary(networks.shared(Kind("hd2s-lite")))  # 64 x 96
    assert [head.reduce[0].in_channels for head in adversary.heads] == [32, 48, 96, 128]
    assert [widths(head)[1][0] for head in adversary.heads] == [
        4 * 16 * 24,
        4 * 8 * 12,
        16 * 4 * 6,
        16 * 2 * 3,
    ]


def test_layers_follow_each_other_as_in_the_paper() -> None:
    head = DomainHead((6, 3, 4), (5, 2), (8, 4, 3))
    assert [type(module).__name__ for module in head.reduce] == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    block = ["Linear", "BatchNorm1d", "ReLU"]
    dropped = [*block, "Dropout"]  # after each ReLU but the first
    assert [type(module).__name__ for module in head.classify] == [*block, *dropped, *dropped, "Linear"]
    assert {module.p for module in head.classify if isinstance(module, nn.Dropout)} == {0.5}
    assert all(
        module.bias is not None for module in head.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_gives_log_probabilities_for_each_clip_and_level(name: str) -> None:
    network = networks.shared(Kind(name))
    adversary = Adversary(network).eval()
    collapsed = network.collapse(network.encoder(networks.clips(network, 3)))
    found = adversary(collapsed, 1.0)
    assert found.shape == (3, 4, 2)
    torch.testing.assert_close(found.exp().sum(2), torch.ones(3, 4))
    assert torch.equal(found, adversary(collapsed, 0.0)), "alpha is for the way back only"
    for level, head in enumerate(adversary.heads):
        assert torch.equal(found[:, level], head(collapsed[level]))


def test_the_network_is_only_measured() -> None:
    network = networks.plain("hd2s-lite").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Adversary(network)
    assert network.training
    assert network.decoders.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_training_drops_units_and_evaluation_does_not() -> None:
    network = networks.shared(Kind("hd2s-lite"))
    adversary = Adversary(network)
    with torch.no_grad():
        collapsed = network.collapse(network.encoder(networks.clips(network, 4)))
        assert not torch.equal(adversary(collapsed, 1.0), adversary(collapsed, 1.0))
        adversary.eval()
        assert torch.equal(adversary(collapsed, 1.0), adversary(collapsed, 1.0))
