"""The benchmark measures what it says; how fast that is, is not tested."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import math

import pytest
import torch

from fakes import SMALL_SPEC, lively_model
from hd2s.errors import UnknownNameError
from hd2s.inference import bench as benchmark
from hd2s.inference.bench import Report, bench


@pytest.fixture(scope="module")
def steps() -> list[str]:
    return []


@pytest.fixture(scope="module")
def report(steps: list[str]) -> Report:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "_network", lambda name: lively_model())
        patch.setattr(benchmark, "_MATRIX", 64)
        patch.setattr(benchmark, "_CLIP_SIZE", (80, 120))
        patch.setattr(benchmark, "_CLIP_FRAMES", 5)
        return bench(["hd2s-lite"], ["torch"], device="cpu", seconds=0, on_step=steps.append)


def test_each_precision_has_a_row_that_adds_up(report: Report, steps: list[str]) -> None:
    precisions = [row.precision for row in report.speeds]
    assert precisions in (["float32"], ["float32", "bfloat16"])
    assert set(report.peak_gflops) == {f"cpu {precision}" for precision in precisions}
    for row in report.speeds:
        assert (row.model, row.engine, row.device) == ("hd2s-lite", "torch", "cpu")
        assert row.ms_per_map > 0
        assert row.ms_per_map_live > 0
        assert row.gflops == pytest.approx(row.gflop_per_map_reused / (row.ms_per_map / 1e3))
        assert row.peak_share == pytest.approx(row.gflops / report.peak_gflops[f"cpu {row.precision}"])
    assert steps[:2] == ["matrix product on cpu float32", "hd2s-lite, torch on cpu, float32"]
    assert steps[-1] == "hd2s-lite, overlay of a video"


def test_video_is_predicted_by_the_fastest(report: Report) -> None:
    (row,) = report.end_to_end
    assert (row.model, row.engine, row.frames) == ("hd2s-lite", "torch", 5)
    assert row.precision == min(report.speeds, key=lambda speed: speed.ms_per_map).precision
    assert row.frames_per_second > 0


def test_report_is_json_and_names_the_machine(report: Report) -> None:
    content = json.loads(json.dumps(report.to_dict()))
    assert content.keys() == {"machine", "peak_gflops", "speeds", "end_to_end"}
    machine = content["machine"]
    assert machine["cpu"]
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"] == importlib.metadata.version("torch")


def test_work_is_that_of_the_convolutions() -> None:
    """Counted by hand: each multiplication and addition of each convolution, for a whole clip."""
    model, total = lively_model(), 0

    def add(module: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * math.prod(module.weight.shape[1:])

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        model(torch.zeros(1, 3, SMALL_SPEC.num_frames, SMALL_SPEC.height, SMALL_SPEC.width))
    by_hand = total / 1e9
    whole, reused = benchmark._count(model)
    assert by_hand < whole < 1.2 * by_hand  # the rest: temporal filters and interpolation
    assert whole / 16 < reused < whole / 4


def test_a_measurement_takes_its_time_and_three_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    durations = [9.0, 1.0, 2.0]
    clock = itertools.accumulate(itertools.chain.from_iterable((5.0, each) for each in durations))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    assert benchmark._rounds(lambda: None, 3.0) == durations


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Unknown model 'hd2s-light'"):
        bench(["hd2s-light"])
    with pytest.raises(UnknownNameError, match="Unknown engine 'tensorrt'"):
        bench(["hd2s-lite"], ["tensorrt"])
