"""Checkpoints from anywhere: bare or wrapped, whole or damaged, with values that are weights or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import published
from hd2s import models
from hd2s.errors import InputNotFoundError, WeightsError
from hd2s.weights import io
from hd2s.weights.checkpoint import read_checkpoint
from published import MARKER, refused, refused_network, small_state

ZIP, LEGACY = {}, {"_use_new_zipfile_serialization": False}
both_formats = pytest.mark.parametrize("options", [ZIP, LEGACY], ids=["zip", "legacy"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pt"


# --- state dicts, bare and wrapped ------------------------------------------------------------------


@both_formats
@pytest.mark.parametrize(
    "wrappers", [(), ("state_dict",), ("model",), ("student_model",), ("model", "state_dict")]
)
def test_finds_the_state_dict(path: Path, wrappers: tuple[str, ...], options: dict[str, Any]) -> None:
    content: dict[str, Any] = small_state()
    for wrapper in wrappers:
        content = {"epoch": 3, wrapper: content, "optimizer": {"state": {0: torch.zeros(5)}, "lr": [1e-3]}}
    torch.save(content, path, **options)
    found = read_checkpoint(path)
    assert list(found) == list(small_state())
    assert all(torch.equal(found[name], value) for name, value in small_state().items())


@both_formats
def test_views_of_one_storage_count_once(path: Path, options: dict[str, Any]) -> None:
    whole = torch.arange(1000.0)
    torch.save({"a": whole, "b": whole, "c": whole[10:20], "d": whole.view(10, 100).T}, path, **options)
    found = read_checkpoint(path)
    assert torch.equal(found["d"], whole.view(10, 100).T)
    assert torch.equal(found["c"], whole[10:20])


def test_reads_safetensors_of_others(path: Path) -> None:
    save_file(small_state(), path)
    assert torch.equal(read_checkpoint(path)[MARKER], small_state()[MARKER])
    file = io.read(path)
    assert (file.family, file.header.network) == ("hd2s", "hd2s")
    refused_network(path, r"It looks like hd2s, but it lacks encoder\.levels\.0\.0\.0\.1\.weight")


@both_formats
@pytest.mark.parametrize(
    "content", [None, 3, [1, 2], "text", torch.zeros(2), {}, {"epoch": 3}, {"model": {"lr": 1.0}}]
)
def test_files_without_a_state_dict_are_refused(path: Path, content: object, options: dict[str, Any]) -> None:
    torch.save(content, path, **options)
    refused(path, "holds no state dict, neither bare nor under one of state_dict, model, student_model")


def test_a_dict_that_holds_itself_is_refused(path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, path)
    refused(path, "holds no state dict")


def test_unknown_names_are_refused_with_the_known_kinds(path: Path) -> None:
    torch.save({"backbone.weight": torch.zeros(1)}, path)
    refused(
        path, r"no checkpoint that hd2s knows.*hd2s_dsl, hd2s_da, hd2s, s3d_kinetics400, s3d_torchvision, eff"
    )


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.pt", tmp_path):
        for read in (io.read, read_checkpoint):
            with pytest.raises(InputNotFoundError, match=f"{missing.name} does not exist"):
                read(missing)


# --- values -----------------------------------------------------------------------------------------


def changed(value: Tensor, how: str) -> Tensor:
    other = value.clone()
    if how in ("nan", "inf"):
        other.view(-1)[-1] = float(how)
        return other
    return {
        "double": other.double() * 1e300,
        "complex": other + 0j,
        "int": other.int(),
        "bool": other.bool(),
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "values that are not finite in: levels.3.2.branches.1.0.0.weight"),
        ("inf", "values that are not finite in: levels.3.2.branches.1.0.0.weight"),
        ("double", "values that are not finite in: levels.3.2.branches.1.0.0.weight"),  # in float32
        ("complex", "not of floating point numbers: levels.3.2.branches.1.0.0.weight"),
        ("int", "not of floating point numbers: levels.3.2.branches.1.0.0.weight"),
        ("bool", "not of floating point numbers: levels.3.2.branches.1.0.0.weight"),
    ],
)
def test_values_that_are_no_weights_are_refused(how: str, message: str) -> None:
    name, content = "base.10.branch1.0.conv.weight", published.checkpoint("s3d_kinetics400")
    content[name] = changed(content[name], how)
    file = published.read_state(content)
    with torch.device("meta"):
        model = models.build("hd2s")
    with pytest.raises(
        WeightsError, match=rf"state\.pt does not fit\. It looks like s3d_kinetics400.*{message}"
    ):
        io.load_into(model.encoder, file.state, file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_become_those_of_the_model(dtype: torch.dtype) -> None:
    content = published.checkpoint("s3d_kinetics400")
    file = published.read_state({name: value.to(dtype) for name, value in content.items()})
    model = models.build("hd2s")
    io.load_into(model.encoder, file.state, file)
    first = model.encoder.levels[0][0][0][0].weight
    assert first.dtype == torch.float32
    assert torch.equal(first, content["base.0.conv_s.weight"].to(dtype).float())


# --- damage -----------------------------------------------------------------------------------------


def written(path: Path, options: dict[str, Any]) -> bytes:
    torch.save({MARKER: torch.zeros(20, 20)}, path, **options)
    return path.read_bytes()


@both_formats
def test_truncated_files_are_refused_wherever_they_end(path: Path, options: dict[str, Any]) -> None:
    data = written(path, options)
    for end in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:end])
        refused(path)


@both_formats
def test_changed_bytes_are_refused_or_harmless(path: Path, options: dict[str, Any]) -> None:
    data = written(path, options)
    random = published.rng("damage")
    for _ in range(25):
        damaged = bytearray(data)
        for position in random.integers(0, len(data), 3):
            damaged[position] = random.integers(0, 256)
        path.write_bytes(damaged)
        try:
            io.read(path)
        except WeightsError as error:
            assert path.name in str(error)  # noqa: PT017 (some damage is not noticed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"{",
        b"PK\x03\x04",
        b"\x80\x02",
        b"\x80\x02.",
        b"<html>404: not found</html>\n" * 20,
        b"\0" * 5000,
    ],
)
def test_other_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("end", [8, 9, 20, 60, -1])
def test_truncated_safetensors_are_refused(path: Path, end: int) -> None:
    save_file(small_state(), path)
    path.write_bytes(path.read_bytes()[:end])
    refused(path)
