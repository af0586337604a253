"""`hd2s evaluate` as a user sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import run
from fake_datasets import make_dhf1k
from fake_predictions import Scene, make_scene, write_all
from fakes import make_gaze_pack


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.chdir(tmp_path)
    scene = make_scene(Path("data"))
    write_all(Path("mine"), scene)
    return scene


def evaluate(*arguments: object) -> tuple[int, str, str]:
    outcome = run("evaluate", "data", "--predictions", "mine", "--jobs", 1, *arguments)
    return outcome.status, outcome.stdout, outcome.stderr


def test_predictions_on_disk_get_a_table_with_settings(scene: Scene) -> None:
    status, out, err = evaluate("--metrics", "cc, s-auc".replace("s-auc", "auc_shuffled"))
    assert status == 0
    lines = out.splitlines()
    assert lines[0].strip() == "generic, validation: 3 videos, 12 frames"
    assert [cell.strip() for cell in lines[2].split("┃")[1:-1]][1:4] == [
        "mine",
        "centre prior",
        "mean training map",
    ]
    assert [line.split("│")[1].strip() for line in lines if "↑" in line] == ["CC ↑", "s-AUC ↑"]
    assert "preset: plain (of no benchmark)" in lines
    assert "compared at: size of the ground truth" in lines
    assert any(line.startswith("negatives of s-AUC: fixations in all other videos") for line in lines)
    assert "3/3 videos" in err
    assert "12/12 frames" in err


def test_a_model_is_scored_and_files_are_named(
    bright: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    make_gaze_pack(tmp_path / "gaze")
    arguments = ["evaluate", "gaze", "--csv", "--plot", "--jobs", 1, "--metrics", "cc", "--every", 9]
    outcome = run(*arguments)
    assert outcome.status == 0
    assert outcome.stdout.splitlines()[0].strip() == "gaze, validation: 4 videos, 5 frames"
    files = outcome.stdout.splitlines()[-4:]
    assert files == [f"out/{name}" for name in ("frames.csv", "videos.csv", "dataset.csv", "scores.png")]
    assert all(Path(path).is_file() for path in files)


def test_json_is_the_only_output_if_asked_for(scene: Scene) -> None:
    status, out, _ = evaluate("--json", "--csv", "-o", "there")
    report = json.loads(out)
    assert status == 0
    assert report["files"] == ["there/frames.csv", "there/videos.csv", "there/dataset.csv"]
    assert report["predictors"][0]["metrics"]["cc"]["videos"] == 3


def test_a_video_that_fails_is_reported_and_the_status_is_1(scene: Scene) -> None:
    Path("mine/v2/5.png").unlink()
    status, out, err = evaluate()
    assert status == 1
    assert "hd2s: v2: The video v2 has 5 frames, but there are 4 predictions in mine/v2" in err
    assert "failed: 1 videos, which are not in the numbers" in out
    assert "generic, validation: 2 videos" in out


def test_debug_shows_the_traceback_of_a_video_that_fails(scene: Scene) -> None:
    Path("mine/v2/5.png").unlink()
    status, _, err = evaluate("--debug")
    assert status == 1
    assert "hd2s: v2: " in err
    assert "Traceback (most recent call last):" in err
    assert "in score" in err
    assert "DatasetFormatError: The video v2 has 5 frames, but there are 4 predictions" in err


def test_a_second_run_scores_nothing(scene: Scene) -> None:
    _, first, _ = evaluate()
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.npz")}
    _, second, _ = evaluate()
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.npz")} == before
    assert len(before) > 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--preset", "mti"], 2, "Unknown preset 'mti'. Did you mean 'mit'?"),
        (["--metrics", "auc"], 2, "Unknown metric 'auc'."),
        (["--split", "dev"], 2, "Unknown split of any other 'dev'."),
        (["--split", "test"], 1, "test.txt is missing"),
        (["--every", "0"], 2, "Invalid value for '--every'"),
        (["--submit", "mit"], 2, "Unknown benchmark to submit to 'mit'."),
        (["--submit", "dhf1k", "--csv"], 2, "does not score"),
    ],
)
def test_wrong_usage_is_named(scene: Scene, arguments: list[str], status: int, message: str) -> None:
    found, out, err = evaluate(*arguments)
    assert (found, out) == (status, "")
    assert message in " ".join(err.split())


def test_a_submission_is_written_and_judged(
    bright: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_dhf1k(tmp_path / "data")
    outcome = run("evaluate", "data", "--submit", "dhf1k")
    assert (outcome.status, outcome.stdout) == (0, "out/hd2s-lite\n")
    assert "hd2s: complete: 1 videos with 12 frames" in outcome.stderr
    Path("out/hd2s-lite/0701/0003.png").unlink()
    outcome = run("evaluate", "data", "--submit", "dhf1k", "--json")
    assert outcome.status == 1
    assert json.loads(outcome.stdout)["complete"] is False
    assert "0701: out/hd2s-lite/0701 holds 11 images" in outcome.stderr


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_and_keeps_what_is_done(scene: Scene) -> None:
    lengths = (3,) * 40
    make_scene(Path("many"), lengths)
    write_all(Path("theirs"), make_scene(Path("again"), lengths))
    command = [sys.executable, "-m", "hd2s.cli.main", "evaluate", "many", "--predictions", "theirs"]
    code = "import sys; from hd2s.cli.main import main; sys.argv = sys.argv[1:]; main()"
    command = [sys.executable, "-c", code, "hd2s", *command[3:], "--jobs", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(Path("out/scores").glob("*/v*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; complete results are kept" in err
    assert "Traceback" not in err
    done = list(Path("out/scores").glob("*/v*.npz"))
    assert 0 < len(done) < 40
