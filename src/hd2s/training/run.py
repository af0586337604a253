"""One training run, from a recipe to a weight file."""

from __future__ import annotations

import ctypes
import errno
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader as Loader

from hd2s.data.datasets import gaze
from hd2s.errors import HD2SError, OutputError, RecipeError, TrainingError
from hd2s.models import HD2S, DomainHD2S, HD2SLite, load_encoder
from hd2s.training.callbacks import KeepPrevious, resume_point
from hd2s.training.clip_recipe import ClipRecipe
from hd2s.training.clip_run import imagenet_path, train_on_clips
from hd2s.training.data import (
    Batch,
    EpochSampler,
    TrainingBatches,
    ValidationSample,
    ValidationSamples,
    load_footage,
)
from hd2s.training.module import Supervised
from hd2s.training.recipe import MixRecipe, OutputTable, Recipe
from hd2s.types import InputSpec
from hd2s.weights import io
from hd2s.weights.files import write_whole


def imagenet_lite() -> HD2SLite:
    """Build `hd2s-lite` with its encoder's ImageNet weights.

    Raises:
        MissingExtraError: The package that holds them is not installed.
    """
    model = HD2SLite()
    load_encoder(model, imagenet_path())
    return model


def train(recipe: Recipe, output: Path) -> Path:
    """Train as the recipe says; the same call again resumes at the last checkpoint.

    Args:
        recipe: The resolved recipe; it is saved as `recipe.json` in the output folder.
        output: Folder of the run: checkpoints, for each start `metrics/version_N/metrics.csv`, and at the
            end `weights.safetensors`.

    Returns:
        Path of the weight file (float16): the best weights by validation or, of a `MixRecipe`, the last ones.

    Raises:
        RecipeError: The folder holds a run of another recipe.
        DatasetNotFoundError: A data set is not where the recipe says.
        TrainingError: The loss became infinite or nan, too many videos are damaged, or all checkpoints are.
        OutputError: The folder cannot be written, or the disk is full.
    """
    _claim(recipe, output)
    _keep_freed_memory()
    _quieten()
    seed_everything(recipe.seed, verbose=False)
    model: HD2S | DomainHD2S
    try:
        if isinstance(recipe, ClipRecipe):
            model, best = train_on_clips(recipe, output, resume_point(output))
        else:
            model, best = _train_on_mix(recipe, output, resume_point(output))
    except SystemExit:  # what Lightning makes of it
        raise KeyboardInterrupt from None
    except (OSError, RuntimeError) as error:
        raise _explained(error, output) from error
    weights = output / "weights.safetensors"
    if getattr(rank_zero_only, "rank", 0):  # one of several processes, of which the first writes
        return weights
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    if isinstance(recipe, MixRecipe):
        assert isinstance(model, HD2S)
        reshape_output(model, recipe.output)
    domains = model.domains if isinstance(model, DomainHD2S) else ()
    io.save(weights, model, io.Header(network=recipe.model, spec=model.spec, domains=domains))
    return weights


def _train_on_mix(recipe: MixRecipe, output: Path, resume: Path | None) -> tuple[HD2SLite, Path]:
    """Train on mixed batches of the gaze pack; return the network and its last checkpoint.

    The best by validation is kept beside it, but not taken: scores by which it was chosen would flatter it.
    """
    module = Supervised(imagenet_lite(), recipe)
    batches, validation = _loaders(recipe, module.model.spec)
    checkpoints = [ModelCheckpoint(output, filename="last", enable_version_counter=False)]
    if validation:
        # In front, so that the last checkpoint of an epoch knows which was the best so far.
        checkpoints.insert(
            0,
            ModelCheckpoint(
                output, filename="best", monitor="val/cc", mode="max", enable_version_counter=False
            ),
        )
    averaging = [EMAWeightAveraging(decay=recipe.optim.ema)] if recipe.optim.ema is not None else []
    trainer = Trainer(
        max_epochs=recipe.images.epochs + recipe.optim.epochs,
        gradient_clip_val=recipe.optim.clip_norm,
        callbacks=[KeepPrevious(output), *checkpoints, *averaging, RichProgressBar()],
        logger=CSVLogger(output, name="metrics"),  # a new file at each start: one alone would be overwritten
        enable_model_summary=False,
        log_every_n_steps=min(10, recipe.data.batches),
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validation else 0,
    )
    with warnings.catch_warnings():
        # The encoder's batch norms are meant to stay so.
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        # No loaders at all, as None, would make Lightning warn.
        trainer.fit(module, batches, validation or [], ckpt_path=str(resume) if resume else None)
    return module.model, Path(checkpoints[-1].best_model_path)


def _explained(error: OSError | RuntimeError, output: Path) -> Exception:
    """Turn what a machine's limits raise into an error that says what to do; leave all else."""
    if isinstance(error, HD2SError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"The disk is full ({error.filename or output}). Make room; the same command then goes on from "
            "the last checkpoint."
        )
    if isinstance(error, RuntimeError) and "shared memory" in str(error):
        return TrainingError(
            "The processes that prepare batches have too little shared memory. Enlarge /dev/shm (docker run "
            "--shm-size=2g), or set data.workers=0; the same command then goes on from the last checkpoint."
        )
    return error


def reshape_output(model: HD2S, output: OutputTable) -> None:
    """Fold the recipe's change of the output's log-odds into the fusion."""
    with torch.no_grad():
        model.fusion.weight *= output.scale
        bias = model.fusion.bias
        assert bias is not None
        bias.mul_(output.scale).add_(output.shift)


def _keep_freed_memory() -> None:
    """Let glibc reuse freed tensors' memory: mapping it afresh each step takes half of a CPU's time."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # of <malloc.h>
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 2**29)


def _quieten() -> None:
    """Keep what Lightning says about itself, and about a folder that is meant to be there, from the user."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")


def _claim(recipe: Recipe, output: Path) -> None:
    """Save the recipe in the run's folder, or check that it is the one that was begun there."""
    text = recipe.model_dump_json(indent=2, by_alias=True) + "\n"
    saved = output / "recipe.json"
    if not saved.exists():
        try:
            output.mkdir(parents=True, exist_ok=True)
            write_whole(saved, text.encode())  # several processes may begin at once
        except OSError as error:
            raise OutputError(
                f"{output} cannot be written ({error.strerror}). Choose another --output."
            ) from error
    elif saved.read_text(encoding="utf-8") != text:
        raise RecipeError(
            f"{output} holds a run of another recipe ({saved}). Choose another --output or remove it."
        )


def _loaders(recipe: MixRecipe, spec: InputSpec) -> tuple[Loader[Batch], Loader[ValidationSample] | None]:
    """Training batches and, unless all data is trained on, validation samples."""
    data, root = recipe.data, recipe.data.root
    footage = load_footage(gaze.videos(root, data.train_on, data.held_out), data.min_fixations)
    batches = TrainingBatches(gaze.stills(root, data.train_on), footage, spec, recipe)
    loader = Loader(batches, batch_size=None, sampler=EpochSampler(data.batches), num_workers=data.workers)
    if data.train_on == "all":
        return loader, None
    held_out = load_footage(gaze.videos(root, "validation", data.held_out), data.min_fixations)
    samples = ValidationSamples(
        gaze.stills(root, "validation"), held_out, spec, recipe.validate_.every_seconds
    )
    return loader, Loader(samples, batch_size=None, num_workers=data.workers)
