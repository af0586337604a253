"""Both networks in all engines against the paper's network in plain PyTorch, as ratios.

    python benchmarks/networks.py [--rounds N] [--device cuda]

Frames come from memory at each network's size. "Plain" is the whole clip of 16 frames through the network for
each map, as published code does it. All lines are measured in turns, in one process; each is the median of
the rounds. Weights are random where none come along: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import hd2s
from hd2s.inference.engines import Engine, open_engine
from hd2s.models import HD2S, build


def plain(network: HD2S, device: str) -> Callable[[], object]:
    """One map from a whole clip, by a copy of the network as it is: engines rearrange the weights."""
    spec = network.spec
    clip = torch.randn(1, 3, spec.num_frames, spec.height, spec.width)
    network = copy.deepcopy(network).to(device)

    @torch.inference_mode()
    def run() -> object:
        return network(clip.to(device)).saliency.cpu()

    return run


def encoding(engine: Engine) -> tuple[Callable[[], object], int]:
    """Encode frames; their number."""
    frames = pictures(engine, 2 * engine.batch)
    return lambda: engine.encode(frames), len(frames)


def predicting(engine: Engine) -> tuple[Callable[[], object], int]:
    """Encode frames and predict their maps, with the frames before them encoded already; their number."""
    frames = pictures(engine, 2 * engine.batch)
    before = engine.encode(pictures(engine, engine.spec.num_frames - 1))
    engine.prepare(live=False, conspicuity=False)
    return lambda: engine.slide(engine.encode(frames, before)), len(frames)


def pictures(engine: Engine, count: int) -> np.ndarray:
    """Noise, (count, H, W, 3)."""
    shape = (count, engine.spec.height, engine.spec.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    options = parser.parse_args()
    device = options.device
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    paper, lite = build("hd2s").eval(), hd2s.load("hd2s-lite")
    kinds = ("torch", "openvino") if device == "cpu" else ("torch",)
    tasks: dict[str, tuple[Callable[[], object], int]] = {"hd2s, plain PyTorch": (plain(paper, device), 1)}
    for name, network in (("hd2s", paper), ("hd2s-lite", lite)):
        for kind in kinds:
            engine = open_engine(network, engine=kind, device=device, precision="float32")
            tasks[f"{name}, {kind}"] = predicting(engine)
            native = open_engine(network, engine=kind, device=device, precision="auto").precision
            if native != "float32":
                engine = open_engine(network, engine=kind, device=device, precision=native)
                tasks[f"{name}, {kind}, {native}"] = predicting(engine)
    bare = open_engine(lite, engine=kinds[-1], device=device, precision="float32")
    tasks[f"hd2s-lite, {kinds[-1]}, encoder alone"] = encoding(bare)
    tasks["hd2s-lite, plain PyTorch"] = (plain(lite, device), 1)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for run, _ in tasks.values():
        run()
    for _ in track(range(options.rounds), "rounds", console=Console(stderr=True)):
        for name, (run, maps) in tasks.items():
            started = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize(device)
            seconds[name].append((time.perf_counter() - started) / maps)
    table = Table("float32 if not said otherwise", "ms/map", "hd2s, plain PyTorch, is slower by")
    reference = statistics.median(seconds["hd2s, plain PyTorch"])
    for name, values in seconds.items():
        value = statistics.median(values)
        table.add_row(name, f"{1000 * value:.2f}", f"{reference / value:.1f}")
    machine = f"{os.cpu_count()} cores" if device == "cpu" else torch.cuda.get_device_name(device)
    table.title = f"{machine}, {platform.machine()}, PyTorch {torch.__version__}"
    Console().print(table)


if __name__ == "__main__":
    main()
