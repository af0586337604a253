"""Recipes: what they say, what --set changes, and what is not allowed in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hd2s.errors import InputNotFoundError, RecipeError
from hd2s.training.recipe import MixRecipe, Recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
LITE = RECIPES / "lite.toml"


def value_of(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    if isinstance(recipe, MixRecipe):
        assert recipe.data.train_on == "train", "a recipe keeps something to validate on"
    assert type(recipe).model_validate_json(recipe.model_dump_json(by_alias=True)) == recipe


def test_a_missing_recipe_says_where_recipes_are(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputNotFoundError, match=f"{missing.name} does not exist.*recipes/"):
            load_recipe(missing)


@pytest.mark.parametrize("content", [b"model = ", b"[data\n", b"\xff\xfe", b"model = 'a'\nmodel = 'b'\n"])
def test_what_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"broken\.toml is not TOML"):
        load_recipe(path)


# --- --set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        ("optim.epochs=2", "optim.epochs", 2),
        ("optim.lr=1e-4", "optim.lr", 1e-4),
        ("optim.lr=1", "optim.lr", 1.0),
        ("seed=7", "seed", 7),
        ("data.train_on=all", "data.train_on", "all"),
        ('data.train_on="all"', "data.train_on", "all"),
        ("data.root=/some where/a=b", "data.root", Path("/some where/a=b")),
        ("data.root=gaze-2.0", "data.root", Path("gaze-2.0")),
        ("validate.every_seconds=0.5", "validate_.every_seconds", 0.5),
        ("data.min_fixations=3", "data.min_fixations", 3),  # not in the file: a default is replaced
    ],
)
def test_a_change_replaces_one_value(change: str, key: str, expected: object) -> None:
    assert value_of(load_recipe(LITE, [change]), key) == expected


def test_the_last_change_wins_and_the_rest_stays() -> None:
    changed, plain = load_recipe(LITE, ["optim.epochs=2", "optim.epochs=3"]), load_recipe(LITE)
    assert changed.optim.epochs == 3
    assert changed.data == plain.data
    assert changed.optim.lr == plain.optim.lr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epochs", r"takes KEY=VALUE such as optim\.epochs=2, got 'epochs'"),
        ("=2", "takes KEY=VALUE.*got '=2'"),
        ("", "takes KEY=VALUE.*got ''"),
        ("seed.more=2", r"--set seed.more=2: 'seed' is no table here. There are: data, images,"),
    ],
)
def test_changes_that_are_none_are_refused(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(LITE, [change])


# --- keys and values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("optim.epoch=2", r"optim\.epoch: unknown key, got 2\. Did you mean 'epochs'\? Known: clip_norm, "),
        ("colour=red", r"colour: unknown key, got 'red'\. Known: augment, data, "),
        ("traning.lr=1", r"traning: unknown key, got \{'lr': 1\}"),
        ("optim.epochs=many", r"optim\.epochs: .*valid integer.*got 'many'"),
        ("data.fold=6", r"data\.fold: .*less than or equal to 5, got 6"),
        ("optim.epochs=2.5", r"optim\.epochs: .*got 2\.5"),
        ("optim.epochs=0", r"optim\.epochs: .*greater than 0, got 0"),
        ("optim.lr=-1", r"optim\.lr: .*greater than 0, got -1"),
        ("optim.lr=inf", r"optim\.lr: .*finite number, got inf"),
        ("optim.lr=nan", r"optim\.lr: .*got nan"),
        ("optim.ema=1", r"optim\.ema: .*less than 1, got 1"),
        ("augment.crop=1.5", r"augment\.crop: .*less than or equal to 1, got 1\.5"),
        ("augment.min_side=0", r"augment\.min_side: .*greater than 0, got 0"),
        ("augment.max_step=0.5", r"augment\.max_step: .*greater than or equal to 1, got 0\.5"),
        ("data.stills=-1", r"data\.stills: .*greater than or equal to 0, got -1"),
        ("data.train_on=some", r"data\.train_on: .*'train' or 'all', got 'some'"),
        ("model=hd2s-heavy", r"model: .*'hd2s-lite', got 'hd2s-heavy'"),
        ("data=none", r"data: .*got 'none'"),
        ("validate.every_seconds=0", r"validate\.every_seconds: .*got 0"),
    ],
)
def test_keys_and_values_that_are_not_allowed_are_named(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"lite\.toml is not a valid recipe:\n  {message}"):
        load_recipe(LITE, [change])


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(RecipeError, match=r"optim\.lr: [^\n]*\n  optim\.lrr: [^\n]*$"):
        load_recipe(LITE, ["optim.lr=0", "optim.lrr=1"])


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(re.sub(r"^batches = .*\n", "", LITE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    with pytest.raises(RecipeError, match=r"  data\.batches: Field required$"):
        load_recipe(path)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match="a batch needs at least one of stills, pans and clips"):
        load_recipe(LITE, ["data.stills=0", "data.pans=0", "data.clips=0"])


def test_recipes_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(LITE).optim.lr = 1.0  # type: ignore[misc]
