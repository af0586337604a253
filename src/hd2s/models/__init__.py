"""The networks, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hd2s.errors import UnknownNameError, WeightsError
from hd2s.models.hd2s import HD2S, HD2SOutput
from hd2s.models.lite import HD2SLite
from hd2s.types import InputSpec
from hd2s.weights import io
from hd2s.weights.catalog import WEIGHTS

__all__ = ["BUILDERS", "HD2S", "HD2SLite", "HD2SOutput", "load"]

BUILDERS: dict[str, Callable[[InputSpec], HD2SLite]] = {"hd2s-lite": HD2SLite}


def load(name: str = "hd2s-lite", weights: str | Path | None = None, domain: str | None = None) -> HD2SLite:
    """Load a network with trained weights, in eval mode, on the CPU.

    Args:
        name: One of `hd2s.models.BUILDERS`.
        weights: A weight file that hd2s wrote; the one that comes with the package if None.
        domain: The data set whose viewers to imitate, for weights that tell data sets apart.

    Returns:
        The network: clips (B, 3, T, H, W) in, `HD2SOutput(saliency, conspicuity)` out. Its `spec` says how
        the clips are to be sized and normalised.

    Raises:
        UnknownNameError: There is no such network, or its weights have no such domain.
        InputNotFoundError: There is no such weight file.
        WeightsError: The weight file is damaged or for another network.

    Example:
        >>> import torch
        >>> import hd2s
        >>> model = hd2s.load("hd2s-lite")
        >>> saliency, conspicuity = model(torch.zeros(1, 3, 16, 192, 256))
        >>> tuple(saliency.shape), tuple(conspicuity.shape)
        ((1, 192, 256), (1, 4, 192, 256))
    """
    if name not in BUILDERS:
        raise UnknownNameError.among("model", name, BUILDERS)
    if domain is not None:
        raise UnknownNameError(
            f"The weights of '{name}' do not tell data sets apart, so there is no domain '{domain}'."
        )
    if weights is None:
        record = WEIGHTS[name]
        path = record.path
        io.check_hash(path, record.sha256)
    else:
        path = Path(weights)
    written_for, spec = io.read_header(path)
    if written_for != name:
        raise WeightsError(
            f"{path} is for '{written_for}', not for '{name}'. Choose the model or the file accordingly."
        )
    model = BUILDERS[name](spec)
    io.load_into(model, path)
    return model.eval()
