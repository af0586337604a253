"""Domain-specific learning: what each source of training data (data set) has for itself.

Everybody looks at the same things in different data sets, but not alike: pictures were chosen, cut and shown
differently. So the encoder, the collapses and the decoders' convolutions are shared, while each source has
its own priors, batch norms of the decoders, fusion and smoothing.

Reference: Bellitto et al., IJCV 2021, section 3.3.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hd2s.errors import UnknownNameError
from hd2s.models.hd2s import HD2S, HD2SOutput

_PEAK = 6.0  # of a prior map
_MAX_SIGMA, _MIN_SIGMA = 10.0, 0.1  # of the smoothing, pixels
_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Priors(nn.Module):
    """Sixteen learned Gaussians, drawn behind the collapsed features as channels of their own."""

    COUNT = 16

    def __init__(self) -> None:
        super().__init__()
        narrow, wide = -1.5, 0.0  # log standard deviations, as parts of the side
        at = (0.25, 0.5, 0.75)
        rows = [((y, narrow), (x, narrow)) for y, x in itertools.product(at, at)]
        rows += [((0.5, wide), (x, narrow)) for x in at]
        rows += [((y, narrow), (0.5, wide)) for y in at]
        rows += [((0.5, wide), (0.5, wide))]
        self.gaussians = nn.Parameter(torch.tensor(rows))  # (16, [y, x], [mean, log sigma])

    def maps(self, height: int, width: int) -> Tensor:
        """Draw the maps, (16, height, width) in (0, 6], on coordinates from 0 to 1."""
        sides = []
        for axis, size in enumerate((height, width)):
            mean, log_sigma = self.gaussians[:, axis, :, None].unbind(1)  # (16, 1) each
            at = torch.arange(size, device=mean.device, dtype=mean.dtype)
            at = at / at[-1:].clamp(min=1)  # not linspace, with which an export has a fixed size
            sides.append(torch.exp(-0.5 * ((at - mean) / log_sigma.exp()) ** 2))
        return _PEAK * sides[0][:, :, None] * sides[1][:, None, :]

    def forward(self, features: Tensor) -> Tensor:
        """Append the maps to features: (B, C, h, w) to (B, C + 16, h, w)."""
        maps = self.maps(*features.shape[2:]).expand(features.shape[0], -1, -1, -1)
        return torch.cat((features, maps), dim=1)


class Smoothing(nn.Module):
    """A Gaussian filter with a learned standard deviation in pixels, at most 10.

    Attributes:
        truncate: Cut the map to 8 bits first, as the published inference does. That has no gradient, so in
            training mode it never happens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(_MAX_SIGMA / 2))
        self.truncate = False

    def forward(self, saliency: Tensor) -> Tensor:
        """Smooth maps (B, 1, H, W) with zeros around them."""
        if self.truncate and not self.training:
            saliency = (saliency * 255).floor() / 255
        radius = math.ceil(6 * _MAX_SIGMA) // 2
        at = torch.arange(-radius, radius + 1, device=saliency.device, dtype=saliency.dtype)
        kernel = torch.exp(-0.5 * (at / self.sigma.clamp(_MIN_SIGMA, _MAX_SIGMA)) ** 2)
        kernel = kernel / kernel.sum()
        rows = F.conv2d(saliency, kernel.view(1, 1, -1, 1), padding=(radius, 0))
        return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, radius))


class DomainHD2S(nn.Module):
    """One network for several sources, which share the most of it.

    For each source there is a whole network; these have the shared modules in common, as the same objects.
    So `parameters()` lists a shared one once, and in a weight file it stands under the first source.

    Args:
        network: A network that was built domain-specific, that is with priors and smoothing.
        domains: Names of the sources: letters, digits, "-" and "_".

    Raises:
        ValueError: There is no domain, a name is bad or there twice, or the network has no priors.
    """

    def __init__(self, network: HD2S, domains: Sequence[str]) -> None:
        super().__init__()
        if not domains or len(set(domains)) < len(domains) or not all(map(_NAME.fullmatch, domains)):
            raise ValueError(f"Domains need different names of letters, digits, - and _, got {domains}.")
        if not network.priors or network.smoothing is None:
            raise ValueError("The network was not built domain-specific: it lacks priors and smoothing.")
        shared: list[nn.Module] = [network.encoder, network.collapses]
        for module in network.decoders.modules():
            if isinstance(module, nn.Conv2d):
                shared.append(module)
            elif isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-5, 0.01
        networks = {domains[0]: network}
        for domain in domains[1:]:
            networks[domain] = copy.deepcopy(network, {id(module): module for module in shared})
        self.networks = nn.ModuleDict(networks)
        self.spec = network.spec

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the sources."""
        return tuple(self.networks)

    @property
    def encoder(self) -> nn.Module:
        """The encoder that all sources share."""
        return self._network(self.domains[0]).encoder

    def forward(self, clip: Tensor, domain: str) -> HD2SOutput:
        """Predict the maps of a clip's last frame as the viewers of one source would look.

        Args:
            clip: See `HD2S.forward`.
            domain: One of `domains`.

        Raises:
            UnknownNameError: There is no such domain.
            InputShapeError: See `HD2S.forward`.
        """
        output: HD2SOutput = self._network(domain)(clip)
        return output

    def for_domain(self, domain: str, *, truncate: bool = False) -> HD2S:
        """Copy the network of one source: a plain network that gives the same maps.

        Args:
            domain: One of `domains`.
            truncate: Cut the map to 8 bits before it is smoothed, as the published inference does.

        Raises:
            UnknownNameError: There is no such domain.
        """
        network = copy.deepcopy(self._network(domain))
        assert isinstance(network.smoothing, Smoothing)
        network.smoothing.truncate = truncate
        return network

    def _network(self, domain: str) -> HD2S:
        if domain not in self.networks:
            raise UnknownNameError.among("domain", domain, self.domains)
        network = self.networks[domain]
        assert isinstance(network, HD2S)
        return network
