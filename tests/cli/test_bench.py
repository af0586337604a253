"""`hd2s bench` as a user sees it; what is measured is tested in tests/inference/test_bench.py."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command import run
from hd2s.inference import bench as benchmark
from hd2s.inference.bench import EndToEnd, Report, Speed

REPORT = Report(
    machine={
        "cpu": "A 1000",
        "cores": 2,
        "instruction_sets": ["avx2", "avx512_f"],
        "gpu": None,
        "versions": {"python": "3.11", "torch": "2.13"},
    },
    peak_gflops={"cpu float32": 250.0},
    speeds=[
        Speed(
            model="hd2s-lite",
            engine="openvino",
            device="cpu",
            precision="float32",
            ms_per_map=4.0,
            ms_per_map_live=6.25,
            gflop_per_map=12.5,
            gflop_per_map_reused=0.5,
            gflops=125.0,
            peak_share=0.5,
            gpu_memory_mb=None,
        )
    ],
    end_to_end=[
        EndToEnd(
            model="hd2s-lite",
            engine="openvino",
            precision="float32",
            video="synthetic_720p.mp4",
            frames=75,
            frames_per_second=61.25,
        )
    ],
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the library was asked for; it gives `REPORT`."""
    calls: list[Any] = []

    def bench(models: Any, engines: Any, **options: Any) -> Report:
        calls.append((models, engines, options["device"], options["video"], options["seconds"]))
        options["on_step"]("something")
        return REPORT

    monkeypatch.setattr(benchmark, "bench", bench)
    return calls


def test_table(asked: list[Any]) -> None:
    outcome = run("bench")
    assert outcome.status == 0
    assert asked == [((), (), "auto", None, 2.0)]
    for line in (
        "cpu: A 1000",
        "instruction sets: avx2, avx512_f",
        "gpu: none",
        "versions: python 3.11, torch 2.13",
    ):
        assert line in outcome.stdout.splitlines()
    assert "matrix product, cpu float32: 250 GFLOP/s" in outcome.stdout
    (row,) = (line for line in outcome.stdout.splitlines() if "4.00" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["hd2s-lite", "openvino", "float32", "4.000", "6.250", "12.50", "0.50", "125", "50.0%"]
    assert "GPU MB" not in outcome.stdout
    assert "overlay of synthetic_720p.mp4: 61.2 frames/s" in outcome.stdout


def test_a_gpu_has_a_column_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    (speed,) = REPORT.speeds
    row = replace(speed, engine="torch-compile", device="cuda", peak_share=0.004, gpu_memory_mb=1234.5)
    monkeypatch.setattr(benchmark, "bench", lambda *_, **__: replace(REPORT, speeds=[row]))
    lines = [re.split(r" *[│┃] *", line) for line in run("bench").stdout.splitlines()]
    (titles,) = (cells for cells in lines if "GPU MB" in cells)
    (found,) = (cells for cells in lines if "hd2s-lite" in cells)
    cells = dict(zip(titles, found, strict=True))
    assert (cells["engine"], cells["of peak"], cells["GPU MB"]) == ("torch-compile, cuda", "0.4%", "1234")


def test_json_and_options(asked: list[Any]) -> None:
    outcome = run(
        "bench", "--json", "--model", "hd2s", "--model", "hd2s-lite", "--engine", "torch", "--video", "a.mp4",
        "--device", "cpu", "--seconds", "0.5",
    )  # fmt: skip
    assert asked == [(["hd2s", "hd2s-lite"], ["torch"], "cpu", Path("a.mp4"), 0.5)]
    assert json.loads(outcome.stdout) == REPORT.to_dict()


def test_unknown_network_is_wrong_usage() -> None:
    outcome = run("bench", "--model", "hd2s-light")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "Unknown model 'hd2s-light'. Did you mean 'hd2s-lite'?" in outcome.stderr
