"""The torchmetrics classes against the functions, over batches and processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed

from hd2s.metrics import functional
from hd2s.metrics.modules import METRICS, SIM, AUCShuffled, MapMetric

FUNCTIONS = {
    "cc": functional.cc,
    "sim": functional.sim,
    "kld": functional.kl_divergence,
    "nss": functional.nss,
    "ig": functional.information_gain,
    "auc_judd": functional.auc_judd,
    "auc_borji": functional.auc_borji,
    "auc_shuffled": functional.auc_shuffled,
}


def batch(name: str, seed: int = 0) -> tuple[Tensor, ...]:
    """What the metric takes, for six maps of which one is bad."""
    generator = torch.Generator().manual_seed(seed)
    prediction, density = torch.rand(2, 6, 5, 7, generator=generator)
    prediction[2, 0, 0] = torch.nan
    counts = (density > 0.7).long()
    if name in ("cc", "sim", "kld"):
        return prediction, density
    return prediction, counts, *({"ig": (density[:1],), "auc_shuffled": (counts.flip(0),)}.get(name, ()))


@pytest.mark.parametrize("name", list(METRICS))
def test_the_mean_over_batches_leaves_out_and_counts_bad_maps(name: str) -> None:
    metric = METRICS[name]()
    values = []
    for seed in range(3):
        metric.update(*batch(name, seed))
        values.append(FUNCTIONS[name](*batch(name, seed)))
    defined = torch.cat(values).double()[torch.cat(values).isfinite()]
    torch.testing.assert_close(metric.compute(), defined.mean())
    assert (metric.scored.item(), metric.skipped.item()) == (15, 3)
    metric.reset()
    assert metric.skipped.item() == 0


def test_settings_reach_the_functions() -> None:
    maps = batch("sim")
    metric = SIM(normalise="sum")
    metric.update(*maps)
    torch.testing.assert_close(metric.compute(), functional.sim(*maps, normalise="sum").nanmean().double())
    shuffled, given = AUCShuffled(seed=4, splits=3), batch("auc_shuffled")
    shuffled.update(*given, torch.arange(6))
    expected = functional.auc_shuffled(*given, seed=4, splits=3, keys=torch.arange(6))
    torch.testing.assert_close(shuffled.compute(), expected.nanmean().double())


def score_a_share(rank: int, folder: str) -> None:
    """One of two processes: score its own batches and write what it computes down."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    metric: MapMetric = METRICS["auc_judd"]()
    for seed in ((0,), (1, 2))[rank]:
        metric.update(*batch("auc_judd", seed))
    torch.save([metric.compute(), metric.skipped], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_compute_the_mean_over_all_maps(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(score_a_share, (str(tmp_path),), nprocs=2)
    alone = METRICS["auc_judd"]()
    for seed in range(3):
        alone.update(*batch("auc_judd", seed))
    for rank in range(2):
        result: list[Any] = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(result[0], alone.compute())
