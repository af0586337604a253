"""What README.md and docs/ show is true: code runs, commands work, links and options exist."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from typer.main import get_command

import networks
from command import run
from fakes import make_folder, make_video, moving_blob, write_image
from hd2s.cli.app import app
from hd2s.inference.writers import SAVE_KINDS
from hd2s.models import DomainHD2S
from hd2s.weights import io

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE_FRAMES = 24  # of the example clip: enough for a whole window, and quick


class Block(NamedTuple):
    """A fenced code block."""

    page: Path
    line: int
    kind: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: m.start()].count("\n") + 1, m[1].strip(), m[2]) for m in fences]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the inputs that the pages name, as the current one; OpenVINO seems not installed.

    Its graphs would be built first, which takes longer than all the rest.
    """
    find_spec = importlib.util.find_spec

    def without_openvino(name: str, *arguments: str) -> object:
        return find_spec(name, *arguments) if name != "openvino" else None

    monkeypatch.setattr(importlib.util, "find_spec", without_openvino)
    monkeypatch.chdir(tmp_path)
    for folder in ("examples", "clips"):
        (tmp_path / folder).mkdir()
    shorten(ROOT / "examples" / "bigbuckbunny.mp4", tmp_path / "examples" / "bigbuckbunny.mp4")
    make_video(tmp_path / "clip.mp4", audio=True)
    make_video(tmp_path / "talk.webm", codec="libvpx-vp9", num_frames=3)
    make_video(tmp_path / "clips" / "one.mp4", num_frames=3)
    make_video(tmp_path / "clips" / "two.mp4", num_frames=3)
    make_folder(tmp_path / "frames", num_frames=3)
    write_image(tmp_path / "photo.jpg", next(moving_blob(1)))
    return tmp_path


def shorten(source: Path, target: Path) -> None:
    """Copy the first pictures of a video."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        stream = part.add_stream_from_template(whole.streams.video[0])
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        for packet in packets[:EXAMPLE_FRAMES]:
            packet.stream = stream
            part.mux(packet)


# --- commands and code ------------------------------------------------------------------------------


def check_pip(arguments: list[str], clone: Path) -> None:
    """Check that the extras exist: installing is what `make test` has just done."""
    assert arguments[0] == "install"
    known = importlib.metadata.metadata("hd2s").get_all("Provides-Extra") or []
    for extra in re.findall(r"\[(.*?)\]", arguments[-1]):
        assert set(extra.split(",")) <= set(known)
    assert re.fullmatch(r"\.(\[.*\])?", arguments[-1])  # it is on no index of packages


def check_make(arguments: list[str], clone: Path) -> None:
    """Check that the targets exist."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(arguments) <= set(targets)


def make_weights(path: Path) -> None:
    """Write weights of a small network of the paper, as a stand-in for a published checkpoint."""
    domains = ("dhf1k",) if "dsl" in path.name else ()
    network = networks.plain("hd2s", domain_specific=bool(domains))
    model = DomainHD2S(network, domains) if domains else network
    io.save(path, model, io.Header(network="hd2s", spec=network.spec, domains=domains))


EXPORTED: dict[tuple[str, ...], dict[str, bytes]] = {}  # files, by the arguments of the command


def check_export(arguments: list[str], clone: Path) -> None:
    """Run `hd2s export`; it takes long, so its files are kept for the blocks that use them."""
    key = tuple(arguments)
    if key not in EXPORTED:
        outcome = run(*arguments)
        assert outcome.status == 0, outcome.stderr
        EXPORTED[key] = {name: (clone / name).read_bytes() for name in outcome.stdout.splitlines()}
    for name, data in EXPORTED[key].items():
        (clone / name).write_bytes(data)


def check_hd2s(arguments: list[str], clone: Path) -> None:
    """Run the command; of `hd2s train`, read the recipe. Checkpoints of the paper's network are made up."""
    if arguments[0] == "train":
        recipe = pytest.importorskip("hd2s.training.recipe")
        changes = [
            value for option, value in zip(arguments, arguments[1:], strict=False) if option == "--set"
        ]
        recipe.load_recipe(ROOT / arguments[1], changes)
        return
    if arguments[0] == "export":
        check_export(arguments, clone)
        return
    for word in arguments:
        if word.endswith(".pt"):
            make_weights(clone / word)
    outcome = run(*arguments)
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout
    for path in outcome.stdout.splitlines():
        assert (clone / path).exists()


COMMANDS: dict[str, Callable[[list[str], Path], None]] = {
    "pip": check_pip,
    "make": check_make,
    "hd2s": check_hd2s,
}


def check_console(text: str, clone: Path) -> None:
    for line in text.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words:
            assert words[0] in COMMANDS, (
                f"Nothing here can check the command '{line}': teach it to {__file__}."
            )
            COMMANDS[words[0]](words[1:], clone)


def check_python(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run code; a comment line that begins with a number shows a line that it prints."""
    exec(compile(text, "README", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()
    for shown in re.findall(r"^# (\d.*?)(?:  .*)?$", text, re.MULTILINE):
        assert shown in printed


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{block.page.name}:{block.line}" for block in BLOCKS])
def test_block_works(block: Block, clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if block.kind == "python":
        for line in block.page.read_text(encoding="utf-8").splitlines():
            if line.startswith("$ hd2s export"):  # the code uses the file
                check_console(line, clone)
        check_python(block.text, capsys)
    else:
        assert block.kind in ("console", "bash"), f"Nothing here can check a block of '{block.kind}'."
        check_console(block.text, clone)


def test_readme_has_blocks_of_both_kinds() -> None:
    kinds = [block.kind for block in BLOCKS if block.page == README]
    assert {"console", "python"} <= set(kinds)
    assert README.read_text(encoding="utf-8").count("```") == 2 * len(kinds), "a fence is not recognised"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("hd2s predict gone.mp4", "There is no file or folder"),
        ("hd2s predict clip.mp4 --sav csv", "No such option"),
        ("hd2s train recipes/heavy.toml", "does not exist"),
        ("make coffee", "coffee"),
        ("pip install '.[gpu]'", "gpu"),
        ("rm -rf out", "Nothing here can check"),
    ],
)
def test_the_check_of_commands_can_fail(text: str, error: str, clone: Path) -> None:
    with pytest.raises(Exception, match=re.escape(error)):
        check_console(f"$ {text}  # a comment", clone)


def test_the_check_of_code_can_fail(capsys: pytest.CaptureFixture[str]) -> None:
    check_python("print(1, 2)\n# 1 2  what it is", capsys)
    with pytest.raises(AssertionError):
        check_python("print(1, 3)\n# 1 2  what it is", capsys)


# --- names ------------------------------------------------------------------------------------------


def links(page: Path) -> list[str]:
    """Return what a page links to or shows, relative to itself; without addresses and places within it."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"", text)
    paths = [(a or b).partition("#")[0] for a, b in targets]
    return [path for path in paths if path and not re.match(r"[a-z]+:", path)]


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *PAGES[1:]], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "benchmarks|docs|examples|experiments|recipes|src|tests"
    named = re.findall(rf"\b((?:{folders})/[\w./-]+\.\w+)", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_options_that_are_named_exist() -> None:
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    known = {name for command in commands for parameter in command.params for name in parameter.opts}
    for page in PAGES:
        text = re.sub(
            r"\b(pip|python|torchrun|srun) .*", "", page.read_text(encoding="utf-8")
        )  # options of others
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))
        assert named <= known | {"--help", "--version"}, page.name


def test_all_kinds_of_results_are_described() -> None:
    text = README.read_text(encoding="utf-8")
    for kind, description in SAVE_KINDS.items():
        row = rf"^\| `(--)?{kind}` \| `clip{re.escape(description.suffix)}[`/]"
        assert re.search(row, text, re.MULTILINE), kind
