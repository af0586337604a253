"""How fast the networks are on this machine, and how much of what it can do that is."""

from __future__ import annotations

import importlib.util
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from hd2s.data.video import open_source
from hd2s.errors import UnknownNameError
from hd2s.inference.engines import BATCH, ENGINES, Engine, count_cores, open_engine
from hd2s.inference.pipeline import render
from hd2s.inference.predictor import Predictor
from hd2s.models import BUILDERS, HD2S, build, load
from hd2s.weights.catalog import WEIGHTS

_ROUNDS = 3  # at least, of each measurement
_MATRIX, _GPU_MATRIX = 2048, 8192  # rows and columns
_CLIP_SIZE, _CLIP_FRAMES = (720, 1280), 75
_OnStep = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The speed of one network in one engine, with frames from memory at the network's size.

    Attributes:
        model: Name of the network.
        engine: "torch", "torch-compile" or "openvino".
        device: "cpu" or a CUDA device.
        precision: "float32" or "bfloat16".
        ms_per_map: Milliseconds a map where frames can be waited for: the throughput.
        ms_per_map_live: Milliseconds from a frame to its map, one by one.
        gflop_per_map: Of the whole clip, as training computes it, in 10^9 operations (a multiplication and an
            addition are two).
        gflop_per_map_reused: Of what a map adds to those before it: frames are encoded once.
        gflops: `gflop_per_map_reused` a second, at the throughput.
        peak_share: `gflops` as a part of `Report.peak_gflops` at this precision and on this device.
        gpu_memory_mb: The most GPU memory that PyTorch took meanwhile, in 10^6 bytes; None on a CPU.
    """

    model: str
    engine: str
    device: str
    precision: str
    ms_per_map: float
    ms_per_map_live: float
    gflop_per_map: float
    gflop_per_map_reused: float
    gflops: float
    peak_share: float
    gpu_memory_mb: float | None


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """Frames a second of a video from file to file: decoded, predicted, blended and encoded.

    Attributes:
        model: Name of the network.
        engine: The fastest of those that were measured.
        precision: Of that engine.
        video: What was predicted.
        frames: Their number.
        frames_per_second: As `hd2s predict --save overlay` takes it, without its start.
    """

    model: str
    engine: str
    precision: str
    video: str
    frames: int
    frames_per_second: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was measured.

    Attributes:
        machine: Processor, cores, instruction sets, GPU and versions.
        peak_gflops: {"device precision": 10^9 operations a second of a large matrix product in PyTorch}.
        speeds: A row for each network, engine and precision.
        end_to_end: A row for each network.
    """

    machine: dict[str, Any]
    peak_gflops: dict[str, float]
    speeds: list[Speed]
    end_to_end: list[EndToEnd]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def bench(
    models: Sequence[str] = (),
    engines: Sequence[str] = (),
    *,
    device: str = "auto",
    video: str | Path | None = None,
    seconds: float = 2.0,
    on_step: _OnStep = lambda step: None,
) -> Report:
    """Measure how fast networks are. A network that comes without weights gets random ones.

    Args:
        models: Names of networks; all if empty.
        engines: See `open_engine`; "openvino", if it is installed, and "torch" if empty.
        device: See `open_engine`.
        video: Measure with this video from file to file, instead of one of 75 frames of 720 x 1280.
        seconds: For each measurement, or three rounds if these take longer.
        on_step: Called with what is measured next.

    Raises:
        UnknownNameError: There is no such network, engine or device.
        HD2SError: The engine, device or video cannot be used.
    """
    for kind, names, known in (("model", models, BUILDERS), ("engine", engines, ENGINES)):
        for name in names:
            if name not in known:
                raise UnknownNameError.among(kind, name, known)
    if video:
        open_source(video).close()  # before minutes are spent
    peaks: dict[str, float] = {}
    speeds: list[Speed] = []
    overlays: list[EndToEnd] = []
    with tempfile.TemporaryDirectory() as folder, _own_cache(folder):
        clip = Path(video) if video else _make_clip(Path(folder) / "synthetic_720p.mp4")
        for name in models or sorted(BUILDERS):
            network, measured = _network(name), []
            work = _count(network)
            for engine in _engines(network, engines, device):
                key = f"{engine.device} {engine.precision}"
                if key not in peaks:
                    on_step(f"matrix product on {key}")
                    peaks[key] = _peak(engine.device, engine.precision, seconds)
                on_step(f"{name}, {engine.name} on {engine.device}, {engine.precision}")
                speeds.append(_speed(name, engine, work, peaks[key], seconds))
                measured.append(speeds[-1])
            on_step(f"{name}, overlay of a video")
            best = min(measured, key=lambda row: row.ms_per_map)
            engine = open_engine(network, engine=best.engine, device=best.device, precision=best.precision)
            overlays.append(_end_to_end(name, engine, clip, Path(folder)))
    return Report(machine=_machine(device), peak_gflops=peaks, speeds=speeds, end_to_end=overlays)


def _speed(name: str, engine: Engine, work: tuple[float, float], peak: float, seconds: float) -> Speed:
    """Measure a row; `work` is that of `_count`."""
    on_gpu = engine.device != "cpu"
    if on_gpu:
        torch.cuda.empty_cache()  # of what engines before this one took
        torch.cuda.reset_peak_memory_stats(engine.device)
    fast, live = (_milliseconds(engine, seconds, live=live) for live in (False, True))
    gflops = work[1] / fast * 1e3
    return Speed(
        model=name,
        engine=engine.name,
        device=engine.device,
        precision=engine.precision,
        ms_per_map=fast,
        ms_per_map_live=live,
        gflop_per_map=work[0],
        gflop_per_map_reused=work[1],
        gflops=gflops,
        peak_share=gflops / peak,
        gpu_memory_mb=torch.cuda.max_memory_reserved(engine.device) / 1e6 if on_gpu else None,
    )


@contextmanager
def _own_cache(folder: str) -> Iterator[None]:
    """Keep compiled graphs, also of random weights, in a folder that goes."""
    before = os.environ.get("HD2S_CACHE")
    os.environ["HD2S_CACHE"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["HD2S_CACHE"]
        else:
            os.environ["HD2S_CACHE"] = before


def _network(name: str) -> HD2S:
    model = load(name) if WEIGHTS[name].path is not None else build(name).eval()
    assert isinstance(model, HD2S)
    return model


def _engines(network: HD2S, names: Sequence[str], device: str) -> Iterator[Engine]:
    """Open engines, each in float32 and, where the processor computes in it natively, in bfloat16."""
    if not names:
        both = importlib.util.find_spec("openvino") is not None and device in ("auto", "cpu")
        names = ("openvino", "torch") if both else ("torch",)
    for name in names:
        yield open_engine(network, engine=name, device=device, precision="float32")
        best = open_engine(network, engine=name, device=device, precision="auto")
        if best.precision != "float32":
            yield best


@torch.no_grad()
def _count(model: HD2S) -> tuple[float, float]:
    """Count the work for a map in 10^9 operations: of a whole clip, and with what neighbours share reused."""
    spec = model.spec
    frames = torch.zeros(spec.num_frames - 1 + BATCH, 3, spec.height, spec.width)
    whole, once, run = (FlopCounterMode(display=False) for _ in range(3))
    with whole:
        model(frames[: spec.num_frames].transpose(0, 1)[None])
    with once:
        model.encode(frames[:1])
    features = model.encode(frames)
    with run:
        model.slide(features)
    reused = once.get_total_flops() + run.get_total_flops() / BATCH
    return whole.get_total_flops() / 1e9, reused / 1e9


def _milliseconds(engine: Engine, seconds: float, *, live: bool) -> float:
    """Milliseconds a map: the median of rounds."""
    predictor = Predictor(engine, live=live)
    spec, size = engine.spec, 1 if live else engine.batch
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, spec.height, spec.width, 3), np.uint8)
    frames = itertools.cycle(images)

    def work() -> int:
        return sum(1 for _ in range(size) for _ in predictor.push(next(frames)))

    while work() < size:  # fills the window, and prepares the engine
        pass
    work()
    return 1e3 * statistics.median(_rounds(work, seconds)) / size


def _rounds(work: Callable[[], object], seconds: float) -> list[float]:
    """Seconds that some work takes, again and again."""
    times: list[float] = []
    while len(times) < _ROUNDS or sum(times) < seconds:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


@torch.no_grad()
def _peak(device: str, precision: str, seconds: float) -> float:
    """10^9 operations a second of a matrix product on all cores, in the fastest round."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    size = _MATRIX if device == "cpu" else _GPU_MATRIX
    matrix = torch.rand(size, size, device=device).to(kind)

    def work() -> None:
        product = matrix @ matrix
        if product.is_cuda:
            torch.cuda.synchronize(device)

    work()
    return 2e-9 * size**3 / min(_rounds(work, seconds))


def _end_to_end(name: str, engine: Engine, clip: Path, folder: Path) -> EndToEnd:
    for _ in range(1 if engine.device == "cpu" else 2):  # the first time, a GPU builds and records kernels
        report = render(clip, folder, save=["overlay"], model=engine, overwrite=True)
    return EndToEnd(
        model=name,
        engine=engine.name,
        precision=engine.precision,
        video=clip.name,
        frames=report.num_frames,
        frames_per_second=report.num_frames / report.seconds,
    )


def _make_clip(path: Path) -> Path:
    """Write a video of a textured picture that moves; H.264, 25 frames a second."""
    height, width = _CLIP_SIZE
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 40, width // 20, 3), np.uint8)
    wide: NDArray[np.uint8] = coarse.repeat(40, axis=0).repeat(40, axis=1)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(_CLIP_FRAMES):
            view = np.ascontiguousarray(wide[:, 4 * number : 4 * number + width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def _machine(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    sets: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in torch 2.6
    versions = {"python": platform.python_version()}
    for package in ("hd2s", "torch", "openvino"):
        if importlib.util.find_spec(package) is not None:
            versions[package] = metadata.version(package)
    gpu = device if device.startswith("cuda:") else None
    return {
        "cpu": _cpu_name(),
        "cores": count_cores(),
        "torch_threads": torch.get_num_threads(),
        "instruction_sets": sorted(name for name, there in sets.items() if there is True),
        "gpu": torch.cuda.get_device_name(gpu) if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "versions": versions,
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
