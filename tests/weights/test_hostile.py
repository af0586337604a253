"""Hostile files: nothing in them runs, and nothing larger than them is made."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import published
from hd2s import models
from hd2s.errors import WeightsError
from hd2s.weights import io
from published import MARKER, refused, refused_network, small_state

HUGE = 100 * 2**30  # bytes
ZIP, LEGACY = {}, {"_use_new_zipfile_serialization": False}
both_formats = pytest.mark.parametrize("options", [ZIP, LEGACY], ids=["zip", "legacy"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


@pytest.fixture(autouse=True)
def _little_memory_and_time() -> Iterator[None]:
    """Let a file that makes its reader allocate gigabytes, or read forever, fail the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, hard))
    started = time.monotonic()
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - started < 20


# --- code -------------------------------------------------------------------------------------------


class Calls:
    """Pickled, it makes its reader call a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def raw_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def zipped(content: object, path: Path) -> None:
    torch.save(content, path)


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, **LEGACY)


@pytest.mark.parametrize("save", [zipped, legacy, raw_pickle])
@pytest.mark.parametrize(
    "wrap", [lambda call: call, lambda call: {**small_state(), "x": call}], ids=["bare", "hidden"]
)
def test_code_does_not_run(
    path: Path, save: Callable[[object, Path], None], wrap: Callable[[object], object]
) -> None:
    touched = path.with_name("touched")
    save(wrap(Calls(Path.touch, touched)), path)
    refused(path, "besides tensors it holds objects that could run code")
    save(wrap(Calls(exec, f"open({str(touched)!r}, 'w')")), path)
    refused(path, "besides tensors it holds objects that could run code")
    assert not touched.exists()


# --- more than there is -----------------------------------------------------------------------------


@both_formats
def test_objects_of_any_size_are_refused(path: Path, options: dict[str, Any]) -> None:
    torch.save({**small_state(), "x": [Calls(bytearray, HUGE)]}, path, **options)
    refused(path, "objects of any size")


@both_formats
@pytest.mark.parametrize("shape", [(HUGE // 4,), (1, HUGE // 16, 1, 4), (1, HUGE // 4, 1, 1)])
def test_huge_shapes_without_data_are_refused_unmade(
    path: Path, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    flat = torch.zeros(1).expand(shape)  # all strides 0
    torch.save({MARKER: flat, "last_conv.weight": flat}, path, **options)
    refused_network(path, "It looks like hd2s, but")
    complete = published.checkpoint("s3d_torchvision") | {"features.0.0.0.weight": flat}
    torch.save(complete, path, **options)
    with pytest.raises(
        WeightsError, match=r"weights\.pt does not fit.*another shape: levels\.0\.0\.0\.0\.weight"
    ):
        models.load_encoder(models.build("hd2s"), path)
    path.unlink()


@both_formats
def test_tensors_without_a_storage_are_refused(path: Path, options: dict[str, Any]) -> None:
    torch.save({MARKER: torch.empty(HUGE // 4, device="meta")}, path, **options)
    refused(path, f"claims to hold {HUGE}")
    torch.save({MARKER: torch.eye(2).to_sparse()}, path, **options)
    refused(path)


@pytest.mark.parametrize("nested", [False, True])
def test_a_legacy_file_that_claims_a_huge_storage_is_refused(path: Path, nested: bool) -> None:
    tensor = torch.zeros(12345)
    torch.save({**small_state(), "x": [tensor] if nested else tensor}, path, **LEGACY)
    data, number = path.read_bytes(), b"M" + struct.pack("<H", 12345)  # as pickle writes it
    assert number in data
    path.write_bytes(data.replace(number, b"\x8a\x05" + struct.pack("<q", HUGE // 4)[:5]))
    refused(path)


def rezip(path: Path, compression: int, **changes: bytes) -> None:
    """Write a checkpoint of 16 MiB and its archive anew, some entries (by the end of their names) changed."""
    torch.save({MARKER: torch.zeros(2**22)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, changes.get(name.rpartition("/")[2], content))
        if changes:
            archive.writestr(f"{path.stem}/padding", bytes(2**25))


def test_a_zip_bomb_is_refused(path: Path) -> None:
    rezip(path, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    refused(path, "it is compressed")
    rezip(path, zipfile.ZIP_STORED)
    assert io.read(path).family == "hd2s"


def test_a_storage_smaller_than_its_tensors_is_refused(path: Path) -> None:
    """Else foreign memory would be read."""
    rezip(path, zipfile.ZIP_STORED, **{"0": bytes(16)})
    refused(path, "record size")


def test_a_zip_that_claims_more_than_its_size_is_refused(path: Path) -> None:
    torch.save({MARKER: torch.zeros(1000)}, path)
    data = bytearray(path.read_bytes())
    entry = data.rfind(b"PK\x01\x02", 0, data.rfind(b"PK\x01\x02"))
    data[entry + 24 : entry + 28] = struct.pack("<I", 2**31)  # its size when unpacked
    path.write_bytes(data)
    refused(path, "claims to hold")


# --- safetensors ------------------------------------------------------------------------------------


def test_safetensors_with_a_huge_header_or_tensor_are_refused(path: Path) -> None:
    save_file(small_state(), path)
    path.write_bytes(struct.pack("<Q", HUGE) + path.read_bytes()[8:])
    refused(path)
    header = json.dumps({MARKER: {"dtype": "F32", "shape": [HUGE // 4], "data_offsets": [0, HUGE]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    refused(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    refused(path)
