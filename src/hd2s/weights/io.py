"""Weight files: safetensors with the network's name and `InputSpec` in the header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from hd2s.errors import HD2SError, InputNotFoundError, WeightsError
from hd2s.types import InputSpec

_SHOWN_KEYS = 5
_HEADER_KEY = "hd2s"  # one key, because the order of several is random, and with it the file's hash


def save(
    path: Path, model: nn.Module, *, name: str, spec: InputSpec, dtype: torch.dtype = torch.float16
) -> None:
    """Write a model's state to `path`, floats as `dtype`, under a temporary name first.

    Counters of batch norm are left out: they play no part in prediction.
    """
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    header = {_HEADER_KEY: json.dumps({"model": name, "input": asdict(spec)})}
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(serialise(state, header))  # unlike save_file, with the usual permissions
    os.replace(temporary, path)


def read_header(path: Path) -> tuple[str, InputSpec]:
    """Read a weight file's network name and input without reading its tensors.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged or was not written by hd2s.
    """
    with _opened(path) as file:
        header = file.metadata() or {}
    try:
        fields: dict[str, Any] = json.loads(header[_HEADER_KEY])
        spec: dict[str, Any] = fields["input"]
        spec |= {key: tuple(value) for key, value in spec.items() if isinstance(value, list)}
        return fields["model"], InputSpec(**spec)
    except (KeyError, TypeError, AttributeError, ValueError, HD2SError) as error:
        raise WeightsError(
            f"{path} does not say which hd2s network and input it is for ({error!r}). "
            "Give a file that hd2s wrote."
        ) from error


def load_into(model: nn.Module, path: Path) -> None:
    """Load a weight file into a model, every key strictly, as float32.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged, its keys or shapes do not fit, or it holds values that are not finite.
    """
    with _opened(path) as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    _check_fit(model.state_dict(), state, path)
    model.load_state_dict(state, strict=False)  # only the counters of batch norm may be missing


def check_hash(path: Path, sha256: str) -> None:
    """Compare a file's SHA-256 with the expected one.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: The hash differs: the file is damaged or another one.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist.")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is {found}, expected {sha256}. Install hd2s again to replace it."
        )


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}.") from error


def _check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in found if k not in wanted]
    reshaped = [k for k in found if k in wanted and found[k].shape != wanted[k].shape]
    broken = [k for k, v in found.items() if v.is_floating_point() and not v.isfinite().all()]
    for problem, keys in (
        ("lacks", missing),
        ("has unexpected", unexpected),
        ("has tensors of another shape", reshaped),
        ("has values that are not finite in", broken),
    ):
        if keys:
            more = f" and {len(keys) - _SHOWN_KEYS} more" if len(keys) > _SHOWN_KEYS else ""
            raise WeightsError(f"{path} does not fit: it {problem} {', '.join(keys[:_SHOWN_KEYS])}{more}.")
