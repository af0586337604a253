"""`hd2s export` as a user sees it; the files themselves are tested in tests/inference/test_export.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command import contents, run
from hd2s.inference import export as exporting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the library was asked for; it does nothing. The folder of the test is the current one."""
    calls: list[Any] = []

    def export(*arguments: Any, **options: Any) -> list[Path]:
        calls.append((arguments, options))
        return [arguments[0], arguments[0].with_suffix(".bin")]

    monkeypatch.setattr(exporting, "export", export)
    monkeypatch.chdir(tmp_path)
    return calls


def test_options_and_paths(asked: list[Any]) -> None:
    outcome = run("export", "--format", "openvino", "--dynamic", "-o", "a/net.xml", "--domain", "films")
    assert (outcome.status, outcome.stdout) == (0, "a/net.xml\na/net.bin\n")
    arguments = (Path("a/net.xml"), "openvino", "hd2s-lite", None, "films")
    assert asked == [(arguments, {"dynamic": True, "overwrite": False})]


@pytest.mark.parametrize(("format", "name"), [("onnx", "hd2s-lite.onnx"), ("openvino", "hd2s-lite.xml")])
def test_file_is_named_after_the_model(format: str, name: str, asked: list[Any]) -> None:
    run("export", "--format", format)
    assert asked[0][0][0] == Path(name)


def test_unknown_format_is_wrong_usage(tmp_path: Path) -> None:
    outcome = run("export", "--format", "tflite", "-o", tmp_path / "net.tflite")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr == "hd2s: Unknown format 'tflite'. Known: onnx, openvino.\n"


def test_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("before")
    outcome = run("export", "-o", path)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert "exists already" in outcome.stderr
    assert path.read_text() == "before"


def test_missing_weights_leave_nothing(tmp_path: Path) -> None:
    outcome = run("export", "--model", "hd2s", "-o", tmp_path / "new" / "net.onnx")
    assert (outcome.status, outcome.stdout) == (1, "")
    assert "--weights FILE" in outcome.stderr
    assert contents(tmp_path) == []
