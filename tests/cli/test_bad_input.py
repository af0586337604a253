"""What goes wrong with `hd2s predict`: a message, an exit status, no traceback, and nothing left behind."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from command import Outcome, contents, run
from fakes import file_size_limit, make_audio, make_folder, make_video, moving_blob, write_image
from hd2s.errors import InputNotFoundError
from hd2s.inference.writers import SAVE_KINDS


def check_failure(outcome: Outcome, message: str) -> None:
    """Check that a command ended with status 1, this message in one line, and no result."""
    assert outcome.status == 1
    assert outcome.stdout == ""
    assert f"hd2s: {message}" in outcome.stderr
    assert "Traceback" not in outcome.stderr


# --- inputs -----------------------------------------------------------------------------------------


def without_index(path: Path) -> None:
    """Write the beginning of an MP4 whose index would be at its end."""
    data = make_video(path).read_bytes()
    path.write_bytes(data[: data.index(b"moov")])


def mixed_folder(path: Path) -> None:
    make_folder(path, num_frames=3)
    write_image(path / "img2.png", next(moving_blob(1, 20, 30)))


def damaged_folder(path: Path) -> None:
    make_folder(path, num_frames=3)
    (path / "img3.png").write_bytes(b"no picture")


def spoiled_folder(path: Path) -> None:
    """Make a folder whose last image has a sound header, so that only reading it fails."""
    make_folder(path, num_frames=40)
    data = (path / "img40.png").read_bytes()
    (path / "img40.png").write_bytes(data[:60])


def bomb(path: Path, side: int) -> None:
    """Write a PNG of a few bytes that claims to be a picture of thousands of pixels a side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


BAD_INPUTS: list[tuple[str, Callable[[Path], object], list[str]]] = [
    # name, what makes it, what the message says
    ("gone.mp4", lambda path: None, ["There is no file or folder", "Inputs are video files, folders"]),
    (
        "*.avi",
        lambda path: None,
        ["The pattern '", "*.avi' matches nothing", "check the folder and the suffix"],
    ),
    ("a" * 300, lambda path: None, ["There is no file or folder"]),
    ("empty.mp4", lambda path: path.touch(), ["is empty", "Fetch or record it again"]),
    ("text.mp4", lambda path: path.write_text("no video\n" * 99), ["cannot be opened as a video"]),
    ("cut.mp4", without_index, ["cannot be opened as a video", "It may be cut off"]),
    ("sound.mp4", make_audio, ["has no video stream, only: audio", "Pass a file with pictures"]),
    ("none.mkv", lambda path: make_video(path, num_frames=0), ["cannot be opened as a video: End of file"]),
    ("void", Path.mkdir, ["has no images (.bmp, .jpeg, .jpg, .png", "It is empty"]),
    ("mixed", mixed_folder, ["differ in size", "img1.png' has 48x32", "img2.png' 30x20", "resize them"]),
    ("damaged", damaged_folder, ["img3.png' cannot be read", "Replace it"]),
    ("spoiled", spoiled_folder, ["img40.png' cannot be read: it is cut off", "Replace it"]),
    ("large.png", partial(bomb, side=10_000), ["claims 10000x10000 pixels", "at most 67108864 pixels"]),
    (
        "huge.png",
        partial(bomb, side=16_384),
        ["claims 268435456 pixels; at most 67108864", "make it smaller first"],
    ),
]


@pytest.mark.parametrize(
    ("name", "make", "parts"), BAD_INPUTS, ids=[name[:12].rstrip("a") or "long" for name, *_ in BAD_INPUTS]
)
def test_bad_input_is_reported_and_the_rest_is_done(
    bright: None,
    name: str,
    make: Callable[[Path], object],
    parts: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bad, good, out = tmp_path / name, make_video(tmp_path / "good.mp4", num_frames=3), tmp_path / "out"
    make(bad)
    outcome = run("predict", bad, "-o", out, "--save", "csv,overlay,maps")
    check_failure(outcome, f"{bad}: ")
    (message,) = (line for line in outcome.stderr.splitlines() if line.startswith("hd2s: "))
    for part in parts:
        assert part in message
    assert contents(out) == []
    batch = run("predict", bad, good, "-o", out, "--save", "csv,overlay")
    assert (batch.status, message in batch.stderr) == (1, True)
    assert batch.stdout.split() == [str(out / "good.csv"), str(out / "good_overlay.mp4")]
    assert contents(out) == ["good.csv", "good_overlay.mp4"]
    assert capfd.readouterr().err == "", "a library talks"


def test_video_without_its_end_is_predicted_as_far_as_it_goes(bright: None, tmp_path: Path) -> None:
    clip = make_video(
        tmp_path / "clip.mp4",
        num_frames=60,
        height=96,
        width=160,
        container_options={"movflags": "faststart"},
    )
    with av.open(str(clip)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    clip.write_bytes(clip.read_bytes()[: places[40] + 5])
    out = tmp_path / "out"
    outcome = run("predict", clip, "-o", out, "--save", "csv,overlay")
    assert outcome.status == 1
    assert outcome.stdout.split() == [str(out / "clip.csv"), str(out / "clip_overlay.mp4")]
    num_frames = len((out / "clip.csv").read_text().splitlines()) - 1
    assert 30 <= num_frames <= 42
    with av.open(str(out / "clip_overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == num_frames
    assert f"hd2s: {clip}: stopped after frame {num_frames - 1} of about 60" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_two_inputs_of_one_name_do_not_share_results(bright: None, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        make_video(tmp_path / folder / "clip.mp4", num_frames=2 if folder == "a" else 4)
    first, second = tmp_path / "a" / "clip.mp4", tmp_path / "b" / "clip.mp4"
    outcome = run("predict", first, second, "-o", tmp_path / "out", "--save", "csv", "--overwrite")
    assert outcome.status == 1
    assert f"hd2s: {second}: Its results would replace those of '{first}'" in outcome.stderr
    assert "Predict it into another folder" in outcome.stderr
    assert len((tmp_path / "out" / "clip.csv").read_text().splitlines()) == 1 + 2


# --- outputs ----------------------------------------------------------------------------------------


def test_output_below_a_file(bright: None, tmp_path: Path) -> None:
    clip, blocked = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "file"
    blocked.write_text("mine")
    outcome = run("predict", clip, "-o", blocked / "out", "--save", "csv,overlay")
    advice = "A file is where the folder should be: choose another folder (--output)."
    check_failure(
        outcome, f"{clip}: Cannot write '{blocked / 'out' / 'clip.csv'}': Not a directory. {advice}"
    )
    outcome = run("predict", clip, "-o", blocked, "--save", "csv,overlay")
    check_failure(outcome, f"{clip}: Cannot write '{blocked / 'clip.csv'}': File exists. {advice}")
    assert contents(tmp_path) == ["clip.mp4", "file"]


def test_full_disk(bright: None, tmp_path: Path) -> None:
    clip, out = make_video(tmp_path / "clip.mp4"), tmp_path / "out"
    out.mkdir()
    (out / "clip_saliency.npz").write_text("older")
    with file_size_limit(20_000):  # the archive wants 20 frames of 3 kB, the table 2 kB in all
        outcome = run("predict", clip, "-o", out, "--save", "csv,npz", "--overwrite")
    check_failure(outcome, f"{clip}: Cannot write '{out / 'clip_saliency.npz'}'")
    assert contents(out) == ["clip_saliency.npz"]
    assert (out / "clip_saliency.npz").read_text() == "older"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_standard_output_that_is_full(tmp_path: Path, options: list[str]) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3)
    command = [sys.executable, "-c", "from hd2s.cli.main import main; main()", "predict", str(clip)]
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*command, "-o", str(tmp_path), "--engine", "torch", *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert process.returncode == 1
    assert "No space left on device. Check standard output" in process.stderr
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr


# --- options ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "given", "known"),
    [
        ("--model", "hd2s-light", ["Unknown model 'hd2s-light'", "Did you mean 'hd2s-lite'?", "Known: hd2s"]),
        ("--device", "tpu", ["Unknown device 'tpu'", "Known: auto, cpu, cuda, cuda:N."]),
        ("--device", "cuda:x", ["Unknown device 'cuda:x'"]),
        ("--precision", "half", ["Unknown precision 'half'", "Known: auto, bfloat16, float32."]),
        ("--stride", "0", ["--stride", "greater than or equal to 1"]),
        ("--engine", "onnx", ["Unknown engine 'onnx'", "Known: auto, openvino, torch, torch-compile."]),
        ("--colormap", "virids", ["Unknown colormap 'virids'", "Did you mean 'viridis'?", "inferno, jet"]),
        ("--save", "csv,movie", ["Unknown kind of result 'movie'", ", ".join(sorted(SAVE_KINDS))]),
        ("--domain", "dhf1k", ["no domain 'dhf1k'"]),
        ("--bits", "12", ["Unknown number of bits '12'", "Known: 16, 8."]),
        ("--alpha", "2", ["--alpha", "1"]),
        ("--alpha", "much", ["--alpha"]),
        ("--colour", "turbo", ["No such option", "--colour"]),
    ],
)
def test_unknown_names_are_usage_errors_that_list_what_exists(
    option: str, given: str, known: list[str], tmp_path: Path
) -> None:
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "out"
    outcome = run("predict", clip, "-o", out, option, given)
    assert (outcome.status, outcome.stdout) == (2, "")
    for part in known:
        assert part in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert contents(out) == []


def test_command_without_inputs_is_a_usage_error() -> None:
    outcome = run("predict")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "Missing argument" in outcome.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    clip, out = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "out"
    outcome = run("predict", clip, "-o", out, "--device", "cuda")
    check_failure(outcome, "The CUDA device 'cuda' is not there: PyTorch finds none on this machine.")
    assert "Use --device cpu or auto." in outcome.stderr
    assert contents(out) == []


def test_openvino_runs_on_the_cpu_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    outcome = run("predict", "clip.mp4", "-o", tmp_path, "--engine", "openvino", "--device", "cuda")
    check_failure(outcome, "The engine 'openvino' runs on the CPU, not on 'cuda'")


def test_weights_that_cannot_be_used(tmp_path: Path) -> None:
    clip, weights = make_video(tmp_path / "clip.mp4", num_frames=3), tmp_path / "mine.safetensors"
    check_failure(run("predict", clip, "--weights", weights), f"The weight file {weights} does not exist.")
    weights.write_bytes(bytes(100))
    outcome = run("predict", clip, "-o", tmp_path / "out", "--weights", weights)
    check_failure(outcome, f"{weights} is damaged or no checkpoint")
    weights.write_text("no checkpoint " * 99)
    outcome = run("predict", clip, "-o", tmp_path / "out", "--weights", weights)
    assert "Give a .safetensors file, or a checkpoint as PyTorch writes it." in outcome.stderr
    assert contents(tmp_path / "out") == []


def test_debug_shows_where_an_error_comes_from(bright: None, tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="There is no file"):
        run("predict", tmp_path / "gone.mp4", "--debug")
    with pytest.raises(InputNotFoundError, match="matches nothing"):
        run("predict", tmp_path / "*.mp4", "--debug")


def test_names_are_printed_as_they_are(bright: None, tmp_path: Path) -> None:
    """Rich would read [bold] as markup and :smile: as a picture."""
    clip = tmp_path / "[bold]take :smile: 1.png"
    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8)).rename(clip)
    text = tmp_path / "[red] :smile:.mp4"
    text.write_text("no video\n" * 99)
    outcome = run("predict", clip, text, "-o", tmp_path / "out", "--save", "csv")
    assert "[bold]take :smile: 1.png " in outcome.stderr
    assert f"hd2s: {text}: '{text}' cannot be opened" in outcome.stderr
    assert outcome.stdout == f"{tmp_path / 'out' / '[bold]take :smile: 1.csv'}\n"
