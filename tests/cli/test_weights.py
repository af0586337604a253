"""`hd2s weights` as a user sees it; the download itself is tested in tests/weights/test_download.py."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from command import run
from fakes import QuietHandler, serving
from hd2s.cli.app import app
from hd2s.weights.catalog import WEIGHTS
from hd2s.weights.download import cached_path

DATA = bytes(range(256)) * 500
URL = WEIGHTS["s3d-kinetics400"].url or ""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HD2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a server on this machine has for the weights 's3d-kinetics400'."""
    file = tmp_path / "web" / "net.pth"
    file.parent.mkdir()
    file.write_bytes(DATA)
    with serving(file.parent, QuietHandler) as address:
        record = dataclasses.replace(
            WEIGHTS["s3d-kinetics400"],
            url=f"{address}/net.pth",
            sha256=hashlib.sha256(DATA).hexdigest()[:8],
            size_bytes=len(DATA),
            size_is_exact=True,
        )
        monkeypatch.setitem(WEIGHTS, "s3d-kinetics400", record)
        yield file


def cells(line: str) -> list[str]:
    return re.split(r"  +", line.strip())


# --- info of a name; that of files is tested in test_published_weights.py -----------------------------


def test_info_of_a_name_is_the_whole_record() -> None:
    outcome = run("weights", "info", "hd2s-lite")
    assert (outcome.status, outcome.stderr) == (0, "")
    record = WEIGHTS["hd2s-lite"]
    for expected in (
        "name: hd2s-lite",
        "input: 16 frames of 192 x 320 (height x width)",
        "licence: Apache-2.0, commercial use allowed",
        f"parameters: {record.num_parameters:,}",
        f"size: {record.size_bytes:,} bytes",
        f"sha256: {record.sha256}",
        f"where: comes along: {record.path}",
        *(f"trained on: {data.name} [{data.license}]: {data.citation}" for data in record.trained_on),
        f"validation: HEVC: CC {record.scores['HEVC']['CC']:.3f}, NSS {record.scores['HEVC']['NSS']:.3f}, "
        f"KLD {record.scores['HEVC']['KLD']:.3f}",
        f"date: {record.date}",
        f"recipe: {record.recipe}",
    ):
        assert expected in outcome.stdout.splitlines()


@pytest.mark.parametrize("name", WEIGHTS)
def test_info_of_every_name(name: str) -> None:
    outcome = run("weights", "info", name)
    assert outcome.status == 0
    assert f"paper: {WEIGHTS[name].paper}\n" in outcome.stdout
    assert WEIGHTS[name].advice in outcome.stdout


def test_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hd2s").write_bytes((WEIGHTS["hd2s-lite"].path or tmp_path).read_bytes())
    assert "name: hd2s-lite\n" in run("weights", "info", "hd2s").stdout


def test_info_of_what_is_not_there() -> None:
    outcome = run("weights", "info", "hd2s-light")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert (
        "no weight file 'hd2s-light', nor are there weights of that name. Known: hd2s-lite" in outcome.stderr
    )


# --- list -------------------------------------------------------------------------------------------


def test_each_row_of_the_list_is_one_line_with_licence_size_and_place() -> None:
    outcome = run("weights", "list")
    assert (outcome.status, outcome.stderr) == (0, "")
    table, rest = outcome.stdout.split("\n\n", 1)
    assert [cells(line) for line in table.splitlines()] == [
        ["name", "network", "licence", "commercial use", "size", "where"],
        ["hd2s-lite", "hd2s-lite", "Apache-2.0", "yes", "5.3 MB", "comes along"],
        ["s3d-kinetics400", "hd2s", "BSD-3-Clause", "yes", "about 33.6 MB", "to be downloaded"],
        ["hd2s", "hd2s", "CC BY-NC 4.0", "no", "unknown", "no public link"],
        ["hd2s-da", "hd2s", "CC BY-NC 4.0", "no", "unknown", "no public link"],
        ["hd2s-dsl", "hd2s", "CC BY-NC 4.0", "no", "unknown", "no public link"],
    ]
    for name, record in WEIGHTS.items():
        (line,) = re.findall(rf"^{name}: Trained on (.*)$", rest, re.MULTILINE)
        assert all(f"{data.name} [{data.license}]" in line for data in record.trained_on)
    assert "\nhd2s, hd2s-da, hd2s-dsl: The published links are dead." in rest


def test_what_was_downloaded_is_in_the_cache() -> None:
    path = cached_path(URL)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    (line,) = (line for line in run("weights", "list").stdout.splitlines() if "BSD" in line)
    assert cells(line)[-1] == "in the cache"


@pytest.mark.parametrize("columns", [40, 76, 80, 120])
def test_list_loses_nothing_on_a_narrow_screen(columns: int) -> None:
    environment = {"COLUMNS": str(columns), "TTY_COMPATIBLE": "1", "TERM": "xterm"}
    text = CliRunner(env=environment).invoke(app, ["weights", "list"]).stdout
    assert max(map(len, text.splitlines())) <= columns
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    for record in WEIGHTS.values():
        assert re.search(rf"(^|name: ){record.name}\s", text, re.MULTILINE)
        assert record.license in text
    assert text.count("downloaded") == 1


@pytest.mark.parametrize("columns", ["40", "80"])
def test_list_in_a_pipe_does_not_depend_on_the_screen(columns: str) -> None:
    piped = CliRunner(env={"COLUMNS": columns}).invoke(app, ["weights", "list"])
    assert piped.stdout == run("weights", "list").stdout


def test_list_needs_no_torch() -> None:
    code = "import sys; from hd2s.cli.app import app; app(['weights', 'list'], standalone_mode=False)"
    script = f"{code}; print('torch' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    ).stdout
    assert printed.splitlines()[-1] == "False"


# --- get --------------------------------------------------------------------------------------------


def test_get_prints_the_path_and_shows_licence_and_progress(served: Path, cache: Path) -> None:
    outcome = run("weights", "get", "s3d-kinetics400")
    path = cache / "weights" / "net.pth"
    assert (outcome.status, outcome.stdout) == (0, f"{path}\n")
    assert path.read_bytes() == DATA
    licence, bar = outcome.stderr.splitlines()
    assert licence == (
        "s3d-kinetics400: licence BSD-3-Clause, commercial use allowed. "
        "Trained on Kinetics-400 [CC BY 4.0 (annotations)]."
    )
    assert re.search(r"^s3d-kinetics400 .*128\.0/128\.0 kB .*\d:\d\d:\d\d", bar)


def test_get_again_shows_no_progress_and_needs_no_server(served: Path) -> None:
    first = run("weights", "get", "s3d-kinetics400")
    served.unlink()
    again = run("weights", "get", "s3d-kinetics400")
    assert (again.status, again.stdout) == (0, first.stdout)
    assert again.stderr.splitlines() == first.stderr.splitlines()[:1]


def test_get_of_what_comes_along(cache: Path) -> None:
    outcome = run("weights", "get", "hd2s-lite")
    assert (outcome.status, outcome.stdout) == (0, f"{WEIGHTS['hd2s-lite'].path}\n")
    assert not cache.exists()


def test_get_of_a_file_that_is_gone(served: Path) -> None:
    served.unlink()
    outcome = run("weights", "get", "s3d-kinetics400")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert re.search(r"^hd2s: 's3d-kinetics400' could not be downloaded: .*404", outcome.stderr, re.MULTILINE)


def test_get_of_another_file(served: Path, cache: Path) -> None:
    served.write_bytes(DATA[::-1])
    outcome = run("weights", "get", "s3d-kinetics400")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert "its SHA-256 is" in outcome.stderr
    assert {path.suffix for path in cache.rglob("net*")} <= {".lock"}


def test_get_of_weights_without_a_link_says_how_to_point_to_a_copy() -> None:
    outcome = run("weights", "get", "hd2s-dsl")
    assert (outcome.status, outcome.stdout) == (1, "")
    licence, error = outcome.stderr.splitlines()
    assert licence.startswith("hd2s-dsl: licence CC BY-NC 4.0, commercial use not allowed. Trained on ")
    assert "hd2s predict VIDEO --model hd2s --weights FILE" in error
    assert "hd2s weights convert IN.pt OUT.safetensors" in error


def test_get_of_an_unknown_name_is_wrong_usage() -> None:
    outcome = run("weights", "get", "s3d-kinetics")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert "Unknown weights 's3d-kinetics'. Did you mean 's3d-kinetics400'? Known: hd2s, " in outcome.stderr


@pytest.mark.parametrize("arguments", [("get",), ("got", "hd2s"), ()])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run("weights", *arguments).status == 2
