"""Domain-specific learning: priors, smoothing, and networks that share all but what is their own."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import networks
from hd2s.errors import UnknownNameError
from hd2s.models import HD2S, DomainHD2S, build
from hd2s.models.domain import Priors, Smoothing
from networks import DOMAINS, NAMES, Kind

# Where a source has something of its own; hd2s-lite alone has a centre bias.
PARTS = ("priors.", "decoders.", "fusion.", "smoothing.")


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> DomainHD2S:
    """A network that tests share; do not change it."""
    return networks.shared(Kind(request.param, DOMAINS[0]))


# --- priors -----------------------------------------------------------------------------------------


def test_priors_start_where_the_paper_puts_them() -> None:
    narrow, wide, quarters = -1.5, 0.0, (0.25, 0.5, 0.75)
    expected = [(y, narrow, x, narrow) for y in quarters for x in quarters]
    expected += [(0.5, wide, x, narrow) for x in quarters]
    expected += [(y, narrow, 0.5, wide) for y in quarters]
    expected += [(0.5, wide, 0.5, wide)]
    gaussians = Priors().gaussians
    assert gaussians.shape == (Priors.COUNT, 2, 2)
    assert torch.equal(gaussians.flatten(1), torch.tensor(expected))


@torch.no_grad()
def test_prior_maps_follow_the_formula_rows_first() -> None:
    priors = Priors()
    priors.gaussians.add_(0.1 * torch.randn(16, 2, 2))
    height, width = 5, 8
    expected = np.empty((16, height, width))
    for i, ((mean_y, log_y), (mean_x, log_x)) in enumerate(priors.gaussians.double().numpy()):
        for row in range(height):
            for column in range(width):
                dy = (row / (height - 1) - mean_y) / math.exp(log_y)
                dx = (column / (width - 1) - mean_x) / math.exp(log_x)
                expected[i, row, column] = 6 * math.exp(-dy * dy / 2) * math.exp(-dx * dx / 2)
    np.testing.assert_allclose(priors.maps(height, width).numpy(), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_priors_stand_behind_the_features_of_every_clip() -> None:
    priors, features = Priors(), torch.randn(2, 3, 4, 6)
    both = priors(features)
    assert both.shape == (2, 19, 4, 6)
    assert torch.equal(both[:, :3], features)
    for clip in both:
        assert torch.equal(clip[3:], priors.maps(4, 6))


# --- smoothing --------------------------------------------------------------------------------------


def gaussian_filtered(maps: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Filter (H, W) with zeros around: the sum over all pixels at most 30 away, ceil(6 * 10) made odd."""
    weight = {offset: math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-30, 31)}
    total = sum(weight.values())

    def matrix(size: int) -> NDArray[np.float64]:
        return np.array([[weight.get(i - j, 0.0) / total for j in range(size)] for i in range(size)])

    return matrix(maps.shape[0]) @ maps @ matrix(maps.shape[1]).T


def smoothing(sigma: float = 5.0, *, truncate: bool = False) -> Smoothing:
    layer = Smoothing().double().eval()
    layer.truncate = truncate
    with torch.no_grad():
        layer.sigma.fill_(sigma)
    return layer


@pytest.mark.parametrize("sigma", [0.5, 2.0, 5.0, 9.0])
@pytest.mark.parametrize("size", [(7, 12), (80, 64)])
@torch.no_grad()
def test_smoothing_is_a_gaussian_filter_with_zeros_around(size: tuple[int, int], sigma: float) -> None:
    maps = torch.rand(2, 1, *size, dtype=torch.float64)
    expected = np.stack([gaussian_filtered(one.numpy(), sigma) for one in maps[:, 0]])
    np.testing.assert_allclose(smoothing(sigma)(maps)[:, 0].numpy(), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_smoothing_spreads_a_point_over_61_x_61_pixels_and_keeps_its_sum() -> None:
    point = torch.zeros(1, 1, 75, 75, dtype=torch.float64)
    point[..., 37, 37] = 1.0
    spread = smoothing(10.0)(point)[0, 0]
    assert spread.sum().item() == pytest.approx(1.0)
    rows, columns = spread.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (7, 67, 7, 67)


@pytest.mark.parametrize(("sigma", "acts_as"), [(50.0, 10.0), (10.0, 10.0), (0.01, 0.1), (-3.0, 0.1)])
@torch.no_grad()
def test_the_width_of_the_smoothing_is_bounded(sigma: float, acts_as: float) -> None:
    maps = torch.rand(1, 1, 20, 30, dtype=torch.float64)
    expected = gaussian_filtered(maps[0, 0].numpy(), acts_as)
    np.testing.assert_allclose(smoothing(sigma)(maps)[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_smoothing_starts_in_the_middle_of_its_range() -> None:
    assert Smoothing().sigma.item() == 5.0


@torch.no_grad()
def test_truncation_to_8_bits_is_for_inference_and_must_be_asked_for() -> None:
    maps = torch.rand(1, 1, 20, 30, dtype=torch.float64)
    exact = gaussian_filtered(maps[0, 0].numpy(), 5.0)
    truncated = gaussian_filtered(np.floor(maps[0, 0].numpy() * 255) / 255, 5.0)
    assert np.abs(exact - truncated).max() > 1e-4
    for layer, expected in (
        (smoothing(), exact),
        (smoothing(truncate=True), truncated),
        (smoothing(truncate=True).train(), exact),
    ):
        np.testing.assert_allclose(layer(maps)[0, 0].numpy(), expected, rtol=0, atol=1e-12)


def test_in_training_gradients_pass_the_smoothing() -> None:
    layer = smoothing(truncate=True).train()
    maps = torch.rand(1, 1, 6, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (maps,))
    (layer(maps) ** 2).sum().backward()
    assert layer.sigma.grad.item() != 0.0


# --- what is shared and what is not -----------------------------------------------------------------


def owners(model: DomainHD2S) -> tuple[set[str], set[str]]:
    """Names of the parameters and buffers, within a source's network, that all sources share, and not."""
    first, *others = (network.state_dict(keep_vars=True) for network in model.networks.values())
    shared = {name for name, value in first.items() if all(value is other[name] for other in others)}
    return shared, set(first) - shared


def expected_owners(model: DomainHD2S) -> tuple[set[str], set[str]]:
    """The same, as the paper has it: all of the encoder and the collapses, and the decoders' convolutions."""
    network = model.networks[model.domains[0]]
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    shared = {
        name
        for name in network.state_dict()
        if name.startswith(("encoder.", "collapses."))
        or (name.startswith("decoders.") and name.rpartition(".")[0] not in norms)
    }
    return shared, set(network.state_dict()) - shared


def test_sources_share_all_but_priors_norms_fusion_and_smoothing(model: DomainHD2S) -> None:
    shared, separate = owners(model)
    assert (shared, separate) == expected_owners(model)
    assert all(any(name.startswith(part) for name in separate) for part in PARTS)
    assert all(name.startswith((*PARTS, "centre.")) for name in separate)


def test_shared_parameters_are_listed_and_counted_once(model: DomainHD2S) -> None:
    shared, _ = owners(model)
    sizes = {name: p.numel() for name, p in model.networks[DOMAINS[0]].named_parameters()}
    total = sum(size if name in shared else 2 * size for name, size in sizes.items())
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_sharing_survives_copies_and_other_types(model: DomainHD2S, dtype: torch.dtype) -> None:
    other = copy.deepcopy(model).to(dtype)
    assert owners(other) == expected_owners(model)
    own = {id(value) for value in model.state_dict(keep_vars=True).values()}
    assert not own & {id(value) for value in other.state_dict(keep_vars=True).values()}


def test_batch_norms_of_the_decoders_have_constants_of_their_own(model: DomainHD2S) -> None:
    for network in model.networks.values():
        for name, norm in network.named_modules():
            if isinstance(norm, nn.BatchNorm2d) and name.startswith("decoders."):
                assert (norm.eps, norm.momentum) == (1e-5, 0.01), name


def test_batch_norms_of_the_encoder_keep_theirs() -> None:
    for name, momentum in (("hd2s", 1e-3), ("hd2s-lite", 1e-2)):
        encoder = networks.shared(Kind(name, DOMAINS[0])).encoder
        norms = [m for m in encoder.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, momentum)}


# --- asking for one source --------------------------------------------------------------------------


@torch.no_grad()
def test_sources_give_different_maps(model: DomainHD2S) -> None:
    clip = networks.clips(model, 1)
    films, sports = (model(clip, domain=domain) for domain in DOMAINS)
    for one, other in zip(films, sports, strict=True):
        assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("domain", DOMAINS)
@torch.no_grad()
def test_a_source_becomes_a_plain_network_with_the_same_maps(model: DomainHD2S, domain: str) -> None:
    clip = networks.clips(model, 2)
    plain = model.for_domain(domain)
    assert isinstance(plain, HD2S)
    assert plain.spec == model.spec
    for maps, expected in zip(plain(clip), model(clip, domain), strict=True):
        torch.testing.assert_close(maps, expected, rtol=0, atol=1e-6)
    assert not {id(p) for p in plain.parameters()} & {id(p) for p in model.parameters()}


@torch.no_grad()
def test_a_plain_network_truncates_only_if_asked(model: DomainHD2S) -> None:
    clip = networks.clips(model, 1)
    exact, default = model(clip, "sports").saliency, model.for_domain("sports")(clip).saliency
    truncated = model.for_domain("sports", truncate=True)(clip).saliency
    assert torch.equal(default, exact)
    assert 0 < (exact - truncated).max() < 1 / 255  # smoothed values lose half a step on average
    assert torch.equal(model(clip, "sports").saliency, exact), (
        "the copy's setting must not reach the original"
    )


@pytest.mark.parametrize("domain", ["DHF1K", "", "film"])
def test_an_unknown_domain_lists_the_known_ones(model: DomainHD2S, domain: str) -> None:
    for ask in (model.for_domain, lambda name: model(networks.clips(model, 1), name)):
        with pytest.raises(UnknownNameError, match=rf"Unknown domain '{domain}'.*Known: films, sports\."):
            ask(domain)


def test_one_source_is_enough_and_many_keep_their_order() -> None:
    assert build("hd2s-lite", domains=["only"]).domains == ("only",)
    names = ["c", "a-1", "B_2"]
    model = build("hd2s-lite", domains=names)
    assert list(model.domains) == names
    assert owners(model) == expected_owners(model)


@pytest.mark.parametrize("domains", [["a", "a"], ["a.b"], ["a b"], [""], ["é"], ["a\n"], ["../a"]])
def test_names_that_could_not_stand_in_a_state_are_refused(domains: list[str]) -> None:
    with pytest.raises(ValueError, match="different names of letters, digits, - and _"):
        build("hd2s-lite", domains=domains)


def test_a_network_without_priors_cannot_become_domain_specific() -> None:
    with pytest.raises(ValueError, match="lacks priors and smoothing"):
        DomainHD2S(networks.shared(Kind("hd2s-lite")), ["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Domains need different names"):
        DomainHD2S(build("hd2s-lite"), [])  # type: ignore[arg-type]


def test_the_encoder_is_that_of_all_sources(model: DomainHD2S) -> None:
    assert all(network.encoder is model.encoder for network in model.networks.values())
