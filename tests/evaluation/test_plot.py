"""The picture of a report."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import hd2s
from fake_predictions import Scene, make_scene, write_all
from hd2s.errors import MissingExtraError, OutputError
from hd2s.evaluation.plot import draw
from hd2s.evaluation.report import Report


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = make_scene(tmp_path / "data")
    write_all(tmp_path / "mine", scene)
    return scene


@pytest.fixture
def report(scene: Scene, tmp_path: Path) -> Report:
    return hd2s.evaluate(scene.root, predictions=tmp_path / "mine", metrics=["cc", "kld"])


def test_a_plot_is_drawn(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = draw(report, tmp_path / "out" / "scores.png")
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 800
    assert picture.shape[1] == 1200
    upper, lower = picture[:350], picture[400:]
    assert np.ptp(upper) == 255  # boxes and points
    assert (lower.std(axis=2) > 20).mean() > 0.05  # pictures in colours
    assert [p.name for p in path.parent.iterdir()] == ["scores.png"]


def test_a_plot_does_without_pictures_that_are_gone(scene: Scene, report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for path in (scene.root / "frames" / "v1").iterdir():
        path.write_bytes(b"")
    assert draw(report, tmp_path / "scores.png").exists()


def test_a_plot_that_cannot_be_written_is_an_error(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write"):
        draw(report, tmp_path / "file" / "scores.png")


def test_without_matplotlib_the_extra_is_named(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[evaluate\]' in a clone"):
        draw(report, tmp_path / "scores.png")
