"""Recipes for training on clips: the paper's three methods, for any data sets and both networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Table(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SourceTable(Table):
    """Where clips come from."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """The domain, as `--domain` takes it later."""
    root: Path
    """A data set; for an unlabelled target also a folder of videos."""
    layout: str | None = None
    """As `hd2s datasets list` names it; found by looking if left out."""
    split: str = "train"
    validation_split: str | None = None
    """Scored for choosing the best weights. If left out, a part of `split` is held out for that."""
    hold_out: float = Field(0.1, gt=0, lt=1)
    """Share of the videos of `split`, evenly spread, that is held out if there is no `validation_split`."""


class ClipsTable(Table):
    """How clips are drawn."""

    batch: int = Field(gt=0)
    """Clips of a source in a batch, all processes together; for adversarial training as many of a target."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of mirroring."""
    brightness: float = Field(0.0, ge=0)
    contrast: float = Field(0.0, ge=0, lt=1)
    max_step: float = Field(1.0, ge=1)
    """Frames of a clip are between 1 and so many video frames apart."""
    min_fixations: int = Field(1, ge=1)
    """Frames with fewer are not drawn, where there are fixations but no maps."""
    workers: int = Field(2, ge=0)
    """Processes that prepare batches, for each training process."""
    cache: Path | None = None
    """Folder for decoded frames at the network's size."""


class StepsTable(Table):
    """Optimisation, in steps of the optimiser."""

    steps: int = Field(gt=0)
    kind: Literal["adam", "adamw"]
    lr: float = Field(gt=0)
    encoder_lr: float | None = Field(None, ge=0)
    """Learning rate of the encoder, if it is another."""
    weight_decay: float = Field(0.0, ge=0)
    accumulate: int = Field(1, ge=1)
    """Batches in a step."""
    gradients: Literal["sum", "mean"] = "mean"
    """What becomes of the gradients of a step's batches. The published code sums them."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup: float = Field(0.0, ge=0, lt=1)
    """Share of the steps in which the learning rates rise."""
    drop_at: tuple[float, ...] = ()
    """For the schedule "step": shares of the run at which the learning rates fall to a tenth."""
    clip_norm: float | None = Field(None, gt=0)
    """Gradients are scaled down to this norm."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is validated and saved."""
    norms: Literal["train", "frozen", "synchronised"] = "train"
    """Batch norms: each process its own statistics, none (eval mode), or those of all processes (GPUs)."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False
    """Compile the encoder and the decoders with `torch.compile`."""

    @model_validator(mode="after")
    def _consistent(self) -> StepsTable:
        if bool(self.drop_at) != (self.schedule == "step"):
            raise ValueError('drop_at and schedule = "step" go together')
        return self


class CheckTable(Table):
    """What happens on the way."""

    every: int = Field(gt=0)
    """Steps between two checkpoints; a killed run goes on from the last."""
    validate_every: int = Field(gt=0)
    """Steps between two validations: KL divergence on whole videos. A multiple of `every`."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the validation videos that is used."""
    every_frame: int = Field(1, ge=1)
    """Every so-manieth frame of them is scored."""
    pictures_every: int = Field(0, ge=0)
    """Steps between two pictures of predictions beside the ground truth; 0 for none."""

    @model_validator(mode="after")
    def _multiple(self) -> CheckTable:
        if self.validate_every % self.every:
            raise ValueError(f"validate_every must be a multiple of every = {self.every}")
        return self


class ClipRecipe(Table):
    """A training on clips of any data sets, by one of the paper's three methods."""

    model: Literal["hd2s", "hd2s-lite"]
    method: Literal["supervised", "domain_specific", "adversarial"]
    seed: int = Field(ge=0)
    encoder: str | None = None
    """What the encoder starts from: a file, a name of `hd2s weights list`, or "imagenet" for hd2s-lite."""
    height: int | None = Field(None, ge=32, le=1024, multiple_of=32)
    """Of the input; the network's usual one if left out."""
    width: int | None = Field(None, ge=32, le=1024, multiple_of=32)
    supervise_levels: bool = True
    """Compare the conspicuity maps with the ground truth, too, not only the output."""
    devices: int = Field(1, ge=1)
    """Training processes, each with a GPU of its own where there are GPUs."""
    nodes: int = Field(1, ge=1)
    source: tuple[SourceTable, ...] = Field(min_length=1)
    target: tuple[SourceTable, ...] = ()
    """Unlabelled, for adversarial training."""
    data: ClipsTable
    optim: StepsTable
    check: CheckTable

    @model_validator(mode="after")
    def _possible(self) -> ClipRecipe:
        if bool(self.target) != (self.method == "adversarial"):
            raise ValueError('[[target]] and method = "adversarial" go together')
        names = [table.name for table in self.source]
        if len(set(names)) < len(names):
            raise ValueError(f"the sources need different names, got {', '.join(names)}")
        if self.encoder == "imagenet" and self.model != "hd2s-lite":
            raise ValueError('encoder = "imagenet" is for hd2s-lite; hd2s starts from an S3D')
        if self.optim.steps % self.check.validate_every:
            raise ValueError(
                f"optim.steps must be a multiple of check.validate_every = {self.check.validate_every}: the "
                "last steps need a validation"
            )
        if self.data.batch % (self.devices * self.nodes):
            raise ValueError(f"data.batch must be a multiple of the {self.devices * self.nodes} processes")
        return self
