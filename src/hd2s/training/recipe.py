"""Recipes: TOML files that say all there is to say about a training run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from hd2s.data.datasets.gaze import FOLDS, VALIDATION_VIDEOS
from hd2s.errors import InputNotFoundError, RecipeError
from hd2s.training.clip_recipe import ClipRecipe, Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class DataTable(Table):
    """Where the gaze is and what a batch is made of."""

    root: Path
    """The gaze pack; a relative path counts from the working directory."""
    train_on: Literal["train", "all"] = "train"
    """`all` trains on the validation part too: nothing is left to score."""
    fold: int | None = Field(None, ge=1, le=len(FOLDS))
    """Hold out the videos of this fold of the cross-validation instead of the validation videos."""
    stills: int = Field(ge=0)
    """Images in a batch, as clips in which nothing moves."""
    pans: int = Field(ge=0)
    """Images in a batch turned into clips by a synthetic pan or zoom."""
    clips: int = Field(ge=0)
    """Clips of videos in a batch."""
    bars: float = Field(0.0, ge=0, le=1)
    """Share of the stills and clips that are a whole picture between black bars."""
    batches: int = Field(gt=0)
    """Batches in an epoch."""
    min_fixations: int = Field(5, ge=1)
    """Video frames with fewer active fixations are neither trained on nor validated."""
    workers: int = Field(1, ge=0)
    """Processes that prepare batches."""

    @property
    def held_out(self) -> frozenset[str]:
        """The videos for validation."""
        return VALIDATION_VIDEOS if self.fold is None else FOLDS[self.fold - 1]

    @model_validator(mode="after")
    def _not_empty(self) -> DataTable:
        if not self.stills + self.pans + self.clips:
            raise ValueError("a batch needs at least one of stills, pans and clips")
        return self


class AugmentTable(Table):
    """Random changes of a training sample."""

    crop: float = Field(ge=0, le=1)
    """Probability of a random crop."""
    min_side: float = Field(gt=0, le=1)
    """Smallest side of a crop (and of the window of a pan), as a fraction of the picture's."""
    max_side: float = Field(1.0, ge=1)
    """Largest side of a crop: above 1, with black bars."""
    brightness: float = Field(ge=0)
    """Largest shift, in units of the normalised input."""
    contrast: float = Field(ge=0, lt=1)
    """Largest relative change of contrast."""
    grey: float = Field(0.0, ge=0, le=1)
    """Probability that a sample loses its colours."""
    blur: float = Field(0.0, ge=0, le=1)
    """Probability that a sample is blurred, by up to 1 % of its width."""
    max_step: float = Field(ge=1)
    """Frames of a clip are between 1 and so many video frames apart."""


class ImagesTable(Table):
    """The first epochs, which show images alone: there are more of them than videos, and they cost less."""

    epochs: int = Field(ge=0)
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    encoder_lr: float = Field(ge=0)


class OptimTable(Table):
    """AdamW; in each of the two phases the learning rates rise linearly and fall along a cosine."""

    epochs: int = Field(gt=0)
    """Epochs with videos, after those with images alone."""
    lr: float = Field(gt=0)
    encoder_lr: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of a phase in which the learning rates rise."""
    clip_norm: float = Field(gt=0)
    """Gradients are scaled down to this norm."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is validated and saved."""


class OutputTable(Table):
    """What is done to the trained network's output: log-odds z become scale * z + shift.

    A network trained by KL divergence flattens the tops of its peaks on videos that it has not seen; CC and
    NSS gain where they are drawn out again.
    """

    scale: float = Field(gt=0)
    shift: float


class ValidateTable(Table):
    """How the validation part is scored after each epoch."""

    every_seconds: float = Field(gt=0)
    """Video frames are scored at this distance, from the first whole clip on."""


class MixRecipe(Table):
    """The training of the weights that come along, on stills, pans and clips of the gaze pack."""

    model: Literal["hd2s-lite"]
    seed: int = Field(ge=0)
    data: DataTable
    images: ImagesTable
    augment: AugmentTable
    optim: OptimTable
    validate_: ValidateTable = Field(alias="validate")
    output: OutputTable

    def phase(self, epoch: int) -> ImagesTable | OptimTable:
        """The table that holds in an epoch: that of the images, which come first, or that with videos."""
        return self.images if epoch < self.images.epochs else self.optim


Recipe: TypeAlias = MixRecipe | ClipRecipe


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply changes such as `optim.epochs=2` (the value is TOML or else a string).

    A recipe with a `method` is a `ClipRecipe`, one without a `MixRecipe`.

    Raises:
        InputNotFoundError: There is no such file.
        RecipeError: It is not TOML, or a key or value is not allowed; the message names each.
    """
    if not path.is_file():
        raise InputNotFoundError(f"The recipe {path} does not exist. The recipes of hd2s are in recipes/.")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}.") from error
    for change in changes:
        _apply(table, change)
    kind: type[MixRecipe] | type[ClipRecipe] = ClipRecipe if "method" in table else MixRecipe
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {_explain(kind, e)}" for e in error.errors()]
        raise RecipeError("\n".join([f"{path} is not a valid recipe:", *lines])) from error


def _explain(recipe: type[BaseModel], error: Any) -> str:
    """Say what is wrong with one key and, if it is unknown, which was perhaps meant."""
    if error["type"] in ("missing", "value_error"):  # the latter's input is a whole table
        return str(error["msg"])
    if error["type"] != "extra_forbidden":
        return f"{error['msg']}, got {error['input']!r}"
    *parents, given = error["loc"]
    known = sorted(_keys(recipe, parents))
    close = get_close_matches(str(given), known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"unknown key, got {error['input']!r}.{hint} Known: {', '.join(known)}"


def _keys(table: type[BaseModel], parents: Sequence[str | int]) -> list[str]:
    """The keys of a table within a recipe."""
    for parent in parents:
        if isinstance(parent, str):
            fields = {field.alias or name: field for name, field in table.model_fields.items()}
            kind = fields[parent].annotation
            table = next((k for k in get_args(kind) if isinstance(k, type)), kind)  # type: ignore[assignment]
    return [field.alias or name for name, field in table.model_fields.items()]


def _is_table(value: object) -> bool:
    """Whether it is a table, or a list of tables as of [[source]]."""
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(v, dict) for v in value))


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set takes KEY=VALUE such as optim.epochs=2, got '{change}'.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, leaf = key.split(".")
    inner: Any = table
    for parent in parents:
        if isinstance(inner, dict):
            known = [name for name, entry in inner.items() if _is_table(entry)]
            inner = inner.setdefault(parent, {})
        else:  # [[source]]: the one with this name
            known = [entry.get("name") for entry in inner]
            inner = inner[known.index(parent)] if parent in known else None
        if not _is_table(inner):
            there = ", ".join(map(str, known)) or "none"
            raise RecipeError(f"--set {change}: '{parent}' is no table here. There are: {there}.")
    if not isinstance(inner, dict):
        raise RecipeError(f"--set {change}: say which {parents[-1]}: {parents[-1]}.NAME.{leaf}.")
    inner[leaf] = value
