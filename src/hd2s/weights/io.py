"""Weight files: safetensors with what they are for in the header, and published checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from hd2s.errors import HD2SError, InputNotFoundError, WeightsError
from hd2s.types import InputSpec
from hd2s.weights.checkpoint import is_safetensors, read_checkpoint
from hd2s.weights.convert import FAMILIES, convert
from hd2s.weights.files import write_whole

_SHOWN_KEYS = 5
_HEADER_KEY = "hd2s"  # one key, because the order of several is random, and with it the file's hash
_COUNTER = "num_batches_tracked"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a weight file is for.

    Attributes:
        network: Name of the network, as `hd2s.load` takes it.
        spec: The input that it was trained with.
        domains: The sources that it tells apart; empty if it does not.
        license: Of the weights, if known.
    """

    network: str
    spec: InputSpec
    domains: tuple[str, ...] = ()
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """A weight file's content, in our names.

    Attributes:
        path: The file.
        header: What it is for.
        family: Which kind of published checkpoint it is; None if hd2s wrote it.
        encoder_only: It holds the encoder's state alone.
        state: The state of the network or of its encoder.
        heads: The state of the domain heads (`Adversary`), if it holds some.
    """

    path: Path
    header: Header
    family: str | None = None
    encoder_only: bool = False
    state: dict[str, Tensor]
    heads: dict[str, Tensor] = field(default_factory=dict)


def save(path: Path, model: nn.Module, header: Header, *, dtype: torch.dtype = torch.float16) -> None:
    """Write a model's state to `path`, floats as `dtype`, under a temporary name first.

    A tensor with several names is written under the first. Counters of batch norm are left out: they play
    no part in prediction.
    """
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).contiguous()
        for name, value in _wanted(model).items()
    }
    fields = {"model": header.network, "input": asdict(header.spec)}
    if header.domains:
        fields["domains"] = header.domains
    if header.license:
        fields["license"] = header.license
    # unlike save_file, with the usual permissions
    write_whole(path, serialise(state, {_HEADER_KEY: json.dumps(fields)}))


def read_header(path: Path) -> Header:
    """Read what a weight file is for, without its tensors.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged or was not written by hd2s.
    """
    with _opened(path) as file:
        metadata = file.metadata() or {}
    try:
        return _parse(json.loads(metadata[_HEADER_KEY]))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, HD2SError) as error:
        raise WeightsError(
            f"{path} does not say which hd2s network and input it is for ({error!r}). "
            "Give a file that hd2s wrote."
        ) from error


def _parse(fields: dict[str, Any]) -> Header:
    """Make a header of a file's JSON, which may be anything."""
    network, license_ = fields["model"], fields.get("license")
    domains, spec = tuple(fields.get("domains", ())), dict(fields["input"])
    spec |= {key: tuple(value) for key, value in spec.items() if isinstance(value, list)}
    header = Header(network=network, spec=InputSpec(**spec), domains=domains, license=license_)
    texts, sizes = (
        (network, license_ or "", *domains),
        [spec[key] for key in ("height", "width", "num_frames")],
    )
    if not (
        all(isinstance(text, str) for text in texts)
        and all(type(size) is int for size in sizes)
        and all(math.isfinite(number) for number in (*header.spec.mean, *header.spec.std))
    ):
        raise TypeError("a field has the wrong type")
    return header


def read(path: Path) -> WeightFile:
    """Read a weight file that hd2s wrote or a published checkpoint.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged, would run code, or is of no known kind.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist.")
    if is_safetensors(path):
        with _opened(path) as file:
            if _HEADER_KEY in (file.metadata() or {}):
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
                return WeightFile(path=path, header=read_header(path), state=state)
    converted = convert(read_checkpoint(path))
    if converted is None:
        known = ", ".join(family.name for family in FAMILIES)
        raise WeightsError(f"{path} is no checkpoint that hd2s knows: it reads its own files and {known}.")
    family = converted.family
    return WeightFile(
        path=path,
        header=Header(
            network=family.network, spec=family.spec, domains=converted.domains, license=family.license
        ),
        family=family.name,
        encoder_only=family.encoder_only,
        state=converted.state,
        heads=converted.heads,
    )


def load_into(model: nn.Module, state: dict[str, Tensor], file: WeightFile) -> None:
    """Load a state from a weight file into a module, every key strictly, in the module's type.

    Raises:
        WeightsError: Its keys or shapes do not fit, or it holds values that are not finite.
    """
    wanted = _wanted(model)
    _check_fit(wanted, state, file)
    # not strict, because second names of a tensor and counters are missing
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}.") from error


def _wanted(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a weight file of the model holds: each once, without counters of batch norm."""
    names: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not name.endswith(_COUNTER):
            names.setdefault(id(value), name)
    return {name: state[name].detach() for name in names.values()}


def _check_fit(wanted: dict[str, Tensor], state: dict[str, Tensor], file: WeightFile) -> None:
    looks_like = f"It looks like {file.family or file.header.network}"
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted and not name.endswith(_COUNTER)]
    if missing or unexpected:
        raise WeightsError(
            f"{file.path} does not fit. {looks_like}, but it lacks {_listed(missing)} and has unexpected "
            f"{_listed(unexpected)}."
        )
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if state[name].shape != value.shape
    ]
    odd = [name for name in wanted if state[name].dtype not in _FLOATS or state[name].is_meta]
    broken = [
        name
        for name, value in wanted.items()
        if not reshaped and not odd and not state[name].to(value.dtype).isfinite().all()
    ]
    for problem, names in (
        ("it has tensors of another shape", reshaped),
        ("it has tensors that are not of floating point numbers", odd),
        ("it has values that are not finite in", broken),
    ):
        if names:
            raise WeightsError(f"{file.path} does not fit. {looks_like}, but {problem}: {_listed(names)}.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return (", ".join(names[:_SHOWN_KEYS]) or "nothing") + more
