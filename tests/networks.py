"""Small networks of every kind whose maps vary from place to place, for tests that hold for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

import published
from fakes import SMALL_SPEC, lively_model
from hd2s.models import HD2S, DomainHD2S, HD2SOutput
from hd2s.models.s3d import hd2s

DOMAINS = ("films", "sports")
TINY = replace(SMALL_SPEC, height=64, width=64, num_frames=8)  # a twelfth of the work of hd2s's own size
Predict = Callable[[Tensor], HD2SOutput]


@dataclass(frozen=True)
class Kind:
    """A network and how it is asked: plain, with a domain, or folded for a domain."""

    name: str  # as in a weight file
    domain: str | None = None
    folded: bool = False

    def __str__(self) -> str:
        return self.name + (f"-{self.domain}" if self.domain else "") + ("-folded" if self.folded else "")

    def predict(self, model: nn.Module) -> Predict:
        """How to call a network of this kind."""
        return model if self.domain is None or self.folded else functools.partial(model, domain=self.domain)


NAMES = ("hd2s", "hd2s-lite")
KINDS = [
    Kind(name, domain, folded)
    for name in NAMES
    for domain, folded in ((None, False), ("films", False), ("sports", True))
]
PLAIN = [kind for kind in KINDS if kind.domain is None or kind.folded]


def plain(name: str, domain_specific: bool = False) -> HD2S:
    """Build a network in eval mode: hd2s for clips of 8 x 64 x 64, hd2s-lite for 16 x 64 x 96 and stills."""
    if name == "hd2s-lite":
        return lively_model(domain_specific=domain_specific)
    model = hd2s(TINY, domain_specific)
    published.fill(model)
    return model.eval()


def domain_specific(name: str) -> DomainHD2S:
    """Build a network in eval mode whose sources differ in all that is theirs."""
    model = DomainHD2S(plain(name, domain_specific=True), DOMAINS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in own(model, "sports").values():
            value.mul_(1 + 0.2 * torch.rand(value.shape, generator=generator))
    return model.eval()


def own(model: DomainHD2S, domain: str) -> dict[str, Tensor]:
    """The parameters that only one source has, by name."""
    shared = set(map(id, model.networks[DOMAINS[0]].parameters())) & set(
        map(id, model.networks[DOMAINS[1]].parameters())
    )
    return {
        name: value for name, value in model.networks[domain].named_parameters() if id(value) not in shared
    }


def build(kind: Kind) -> HD2S | DomainHD2S:
    """Build a network of a kind."""
    if kind.domain is None:
        return plain(kind.name)
    model = domain_specific(kind.name)
    return model.for_domain(kind.domain) if kind.folded else model


@functools.cache
def shared(kind: Kind) -> HD2S | DomainHD2S:
    """The network of a kind that tests share; do not change it."""
    return build(kind)


def clips(model: HD2S | DomainHD2S, count: int, seed: int = 0) -> Tensor:
    """Clips (count, 3, T, H, W) of soft random blotches, of the size that the network expects."""
    spec, generator = model.spec, torch.Generator().manual_seed(seed)
    coarse = torch.randn(
        count, 3, spec.num_frames // 4, spec.height // 8, spec.width // 8, generator=generator
    )
    size = spec.num_frames, spec.height, spec.width
    return nn.functional.interpolate(coarse, size=size, mode="trilinear")
