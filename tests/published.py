"""Checkpoints as the authors publish them, with made-up values, and what their code computes from these.

`golden/checkpoint_manifest.json.gz` lists the tensors of each kind of checkpoint. A tensor's values follow
from its name, so that `golden/golden_seed1.npz` could be computed once with the authors' code and be
compared with ours. No trained weights are involved, and no code of theirs.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hd2s import models
from hd2s.errors import WeightsError
from hd2s.weights import io

SEED = 1
GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ("hd2s", "hd2s_da", "hd2s_dsl", "s3d_kinetics400", "s3d_torchvision")
MARKER = "featureExtractor.block1.0.conv_s.weight"  # makes a state look like hd2s
SOURCES = ("DHF1K", "Hollywood", "UCFSports")  # of hd2s_dsl


@functools.cache
def manifest() -> dict[str, dict[str, tuple[int, ...]]]:
    """For each kind of checkpoint the shapes of its tensors by name."""
    content = json.loads(gzip.decompress((GOLDEN / "checkpoint_manifest.json.gz").read_bytes()))
    return {
        family: {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
        for family, tensors in content.items()
    }


def rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(f"{SEED}:{name}".encode())))


@functools.cache  # the kinds of checkpoints have most tensors in common
def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Make a tensor from its name; do not change it."""
    random, leaf = rng(name), name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.tensor(1)
    if leaf in ("running_mean", "bias"):
        values = 0.1 * random.standard_normal(shape)
    elif leaf == "running_var":
        values = random.uniform(0.5, 1.5, shape)
    elif leaf == "sigma":
        values = np.asarray(random.uniform(2.0, 6.0))
    elif leaf.startswith("gaussians"):
        means, log_sigmas = random.uniform(0.2, 0.8, shape[:2]), random.uniform(-2.0, 0.0, shape[:2])
        values = np.stack((means, log_sigmas), axis=-1)
    elif len(shape) == 1:
        values = random.uniform(0.8, 1.2, shape)
    else:
        values = random.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def checkpoint(family: str) -> dict[str, Tensor]:
    """Make a state dict; its tensors are shared, do not change them."""
    return {name: tensor(name, shape) for name, shape in manifest()[family].items()}


def read(family: str) -> io.WeightFile:
    """Save a checkpoint and read it with hd2s."""
    return read_state(checkpoint(family))


def read_state(state: dict[str, Tensor]) -> io.WeightFile:
    """Save a state dict as state.pt and read it with hd2s; the file, which may be large, does not stay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.pt"
        torch.save(state, path)
        return io.read(path)


def rewritten(model: nn.Module, header: io.Header) -> io.WeightFile:
    """Save a model as a weight file of hd2s, in float32, and read that."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ours.safetensors"
        io.save(path, model, header, dtype=torch.float32)
        return io.read(path)


def small_state() -> dict[str, Tensor]:
    """A state dict that looks like hd2s and is not."""
    return {MARKER: torch.ones(2, 3), "last_conv.bias": torch.zeros(1)}


def refused(path: Path, message: str = "") -> None:
    """Check that a file cannot be read, for the right reason, and that the error names it."""
    with pytest.raises(WeightsError, match=rf"^[^ ]*{path.name} .*{message}"):
        io.read(path)


def refused_network(path: Path, message: str) -> None:
    """Check that a file can be read but fits no network, and that the error names it."""
    with pytest.raises(WeightsError, match=rf"{path.name} does not fit.*{message}"):
        models.restore(io.read(path))


def fill(model: nn.Module) -> None:
    """Give a model the values that its names make: maps that vary, as those of a trained network."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(tensor(name, tuple(value.shape)))


def clip() -> Tensor:
    """The clip (1, 3, 16, 128, 192) in [-1, 1] that the golden file is for: cells of 16 x 16 pixels."""
    cells = rng("frames").integers(0, 256, (16, 8, 12, 3), dtype=np.uint8)
    frames = cells.repeat(16, axis=1).repeat(16, axis=2).astype(np.float32)
    return torch.from_numpy((2 * frames - 255) / 255).permute(3, 0, 1, 2)[None]


def target() -> Tensor:
    """The map (1, 128, 192) that the golden losses are for."""
    return torch.from_numpy(rng("target").random((128, 192)).astype(np.float32))[None]
