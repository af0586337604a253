"""Whole runs of the three methods on tiny data: they end in weights, whatever happens on the way."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file

import hd2s
from fakes import make_gaze_pack, make_video
from hd2s.errors import DatasetFormatError, DatasetNotFoundError, InputNotFoundError, TrainingError
from hd2s.models import DomainHD2S
from hd2s.training import run
from hd2s.training.callbacks import resume_point
from hd2s.training.plots import plot_run, read_curves
from hd2s.training.recipe import ClipRecipe, load_recipe

TOML = """
model = "hd2s-lite"
method = "supervised"
seed = 1
height = 32
width = 64
[[source]]
name = "gaze"
root = "{root}"
hold_out = 0.3
[data]
batch = 2
workers = 0
[optim]
kind = "adam"
lr = 1e-3
steps = 3
[check]
every = 1
validate_every = 3
every_frame = 9
"""
TARGET = '[[target]]\nname = "wild"\nroot = "{targets}"\n'
SECOND = '[[source]]\nname = "again"\nroot = "{root}"\nhold_out = 0.3\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "targets").mkdir()
    make_video(folder / "targets" / "wild.mp4", num_frames=18, height=64, width=96)
    return {"root": make_gaze_pack(folder / "gaze", images=2), "targets": folder / "targets"}


def written(folder: Path, data: dict[str, Path], *, tables: str = "", **replaced: str) -> Path:
    """Write a recipe; `replaced` are lines such as method='"adversarial"'."""
    text = TOML.replace("[data]\n", f"{tables}[data]\n").format(**data)
    for key, value in replaced.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines()]
        text = "\n".join(lines)
    path = folder / "tiny.toml"
    path.write_text(text)
    return path


def command(recipe: Path, output: Path, *changes: str) -> list[str]:
    script = Path(sys.executable).with_name("hd2s")  # Lightning starts further processes by the script's name
    changed = [word for change in changes for word in ("--set", change)]
    return [sys.executable, str(script), "train", str(recipe), "-o", str(output), *changed]


def same(first: Path, second: Path, atol: float = 0.0) -> bool:
    a, b = load_file(first), load_file(second)
    return a.keys() == b.keys() and all(
        torch.allclose(a[k].float(), b[k].float(), atol=atol, rtol=0) for k in a
    )


# --- methods ----------------------------------------------------------------------------------------


def test_a_supervised_run_leaves_weights_curves_and_pictures(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, data), ["check.pictures_every=2", "optim.ema=0.5"])
    weights = run.train(recipe, tmp_path / "run")
    model = hd2s.load(weights=weights)
    assert (model.spec.height, model.spec.width) == (32, 64)
    assert {p.name for p in weights.parent.iterdir()} >= {
        "best.ckpt",
        "last.ckpt",
        "tensorboard",
        "recipe.json",
    }
    picture = cv2.imread(str(weights.parent / "pictures" / "step_000002.png"))
    assert picture.shape == (32, 7 * 64, 3)
    assert picture[:, 64:128].max() == 255  # the ground truth
    curves = read_curves(weights.parent)
    assert {"train/gaze/output", "train/gaze/level2", "val/gaze/kl", "lr-Adam/encoder"} <= set(curves)
    assert all(0 <= value <= 1 for value in curves["speed/waiting_share"].values())
    assert min(curves["speed/clips_per_s"].values()) > 0
    pytest.importorskip("matplotlib")
    drawn = plot_run(weights.parent)
    assert cv2.imread(str(drawn)) is not None


def test_half_precision_trains_alike(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, data)
    plain, other = (
        run.train(load_recipe(recipe, changes), tmp_path / name)
        for name, changes in (("plain", []), ("other", ['optim.precision="bf16-mixed"']))
    )
    assert load_file(plain).keys() == load_file(other).keys()
    losses = [list(read_curves(weights.parent)["train/gaze/output"].values()) for weights in (plain, other)]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


@pytest.mark.needs_exact_runs
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # while it traces
def test_a_compiled_run_ends_with_the_same_weights(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: set[str] = set()

    def traced(module: torch.nn.Module) -> None:
        """Capture the graphs as for the default back end, which then takes minutes to build kernels."""
        traced_call = torch.compile(module._call_impl, backend="eager")

        def call(*inputs: torch.Tensor) -> object:
            ran.add(f"{type(module).__name__} {id(module)}")
            return traced_call(*inputs)

        module._compiled_call_impl = call  # type: ignore[assignment]

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    recipe = written(tmp_path, data, steps="2", validate_every="2")
    plain, other = (
        run.train(load_recipe(recipe, changes), tmp_path / name)
        for name, changes in (("plain", []), ("other", ["optim.compile=true"]))
    )
    assert sorted(name.split()[0] for name in ran) == ["Decoder"] * 4 + ["EfficientNetLite0"]
    assert same(plain, other, atol=1e-6)


def test_a_domain_specific_run_makes_weights_for_each_source(data: dict[str, Path], tmp_path: Path) -> None:
    tables = SECOND.format(**data)
    recipe = load_recipe(written(tmp_path, data, tables=tables, method='"domain_specific"'))
    weights = run.train(recipe, tmp_path / "run")
    model = hd2s.load(weights=weights)
    assert isinstance(model, DomainHD2S)
    assert model.domains == ("gaze", "again")
    curves = read_curves(weights.parent)
    assert set(curves["sigma/gaze"].values()) != set(curves["sigma/again"].values())
    assert {"val/gaze/kl", "val/again/kl", "train/again/level5"} <= set(curves)


def test_an_adversarial_run_leaves_a_plain_network(data: dict[str, Path], tmp_path: Path) -> None:
    path = written(tmp_path, data, tables=TARGET.format(**data), method='"adversarial"')
    weights = run.train(load_recipe(path), tmp_path / "run")
    assert isinstance(hd2s.load(weights=weights), hd2s.models.HD2SLite)
    curves = read_curves(weights.parent)
    alphas = [value for _, value in sorted(curves["domain/alpha"].items())]
    assert alphas[0] == 0
    assert alphas == sorted(alphas)
    assert all(0 <= value <= 1 for value in curves["domain/level3"].values())


@pytest.mark.slow
def test_the_papers_network_trains(data: dict[str, Path], tmp_path: Path) -> None:
    path = written(tmp_path, data, model='"hd2s"', batch="1", steps="1", validate_every="1", height="64")
    weights = run.train(load_recipe(path, ["check.every_frame=18"]), tmp_path / "run")
    assert hd2s.load("hd2s", weights).spec.height == 64


# --- what happens to runs ---------------------------------------------------------------------------


@pytest.mark.needs_exact_runs
@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, data)
    subprocess.run(command(recipe, tmp_path / "whole"), check=True, capture_output=True)
    process = subprocess.Popen(
        command(recipe, tmp_path / "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "weights.safetensors").exists(), "it was killed too late"
    subprocess.run(command(recipe, tmp_path / "killed"), check=True, capture_output=True)
    assert same(tmp_path / "whole" / "weights.safetensors", tmp_path / "killed" / "weights.safetensors")
    with (tmp_path / "killed" / "metrics" / "version_1" / "metrics.csv").open(newline="") as file:
        assert {row["step"] for row in csv.DictReader(file)} <= {"1", "2"}, "it began anew"


@pytest.mark.needs_exact_runs
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(written(tmp_path, data))
    first = run.train(recipe, tmp_path / "run").rename(tmp_path / "first.safetensors")
    last = tmp_path / "run" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    assert resume_point(tmp_path / "run") == tmp_path / "run" / "previous.ckpt"
    assert "last.ckpt is damaged" in caplog.text
    assert same(first, run.train(recipe, tmp_path / "run"))
    for name in ("last.ckpt", "previous.ckpt"):
        (tmp_path / "run" / name).write_bytes(b"damaged")
    with pytest.raises(
        TrainingError, match=r"All checkpoints in .*run are damaged: last\.ckpt, previous\.ckpt"
    ):
        run.train(recipe, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_doubled_batch(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = written(tmp_path, data, batch="4")
    weights = []
    for devices in (1, 2):
        output = tmp_path / f"run{devices}"
        changes = (f"devices={devices}", "optim.norms=frozen", "optim.steps=2", "check.validate_every=1")
        environment, words = os.environ | {"OMP_NUM_THREADS": "1"}, command(recipe, output, *changes)
        done = subprocess.run(words, capture_output=True, env=environment, text=True)
        assert done.returncode == 0, done.stderr
        weights.append(output / "weights.safetensors")
    assert same(*weights, atol=1e-4)


# --- what is refused --------------------------------------------------------------------------------


def test_missing_data_is_named(data: dict[str, Path], tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, data), [f"source.gaze.root={tmp_path / 'gone'}"])
    assert isinstance(recipe, ClipRecipe)
    with pytest.raises(InputNotFoundError, match="gone"):
        run.train(recipe, tmp_path / "run")
    recipe = load_recipe(written(tmp_path, data), [f"source.gaze.root={data['targets']}"])
    with pytest.raises((DatasetNotFoundError, DatasetFormatError)):
        run.train(recipe, tmp_path / "other")


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (OSError(28, "No space left on device"), r"The disk is full.*Make room"),
        (RuntimeError("insufficient shared memory (shm)"), r"too little shared memory.*data\.workers=0"),
    ],
)
def test_limits_of_the_machine_are_explained(
    data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: Exception, advice: str
) -> None:
    def fails(*_: object) -> None:
        raise message

    monkeypatch.setattr(run, "train_on_clips", fails)
    with pytest.raises((OSError, TrainingError), match=advice):
        run.train(load_recipe(written(tmp_path, data)), tmp_path / "run")
