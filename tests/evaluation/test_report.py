"""Means, intervals, and a report as files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

import hd2s
from fake_predictions import make_scene, write_all
from hd2s.evaluation.protocol import METRICS, PLAIN
from hd2s.evaluation.report import Report, interval
from hd2s.evaluation.scoring import PREDICTION
from hd2s.evaluation.tables import to_dict, write_tables
from hd2s.metrics import functional, presets


@pytest.fixture
def report(tmp_path: Path) -> Report:
    scene = make_scene(tmp_path / "data")
    write_all(tmp_path / "mine", scene)
    return hd2s.evaluate(scene.root, predictions=tmp_path / "mine", metrics=["nss", "kld"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_interval_of_many_values_is_that_of_a_normal_distribution() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    error = values.std(ddof=1) / 400**0.5
    low, high = interval(values)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.05 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.05 * error)
    assert interval(values) == (low, high)


def test_the_interval_of_two_values_reaches_from_one_to_the_other() -> None:
    assert interval(np.array([1.0, 4.0])) == (1.0, 4.0)
    assert all(math.isnan(end) for end in interval(np.array([1.0])))


def test_tables_hold_all_three_levels(report: Report, tmp_path: Path) -> None:
    paths = write_tables(report, tmp_path / "out")
    assert [path.name for path in paths] == ["frames.csv", "videos.csv", "dataset.csv"]
    frames, videos, data = map(rows, paths)
    mine = [row for row in frames if row["predictor"] == "mine"]
    assert [(row["video"], row["frame"], row["fixations"]) for row in mine][2:4] == [
        ("v1", "2", "4"),
        ("v2", "0", "4"),
    ]
    assert len(mine) == 12
    assert len(frames) == 4 * len(mine)
    of_v2 = [float(row["nss"]) for row in mine if row["video"] == "v2"]
    (v2,) = (row for row in videos if (row["video"], row["predictor"]) == ("v2", "mine"))
    assert float(v2["nss"]) == pytest.approx(np.mean(of_v2), rel=1e-5)
    means = [float(row["nss"]) for row in videos if row["predictor"] == "mine"]
    (mean,) = (row for row in data if (row["predictor"], row["metric"]) == ("mine", "nss"))
    assert float(mean["mean"]) == pytest.approx(np.mean(means), rel=1e-5)
    assert mean["videos"] == "3"


def test_json_holds_what_the_tables_hold(report: Report) -> None:
    read = json.loads(json.dumps(to_dict(report), allow_nan=False))
    assert read["settings"]["preset"] == "plain (of no benchmark)"
    assert [p["label"] for p in read["predictors"]][:2] == ["mine", "centre prior"]
    found = read["predictors"][0]["metrics"]["kld"]
    assert found == report.mean(PREDICTION, "kld")._asdict()
    assert [video["frames"] for video in read["videos"]] == [3, 5, 4]
    assert read["videos"][0]["metrics"]["prediction"]["nss"] == report.videos[0].means[0, 0]


def test_every_metric_of_a_preset_can_be_measured() -> None:
    for preset in (*presets.PRESETS.values(), PLAIN):
        assert set(preset.metrics) <= set(METRICS)
    known = {"kld": "kl_divergence", "ig": "information_gain"}
    assert all(hasattr(functional, known.get(name, name)) for name in METRICS)
