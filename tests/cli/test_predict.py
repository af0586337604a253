"""`hd2s predict` as a user sees it: every input, every kind of result, repeated and interrupted runs."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import hd2s.inference.engines
from command import contents, run
from fake_engine import BrightEngine
from fakes import make_folder, make_video, moving_blob, serving, write_image

HEIGHT, WIDTH = 32, 48


def table(path: Path) -> list[dict[str, float]]:
    """Read a CSV result."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def shown(path: Path) -> tuple[list[float], tuple[int, int]]:
    """Return the times of a video's frames in seconds, and its (height, width)."""
    with av.open(str(path)) as container:
        times = [float(picture.pts * picture.time_base) for picture in container.decode(video=0)]
        stream = container.streams.video[0]
        return times, (stream.height, stream.width)


def expected_peaks(num_frames: int, width: int) -> list[float]:
    """Columns of the blob's centre in `moving_blob`."""
    return [width * (index + 0.5) / num_frames - 0.5 for index in range(num_frames)]


# --- results ----------------------------------------------------------------------------------------


def test_maps_in_between_are_interpolated(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=21)
    command = ["predict", clip, "--save", "npz", "--engine", "torch", "--precision", "float32"]
    assert run(*command, "-o", tmp_path, "--stride", 4).status == 0
    maps = np.load(tmp_path / "clip_saliency.npz")["saliency"].astype(np.float32)
    assert len(maps) == 21
    np.testing.assert_allclose(maps[6], (maps[4] + maps[8]) / 2, atol=1e-3)
    assert np.abs(maps[4] - maps[8]).max() > 0.01


def test_every_kind_of_result_with_the_network_that_comes_along(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", audio=True)
    out = tmp_path / "out"
    kinds = "overlay,video,maps,npz,gif,csv"
    outcome = run(
        "predict", clip, "-o", out, "--save", kinds, "--conspicuity", "--bits", 16, "--engine", "torch"
    )
    assert (outcome.status, outcome.stderr.count("20/20 frames")) == (0, 1)
    names = ["clip_overlay.mp4", "clip_saliency.mp4", "clip_maps", "clip_saliency.npz"]
    names += ["clip_overlay.gif", "clip.csv", "clip_conspicuity.mp4"]
    assert outcome.stdout.split() == [str(out / name) for name in names]
    maps = [f"clip_maps/{index:06d}.png" for index in range(20)]
    assert contents(out) == sorted(names + maps)
    source_times, _ = shown(clip)
    for name in ("clip_overlay.mp4", "clip_saliency.mp4", "clip_conspicuity.mp4"):
        times, size = shown(out / name)
        assert size == (HEIGHT, WIDTH)
        assert times == pytest.approx(source_times, abs=1e-3)
    with av.open(str(out / "clip_overlay.mp4")) as overlay:
        sound = sum(frame.samples / frame.sample_rate for frame in overlay.decode(audio=0))
    assert sound == pytest.approx(20 / 25, abs=0.1)
    with np.load(out / "clip_saliency.npz") as archive:
        saliency = archive["saliency"].astype(np.float32)
        assert saliency.shape == (20, HEIGHT, WIDTH)
        assert archive["conspicuity"].shape == (20, 4, HEIGHT, WIDTH)
    png = cv2.imread(str(out / "clip_maps" / "000007.png"), cv2.IMREAD_UNCHANGED)
    assert png.dtype == np.uint16
    assert np.abs(png / 65535 - saliency[7]).max() < 1e-3
    assert table(out / "clip.csv")[7]["peak_value"] == pytest.approx(saliency[7].max(), abs=1e-3)


def test_kinds_may_be_repeated(bright: None, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    outcome = run("predict", clip, "-o", tmp_path, "--save", "csv, gif", "--save", "csv", "--save", "npz")
    names = ["clip.csv", "clip_overlay.gif", "clip_saliency.npz"]
    assert outcome.stdout.split() == [str(tmp_path / name) for name in names]


def test_default_result_is_an_overlay_in_out(
    bright: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "clip.mp4", num_frames=3)
    assert run("predict", "clip.mp4").stdout == f"{Path('out', 'clip_overlay.mp4')}\n"
    assert contents(tmp_path / "out") == ["clip_overlay.mp4"]


def test_colormap_and_alpha_change_the_overlay(bright: None, tmp_path: Path) -> None:
    still = write_image(tmp_path / "still.png", np.full((HEIGHT, WIDTH, 3), 120, np.uint8))
    pictures = []
    for number, style in enumerate((["--alpha", 0], ["--alpha", 1], ["--alpha", 1, "--colormap", "bone"])):
        assert run("predict", still, "-o", tmp_path / f"{number}", *style).status == 0
        with av.open(str(tmp_path / f"{number}" / "still_overlay.mp4")) as container:
            pictures.append(next(container.decode(video=0)).to_ndarray(format="rgb24").mean(axis=(0, 1)))
    assert pictures[0] == pytest.approx([120] * 3, abs=4)
    assert np.abs(pictures[1] - pictures[0]).max() > 50
    assert np.abs(pictures[2] - pictures[1]).max() > 50


# --- inputs -----------------------------------------------------------------------------------------

UNEVEN = [0, 40, 80, 200, 240, 280, 500, 540, 580, 620]

INPUTS: dict[str, tuple[Callable[[Path], Path], list[float] | None]] = {
    # name: (what makes it, the times of its frames in seconds; None for 25 a second)
    "variable.mp4": (lambda path: make_video(path, num_frames=10, pts=UNEVEN), [t / 1000 for t in UNEVEN]),
    "variable.mkv": (lambda path: make_video(path, num_frames=10, pts=UNEVEN), [t / 1000 for t in UNEVEN]),
    "ten_bit.mkv": (
        lambda path: make_video(path, num_frames=10, codec="ffv1", pix_fmt="yuv420p10le"),
        None,
    ),
    "grey.mkv": (lambda path: make_video(path, num_frames=10, codec="ffv1", pix_fmt="gray"), None),
    "alpha.mkv": (lambda path: make_video(path, num_frames=10, codec="ffv1", pix_fmt="yuva420p"), None),
    "odd.avi": (
        lambda path: make_video(path, num_frames=10, codec="mpeg4", height=33, width=49),
        None,
    ),
    "loop.gif": (lambda path: make_video(path, num_frames=10, codec="gif", pix_fmt="rgb8"), None),
    "web.webm": (lambda path: make_video(path, num_frames=10, codec="libvpx-vp9"), None),
    "old.avi": (lambda path: make_video(path, num_frames=10, codec="mpeg4"), None),
    "small.mkv": (lambda path: make_video(path, num_frames=10, codec="libx265", height=48, width=64), None),
    "phone.mov": (lambda path: make_video(path, num_frames=10), None),
    "folder": (lambda path: make_folder(path, num_frames=10), None),
    "still.jpg": (lambda path: write_image(path, next(moving_blob(1, HEIGHT, WIDTH))), [0.0]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_every_input_gives_a_map_for_each_frame_in_its_place(bright: None, name: str, tmp_path: Path) -> None:
    make, times = INPUTS[name]
    times = times or [index / 25 for index in range(10)]
    source = make(tmp_path / name)
    assert run("predict", source, "-o", tmp_path / "out", "--save", "overlay,csv").status == 0
    rows = table(tmp_path / "out" / f"{source.stem}.csv")
    tolerance = 0.011 if name.endswith((".gif", ".mkv", ".webm")) else 1e-3  # their clocks tick more coarsely
    assert [row["index"] for row in rows] == list(range(len(times)))
    assert [row["time_seconds"] for row in rows] == pytest.approx(times, abs=tolerance)
    overlay_times, size = shown(tmp_path / "out" / f"{source.stem}_overlay.mp4")
    assert overlay_times == pytest.approx(times, abs=tolerance)
    width = {"odd.avi": 49, "small.mkv": 64}.get(name, WIDTH)
    assert size == ({"odd.avi": 34, "small.mkv": 48}.get(name, HEIGHT), width + width % 2)
    peaks = [row["peak_x"] for row in rows]
    assert peaks == pytest.approx(expected_peaks(len(times), width), abs=3)


def test_rotation_is_honoured(bright: None, tmp_path: Path) -> None:
    """Turned by 90 degrees counter-clockwise, what walks to the right walks upwards."""
    make_video(tmp_path / "phone.mp4", num_frames=10, rotation=90)
    assert run("predict", tmp_path / "phone.mp4", "-o", tmp_path, "--save", "overlay,csv").status == 0
    assert shown(tmp_path / "phone_overlay.mp4")[1] == (WIDTH, HEIGHT)
    upwards = [row["peak_y"] for row in table(tmp_path / "phone.csv")]
    assert upwards == pytest.approx(expected_peaks(10, WIDTH)[::-1], abs=3)


@pytest.mark.parametrize("num_frames", [1, 2, 15, 16, 17, 31])
def test_any_length_gives_a_map_for_each_frame(bright: None, num_frames: int, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=num_frames)
    assert run("predict", clip, "-o", tmp_path / "out", "--save", "csv,overlay").status == 0
    peaks = [row["peak_x"] for row in table(tmp_path / "out" / "clip.csv")]
    assert peaks == pytest.approx(expected_peaks(num_frames, WIDTH), abs=3)
    assert len(shown(tmp_path / "out" / "clip_overlay.mp4")[0]) == num_frames


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve `tmp_path` and give its address."""

    with serving(tmp_path) as address:
        yield address


def test_url(bright: None, server: str, tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", container_options={"movflags": "faststart"})
    outcome = run("predict", f"{server}/clip.mp4", "-o", tmp_path / "out", "--save", "csv,overlay")
    assert outcome.status == 0
    assert len(table(tmp_path / "out" / "clip.csv")) == 20
    missing = run("predict", f"{server}/gone.mp4", "-o", tmp_path / "other")
    assert missing.status == 1
    assert f"There is nothing at '{server}/gone.mp4'" in missing.stderr
    assert contents(tmp_path / "other") == []


# --- batches ----------------------------------------------------------------------------------------


def test_pattern_is_a_batch_in_natural_order_with_a_total(bright: None, tmp_path: Path) -> None:
    for number in (10, 9, 1):
        make_video(tmp_path / f"clip{number}.mp4", num_frames=number)
    outcome = run("predict", tmp_path / "clip*.mp4", "-o", tmp_path / "out", "--save", "csv")
    results = [tmp_path / "out" / f"clip{number}.csv" for number in (1, 9, 10)]
    assert (outcome.status, outcome.stdout.split()) == (0, [str(path) for path in results])
    bars = re.findall(r"^(\S+) .* (\d+/\d+ \w+)", outcome.stderr, re.MULTILINE)
    frames = [("clip1.mp4", "1/1 frames"), ("clip9.mp4", "9/9 frames"), ("clip10.mp4", "10/10 frames")]
    assert bars == [*frames, ("total", "3/3 inputs")]


def test_single_input_has_no_total(bright: None, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    assert "total" not in run("predict", clip, "-o", tmp_path / "out").stderr


def test_json_is_alone_on_standard_output(bright: None, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    gone, out = tmp_path / "gone.mp4", tmp_path / "out"
    outcome = run("predict", clip, gone, "-o", out, "--save", "csv,gif", "--json")
    assert outcome.status == 1
    assert "3/3 frames" in outcome.stderr
    done, failed = json.loads(outcome.stdout)
    assert (done["input"], done["status"], done["frames"], done["problems"]) == (str(clip), "done", 3, [])
    assert done["results"] == {"csv": str(out / "clip.csv"), "gif": str(out / "clip_overlay.gif")}
    assert 0 < done["first_map_seconds"] <= done["seconds"]
    assert (failed["input"], failed["status"], failed["frames"]) == (str(gone), "failed", 0)
    assert failed["results"] == {}
    assert "There is no file or folder" in failed["problems"][0]


# --- existing results -------------------------------------------------------------------------------


def test_existing_result_is_kept_and_missing_kinds_are_made(bright: None, tmp_path: Path) -> None:
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "out"
    out.mkdir()
    (out / "clip.csv").write_text("mine")
    before = (out / "clip.csv").stat().st_mtime_ns
    first = run("predict", clip, "-o", out, "--save", "csv")
    assert (first.status, first.stdout) == (0, f"{out / 'clip.csv'}\n")
    assert f"{clip}: skipped" in first.stderr
    assert "stay as they were made; for other options or weights use --overwrite" in first.stderr
    second = run("predict", clip, "-o", out, "--save", "csv,gif")
    assert second.status == 0
    assert "skipped" not in second.stderr
    assert contents(out) == ["clip.csv", "clip_overlay.gif"]
    assert ((out / "clip.csv").read_text(), (out / "clip.csv").stat().st_mtime_ns) == ("mine", before)


@pytest.mark.parametrize("name", ["clip.mp4", "frames"])
def test_result_that_is_older_than_its_input_is_made_again(bright: None, name: str, tmp_path: Path) -> None:
    source, out = tmp_path / name, tmp_path / "out"
    make = make_video if name == "clip.mp4" else make_folder
    make(source, num_frames=3)
    command = ("predict", source, "-o", out, "--save", "csv,maps", "--json")
    assert run(*command).status == 0
    later = time.time() - 1
    for path in (out / f"{source.stem}.csv", out / f"{source.stem}_maps"):
        os.utime(path, (later - 9, later - 9))
    for path in [source, *source.rglob("*")]:
        os.utime(path, (later, later))
    outcomes = [run(*command) for _ in range(2)]
    assert [json.loads(outcome.stdout)[0]["status"] for outcome in outcomes] == ["done", "skipped"]
    message = f"hd2s: {source.stem}: results that are incomplete or older than it are made again"
    assert [message in outcome.stderr for outcome in outcomes] == [True, False]


def test_input_from_the_future_is_not_made_again_for_ever(bright: None, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    os.utime(clip, (time.time() + 1e6, time.time() + 1e6))
    outcomes = [run("predict", clip, "-o", tmp_path, "--save", "csv") for _ in range(2)]
    assert ["skipped" in outcome.stderr for outcome in outcomes] == [False, True]


def test_partial_result_is_not_taken_for_complete(bright: None, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mkv", num_frames=60, height=96, width=160)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    for _ in range(2):
        outcome = run("predict", clip, "-o", tmp_path, "--save", "csv,maps")
        assert (outcome.status, len(outcome.stdout.split())) == (1, 2)
        assert "stopped after frame" in outcome.stderr


@pytest.mark.parametrize(("kind", "name"), [("csv", "clip.csv"), ("maps", "clip_maps")])
@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_folder_in_the_place_of_a_file_or_a_file_in_that_of_a_folder(
    bright: None, kind: str, name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    clip, place = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / name
    place.mkdir() if kind == "csv" else place.touch()
    outcome = run("predict", clip, "-o", tmp_path, "--save", kind, *options)
    given = "folder" if kind == "csv" else "file"
    assert (outcome.status, outcome.stdout) == (1, "")
    assert f"hd2s: {clip}: Cannot write '{place}': a {given} of that name is there." in outcome.stderr


def test_results_are_no_inputs(bright: None, tmp_path: Path) -> None:
    for name in ("clip.mp4", "cloud_overlay.mp4"):
        make_video(tmp_path / name, num_frames=3)
    command = ("predict", tmp_path / "c*", "-o", tmp_path, "--save", "overlay,maps", "--json")
    inputs = []
    for _ in range(3):
        outcome = run(*command)
        assert outcome.status == 0
        inputs.append([Path(entry["input"]).name for entry in json.loads(outcome.stdout)])
    assert inputs == [["clip.mp4", "cloud_overlay.mp4"]] * 3
    assert f"hd2s: left out, as they are results of other inputs in '{tmp_path}': 4" in outcome.stderr


def test_overwrite_replaces_all_kinds(bright: None, tmp_path: Path) -> None:
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "out"
    (out / "clip_maps").mkdir(parents=True)
    (out / "clip_maps" / "000099.png").write_text("old")
    (out / "clip.csv").write_text("old")
    assert run("predict", clip, "-o", out, "--save", "csv,maps", "--overwrite").status == 0
    assert len(table(out / "clip.csv")) == 3
    assert contents(out) == ["clip.csv", "clip_maps", *(f"clip_maps/00000{i}.png" for i in range(3))]


def test_rerun_of_a_batch_makes_only_what_is_missing(bright: None, tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_video(tmp_path / f"{name}.mp4", num_frames=3)
    (tmp_path / "c.mp4").write_text("being uploaded")
    command = ("predict", tmp_path / "*.mp4", "-o", tmp_path / "out", "--save", "csv", "--json")
    first = run(*command)
    assert (first.status, [entry["status"] for entry in json.loads(first.stdout)]) == (
        1,
        ["done", "done", "failed"],
    )
    (tmp_path / "out" / "b.csv").unlink()
    make_video(tmp_path / "c.mp4", num_frames=3)
    second = run(*command)
    statuses = [(entry["status"], entry["frames"]) for entry in json.loads(second.stdout)]
    assert (second.status, statuses) == (0, [("skipped", 0), ("done", 3), ("done", 3)])
    assert contents(tmp_path / "out") == ["a.csv", "b.csv", "c.csv"]


# --- Ctrl-C -----------------------------------------------------------------------------------------


def test_interruption_keeps_what_is_complete_and_nothing_else(
    bright: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "a.mp4", num_frames=3)
    make_video(tmp_path / "b.mp4", num_frames=60)

    class Interrupting(BrightEngine):
        count = 0

        def encode(self, frames: np.ndarray, before: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
            self.count += len(frames)
            if self.count > 50:
                raise KeyboardInterrupt
            return super().encode(frames, before)

    monkeypatch.setattr(hd2s.inference.engines, "open_engine", lambda *network, **options: Interrupting())
    outcome = run("predict", tmp_path / "?.mp4", "-o", tmp_path / "out", "--save", "csv,overlay,maps")
    assert outcome.status == 130
    assert outcome.stderr.endswith(
        "hd2s: interrupted; complete results are kept, and the same command again makes the rest\n"
    )
    maps = [f"a_maps/00000{index}.png" for index in range(3)]
    assert contents(tmp_path / "out") == ["a.csv", "a_maps", *maps, "a_overlay.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_running_command_at_once(tmp_path: Path, number: int) -> None:
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=1000), tmp_path / "out"
    command = [sys.executable, "-c", "from hd2s.cli.main import main; main()", "predict", str(clip)]
    with subprocess.Popen(
        [*command, "-o", str(out), "--save", "csv,overlay", "--engine", "torch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        deadline = time.monotonic() + 120
        while not list(out.glob(".clip.csv-*/result.csv")):  # made with the first map
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (128 + number, "")
    assert "hd2s: interrupted" in stderr
    assert "Traceback" not in stderr
    assert contents(out) == []
