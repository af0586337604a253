"""Training: in every recipe the loss reaches every parameter, and nothing that it should not reach."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import networks
from hd2s.losses import hierarchical_kl
from hd2s.metrics.functional import kl_divergence
from hd2s.models import HD2S, DomainHD2S
from hd2s.models.adversary import Adversary
from networks import DOMAINS, NAMES

Named = Iterable[tuple[str, nn.Parameter]]


def unreached(parameters: Named) -> list[str]:
    return [name for name, p in parameters if p.grad is None or not p.grad.any() or p.grad.isnan().any()]


def target(clips: Tensor) -> Tensor:
    return torch.rand(len(clips), *clips.shape[3:])


def hierarchical_loss(model: nn.Module, clips: Tensor, *domain: str) -> Tensor:
    return torch.stack(list(hierarchical_kl(model(clips, *domain), target(clips)).values())).sum()


@pytest.mark.parametrize("name", NAMES)
def test_base(name: str) -> None:
    model = networks.plain(name).train()
    hierarchical_loss(model, networks.clips(model, 2)).backward()
    assert unreached(model.named_parameters()) == []


@pytest.mark.parametrize("truncate", [False, True], ids=["", "truncating"])
@pytest.mark.parametrize("name", NAMES)
def test_folded_for_a_domain(name: str, truncate: bool) -> None:
    """8-bit truncation must not cut the loss of the output off, or fusion and smoothing would never learn."""
    model = networks.domain_specific(name).for_domain("sports", truncate=truncate).train()
    kl_divergence(
        model(networks.clips(model, 2)).saliency, target(networks.clips(model, 2))
    ).mean().backward()
    assert unreached(model.named_parameters()) == []


@pytest.mark.parametrize("name", NAMES)
def test_domain_specific(name: str) -> None:
    model = networks.domain_specific(name).train()
    clips = networks.clips(model, 2)
    hierarchical_loss(model, clips, "sports").backward()
    others = networks.own(model, "films")
    assert all(p.grad is None for p in others.values())
    assert unreached(model.networks["sports"].named_parameters()) == []
    hierarchical_loss(model, clips, "films").backward()
    assert unreached(model.named_parameters()) == []
    kinds = {part.partition(".")[0] for part in others}
    assert kinds - {"centre"} == {"priors", "decoders", "fusion", "smoothing"}


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_source_moves_nothing_of_the_others(name: str) -> None:
    model = networks.domain_specific(name).train()
    before = state_of(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)
    hierarchical_loss(model, networks.clips(model, 2), "sports").backward()
    optimizer.step()
    after = state_of(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    films, sports = ({f"{domain}.{name}" for name in networks.own(model, domain)} for domain in DOMAINS)
    assert not moved & films
    assert sports <= moved
    statistics = {name for name in before if name.startswith("films.decoders.") and "running" in name}
    assert statistics
    assert not moved & statistics, "films' norms must not see sports' clips"


def state_of(model: DomainHD2S) -> dict[str, Tensor]:
    """Every parameter and buffer, under the name of each source."""
    return {
        f"{domain}.{name}": value.clone()
        for domain, network in model.networks.items()
        for name, value in network.state_dict().items()
    }


def adversarial_loss(model: HD2S, adversary: Adversary, source: Tensor, other: Tensor) -> Tensor:
    """KL of the output on the source, and 8 negative log-likelihoods: 4 levels, source and target."""
    loss = kl_divergence(model(source).saliency, target(source)).mean()
    for domain, clips in enumerate((source, other)):
        log_probs = adversary(model.collapse(model.encoder(clips)), 0.5)
        for level in log_probs.unbind(1):
            loss = loss + F.nll_loss(level, torch.full((len(clips),), domain))
    return loss


@pytest.mark.parametrize("name", NAMES)
def test_adversarial(name: str) -> None:
    model = networks.plain(name).train()
    adversary = Adversary(model).train()
    source, other = networks.clips(model, 2, seed=1), networks.clips(model, 2, seed=2)
    adversarial_loss(model, adversary, source, other).backward()
    assert unreached(model.named_parameters()) == []
    assert unreached(adversary.named_parameters()) == []


@pytest.mark.parametrize("name", NAMES)
def test_heads_alone_teach_the_encoder_and_the_collapses_but_no_decoder(name: str) -> None:
    model = networks.plain(name).train()
    adversary = Adversary(model).train()
    clips = networks.clips(model, 2)
    adversary(model.collapse(model.encoder(clips)), 1.0)[..., 0].sum().backward()
    taught = {part.partition(".")[0] for part, p in model.named_parameters() if p.grad is not None}
    assert taught == {"encoder", "collapses"}
