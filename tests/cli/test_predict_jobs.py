"""`hd2s predict --jobs N`: several processes give what one gives, whatever happens to them."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer

from command import Outcome, contents
from command import run as run_command
from fake_engine import BrightEngine
from fakes import QuietHandler, make_video, serving
from hd2s.cli import predict as module
from hd2s.errors import InputNotFoundError
from hd2s.inference import crew

Run = Callable[..., Outcome]
Hook = Callable[[str], None]


class PyTorchNeeded:
    """Makes the process that it travels to look as if it had imported PyTorch, which takes seconds."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return exec, ("import sys; sys.modules.setdefault('torch', sys)",)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in `tmp_path` with a fake engine, which the command line could not pass on."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def run(*inputs: object, jobs: int = 2, debug: bool = False, **options: Any) -> Outcome:
        status = 0
        options = {"model": BrightEngine(), "save": ["csv"], **options}
        try:
            module.predict(inputs=[str(path) for path in inputs], jobs=jobs, debug=debug, **options)
        except typer.Exit as end:
            status = end.exit_code
        shown = capsys.readouterr()
        return Outcome(status, shown.out, shown.err)

    return run


@pytest.fixture
def at_first_frame(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Hook], None]:
    """Have something happen when the first frame of an input is done."""

    def have(name: str, happen: Hook) -> None:
        original, count = module._Bars.frame, itertools.count()

        def frame(bars: Any, path: str, total: int | None) -> None:
            original(bars, path, total)
            if path == name and next(count) == 0:
                happen(path)

        monkeypatch.setattr(module._Bars, "frame", frame)

    return have


def workers() -> list[Any]:
    return multiprocessing.active_children()


def rows(path: str | Path) -> int:
    return len(Path(path).read_text().splitlines()) - 1


def test_same_report_files_and_messages_as_one_process(run: Run, tmp_path: Path) -> None:
    for name, num_frames in {"a": 60, "b": 3, "c": 4}.items():
        make_video(tmp_path / f"{name}.mp4", num_frames=num_frames)
    (tmp_path / "bad.mp4").write_text("being uploaded")
    (tmp_path / "other").mkdir()
    make_video(tmp_path / "other" / "a.mp4", num_frames=2)
    inputs = ["a.mp4", "other/a.mp4", "bad.mp4", "b.mp4", "gone.mp4", "c.mp4"]
    outcomes = []
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        out.mkdir()
        (out / "b.csv").write_text("mine\n")
        outcomes.append(run(*inputs, jobs=jobs, output=out, as_json=True))
    assert workers() == []
    one, two = (json.loads(outcome.stdout.replace("out2", "out1")) for outcome in outcomes)
    for entry in one + two:
        assert (entry.pop("seconds", 1) > 0) == (entry["status"] != "skipped")
        entry.pop("first_map_seconds", None)
    assert two == one
    assert [entry["status"] for entry in two] == ["done", "failed", "failed", "skipped", "failed", "done"]
    assert "would replace those of 'a.mp4'" in two[1]["problems"][0]
    for outcome in outcomes:
        lines = outcome.stderr.splitlines()
        assert outcome.status == 1
        assert sum("60/60 frames" in line for line in lines) == 1
        assert sum("total" in line and "6/6 inputs" in line for line in lines) == 1
        assert sum(line.startswith("hd2s: b.mp4: skipped") for line in lines) == 1
        assert sum(line.startswith("hd2s: gone.mp4: There is no file") for line in lines) == 1
    assert contents(tmp_path / "out2") == ["a.csv", "b.csv", "c.csv"]
    for name in contents(tmp_path / "out2"):
        assert (tmp_path / "out2" / name).read_bytes() == (tmp_path / "out1" / name).read_bytes()


class Slow(QuietHandler):
    """Serves files after a while."""

    def do_GET(self) -> None:
        time.sleep(0.5)
        super().do_GET()


def test_name_belongs_to_the_first_input_that_has_it_however_slow(run: Run, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=2, container_options={"movflags": "faststart"})
    with serving(tmp_path, Slow) as address:
        outcome = run(f"{address}/a.mp4", "a.mp4", as_json=True)
    assert [entry["status"] for entry in json.loads(outcome.stdout)] == ["done", "failed"]


def test_inputs_are_worked_on_at_the_same_time_by_no_more_processes_than_inputs(
    run: Run, tmp_path: Path, at_first_frame: Callable[[str, Hook], None]
) -> None:
    seen = []
    for name in "ab":
        make_video(tmp_path / f"{name}.mp4", num_frames=3)
    at_first_frame("a.mp4", lambda path: seen.append(len(workers())))
    outcome = run("a.mp4", "b.mp4", jobs=9)
    assert (outcome.status, outcome.stdout.split()) == (0, ["out/a.csv", "out/b.csv"])
    assert seen == [2]


def test_one_input_needs_no_other_process(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.mp4", num_frames=3)
    monkeypatch.setattr(crew, "Crew", None)
    assert run("a.mp4").stdout == "out/a.csv\n"


def test_number_of_jobs_is_positive() -> None:
    outcome = run_command("predict", "a.mp4", "--jobs", 0)
    assert outcome.status == 2
    assert "--jobs" in outcome.stderr


def test_only_one_process_builds_graphs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait until it has its first map."""
    events = []
    for name in ("begin", "frame"):
        original = getattr(module._Bars, name)

        def noted(bars: Any, path: str, *rest: Any, name: str = name, original: Any = original) -> None:
            events.append((name, path))
            original(bars, path, *rest)

        monkeypatch.setattr(module._Bars, name, noted)
    (tmp_path / "bad.mp4").write_text("being uploaded")
    for name in "ab":
        make_video(tmp_path / f"{name}.mp4", num_frames=3)
    engine = BrightEngine()
    engine.name = "openvino"
    engine.network = PyTorchNeeded()
    assert run("bad.mp4", "a.mp4", "b.mp4", model=engine).status == 1
    assert events[:3] == [("begin", "bad.mp4"), ("begin", "a.mp4"), ("frame", "a.mp4")]
    assert ("begin", "b.mp4") in events[3:]


def test_killed_process_is_a_problem_of_its_input(
    run: Run, tmp_path: Path, at_first_frame: Callable[[str, Hook], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, num_frames in {"a": 1000, "b": 1000, "c": 3}.items():
        make_video(tmp_path / f"{name}.mp4", num_frames=num_frames)
    having, send = {}, crew._Worker.send

    def noted(worker: crew._Worker, text: str) -> None:
        having[text] = worker.process
        send(worker, text)

    monkeypatch.setattr(crew._Worker, "send", noted)
    for name in ("a.mp4", "b.mp4"):
        at_first_frame(name, lambda path: having[path].kill())
    outcome = run("a.mp4", "b.mp4", "c.mp4", as_json=True)
    *killed, done = json.loads(outcome.stdout)
    assert (outcome.status, done["status"], rows(done["results"]["csv"])) == (1, "done", 3)
    problem = "The process that predicted it was killed by signal 9, most likely because memory ran out."
    for entry in killed:
        assert (entry["status"], entry["results"]) == ("failed", {})
        assert entry["problems"][0].startswith(problem)
        assert f"hd2s: {entry['input']}: {problem}" in outcome.stderr


def test_debug_shows_where_an_error_comes_from(run: Run, tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=4000)
    with pytest.raises(InputNotFoundError, match="gone") as caught:
        run("a.mp4", "gone.mp4", debug=True)
    assert "in open_source" in str(caught.value.__cause__)
    assert (workers(), contents(tmp_path / "out")) == ([], [])


def test_engine_that_cannot_be_made_is_an_error_of_the_command(run: Run, tmp_path: Path) -> None:
    outcome = run("a.mp4", "b.mp4", model="hd2s-lite", engine="openvimo")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.strip().startswith("hd2s: Unknown engine 'openvimo'. Did you mean 'openvino'?")


class Streaming(QuietHandler):
    """Sends a file bit by bit; only that of b.ts has a known end."""

    def do_GET(self) -> None:
        data = Path(self.directory, "video.ts").read_bytes()
        self.send_response(200)
        if self.path == "/b.ts":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):
            for start in range(0, len(data), 4096):
                self.wfile.write(data[start : start + 4096])
                self.wfile.flush()
                time.sleep(0.05)


SCRIPT = """
import os, signal, sys, typer
from collections import Counter
from fake_engine import BrightEngine
from hd2s.cli import predict

counts, show = Counter(), predict._Bars.frame

def frame(bars, path, total):
    show(bars, path, total)
    counts[path] += 1
    if len(counts) == 3 and min(counts.values()) == 3:
        os.killpg(0, signal.SIGINT)  # as a terminal does

if __name__ == "__main__":
    predict._Bars.frame = frame
    try:
        predict.predict(sys.argv[1:], model=BrightEngine(), save=["csv,overlay"], jobs=2, debug=False)
    except typer.Exit as end:
        sys.exit(end.exit_code)
"""


def test_interrupt_signal_ends_all_processes_and_keeps_what_is_complete_and_live(tmp_path: Path) -> None:
    make_video(tmp_path / "a.mp4", num_frames=3)
    make_video(tmp_path / "video.ts", num_frames=3000)
    (tmp_path / "script.py").write_text(SCRIPT)
    with serving(tmp_path, Streaming) as address:
        process = subprocess.run(
            [sys.executable, "script.py", "a.mp4", f"{address}/b.ts", f"{address}/stream.ts"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
    assert (process.returncode, process.stdout) == (130, ""), process.stderr
    assert "hd2s: interrupted" in process.stderr
    assert "Traceback" not in process.stderr
    assert contents(tmp_path / "out") == ["a.csv", "a_overlay.mp4", "stream.csv", "stream_overlay.mp4"]
    assert rows(tmp_path / "out" / "stream.csv") >= 3
