"""Conventions of benchmarks."""

from __future__ import annotations

import pytest

from hd2s.errors import UnknownNameError
from hd2s.metrics.modules import METRICS
from hd2s.metrics.presets import PRESETS, find


def test_presets_are_those_of_the_benchmarks() -> None:
    assert list(PRESETS) == ["dhf1k", "aim2024", "ntire2026", "mit"]
    for name, preset in PRESETS.items():
        assert find(name) is preset
        assert set(preset.metrics) <= set(METRICS)
        assert bool(preset.shuffled) == ("auc_shuffled" in preset.metrics)


def test_a_report_says_every_convention() -> None:
    assert find("dhf1k").describe().splitlines() == [
        "preset: dhf1k (Wang et al., CVPR 2018, with MIT's code)",
        "compared at: 360 x 640",
        "predictions: rounded to 8 bits",
        "coincident fixations: count once",
        "SIM: each map shifted to minimum 0, divided by its sum",
        "negatives of s-AUC: union of the fixation maps of other videos; 100 splits with as many negatives "
        "as fixations, seed 0",
        "frames: all; the benchmark's own tool scores a subset that is not published",
    ]
    challenge = find("ntire2026").describe()
    assert "compared at: size of the ground truth" in challenge
    assert "coincident fixations: count each" in challenge
    assert "negatives of s-AUC: not measured" in challenge


def test_an_unknown_preset_is_an_error_with_the_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'ntire2026'.*aim2024, dhf1k, mit, ntire2026"):
        find("ntire2025")
