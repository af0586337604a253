"""Whether data loading keeps the network busy while it is trained, as tables.

    python benchmarks/train.py DATA [--model hd2s-lite] [--batch 8] [--batches 4]

Clips of the videos of a data set go through a forward and a backward pass of the five KL divergences, on the
CPU. Of hd2s-lite, gradients reach the encoder through the last frame alone, as in training: the shortest step
that a loader has to keep up with. Each clip is decoded when it is drawn, or read from the cache; 0 workers:
in the training process itself. First the loader alone, then beside the network: for which share of a step the
network waits for its batch. What a run begins with is not counted. CPU times depend less than the others on
what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from hd2s.losses import hierarchical_kl
from hd2s.models import HD2S, build
from hd2s.training.clips import ClipAugment, ClipBatch, ClipBatches, ClipSource, open_videos
from hd2s.training.data import EpochSampler
from hd2s.training.steps import features

GOAL = 0.2  # of a step, at most, of hd2s-lite with one worker
WORKERS = (0, 1, 2)


def make_batches(data: Path, model: HD2S, size: int, cache: Path | None) -> ClipBatches:
    """Batches of the videos of a data set; images would be too easy to load."""
    videos = [v for v in open_videos(data, layout=None, split="train") if v.num_frames > 1]
    augment = ClipAugment(flip=0.5, brightness=0.3, contrast=0.3)
    source = ClipSource(
        "data", videos, model.spec, labelled=True, augment=augment, min_fixations=5, cache=cache
    )
    return ClipBatches([source], size, seed=0)


def make_loader(data: ClipBatches, count: int, workers: int) -> DataLoader[ClipBatch]:
    """As in training."""
    return DataLoader(data, batch_size=None, sampler=EpochSampler(count), num_workers=workers)


def fill(data: ClipBatches, folder: Path) -> str:
    """Write the cache; return what it took."""
    started = time.perf_counter()
    for footage in track(data.sources[0].footage, "Filling the cache", transient=True):
        footage.frames([0])
        footage.target(0)
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return f"{time.perf_counter() - started:.0f} s, {megabytes:.0f} MB"


def train(model: HD2S, batch: ClipBatch) -> None:
    """Forward and backward, without an optimiser."""
    assert batch.targets is not None
    output = model.decode(features(model, batch.clips))
    torch.stack(list(hierarchical_kl(output, batch.targets).values())).sum().backward()
    model.zero_grad(set_to_none=True)


def loader_alone(data: ClipBatches, count: int, workers: int) -> tuple[float, float]:
    """Load as fast as it goes; return clips a second, and CPU seconds a clip of this process."""
    # Whole rounds of all workers: they finish together, so that part of a round would seem to take no time.
    ahead, count = max(1, 2 * workers), count * max(1, workers)
    iterator = iter(make_loader(data, ahead + count, workers))
    for _ in range(ahead):
        next(iterator)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(iterator)
    clips = count * data.size
    return clips / (time.perf_counter() - started), (time.process_time() - cpu) / clips


def beside_network(data: ClipBatches, model: HD2S, count: int, workers: int) -> tuple[float, float]:
    """Train; return seconds a step, and the share of them in which the network waits."""
    iterator = iter(make_loader(data, count + 1, workers))
    train(model, next(iterator))
    waited, started = 0.0, time.perf_counter()
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(iterator)
        waited += time.perf_counter() - asked
        train(model, batch)
    total = time.perf_counter() - started
    return total / count, waited / total


def network_alone(batch: ClipBatch, model: HD2S, count: int) -> tuple[float, float]:
    """Train on one batch again and again; return seconds and CPU seconds a step."""
    train(model, batch)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        train(model, batch)
    return (time.perf_counter() - started) / count, (time.process_time() - cpu) / count


def measure(name: str, options: argparse.Namespace, folder: Path) -> None:
    """Measure one network and print."""
    model = build(name).train()
    assert isinstance(model, HD2S)
    columns = ("clips", "workers", "alone: clips/s", "CPU s a clip", "beside the network: s a step", "waits")
    spec = model.spec
    size = f"{spec.num_frames} frames of {spec.height} x {spec.width}"
    table = Table(*columns, title=f"{name}: batches of {options.batch} clips of {size}")
    notes = []
    for kind in ("decoded", "cached"):
        data = make_batches(options.data, model, options.batch, folder if kind == "cached" else None)
        notes += [f"Filling the cache takes {fill(data, folder)}."] if kind == "cached" else []
        for workers in WORKERS:
            rate, cpu = loader_alone(data, options.batches, workers)
            step, waits = beside_network(data, model, options.batches, workers)
            shown = f"{cpu:.3f}" if not workers else ""
            row = kind, str(workers), f"{rate:.1f}", shown, f"{step:.2f}", f"{waits:.1%}"
            print(name, *row, file=sys.stderr)  # it takes minutes
            table.add_row(*row)
    step, cpu = network_alone(next(iter(make_loader(data, 1, 0))), model, options.batches)
    notes.insert(0, f"The network alone: {step:.2f} s a step, {cpu / options.batch:.3f} CPU s a clip.")
    Console().print(table, *notes)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a data set with labelled videos")
    parser.add_argument("--model", choices=("hd2s-lite", "hd2s"), help="one of the networks alone")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=4, help="measured in each run")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for name in [options.model] if options.model else ("hd2s-lite", "hd2s"):
        with tempfile.TemporaryDirectory() as folder:
            measure(name, options, Path(folder))
    print(f"The goal for hd2s-lite with one worker: at most {GOAL:.0%} of a step.")


if __name__ == "__main__":
    main()
