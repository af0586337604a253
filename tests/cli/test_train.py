"""`hd2s train` as a user sees it; what training does is tested in tests/training."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from command import run

pytest.importorskip("lightning")
pytest.importorskip("pydantic")

import hd2s.training.run

RECIPE = Path(__file__).parents[2] / "recipes" / "lite.toml"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Path]]:
    """Replace the training itself; gives what it was called with."""
    seen: list[tuple[Any, Path]] = []

    def train(recipe: Any, output: Path) -> Path:
        seen.append((recipe, output))
        return output / "weights.safetensors"

    monkeypatch.setattr(hd2s.training.run, "train", train)
    return seen


def test_recipe_is_resolved_and_the_weight_file_printed(
    calls: list[tuple[Any, Path]], tmp_path: Path
) -> None:
    outcome = run("train", RECIPE, "--set", "optim.epochs=2", "--set", "data.root=my gaze", "-o", tmp_path)
    assert (outcome.status, outcome.stdout) == (0, f"{tmp_path / 'weights.safetensors'}\n")
    ((recipe, output),) = calls
    assert (recipe.optim.epochs, str(recipe.data.root), output) == (2, "my gaze", tmp_path)


def test_run_is_named_after_its_recipe(calls: list[tuple[Any, Path]]) -> None:
    assert run("train", RECIPE).stdout == f"{Path('runs', 'lite', 'weights.safetensors')}\n"
    assert calls[0][1] == Path("runs", "lite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.epochs=many", ["optim.epochs", "many"]),
        ("optim.epoch=2", ["optim.epoch"]),
        ("optim.epochs", ["--set takes KEY=VALUE", "optim.epochs"]),
    ],
)
def test_wrong_recipe_is_a_usage_error(
    calls: list[tuple[Any, Path]], change: str, message: list[str]
) -> None:
    outcome = run("train", RECIPE, "--set", change)
    assert (outcome.status, outcome.stdout, calls) == (2, "", [])
    for part in message:
        assert part in outcome.stderr


def test_missing_recipe(calls: list[tuple[Any, Path]], tmp_path: Path) -> None:
    outcome = run("train", tmp_path / "gone.toml")
    assert (outcome.status, outcome.stdout, calls) == (1, "", [])
    assert f"hd2s: The recipe {tmp_path / 'gone.toml'} does not exist." in outcome.stderr


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = builtins.__import__

    def without_lightning(name: str, *arguments: Any) -> Any:
        if name == "lightning":
            raise ModuleNotFoundError("No module named 'lightning'", name="lightning")
        return import_module(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_lightning)
    outcome = run("train", RECIPE)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert (
        outcome.stderr
        == "hd2s: Training needs more packages (lightning): run pip install '.[train]' in a clone of hd2s.\n"
    )


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(recipe: Any, output: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(hd2s.training.run, "train", interrupted)
    outcome = run("train", RECIPE)
    assert (outcome.status, outcome.stdout) == (130, "")
    assert outcome.stderr.startswith("hd2s: interrupted; ")
