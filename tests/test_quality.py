"""The protocol for judging weights: who is scored on what, and what stands beside it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_engine import BrightEngine
from fakes import make_gaze_pack
from hd2s.data.datasets import gaze
from hd2s.inference.engines import Maps

SCRIPT = Path(__file__).parents[1] / "experiments" / "quality.py"
VIDEOS = ("Lee", "Simo", "Vidyo1", "Tennis", "RaceHorsesC", "Cactus", "Traffic")  # all folds have one
STILLS = ("osie", "crowd", "scene")
Run = Callable[..., str]


class FileEngine(BrightEngine):
    """Takes what is bright for salient, or what is dark if the name of its weights says so."""

    def __init__(self, file: Path | None) -> None:
        super().__init__()
        self.file = file

    def slide(self, *arguments: Any, **options: Any) -> Maps:
        maps = super().slide(*arguments, **options)
        return Maps(1 - maps.saliency) if self.file and "dark" in self.file.name else maps


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("quality", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "quality", module)  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pack of seven videos with four frames to score each, and two images to score in each folder."""
    root = make_gaze_pack(tmp_path / "gaze", images=12, num_frames=40)
    for name in VIDEOS:
        for folder, suffix in (("videos", "mp4"), ("fixations", "csv")):
            source = root / "hevc" / folder / f"Kimono.{suffix}"
            if name != "Tennis":
                shutil.copy(source, source.with_name(f"{name}.{suffix}"))
    return root


@pytest.fixture
def seen(quality: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Weight files are not read; which one predicted what is noted."""
    seen: list[tuple[str, str]] = []
    predict = quality.hd2s.predict

    def noted(path: Path, *, model: FileEngine, stride: int) -> Any:
        seen.append((str(model.file), path.stem))
        return predict(path, model=model, stride=stride)

    monkeypatch.setattr(quality.hd2s, "load", lambda name, file: file)
    monkeypatch.setattr(quality.hd2s, "predict", noted)
    monkeypatch.setattr(quality, "open_engine", lambda file, precision: FileEngine(file))
    return seen


@pytest.fixture
def run(
    quality: Any,
    root: Path,
    seen: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the script in a folder with weight files and return what it prints."""
    monkeypatch.chdir(root.parent)
    files = [
        "bright.safetensors",
        "dark.safetensors",
        *(f"cv/fold{n}/weights.safetensors" for n in range(1, 6)),
    ]
    for file in map(Path, files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["quality.py", "--root", "gaze", *arguments])
        quality.main()
        return capsys.readouterr().out

    return run


def test_the_weights_that_come_along_are_scored_on_the_validation_videos(
    run: Run, seen: list[tuple[str, str]]
) -> None:
    scores = json.loads(run("--json"))
    assert list(scores) == ["hd2s-lite", "centre", "mean map", "viewers"]
    clips = [f"hevc/{name}" for name in sorted(VIDEOS) if name in gaze.VALIDATION_VIDEOS]
    assert list(scores["hd2s-lite"]) == list(scores["centre"]) == [*STILLS, *clips, "hevc"]
    assert list(scores["viewers"]) == [*clips, "hevc"]
    for clip, metrics in scores["hd2s-lite"].items():
        assert list(metrics) == ["CC", "SIM", "NSS", "AUC-J", "s-AUC", "KLD"]
        assert metrics["CC"] > 0.4
        assert metrics["AUC-J"] > 0.9
        assert metrics["CC"] > scores["mean map"][clip]["CC"]
    assert scores["centre"]["hevc/Lee"]["CC"] == pytest.approx(scores["centre"]["hevc/Simo"]["CC"])
    for name in scores:
        mean = np.mean([scores[name][clip]["NSS"] for clip in clips])
        assert scores[name]["hevc"]["NSS"] == pytest.approx(mean)
    assert len(seen) == 6 + len(clips)


def test_each_fold_is_predicted_by_its_own_weights(run: Run, seen: list[tuple[str, str]]) -> None:
    scores = json.loads(run("--weights", "cv/fold{fold}/weights.safetensors", "--json"))
    assert list(scores)[0] == "cv"
    assert {clip for clip in scores["cv"] if "/" in clip} == {f"hevc/{name}" for name in VIDEOS}
    assert set(scores["centre"]) == set(scores["cv"])
    for number, fold in enumerate(gaze.FOLDS, start=1):
        predicted = [stem for file, stem in seen if file == f"cv/fold{number}/weights.safetensors"]
        assert predicted[:6] == ["000", "010"] * 3
        assert predicted[6:] == sorted(set(VIDEOS) & fold)
    plain = json.loads(run("--weights", "bright.safetensors", "--json"))
    assert scores["cv"]["osie"] == pytest.approx(plain["bright"]["osie"])


def test_seeds_are_averaged(run: Run) -> None:
    files = "bright.safetensors", "dark.safetensors"
    scores = json.loads(run("--weights", *files, f"both={','.join(files)}", "--json"))
    one, other, both = scores["bright"]["osie"], scores["dark"]["osie"], scores["both"]["osie"]
    assert both["CC"] == pytest.approx((one["CC"] + other["CC"]) / 2)
    assert both["CC ±"] == pytest.approx(abs(one["CC"] - other["CC"]) / 2**0.5)
    assert one["CC"] > 0 > other["CC"]
    assert "CC ±" not in one
    assert not any("±" in metric for metric in scores["centre"]["hevc"])


def test_tables_are_markdown(run: Run) -> None:
    printed = run("--weights", "both=bright.safetensors,dark.safetensors", "--markdown")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    assert lines[0] == ["data", "predictor", "CC", "SIM", "NSS", "AUC-J", "s-AUC", "KLD"]
    assert lines[2][:2] == ["hevc", "both"]
    assert all("±" in cell for cell in lines[2][2:])
    assert ["osie", "mean map"] in [line[:2] for line in lines]
    second = lines.index(["CC, NSS", "both", "centre", "mean map", "viewers"])
    assert {len(line) for line in lines[second:]} == {5}
    assert [line[0] for line in lines[second + 2 :]][:3] == list(STILLS)
    assert lines[second + 2][-1] == ""


def test_tables_are_for_the_terminal_otherwise(run: Run) -> None:
    printed = run("--stride", "2")
    assert "hd2s-lite" in printed
    assert "hevc/Tennis" in printed


def test_the_mean_map_and_the_negatives_are_of_other_pictures(quality: Any, root: Path) -> None:
    for number, name in enumerate(("Kimono", *VIDEOS)):
        point = f"{6 * number + 0.5},16.5"
        rows = "".join(f"{viewer},0,2000,{point}\n" for viewer in range(6))
        table = root / "hevc" / "fixations" / f"{name}.csv"
        table.write_text("viewer,start_ms,duration_ms,x,y\n" + rows)
    images, parts = quality.open_pack(root, gaze.FOLDS)
    columns = {name: 6 * number for number, name in enumerate(("Kimono", *VIDEOS))}
    assert [[picture.path.stem for picture in part] for part in parts] == [
        sorted(set(VIDEOS) & fold) for fold in gaze.FOLDS
    ]
    for picture, fold in (
        (picture, fold) for part, fold in zip(parts, gaze.FOLDS, strict=True) for picture in part
    ):
        scored = [columns[name] for name in VIDEOS if name != picture.path.stem]
        assert picture.negatives.pixels.tolist() == [[16 * 48 + x for x in scored]]
        assert picture.negatives.counts.tolist() == [[6] * len(scored)]
        rows = picture.mean[round(16.5 / 32 * 192)]
        assert picture.mean.shape == (192, 256)
        trained = {name: rows[int((x + 0.5) / 48 * 256)] > 1e-3 for name, x in columns.items()}
        assert trained == {name: name not in fold for name in columns}
    others = gaze.stills(root, "validation", ["osie"])[1].points
    assert images[0].negatives.totals().tolist() == [len(others)]


def test_viewers_are_scored_in_halves(quality: Any, root: Path) -> None:
    rows = "".join(f"{viewer},0,2000,{5 if viewer % 2 else 40}.5,16.5\n" for viewer in range(6))
    (root / "hevc" / "fixations" / "Lee.csv").write_text("viewer,start_ms,duration_ms,x,y\n" + rows)
    _, ((lee,),) = quality.open_pack(root, [frozenset(("Lee",))])
    assert list(lee.looks) == [15, 23, 31, 39]
    apart = quality.score_viewers(lee)
    assert len(apart) == 4
    assert all(cc < 0 for cc, *_ in apart)
    one_half = {frame: (points, np.ones_like(even)) for frame, (points, even) in lee.looks.items()}
    assert quality.score_viewers(quality.replace(lee, looks=one_half)) == []


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (["bright.safetensors", "cv/fold{fold}/weights.safetensors"], "with and without {fold}"),
        (["bright.safetensors", "other/bright.safetensors"], "Two predictors are called 'bright': name them"),
        (["centre=bright.safetensors"], "Two predictors are called 'centre'"),
        (["new=bright.safetensors,lost.safetensors"], "There is no weight file lost.safetensors"),
        (["cv/{fold}.safetensors"], "no weight file cv/1.safetensors, cv/2.safetensors"),
    ],
)
def test_weights_that_do_not_go_together_are_refused_at_once(
    run: Run, seen: list[tuple[str, str]], weights: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        run("--weights", *weights)
    assert message in str(refused.value)
    assert not seen


def test_predictors_are_called_by_their_paths(quality: Any, run: Run) -> None:
    found = quality.read_weights(["bright.safetensors", "x=dark.safetensors", "cv/fold1/weights.safetensors"])
    assert list(found) == ["bright", "x", "fold1"]
    assert list(quality.read_weights(["cv/fold{fold}/weights.safetensors"])) == ["cv"]
