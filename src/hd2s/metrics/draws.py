"""Random numbers that depend on a seed and a key alone, not on batch, order or device."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, keys: Tensor, count: int) -> Tensor:
    """Draw numbers by hashing their place: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).

    Args:
        seed: Any integer.
        keys: (B,) int64.
        count: Numbers for each key.

    Returns:
        (B, count) float64 in [0, 1); the first ones do not depend on `count`.

    Example:
        >>> import torch
        >>> uniform(0, torch.tensor([7, 8]), 3)
        tensor([[0.5243, 0.3021, 0.9410],
                [0.9262, 0.9184, 0.9332]], dtype=torch.float64)
    """
    start = _mix(_mix(torch.full_like(keys, _signed(seed))) + keys)
    places = torch.arange(1, count + 1, device=keys.device) * _signed(_GOLDEN)
    return _shifted(_mix(start[:, None] + places), 11).double() / 2**53


def _mix(z: Tensor) -> Tensor:
    """Scramble 64 bits; int64 overflows as unsigned integers do."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros."""
    low: Tensor = (z >> bits) & (2 ** (64 - bits) - 1)
    return low


def _signed(value: int) -> int:
    """The low 64 bits as a signed integer."""
    return (value + 2**63) % 2**64 - 2**63
