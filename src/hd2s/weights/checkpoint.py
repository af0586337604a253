"""Foreign checkpoints, read without trust: PyTorch files and safetensors files of others."""

from __future__ import annotations

import mmap
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from hd2s.errors import InputNotFoundError, WeightsError

_WRAPPERS = ("state_dict", "model", "student_model")
_BYTEARRAY = b"bytearray\n"  # how a pickle names the one type that torch.load lets it make of any size


def is_safetensors(path: Path) -> bool:
    """Tell by its first bytes whether a file is meant to be a safetensors file: its header is JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file, of either kind and possibly wrapped, to the CPU.

    Nothing that the file holds is executed, and nothing larger than the file is allocated.

    Raises:
        InputNotFoundError: There is no such file.
        WeightsError: It is damaged, is no checkpoint, would run code, or holds no state dict.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The weight file {path} does not exist.")
    try:
        if is_safetensors(path):
            return load_file(path)
        _check_claims(path)
        return _unwrap(_load(path), path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is refused: it is no PyTorch checkpoint, it is damaged, or besides tensors it holds "
            "objects that could run code. If you trust where it comes from, save its state_dict alone."
        ) from error
    except Exception as error:  # garbage makes the readers raise anything
        raise WeightsError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}: {error!s:.200}). "
            "Give a .safetensors file, or a checkpoint as PyTorch writes it."
        ) from error


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_claims(path: Path) -> None:
    """Refuse a file that makes its reader allocate more than it holds itself.

    Raises:
        WeightsError: It is such a file.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # imports much

    size, claimed = path.stat().st_size, 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_BYTEARRAY) >= 0:
            raise WeightsError(f"{path} is refused: besides tensors it holds objects of any size.")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise WeightsError(f"{path} is refused: it is compressed, which PyTorch's own files never are.")
        claimed = sum(entry.file_size for entry in entries)
    if claimed <= size:
        with FakeTensorMode():  # tensors without memory, as PyTorch documents it for such inspections
            state = _unwrap(_load(path), path)
        # no sum: tensors may share a storage, which cannot be seen here
        claimed = max(value.untyped_storage().nbytes() for value in state.values())
    if claimed > size:
        raise WeightsError(f"{path} is refused: it has {size} bytes but claims to hold {claimed}.")


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what a file holds."""
    for _ in range(1 + len(_WRAPPERS)):  # a file may hold a dict that holds itself
        if not isinstance(content, Mapping):
            break
        state = {key: v for key, v in content.items() if isinstance(key, str) and isinstance(v, Tensor)}
        if state:
            return state
        content = next((content[key] for key in _WRAPPERS if key in content), None)
    raise WeightsError(f"{path} holds no state dict, neither bare nor under one of {', '.join(_WRAPPERS)}.")
