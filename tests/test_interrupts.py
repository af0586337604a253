"""Ctrl-C and SIGTERM end a command at once, whenever they come, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hd2s
from command import contents
from fake_engine import BrightEngine
from fakes import QuietHandler, make_video, serving
from hd2s.data.video import open_source

COMMAND = """
from hd2s import interrupts
from hd2s.cli.main import main

interrupts.listen()  # as `main` does first of all
print("ready", flush=True)
main()
"""
SCRIPT = """
import os, signal, sys, threading, time
from hd2s import interrupts

interrupts.listen()
interrupts.begin()
try:
    {}
    time.sleep(20)
except KeyboardInterrupt:
    print("raised")
threading.Thread(target=time.sleep, args=[20]).start()
interrupts.leave()
"""


class Silent(QuietHandler):
    """Sends half of a stream, or nothing at all, and then waits."""

    def do_GET(self) -> None:
        if self.path == "/half.ts":
            self.send_response(200)
            self.end_headers()
            data = Path(self.directory, "video.ts").read_bytes()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
        (Path(self.directory) / "asked").touch()
        while not Path(self.directory, "over").exists():
            time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path, Silent) as address:
        yield address
        (tmp_path / "over").touch()


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `hd2s` in a process group of its own; return when it listens."""
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    """Send a signal as a terminal does; return the exit status and the output."""
    os.killpg(process.pid, number)
    try:
        stdout, stderr = process.communicate(timeout=10)  # less than any wait for a server
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, stdout, stderr


def wait_for(path: Path, pattern: str) -> None:
    deadline = time.monotonic() + 60
    while not list(path.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0, 0.1, 0.2, 0.4, 0.8])
def test_signal_during_the_start(tmp_path: Path, delay: float, number: int) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3000)
    process = start("predict", clip, "-o", tmp_path / "out")
    time.sleep(delay)
    status, stdout, stderr = end(process, number)
    assert (status, stdout, "Traceback" in stderr) == (128 + number, "", False), stderr
    assert contents(tmp_path / "out") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_interruption_while_a_url_is_opened(tmp_path: Path, server: str, jobs: int) -> None:
    clip = make_video(tmp_path / "clip.mp4", num_frames=3000)
    inputs = [f"{server}/silent.mp4", clip][:jobs]
    process = start("predict", *inputs, "-o", tmp_path / "out", "--engine", "torch", "--jobs", jobs)
    wait_for(tmp_path, "asked")
    status, stdout, stderr = end(process)
    assert (status, stdout, "Traceback" in stderr) == (130, "", False), stderr
    assert contents(tmp_path / "out") == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_interruption_of_a_stream_that_has_stalled(tmp_path: Path, server: str, jobs: int) -> None:
    make_video(tmp_path / "video.ts", num_frames=1000)
    out = tmp_path / "out"
    inputs = [f"{server}/half.ts", f"{server}/silent.ts"][:jobs]
    process = start("predict", *inputs, "-o", out, "--save", "csv", "--engine", "torch", "--jobs", jobs)
    wait_for(out, ".half.csv-*/result.csv")  # made with the first map
    status, stdout, stderr = end(process)
    assert (status, stdout, "Traceback" in stderr) == (130, "", False), stderr
    assert contents(out) == ["half.csv"]


def test_leaving_a_loop_over_a_stream_that_has_stalled(tmp_path: Path, server: str) -> None:
    data = make_video(tmp_path / "video.ts", num_frames=1000).read_bytes()
    (tmp_path / "part.ts").write_bytes(data[: len(data) // 2])
    with open_source(tmp_path / "part.ts") as source:
        count = len(list(source))
    for frame in hd2s.predict(f"{server}/half.ts", model=BrightEngine()):
        if frame.index == count - 20:  # the rest has been read ahead, as far as it comes
            time.sleep(0.5)
            started = time.monotonic()
            break
    assert time.monotonic() - started < 10


def test_import_that_swallows_exceptions_does_not_swallow_an_interrupt(tmp_path: Path) -> None:
    (tmp_path / "careless.py").write_text(
        "import os, signal, time\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\nexcept BaseException:\n    pass\n"
    )
    assert outcome("import careless; print('imported')", tmp_path) == (130, "imported\nraised\n")


def test_interrupts_are_put_off_and_threads_not_waited_for(tmp_path: Path) -> None:
    body = "with interrupts.put_off(): os.kill(os.getpid(), signal.SIGTERM); print('done')"
    assert outcome(body, tmp_path) == (143, "done\nraised\n")


def test_signals_in_quick_succession_are_one(tmp_path: Path) -> None:
    body = (
        "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(5)\n"
        "    finally: os.kill(os.getpid(), signal.SIGINT); print('put away')"
    )
    assert outcome(body, tmp_path) == (130, "put away\nraised\n")


def outcome(body: str, folder: Path) -> tuple[int, str]:
    """Run some code; return the exit status and standard output."""
    command = [sys.executable, "-c", SCRIPT.format(body)]
    path = {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    process = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path}, timeout=15)
    return process.returncode, process.stdout
