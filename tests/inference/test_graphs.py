"""OpenVINO's graphs are built once, kept in a cache that may break, and then need no PyTorch."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fakes import SMALL_SPEC, lively_model, make_video
from hd2s.errors import InputNotFoundError, UnknownNameError, WeightsError
from hd2s.models import HD2SOutput
from hd2s.weights import io
from hd2s.weights.cache import cache_folder

pytest.importorskip("openvino")
from hd2s.inference import conversion  # noqa: E402
from hd2s.inference.graphs import Graphs  # noqa: E402

SHAPES = [(1, 2, 2, 3)]  # frames (N, H, W, 3)


class Scaled(nn.Module):
    """The smallest network worth a graph: its features are the normalised frames times a weight."""

    spec = SMALL_SPEC

    def __init__(self, weight: float = 2.0, offset: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 1, 1), weight))
        self.offset = offset

    def encode(self, frames: Tensor) -> list[Tensor]:
        return [frames * self.weight + self.offset]

    def slide(self, features: Sequence[Tensor]) -> HD2SOutput:
        maps = features[0][SMALL_SPEC.num_frames - 1 :]
        return HD2SOutput(maps[:, 0], maps)


def compute(compiled: Any) -> list[float]:
    """What the first pixel is encoded to; white is 1 when normalised."""
    white = np.full(SHAPES[0], 255, np.uint8)
    return [round(float(v), 5) for v in compiled([white])[0][0, 0, 0]]


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A cache folder of the test's own, and a list that grows with each conversion."""
    done: list[str] = []
    convert = conversion.convert

    def counted(model: Any, part: str, shapes: Sequence[Sequence[int]], precision: str) -> Any:
        done.append(part)
        return convert(model, part, shapes, precision)

    monkeypatch.setattr(conversion, "convert", counted)
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path / "cache"))
    return done


def entry(tmp_path: Path) -> Path:
    """The only graph in the cache."""
    (path,) = (tmp_path / "cache" / "openvino").glob("*/encode*")
    return path


def test_a_graph_is_built_once_and_then_read(tmp_path: Path, builds: list[str]) -> None:
    built, read = (Graphs.of(Scaled()).compiled("encode", SHAPES) for _ in range(2))
    assert compute(built) == compute(read) == [2, 2, 2]
    assert builds == ["encode"]
    names = sorted(path.name for path in entry(tmp_path).parent.iterdir())
    assert names == ["encode, 1, float32", "input.json"]


@pytest.mark.parametrize(
    ("model", "part", "shapes"),
    [
        (Scaled(), "slide", [(16, 2, 2, 3)]),
        (Scaled(3.0), "encode", SHAPES),
        (Scaled(offset=1), "encode", SHAPES),
        (Scaled(), "encode", [(2, 2, 2, 3)]),
    ],
    ids=["part", "weights", "settings", "size"],
)
def test_other_parts_weights_settings_and_sizes_are_other_graphs(
    builds: list[str], model: nn.Module, part: str, shapes: list[tuple[int, ...]]
) -> None:
    Graphs.of(Scaled()).compiled("encode", SHAPES)
    Graphs.of(model).compiled(part, shapes)
    assert builds == ["encode", part]


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def refused_by_openvino(path: Path) -> None:
    """A whole file, but of another version of OpenVINO."""
    data = path.read_bytes()[32:].replace(b"ov=20", b"ov=19")
    path.write_bytes(hashlib.sha256(data).digest() + data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flip(path, 5),
        lambda path: flip(path, 100),
        lambda path: flip(path, -1),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        refused_by_openvino,
    ],
)
def test_a_damaged_graph_is_built_again(
    tmp_path: Path, builds: list[str], damage: Callable[[Path], object]
) -> None:
    Graphs.of(Scaled()).compiled("encode", SHAPES)
    damage(entry(tmp_path))
    _, mended = (Graphs.of(Scaled()).compiled("encode", SHAPES) for _ in range(2))
    assert len(builds) == 2, "built once more, not twice"
    assert compute(mended) == [2, 2, 2]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, builds: list[str]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert compute(Graphs.of(Scaled()).compiled("encode", SHAPES)) == [2, 2, 2]
    assert len(builds) == 1


def test_an_interrupted_save_leaves_nothing_behind(
    tmp_path: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*args: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", disk_full)
    assert compute(Graphs.of(Scaled()).compiled("encode", SHAPES)) == [2, 2, 2]
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_another_precision_is_another_graph(tmp_path: Path, builds: list[str]) -> None:
    for precision in ("float32", "bfloat16"):
        for _ in range(2):
            Graphs.of(Scaled(), precision=precision).compiled("encode", SHAPES)
    assert len(builds) == 2


SIGNAL = """
import signal, subprocess, sys
import openvino
from hd2s.inference.graphs import Graphs
signal.signal(signal.SIGCHLD, lambda *_: None)
graphs = [Graphs.stored("hd2s-lite", sys.argv[1]) for _ in range(2)]
del graphs[0], graphs[0]
subprocess.run([sys.executable, "-c", ""], check=True)
"""


def test_a_signal_finds_its_stack_when_networks_have_gone(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path / "cache"))
    subprocess.run([sys.executable, "-c", SIGNAL, weights], timeout=120, check=True)


def test_weights_that_change_later_are_not_those_of_the_graphs(builds: list[str]) -> None:
    Graphs.of(Scaled()).compiled("encode", SHAPES)
    model = Scaled()
    graphs = Graphs.of(model)
    with torch.no_grad():
        model.weight.mul_(5)
    other = [(3, 2, 2, 3)]
    graphs.compiled("encode", other)
    white = np.full(other[0], 255, np.uint8)
    assert Graphs.of(Scaled()).compiled("encode", other)([white])[0].max() == pytest.approx(2)
    assert builds == ["encode", "encode"]


def test_the_code_of_a_layer_counts(builds: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("one", "one", "another"):
        monkeypatch.setattr(inspect, "getsource", lambda kind, code=code: code)
        Graphs.of(Scaled()).compiled("encode", SHAPES)
    assert builds == ["encode", "encode"]


def test_building_leaves_the_network_as_it_is(builds: list[str]) -> None:
    model = Scaled()
    Graphs.of(model).compiled("encode", SHAPES)
    assert model.weight.requires_grad
    assert model.training


def test_the_cache_folder_is_the_users_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    for unset in ("", None):
        monkeypatch.setenv("HD2S_CACHE", "") if unset == "" else monkeypatch.delenv("HD2S_CACHE")
        assert cache_folder().name == "hd2s"
        assert cache_folder() != tmp_path


# --- networks that are not loaded -------------------------------------------------------------------

START = """
import json, sys
from hd2s.cli.app import app
app(sys.argv[1:], standalone_mode=False)
print(json.dumps("torch" in sys.modules))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of a small `hd2s-lite`."""
    path = tmp_path / "small.safetensors"
    io.save(path, lively_model(), io.Header(network="hd2s-lite", spec=SMALL_SPEC))
    return path


def test_a_start_with_cached_graphs_does_without_torch(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path / "cache"))
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=20), tmp_path / "out"
    command = [sys.executable, "-c", START, "predict", clip, "--weights", weights, "--overwrite"]
    loaded, tables = [], []
    for _ in range(2):
        done = subprocess.run(
            [*command, "-o", out, "--save", "csv,overlay,maps,video,gif"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        loaded.append(json.loads(done.stdout.splitlines()[-1]))
        tables.append((out / "clip.csv").read_text())
    assert loaded == [True, False]
    assert tables[0] == tables[1]


def test_changed_weights_are_other_graphs(builds: list[str], weights: Path) -> None:
    shapes = [(1, SMALL_SPEC.height, SMALL_SPEC.width, 3)]
    for _ in range(2):
        Graphs.stored("hd2s-lite", weights).compiled("encode", shapes)
    assert len(builds) == 1
    io.save(weights, lively_model(seed=1), io.Header(network="hd2s-lite", spec=SMALL_SPEC))
    Graphs.stored("hd2s-lite", weights).compiled("encode", shapes)
    assert len(builds) == 2


def test_what_cannot_be_loaded_is_refused_at_once(builds: list[str], tmp_path: Path, weights: Path) -> None:
    with pytest.raises(InputNotFoundError, match="gone"):
        Graphs.stored("hd2s-lite", tmp_path / "gone.safetensors")
    with pytest.raises(UnknownNameError, match="hd2s-light"):
        Graphs.stored("hd2s-light")
    with pytest.raises(UnknownNameError, match="mars"):
        Graphs.stored("hd2s-lite", weights, "mars")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsError):
        Graphs.stored("hd2s-lite", weights)


def test_the_cache_keeps_the_networks_that_were_used_last(tmp_path: Path, builds: list[str]) -> None:
    cache = tmp_path / "cache" / "openvino"
    for age in range(20):
        (cache / f"network {age}").mkdir(parents=True)
        os.utime(cache / f"network {age}", (age - 10**9, age - 10**9))
    Graphs.of(Scaled(1.0)).compiled("encode", SHAPES)
    left = {path.name for path in cache.iterdir()}
    assert {name for name in left if name.startswith("network")} == {
        f"network {age}" for age in range(13, 20)
    }
    assert len(left) == 8
    (first,) = (path for path in cache.iterdir() if not path.name.startswith("network"))
    os.utime(first, (0, 0))
    Graphs.of(Scaled(1.0))  # is used again: the oldest of the others goes
    Graphs.of(Scaled(3.0)).compiled("encode", SHAPES)
    assert first.is_dir()
    assert not (cache / "network 13").exists()
    assert compute(Graphs.of(Scaled(1.0)).compiled("encode", SHAPES)) == [1, 1, 1]
    assert builds == ["encode", "encode"]


def test_openvino_reports_nothing_to_a_server() -> None:
    code = "import sys, hd2s.inference.graphs; print(sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None", "which keeps it from being imported"
