"""Weight files: what is written is read back, and nothing damaged, foreign or unfit gets in."""

from __future__ import annotations

import json
import math
import pickle
import struct
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hd2s.errors import InputNotFoundError, WeightsError
from hd2s.types import InputSpec
from hd2s.weights import io

SPEC = InputSpec(height=64, width=96, num_frames=16, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
HEADER = io.Header(network="tiny", spec=SPEC, domains=("a", "b"), license="Apache-2.0")


def tiny_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    model(torch.randn(2, 2, 5, 5))  # statistics other than the initial ones
    return model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    io.save(path, tiny_model(), HEADER)
    return path


def load(path: Path, model: nn.Module) -> None:
    file = io.read(path)
    io.load_into(model, file.state, file)


# --- round trip -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_reads_what_it_wrote(tmp_path: Path, dtype: torch.dtype) -> None:
    path, written, read = tmp_path / "w.safetensors", tiny_model(0), tiny_model(1)
    io.save(path, written, HEADER, dtype=dtype)
    file = io.read(path)
    assert io.read_header(path) == file.header == HEADER
    assert (file.path, file.family, file.encoder_only, file.heads) == (path, None, False, {})
    io.load_into(read, file.state, file)
    for name, value in written.state_dict().items():
        found = read.state_dict()[name]
        assert found.dtype == value.dtype
        if name.endswith("num_batches_tracked"):
            continue  # not kept
        assert torch.equal(found, value.to(dtype).to(value.dtype))
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"], "a temporary file was left"


def test_writes_half_floats_without_counters_and_a_readable_header(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == {
            "0.weight",
            "0.bias",
            "1.weight",
            "1.bias",
            "1.running_mean",
            "1.running_var",
        }
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
        assert json.loads(file.metadata()["hd2s"])["input"]["num_frames"] == 16


def test_the_same_weights_make_the_same_file(path: Path, tmp_path: Path) -> None:
    for number in range(4):
        again = tmp_path / f"{number}.safetensors"
        io.save(again, tiny_model(), HEADER)
        assert again.read_bytes() == path.read_bytes()


def test_others_may_read_what_it_wrote(path: Path) -> None:
    plain = path.with_name("plain")
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_writes_tensors_that_are_not_contiguous(tmp_path: Path) -> None:
    model = tiny_model().to(memory_format=torch.channels_last)
    io.save(tmp_path / "w.safetensors", model, HEADER, dtype=torch.float32)
    read = tiny_model(1)
    load(tmp_path / "w.safetensors", read)
    assert torch.equal(read[0].weight, model[0].weight)


def test_a_header_needs_no_domains_and_no_licence(tmp_path: Path) -> None:
    path, header = tmp_path / "w.safetensors", io.Header(network="tiny", spec=SPEC)
    io.save(path, tiny_model(), header)
    assert io.read_header(path) == io.read(path).header == header
    with safe_open(path, framework="pt") as file:
        assert set(json.loads(file.metadata()["hd2s"])) == {"model", "input"}


class Twins(nn.Module):
    """Two layers that are the same, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = self.first
        self.other = nn.Linear(2, 3)


def test_shared_tensors_are_written_once_and_read_into_all_names(tmp_path: Path) -> None:
    path, written, read = tmp_path / "w.safetensors", Twins(), Twins()
    io.save(path, written, HEADER, dtype=torch.float32)
    assert set(io.read(path).state) == {"first.weight", "first.bias", "other.weight", "other.bias"}
    load(path, read)
    assert read.second.weight is read.first.weight
    assert torch.equal(read.second.weight, written.first.weight)


def test_equal_tensors_are_not_taken_for_shared_ones(tmp_path: Path) -> None:
    path, written = tmp_path / "w.safetensors", Twins()
    written.other.load_state_dict(written.first.state_dict())
    io.save(path, written, HEADER)
    assert "other.weight" in io.read(path).state


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_loads_into_a_model_of_another_type(path: Path, dtype: torch.dtype) -> None:
    model = tiny_model(1).to(dtype)
    load(path, model)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert torch.equal(model[0].weight, tiny_model()[0].weight.half().to(dtype))


@pytest.mark.parametrize("counter", [torch.tensor(7), torch.zeros(3), torch.tensor(1.5)])
def test_counters_of_batch_norm_may_be_there_and_are_ignored(tmp_path: Path, counter: Tensor) -> None:
    path, model = tmp_path / "w.safetensors", tiny_model(1)
    state = {**tiny_model().state_dict(), "1.num_batches_tracked": counter}
    save_file(state, path, metadata=written_metadata())
    before = model[1].num_batches_tracked.clone()
    load(path, model)
    assert torch.equal(model[0].weight, tiny_model()[0].weight)
    assert torch.equal(model[1].num_batches_tracked, before)


def written_metadata() -> dict[str, str]:
    return {"hd2s": json.dumps({"model": "tiny", "input": asdict(SPEC)})}


# --- files that are not what they should be ---------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def header_only(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def torch_file(path: Path) -> None:
    torch.save(tiny_model().state_dict(), path)


def text(path: Path) -> None:
    path.write_text("<html>404: not found</html>\n" * 20)


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 100 * 2**30) + path.read_bytes()[8:])


def huge_tensor(path: Path) -> None:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [25 * 2**30], "data_offsets": [0, 100 * 2**30]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)


DAMAGES = [truncated, header_only, empty, pickled, torch_file, text, huge_header, huge_tensor]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused(path: Path, damage: Callable[[Path], None]) -> None:
    damage(path)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors is not a whole safetensors file"):
        io.read_header(path)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors is "):
        io.read(path)


@pytest.mark.parametrize("read", [io.read_header, io.read])
def test_missing_files_and_folders_are_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for missing in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(InputNotFoundError, match=f"{missing.name} does not exist"):
            read(missing)


@pytest.mark.parametrize(
    "header",
    [
        None,
        {"format": "pt"},
        {"hd2s": "not JSON"},
        {"hd2s": "[1, 2]"},
        {"hd2s": "7"},
        {"hd2s": json.dumps({"model": "tiny"})},
        {"hd2s": json.dumps({"input": asdict(SPEC)})},
        {"hd2s": json.dumps({"model": "tiny", "input": 7})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "channels": 3}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "height": 0}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "height": "tall"}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "width": 2**20}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "num_frames": 2**30}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "std": [1, 1]}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "height": 64.0}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "width": math.nan}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "num_frames": True}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "mean": [0, 0, math.nan]}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "std": [1, 1, math.inf]}})},
        {"hd2s": json.dumps({"model": "tiny", "input": {**asdict(SPEC), "mean": ["a", "b", "c"]}})},
        {"hd2s": json.dumps({"model": ["tiny"], "input": asdict(SPEC)})},
        {"hd2s": json.dumps({"model": "tiny", "input": asdict(SPEC), "license": 7})},
        {"hd2s": json.dumps({"model": "tiny", "input": asdict(SPEC), "domains": 7})},
        {"hd2s": json.dumps({"model": "tiny", "input": asdict(SPEC), "domains": [7]})},
        {"hd2s": json.dumps({"model": "tiny", "input": asdict(SPEC), "domains": [["a"]]})},
        {"hd2s": "[" * 100_000},
    ],
)
def test_files_that_hd2s_did_not_write_are_refused(tmp_path: Path, header: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors does not say which hd2s network"):
        io.read_header(path)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors "):
        io.read(path)


def without_key(state: dict[str, Tensor]) -> None:
    del state["0.bias"]


def with_key(state: dict[str, Tensor]) -> None:
    state["2.weight"] = torch.zeros(1)


def reshaped(state: dict[str, Tensor]) -> None:
    state["0.bias"] = torch.zeros(1, 3)


def not_a_number(state: dict[str, Tensor]) -> None:
    state["1.running_var"][1] = torch.nan


def infinite(state: dict[str, Tensor]) -> None:
    state["0.weight"][0, 0] = torch.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_key, r"lacks 0\.bias and has unexpected nothing\."),
        (with_key, r"lacks nothing and has unexpected 2\.weight\."),
        (reshaped, r"has tensors of another shape: 0\.bias \(1, 3\) instead of \(3,\)\."),
        (not_a_number, r"has values that are not finite in: 1\.running_var\."),
        (infinite, r"has values that are not finite in: 0\.weight\."),
    ],
)
def test_states_that_do_not_fit_are_refused_whole(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    path, model = tmp_path / "unfit.safetensors", tiny_model(1)
    state = {name: value.clone() for name, value in tiny_model(0).state_dict().items()}
    change(state)
    save_file(state, path, metadata=written_metadata())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=rf"unfit\.safetensors does not fit\. It looks like tiny, but it {message}"
    ):
        load(path, model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_many_problems_are_counted_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    state = {f"{i}.weight": torch.zeros(1) for i in range(9)} | tiny_model().state_dict()
    save_file(state, path, metadata=written_metadata())
    with pytest.raises(WeightsError, match=r"has unexpected (\d\.weight, ){4}\d\.weight and 2 more"):
        load(path, tiny_model())
