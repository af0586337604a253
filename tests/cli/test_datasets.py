"""`hd2s datasets` as a user sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command import run
from fake_datasets import make_avimos, make_dhf1k, make_shots
from hd2s.data.datasets import LAYOUTS


def test_the_list_tells_layout_splits_licence_and_paper() -> None:
    outcome = run("datasets", "list")
    assert (outcome.status, outcome.stderr) == (0, "")
    blocks = outcome.stdout.rstrip().replace("\n  ", "\0").splitlines()
    assert len(blocks) == len(LAYOUTS)
    for block, layout in zip(blocks, LAYOUTS.values(), strict=True):
        assert block.split("\0") == [
            f"{layout.name}: {layout.title}",
            f"layout: {layout.description}",
            f"splits: {', '.join(layout.splits)}",
            f"licence: {layout.license}",
            f"cite: {layout.citation}",
        ]
        assert all((layout.license, layout.citation, layout.description, layout.splits))


def test_a_check_counts_and_lists_what_is_odd(tmp_path: Path) -> None:
    outcome = run("datasets", "check", make_dhf1k(tmp_path))
    assert outcome.status == 0
    assert outcome.stdout.splitlines()[:6] == [
        "data set: DHF1K (dhf1k), split all",
        "videos: 5, 4 of them with maps or fixations",
        "frames: 60",
        "maps: 48",
        "fixations: 36",
        "short: 5 videos of fewer than 16 frames, which are continued by reflection",
    ]
    notes = outcome.stdout.splitlines()[6:]
    assert notes[-1] == "3 notes, 0 unusable"
    assert len(notes) == 4
    assert all(line.startswith(f"note: {tmp_path}") for line in notes[:-1])
    assert (
        f"note: {tmp_path}/annotation/0002/maps: 12 frames but 12 maps; none for the frames 3"
        in outcome.stdout
    )
    assert "5/5 videos" in outcome.stderr


def test_a_check_of_one_part_counts_that(tmp_path: Path) -> None:
    outcome = run("datasets", "check", make_dhf1k(tmp_path), "--split", "validation")
    assert "data set: DHF1K (dhf1k), split validation\nvideos: 2, 2 of them" in outcome.stdout


def test_what_cannot_be_used_fails_the_check(tmp_path: Path) -> None:
    root = make_shots(tmp_path, ["Run-Side-001", "Run-Side-002"])
    (root / "testing" / "Run-Side-002" / "maps" / "Run-Side-002_00013.png").write_bytes(b"no image")
    outcome = run("datasets", "check", root)
    assert outcome.status == 1
    assert outcome.stdout.splitlines()[-1] == "0 notes, 1 unusable"
    assert "unusable: " in outcome.stdout.splitlines()[-2]
    assert "Run-Side-002_00013.png" in outcome.stdout.splitlines()[-2]
    assert run("datasets", "check", root, "--split", "train").status == 0


def test_what_is_unusable_is_told_last(tmp_path: Path) -> None:
    root = make_shots(tmp_path, ["Run-Side-001", "Run-Side-002"])
    (root / "training" / "Run-Side-001" / "maps" / "Run-Side-001_00013.png").write_bytes(b"no image")
    (root / "testing" / "Run-Side-002" / "maps" / "Run-Side-002_00013.png").unlink()
    kinds = [line.split(":")[0] for line in run("datasets", "check", root).stdout.splitlines()]
    assert kinds[-3:] == ["note", "unusable", "1 notes, 1 unusable"]


def test_decoding_finds_damage_in_frames(tmp_path: Path) -> None:
    root = make_shots(tmp_path, ["Run-Side-001"])
    path = root / "training" / "Run-Side-001" / "images" / "Run-Side-001_00013.png"
    path.write_bytes(path.read_bytes()[:60])
    assert run("datasets", "check", root, "--split", "train").status == 0
    outcome = run("datasets", "check", root, "--split", "train", "--decode")
    assert outcome.status == 1
    assert "Run-Side-001_00013.png' cannot be read" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["nowhere"], 1, "There is no folder nowhere. These layouts are understood:\n  dhf1k: video/001.AVI"),
        (["data", "--name", "dhf1"], 2, "Unknown data set 'dhf1'. Did you mean 'dhf1k'?"),
        (["data", "--split", "dev"], 2, "Unknown split of NTIRE 2026 'dev'."),
        (["data/Videos"], 1, "No data set is recognised in data/Videos."),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, message: str
) -> None:
    make_avimos(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    outcome = run("datasets", "check", *arguments)
    assert (outcome.status, outcome.stdout) == (status, "")
    assert outcome.stderr.startswith(f"hd2s: {message}")


def test_help_does_without_torch_and_numpy() -> None:
    code = "import sys, hd2s.cli.datasets; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
